"""Permissions and questions that wait for a human.

An ask is parked where it was asked, shown to every judge that is attached and to those who attach
later, and answered once: by the first judge that answers, or in words when its time is up. A judge is
an operator, or whoever has operators of its own: for a hub its MetaHub, for a MetaHub the other hubs. A judge
that fails or leaves has not answered.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import field

from loopal_cluster.core.calls import Call, Origin
from loopal_cluster.core.events import Peer
from loopal_cluster.core.exchange import Exchange, Refused
from loopal_cluster.errors import ErrorCode
from loopal_cluster.frames import Failure, Response
from loopal_cluster.messages import Answers, CancelRequest, Decided, Decision, Permission, Question
from loopal_cluster.records import define, evolve

__all__ = ["POLICY", "Ask", "Asks"]

POLICY = "policy"
"""Who has decided if no human did."""


@define
class Ask:
    """One permission or question, parked."""

    id: str
    origin: Origin
    message: Permission | Question
    deadline: float
    time_given: float
    asked_as: str | None
    """The id that it has where it comes from, if that is a hub or a MetaHub."""
    relayed: bool
    """It comes from the MetaHub, for another hub: it does not go up again, and no policy of ours decides it."""
    calls: dict[Peer, int] = field(factory=dict)
    """The judges asked, and the id of the call to each."""


@define
class Asks:
    """The parked asks of one core."""

    _exchange: Exchange[Any]
    _then: Callable[[str], Any]
    """Makes the record that brings a judge's answer back to ``on_answer``."""
    _sign: Callable[[Peer, str | None], str]
    """Who has answered, by the connection it came on and the name that came with it."""
    _open: dict[str, Ask] = field(factory=dict, init=False)

    def park(
        self,
        ask_id: str,
        origin: Origin,
        message: Permission | Question,
        *,
        now: float,
        timeout: float,
        judges: list[Peer],
        relayed: bool = False,
    ) -> Ask:
        """Keep an ask until it is answered, and show it to the judges there are.

        Raises:
            Refused: too many are parked already.
        """
        # Counted apart, so that what others ask does not keep our own agents from asking.
        if sum(ask.relayed == relayed for ask in self._open.values()) >= self._exchange.limits.asks:
            raise Refused(ErrorCode.OVERLOADED, "too many permissions and questions are waiting")
        asked_as = message.ask_id
        message = evolve(message, ask_id=ask_id)
        ask = self._open[ask_id] = Ask(ask_id, origin, message, now + timeout, timeout, asked_as, relayed)
        for judge in judges:
            self.show(ask, judge, now)
        if not ask.calls and not relayed:
            what = f"a permission ({message.tool_name})" if isinstance(message, Permission) else "a question"
            detail = (
                f"{message.agent_name} asks {what}, and no operator is attached here; it waits {timeout:g} s"
            )
            self._exchange.log("WARNING", detail)
        return ask

    def show_all(self, judge: Peer, now: float) -> None:
        """Show a judge that has just come everything that is parked."""
        for ask in self._open.values():
            self.show(ask, judge, now)

    def on_answer(self, call: Call[Any], ask_id: str, answer: Response | Failure) -> None:
        """A judge has answered, or will not."""
        ask = self._open.get(ask_id)
        if ask is None:
            return
        ask.calls.pop(call.peer, None)
        if isinstance(answer, Failure):
            return
        result: Decision | Answers = answer.result
        self._settle(ask, evolve(result, by=self._sign(call.peer, result.by)))

    def on_decided(self, peer: Peer, decided: Decided) -> None:
        """Whoever passed an ask on to us has its answer: our judges are told whose, and ours is not wanted."""
        for ask in list(self._open.values()):
            if ask.origin.peer == peer and ask.asked_as == decided.ask_id:
                by = decided.by if decided.by in (None, POLICY) else self._sign(peer, decided.by)
                self._exchange.refuse(ask.origin, ErrorCode.CANCELLED, "it has been answered, or taken back")
                self._close(ask, by, decided.allow)

    def expire(self, ask_id: str) -> None:
        """Its time is up: deny a permission, refuse a question, both in words.

        One for another hub is refused, too: to deny it is for that hub, when by its clock the time is up.
        """
        ask = self._open.get(ask_id)
        if ask is None:
            return
        reason = f"no operator answered within {ask.time_given:g} s"
        if isinstance(ask.message, Permission) and not ask.relayed:
            self._settle(ask, Decision(allow=False, reason=reason, by=POLICY))
        else:
            self._exchange.refuse(ask.origin, ErrorCode.NO_OPERATOR, reason)
            self._close(ask, None, None)

    def withdraw(self, peer: Peer, request_id: int | None = None) -> None:
        """The asker is gone, or no longer waits for this request."""
        for ask in list(self._open.values()):
            if ask.origin.peer == peer and request_id in (None, ask.origin.id):
                self._close(ask, None, None)

    def lonely(self) -> list[Ask]:
        """The asks that no judge is looking at, and that may be passed on."""
        return [ask for ask in self._open.values() if not ask.calls and not ask.relayed]

    def __len__(self) -> int:
        return len(self._open)

    def show(self, ask: Ask, judge: Peer, now: float) -> None:
        """Show one ask to one more judge, with the time that is left; but not to whoever asks it."""
        if judge in ask.calls or judge == ask.origin.peer:
            return
        # A judge with too many open calls is passed over; it sees the ask again when it attaches again.
        try:
            message = evolve(ask.message, timeout_ms=max(0, round((ask.deadline - now) * 1000)))
            call = self._exchange.call(judge, message, self._then(ask.id), ask.deadline + 1.0)
            ask.calls[judge] = call.id
        except Refused as refused:
            self._exchange.log("WARNING", f"cannot ask an operator: {refused.detail}")

    def _settle(self, ask: Ask, result: Decision | Answers) -> None:
        self._exchange.answer(ask.origin, result)
        self._close(ask, result.by, result.allow if isinstance(result, Decision) else None)

    def _close(self, ask: Ask, by: str | None, allow: bool | None) -> None:
        del self._open[ask.id]
        for judge, call_id in ask.calls.items():
            self._exchange.calls.settle(judge, call_id)
            # In this order, because one that passes it on can then tell its own judges who has answered.
            self._exchange.notify(judge, Decided(ask.id, by, allow))
            self._exchange.notify(judge, CancelRequest(call_id))
