"""What a MetaHub answers: to the hubs, and to the clients that are attached to it.

It decides which hub a request is for and passes it on; the answer finds its way back by the call.
No call is waited for before the next request is looked at. Every sender is qualified with the hub it
comes from, so that whoever receives a message can answer it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import lru_cache
from typing import Any

from attrs import field

from loopal_cluster.address import MAX_ADDRESS, Address
from loopal_cluster.config import MetaHubSettings
from loopal_cluster.core.approvals import Approvals
from loopal_cluster.core.base_agents import BaseAgents
from loopal_cluster.core.calls import Call, Origin
from loopal_cluster.core.deadlines import DeadlineQueue
from loopal_cluster.core.events import Peer
from loopal_cluster.core.exchange import LEG, Exchange, Refused
from loopal_cluster.core.handlers import unknown
from loopal_cluster.core.hub_lookup import only_some
from loopal_cluster.core.hub_routing import source_of_client
from loopal_cluster.core.kept import check_envelope, check_prompt
from loopal_cluster.core.membership import Health, HubRecord, Membership
from loopal_cluster.core.owed import Owed
from loopal_cluster.core.owners import LocalClient, OnHub
from loopal_cluster.core.parties import ClientParty, HubParty, Stranger
from loopal_cluster.core.patience import seconds_for
from loopal_cluster.core.receipts import UNCERTAIN
from loopal_cluster.core.reports import completion_envelope
from loopal_cluster.core.routes import Directory, RouteCache
from loopal_cluster.core.steps import (
    Gathering,
    MetaHubThen,
    OwedDue,
    Resolving,
    Revoking,
    Timer,
)
from loopal_cluster.core.timeline import Timeline
from loopal_cluster.errors import ErrorCode
from loopal_cluster.frames import Failure, Response
from loopal_cluster.labels import sender_name
from loopal_cluster.messages import (
    OK,
    Addressed,
    AgentInfo,
    AgentSource,
    Announce,
    Ask,
    CancelAgent,
    ClusterTopology,
    Completion,
    ControlAgent,
    DeliverAsk,
    DeliverEnvelope,
    Envelope,
    Found,
    HubComplete,
    HubList,
    HubLost,
    HubReconcile,
    InterruptAgent,
    ListHubs,
    Message,
    MetaAsk,
    MetaComplete,
    MetaReconcile,
    MetaRoute,
    MetaSpawn,
    MetaTopology,
    Permission,
    Ping,
    Progress,
    Question,
    Resolve,
    Route,
    ShutdownAgent,
    SpawnAgent,
    SpawnSpec,
    Status,
    StatusInfo,
    Subscribe,
    Topology,
    TopologyOf,
    WaitAgent,
)
from loopal_cluster.records import define, evolve

__all__ = ["REPEATABLE", "Handlers", "Listeners", "MetaRequests", "unhandled"]

AWAY = Health.AWAY
ENVELOPES = (DeliverEnvelope, DeliverAsk)
"""What goes to an agent on another hub."""

Asker = HubParty | ClientParty
Handlers = Mapping[tuple[type, type], Callable[[Origin, Any, Any, float], None]]
"""What decides a request, by the kind of who asks and the class of the message. Given the request, who asks, the message, and the time."""
Listeners = Mapping[tuple[type, type], Callable[[Peer, Any, Any, float], None]]
"""What hears a notification; given the peer, who that is, the message, and the time."""

REPEATABLE = (
    DeliverEnvelope,
    DeliverAsk,
    SpawnAgent,
    HubComplete,
    HubReconcile,
    HubLost,
    WaitAgent,
    AgentInfo,
    CancelAgent,
    ShutdownAgent,
)
"""What may be asked of a hub twice: it only looks, or the hub remembers its id. It waits for one that is
away."""


@define
class Lookup:
    """A bare name that base hubs are being asked for. All who want to know wait for one asking."""

    asked: set[str]
    found: list[str] = field(factory=list)
    waiting: list[tuple[Origin, Message[Any]]] = field(factory=list)
    """Whom to answer, and what to send to the hub that is found (``Resolve``: nothing)."""


@define
class Gather:
    """A topology in the making."""

    origin: Origin
    parts: dict[str, TopologyOf | None]
    """By hub, None while we wait for it."""


@define
class MetaRequests:
    """Answers what a MetaHub is asked."""

    _settings: MetaHubSettings
    _exchange: Exchange[MetaHubThen]
    _timers: DeadlineQueue[Timer]
    _timeline: Timeline
    _approvals: Approvals
    _hubs: Membership
    _directory: Directory
    _base_agents: BaseAgents
    _new_id: Callable[[], str]
    _epoch: float
    _cache: RouteCache = field(init=False)
    _lookups: dict[str, Lookup] = field(factory=dict, init=False)
    _gathers: dict[int, Gather] = field(factory=dict, init=False)
    _owed: Owed = field(init=False)
    """Agents that are to end and whose hub may not know it."""
    _owned: dict[str, dict[str, tuple[LocalClient, SpawnSpec]]] = field(factory=dict, init=False)
    """The agents of our clients that are not detached, by hub and name: whose each is."""
    _last_gather: int = field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        self._cache = RouteCache(self._settings.timeouts.route_cache_ttl)
        self._owed = Owed(self._settings.limits.owed_bytes)

    def handlers(self) -> Handlers:
        """What decides each request of a hub, and of a client."""
        both: Handlers = {
            (kind, message): handle
            for kind in (HubParty, ClientParty)
            for message, handle in (
                (WaitAgent, self._on_addressed),
                (AgentInfo, self._on_addressed),
                (ControlAgent, self._on_addressed),
                (InterruptAgent, self._on_addressed),
                (ShutdownAgent, self._on_addressed),
                (CancelAgent, self._on_addressed),
                (ListHubs, self._on_list_hubs),
                (MetaTopology, self._on_topology),
                (Ping, self._on_ping),
                (Resolve, self._on_resolve),
            )
        }
        return {
            **both,
            (HubParty, MetaRoute): self._on_route,
            (HubParty, MetaAsk): self._on_ask,
            (HubParty, MetaSpawn): self._on_spawn,
            (HubParty, Announce): self._on_announce,
            (HubParty, MetaComplete): self._on_complete,
            (HubParty, MetaReconcile): self._on_reconcile,
            (HubParty, Permission): self._on_approval,
            (HubParty, Question): self._on_approval,
            (ClientParty, Route): self._on_client_route,
            (ClientParty, MetaRoute): self._on_client_route,
            (ClientParty, Ask): self._on_client_ask,
            (ClientParty, MetaAsk): self._on_client_ask,
            (ClientParty, SpawnAgent): self._on_client_spawn,
            (ClientParty, MetaSpawn): self._on_client_spawn,
            (ClientParty, Subscribe): self._on_subscribe,
            (ClientParty, Status): self._on_status,
        }

    # What a hub asks, mostly for one of its agents.

    def _on_route(self, origin: Origin, party: HubParty, message: MetaRoute, now: float) -> None:
        hub, envelope = party.record, message.envelope
        if hub.protocol is None:
            told = self._base_agents.reported(hub, envelope, now)
            if told is None:
                self._exchange.answer(origin, OK)
                return
            envelope = told
        self._deliver(origin, DeliverEnvelope, envelope, hub, now)

    def _on_ask(self, origin: Origin, party: HubParty, message: MetaAsk, now: float) -> None:
        self._deliver(origin, DeliverAsk, message.envelope, party.record, now)

    def _on_spawn(self, origin: Origin, party: HubParty, message: MetaSpawn, now: float) -> None:
        hub, spec = party.record, message.spec
        if spec.asked_ms is not None:
            self._check_was_there(Address(spec.name, spec.target_hub), spec.asked_ms, hub)
        parent = None if spec.parent is None else stamped(spec.parent, hub.name)
        depth = self._directory.depth_below(parent, spec.depth)
        self._spawn(origin, evolve(spec, parent=parent, depth=depth, asked_ms=None), OnHub(hub.name), now)

    def _on_announce(self, origin: Origin, party: HubParty, message: Announce, now: float) -> None:
        hub = party.record
        self._directory.update(hub.name, message, now)
        self._forget_ended(hub.name)
        hub.agent_count = self._directory.count(hub.name)  # fresher than its last heartbeat
        self._exchange.answer(origin, OK)

    def _on_complete(self, origin: Origin, party: HubParty, message: MetaComplete, now: float) -> None:
        completion = message.completion
        agent = completion.agent.on(party.record.name)
        self._report(origin, evolve(completion, agent=agent), now)

    def _on_reconcile(self, origin: Origin, party: HubParty, message: MetaReconcile, now: float) -> None:
        asked = HubReconcile(party.record.name, message.runs, message.owns)
        self._send(origin, message.hub, asked, now)

    def _on_approval(
        self, origin: Origin, party: HubParty, message: Permission | Question, now: float
    ) -> None:
        hub, agent = party.record, message.agent_name
        asker = hub.name if agent is None else f"{hub.name}/{agent}"
        timeout = seconds_for(message, self._settings.timeouts)
        message = evolve(message, agent_name=asker)
        self._approvals.park(self._new_id(), origin, message, hub=hub.name, now=now, timeout=timeout)

    # What a program or a human asks.

    def _on_client_route(
        self, origin: Origin, party: ClientParty, message: Route | MetaRoute, now: float
    ) -> None:
        envelope = message.envelope
        check_envelope(envelope, self._settings.limits.text_bytes)
        onward = DeliverEnvelope(forwarded(envelope, None))
        self._pass_on(origin, envelope.target, onward, None, now)

    def _on_client_ask(self, origin: Origin, party: ClientParty, message: Ask | MetaAsk, now: float) -> None:
        envelope = message.envelope
        check_envelope(envelope, self._settings.limits.text_bytes)
        timeout = envelope.timeout_ms
        if timeout is None:
            timeout = int(self._settings.timeouts.ask_timeout * 1000)
        onward = DeliverAsk(evolve(forwarded(envelope, None), timeout_ms=timeout))
        self._pass_on(origin, envelope.target, onward, None, now)

    def _on_client_spawn(
        self, origin: Origin, party: ClientParty, message: SpawnAgent | MetaSpawn, now: float
    ) -> None:
        spec = message.spec
        check_prompt(spec.prompt, self._settings.limits.text_bytes)
        self._spawn(origin, evolve(spec, parent=None, depth=0, asked_ms=None), LocalClient(origin.peer), now)

    def _on_subscribe(self, origin: Origin, party: ClientParty, message: Subscribe, now: float) -> None:
        self._exchange.answer(origin, self._timeline.subscribe(origin.peer, message.since, now))

    def _on_status(self, origin: Origin, party: ClientParty, message: Status, now: float) -> None:
        count = sum(record.agent_count for record in self._hubs)
        late = self._exchange.late_answers
        waiting = only_some(
            approvals=len(self._approvals),
            for_hubs=len(self._exchange.calls),
            cancellations=len(self._owed),
        )
        self._exchange.answer(
            origin, StatusInfo(agent_count=count, uplink=None, late_answers=late, waiting=waiting)
        )

    # What both ask.

    def _on_addressed(self, origin: Origin, party: Asker, message: Any, now: float) -> None:
        """It is for one agent: its hub is to answer."""
        target: Address = message.agent
        self._pass_on(origin, target, evolve(message, agent=target.on(None)), hub_of(party), now)

    def _on_list_hubs(self, origin: Origin, party: Asker, message: ListHubs, now: float) -> None:
        self._exchange.answer(origin, HubList(tuple(record.info() for record in self._hubs)))

    def _on_topology(self, origin: Origin, party: Asker, message: MetaTopology, now: float) -> None:
        self._gather_topology(origin, now)

    def _on_ping(self, origin: Origin, party: Asker, message: Ping, now: float) -> None:
        self._exchange.answer(origin, OK)

    def _on_resolve(self, origin: Origin, party: Asker, message: Resolve, now: float) -> None:
        self._find(origin, Address.parse(message.agent_name), message, hub_of(party), now)

    def _check_was_there(self, target: Address, asked_ms: int, asker: HubRecord) -> None:
        """Let a repetition pass only to who was there when it was first asked, and so knows whether it was done.

        If nobody is there now, that is for others to say.

        Raises:
            Refused: the hub has been started anew since, or the name is another agent's.
        """
        if target.hub is None:
            hubs = [hub for hub in self._directory.hubs_of(target.agent) if hub != asker.name]
            since = [self._directory.since(target.agent, hub) for hub in hubs]
        else:
            record = self._hubs.get(target.hub)
            since = [] if record is None else [record.since]
        if max(since, default=-math.inf) > asker.joined_at - asked_ms / 1000:
            detail = f"'{target}' has changed hands since this was first asked; it may have been done"
            raise Refused(ErrorCode.CONNECTION_LOST, detail)

    # To the hub that has the agent.

    def _deliver(
        self,
        origin: Origin,
        method: type[DeliverEnvelope] | type[DeliverAsk],
        envelope: Envelope,
        sender: HubRecord,
        now: float,
    ) -> None:
        target = envelope.target
        onward = forwarded(envelope, sender.name)
        if envelope.asked_ms is not None:
            self._check_was_there(target, envelope.asked_ms, sender)
            onward = evolve(onward, asked_ms=envelope.asked_ms + milliseconds(now - sender.joined_at))
        self._pass_on(origin, target, method(onward), sender.name, now)

    def _pass_on(
        self, origin: Origin, target: Address, message: Message[Any], sender: str | None, now: float
    ) -> None:
        """Send ``message``, stripped of its hub, to the hub of ``target``."""
        if target.hub is not None:
            self._send(origin, target.hub, message, now)
        else:
            self._find(origin, target, message, sender, now)

    def _send(self, origin: Origin, hub: str, message: Message[Any], now: float) -> None:
        record, kind = self._hubs.get(hub), type(message)
        if record is None or (record.health is AWAY and kind not in REPEATABLE):
            if record is None and isinstance(message, CancelAgent):
                self._owe(hub, message, origin.peer, now)
            raise Refused(ErrorCode.HUB_NOT_CONNECTED, f"hub '{hub}' not connected")
        if kind is DeliverAsk and not record.speaks("ask"):
            raise Refused(
                ErrorCode.METHOD_NOT_FOUND, f"hub '{hub}' takes messages for its agents, but no asks"
            )
        if record.protocol is None:
            if kind is WaitAgent:
                # It handles our requests one after the other: nothing else would get through to it.
                raise Refused(ErrorCode.METHOD_NOT_FOUND, f"hub '{hub}' cannot be waited on from another hub")
            if kind is HubReconcile:
                raise Refused(ErrorCode.METHOD_NOT_FOUND, f"hub '{hub}' speaks the base dialect only")
            if isinstance(message, CancelAgent | ShutdownAgent):
                self._base_agents.stop(origin, record, message, now)
                return
        if kind in ENVELOPES:
            message = shifted(message, record.joined_at - now)
        self._exchange.call(record.peer, message, origin, now + self.time_for(message) + LEG)

    def again(self, record: HubRecord, call: Call[MetaHubThen], now: float) -> Message[Any]:
        """A request as it is repeated to a hub that is back: it says how long before that it was first sent."""
        message = call.message
        match message:
            case DeliverEnvelope(envelope) | DeliverAsk(envelope) if envelope.asked_ms is not None:
                return shifted(message, now - record.joined_at)
            case DeliverAsk(Envelope(extend=True)):
                return first_sent(message, now - record.since)  # or later: its deadline does not tell
            case DeliverEnvelope() | DeliverAsk():
                return first_sent(message, now - (call.deadline - self.time_for(message) - LEG))
            case _:
                return message

    def _connected(self, hub: str) -> HubRecord:
        record = self._hubs.get(hub)
        if record is None or record.health is Health.AWAY:
            raise Refused(ErrorCode.HUB_NOT_CONNECTED, f"hub '{hub}' not connected")
        return record

    def time_for(self, message: Message[Any]) -> float:
        """Seconds that the answer may take."""
        timeouts = self._settings.timeouts
        match message:
            case DeliverEnvelope():  # nearly always, so it does not wait for the others
                return timeouts.call_timeout
            case WaitAgent(timeout_ms=timeout):
                return timeouts.wait_timeout if timeout is None else timeout / 1000
            case DeliverAsk(Envelope(timeout_ms=timeout)):
                return timeouts.ask_timeout if timeout is None else timeout / 1000
            case SpawnAgent() | ShutdownAgent() | CancelAgent():
                return timeouts.spawn_timeout - 2 * LEG
            case _:
                return timeouts.call_timeout

    # Bare names.

    def _find(
        self, origin: Origin, target: Address, message: Message[Any], sender: str | None, now: float
    ) -> None:
        """Find the one hub with an agent of this name, other than the sender, which has looked already."""
        name = target.agent
        hubs = [hub for hub in self._directory.hubs_of(name) if hub != sender]
        if not hubs and (cached := self._cache.find(name, now)) is not None and cached != sender:
            hubs = [cached]
        if hubs:
            self._found(origin, name, hubs, message, now)
            return
        base = [hub for hub in self._hubs.reachable() if hub.protocol is None and hub.name != sender]
        waiting = (entry for lookup in self._lookups.values() for entry in lookup.waiting)
        held = (known for asker, known in waiting if asker.peer == origin.peer)
        self._exchange.check_held(origin, message, held)
        if name not in self._lookups:
            asked = self._ask_base(name, base, now)
            if not asked:
                self._found(origin, name, [], message, now)
                return
            self._lookups[name] = Lookup(asked)
        self._lookups[name].waiting.append((origin, message))

    def _ask_base(self, name: str, hubs: list[HubRecord], now: float) -> set[str]:
        """Ask base hubs whether they have an agent; return those that could be asked."""
        asked, deadline = set(), now + self._settings.timeouts.resolve_timeout
        for hub in hubs:
            try:
                self._exchange.call(hub.peer, Resolve(name), Resolving(name, hub.name), deadline)
            except Refused as refused:
                self._exchange.log("WARNING", f"cannot ask hub '{hub.name}' for '{name}': {refused.detail}")
            else:
                asked.add(hub.name)
        return asked

    def on_resolved(self, then: Resolving, answer: Response | Failure, now: float) -> None:
        """A base hub has said whether it has the agent; no answer is a no."""
        lookup = self._lookups[then.agent]
        lookup.asked.discard(then.hub)
        if isinstance(answer, Response) and answer.result.found:
            lookup.found.append(then.hub)
        if lookup.asked:
            return
        del self._lookups[then.agent]
        if len(lookup.found) == 1:
            self._cache.remember(then.agent, lookup.found[0], now)
        for origin, message in lookup.waiting:
            try:
                self._found(origin, then.agent, lookup.found, message, now)
            except Refused as refused:
                self._exchange.refuse(origin, refused.code, refused.detail)

    def _found(self, origin: Origin, name: str, hubs: list[str], message: Message[Any], now: float) -> None:
        if len(hubs) > 1:
            candidates = ", ".join(f"{hub}/{name}" for hub in sorted(hubs))
            raise Refused(ErrorCode.AMBIGUOUS_NAME, f"agent name '{name}' is on several hubs: {candidates}")
        if isinstance(message, Resolve):
            self._exchange.answer(origin, Found(found=bool(hubs), hub=hubs[0] if hubs else None))
        elif not hubs:
            raise Refused(ErrorCode.AGENT_NOT_FOUND, f"agent '{name}' not found on any hub of the cluster")
        else:
            self._send(origin, hubs[0], message, now)

    def withdraw(self, peer: Peer, request_id: int | None = None) -> None:
        """Whoever asked is gone, or no longer waits for this request: it shall not be sent any more."""
        self._base_agents.withdraw(peer, request_id)
        for lookup in self._lookups.values():
            lookup.waiting = [
                (origin, message)
                for origin, message in lookup.waiting
                if origin.peer != peer or request_id not in (None, origin.id)
            ]

    def on_progress(self, call: Call[MetaHubThen], now: float) -> None:
        """A hub's agent is still working on an ask: it may take longer, if its caller allows that."""
        match call.then, call.message:
            case Origin() as origin, DeliverAsk(Envelope(extend=True)):
                self._exchange.calls.extend(call, now + self.time_for(call.message) + LEG)
                self._exchange.notify(origin.peer, Progress(origin.id))
            case _:
                pass

    def give_up_asks(self, hub: str) -> None:
        """A hub is gone, and nobody waits any more for what its agents have asked."""
        for call in [*self._exchange.calls]:
            match call.message:
                case DeliverAsk(Envelope(origin_hub=origin)) if origin == hub:
                    self._exchange.give_up(call)

    def on_failed(self, call: Call[MetaHubThen], answer: Failure, now: float) -> None:
        """A hub did not do what it was asked: where we believed the agent to be may be wrong."""
        message = call.message
        if isinstance(message, SpawnAgent) and answer.code in UNCERTAIN:
            self.revoke(message.spec, call.peer, "its spawn was given up", now)
        elif isinstance(message, DeliverEnvelope | DeliverAsk):
            self._cache.drop(message.envelope.target.agent)
        elif isinstance(message, Addressed):
            self._cache.drop(message.agent.agent)

    def forget_hub(self, hub: str, reason: str, now: float) -> None:
        """A hub is gone, and with it what we knew of its agents."""
        self._directory.forget(hub)
        self._owned.pop(hub, None)
        self._cache.forget(hub)
        self._base_agents.forget_hub(hub)
        self._base_agents.on_owner_lost(
            OnHub(hub), self._hubs, f"hub '{hub}' of its parent was lost: {reason}", now
        )

    # Spawning and outcomes.

    def _spawn(self, origin: Origin, spec: SpawnSpec, owner: LocalClient | OnHub, now: float) -> None:
        if spec.target_hub is None:
            raise Refused(ErrorCode.INVALID_REQUEST, "missing 'target_hub'")
        # A client's agent has no owner that would notice it: we must be able to name it.
        spawn_id = spec.spawn_id or self._new_id()
        message = SpawnAgent(evolve(spec, target_hub=None, spawn_id=spawn_id))
        record = self._hubs.get(spec.target_hub)
        if record is not None and record.protocol is None:
            self._base_agents.spawn(origin, record, message, owner, now)
        else:
            self._send(origin, spec.target_hub, message, now)

    def on_spawned(self, client: Peer, spec: SpawnSpec, hub: Peer) -> None:
        """A client's agent is up: it ends with the client."""
        record = self._hub_of(hub)
        # A base hub would have to be told by name, and does not tell when the agent ends.
        if not spec.detached and record is not None and record.protocol is not None:
            kept = evolve(spec, prompt=None, cwd=None, extra={})  # it lives as long as the agent
            self._owned.setdefault(record.name, {})[spec.name] = (LocalClient(client), kept)

    def _forget_ended(self, hub: str) -> None:
        """Forget what a hub does not run (any more): it answers a spawn before it announces the agent."""
        running = {
            name: owned for name, owned in self._owned.pop(hub, {}).items() if self._directory.has(name, hub)
        }
        if running:
            self._owned[hub] = running

    def on_client_lost(self, client: Peer, reason: str, now: float) -> None:
        """What a client has spawned, or is still spawning, ends with it."""
        self._base_agents.on_owner_lost(LocalClient(client), self._hubs, reason, now)
        for record in self._hubs:
            for name, (owner, spec) in [*self._owned.get(record.name, {}).items()]:
                if owner == LocalClient(client):
                    del self._owned[record.name][name]
                    self.revoke(spec, record.peer, reason, now)

    def _hub_of(self, peer: Peer) -> HubRecord | None:
        return next((record for record in self._hubs if record.peer == peer), None)

    def revoke(self, spec: SpawnSpec, peer: Peer, reason: str, now: float) -> None:
        """Nobody wants what was spawned there any more, if it was: it must not run."""
        record = self._hub_of(peer)
        if record is None or record.protocol is None:
            return
        assert spec.spawn_id is not None
        message = CancelAgent(Address(spec.name), agent_id=spec.spawn_id, reason=reason)
        self._owe(record.name, message, peer, now)
        if record.health is not Health.AWAY:  # else it hears of it when it joins again
            self._revoke(record, message, now)

    def _revoke(self, hub: HubRecord, message: CancelAgent, now: float) -> None:
        deadline = now + self._settings.timeouts.lease_timeout
        with suppress(Refused):  # it is drowning; it hears of it when it joins again
            then = Revoking(message.agent_id or "", hub.name)
            self._exchange.call(hub.peer, message, then, deadline)

    def revoke_again(self, hub: HubRecord, now: float) -> None:
        """A hub is back that may not know which spawns were given up meanwhile."""
        for message in self._owed.to(hub.name):
            self._revoke(hub, message, now)

    def on_revoked(self, then: Revoking, answer: Response | Failure) -> None:
        """The hub does not run it; or is gone, and will be told when it comes back."""
        if not (isinstance(answer, Failure) and answer.code in UNCERTAIN):
            self.forget_owed(then.hub, then.agent_id)

    def _owe(self, hub: str, message: CancelAgent, asker: Peer, now: float) -> None:
        """Remember for a while that an agent is to end, until its hub is there and has heard of it."""
        if message.agent_id is None:
            return  # a name may be another agent's by then
        self._timers.set(OwedDue(hub, message.agent_id), now + self._settings.timeouts.result_ttl)
        for other_hub, agent_id in self._owed.add(hub, message, asker):
            self._timers.discard(OwedDue(other_hub, agent_id))

    def forget_owed(self, hub: str, agent_id: str) -> None:
        """Nothing more is to be said about a spawn that was given up."""
        self._timers.discard(OwedDue(hub, agent_id))
        self._owed.forget(hub, agent_id)

    def _report(self, origin: Origin, completion: Completion, now: float) -> None:
        """Bring an outcome to the parent's hub, in the words it knows."""
        parent = completion.parent
        if parent.hub is None:
            raise Refused(ErrorCode.INVALID_REQUEST, f"parent '{parent}' is not qualified")
        message: Message[Any] = HubComplete(completion)
        record = self._hubs.get(parent.hub)
        if record is not None and record.protocol is None:
            envelope = completion_envelope(
                self._new_id(),
                completion.agent.agent,
                completion.outcome,
                parent.on(None),
                self._epoch + now,
            )
            message = DeliverEnvelope(envelope)
        self._send(origin, parent.hub, message, now)

    # Everything at once.

    def _gather_topology(self, origin: Origin, now: float) -> None:
        self._last_gather += 1
        gather = Gather(origin, {})
        self._gathers[self._last_gather] = gather
        deadline = now + self._settings.timeouts.topology_timeout
        for record in self._hubs:
            gather.parts[record.name] = None
            then = Gathering(self._last_gather, record.name)
            try:
                self._exchange.call(self._connected(record.name).peer, Topology(), then, deadline)
            except Refused:
                gather.parts[record.name] = TopologyOf(record.name, error="unreachable")
        self._finish_gather(self._last_gather)

    def on_gathered(self, then: Gathering, answer: Response | Failure) -> None:
        """One hub's part is here, or will not come."""
        if isinstance(answer, Response):
            part = TopologyOf(then.hub, topology=answer.result)
        elif answer.code is ErrorCode.DEADLINE_EXCEEDED:
            part = TopologyOf(then.hub, error="timeout")
        elif answer.code is ErrorCode.CONNECTION_LOST:
            part = TopologyOf(then.hub, error="unreachable")
        else:
            part = TopologyOf(then.hub, error=answer.detail)
        self._gathers[then.gather_id].parts[then.hub] = part
        self._finish_gather(then.gather_id)

    def _finish_gather(self, gather_id: int) -> None:
        gather = self._gathers[gather_id]
        parts = [part for part in gather.parts.values() if part is not None]
        if len(parts) == len(gather.parts):
            del self._gathers[gather_id]
            self._exchange.answer(gather.origin, ClusterTopology(tuple(parts)))


