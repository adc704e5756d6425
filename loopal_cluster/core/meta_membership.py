"""The hubs of a MetaHub, and its clients, as they come and go.

A hub registers, is alive, suspect (silent), or away (its connection ended, its place is kept), returns, leaves, or is
lost; then every other hub is told. A name that another hub has goes to a newcomer if that one does not answer
(``claims.py``). Registration is decided and answered in one step.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from attrs import field

from loopal_cluster.address import check_name
from loopal_cluster.core.calls import Call, Origin
from loopal_cluster.core.claims import Claims
from loopal_cluster.core.context import MetaHubPart
from loopal_cluster.core.effects import Watch
from loopal_cluster.core.events import (
    Peer,
)
from loopal_cluster.core.exchange import Refused
from loopal_cluster.core.handlers import Handlers, Listeners, hear, serve
from loopal_cluster.core.membership import Health, HubRecord, Membership
from loopal_cluster.core.meta_approvals import MetaApprovals
from loopal_cluster.core.meta_revocations import Revocations
from loopal_cluster.core.meta_routing import MetaRouting
from loopal_cluster.core.meta_spawns import MetaSpawns
from loopal_cluster.core.parties import (
    ClientParty,
    HubParty,
    Stranger,
    agree,
    is_token,
    pings,
)
from loopal_cluster.core.routes import Directory
from loopal_cluster.core.steps import (
    Claiming,
    HandshakeDue,
    HealthDue,
    MetaHubThen,
    RejoinDue,
    Resolving,
    Telling,
)
from loopal_cluster.core.timeline import Timeline
from loopal_cluster.errors import ErrorCode
from loopal_cluster.frames import Failure, Response
from loopal_cluster.labels import check_description
from loopal_cluster.messages import (
    OK,
    CancelAgent,
    Heartbeat,
    HubLost,
    Leave,
    Message,
    Register,
    RegisterHub,
    Resolve,
    Role,
    WaitAgent,
    Waited,
    Welcome,
)
from loopal_cluster.outcomes import Lost
from loopal_cluster.payloads import HubAway, HubGone, HubJoined, HubSuspect
from loopal_cluster.records import define

__all__ = ["MetaMembership", "may_repeat"]

LEFT = "it has left"
"""Why a hub is gone that has said goodbye."""
MAX_AGENT_COUNT = 2**31 - 1
"""A hub is believed no more agents: the sum over all hubs is a number that travels."""

Party = Stranger | HubParty | ClientParty


@define
class MetaMembership(MetaHubPart):
    """Lets hubs and clients in, and sees to it that a hub which is lost is known to be."""

    _timeline: Timeline
    _hubs: Membership
    _directory: Directory
    _parties: dict[Peer, Party]
    _approvals: MetaApprovals
    _revocations: Revocations
    _routing: MetaRouting
    _spawns: MetaSpawns
    _decide: Callable[[Origin, Party, Message[Any], float], None]
    """Has a request decided as if it came now."""
    _refuse: Callable[[Origin, ErrorCode, str, float], None]
    _settle: Callable[[Call[MetaHubThen], Response | Failure, float], None]
    """Does what follows the answer to a call."""
    tokens: tuple[str, ...] = field(init=False, repr=False)
    """Whoever brings one of them is let in."""
    _claims: Claims = field(factory=Claims, init=False)
    _losses: deque[tuple[float, HubLost]] = field(factory=deque, init=False)
    """The newest, for those who could not be told at once."""

    def __attrs_post_init__(self) -> None:
        self.tokens = (self._settings.token,)

    def requests(self) -> Handlers:
        """Coming, and leaving."""
        return (
            serve(RegisterHub, self._on_register, Stranger)
            | serve(Register, self._on_register, Stranger)
            | serve(Leave, self._on_leave, HubParty)
        )

    def notifications(self) -> Listeners:
        """Signs of life."""
        return hear(Heartbeat, self._on_heartbeat, HubParty)

    def _on_register(
        self, origin: Origin, party: Stranger, message: RegisterHub | Register, now: float
    ) -> None:
        if not is_token(message.token, *self.tokens):
            self._exchange.refuse(origin, ErrorCode.UNAUTHORIZED, "invalid token")
            self._exchange.hang_up(origin.peer, "invalid token", wrong_token=True)
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
        welcome = Welcome(name=name, kind="meta_hub", protocol=protocol, cluster=self._settings.cluster)
        self._exchange.answer(origin, welcome)
        self._exchange.perform(Watch(origin.peer, pings(protocol)))
        if message.role is Role.OPERATOR:
            self._approvals.pending.show_all(origin.peer, now)
            self._approvals.on_attendance(now)

    def _register_hub(self, origin: Origin, message: RegisterHub, now: float) -> None:
        name, protocol = check_name(message.name, "hub name"), agree(message.protocol)
        check_description(message.capabilities, message.labels, message.agent_types)
        known = self._hubs.get(name)
        returning = known is not None and message.instance is not None and known.instance == message.instance
        if known is not None and not returning:
            self._claim(origin, message, known, now)
            return
        if known is None and len(self._hubs) >= self._settings.limits.hubs:
            raise Refused(ErrorCode.OVERLOADED, f"this MetaHub has {len(self._hubs)} hubs already")
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
            self._hubs.add(record)
        self._parties[origin.peer] = HubParty(record)
        self._timers.discard(HandshakeDue(origin.peer))
        self._exchange.make_link(origin.peer)
        self._timers.set(HealthDue(name), now + self._settings.timeouts.suspect_timeout)
        self._exchange.answer(origin, self._welcome_hub(record))
        if old is not None:
            self._exchange.resume(old, origin.peer, now)
        record.seen_at = now
        if record.health is not Health.ALIVE:
            self.on_sign_of_life(record, now)
        self._revocations.revoke_again(record, now)
        if record.speaks("judge"):
            self._approvals.pending.show_all(record.peer, now)
        self._approvals.tell_attended(record)
        self._timeline.publish(name, None, HubJoined(name), now)
        self._exchange.log("INFO", f"hub '{name}' {'is back' if returning else 'joined'}")
        if returning:
            self._refuse_claims(name, now)

    def _welcome_hub(self, record: HubRecord) -> Welcome:
        if record.protocol is None:
            return Welcome()
        return Welcome(
            name=record.name,
            kind="meta_hub",
            protocol=record.protocol,
            cluster=self._settings.cluster,
            heartbeat_interval=self._settings.timeouts.heartbeat_interval,
            line_bytes=self._settings.limits.line_bytes,
        )

    def _claim(self, origin: Origin, message: RegisterHub, known: HubRecord, now: float) -> None:
        """A hub wants a name that another one has: see first whether that one lives.

        Raises:
            Refused: too many want it already.
        """
        if known.protocol is None and known.health is Health.ALIVE:
            # It handles our requests one after the other, and may be long at one: only its heartbeats count.
            raise Refused(ErrorCode.NAME_TAKEN, f"hub name '{known.name}' is taken by a live hub")
        claim, timeouts = self._claims.add(origin, message, now), self._settings.timeouts
        self._timers.set(HandshakeDue(origin.peer), now + timeouts.handshake_timeout)
        if claim.probed or known.health is Health.AWAY:  # whose place is kept only for a moment
            return
        claim.probed = True
        try:
            # What every hub answers, also one of the base dialect, and what changes nothing.
            self._exchange.call(
                known.peer, Resolve(known.name), Claiming(known.name), now + timeouts.claim_timeout
            )
        except Refused:  # so much is asked of it that it shows by its answers whether it lives
            self._refuse_claims(known.name, now)

    def on_probed(self, name: str, answer: Response | Failure, now: float) -> None:
        """A hub whose name another one wants has answered, or has not."""
        record, claim = self._hubs.get(name), self._claims.get(name)
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
            self._exchange.hang_up(record.peer, reason)
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
            if self._exchange.waits(origin):
                self._decide(origin, self._parties[origin.peer], message, now)

    def _take_back(self, record: HubRecord, peer: Peer, now: float) -> HubRecord:
        """The same hub on another connection; the old one may not even know that it is dead."""
        self._exchange.hang_up(record.peer, "the hub has connected again")
        self._approvals.pending.withdraw(record.peer, now)  # it asks again
        self.fail(self._exchange.forget(record.peer, may_repeat), "the hub has connected again", now)
        self._timers.discard(RejoinDue(record.name))
        self._approvals.on_unattended(record, now)  # it says so again, and is told again
        self._exchange.reword(record.peer, lambda call: self._routing.again(record, call, now))
        record.peer, record.joined_at = peer, now
        return record

    def on_sign_of_life(self, record: HubRecord, now: float) -> None:
        """A hub that was not alive is."""
        record.health = Health.ALIVE
        for at, loss in self._losses:
            if at >= record.silent_since:
                self._tell(record, loss, now)
        self._timers.set(HealthDue(record.name), now + self._settings.timeouts.suspect_timeout)
        self._exchange.log("INFO", f"hub '{record.name}' is alive")

    def _on_silent(self, record: HubRecord, health: Health, now: float) -> None:
        if record.health is Health.ALIVE:
            record.silent_since = now
        record.health = health

    def _on_heartbeat(self, peer: Peer, party: HubParty, message: Heartbeat, now: float) -> None:
        party.record.agent_count = min(max(0, message.agent_count), MAX_AGENT_COUNT)

    def on_health_due(self, name: str, now: float) -> None:
        """See whether a hub has been silent for too long."""
        record, timeouts = self._hubs.get(name), self._settings.timeouts
        if record is None or record.health is Health.AWAY:
            return
        # Sums, as in the timer: a difference may be rounded to just below the timeout, and again for ever.
        if now >= record.seen_at + timeouts.lost_timeout:
            reason = f"silent for {timeouts.lost_timeout:g} s"
            self._exchange.hang_up(record.peer, reason)
            self._lose(record, reason, now)
            return
        if now >= record.seen_at + timeouts.suspect_timeout and record.health is Health.ALIVE:
            self._on_silent(record, Health.SUSPECT, now)
            self._timeline.publish(name, None, HubSuspect(name), now)
            self._exchange.log("INFO", f"hub '{name}' is suspect: silent for {timeouts.suspect_timeout:g} s")
        suspect = record.health is Health.SUSPECT
        limit = timeouts.lost_timeout if suspect else timeouts.suspect_timeout
        self._timers.set(HealthDue(name), record.seen_at + limit)

    def on_away(self, record: HubRecord, reason: str, now: float) -> None:
        """The connection of a hub has ended: its place is kept for a while, if it can come back."""
        if self._hubs.get(record.name) is not record:
            return
        if record.instance is None:
            self._lose(record, reason, now)  # a base hub does not redial
            return
        self._on_silent(record, Health.AWAY, now)
        self._approvals.on_unattended(record, now)
        self._timers.set(RejoinDue(record.name), now + self._settings.timeouts.rejoin_timeout)
        self._timeline.publish(record.name, None, HubAway(record.name, reason), now)
        self._exchange.log("INFO", f"hub '{record.name}' is away: {reason}")

    def _on_leave(self, origin: Origin, party: HubParty, message: Leave, now: float) -> None:
        """A hub says that it closes: nothing is kept for it."""
        record = party.record
        self._exchange.answer(origin, OK)
        self._exchange.hang_up(origin.peer, LEFT)
        self._exchange.log("INFO", f"hub '{record.name}' has left")
        self._forget(record, LEFT, now)

    def _lose(self, record: HubRecord, reason: str, now: float) -> None:
        self._exchange.log("WARNING", f"hub '{record.name}' was lost: {reason}")
        self._forget(record, reason, now)

    def _forget(self, record: HubRecord, reason: str, now: float) -> None:
        """Forget a hub, and tell every other hub that what it ran is gone."""
        record.health = Health.AWAY
        # While it is still listed: a spawn that fails now is owed its end, should the hub come back.
        for call in self._exchange.forget(record.peer):
            self._settle(call, self._answer_of_lost(record.name, call, reason), now)
        self._hubs.remove(record)
        self._approvals.on_unattended(record, now)
        self._routing.forget_hub(record.name)
        self._spawns.forget_hub(record.name, reason, now)
        self._routing.give_up_asks(record.name)
        self._timers.discard(HealthDue(record.name))
        self._timers.discard(RejoinDue(record.name))
        self._timeline.publish(record.name, None, HubGone(record.name, reason), now)
        loss = HubLost(record.name, reason)
        self._losses.append((now, loss))
        for other in self._hubs:
            if other.health is Health.ALIVE:  # the others hear of it when they are
                self._tell(other, loss, now)
        self._grant_claims(record.name, now)

    def _tell(self, hub: HubRecord, loss: HubLost, now: float) -> None:
        if hub.protocol is None:
            return
        deadline = now + self._settings.timeouts.call_timeout
        try:
            self._exchange.call(hub.peer, loss, Telling(hub.name), deadline)
        except Refused as refused:
            self._exchange.log("WARNING", f"hub '{hub.name}' not told: {refused.detail}")

    def _answer_of_lost(self, hub: str, call: Call[MetaHubThen], reason: str) -> Response | Failure:
        """For a hub that is gone: whoever waits for the end of its agent learns that it is lost.

        One that is named by an identity which the hub had not announced may have ended before, or elsewhere.
        """
        reason = f"hub '{hub}' is gone: {reason}"
        match call:
            case Call(then=Origin(), message=WaitAgent(agent, agent_id) | CancelAgent(agent, agent_id)):
                if agent_id is None or self._directory.has(agent.agent, hub, agent_id):
                    address = str(agent.on(hub))
                    waited = Waited(reason, agent=address, agent_id=agent_id, outcome=Lost(reason))
                    return Response(call.id, waited)
        return Failure(call.id, ErrorCode.CONNECTION_LOST, reason)

    def fail(self, calls: list[Call[MetaHubThen]], reason: str, now: float) -> None:
        """Nobody is there to answer these any more."""
        for call in calls:
            self._settle(call, Failure(call.id, ErrorCode.CONNECTION_LOST, reason), now)

    def withdraw_claim(self, peer: Peer) -> None:
        """Who waited for a name is gone."""
        self._claims.withdraw(peer)

    def on_rejoin_due(self, name: str, now: float) -> None:
        """The place of a hub that is away is not kept any longer."""
        if (record := self._hubs.get(name)) is not None and record.health is Health.AWAY:
            self._lose(record, "its connection ended and it did not come back", now)

    def forget_losses(self, now: float) -> None:
        """Forget losses that nobody is still to hear of."""
        while self._losses and self._losses[0][0] < now - self._settings.timeouts.lost_timeout:
            self._losses.popleft()  # who has been silent for longer is lost itself


def may_repeat(call: Call[MetaHubThen]) -> bool:
    """Whether a call that a hub left unanswered is asked again when it is back.

    Not what was asked to see whether it is there: that is about the connection which has ended.
    """
    return call.message.repeatable and not isinstance(call.then, Claiming | Resolving)
