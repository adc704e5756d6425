"""The agents of a hub, from spawn to outcome.

Every spawn has an owner and ends in exactly one outcome; ``_settle`` is the one place where that
happens. An agent of this hub is started by the runtime (``StartAgent``), initialised, begun, and
settled when it says ``agent/completed`` or is gone. An agent on another hub is a shadow here, settled
when that hub reports its outcome. Stopping asks first (interrupt, shutdown), then has the runtime
terminate and kill; it is reported only when the agent is gone.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from contextlib import suppress

from attrs import define, evolve, field

from loopal_cluster.address import Address, check_name
from loopal_cluster.config import HubSettings
from loopal_cluster.core.agents import AgentRecord, AgentTree, Lifecycle
from loopal_cluster.core.calls import Origin
from loopal_cluster.core.deadlines import DeadlineQueue
from loopal_cluster.core.effects import StartAgent, StopAgent
from loopal_cluster.core.events import Peer
from loopal_cluster.core.exchange import Exchange, Refused
from loopal_cluster.core.receipts import UNCERTAIN, Receipts
from loopal_cluster.core.reports import base_outcome, completion_envelope
from loopal_cluster.core.results import FinishedAgent, Results
from loopal_cluster.core.steps import (
    Delivering,
    HubThen,
    Initializing,
    Reconciling,
    ReportDue,
    Reporting,
    Revoking,
    SpawningRemotely,
    StartDue,
    Starting,
    Stopping,
    StoppingRemotely,
    Timer,
    WaitDue,
)
from loopal_cluster.core.timeline import Timeline
from loopal_cluster.core.uplink import Uplink
from loopal_cluster.errors import ErrorCode
from loopal_cluster.frames import Failure, Response
from loopal_cluster.messages import (
    OK,
    AgentSource,
    AgentStart,
    CancelAgent,
    Completed,
    Completion,
    DeliverEnvelope,
    Envelope,
    HubReconcile,
    Initialize,
    Interrupt,
    MetaComplete,
    MetaReconcile,
    MetaRoute,
    MetaSpawn,
    Ok,
    Reconciled,
    Shutdown,
    Spawned,
    SpawnSpec,
    SystemSource,
    Waited,
)
from loopal_cluster.outcomes import Cancelled, Done, Failed, Lost, Outcome, reason_of
from loopal_cluster.payloads import Ended, MessageRouted, SubAgentSpawned

__all__ = ["Supervisor"]

RETRYABLE = {
    ErrorCode.CONNECTION_LOST,
    ErrorCode.DEADLINE_EXCEEDED,
    ErrorCode.OVERLOADED,
    ErrorCode.HUB_NOT_CONNECTED,
}
"""Refusals of a report that may pass: the parent's hub may only be away."""

EXTERNAL = "external"
"""The type of an agent that connected to us; we neither started it nor can we kill it."""