def unhandled(party: Asker | Stranger, message: Message[Any]) -> Refused:
    """Why nothing decides a request."""
    if isinstance(party, Stranger):
        return Refused(ErrorCode.NOT_REGISTERED, "expected meta/register first")
    return unknown(message)


def hub_of(party: Asker) -> str | None:
    """The hub that asks; None: a client."""
    return party.record.name if isinstance(party, HubParty) else None


def milliseconds(seconds: float) -> int:
    """Rounded up, so that what was sent was sent then at the latest."""
    return math.ceil(1000 * seconds)


def first_sent(message: Message[Any], seconds: float) -> Message[Any]:
    """A message from one hub to another that says how long before its receiver joined it was first sent."""
    match message:
        case DeliverEnvelope(envelope) | DeliverAsk(envelope):
            return type(message)(evolve(envelope, asked_ms=milliseconds(seconds)))
        case _:
            return message


def shifted(message: Any, seconds: float) -> Message[Any]:
    """A message from one hub to another whose receiver has joined so much later than what it says, if it is a retry."""
    known = message.envelope.asked_ms
    return message if known is None else first_sent(message, known / 1000 + seconds)


def forwarded(envelope: Envelope, hub: str | None) -> Envelope:
    """An envelope as it goes on to the hub of its target.

    It says which hub it comes from (None: a client of the MetaHub), whatever it said before, and its target is
    a name on the receiving hub.
    """
    source = envelope.source
    if hub is None:
        source = source_of_client(envelope)
    elif isinstance(source, AgentSource):
        source = (
            _source(source.name, hub)
            if len(source.name) <= MAX_ADDRESS
            else _source.__wrapped__(source.name, hub)
        )
    # Not ``evolve``, and by position: this is done for every message of the cluster.
    return Envelope(
        envelope.id,
        source,
        envelope.target.on(None),
        envelope.content,
        envelope.timestamp,
        hub,
        envelope.timeout_ms,
        envelope.extend,
        None,
        None,
        () if hub is None else envelope.waits,
    )


def stamped(agent: str, hub: str) -> str:
    """An agent that a hub speaks for, as others can answer it: on that hub, whatever hub it says it is on."""
    return f"{hub}/{sender_name(agent.rpartition('/')[2])}"


# The same few again and again. Nobody checks what a sender calls itself, and what is longer than any address is not
# worth keeping.
@lru_cache(maxsize=4096)
def _source(agent: str, hub: str) -> AgentSource:
    return AgentSource(stamped(agent, hub))
