"""Messages, asks and whatever else is for one agent: to the hub that has it, wherever that is.

A name with a hub goes to that hub. A bare name is looked for in what hubs have announced; hubs of the base dialect
announce nothing, and are asked. Every sender is stamped with the hub it comes from.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

from attrs import field

from loopal_cluster.address import MAX_ADDRESS, Address
from loopal_cluster.core.base_agents import BaseAgents
from loopal_cluster.core.calls import Call, Origin
from loopal_cluster.core.context import MetaHubPart
from loopal_cluster.core.events import Peer
from loopal_cluster.core.exchange import HOP_MARGIN, Refused
from loopal_cluster.core.handlers import Handlers, Listeners, hear, serve
from loopal_cluster.core.hub_routing import source_of_client
from loopal_cluster.core.kept import check_envelope
from loopal_cluster.core.membership import Health, HubRecord, Membership
from loopal_cluster.core.meta_revocations import Revocations
from loopal_cluster.core.parties import ClientParty, HubParty
from loopal_cluster.core.patience import seconds_for
from loopal_cluster.core.receipts import UNCERTAIN
from loopal_cluster.core.routes import Directory, RouteCache
from loopal_cluster.core.steps import (
    MetaHubThen,
    Resolving,
)
from loopal_cluster.errors import ErrorCode
from loopal_cluster.frames import Failure, Response
from loopal_cluster.labels import sender_name
from loopal_cluster.messages import (
    OK,
    Addressed,
    AgentInfo,
    AgentSource,
    Ask,
    CancelAgent,
    ControlAgent,
    DeliverAsk,
    DeliverEnvelope,
    Envelope,
    Found,
    HubReconcile,
    InterruptAgent,
    Message,
    MetaAsk,
    MetaRoute,
    Patience,
    Progress,
    Resolve,
    Route,
    ShutdownAgent,
    SpawnAgent,
    WaitAgent,
)
from loopal_cluster.records import define, evolve

__all__ = ["MetaRouting", "forwarded", "hub_of", "stamped"]

AWAY, SPAWN = Health.AWAY, Patience.SPAWN
"""Looked up once: of each message we ask these, and the members of an ``Enum`` are found slowly."""
ENVELOPES = (DeliverEnvelope, DeliverAsk)
"""What goes to an agent on another hub."""


@define
class Lookup:
    """A bare name that base hubs are being asked for. All who want to know wait for one asking."""

    asked: set[str]
    found: list[str] = field(factory=list)
    waiting: list[tuple[Origin, Message[Any]]] = field(factory=list)
    """Whom to answer, and what to send to the hub that is found (``Resolve``: nothing)."""


@define
class MetaRouting(MetaHubPart):
    """Brings what is for an agent to its hub."""

    _hubs: Membership
    _directory: Directory
    _base_agents: BaseAgents
    _revocations: Revocations
    _cache: RouteCache = field(init=False)
    _lookups: dict[str, Lookup] = field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        self._cache = RouteCache(self._settings.timeouts.route_cache_ttl)

    def requests(self) -> Handlers:
        """What is for one agent."""
        both = HubParty, ClientParty
        return (
            serve(MetaRoute, self._on_route, HubParty)
            | serve(MetaAsk, self._on_ask, HubParty)
            | serve(Route, self._on_client_route, ClientParty)
            | serve(MetaRoute, self._on_client_route, ClientParty)
            | serve(Ask, self._on_client_ask, ClientParty)
            | serve(MetaAsk, self._on_client_ask, ClientParty)
            | serve(WaitAgent, self._on_addressed, *both)
            | serve(AgentInfo, self._on_addressed, *both)
            | serve(ControlAgent, self._on_addressed, *both)
            | serve(InterruptAgent, self._on_addressed, *both)
            | serve(ShutdownAgent, self._on_addressed, *both)
            | serve(CancelAgent, self._on_addressed, *both)
            | serve(Resolve, self._on_resolve, *both)
        )

    def notifications(self) -> Listeners:
        """News of asks."""
        return hear(Progress, self._on_progress, HubParty)

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

    def _on_addressed(self, origin: Origin, party: object, message: Any, now: float) -> None:
        """It is for one agent: its hub is to answer."""
        target: Address = message.agent
        self._pass_on(origin, target, evolve(message, agent=target.on(None)), hub_of(party), now)

    def _on_resolve(self, origin: Origin, party: object, message: Resolve, now: float) -> None:
        self._find(origin, Address.parse(message.agent_name), message, hub_of(party), now)

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
            self.check_was_there(target, envelope.asked_ms, sender)
            onward = evolve(onward, asked_ms=envelope.asked_ms + milliseconds(now - sender.joined_at))
        self._pass_on(origin, target, method(onward), sender.name, now)

    def check_was_there(self, target: Address, asked_ms: int, asker: HubRecord) -> None:
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

    def _pass_on(
        self, origin: Origin, target: Address, message: Message[Any], sender: str | None, now: float
    ) -> None:
        """Send ``message``, stripped of its hub, to the hub of ``target``."""
        if target.hub is not None:
            self.send(origin, target.hub, message, now)
        else:
            self._find(origin, target, message, sender, now)

    def send(self, origin: Origin, hub: str, message: Message[Any], now: float) -> None:
        """Send a request to a hub, whose answer is passed on to ``origin``.

        Raises:
            Refused: there is no such hub, or it is away and the request is not ``repeatable``, or the hub is one of the
                base dialect, which knows no such thing.
        """
        record, kind = self._hubs.get(hub), type(message)
        if record is None or (record.health is AWAY and not message.repeatable):
            if record is None and isinstance(message, CancelAgent):
                self._revocations.owe(hub, message, origin.peer, now)
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
        seconds = seconds_for(message, self._settings.timeouts) + HOP_MARGIN
        if message.patience is SPAWN:
            seconds -= 2 * HOP_MARGIN  # the asker's hub waits so long in all, and is to hear of it from us
        self._exchange.call(record.peer, message, origin, now + seconds)

    def again(self, record: HubRecord, call: Call[MetaHubThen], now: float) -> Message[Any]:
        """A request as it is repeated to a hub that is back: it says how long before that it was first sent."""
        message = call.message
        match message:
            case DeliverEnvelope(envelope) | DeliverAsk(envelope) if envelope.asked_ms is not None:
                return shifted(message, now - record.joined_at)
            case DeliverAsk(Envelope(extend=True)):
                return first_sent(message, now - record.since)  # or later: its deadline does not tell
            case DeliverEnvelope() | DeliverAsk():
                return first_sent(
                    message,
                    now - (call.deadline - seconds_for(message, self._settings.timeouts) - HOP_MARGIN),
                )
            case _:
                return message

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
            self.send(origin, hubs[0], message, now)

    # What becomes of it.

    def withdraw(self, peer: Peer, request_id: int | None = None) -> None:
        """Whoever asked is gone, or no longer waits for this request: it shall not be sent any more."""
        self._base_agents.withdraw(peer, request_id)
        for lookup in self._lookups.values():
            lookup.waiting = [
                (origin, message)
                for origin, message in lookup.waiting
                if origin.peer != peer or request_id not in (None, origin.id)
            ]

    def _on_progress(self, peer: Peer, party: HubParty, message: Progress, now: float) -> None:
        """A hub's agent is still working on an ask: it may take longer, if its caller allows that."""
        call = self._exchange.calls.find(peer, message.id)
        match call:
            case Call(then=Origin() as origin, message=DeliverAsk(Envelope(extend=True)) as ask):
                self._exchange.calls.extend(
                    call, now + seconds_for(ask, self._settings.timeouts) + HOP_MARGIN
                )
                self._exchange.notify(origin.peer, Progress(origin.id))

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
            self._revocations.revoke(message.spec, call.peer, "its spawn was given up", now)
        elif isinstance(message, DeliverEnvelope | DeliverAsk):
            self._cache.drop(message.envelope.target.agent)
        elif isinstance(message, Addressed):
            self._cache.drop(message.agent.agent)

    def forget_hub(self, hub: str) -> None:
        """A hub is gone, and with it what we knew of where its agents are."""
        self._directory.forget(hub)
        self._cache.forget(hub)


def hub_of(party: object) -> str | None:
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