@define
class Supervisor:
    """Starts agents, waits for them, stops them, and sees that each outcome arrives."""

    _settings: HubSettings
    _exchange: Exchange[HubThen]
    _timers: DeadlineQueue[Timer]
    _timeline: Timeline
    _uplink: Uplink
    _new_id: Callable[[], str]
    _epoch: float
    _retire: Callable[[Peer, str, float], None]
    """Stops talking with the peer of an agent that could not be started."""
    agents: AgentTree
    results: Results
    _waits: dict[Origin, AgentRecord] = field(factory=dict, init=False)
    _reports: dict[str, Completion] = field(factory=dict, init=False)
    """Outcomes that a parent's hub has not acknowledged, by agent id."""
    closing: bool = field(default=False, init=False)
    receipts: Receipts = field(init=False)
    _backlog: dict[str, list[tuple[Origin | None, Envelope, Hashable]]] = field(factory=dict, init=False)
    """Messages for agents that are not up yet, by agent id."""

    def __attrs_post_init__(self) -> None:
        timeouts = self._settings.timeouts
        ttl = 2 * max(timeouts.call_timeout, timeouts.lease_timeout)
        self.receipts = Receipts(self._settings.limits.receipts, ttl)

    # Spawning.

    def spawn_here(
        self, spec: SpawnSpec, origin: Origin, *, parent: Address | None, depth: int, now: float
    ) -> None:
        """Start an agent on this hub; ``origin`` is answered when it is up.

        Raises:
            Refused: its name is invalid or taken, its type unknown, or a limit reached.
        """
        if spec.spawn_id is not None and self._spawned_before(spec, parent, origin, now):
            return
        check_name(spec.name, "agent name")
        agent_type = self._type_of(spec)
        self._check_budget(depth)
        record = AgentRecord(
            id=spec.spawn_id or self._new_id(),
            spec=spec,
            type=agent_type,
            parent=parent,
            depth=depth,
            spawner=origin,
        )
        self.agents.add(record)
        self._timers.set(StartDue(record.id), now + self._settings.timeouts.start_timeout)
        cwd = spec.cwd or self._settings.cwd
        self._exchange.perform(StartAgent(record.id, record.name, agent_type, cwd))

    def _spawned_before(self, spec: SpawnSpec, parent: Address | None, origin: Origin, now: float) -> bool:
        """Whether its owner repeats a spawn that was done already; it is answered as the first was.

        Raises:
            Refused: the id is that of somebody else's agent, or it ended before it was up.
        """
        agent_id = spec.spawn_id or ""
        record, finished = self.agents.get(agent_id), self.results.get(agent_id)
        if record is None and finished is None:
            return False
        known = record or finished
        assert known is not None
        if (known.parent, known.address) != (parent, Address(spec.name)) or (record and record.spec != spec):
            raise Refused(ErrorCode.NAME_TAKEN, f"agent id '{agent_id}' is taken")
        if finished is not None and not finished.was_up:
            raise Refused(ErrorCode.SPAWN_FAILED, f"spawn failed: {reason_of(finished.outcome)}")
        if record is not None and record.lifecycle is Lifecycle.SPAWNING:
            self._refuse(record.spawner, ErrorCode.CANCELLED, "its spawner has asked again")
            record.spawner = origin
        else:
            self._exchange.answer(origin, Spawned(agent_id=agent_id, name=spec.name))
            if finished is not None:
                self._report(finished, now)
        return True

    def spawn_there(
        self,
        spec: SpawnSpec,
        origin: Origin,
        *,
        parent: Address | None,
        caller: Address,
        depth: int,
        now: float,
    ) -> None:
        """Start an agent on another hub: its shadow exists before the request leaves.

        The outcome comes back to ``caller``: the parent, or a client, which nothing is below.

        Raises:
            Refused: there is no MetaHub, or the name is invalid or taken, or a limit reached.
        """
        check_name(spec.name, "agent name")
        check_name(spec.target_hub or "", "hub name")
        self._check_budget(depth)
        record = AgentRecord(
            id=spec.spawn_id or self._new_id(),
            spec=spec,
            type=spec.agent_type,
            parent=parent,
            hub=spec.target_hub,
            depth=depth,
            spawner=origin,
        )
        self.agents.add(record)
        outgoing = evolve(spec, parent=str(caller.on(self._settings.name)), depth=depth, spawn_id=record.id)
        deadline = now + self._settings.timeouts.spawn_timeout
        try:
            self._uplink.call(MetaSpawn(outgoing), SpawningRemotely(record.id), deadline)
        except Refused as refused:
            self.agents.remove(record)
            if refused.code is ErrorCode.NOT_IN_CLUSTER:
                detail = "target_hub specified but no MetaHub uplink"
                raise Refused(ErrorCode.NOT_IN_CLUSTER, detail) from None
            raise

    def register_external(self, name: str, peer: Peer, now: float) -> AgentRecord:
        """Add an agent that runs elsewhere and has connected to us.

        Raises:
            Refused: its name is taken, or a limit reached.
        """
        self._check_budget(depth=0)
        spec = SpawnSpec(name=check_name(name, "agent name"), lifecycle="persistent")
        record = AgentRecord(id=self._new_id(), spec=spec, type=EXTERNAL, parent=None, peer=peer)
        self.agents.add(record)
        self._begin(record, now)
        return record

    def _type_of(self, spec: SpawnSpec) -> str:
        agent_type = spec.agent_type or self._settings.default_type
        if agent_type in self._settings.agent_types:
            return agent_type
        runs = ", ".join(self._settings.agent_types) or "none"
        hub = self._settings.name
        if agent_type is None:
            detail = f"no agent type given, and hub '{hub}' has no default (it runs: {runs})"
        else:
            detail = f"hub '{hub}' does not run agent type '{agent_type}' (it runs: {runs})"
        raise Refused(ErrorCode.UNKNOWN_AGENT_TYPE, detail)

    def _check_budget(self, depth: int) -> None:
        limits = self._settings.limits
        if self.closing:
            raise Refused(ErrorCode.SPAWN_FAILED, f"hub '{self._settings.name}' is closing")
        if depth > limits.agent_depth:
            raise Refused(ErrorCode.BUDGET_EXCEEDED, f"agents nest at most {limits.agent_depth} deep")
        if len(self.agents) >= limits.agents:
            raise Refused(ErrorCode.OVERLOADED, f"this hub has {limits.agents} agents already")

    # Coming up.

    def on_started(self, agent_id: str, peer: Peer, now: float) -> AgentRecord | None:
        """Its program or task runs; greet it. None if it is no longer wanted."""
        record = self.agents.get(agent_id)
        if record is None:
            return None
        record.peer = peer
        if record.stop_reason is not None:
            return record
        deadline = now + self._settings.timeouts.start_timeout
        self._exchange.call(peer, Initialize(), Initializing(agent_id), deadline)
        return record

    def on_initialized(self, agent_id: str, answer: Response | Failure, now: float) -> None:
        """It has answered the greeting; let it begin."""
        record = self.agents.get(agent_id)
        if record is None or record.peer is None:
            return
        if isinstance(answer, Failure):
            self._start_failed(record, f"agent initialize failed: {answer.detail}", now)
            return
        if record.stop_reason is not None:
            return
        spec = record.spec
        start = AgentStart(
            cwd=spec.cwd or self._settings.cwd,
            lifecycle=spec.lifecycle or "ephemeral",
            model=spec.model,
            permission_mode=spec.permission_mode,
            prompt=spec.prompt,
            name=record.name,
            hub=self._settings.name,
            parent=None if record.parent is None else str(record.parent),
            agent_id=record.id,
            agent_type=record.type,
            depth=record.depth,
        )
        deadline = now + self._settings.timeouts.start_timeout
        self._exchange.call(record.peer, start, Starting(agent_id), deadline)

    def on_begun(self, agent_id: str, answer: Response | Failure, now: float) -> None:
        """It has begun, or cannot."""
        record = self.agents.get(agent_id)
        if record is None or record.lifecycle is Lifecycle.RUNNING:
            return
        if isinstance(answer, Failure):
            self._start_failed(record, f"agent/start failed: {answer.detail}", now)
            return
        self._begin(record, now)
        session = answer.result.session_id
        spawned = SubAgentSpawned(
            agent_id=record.id,
            name=record.name,
            parent=None if record.parent is None else str(record.parent),
            model=record.spec.model,
            session_id=session,
        )
        self._timeline.publish(self._settings.name, record.name, spawned, now)

    def _begin(self, record: AgentRecord, now: float) -> None:
        self._timers.discard(StartDue(record.id))
        self._up(record)
        self._uplink.agent_started(record, now)
        for origin, envelope, receipt in self._backlog.pop(record.id, ()):
            try:
                self.deliver(record, envelope, origin, now, receipt)
            except Refused as refused:
                failure = Failure(0, refused.code, refused.detail)
                self._answer_delivery(origin, receipt, failure)

    def on_not_started(self, agent_id: str, reason: str, now: float) -> None:
        """Its program or task could not be started."""
        record = self.agents.get(agent_id)
        if record is None:
            return
        if record.stop_reason is not None:
            self._settle(record, Cancelled(record.stop_reason), now)
        else:
            self._start_failed(record, reason, now)

    def on_start_due(self, agent_id: str, now: float) -> None:
        """It has taken too long to come up."""
        if (record := self.agents.get(agent_id)) is not None:
            timeout = self._settings.timeouts.start_timeout
            self._start_failed(record, f"it was not up after {timeout:g} s", now)

    def on_spawned_there(self, agent_id: str, answer: Response | Failure, now: float) -> None:
        """The other hub has started it, or our shadow goes."""
        record = self.agents.get(agent_id)
        if record is None:
            return
        if isinstance(answer, Failure):
            if answer.code in UNCERTAIN:
                self._revoke(record, now)
            self._roll_back(record, answer.code, answer.detail, now)
        else:
            self._up(record)

    def _up(self, record: AgentRecord) -> None:
        """It is up, or has been: its spawner learns so, once."""
        if record.lifecycle is Lifecycle.SPAWNING:
            record.lifecycle = Lifecycle.RUNNING
            if record.spawner is not None:
                self._exchange.answer(record.spawner, Spawned(agent_id=record.id, name=record.name))

    def _start_failed(self, record: AgentRecord, reason: str, now: float) -> None:
        self._exchange.perform(StopAgent(record.id))
        if record.stop_reason is not None:
            return  # it is settled when it is gone
        self._roll_back(record, ErrorCode.SPAWN_FAILED, f"spawn failed: {reason}", now)
        if record.peer is not None:
            self._retire(record.peer, f"spawn failed: {reason}", now)

    def _revoke(self, record: AgentRecord, now: float) -> None:
        """We do not know whether the other hub has started it, and nobody waits any more: it must not."""
        message = CancelAgent(record.address, agent_id=record.id, reason="its spawn was given up")
        deadline = now + self._settings.timeouts.lease_timeout
        with suppress(Refused):  # no MetaHub: then the other hub hears nothing of us, and its lease ends
            self._uplink.call(message, Revoking(record.id, record.hub or ""), deadline)

    def _roll_back(self, record: AgentRecord, code: ErrorCode, detail: str, now: float) -> None:
        """Remove an agent that never was; nobody has its outcome, everybody its refusal."""
        if record.stop_reason is not None:
            self._settle(record, Cancelled(record.stop_reason), now)  # those who stopped it wait for that
            return
        self._timers.discard(StartDue(record.id))
        self._remove(record)
        if record.spawner is not None:
            self._exchange.refuse(record.spawner, code, detail)
        for origin in self._pop_waiters(record):
            self._exchange.refuse(origin, code, detail)
        for origin in record.stoppers:
            self._exchange.answer(origin, OK)

    # Messages.

    def deliver_once(
        self, record: AgentRecord, envelope: Envelope, origin: Origin, receipt: Hashable, now: float
    ) -> None:
        """``deliver``, for a message from another hub, which may come again.

        Raises:
            Refused: the agent has too many undelivered messages.
        """
        self.receipts.begin(receipt, now)
        try:
            self.deliver(record, envelope, origin, now, receipt)
        except Refused as refused:
            self.receipts.settle(receipt, Failure(0, refused.code, refused.detail))
            raise

    def deliver(
        self,
        record: AgentRecord,
        envelope: Envelope,
        origin: Origin | None,
        now: float,
        receipt: Hashable = None,
    ) -> None:
        """Hand a message to an agent of this hub; ``origin`` learns whether it was accepted.

        Raises:
            Refused: the agent has too many undelivered messages.
        """
        if record.lifecycle is Lifecycle.SPAWNING or record.peer is None:
            backlog = self._backlog.setdefault(record.id, [])
            if len(backlog) >= self._settings.limits.inbox:
                raise Refused(ErrorCode.OVERLOADED, f"agent '{record.name}' has too many messages waiting")
            backlog.append((origin, envelope, receipt))
            return
        then = Delivering(origin, source_label(envelope), record.name, envelope.content, receipt)
        deadline = now + self._settings.timeouts.call_timeout
        self._exchange.call(record.peer, DeliverEnvelope(envelope), then, deadline)

    def on_delivered(self, then: Delivering, answer: Response | Failure, now: float) -> None:
        """The agent has accepted a message, or not."""
        if isinstance(answer, Response) and answer.result.ok is True:
            routed = MessageRouted(source=then.source, target=then.target, content_preview=then.content)
            self._timeline.publish(self._settings.name, None, routed, now)
            self._answer_delivery(then.origin, then.receipt, OK)
            return
        detail = answer.detail if isinstance(answer, Failure) else "the agent refused the message"
        code = answer.code if isinstance(answer, Failure) else ErrorCode.DELIVERY_FAILED
        failure = Failure(0, code, f"delivery to '{then.target}' failed: {detail}")
        self._answer_delivery(then.origin, then.receipt, failure)

    def _answer_delivery(self, first: Origin | None, receipt: Hashable, answer: Ok | Failure) -> None:
        """Tell whoever sent the message, and whoever repeated it."""
        for origin in (first, *self.receipts.settle(receipt, answer)):
            if origin is not None and isinstance(answer, Failure):
                self._exchange.refuse(origin, answer.code, answer.detail)
            elif origin is not None:
                self._exchange.answer(origin, answer)

    # Waiting.

    def wait(self, record: AgentRecord, origin: Origin, timeout: float, now: float) -> None:
        """Park a wait; any number may park."""
        record.waiters[origin] = None
        self._waits[origin] = record
        self._timers.set(WaitDue(origin), now + timeout)

    def on_wait_due(self, origin: Origin) -> None:
        """The wait is over, the agent is not."""
        record = self._waits.pop(origin, None)
        if record is not None:
            del record.waiters[origin]
            waited = Waited(
                output="(agent timed out)", timed_out=True, agent=str(record.address), agent_id=record.id
            )
            self._exchange.answer(origin, waited)

    def forget_waits(self, peer: Peer, request_id: int | None = None) -> None:
        """A waiter is gone, or no longer waits for this request."""
        if request_id is None:
            gone = [origin for origin in self._waits if origin.peer == peer]
        else:
            gone = [origin] if (origin := Origin(peer, request_id)) in self._waits else []
        for origin in gone:
            del self._waits.pop(origin).waiters[origin]
            self._timers.discard(WaitDue(origin))

    def _pop_waiters(self, record: AgentRecord) -> list[Origin]:
        waiters, record.waiters = list(record.waiters), {}
        for origin in waiters:
            self._waits.pop(origin, None)
            self._timers.discard(WaitDue(origin))
        return waiters

    # Stopping.

    def stop(self, record: AgentRecord, reason: str, now: float) -> None:
        """Have an agent, and all it spawned, end. Asking twice changes nothing."""
        if record.stop_reason is not None:
            return
        record.stop_reason = reason
        if record.hub is not None:
            self._stop_there(record, reason, now)
        elif record.peer is None:
            self._exchange.perform(StopAgent(record.id))
        else:
            self._exchange.notify(record.peer, Interrupt())
            deadline = now + self._settings.timeouts.stop_grace
            try:
                self._exchange.call(record.peer, Shutdown(), Stopping(record.id), deadline)
            except Refused:  # it does not answer anything: nothing to wait for
                self.on_stop_asked(record.id)
        self._stop_children(record, f"its parent '{record.name}' was stopped", now)

    def on_stop_asked(self, agent_id: str) -> None:
        """It has answered the shutdown, or has had its time to: now see to it."""
        record = self.agents.get(agent_id)
        if record is None:
            return
        if record.type == EXTERNAL and record.peer is not None:
            self._exchange.hang_up(record.peer, "stopped")
        else:
            self._exchange.perform(StopAgent(agent_id))

    def on_spawn_cancelled(self, origin: Origin, now: float) -> None:
        """Whoever asked for an agent no longer waits for it to come up, and will not learn of it."""
        for record in self.agents:
            if record.spawner == origin and record.lifecycle is Lifecycle.SPAWNING:
                self.stop(record, "its spawner no longer waits for it", now)

    def close(self, now: float) -> None:
        """The hub is closing: stop everything, start nothing."""
        self.closing = True
        for record in self.agents:
            self.stop(record, f"hub '{self._settings.name}' is closing", now)

    @property
    def all_reported(self) -> bool:
        """Whether every outcome that another hub waits for has been acknowledged."""
        return not self._reports

    def _stop_there(self, record: AgentRecord, reason: str, now: float) -> None:
        message = CancelAgent(record.address, agent_id=record.id, reason=reason)
        deadline = now + self._settings.timeouts.spawn_timeout
        try:
            self._uplink.call(message, StoppingRemotely(record.id), deadline)
        except Refused as refused:
            self._settle(record, Lost(f"hub '{record.hub}' cannot be told to stop it: {refused.detail}"), now)

    def on_stopped_there(self, agent_id: str, answer: Response | Failure, now: float) -> None:
        """The other hub has stopped it; its report may have come first."""
        record = self.agents.get(agent_id)
        if record is None:
            return
        if isinstance(answer, Failure):
            self._settle(record, Lost(f"hub '{record.hub}' did not stop it: {answer.detail}"), now)
        elif answer.result.outcome is not None:
            self._settle(record, answer.result.outcome, now)

    def _stop_children(self, record: AgentRecord, reason: str, now: float) -> None:
        for child in list(record.children.values()):
            if not child.spec.detached:
                self.stop(child, reason, now)

    # Ending.

    def on_completed(self, record: AgentRecord, message: Completed, now: float) -> None:
        """It says it has ended. One that is being stopped is settled only when it is gone."""
        if record.lifecycle is Lifecycle.SPAWNING:
            self._begin(record, now)
        self.on_stop_asked(record.id)
        if record.stop_reason is None:
            self._settle(record, completed_outcome(message), now)
        elif record.type == EXTERNAL:
            self._settle(record, Cancelled(record.stop_reason), now)

    def on_ended(self, agent_id: str, reason: str, now: float) -> None:
        """It is gone."""
        record = self.agents.get(agent_id)
        if record is None:
            return
        if record.stop_reason is not None:
            self._settle(record, Cancelled(record.stop_reason), now)
        elif record.lifecycle is Lifecycle.SPAWNING:
            self._roll_back(record, ErrorCode.SPAWN_FAILED, f"spawn failed: {reason}", now)
        else:
            self._settle(record, Failed(f"it ended without a result: {reason}"), now)

    def on_external_lost(self, record: AgentRecord, reason: str, now: float) -> None:
        """An agent that had connected to us has gone."""
        if self.agents.get(record.id) is record:
            outcome = Cancelled(record.stop_reason) if record.stop_reason else Lost(reason)
            self._settle(record, outcome, now)

    def on_report(self, completion: Completion, now: float) -> None:
        """Another hub reports the outcome of our agent there. A repeated report changes nothing."""
        record = self.agents.get(completion.spawn_id)
        if record is not None and record.hub is not None and record.hub == completion.agent.hub:
            self._up(record)
            self._settle(record, completion.outcome, now)

    def on_base_report(self, hub: str | None, name: str, output: str, now: float) -> bool:
        """The same in the base dialect, by name; False if we have no such agent there."""
        for record in self.agents:
            if record.hub is not None and record.name == name and hub in (None, record.hub):
                self._up(record)
                self._settle(record, base_outcome(output), now)
                return True
        return False

    def on_hub_lost(self, hub: str, reason: str, now: float) -> None:
        """A hub is gone: so are our agents there, and the owners of its agents here."""
        for agent_id in [key for key, report in self._reports.items() if report.parent.hub == hub]:
            del self._reports[agent_id]
        for record in self.agents:
            if record.hub == hub:
                self._settle(record, Lost(f"hub '{hub}' was lost: {reason}"), now)
            elif record.parent is not None and record.parent.hub == hub and not record.spec.detached:
                self.stop(record, f"hub '{hub}' of its parent was lost", now)

    # Finding each other again.

    def reconcile(self, now: float) -> None:
        """We have joined (again): compare with every hub that runs agents for us, or we for it."""
        if not self._uplink.speaks("reconcile"):
            return
        runs: dict[str, list[str]] = {}
        owns: dict[str, list[str]] = {}
        for record in self.agents:
            if record.hub is not None:
                if record.lifecycle is Lifecycle.RUNNING:  # else its spawn is asked again, and answered
                    owns.setdefault(record.hub, []).append(record.id)
            elif record.parent is not None and record.parent.hub is not None and not record.spec.detached:
                runs.setdefault(record.parent.hub, []).append(record.id)
        deadline = now + self._settings.timeouts.lease_timeout
        for hub in sorted(runs.keys() | owns.keys()):
            message = MetaReconcile(hub, tuple(runs.get(hub, ())), tuple(owns.get(hub, ())))
            with suppress(Refused):
                self._uplink.call(message, Reconciling(hub), deadline)

    def on_reconcile(self, message: HubReconcile, now: float) -> Reconciled:
        """Another hub has joined (again), and wants to know what has changed meanwhile."""
        owned = {record.id for record in self.agents if record.hub == message.hub}
        run = {record.id for record in self.agents if record.hub is None}
        gone = []
        for agent_id in message.owns:
            if (finished := self.results.get(agent_id)) is not None:
                self._report(finished, now)  # it has missed the report
            elif agent_id not in run:
                gone.append(agent_id)
        given_up = (agent_id for agent_id in message.runs if agent_id not in owned)
        return Reconciled(given_up=tuple(given_up), gone=tuple(gone))

    def on_reconciled(self, hub: str, answer: Response | Failure, now: float) -> None:
        """It has answered, or is not in the cluster any more."""
        if isinstance(answer, Failure):
            if answer.code in (ErrorCode.HUB_NOT_CONNECTED, ErrorCode.DEADLINE_EXCEEDED):
                self.on_hub_lost(hub, answer.detail, now)
            return
        for agent_id in answer.result.given_up:
            record = self.agents.get(agent_id)
            if record is not None and record.parent is not None and record.parent.hub == hub:
                self.stop(record, f"its owner on hub '{hub}' has given it up", now)
        for agent_id in answer.result.gone:
            record = self.agents.get(agent_id)
            if record is not None and record.hub == hub:
                self._settle(record, Lost(f"hub '{hub}' does not run it any more"), now)

    def on_lease_due(self, now: float) -> None:
        """Without a MetaHub nobody elsewhere can stop our agents, or tell us of theirs."""
        reason = f"no MetaHub for {self._settings.timeouts.lease_timeout:g} s"
        for record in self.agents:
            if record.spec.detached or (record.hub is not None and record.lifecycle is Lifecycle.SPAWNING):
                continue  # it may go on; or its spawn has a deadline of its own
            if record.hub is not None:
                self._settle(record, Lost(reason), now)
            elif record.parent is not None and record.parent.hub is not None:
                self.stop(record, reason, now)

    def _settle(self, record: AgentRecord, outcome: Outcome, now: float) -> None:
        """Give an agent its one outcome, and tell everybody it concerns."""
        if self.agents.get(record.id) is not record:
            return
        parent = self.agents.parent_of(record)
        was_up = record.lifecycle is Lifecycle.RUNNING
        self._remove(record)
        self._timers.discard(StartDue(record.id))
        if not was_up:
            detail = f"spawn failed: {reason_of(outcome)}"
            self._refuse(record.spawner, ErrorCode.SPAWN_FAILED, detail)
            if record.hub is not None:
                self._revoke(record, now)
        finished = FinishedAgent(
            id=record.id,
            address=record.address,
            type=record.type,
            parent=record.parent,
            outcome=outcome,
            expires_at=now + self._settings.timeouts.result_ttl,
            was_up=was_up,
        )
        self.results.add(finished)
        waiters = self._pop_waiters(record)
        for origin in waiters:
            self._exchange.answer(origin, finished.waited())
        for origin in record.stoppers:
            self._exchange.answer(origin, OK)
        ended = Ended(outcome=outcome.kind, text=reason_of(outcome)[:200])
        self._timeline.publish(record.hub or self._settings.name, record.name, ended, now)
        # The refusal of a spawn has told whoever wanted it; only what was up is reported.
        if was_up and record.hub is None:
            self._uplink.agent_ended(record, now)
            self._report(finished, now)
        if (
            was_up
            and parent is not None
            and parent.hub is None
            and not any(origin.peer == parent.peer for origin in waiters)
        ):
            self._tell_parent(parent, record, outcome, now)
        self._stop_children(record, f"its parent '{record.name}' ended", now)

    def _remove(self, record: AgentRecord) -> None:
        self.agents.remove(record)
        ended = Failure(0, ErrorCode.AGENT_NOT_FOUND, f"agent '{record.name}' ended")
        for origin, _, receipt in self._backlog.pop(record.id, ()):
            self._answer_delivery(origin, receipt, ended)

    def _refuse(self, origin: Origin | None, code: ErrorCode, detail: str) -> None:
        if origin is not None:
            self._exchange.refuse(origin, code, detail)

    # Reporting.

    def _tell_parent(self, parent: AgentRecord, record: AgentRecord, outcome: Outcome, now: float) -> None:
        """Bring the outcome to a parent that is not waiting for it."""
        if record.spec.notify_parent is False or parent.stop_reason is not None:
            return
        target = Address(parent.name)
        try:
            self.deliver(parent, self._envelope(record.name, outcome, target, now), None, now)
        except Refused as refused:
            self._exchange.log("WARNING", f"result of '{record.name}' for '{parent.name}': {refused.detail}")

    def _report(self, finished: FinishedAgent, now: float) -> None:
        """Bring the outcome to a parent's hub; repeated at every joining until it is answered."""
        parent = finished.parent
        if parent is None or parent.hub is None or finished.id in self._reports:
            return
        agent = finished.address.on(self._settings.name)
        self._reports[finished.id] = Completion(finished.id, agent, parent, finished.outcome)
        self._send_report(finished.id, now)

    def send_reports(self, now: float) -> None:
        """The MetaHub is there (again): repeat what it has not acknowledged."""
        for agent_id in list(self._reports):
            self._send_report(agent_id, now)

    def _send_report(self, agent_id: str, now: float) -> None:
        if not self._uplink.joined:
            # Sent when we join again. Should we never, it is forgotten with the result.
            self._timers.set(ReportDue(agent_id), now + self._settings.timeouts.result_ttl)
            return
        self._timers.discard(ReportDue(agent_id))
        completion = self._reports[agent_id]
        message: MetaComplete | MetaRoute = MetaComplete(completion)
        if not self._uplink.speaks("complete"):
            # A real Loopal hub, or one of ours behind a real MetaHub, knows only this form.
            name, outcome, parent = completion.agent.agent, completion.outcome, completion.parent
            message = MetaRoute(self._envelope(name, outcome, parent, now))
        deadline = now + self._settings.timeouts.call_timeout
        try:
            self._uplink.call(message, Reporting(agent_id), deadline)
        except Refused as refused:
            self.on_reported(agent_id, Failure(0, refused.code, refused.detail), now)

    def on_reported(self, agent_id: str, answer: Response | Failure, now: float) -> None:
        """The parent's hub knows, or there is nobody who would want to."""
        final = self.closing and isinstance(answer, Failure) and answer.code is ErrorCode.HUB_NOT_CONNECTED
        if isinstance(answer, Failure) and answer.code in RETRYABLE and not final:
            self._timers.set(ReportDue(agent_id), now + self._settings.timeouts.report_interval)
        else:
            self._reports.pop(agent_id, None)

    def on_report_due(self, agent_id: str, now: float) -> None:
        """Try once more, for as long as the outcome is kept at all."""
        report = self._reports.get(agent_id)
        if report is not None and self.results.find(report.agent, agent_id) is None:
            del self._reports[agent_id]
        elif report is not None:
            self._send_report(agent_id, now)

    def _envelope(self, name: str, outcome: Outcome, target: Address, now: float) -> Envelope:
        return completion_envelope(self._new_id(), name, outcome, target, self._epoch + now)


def completed_outcome(message: Completed) -> Outcome:
    """What ``agent/completed`` says. A base agent's reason is always ``goal`` or ``shutdown``."""
    text = message.result_text or ""
    match message.reason:
        case "error":
            return Failed(text or "the agent failed and did not say why", message.traceback)
        case "aborted":
            return Cancelled(text or "the agent was interrupted")
        case _:
            return Done(text)


def source_label(envelope: Envelope) -> str:
    """The base dialect's word for a source, as ``MessageRouted`` has it."""
    match envelope.source:
        case AgentSource(name):
            return name
        case SystemSource(kind):
            return f"system:{kind}"
        case source:
            return getattr(source, "sender", type(source).__name__.removesuffix("Source").lower())
