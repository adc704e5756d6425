"""Permissions and questions that wait for a human.

An ask is parked where it was asked, shown to every judge that is attached and to those who attach
later, and answered once: by the first judge that answers, or in words when its time is up. A judge is
an operator, or whoever has operators of its own: for a hub its MetaHub, for a MetaHub the other hubs. A judge
that fails or leaves has not answered.

So that nobody who asks much keeps others from being heard, only a share of what an agent and a hub ask is shown
at a time; the rest waits, and the askers have their turns. And so that no ask is stuck at an operator who is not
there any more, one that nobody acknowledges as shown goes on to the next tier, too.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from attrs import field

from loopal_cluster.config import Timeouts
from loopal_cluster.core.calls import Call, Origin
from loopal_cluster.core.deadlines import DeadlineQueue
from loopal_cluster.core.events import Peer
from loopal_cluster.core.exchange import LEG, Exchange, Refused
from loopal_cluster.core.steps import AskDue, Judging, ShownDue, Timer
from loopal_cluster.errors import ErrorCode
from loopal_cluster.frames import Failure, Response
from loopal_cluster.messages import Answers, CancelRequest, Decided, Decision, Permission, Question
from loopal_cluster.records import define, evolve

__all__ = ["POLICY", "Ask", "Asks", "Audience"]

POLICY = "policy"
"""Who has decided if no human did."""


@define(eq=False)
class Ask:
    """One permission or question, parked."""

    id: str
    origin: Origin
    message: Permission | Question
    hub: str
    """The hub of the agent that asks; empty: this one."""
    time_given: float
    deadline: float
    """When it is answered in words. While it waits unshown at its hub, that is not known yet."""
    asked_as: str | None
    """The id that it has where it comes from, if that is a hub or a MetaHub."""
    relayed: bool
    """It comes from the MetaHub, for another hub: it does not go up again, and no policy of ours decides it."""
    waits: bool = True
    """Whether nobody is shown it yet, because its asker has its share."""
    attended: bool = False
    """There was an operator to answer it, or nobody can say that there was none."""
    calls: dict[Peer, int] = field(factory=dict)
    """The judges asked, and the id of the call to each."""
    shown_by: set[Peer] = field(factory=set)
    """The judges that have acknowledged that a human sees it, and are still asked."""
    overdue: bool = False
    """Nobody has acknowledged it in time: the next tier is wanted as soon as it is there."""
    went_up: bool = False
    """The next tier was asked."""

    @property
    def agent(self) -> str:
        """Who asks."""
        return self.message.agent_name or ""


@define
class Audience:
    """Who can answer: the part of a core that knows its parties."""

    judges: Callable[[], list[Peer]]
    """Whom everything is shown at once."""
    next_tier: Callable[[], Peer | None] | None
    """Whom that is shown which has nobody here to answer it; None: there never is anybody else."""
    attended: Callable[[], bool | None]
    """Whether an operator is attached, here or anywhere that an ask can go; None: nobody can say."""
    sign: Callable[[Peer, str | None], str]
    """Who has answered, by the connection it came on and the name that came with it."""


@define
class _Askers:
    """What the agents of one hub ask, and whose turn is next."""

    count: int = 0
    shown_count: int = 0
    shown: dict[str, int] = field(factory=dict)
    """How much of each agent is shown."""
    waiting: dict[str, deque[Ask]] = field(factory=dict)
    """What is not, by agent, in the order of their turns."""

    def next(self, share: int) -> Ask | None:
        """Take what is to be shown next: the oldest of the agent of which least is shown.

        Of several, of the one whose turn it is; its next turn is the last.
        """
        agent = min(self.waiting, key=lambda agent: self.shown.get(agent, 0), default=None)
        if agent is None or self.shown.get(agent, 0) >= share:
            return None
        asks = self.waiting.pop(agent)
        ask = asks.popleft()
        if asks:
            self.waiting[agent] = asks
        return ask

    def newest_of_greediest(self, than: str) -> Ask | None:
        """The newest unshown ask of the agent that has most, if that has more than another with one more."""

        def count(agent: str) -> int:
            return self.shown.get(agent, 0) + len(self.waiting.get(agent, ()))

        greediest = max(self.waiting, key=count, default=than)
        return None if count(greediest) <= count(than) + 1 else self.waiting[greediest][-1]


@define
class Asks:
    """The parked asks of one core."""

    _exchange: Exchange[Any]
    _timers: DeadlineQueue[Timer]
    _timeouts: Timeouts
    _audience: Audience
    _open: dict[str, Ask] = field(factory=dict, init=False)
    _askers: dict[str, _Askers] = field(factory=dict, init=False)
    """By hub."""

    def park(
        self,
        ask_id: str,
        origin: Origin,
        message: Permission | Question,
        *,
        hub: str,
        now: float,
        timeout: float,
        relayed: bool = False,
    ) -> None:
        """Keep an ask until it is answered, and show it to the judges there are when it is its turn.

        Raises:
            Refused: too many are parked already, or those of this asker are too large.
        """
        parked = (ask.message for ask in self._open.values() if ask.origin.peer == origin.peer)
        self._exchange.check_held(origin, message, parked)
        askers = self._askers.setdefault(hub, _Askers())
        if askers.count >= self._exchange.limits.asks:
            self._make_room(askers, message.agent_name or "", now)
        asked_as = message.ask_id
        message = evolve(message, ask_id=ask_id)
        ask = Ask(ask_id, origin, message, hub, timeout, now + timeout, asked_as, relayed)
        self._open[ask_id] = ask
        askers.count += 1
        askers.waiting.setdefault(ask.agent, deque()).append(ask)
        if relayed:
            # How long it may take is for those who count its time; we are a little later, to say so ourselves.
            self._timers.set(AskDue(ask_id), ask.deadline + LEG)
        self._show_next(hub, now)
        if ask.waits:
            self._time_unshown(ask, now)

    def _make_room(self, askers: _Askers, agent: str, now: float) -> None:
        """Whoever asks most gives up a place to one that asks less, so that nobody can take them all."""
        greedy = askers.newest_of_greediest(than=agent)
        detail = "too many permissions and questions are waiting"
        if greedy is None:
            raise Refused(ErrorCode.OVERLOADED, detail)
        self._exchange.refuse(greedy.origin, ErrorCode.OVERLOADED, detail)
        self._close(greedy, None, None)

    # Shares and turns.

    def _show_next(self, hub: str, now: float) -> None:
        """Show what there is a place for."""
        limits = self._exchange.limits
        askers = self._askers.get(hub)
        while askers is not None and askers.shown_count < limits.asks_shown_per_hub:
            ask = askers.next(limits.asks_shown_per_agent)
            if ask is None:
                return
            askers.shown_count += 1
            askers.shown[ask.agent] = askers.shown.get(ask.agent, 0) + 1
            self._begin(ask, now)

    def _begin(self, ask: Ask, now: float) -> None:
        """Show an ask whose turn it is; from now on its time runs at the latest."""
        ask.waits = False
        attended = self._audience.attended()
        # While nobody is attached, its time has run since it was asked.
        if not ask.relayed and (attended or AskDue(ask.id) not in self._timers):
            ask.deadline = now + ask.time_given
            self._timers.set(AskDue(ask.id), ask.deadline)
        for judge in self._audience.judges():
            self.show(ask, judge, now)
        self._look_after(ask, now)
        ask.attended |= attended is not False
        first = self._askers[ask.hub].shown[ask.agent] == 1  # one line for an agent that asks much
        if first and not (ask.attended or ask.went_up or ask.relayed):  # else the next tier says it
            message = ask.message
            what = f"a permission ({message.tool_name})" if isinstance(message, Permission) else "a question"
            detail = f"{ask.agent} asks {what}, and no operator is attached; it waits {ask.time_given:g} s"
            self._exchange.log("WARNING", detail)

    def _time_unshown(self, ask: Ask, now: float) -> None:
        """While nobody is attached, the time of an ask that waits for its turn runs, too."""
        if ask.relayed:
            return
        attended = self._audience.attended()
        ask.attended |= attended is not False
        if attended:
            self._timers.discard(AskDue(ask.id))
        elif AskDue(ask.id) not in self._timers:
            ask.deadline = now + ask.time_given
            self._timers.set(AskDue(ask.id), ask.deadline)

    def on_attendance(self, now: float) -> None:
        """Operators have come or gone, here or elsewhere."""
        attended = self._audience.attended()
        for ask in self._open.values():
            if ask.waits:
                self._time_unshown(ask, now)
            else:
                ask.attended |= attended is not False

    # Judges.

    def show_all(self, judge: Peer, now: float) -> None:
        """Show a judge that has just come everything that is shown."""
        for ask in self._open.values():
            if not ask.waits:
                self.show(ask, judge, now)
                self._look_after(ask, now)

    def show(self, ask: Ask, judge: Peer, now: float) -> None:
        """Show one ask to one more judge, with the time that is left; but not to whoever asks it."""
        if judge in ask.calls or judge == ask.origin.peer:
            return
        # A judge with too many open calls is passed over; it sees the ask again when it attaches again.
        try:
            message = evolve(ask.message, timeout_ms=max(0, round((ask.deadline - now) * 1000)))
            call = self._exchange.call(judge, message, Judging(ask.id), ask.deadline + 1.0)
            ask.calls[judge] = call.id
        except Refused as refused:
            self._exchange.log("WARNING", f"cannot ask an operator: {refused.detail}")

    def _look_after(self, ask: Ask, now: float) -> None:
        """See to it that somebody is asked who is surely there: else the next tier is asked, too."""
        if self._audience.next_tier is None or ask.relayed or ask.went_up or ask.shown_by:
            return
        if ask.overdue or not ask.calls:
            self._go_up(ask, now)
        elif ShownDue(ask.id) not in self._timers:
            self._timers.set(ShownDue(ask.id), now + self._timeouts.acknowledge_timeout)

    def _go_up(self, ask: Ask, now: float) -> None:
        assert self._audience.next_tier is not None
        if (tier := self._audience.next_tier()) is not None:
            ask.went_up = True  # once: what it refuses, it would refuse again
            self.show(ask, tier, now)

    def on_next_tier(self, now: float) -> None:
        """The next tier is there (again), and knows nothing of what it was asked before."""
        for ask in self._open.values():
            if not ask.waits:
                ask.went_up = False
                self._look_after(ask, now)

    def on_shown(self, judge: Peer, ask_id: str) -> None:
        """A judge acknowledges that a human sees it."""
        ask = self._open.get(ask_id)
        if ask is not None and judge in ask.calls:
            ask.shown_by.add(judge)
            ask.overdue = False
            self._timers.discard(ShownDue(ask_id))

    def on_shown_due(self, ask_id: str, now: float) -> None:
        """Nobody has acknowledged that a human sees it, and so perhaps nobody does."""
        if (ask := self._open.get(ask_id)) is not None:
            ask.overdue = True
            self._look_after(ask, now)

    def on_answer(self, call: Call[Any], ask_id: str, answer: Response | Failure, now: float) -> None:
        """A judge has answered, or will not."""
        ask = self._open.get(ask_id)
        if ask is None:
            return
        ask.calls.pop(call.peer, None)
        ask.shown_by.discard(call.peer)
        if isinstance(answer, Failure):
            self._look_after(ask, now)
            return
        result: Decision | Answers = answer.result
        self._settle(ask, evolve(result, by=self._audience.sign(call.peer, result.by)), now)

    def on_decided(self, peer: Peer, decided: Decided, now: float) -> None:
        """Whoever passed an ask on to us has its answer: our judges are told whose, and ours is not wanted."""
        for ask in list(self._open.values()):
            if ask.origin.peer == peer and ask.asked_as == decided.ask_id:
                by = decided.by if decided.by in (None, POLICY) else self._audience.sign(peer, decided.by)
                self._exchange.refuse(ask.origin, ErrorCode.CANCELLED, "it has been answered, or taken back")
                self._close(ask, by, decided.allow)
                self._show_next(ask.hub, now)

    # Ends.

    def expire(self, ask_id: str, now: float) -> None:
        """Its time is up: deny a permission, refuse a question, both in words.

        One for another hub is refused, too: to deny it is for that hub, when by its clock the time is up.
        """
        ask = self._open.get(ask_id)
        if ask is None:
            return
        reason = unanswered(ask)
        if isinstance(ask.message, Permission) and not ask.relayed:
            self._settle(ask, Decision(allow=False, reason=reason, by=POLICY, unanswered=True), now)
        else:
            self._exchange.refuse(ask.origin, ErrorCode.NO_OPERATOR, reason)
            self._close(ask, None, None)
            self._show_next(ask.hub, now)

    def withdraw(self, peer: Peer, now: float, request_id: int | None = None) -> None:
        """The asker is gone, or no longer waits for this request."""
        hubs = set()
        for ask in list(self._open.values()):
            if ask.origin.peer == peer and request_id in (None, ask.origin.id):
                self._close(ask, None, None)
                hubs.add(ask.hub)
        for hub in sorted(hubs):  # when all are closed, so that none of them is shown in the end
            self._show_next(hub, now)

    def __len__(self) -> int:
        return len(self._open)

    def _settle(self, ask: Ask, result: Decision | Answers, now: float) -> None:
        self._exchange.answer(ask.origin, result)
        self._close(ask, result.by, result.allow if isinstance(result, Decision) else None)
        self._show_next(ask.hub, now)

    def _close(self, ask: Ask, by: str | None, allow: bool | None) -> None:
        del self._open[ask.id]
        self._forget(ask)
        self._timers.discard(AskDue(ask.id))
        self._timers.discard(ShownDue(ask.id))
        for judge, call_id in ask.calls.items():
            self._exchange.calls.settle(judge, call_id)
            # In this order, because one that passes it on can then tell its own judges who has answered.
            self._exchange.notify(judge, Decided(ask.id, by, allow))
            self._exchange.notify(judge, CancelRequest(call_id))

    def _forget(self, ask: Ask) -> None:
        askers = self._askers[ask.hub]
        askers.count -= 1
        if ask.waits:
            askers.waiting[ask.agent].remove(ask)
            if not askers.waiting[ask.agent]:
                del askers.waiting[ask.agent]
        else:
            askers.shown_count -= 1
            askers.shown[ask.agent] -= 1
            if not askers.shown[ask.agent]:
                del askers.shown[ask.agent]
        if not askers.count:
            del self._askers[ask.hub]


def unanswered(ask: Ask) -> str:
    """Why it is not answered, when its time is up."""
    if ask.attended:
        return f"no operator answered within {ask.time_given:g} s"
    return f"nobody was there to answer within {ask.time_given:g} s: no operator was attached"
