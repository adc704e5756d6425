"""A hub's side of its connection to the MetaHub: join, heartbeat, leave.

The runtime dials; this part registers, and from then on everything that is not local goes through
``call``. A lost connection is dialled again, and so is a MetaHub that refuses us, for as long as the hub lives:
``Absence`` says why we are not in the cluster. What was asked and can be asked twice waits for the next
connection, and is asked again. A MetaHub that was restarted may not know yet who is about to join, so its "no" to such a
request is not believed at once. A MetaHub of the base dialect says ok even if the name is taken and then
never answers again, so it is probed with ``meta/list_hubs`` before we believe that we joined.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from attrs import field

from loopal_cluster.core.agents import AgentTree
from loopal_cluster.core.announcements import Announcements
from loopal_cluster.core.calls import Call, Origin
from loopal_cluster.core.context import HubPart
from loopal_cluster.core.effects import Joined
from loopal_cluster.core.events import Peer
from loopal_cluster.core.exchange import Refused
from loopal_cluster.core.parties import PROTOCOL
from loopal_cluster.core.steps import (
    HeartbeatDue,
    HubThen,
    Joining,
    LeaseDue,
    Leaving,
    Probing,
    RetryDue,
)
from loopal_cluster.errors import ErrorCode
from loopal_cluster.frames import Failure, Response
from loopal_cluster.messages import (
    Envelope,
    Heartbeat,
    Leave,
    ListHubs,
    Message,
    MetaAsk,
    MetaRoute,
    MetaSpawn,
    Patience,
    Protocol,
    RegisterHub,
    SpawnSpec,
    UplinkInfo,
)
from loopal_cluster.payloads import MetaHubAway, MetaHubBack
from loopal_cluster.records import define, evolve, record

__all__ = ["Absence", "Uplink"]

MIN_HEARTBEAT_INTERVAL = 0.1
"""No MetaHub gets heartbeats faster than this, unless the hub itself is set to it."""

ABSENT = {ErrorCode.HUB_NOT_CONNECTED, ErrorCode.OVERLOADED}
"""Refusals of the MetaHub that say nothing of what a hub has done before."""

UNNAMED = {ErrorCode.AGENT_NOT_FOUND, ErrorCode.AMBIGUOUS_NAME}
"""The same of a bare name: it may have been clear then whose it is."""

UNANSWERED = {ErrorCode.DEADLINE_EXCEEDED, ErrorCode.CONNECTION_LOST}
"""Nobody has said no."""


@record
class Absence:
    """Why a hub that has a MetaHub is not in its cluster."""

    since: float
    """When it began to be so."""
    reason: str
    """The newest, in words: what was lost, why nobody is reached, what the MetaHub says."""
    refusal: ErrorCode | None = None
    """Of a MetaHub that said no; None: none has answered."""


@define
class Uplink(HubPart):
    """The connection to the MetaHub, if there is one."""

    _agents: AgentTree
    _publish: Callable[[MetaHubAway | MetaHubBack, float], None]
    """Tells those who watch this hub."""
    announcements: Announcements = field(init=False)
    peer: Peer | None = field(default=None, init=False)
    """The connection that is up."""
    _leg: Peer | None = field(default=None, init=False)
    """The newest connection that joined; what we ask waits there until the next one has."""
    anew: bool = field(default=False, init=False)
    """The MetaHub has started anew since we were last in its cluster."""
    _first_at: float | None = field(default=None, init=False)
    """When this instance first spoke to a MetaHub."""
    _joined_at: float = field(default=-math.inf, init=False)
    """When the newest leg joined; what was first asked before is a repetition there."""
    _settling_until: float = field(default=-math.inf, init=False)
    _retries: list[Call[HubThen]] = field(factory=list, init=False)
    joined: bool = field(default=False, init=False)
    joins: int = field(default=0, init=False)
    """So often has it joined."""
    token: str = field(init=False, repr=False)
    """What we bring."""
    absence: Absence | None = field(default=None, init=False)
    """None while we are in the cluster, until the first dial has come to something, and if there is no MetaHub."""
    protocol: Protocol | None = field(default=None, init=False)
    """None while not joined, and for a MetaHub of the base dialect."""
    attended: bool | None = field(default=None, init=False)
    """Whether the MetaHub or another hub has an operator; None if it cannot say so."""
    cluster: str | None = field(default=None, init=False)
    """The id of its run, also while it is away; None for a MetaHub of the base dialect."""
    _heartbeat_interval: float = field(default=0.0, init=False)
    _leaving: bool = field(default=False, init=False)
    """We have nothing more to do, and have said so."""
    left: bool = field(default=False, init=False)
    """And the MetaHub knows, or never will."""

    def __attrs_post_init__(self) -> None:
        self.token = self._settings.meta_token
        self.announcements = Announcements(
            self._context, self._agents, lambda: self.speaks("announce"), self.call
        )

    def connect(self, peer: Peer, now: float) -> None:
        """The runtime has dialled: register."""
        self.peer = peer
        self._first_at = now if self._first_at is None else self._first_at
        settings = self._settings
        message = RegisterHub(
            name=settings.name,
            token=self.token,
            capabilities=settings.capabilities,
            protocol=PROTOCOL,
            instance=settings.instance,
            labels=settings.labels,
            agent_types=settings.agent_types,
            up_ms=int((now - self._first_at) * 1000),
        )
        self._exchange.call(peer, message, Joining(), now + settings.timeouts.handshake_timeout)

    def on_registered(self, answer: Response | Failure, now: float) -> bool:
        """Return whether we have joined; a base MetaHub has to be probed first."""
        if self.peer is None:
            return False  # the connection ended before the answer
        if isinstance(answer, Failure) or answer.result.ok is not True:
            code = answer.code if isinstance(answer, Failure) else ErrorCode.REFUSED
            detail = answer.detail if isinstance(answer, Failure) else "it did not say ok"
            if "hub/register" in detail.split():  # "expected hub/register first", also in the base dialect
                code, detail = ErrorCode.CONNECTION_LOST, "what answers there is no MetaHub, but a hub"
            self._turned_away(code, detail, now)
            return False
        welcome = answer.result
        self.protocol = welcome.protocol
        self.anew = self._leg is not None and welcome.cluster != self.cluster
        if self.anew:
            self._settling_until = now + self._settings.timeouts.settle_timeout
        self.cluster = welcome.cluster
        self._heartbeat_interval = self._bounded_interval(welcome.heartbeat_interval)
        if self.protocol is None:
            deadline = now + self._settings.timeouts.handshake_timeout
            self._exchange.call(self.peer, ListHubs(), Probing(), deadline)
            return False
        self._join(now)
        return True

    def _bounded_interval(self, wanted: float | None) -> float:
        """Not what the MetaHub wants, whatever it is: an interval below 0 stopped the hub, one of years its pulse."""
        timeouts = self._settings.timeouts
        if not wanted:
            return timeouts.heartbeat_interval
        shortest = min(MIN_HEARTBEAT_INTERVAL, timeouts.heartbeat_interval)
        return min(max(wanted, shortest), timeouts.lost_timeout)

    def on_probed(self, answer: Response | Failure, now: float) -> bool:
        """Return whether a base MetaHub really knows us."""
        if self.peer is None:
            return False
        if isinstance(answer, Failure) or self._settings.name not in [h.name for h in answer.result.hubs]:
            # If we have been in the cluster, it may be our own old connection that has the name.
            code = ErrorCode.NAME_TAKEN if self._leg is None else ErrorCode.CONNECTION_LOST
            detail = f"it said ok but does not list us: is the name '{self._settings.name}' taken?"
            self._turned_away(code, detail, now)
            return False
        self._join(now)
        return True

    def _turned_away(self, code: ErrorCode, detail: str, now: float) -> None:
        """Whoever answers there does not take us: hang up. The runtime dials again."""
        assert self.peer is not None
        reason = detail if code in UNANSWERED else f"the MetaHub refuses this hub: {detail}"
        self._exchange.hang_up(self.peer, reason)
        self.lost(reason, now, None if code in UNANSWERED else code)

    def on_not_reached(self, reason: str, now: float) -> None:
        """Nobody could be dialled."""
        self._be_absent(reason, None, now)

    def _be_absent(self, reason: str, refusal: ErrorCode | None, now: float) -> None:
        before, since = self.absence, now if self.absence is None else self.absence.since
        self.absence = Absence(since, reason, refusal)
        if (before is None or before.reason != reason) and not self._leaving:
            self._publish(MetaHubAway(reason), now)

    def _join(self, now: float) -> None:
        assert self.peer is not None
        if self.absence is not None:
            self.absence = None
            self._publish(MetaHubBack(), now)  # before we have joined: the MetaHub knows it
        self.joined = True
        self.joins += 1
        self.attended = False if self.speaks("attended") else None  # until it says so
        self._timers.discard(LeaseDue())
        self._exchange.perform(Joined())
        kind = "" if self.protocol else " (base dialect)"
        # Louder the second time: the warning that the MetaHub was lost deserves its end.
        level, again = ("INFO", "") if self._leg is None else ("WARNING", " again")
        self._exchange.log(level, f"joined the cluster{again} as '{self._settings.name}'{kind}")
        self.announcements.start_over()
        old, self._leg = self._leg, self.peer
        self._joined_at = now
        self.beat(now)
        if old is not None:
            self._exchange.resume(old, self.peer, now, lambda call: self._repeated(call, now))

    def beat(self, now: float) -> None:
        """Send a heartbeat and set the time of the next."""
        if self.peer is None or not self.joined:
            return
        count = len(self._agents.here())  # a shadow is counted where it runs
        self._exchange.notify(self.peer, Heartbeat(hub_name=self._settings.name, agent_count=count))
        self._timers.set(HeartbeatDue(), now + self._heartbeat_interval)
        # Even if there is nothing new: a heartbeat has no answer, and this tells us that the MetaHub lives.
        self.announcements.send(now, even_nothing=True)

    def lost(self, reason: str, now: float, refusal: ErrorCode | None = None) -> None:
        """The connection is gone."""
        if not self.joined:
            reason = reason.removeprefix("connection lost: ")  # nothing was lost yet
        if self.joined:
            self._timers.set(LeaseDue(), now + self._settings.timeouts.lease_timeout)
            soon = now + self._settings.timeouts.rejoin_timeout
            for call in [call for call in self._exchange.calls if is_look(call) and call.peer == self._leg]:
                self._exchange.calls.extend(call, min(call.deadline, soon))
        self.peer = None
        self.joined = False
        self.protocol = None
        self.attended = None
        self._timers.discard(HeartbeatDue())
        self._be_absent(reason, refusal, now)

    def leave(self, now: float) -> None:
        """Say goodbye, once. A MetaHub that cannot be told, or does not answer, sees the connection end."""
        if self._leaving:
            return
        self._leaving = True
        if not self.speaks("leave"):
            self.left = True
            return
        try:
            self.call(Leave(), Leaving(), now + self._settings.timeouts.rejoin_timeout)
        except Refused:
            self.left = True

    @property
    def expected(self) -> bool:
        """Whether there is a MetaHub, or will be again."""
        return self._leg is not None or self._why_away is not None

    def call(
        self, message: Message[Any], then: HubThen, deadline: float, *, now: float | None = None
    ) -> Call[HubThen]:
        """Ask the MetaHub; if it is away, as soon as it is back. ``now`` is for what must not be done twice.

        Raises:
            Refused: this hub is not in a cluster, or has asked too much already.
        """
        if self._leg is None or not (self.joined or message.repeatable):
            raise Refused(ErrorCode.NOT_IN_CLUSTER, self._where_it_is(now))
        if message.patience is Patience.LOOK and self.absence is not None and now is not None:
            # It may be back in time, as after a connection that has only broken; else there is nothing to see.
            deadline = min(deadline, self.absence.since + self._settings.timeouts.rejoin_timeout)
            if deadline <= now:
                raise Refused(ErrorCode.NOT_IN_CLUSTER, self._where_it_is(now))
        return self._exchange.call(self._leg, message, then, deadline, now if self.joined else None)

    @property
    def _why_away(self) -> str | None:
        """Why this hub, not joined, is away from its MetaHub; None if it has none."""
        if self.absence is not None:
            return self.absence.reason
        meta_hub = self._settings.meta_hub
        return None if meta_hub is None else f"{meta_hub} has not answered yet"

    def _where_it_is(self, now: float | None) -> str:
        """Why this hub is in no cluster, in words."""
        if self.absence is None or self._leg is None:
            why = self._why_away
            return "not connected to MetaHub cluster" + (f": {why}" if why is not None else "")
        for_long = "" if now is None else f" for {now - self.absence.since:.0f} s"
        return f"the MetaHub is away{for_long} ({self.absence.reason}); this hub dials it again"

    def outstanding(self) -> int:
        """So many requests wait for the MetaHub."""
        return 0 if self._leg is None else self._exchange.calls.count(self._leg)

    def _repeated(self, call: Call[HubThen], now: float) -> Call[HubThen]:
        """A call, to be asked again. What was sent on an earlier connection may have been done, and says so."""
        if call.message.patience is Patience.LOOK:
            # Its time was short while the MetaHub was away.
            return evolve(call, deadline=now + self._settings.timeouts.call_timeout)
        if call.asked_at is None:
            return evolve(call, asked_at=now)
        if call.asked_at < self._joined_at:
            return evolve(call, message=repetition(call.message, self._joined_at - call.asked_at))
        return call

    def first_sent(self, asked_ms: int | None) -> float | None:
        """When what the MetaHub repeats was first sent, at the latest; None if it is no repetition."""
        if asked_ms is None:
            return None
        # It counts from when we registered, and we from when we knew.
        return self._joined_at - asked_ms / 1000 - self._settings.timeouts.handshake_timeout

    def keeps(self, call: Call[HubThen]) -> bool:
        """Whether a call that a lost connection left unanswered is asked again on the next."""
        return self.protocol is not None and call.peer == self._leg and call.message.repeatable

    def retries_refusal(self, call: Call[HubThen], answer: Failure, now: float) -> bool:
        """Whether a restarted MetaHub's answer is not believed; then it is asked again."""
        if (
            answer.code not in (ErrorCode.HUB_NOT_CONNECTED, ErrorCode.AGENT_NOT_FOUND)
            or not now < min(self._settling_until, call.deadline)
            or call.peer != self._leg
            or not call.message.repeatable
        ):
            return False
        self._retries.append(call)
        if RetryDue() not in self._timers:
            self._timers.set(RetryDue(), now + self._settings.timeouts.retry_interval)
        return True

    def retry(self, now: float) -> None:
        """Ask again what was not believed."""
        retries, self._retries = self._retries, []
        for call in retries:
            if isinstance(call.then, Origin) and not self._exchange.waits(call.then):
                continue  # nobody wants to know any more
            assert self._leg is not None
            self._exchange.ask_again(self._leg, self._repeated(call, now), now)

    def as_doubtful(self, call: Call[HubThen], answer: Failure, now: float) -> Failure:
        """A refusal, for what it is worth: "nobody there" to a repetition does not say what became of the first."""
        if is_look(call) and answer.code is ErrorCode.DEADLINE_EXCEEDED and not self.joined:
            return Failure(answer.id, ErrorCode.NOT_IN_CLUSTER, self._where_it_is(now))
        match call.message:
            case MetaRoute(Envelope(asked_ms=int())) | MetaAsk(Envelope(asked_ms=int())):
                bare = call.message.envelope.target.hub is None
            case MetaSpawn(SpawnSpec(asked_ms=int())):
                bare = False
            case _:
                return answer
        doubtful = ABSENT | UNNAMED if bare else ABSENT
        if answer.code not in doubtful:
            return answer
        return Failure(
            answer.id, ErrorCode.CONNECTION_LOST, f"the connection was lost; asked again: {answer.detail}"
        )

    def speaks(self, feature: str) -> bool:
        """Whether the MetaHub has agreed to one of our additions."""
        return self.protocol is not None and feature in self.protocol.features

    def notify(self, message: Message[None]) -> None:
        """Tell the MetaHub something that may be lost."""
        if self.peer is not None and self.joined:
            self._exchange.notify(self.peer, message)

    def info(self, epoch: float) -> UplinkInfo | None:
        """For ``hub/status``: None if this hub has no MetaHub. ``epoch`` makes an instant one since 1970."""
        name = self._settings.name
        if self.joined:
            return UplinkInfo(connected=True, hub_name=name)
        if (reason := self._why_away) is None:
            return None
        since = None if self.absence is None else epoch + self.absence.since
        return UplinkInfo(False, name, since=since, reason=reason)

    def on_announced(self, answer: Response | Failure, now: float) -> None:
        """The MetaHub has heard what we run, or says nothing any more."""
        self.announcements.on_answer(answer, now)
        if (
            isinstance(answer, Failure)
            and answer.code is ErrorCode.DEADLINE_EXCEEDED
            and self.peer is not None
        ):
            self._exchange.hang_up(self.peer, "the MetaHub has fallen silent")


def is_look(call: Call[Any]) -> bool:
    """Whether it shows people what is there now."""
    return call.message.patience is Patience.LOOK


def repetition(message: Message[Any], seconds: float) -> Message[Any]:
    """A message that was first sent so long before this connection joined."""
    asked_ms = math.ceil(seconds * 1000)
    match message:
        case MetaRoute(envelope) | MetaAsk(envelope):
            return type(message)(evolve(envelope, asked_ms=asked_ms))
        case MetaSpawn(spec):
            return MetaSpawn(evolve(spec, asked_ms=asked_ms))
        case _:
            return message
