"""Permissions and questions that wait for a human.

An approval is parked where it was asked, shown to every approver that is attached and to those who attach
later, and answered once: by the first approver that answers, or in words when its time is up. An approver is
an operator, or whoever has operators of its own: for a hub its MetaHub, for a MetaHub the other hubs. An approver
that fails or leaves has not answered.

So that nobody who asks much keeps others from being heard, only a share of what an agent and a hub ask is shown
at a time; the rest waits, and the askers have their turns. And so that no approval is stuck at an operator who is not
there any more, one that nobody acknowledges as shown goes on to the next tier, too.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from attrs import field

from loopal_cluster.core.calls import Call, Origin
from loopal_cluster.core.context import AnyPart
from loopal_cluster.core.events import Peer
from loopal_cluster.core.exchange import HOP_MARGIN, Refused
from loopal_cluster.core.pending import Pending
from loopal_cluster.core.steps import ApprovalDue, Approving, ShownDue
from loopal_cluster.errors import ErrorCode
from loopal_cluster.frames import Failure, Response
from loopal_cluster.messages import Answers, CancelRequest, Decided, Decision, Permission, Question
from loopal_cluster.records import define, evolve

__all__ = ["POLICY", "Approval", "Approvals", "Audience"]

POLICY = "policy"
"""Who has decided if no human did."""


@define(eq=False)
class Approval:
    """One permission or question that waits for a human."""

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
    """The approvers asked, and the id of the call to each."""
    shown_by: set[Peer] = field(factory=set)
    """The approvers that have acknowledged that a human sees it, and are still asked."""
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

    approvers: Callable[[], list[Peer]]
    """Whom everything is shown at once."""
    next_tier: Callable[[], Peer | None] | None
    """Whom that is shown which has nobody here to answer it; None: there never is anybody else."""
    attended: Callable[[], bool | None]
    """Whether an operator is attached, here or anywhere that an approval can go; None: nobody can say."""
    attribute: Callable[[Peer, str | None], str]
    """Who has answered, by the connection it came on and the name that came with it."""


@define
class _Askers:
    """What the agents of one hub want approved, and whose turn is next."""

    count: int = 0
    shown_count: int = 0
    shown: dict[str, int] = field(factory=dict)
    """How much of each agent is shown."""
    waiting: dict[str, deque[Approval]] = field(factory=dict)
    """What is not, by agent, in the order of their turns."""

    def next(self, share: int) -> Approval | None:
        """Take what is to be shown next: the oldest of the agent of which least is shown.

        Of several, of the one whose turn it is; its next turn is the last.
        """
        agent = min(self.waiting, key=lambda agent: self.shown.get(agent, 0), default=None)
        if agent is None or self.shown.get(agent, 0) >= share:
            return None
        approvals = self.waiting.pop(agent)
        approval = approvals.popleft()
        if approvals:
            self.waiting[agent] = approvals
        return approval

    def newest_of_greediest(self, than: str) -> Approval | None:
        """The newest unshown approval of the agent that has most, if that has more than another with one more."""

        def count(agent: str) -> int:
            return self.shown.get(agent, 0) + len(self.waiting.get(agent, ()))

        greediest = max(self.waiting, key=count, default=than)
        return None if count(greediest) <= count(than) + 1 else self.waiting[greediest][-1]


@define
class Approvals(AnyPart):
    """The pending approvals of one core."""

    _audience: Audience
    _open: Pending[str, Approval] = field(init=False)
    """By id; until when they are answered in words, once that is known."""
    _askers: dict[str, _Askers] = field(factory=dict, init=False)
    """By hub."""

    def __attrs_post_init__(self) -> None:
        self._open = Pending(self._timers, ApprovalDue)

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
        """Keep an approval until it is answered, and show it to the approvers there are when it is its turn.

        Raises:
            Refused: too many are parked already, or those of this asker are too large.
        """
        parked = (approval.message for approval in self._open.values() if approval.origin.peer == origin.peer)
        self._exchange.check_held(origin, message, parked)
        askers = self._askers.setdefault(hub, _Askers())
        if askers.count >= self._exchange.limits.asks:
            self._make_room(askers, message.agent_name or "", now)
        asked_as = message.ask_id
        message = evolve(message, ask_id=ask_id)
        approval = Approval(ask_id, origin, message, hub, timeout, now + timeout, asked_as, relayed)
        # How long it may take is for those who count its time; we are a little later, to say so ourselves.
        self._open.add(ask_id, approval, approval.deadline + HOP_MARGIN if relayed else None)
        askers.count += 1
        askers.waiting.setdefault(approval.agent, deque()).append(approval)
        self._show_next(hub, now)
        if approval.waits:
            self._time_unshown(approval, now)

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
            approval = askers.next(limits.asks_shown_per_agent)
            if approval is None:
                return
            askers.shown_count += 1
            askers.shown[approval.agent] = askers.shown.get(approval.agent, 0) + 1
            self._begin(approval, now)

    def _begin(self, approval: Approval, now: float) -> None:
        """Show an approval whose turn it is; from now on its time runs at the latest."""
        approval.waits = False
        attended = self._audience.attended()
        # While nobody is attached, its time has run since it was asked.
        if not approval.relayed and (attended or not self._open.has_deadline(approval.id)):
            self._begin_time(approval, now)
        for approver in self._audience.approvers():
            self.show(approval, approver, now)
        self._look_after(approval, now)
        approval.attended |= attended is not False
        first = self._askers[approval.hub].shown[approval.agent] == 1  # one line for an agent that asks much
        if first and not (
            approval.attended or approval.went_up or approval.relayed
        ):  # else the next tier says it
            message = approval.message
            what = f"a permission ({message.tool_name})" if isinstance(message, Permission) else "a question"
            detail = f"{approval.agent} asks {what}, and no operator is attached; it waits {approval.time_given:g} s"
            self._exchange.log("WARNING", detail)

    def _time_unshown(self, approval: Approval, now: float) -> None:
        """While nobody is attached, the time of an approval that waits for its turn runs, too."""
        if approval.relayed:
            return
        attended = self._audience.attended()
        approval.attended |= attended is not False
        if attended:
            self._open.set_deadline(approval.id, None)
        elif not self._open.has_deadline(approval.id):
            self._begin_time(approval, now)

    def _begin_time(self, approval: Approval, now: float) -> None:
        approval.deadline = now + approval.time_given
        self._open.set_deadline(approval.id, approval.deadline)

    def on_attendance(self, now: float) -> None:
        """Operators have come or gone, here or elsewhere."""
        attended = self._audience.attended()
        for approval in self._open.values():
            if approval.waits:
                self._time_unshown(approval, now)
            else:
                approval.attended |= attended is not False

    # Approvers.

    def show_all(self, approver: Peer, now: float) -> None:
        """Show an approver that has just come everything that is shown."""
        for approval in self._open.values():
            if not approval.waits:
                self.show(approval, approver, now)
                self._look_after(approval, now)

    def show(self, approval: Approval, approver: Peer, now: float) -> None:
        """Show one approval to one more approver, with the time that is left; but not to whoever asks it."""
        if approver in approval.calls or approver == approval.origin.peer:
            return
        # An approver with too many open calls is passed over; it sees the approval again when it attaches again.
        try:
            message = evolve(approval.message, timeout_ms=max(0, round((approval.deadline - now) * 1000)))
            call = self._exchange.call(approver, message, Approving(approval.id), approval.deadline + 1.0)
            approval.calls[approver] = call.id
        except Refused as refused:
            self._exchange.log("WARNING", f"cannot ask an operator: {refused.detail}")

    def _look_after(self, approval: Approval, now: float) -> None:
        """See to it that somebody is asked who is surely there: else the next tier is asked, too."""
        if self._audience.next_tier is None or approval.relayed or approval.went_up or approval.shown_by:
            return
        if approval.overdue or not approval.calls:
            self._go_up(approval, now)
        elif ShownDue(approval.id) not in self._timers:
            self._timers.set(ShownDue(approval.id), now + self._settings.timeouts.acknowledge_timeout)

    def _go_up(self, approval: Approval, now: float) -> None:
        assert self._audience.next_tier is not None
        if (tier := self._audience.next_tier()) is not None:
            approval.went_up = True  # once: what it refuses, it would refuse again
            self.show(approval, tier, now)

    def on_next_tier(self, now: float) -> None:
        """The next tier is there (again), and knows nothing of what it was asked before."""
        for approval in self._open.values():
            if not approval.waits:
                approval.went_up = False
                self._look_after(approval, now)

    def on_shown(self, approver: Peer, ask_id: str) -> None:
        """An approver acknowledges that a human sees it."""
        approval = self._open.get(ask_id)
        if approval is not None and approver in approval.calls:
            approval.shown_by.add(approver)
            approval.overdue = False
            self._timers.discard(ShownDue(ask_id))

    def on_shown_due(self, ask_id: str, now: float) -> None:
        """Nobody has acknowledged that a human sees it, and so perhaps nobody does."""
        if (approval := self._open.get(ask_id)) is not None:
            approval.overdue = True
            self._look_after(approval, now)

    def on_answer(self, call: Call[Any], ask_id: str, answer: Response | Failure, now: float) -> None:
        """An approver has answered, or will not."""
        approval = self._open.get(ask_id)
        if approval is None:
            return
        approval.calls.pop(call.peer, None)
        approval.shown_by.discard(call.peer)
        if isinstance(answer, Failure):
            self._look_after(approval, now)
            return
        result: Decision | Answers = answer.result
        self._settle(approval, evolve(result, by=self._audience.attribute(call.peer, result.by)), now)

    def on_decided(self, peer: Peer, decided: Decided, now: float) -> None:
        """Whoever passed an approval on to us has its answer: our approvers are told whose, and ours is not wanted."""
        for approval in list(self._open.values()):
            if approval.origin.peer == peer and approval.asked_as == decided.ask_id:
                by = (
                    decided.by if decided.by in (None, POLICY) else self._audience.attribute(peer, decided.by)
                )
                self._exchange.refuse(
                    approval.origin, ErrorCode.CANCELLED, "it has been answered, or taken back"
                )
                self._close(approval, by, decided.allow)
                self._show_next(approval.hub, now)

    # Ends.

    def expire(self, ask_id: str, now: float) -> None:
        """Its time is up: deny a permission, refuse a question, both in words.

        One for another hub is refused, too: to deny it is for that hub, when by its clock the time is up.
        """
        approval = self._open.get(ask_id)
        if approval is None:
            return
        reason = unanswered(approval)
        if isinstance(approval.message, Permission) and not approval.relayed:
            self._settle(approval, Decision(allow=False, reason=reason, by=POLICY, unanswered=True), now)
        else:
            self._exchange.refuse(approval.origin, ErrorCode.NO_OPERATOR, reason)
            self._close(approval, None, None)
            self._show_next(approval.hub, now)

    def withdraw(self, peer: Peer, now: float, request_id: int | None = None) -> None:
        """The asker is gone, or no longer waits for this request."""
        hubs = set()
        for approval in list(self._open.values()):
            if approval.origin.peer == peer and request_id in (None, approval.origin.id):
                self._close(approval, None, None)
                hubs.add(approval.hub)
        for hub in sorted(hubs):  # when all are closed, so that none of them is shown in the end
            self._show_next(hub, now)

    def __len__(self) -> int:
        return len(self._open)

    def _settle(self, approval: Approval, result: Decision | Answers, now: float) -> None:
        self._exchange.answer(approval.origin, result)
        self._close(approval, result.by, result.allow if isinstance(result, Decision) else None)
        self._show_next(approval.hub, now)

    def _close(self, approval: Approval, by: str | None, allow: bool | None) -> None:
        self._open.pop(approval.id)
        self._forget(approval)
        self._timers.discard(ShownDue(approval.id))
        for approver, call_id in approval.calls.items():
            self._exchange.calls.settle(approver, call_id)
            # In this order, because one that passes it on can then tell its own approvers who has answered.
            self._exchange.notify(approver, Decided(approval.id, by, allow))
            self._exchange.notify(approver, CancelRequest(call_id))

    def _forget(self, approval: Approval) -> None:
        askers = self._askers[approval.hub]
        askers.count -= 1
        if approval.waits:
            askers.waiting[approval.agent].remove(approval)
            if not askers.waiting[approval.agent]:
                del askers.waiting[approval.agent]
        else:
            askers.shown_count -= 1
            askers.shown[approval.agent] -= 1
            if not askers.shown[approval.agent]:
                del askers.shown[approval.agent]
        if not askers.count:
            del self._askers[approval.hub]


def unanswered(approval: Approval) -> str:
    """Why it is not answered, when its time is up."""
    if approval.attended:
        return f"no operator answered within {approval.time_given:g} s"
    return f"nobody was there to answer within {approval.time_given:g} s: no operator was attached"
