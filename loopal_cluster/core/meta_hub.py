"""Decides what a MetaHub does.

A MetaHub makes hubs one cluster. This file is its switchboard: who is connected, who is alive, and
what an answer or a timer is for. Who may ask what, and what decides it, is one table (``_handlers``).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, assert_never

from attrs import field

from loopal_cluster.address import check_name
from loopal_cluster.config import MetaHubSettings
from loopal_cluster.core.base_agents import BaseAgents
from loopal_cluster.core.calls import Call, Origin
from loopal_cluster.core.claims import Claims
from loopal_cluster.core.context import Context
from loopal_cluster.core.deadlines import DeadlineQueue
from loopal_cluster.core.effects import Effect, Watch
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
from loopal_cluster.core.handlers import Handlers, Listeners, hear, serve, unknown
from loopal_cluster.core.membership import Health, HubRecord, Membership
from loopal_cluster.core.meta_approvals import MetaApprovals
from loopal_cluster.core.meta_lookup import MetaLookup
from loopal_cluster.core.meta_revocations import Revocations
from loopal_cluster.core.meta_routing import MetaRouting
from loopal_cluster.core.meta_spawns import MetaSpawns
from loopal_cluster.core.parties import (
    ClientParty,
    HubParty,
    Standing,
    Stranger,
    agree,
    check_may,
    is_token,
    pings,
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
from loopal_cluster.labels import check_description
from loopal_cluster.messages import (
    OK,
    AgentDetails,
    AgentEvent,
    CancelAgent,
    CancelRequest,
    Heartbeat,
    HubLost,
    Leave,
    Message,
    Ok,
    Register,
    RegisterHub,
    Resolve,
    Role,
    SpawnAgent,
    SpawnSpec,
    WaitAgent,
    Waited,
    Welcome,
)
from loopal_cluster.outcomes import Lost
from loopal_cluster.payloads import HubAway, HubGone, HubJoined, HubSuspect
from loopal_cluster.records import define, evolve

__all__ = ["MetaHubCore"]

ALIVE = Health.ALIVE
"""Looked up once: of each frame that a hub sends we ask this, and the members of an ``Enum`` are found slowly."""
LEFT = "it has left"
"""Why a hub is gone that has said goodbye."""
MAX_AGENT_COUNT = 2**31 - 1
"""A hub is believed no more agents: the sum over all hubs is a number that travels."""
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
    tokens: tuple[str, ...] = field(init=False, repr=False)
    """Whoever brings one of them is let in."""
    _claims: Claims = field(factory=Claims, init=False)
    _refusals: Refusals = field(init=False)
    _losses: deque[tuple[float, HubLost]] = field(factory=deque, init=False)
    """The newest, for those who could not be told at once."""

    def __attrs_post_init__(self) -> None:
        settings = self.settings
        self.exchange = Exchange(settings.limits)
        context = Context(settings, self.exchange, self._timers, self.new_id, self.epoch)
        self.tokens = (settings.token,)
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
        self._handlers = (
            serve(RegisterHub, self._on_register, Stranger)
            | serve(Register, self._on_register, Stranger)
            | serve(Leave, self._on_leave, HubParty)
            | self._routing.requests()
            | self._spawns.requests()
            | self._lookup.requests()
            | self._approvals.requests()
        )
        self._listeners = (
            hear(Heartbeat, self._on_heartbeat, HubParty)
            | hear(AgentEvent, self._on_agent_event, HubParty)
            | hear(CancelRequest, self._on_cancel, Stranger, HubParty, ClientParty)
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
                self.tokens = tokens
            case AgentStarted() | AgentNotStarted() | AgentEnded() | Closing() | NotReached():
                raise AssertionError("a MetaHub has no agents of its own")
            case FrameReceived():
                raise AssertionError("which is not one of these")
            case unreachable:
                assert_never(unreachable)

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
                self._on_sign_of_life(record, now)
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

    def _on_heartbeat(self, peer: Peer, party: HubParty, message: Heartbeat, now: float) -> None:
        party.record.agent_count = min(max(0, message.agent_count), MAX_AGENT_COUNT)

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
                self._on_probed(hub, answer, now)
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

    # Registration: decided and answered in one step.

    def _on_register(
        self, origin: Origin, party: Stranger, message: RegisterHub | Register, now: float
    ) -> None:
        if not is_token(message.token, *self.tokens):
            self.exchange.refuse(origin, ErrorCode.UNAUTHORIZED, "invalid token")
            self.exchange.hang_up(origin.peer, "invalid token", wrong_token=True)
            return
        if self._claims.has(origin.peer):
            raise Refused(ErrorCode.INVALID_REQUEST, "it waits for a hub name already")
        if isinstance(message, RegisterHub):
            self._register_hub(origin, message, now)
        else:
            self._register_client(origin, message, now)

    def _register_client(self, origin: Origin, message: Register, now: float) -> None:
        if message.role is Role.AGENT:
            raise Refused(ErrorCode.INVALID_REQUEST, "a MetaHub has no agents; register with a hub")
        name, protocol = check_name(message.name), agree(message.protocol)
        self._parties[origin.peer] = ClientParty(name, message.role)
        self._timers.discard(HandshakeDue(origin.peer))
        welcome = Welcome(name=name, kind="meta_hub", protocol=protocol, cluster=self.settings.cluster)
        self.exchange.answer(origin, welcome)
        self.exchange.perform(Watch(origin.peer, pings(protocol)))
        if message.role is Role.OPERATOR:
            self._approvals.pending.show_all(origin.peer, now)
            self._approvals.on_attendance(now)

    def _register_hub(self, origin: Origin, message: RegisterHub, now: float) -> None:
        name, protocol = check_name(message.name, "hub name"), agree(message.protocol)
        check_description(message.capabilities, message.labels, message.agent_types)
        known = self.hubs.get(name)
        returning = known is not None and message.instance is not None and known.instance == message.instance
        if known is not None and not returning:
            self._claim(origin, message, known, now)
            return
        if known is None and len(self.hubs) >= self.settings.limits.hubs:
            raise Refused(ErrorCode.OVERLOADED, f"this MetaHub has {len(self.hubs)} hubs already")
        old = None if known is None else known.peer
        if known is not None:
            record = self._take_back(known, origin.peer, now)
        else:
            record = HubRecord(
                name=name,
                instance=message.instance,
                peer=origin.peer,
                protocol=protocol,
                capabilities=message.capabilities,
                labels=message.labels,
                agent_types=message.agent_types,
                seen_at=now,
                since=now - max(0, message.up_ms) / 1000,
                joined_at=now,
            )
            self.hubs.add(record)
        self._parties[origin.peer] = HubParty(record)
        self._timers.discard(HandshakeDue(origin.peer))
        self.exchange.make_link(origin.peer)
        self._timers.set(HealthDue(name), now + self.settings.timeouts.suspect_timeout)
        self.exchange.answer(origin, self._welcome_hub(record))
        if old is not None:
            self.exchange.resume(old, origin.peer, now)
        record.seen_at = now
        if record.health is not Health.ALIVE:
            self._on_sign_of_life(record, now)
        self._revocations.revoke_again(record, now)
        if record.speaks("judge"):
            self._approvals.pending.show_all(record.peer, now)
        self._approvals.tell_attended(record)
        self._timeline.publish(name, None, HubJoined(name), now)
        self.exchange.log("INFO", f"hub '{name}' {'is back' if returning else 'joined'}")
        if returning:
            self._refuse_claims(name, now)

    def _claim(self, origin: Origin, message: RegisterHub, known: HubRecord, now: float) -> None:
        """A hub wants a name that another one has: see first whether that one lives.

        Raises:
            Refused: too many want it already.
        """
        if known.protocol is None and known.health is Health.ALIVE:
            # It handles our requests one after the other, and may be long at one: only its heartbeats count.
            raise Refused(ErrorCode.NAME_TAKEN, f"hub name '{known.name}' is taken by a live hub")
        claim, timeouts = self._claims.add(origin, message, now), self.settings.timeouts
        self._timers.set(HandshakeDue(origin.peer), now + timeouts.handshake_timeout)
        if claim.probed or known.health is Health.AWAY:  # whose place is kept only for a moment
            return
        claim.probed = True
        try:
            # What every hub answers, also one of the base dialect, and what changes nothing.
            self.exchange.call(
                known.peer, Resolve(known.name), Claiming(known.name), now + timeouts.claim_timeout
            )
        except Refused:  # so much is asked of it that it shows by its answers whether it lives
            self._refuse_claims(known.name, now)

    def _on_probed(self, name: str, answer: Response | Failure, now: float) -> None:
        """A hub whose name another one wants has answered, or has not."""
        record, claim = self.hubs.get(name), self._claims.get(name)
        if record is None or claim is None:
            return
        if isinstance(answer, Failure) and answer.code is ErrorCode.CONNECTION_LOST:
            claim.probed = False  # it may come back, until its place is not kept any more
        elif (
            isinstance(answer, Failure)
            and answer.code is ErrorCode.DEADLINE_EXCEEDED
            and (record.seen_at <= claim.since)
        ):
            reason = (
                f"it has not answered for {now - claim.since:.1f} s, and another hub has come with its name"
            )
            self.exchange.hang_up(record.peer, reason)
            self._lose(record, reason, now)
        else:
            self._refuse_claims(name, now)

    def _refuse_claims(self, name: str, now: float) -> None:
        """The hub that has a name lives."""
        for origin, _ in self._claims.take(name):
            self._refuse(origin, ErrorCode.NAME_TAKEN, f"hub name '{name}' is taken by a live hub", now)

    def _grant_claims(self, name: str, now: float) -> None:
        """A name is free: it goes to the first who has waited for it."""
        for origin, message in self._claims.take(name):
            if self.exchange.waits(origin):
                self._on_request(origin, self._parties[origin.peer], message, now)

    def _take_back(self, record: HubRecord, peer: Peer, now: float) -> HubRecord:
        """The same hub on another connection; the old one may not even know that it is dead."""
        self.exchange.hang_up(record.peer, "the hub has connected again")
        self._approvals.pending.withdraw(record.peer, now)  # it asks again
        self._fail(self.exchange.forget(record.peer, may_repeat), "the hub has connected again", now)
        self._timers.discard(RejoinDue(record.name))
        self._approvals.on_unattended(record, now)  # it says so again, and is told again
        self.exchange.reword(record.peer, lambda call: self._routing.again(record, call, now))
        record.peer, record.joined_at = peer, now
        return record

    def _welcome_hub(self, record: HubRecord) -> Welcome:
        if record.protocol is None:
            return Welcome()
        return Welcome(
            name=record.name,
            kind="meta_hub",
            protocol=record.protocol,
            cluster=self.settings.cluster,
            heartbeat_interval=self.settings.timeouts.heartbeat_interval,
            line_bytes=self.settings.limits.line_bytes,
        )

    # Health.

    def _on_sign_of_life(self, record: HubRecord, now: float) -> None:
        """A hub that was not alive is."""
        record.health = Health.ALIVE
        for at, loss in self._losses:
            if at >= record.silent_since:
                self._tell(record, loss, now)
        self._timers.set(HealthDue(record.name), now + self.settings.timeouts.suspect_timeout)
        self.exchange.log("INFO", f"hub '{record.name}' is alive")

    def _on_silent(self, record: HubRecord, health: Health, now: float) -> None:
        if record.health is Health.ALIVE:
            record.silent_since = now
        record.health = health

    def _on_health_due(self, name: str, now: float) -> None:
        record, timeouts = self.hubs.get(name), self.settings.timeouts
        if record is None or record.health is Health.AWAY:
            return
        # Sums, as in the timer: a difference may be rounded to just below the timeout, and again for ever.
        if now >= record.seen_at + timeouts.lost_timeout:
            reason = f"silent for {timeouts.lost_timeout:g} s"
            self.exchange.hang_up(record.peer, reason)
            self._lose(record, reason, now)
            return
        if now >= record.seen_at + timeouts.suspect_timeout and record.health is Health.ALIVE:
            self._on_silent(record, Health.SUSPECT, now)
            self._timeline.publish(name, None, HubSuspect(name), now)
            self.exchange.log("INFO", f"hub '{name}' is suspect: silent for {timeouts.suspect_timeout:g} s")
        suspect = record.health is Health.SUSPECT
        limit = timeouts.lost_timeout if suspect else timeouts.suspect_timeout
        self._timers.set(HealthDue(name), record.seen_at + limit)

    def _on_lost(self, peer: Peer, reason: str, now: float) -> None:
        party = self._parties.pop(peer)
        self._claims.withdraw(peer)
        self._timers.discard(HandshakeDue(peer))
        self._timeline.forget(peer)
        self._approvals.pending.withdraw(peer, now)
        self._routing.withdraw(peer)
        asked = self.exchange.calls_for(peer)
        keeps = isinstance(party, HubParty) and party.record.instance is not None
        self._fail(
            self.exchange.forget(peer, may_repeat if keeps else never), f"connection lost: {reason}", now
        )
        if isinstance(party, ClientParty):
            self._on_client_lost(peer, party, asked, now)
        if isinstance(party, HubParty) and party.record.peer == peer:
            self._on_hub_away(party.record, reason, now)

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

    def _fail(self, calls: list[Call[MetaHubThen]], reason: str, now: float) -> None:
        for call in calls:
            self._on_answer(call, Failure(call.id, ErrorCode.CONNECTION_LOST, reason), now)

    def _on_hub_away(self, record: HubRecord, reason: str, now: float) -> None:
        if self.hubs.get(record.name) is not record:
            return
        if record.instance is None:
            self._lose(record, reason, now)  # a base hub does not redial
            return
        self._on_silent(record, Health.AWAY, now)
        self._approvals.on_unattended(record, now)
        self._timers.set(RejoinDue(record.name), now + self.settings.timeouts.rejoin_timeout)
        self._timeline.publish(record.name, None, HubAway(record.name, reason), now)
        self.exchange.log("INFO", f"hub '{record.name}' is away: {reason}")

    def _on_leave(self, origin: Origin, party: HubParty, message: Leave, now: float) -> None:
        """A hub says that it closes: nothing is kept for it."""
        record = party.record
        self.exchange.answer(origin, OK)
        self.exchange.hang_up(origin.peer, LEFT)
        self.exchange.log("INFO", f"hub '{record.name}' has left")
        self._forget(record, LEFT, now)

    def _lose(self, record: HubRecord, reason: str, now: float) -> None:
        self.exchange.log("WARNING", f"hub '{record.name}' was lost: {reason}")
        self._forget(record, reason, now)

    def _forget(self, record: HubRecord, reason: str, now: float) -> None:
        """Forget a hub, and tell every other hub that what it ran is gone."""
        record.health = Health.AWAY
        # While it is still listed: a spawn that fails now is owed its end, should the hub come back.
        for call in self.exchange.forget(record.peer):
            self._on_answer(call, self._answer_of_lost(record.name, call, reason), now)
        self.hubs.remove(record)
        self._approvals.on_unattended(record, now)
        self._routing.forget_hub(record.name)
        self._spawns.forget_hub(record.name, reason, now)
        self._routing.give_up_asks(record.name)
        self._timers.discard(HealthDue(record.name))
        self._timers.discard(RejoinDue(record.name))
        self._timeline.publish(record.name, None, HubGone(record.name, reason), now)
        loss = HubLost(record.name, reason)
        self._losses.append((now, loss))
        for other in self.hubs:
            if other.health is Health.ALIVE:  # the others hear of it when they are
                self._tell(other, loss, now)
        self._grant_claims(record.name, now)

    def _tell(self, hub: HubRecord, loss: HubLost, now: float) -> None:
        if hub.protocol is None:
            return
        deadline = now + self.settings.timeouts.call_timeout
        try:
            self.exchange.call(hub.peer, loss, Telling(hub.name), deadline)
        except Refused as refused:
            self.exchange.log("WARNING", f"hub '{hub.name}' not told: {refused.detail}")

    def _answer_of_lost(self, hub: str, call: Call[MetaHubThen], reason: str) -> Response | Failure:
        """For a hub that is gone: whoever waits for the end of its agent learns that it is lost.

        One that is named by an identity which the hub had not announced may have ended before, or elsewhere.
        """
        reason = f"hub '{hub}' is gone: {reason}"
        match call:
            case Call(then=Origin(), message=WaitAgent(agent, agent_id) | CancelAgent(agent, agent_id)):
                if agent_id is None or self.directory.has(agent.agent, hub, agent_id):
                    address = str(agent.on(hub))
                    waited = Waited(reason, agent=address, agent_id=agent_id, outcome=Lost(reason))
                    return Response(call.id, waited)
        return Failure(call.id, ErrorCode.CONNECTION_LOST, reason)

    # Time.

    def _forgive(self, now: float) -> None:
        """If we ourselves were stopped or starved, silence meanwhile says nothing about the hubs."""
        due = self.next_deadline()
        if due is not None and now - due > LATE:
            for record in self.hubs:
                record.seen_at = min(now, record.seen_at + (now - due))

    def _on_deadline(self, now: float) -> None:
        self._forgive(now)
        while self._losses and self._losses[0][0] < now - self.settings.timeouts.lost_timeout:
            self._losses.popleft()  # who has been silent for longer is lost itself
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
                    self._on_health_due(hub, now)
                case RejoinDue(hub):
                    if (record := self.hubs.get(hub)) is not None and record.health is Health.AWAY:
                        self._lose(record, "its connection ended and it did not come back", now)
                case _:
                    raise AssertionError(f"not a timer of a MetaHub: {timer}")

    # Humans.


def qualify(address: str, hub: str) -> str:
    """An address as others see it who are not on that hub."""
    return address if "/" in address else f"{hub}/{address}"


def may_repeat(call: Call[MetaHubThen]) -> bool:
    """Whether a call that a hub left unanswered is asked again when it is back.

    Not what was asked to see whether it is there: that is about the connection which has ended.
    """
    return call.message.repeatable and not isinstance(call.then, Claiming | Resolving)


def never(call: Call[MetaHubThen]) -> bool:
    """Base hubs do not come back."""
    return False


def unhandled(party: Party, message: Message[Any]) -> Refused:
    """Why nothing decides a request."""
    if isinstance(party, Stranger):
        return Refused(ErrorCode.NOT_REGISTERED, "expected meta/register first")
    return unknown(message)
