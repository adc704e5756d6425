"""What a hub answers: to its agents, its clients and its MetaHub.

What is local is decided here or by the parts of the hub; everything else goes up the ``Uplink``, and
its answer is passed on. Every sender is stamped from its connection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

from loopal_cluster.address import Address
from loopal_cluster.completions import unwrap_result
from loopal_cluster.config import HubSettings, Policy
from loopal_cluster.core.agents import AgentRecord, AgentTree, Lifecycle
from loopal_cluster.core.asks import POLICY, Asks
from loopal_cluster.core.calls import Call, Origin
from loopal_cluster.core.circles import LINKS, check_circle, waits_of
from loopal_cluster.core.deliveries import Deliveries
from loopal_cluster.core.events import Peer
from loopal_cluster.core.exchange import LEG, Exchange, Refused
from loopal_cluster.core.kept import check_asked, check_envelope
from loopal_cluster.core.parties import AgentParty, ClientParty, check_may
from loopal_cluster.core.patience import seconds_for
from loopal_cluster.core.reconciler import Reconciler
from loopal_cluster.core.reports import Reports
from loopal_cluster.core.results import Results
from loopal_cluster.core.steps import HubThen
from loopal_cluster.core.supervisor import Supervisor
from loopal_cluster.core.timeline import Timeline
from loopal_cluster.core.uplink import Uplink
from loopal_cluster.core.waits import Waits
from loopal_cluster.errors import ErrorCode
from loopal_cluster.messages import (
    OK,
    Addressed,
    AgentDetails,
    AgentInfo,
    AgentNames,
    AgentSource,
    Ask,
    CancelAgent,
    ChannelSource,
    Control,
    ControlAgent,
    Decision,
    DeliverAsk,
    DeliverEnvelope,
    Envelope,
    Found,
    HubComplete,
    HubLost,
    HubReconcile,
    HubTopology,
    HumanSource,
    Interrupt,
    InterruptAgent,
    ListAgents,
    ListHubs,
    Message,
    MetaAsk,
    MetaRoute,
    MetaSpawn,
    MetaTopology,
    Permission,
    Ping,
    Question,
    Resolve,
    Route,
    ScheduledSource,
    ShutdownAgent,
    Source,
    SpawnAgent,
    SpawnSpec,
    Status,
    StatusInfo,
    Subscribe,
    SystemSource,
    Topology,
    UserContent,
    WaitAgent,
)
from loopal_cluster.records import define, evolve

__all__ = ["HubRequests"]


@define
class HubRequests:
    """Answers what a hub is asked."""

    _settings: HubSettings
    _exchange: Exchange[HubThen]
    _timeline: Timeline
    _uplink: Uplink
    _asks: Asks
    _agents: AgentTree
    _results: Results
    _deliveries: Deliveries
    _waits: Waits
    _reports: Reports
    _supervisor: Supervisor
    _reconciler: Reconciler
    _new_id: Callable[[], str]
    _epoch: float

    def on_agent_request(self, origin: Origin, party: AgentParty, message: Message[Any], now: float) -> None:
        """An agent of this hub asks."""
        record = party.record
        match message:
            case Route(envelope) | MetaRoute(envelope):
                self._route(origin, envelope, AgentSource(record.name), now)
            case Ask(envelope) | MetaAsk(envelope):
                waits = self._waits_of(record, origin.peer, envelope.for_ask)
                self._ask_agent(origin, envelope, AgentSource(record.name), now, waits)
            case SpawnAgent(spec) | MetaSpawn(spec):
                own = Address(record.name)
                self._spawn(origin, spec, caller=own, parent=own, depth=record.depth + 1, now=now)
            case Permission() | Question():
                policy = self._settings.policy.asked_in(record.spec.permission_mode)
                self._ask(origin, evolve(message, agent_name=record.name), policy, now)
            case _:
                self._on_common_request(origin, message, now)

    def on_client_request(
        self, origin: Origin, party: ClientParty, message: Message[Any], now: float
    ) -> None:
        """A program or a human asks."""
        check_may(party, message)
        match message:
            case Route(envelope) | MetaRoute(envelope):
                self._route(origin, envelope, source_of_client(envelope), now)
            case Ask(envelope) | MetaAsk(envelope):
                self._ask_agent(origin, envelope, source_of_client(envelope), now)
            case SpawnAgent(spec) | MetaSpawn(spec):
                # Not a parent, even if an agent has the same name.
                own = Address(party.name)
                self._spawn(origin, spec, caller=own, parent=None, depth=0, now=now, owner=origin.peer)
            case _:
                self._on_common_request(origin, message, now)

    def on_meta_hub_request(self, origin: Origin, message: Message[Any], now: float) -> None:
        """The MetaHub asks, mostly for another hub. Nothing of this may go up again."""
        match message:
            case DeliverEnvelope() | DeliverAsk():
                self._deliver(origin, message, now)
            case SpawnAgent(spec):
                self._spawn_for_remote(origin, spec, now)
            case Resolve(name):
                record = self._agents.local(name)
                self._exchange.answer(origin, Found(found=record is not None and record.peer is not None))
            case HubComplete(completion):
                self._supervisor.on_report(completion, now)
                self._exchange.answer(origin, OK)
            case HubReconcile():
                self._exchange.answer(origin, self._reconciler.answer(message, now))
            case HubLost(hub, reason):
                self._supervisor.on_hub_lost(hub, reason, now)
                self._exchange.answer(origin, OK)
            case (
                WaitAgent()
                | AgentInfo()
                | ControlAgent()
                | InterruptAgent()
                | ShutdownAgent()
                | CancelAgent()
            ):
                self._addressed(origin, message, now, may_escalate=False)
            case Permission() | Question():
                self._judge(origin, message, now)
            case Status() | ListAgents() | Topology():
                self._on_common_request(origin, message, now)
            case _:
                raise unknown(message)

    def _on_common_request(self, origin: Origin, message: Message[Any], now: float) -> None:
        match message:
            case (
                WaitAgent()
                | AgentInfo()
                | ControlAgent()
                | InterruptAgent()
                | ShutdownAgent()
                | CancelAgent()
            ):
                self._addressed(origin, message, now, may_escalate=True)
            case ListAgents():
                names = tuple(str(record.address) for record in self._agents)
                self._exchange.answer(origin, AgentNames(names))
            case Topology():
                nodes = tuple(record.node() for record in self._agents)
                self._exchange.answer(origin, HubTopology(nodes))
            case Status():
                self._exchange.answer(origin, self._status())
            case Ping():
                self._exchange.answer(origin, OK)
            case Subscribe(since):
                self._exchange.answer(origin, self._timeline.subscribe(origin.peer, since, now))
            case ListHubs() | MetaTopology() | Resolve():
                self._escalate(origin, message, now)
            case _:
                raise unknown(message)

    def _status(self) -> StatusInfo:
        return StatusInfo(
            agent_count=len(self._agents),
            uplink=self._uplink.info(self._epoch),
            hub=self._settings.name,
            agent_types=self._settings.agent_types,
            capabilities=self._settings.capabilities,
            late_answers=self._exchange.late_answers,
            waiting=only_some(
                approvals=len(self._asks),
                waits=len(self._waits),
                reports=len(self._reports),
                for_meta_hub=self._uplink.outstanding(),
            ),
        )

    def _escalate(
        self, origin: Origin, message: Message[Any], now: float, *, timeout: float | None = None
    ) -> None:
        timeout = self._settings.timeouts.call_timeout if timeout is None else timeout
        self._uplink.call(message, origin, now + timeout + 2 * LEG, now=now)

    # Messages.

    def _route(self, origin: Origin, envelope: Envelope, source: Source, now: float) -> None:
        check_envelope(envelope, self._settings.limits.text_bytes)
        record, target = self._locate(envelope.target)
        if record is not None:
            envelope = sent_by(source, envelope, target, envelope.timeout_ms)
            self._deliveries.deliver(record, DeliverEnvelope(envelope), origin, now)
        else:
            envelope = sent_by(self._answerable(source), envelope, target, envelope.timeout_ms)
            self._escalate(origin, MetaRoute(envelope), now)

    def _answerable(self, source: Source) -> Source:
        """Say where the sender is, if the MetaHub is a base one, which passes it on as it is."""
        if self._uplink.cluster is None and isinstance(source, AgentSource):
            return AgentSource(f"{self._settings.name}/{source.name}")
        return source

    def _waits_of(self, record: AgentRecord, peer: Peer, for_ask: int | None) -> tuple[str, ...]:
        """Who waits for an ask that an agent of this hub makes."""
        calls = self._exchange.calls
        if for_ask is None:
            held: Iterable[Call[Any] | None] = islice(calls.to(peer), LINKS)
        else:
            held = (calls.find(peer, for_ask),)
        asks = [
            call.message.envelope
            for call in held
            if call is not None and isinstance(call.message, DeliverAsk)
        ]
        return waits_of(f"{self._settings.name}/{record.name}", asks, serves=for_ask is not None)

    def _check_circle(self, record: AgentRecord, waits: tuple[str, ...], origin: Origin) -> None:
        """Let an ask pass if its target can reply.

        Raises:
            Refused: it waits itself for the reply, and its turn with it.
        """
        # One that has given up its ask meanwhile waits no longer, and who works on that has not heard of it.
        if record.peer is None or not waits:
            return
        asked = [
            call.message.envelope.target.on(self._settings.name)
            if isinstance(call.message, DeliverAsk)
            else call.message.envelope.target
            for call in self._exchange.calls_for(record.peer)
            if isinstance(call.message, DeliverAsk | MetaAsk)
        ]
        if asked or record.peer == origin.peer:
            check_circle(f"{self._settings.name}/{record.name}", waits, asked)

    def _ask_agent(
        self,
        origin: Origin,
        envelope: Envelope,
        source: Source,
        now: float,
        waits: tuple[str, ...] = (),
    ) -> None:
        check_envelope(envelope, self._settings.limits.text_bytes)
        record, target = self._locate(envelope.target)
        timeout_ms = envelope.timeout_ms
        if timeout_ms is None:
            timeout_ms = int(self._settings.timeouts.ask_timeout * 1000)
        timeout_ms = max(0, timeout_ms)
        envelope = sent_by(source, envelope, target, timeout_ms, waits)
        if record is not None:
            self._check_circle(record, waits, origin)
            self._deliveries.deliver(record, DeliverAsk(envelope), origin, now)
        elif self._uplink.joined and not self._uplink.speaks("ask"):
            raise Refused(ErrorCode.METHOD_NOT_FOUND, "the MetaHub can pass messages on, but no asks")
        else:
            self._escalate(origin, MetaAsk(envelope), now, timeout=timeout_ms / 1000)

    def _locate(self, address: Address) -> tuple[AgentRecord | None, Address]:
        """The agent if it is here; None if the MetaHub is to be asked, and the name to ask for.

        Raises:
            Refused: it is not here, and nobody else can have it.
        """
        is_own = self._is_own(address)
        target = address.on(None) if is_own else address
        record = self._agents.find(target)
        if record is not None and record.hub is None:
            return record, target
        if is_own:
            raise self._not_found(target)
        if not self._uplink.expected:
            detail = f"agent '{target}' not found locally and no MetaHub uplink configured"
            raise Refused(ErrorCode.AGENT_NOT_FOUND, detail)
        return None, target if record is None else record.address

    def _deliver(self, origin: Origin, message: DeliverEnvelope | DeliverAsk, now: float) -> None:
        envelope = message.envelope
        # Of an agent its name: a record's hash is dear, and it is looked for many times.
        source = envelope.source.name if isinstance(envelope.source, AgentSource) else envelope.source
        receipt = (message.method, envelope.origin_hub, source, envelope.id)
        if self._deliveries.repeat(origin, receipt, self._uplink.first_sent(envelope.asked_ms)):
            return
        if isinstance(message, DeliverEnvelope) and self._settle_base_report(origin, envelope, now):
            return
        check_envelope(envelope, self._settings.limits.text_bytes)
        target = self._own(envelope.target)
        record = self._agents.local(target.agent)
        if record is None or target.hub is not None:
            raise self._not_found(target)
        if isinstance(message, DeliverAsk):
            self._check_circle(record, envelope.waits, origin)
        if target is not envelope.target or envelope.asked_ms is not None:
            message = type(message)(evolve(envelope, target=target, asked_ms=None))
        self._deliveries.deliver_once(record, message, origin, receipt, now)

    def _settle_base_report(self, origin: Origin, envelope: Envelope, now: float) -> bool:
        """Take an outcome in the base dialect for what it is.

        Raises:
            Refused: it names an agent that we never had that hub run. Anybody could write that text.
        """
        if envelope.source != SystemSource("agent-completed") or not isinstance(
            envelope.content, UserContent
        ):
            return False
        if (report := unwrap_result(envelope.content.text)) is None:
            return False
        name, output = report
        if not self._supervisor.on_base_report(envelope.origin_hub, name, output, now):
            raise Refused(ErrorCode.AGENT_NOT_FOUND, f"no agent '{name}' was spawned there from here")
        self._exchange.answer(origin, OK)
        return True

    # Agents.

    def _spawn(
        self,
        origin: Origin,
        spec: SpawnSpec,
        *,
        caller: Address,
        parent: Address | None,
        depth: int,
        now: float,
        owner: Peer | None = None,
    ) -> None:
        if spec.target_hub is None or spec.target_hub == self._settings.name:
            spec = evolve(spec, target_hub=None)
            self._supervisor.spawn_here(spec, origin, parent=parent, depth=depth, now=now, owner=owner)
        else:
            self._supervisor.spawn_there(
                spec, origin, parent=parent, caller=caller, depth=depth, now=now, owner=owner
            )

    def _spawn_for_remote(self, origin: Origin, spec: SpawnSpec, now: float) -> None:
        parent = None if spec.parent is None else Address.parse(spec.parent)
        # The caller's working directory means nothing here.
        spec = evolve(spec, cwd=None, target_hub=None)
        owner = self._uplink.cluster if parent is None else None
        depth = max(0, spec.depth)
        # A parent that we ourselves had started there: nobody needs to tell us how deep it is.
        if parent is not None and parent.hub and (shadow := self._agents.find(parent)) is not None:
            depth = max(depth, shadow.depth + 1)
        self._supervisor.spawn_here(spec, origin, parent=parent, depth=depth, now=now, owner=owner)

    def _addressed(self, origin: Origin, message: Addressed, now: float, *, may_escalate: bool) -> None:
        """Anything about one agent: here if it is here, else up, and down to the hub that has it."""
        address = self._own(message.agent)
        agent_id = getattr(message, "agent_id", None)
        # Named on this hub, or asked by the MetaHub, it is an agent of this hub and no shadow.
        only_here = self._is_own(message.agent) or not may_escalate
        if agent_id is not None:
            record = self._agents.get(agent_id)
        else:
            record = self._agents.local(address.agent) if only_here else self._agents.find(address)
        may_be_shadow = isinstance(message, WaitAgent | CancelAgent | AgentInfo)
        if record is not None and (record.hub is None or may_be_shadow):
            self._on_live_agent(origin, message, record, now)
        elif record is None and self._answer_finished(origin, message, address, agent_id, only_here):
            pass
        elif not only_here and self._uplink.expected:
            target = address if record is None else record.address
            timeout = seconds_for(message, self._settings.timeouts)
            self._escalate(origin, evolve(message, agent=target), now, timeout=timeout)
        else:
            raise self._not_found(address)

    def _answer_finished(
        self, origin: Origin, message: Addressed, address: Address, agent_id: str | None, only_here: bool
    ) -> bool:
        """Answer from the outcomes we keep; False if that is not for us to say."""
        finished = self._results.find(address, agent_id)
        if finished is None:
            return False
        if agent_id is None and finished.address.hub is not None and (only_here or address.hub is not None):
            return False  # that hub may run another agent of the name by now
        if isinstance(message, WaitAgent | CancelAgent):
            self._exchange.answer(origin, finished.waited(brief=message.brief))
        elif isinstance(message, AgentInfo):
            self._exchange.answer(origin, finished.details(brief=message.brief))
        else:
            return False
        return True

    def _on_live_agent(self, origin: Origin, message: Addressed, record: AgentRecord, now: float) -> None:
        match message:
            case WaitAgent():
                timeout = seconds_for(message, self._settings.timeouts)
                self._waits.park(record, origin, timeout, now, brief=message.brief)
            case AgentInfo():
                node = record.node()
                self._exchange.answer(
                    origin,
                    AgentDetails(
                        name=node.name,
                        lifecycle=node.lifecycle,
                        parent=node.parent,
                        children=node.children,
                        model=node.model,
                        id=node.id,
                        type=node.type,
                        hub=node.hub,
                    ),
                )
            case CancelAgent(reason=reason, timed_out=timed_out):
                timeout = self._settings.timeouts.spawn_timeout
                self._waits.park(record, origin, timeout, now, brief=message.brief)
                self._supervisor.stop(record, reason, now, timed_out=timed_out)
            case ShutdownAgent():
                record.stoppers.append(origin)
                self._supervisor.stop(record, "shutdown", now)
            case InterruptAgent():
                self._exchange.notify(self._running(record), Interrupt())
                self._exchange.answer(origin, OK)
            case ControlAgent(command=command):
                deadline = now + self._settings.timeouts.call_timeout
                self._exchange.call(self._running(record), Control(command), origin, deadline)

    def _running(self, record: AgentRecord) -> Peer:
        if record.peer is None or record.lifecycle is Lifecycle.SPAWNING:
            raise Refused(ErrorCode.AGENT_NOT_FOUND, f"agent '{record.name}' is not up yet")
        return record.peer

    # Humans.

    def _ask(self, origin: Origin, message: Permission | Question, policy: Policy, now: float) -> None:
        check_asked(message, self._settings.limits.text_bytes)
        timeout = self._settings.timeouts.permission_timeout
        if isinstance(message, Permission) and policy is not Policy.SUPERVISED:
            allow = policy is Policy.BYPASS
            reason = f"the policy of hub '{self._settings.name}' is {policy.value}"
            self._exchange.answer(origin, Decision(allow=allow, reason=reason, by=POLICY))
            return
        if isinstance(message, Question) and policy is Policy.DENY:
            raise Refused(ErrorCode.NO_OPERATOR, f"hub '{self._settings.name}' does not pass questions on")
        self._asks.park(self._new_id(), origin, message, hub="", now=now, timeout=timeout)

    def _judge(self, origin: Origin, message: Permission | Question, now: float) -> None:
        """Let our operators answer for an agent of another hub, whose policy it was to ask."""
        timeout = seconds_for(message, self._settings.timeouts)
        hub = (message.agent_name or "").partition("/")[0]  # by which the MetaHub has qualified it
        self._asks.park(self._new_id(), origin, message, hub=hub, now=now, timeout=timeout, relayed=True)

    # Names.

    def _own(self, address: Address) -> Address:
        return address.on(None) if self._is_own(address) else address

    def _is_own(self, address: Address) -> bool:
        return address.hub == self._settings.name

    def _not_found(self, address: Address) -> Refused:
        return Refused(ErrorCode.AGENT_NOT_FOUND, f"no agent '{address}' on hub '{self._settings.name}'")


def sent_by(
    source: Source,
    envelope: Envelope,
    target: Address,
    timeout_ms: int | None,
    waits: tuple[str, ...] = (),
) -> Envelope:
    """An envelope as it leaves the hub of its sender, who is who we say, whatever it says."""
    # Not ``evolve``, which costs three times as much: this is done for every message.
    return Envelope(
        envelope.id,
        source,
        target,
        envelope.content,
        envelope.timestamp,
        None,  # the MetaHub says it, and to those here it is no other hub
        timeout_ms,
        envelope.extend,
        waits=waits,
    )


def source_of_client(envelope: Envelope) -> Source:
    """Whom a client speaks for: a human, unless it says that it brings something else."""
    source = envelope.source
    return source if isinstance(source, ChannelSource | ScheduledSource) else HumanSource()


asked_timeout = seconds_for


def only_some(**counts: int) -> dict[str, int]:
    """The counts that are not 0."""
    return {name: count for name, count in counts.items() if count}


def unknown(message: Message[Any]) -> Refused:
    """A method that exists, but not for this party."""
    family = message.method.partition("/")[0]
    if family in ("hub", "meta"):
        return Refused(ErrorCode.METHOD_NOT_FOUND, f"unknown {family} method: {message.method}")
    return Refused(ErrorCode.METHOD_NOT_FOUND, f"unknown: {message.method}")
