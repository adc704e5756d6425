"""Decides what a MetaHub does.

A MetaHub makes hubs one cluster. This file is its switchboard: who is connected, who is alive, and
what an answer or a timer is for. Who may ask what, and what decides it, is one table (``_handlers``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, assert_never

from attrs import field

from loopal_cluster.config import MetaHubSettings
from loopal_cluster.core.base_agents import BaseAgents
from loopal_cluster.core.calls import Call, Origin
from loopal_cluster.core.context import Context
from loopal_cluster.core.deadlines import DeadlineQueue
from loopal_cluster.core.effects import Effect
from loopal_cluster.core.events import (
    AgentEnded,
    AgentNotStarted,
    AgentStarted,
    Closing,
    DeadlineReached,
    Event,
    FrameReceived,
    NotReached,
    Peer,
    PeerConnected,
    PeerLost,
    TokensGiven,
)
from loopal_cluster.core.exchange import Exchange, Refused
from loopal_cluster.core.handlers import Handlers, Listeners, hear, unknown
from loopal_cluster.core.membership import Health, Membership
from loopal_cluster.core.meta_approvals import MetaApprovals
from loopal_cluster.core.meta_lookup import MetaLookup
from loopal_cluster.core.meta_membership import MetaMembership, may_repeat
from loopal_cluster.core.meta_revocations import Revocations
from loopal_cluster.core.meta_routing import MetaRouting
from loopal_cluster.core.meta_spawns import MetaSpawns
from loopal_cluster.core.parties import (
    ClientParty,
    HubParty,
    Standing,
    Stranger,
    check_may,
    standing_of,
)
from loopal_cluster.core.refusals import Refusals
from loopal_cluster.core.routes import Directory
from loopal_cluster.core.steps import (
    ApprovalDue,
    Approving,
    BaseSpawnDue,
    Claiming,
    FreeingName,
    Gathering,
    HandshakeDue,
    HealthDue,
    Identifying,
    MetaHubThen,
    OwedDue,
    RejoinDue,
    Resolving,
    Revoking,
    StartingBase,
    StoppingBase,
    Telling,
    Timer,
)
from loopal_cluster.core.timeline import Timeline
from loopal_cluster.errors import ErrorCode, InvalidAddress
from loopal_cluster.frames import Failure, Frame, Notification, Request, Response
from loopal_cluster.messages import (
    OK,
    AgentDetails,
    AgentEvent,
    CancelRequest,
    Message,
    Ok,
    Role,
    SpawnAgent,
    SpawnSpec,
    Waited,
)
from loopal_cluster.records import define, evolve

__all__ = ["MetaHubCore"]

ALIVE = Health.ALIVE
"""Looked up once: of each frame that a hub sends we ask this, and the members of an ``Enum`` are found slowly."""
LATE = 1.0
"""Seconds by which a deadline may be missed before we take it that we were not running."""

Party = Stranger | HubParty | ClientParty


@define
class MetaHubCore:
    """Decides what a MetaHub does. Knows no sockets, no clock and no tasks."""

    settings: MetaHubSettings
    new_id: Callable[[], str]
    """Makes uuids."""
    epoch: float = 0.0
    """Seconds to add to ``now`` to get seconds since the Unix epoch."""
    hubs: Membership = field(factory=Membership, init=False)
    directory: Directory = field(factory=Directory, init=False)
    exchange: Exchange[MetaHubThen] = field(init=False)
    base_agents: BaseAgents = field(init=False)
    _timers: DeadlineQueue[Timer] = field(factory=DeadlineQueue, init=False)
    _timeline: Timeline = field(init=False)
    _approvals: MetaApprovals = field(init=False)
    _revocations: Revocations = field(init=False)
    _routing: MetaRouting = field(init=False)
    _spawns: MetaSpawns = field(init=False)
    _lookup: MetaLookup = field(init=False)
    _handlers: Handlers = field(init=False, repr=False)
    """What decides each request, by who asks and what: what is not in it, nobody may ask."""
    _listeners: Listeners = field(init=False, repr=False)
    """What hears each notification, in the same way; what is not in it, nobody hears."""
    _parties: dict[Peer, Party] = field(factory=dict, init=False)
    _members: MetaMembership = field(init=False)
    _refusals: Refusals = field(init=False)

    def __attrs_post_init__(self) -> None:
        settings = self.settings
        self.exchange = Exchange(settings.limits)
        context = Context(settings, self.exchange, self._timers, self.new_id, self.epoch)
        self._refusals = Refusals(context)
        self._timeline = Timeline(context)
        self._approvals = MetaApprovals(context, self.hubs, self._parties)
        self.base_agents = BaseAgents(context)
        self._revocations = Revocations(context, self.hubs)
        self._routing = MetaRouting(context, self.hubs, self.directory, self.base_agents, self._revocations)
        self._spawns = MetaSpawns(
            context, self.hubs, self.directory, self.base_agents, self._revocations, self._routing
        )
        self._lookup = MetaLookup(
            context, self._timeline, self.hubs, self._approvals.pending, self._revocations
        )
        self._members = MetaMembership(
            context,
            self._timeline,
            self.hubs,
            self.directory,
            self._parties,
            self._approvals,
            self._revocations,
            self._routing,
            self._spawns,
            self._on_request,
            self._refuse,
            self._on_answer,
        )
        self._handlers = (
            self._members.requests()
            | self._routing.requests()
            | self._spawns.requests()
            | self._lookup.requests()
            | self._approvals.requests()
        )
        self._listeners = (
            hear(AgentEvent, self._on_agent_event, HubParty)
            | hear(CancelRequest, self._on_cancel, Stranger, HubParty, ClientParty)
            | self._members.notifications()
            | self._routing.notifications()
            | self._approvals.notifications()
        )

    def handle(self, event: Event, now: float) -> list[Effect]:
        """Take in what happened; return what to do, in this order."""
        if isinstance(event, FrameReceived):
            self._on_frame(event.peer, event.frame, now)
        else:
            self._on_event(event, now)
        return self.exchange.drain()

    def _on_event(self, event: Event, now: float) -> None:
        match event:
            case PeerConnected(peer, source=source):
                self.exchange.admit(peer)
                self._parties[peer] = Stranger(source=source)
                self._timers.set(HandshakeDue(peer), now + self.settings.timeouts.handshake_timeout)
            case PeerLost(peer, reason):
                self._on_lost(peer, reason, now)
            case DeadlineReached():
                self._on_deadline(now)
            case TokensGiven(tokens):
                self._members.tokens = tokens
            case AgentStarted() | AgentNotStarted() | AgentEnded() | Closing() | NotReached():
                raise AssertionError("a MetaHub has no agents of its own")
            case FrameReceived():
                raise AssertionError("which is not one of these")
            case unreachable:
                assert_never(unreachable)

    @property
    def tokens(self) -> tuple[str, ...]:
        """Whoever brings one of them is let in."""
        return self._members.tokens

    def standing(self, peer: Peer) -> Standing:
        """What kind of party a peer is."""
        return standing_of(self._parties.get(peer))

    def next_deadline(self) -> float | None:
        """When ``DeadlineReached`` is due."""
        call, timer = self.exchange.calls.next_deadline(), self._timers.next()
        return timer if call is None else call if timer is None else min(call, timer)

    # Frames.

    def _on_frame(self, peer: Peer, frame: Frame, now: float) -> None:
        party = self._parties.get(peer)
        if party is None or not self.exchange.knows(peer):
            return
        if type(party) is HubParty:
            record = party.record
            record.seen_at = now
            if record.health is not ALIVE:
                self._members.on_sign_of_life(record, now)
        match frame:
            case Request():
                if (origin := self.exchange.take(peer, frame)) is not None:
                    self._on_request(origin, party, frame.message, now)
            case Response() | Failure():
                if (call := self.exchange.take_answer(peer, frame)) is not None:
                    self._on_answer(call, frame, now)
            case Notification():
                self._on_notification(peer, party, frame.message, now)
            case unreachable:
                assert_never(unreachable)

    def _on_request(self, origin: Origin, party: Party, message: Message[Any], now: float) -> None:
        try:
            handle = self._handlers.get((type(party), type(message)))
            if type(party) is ClientParty:
                check_may(party, message)
            if handle is None:
                raise unhandled(party, message)
            handle(origin, party, message, now)
        except Refused as refused:
            self._refuse(origin, refused.code, refused.detail, now)
        except InvalidAddress as error:
            self._refuse(origin, ErrorCode.INVALID_REQUEST, str(error), now)

    def _refuse(self, origin: Origin, code: ErrorCode, detail: str, now: float) -> None:
        self.exchange.refuse(origin, code, detail)
        if isinstance(party := self._parties.get(origin.peer), Stranger):
            self._refusals.say(party.source, detail, now)

    def _on_notification(self, peer: Peer, party: Party, message: Message[Any], now: float) -> None:
        # Without one: the unauthenticated are not listened to, and a base peer may say more than we need.
        if (handle := self._listeners.get((type(party), type(message)))) is not None:
            handle(peer, party, message, now)

    def _on_agent_event(self, peer: Peer, party: HubParty, message: AgentEvent, now: float) -> None:
        self._timeline.publish(party.record.name, message.agent_name, message.payload, now)

    def _on_cancel(self, peer: Peer, party: object, message: CancelRequest, now: float) -> None:
        self._approvals.pending.withdraw(peer, now, message.id)
        self._routing.withdraw(peer, message.id)
        call = self.exchange.withdraw(Origin(peer, message.id))
        if call is not None and isinstance(call.message, SpawnAgent):
            self._revocations.revoke(call.message.spec, call.peer, "its spawn was given up", now)

    def _on_answer(self, call: Call[MetaHubThen], answer: Response | Failure, now: float) -> None:
        match call.then:
            case Origin() as origin:
                self._on_forwarded(call, origin, answer, now)
            case FreeingName() as then:
                self.base_agents.on_name_known(then, self.hubs.get(then.hub), answer, now)
            case StartingBase() as then:
                self.base_agents.on_started(then, self.hubs.get(then.hub), answer, now)
            case Identifying() as then:
                self.base_agents.on_identified(then, self.hubs.get(then.hub), answer, now)
            case StoppingBase() as then:
                self.base_agents.on_stopped(then, answer, now)
            case Revoking() as then:
                self._revocations.on_revoked(then, answer)
            case Approving(ask_id):
                self._approvals.pending.on_answer(call, ask_id, answer, now)
            case Claiming(hub):
                self._members.on_probed(hub, answer, now)
            case Resolving() as then:
                self._routing.on_resolved(then, answer, now)
            case Gathering() as then:
                self._lookup.on_gathered(then, answer)
            case Telling(hub):
                # Not for one that is gone itself: with many at once, that would be a line for each pair.
                if isinstance(answer, Failure) and answer.code is not ErrorCode.CONNECTION_LOST:
                    self.exchange.log("WARNING", f"hub '{hub}' did not take the news: {answer.detail}")
            case unreachable:
                assert_never(unreachable)

    def _on_forwarded(
        self, call: Call[MetaHubThen], origin: Origin, answer: Response | Failure, now: float
    ) -> None:
        if type(answer) is Response and (result := answer.result) is not OK:
            if isinstance(result, Ok) and not result.ok:
                # Loopal's MetaHub does not look at this, and tells the sender that all is well.
                answer = Failure(
                    answer.id, ErrorCode.DELIVERY_FAILED, "the hub could not deliver the message"
                )
            elif isinstance(result, (Waited, AgentDetails)):
                answer = Response(answer.id, self._qualified(result, call.peer))
            elif isinstance(call.message, SpawnAgent):
                self._on_spawned(origin.peer, call.message.spec, call.peer)
        if isinstance(answer, Failure):
            self._routing.on_failed(call, answer, now)
        self.exchange.pass_on(origin, answer)

    def _on_spawned(self, spawner: Peer, spec: SpawnSpec, hub: Peer) -> None:
        if isinstance(self._parties.get(spawner), ClientParty):
            self._spawns.on_spawned(spawner, spec, hub)

    def _qualified(self, result: Waited | AgentDetails, peer: Peer) -> Waited | AgentDetails:
        """An answer about an agent, with the hub that its bare names are on."""
        party = self._parties.get(peer)
        if not isinstance(party, HubParty):
            return result
        hub = party.record.name
        if isinstance(result, Waited):
            return result if result.agent is None else evolve(result, agent=qualify(result.agent, hub))
        parent = None if result.parent is None else qualify(result.parent, hub)
        return evolve(result, parent=parent, hub=result.hub or hub)

    def _on_lost(self, peer: Peer, reason: str, now: float) -> None:
        party = self._parties.pop(peer)
        self._members.withdraw_claim(peer)
        self._timers.discard(HandshakeDue(peer))
        self._timeline.forget(peer)
        self._approvals.pending.withdraw(peer, now)
        self._routing.withdraw(peer)
        asked = self.exchange.calls_for(peer)
        keeps = isinstance(party, HubParty) and party.record.instance is not None
        calls = self.exchange.forget(peer, may_repeat if keeps else never)
        self._members.fail(calls, f"connection lost: {reason}", now)
        if isinstance(party, ClientParty):
            self._on_client_lost(peer, party, asked, now)
        if isinstance(party, HubParty) and party.record.peer == peer:
            self._members.on_away(party.record, reason, now)

    def _on_client_lost(
        self, peer: Peer, party: ClientParty, asked: list[Call[MetaHubThen]], now: float
    ) -> None:
        """Nobody waits for what it has asked, and its agents end with it."""
        reason = f"client '{party.name}' has gone"
        if party.role is Role.OPERATOR:
            self._approvals.on_attendance(now)
        for call in asked:
            if isinstance(call.message, SpawnAgent) and not call.message.spec.detached:
                self.exchange.give_up(call)
                self._revocations.revoke(call.message.spec, call.peer, reason, now)
            elif call.message.answer_only:
                self.exchange.give_up(call)
        self._spawns.on_client_lost(peer, reason, now)

    # Time.

    def _forgive(self, now: float) -> None:
        """If we ourselves were stopped or starved, silence meanwhile says nothing about the hubs."""
        due = self.next_deadline()
        if due is not None and now - due > LATE:
            for record in self.hubs:
                record.seen_at = min(now, record.seen_at + (now - due))

    def _on_deadline(self, now: float) -> None:
        self._forgive(now)
        self._members.forget_losses(now)
        for call, failure in self.exchange.take_due(now):
            self._on_answer(call, failure, now)
        while (timer := self._timers.pop_due(now)) is not None:
            match timer:
                case HandshakeDue(peer):
                    self.exchange.hang_up(peer, "it did not register in time")
                case ApprovalDue(ask_id):
                    self._approvals.pending.expire(ask_id, now)
                case BaseSpawnDue(hub, agent_id):
                    self.base_agents.on_due(hub, agent_id)
                case OwedDue(hub, agent_id):
                    self._revocations.forget_owed(hub, agent_id)
                case HealthDue(hub):
                    self._members.on_health_due(hub, now)
                case RejoinDue(hub):
                    self._members.on_rejoin_due(hub, now)
                case other:
                    raise AssertionError(f"not a timer of a MetaHub: {other}")


def qualify(address: str, hub: str) -> str:
    """An address as others see it who are not on that hub."""
    return address if "/" in address else f"{hub}/{address}"


def never(call: Call[MetaHubThen]) -> bool:
    """Base hubs do not come back."""
    return False


def unhandled(party: Party, message: Message[Any]) -> Refused:
    """Why nothing decides a request."""
    if isinstance(party, Stranger):
        return Refused(ErrorCode.NOT_REGISTERED, "expected meta/register first")
    return unknown(message)
