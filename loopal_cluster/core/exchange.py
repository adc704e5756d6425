"""What both cores do with frames: answer once, call with a deadline, notify, hang up.

The exchange collects effects while a core handles one event; ``drain`` hands them over. It keeps the
promise that every request is answered exactly once: an answer is sent only while the request is open,
and a request is open until it is answered or its peer is gone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar

from attrs import Factory, field

from loopal_cluster.config import Limits
from loopal_cluster.core.calls import Call, CallTable, Origin
from loopal_cluster.core.effects import Disconnect, Effect, Log, Send
from loopal_cluster.core.events import Peer
from loopal_cluster.errors import ErrorCode
from loopal_cluster.frames import Failure, Notification, Request, Response
from loopal_cluster.message_sizes import SMALL, message_bytes, payload_bytes
from loopal_cluster.messages import (
    OK,
    Ask,
    CancelRequest,
    DeliverAsk,
    Message,
    MetaAsk,
    Reply,
    WaitAgent,
)
from loopal_cluster.records import define, evolve

__all__ = ["HOP_MARGIN", "Exchange", "Refused", "with_time_left"]

HOP_MARGIN = 1.0
"""Seconds that each hub on the way adds to a deadline, so that the one nearest to a fault reports it."""

N = TypeVar("N")
M = TypeVar("M", bound=Message[Any])


class Refused(Exception):
    """Raised by the part of a core that refuses a request; ``handle`` turns it into a ``Failure``.

    Raised only before anything was changed.
    """

    def __init__(self, code: ErrorCode, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


@define
class Exchange(Generic[N]):
    """The frames of one core, in and out."""

    limits: Limits
    calls: CallTable[N] = Factory(CallTable)
    _requests: dict[Peer, dict[int, Call[N] | None]] = field(factory=dict, init=False)
    """Open requests by peer and id, each with the call that is made on its behalf, if one is."""
    _effects: list[Effect] = field(factory=list, init=False)
    _links: set[Peer] = field(factory=set, init=False)
    """Peers that speak for many: hubs, and a hub's MetaHub. No order of it escapes."""
    _asked: dict[Peer, int] = field(factory=dict, init=False)
    """Bytes of the large calls that are made on behalf of each peer, if there are some."""
    _withdrawn: dict[Peer, list[Call[N]]] = field(factory=dict, init=False)
    """Calls that were given up while their peer was away, which may be working on them."""
    late_answers: int = field(default=0, init=False)
    """Answers that came when nobody waited any more, and were dropped."""

    def admit(self, peer: Peer) -> None:
        """Begin to talk with a peer."""
        self._requests[peer] = {}

    def make_link(self, peer: Peer) -> None:
        """A peer is a hub, or the MetaHub: it may have more open than one party."""
        self._links.add(peer)

    def knows(self, peer: Peer) -> bool:
        """Whether the peer is still ours to talk with."""
        return peer in self._requests

    def forget(self, peer: Peer, keep: Callable[[Call[N]], bool] | None = None) -> list[Call[N]]:
        """Stop talking with a peer; return the calls to it, which now will never be answered.

        Those to ``keep`` stay open until their deadline, for a peer that may come back (``resume``).
        """
        self._requests.pop(peer, None)
        self._asked.pop(peer, None)
        self._links.discard(peer)
        if keep is None:
            self._withdrawn.pop(peer, None)
            return self.calls.settle_peer(peer)
        return self.calls.settle_peer(peer, keep)

    def resume(
        self, old: Peer, new: Peer, now: float, again: Callable[[Call[N]], Call[N]] = lambda call: call
    ) -> None:
        """A session has another connection: send again what was not answered, as ``again`` has it.

        Then what was cancelled while there was none: sent once more and cancelled at once, for by its id of the
        old connection the other side could not tell which of the requests that it works on is meant.
        """
        cancelled = [call for call in self._withdrawn.pop(old, ()) if call.deadline > now]
        for call in self.forget(old):
            self.ask_again(new, again(call), now)
        for call in cancelled:
            self.give_up(self.ask_again(new, again(call), now))

    def reword(self, peer: Peer, word: Callable[[Call[N]], Message[Any]]) -> None:
        """Change what a peer that is back will be asked again."""
        for call in [*self.calls.of(peer), *self._withdrawn.get(peer, ())]:
            call.message = word(call)

    def ask_again(self, peer: Peer, call: Call[N], now: float) -> Call[N]:
        """Send a request that has been sent before, with the time that is left for it."""
        message = with_time_left(call.message, call.deadline - now)
        return self._ask(peer, message, call.then, call.deadline, call.asked_at)

    def hang_up(self, peer: Peer, reason: str, *, wrong_token: bool = False) -> None:
        """End a connection, after what is already queued for it; ``PeerLost`` will follow."""
        if self._requests.pop(peer, None) is not None:
            self._effects.append(Disconnect(peer, reason, wrong_token))

    def take(self, peer: Peer, request: Request) -> Origin | None:
        """Open a peer's request; None if it is refused at once (and answered so)."""
        requests, request_id = self._requests[peer], request.id
        if request_id in requests:
            self._fail(peer, request_id, ErrorCode.INVALID_REQUEST, f"request {request_id} is already open")
            return None
        if len(requests) >= self.limits.requests_per_peer:
            self._fail(peer, request_id, ErrorCode.OVERLOADED, "too many unanswered requests")
            return None
        requests[request_id] = None
        return Origin(peer, request_id)

    def answer(self, origin: Origin, result: Any) -> bool:
        """Answer yes. False if nobody waits any more."""
        if not self._close(origin):
            return False
        size = 0 if result is OK else payload_bytes(result)
        self._effects.append(Send(origin.peer, Response(origin.id, result), size))
        return True

    def refuse(self, origin: Origin, code: ErrorCode, detail: str) -> None:
        """Answer no."""
        if self._close(origin):
            self._fail(origin.peer, origin.id, code, detail)

    def pass_on(self, origin: Origin, answer: Response | Failure) -> None:
        """Answer with what somebody else answered."""
        if isinstance(answer, Response):
            self.answer(origin, answer.result)
        else:
            self.refuse(origin, answer.code, answer.detail)

    def call(
        self, peer: Peer, message: Message[Any], then: N, deadline: float, asked_at: float | None = None
    ) -> Call[N]:
        """Send a request and remember what to do with its answer.

        While the peer is away, the request waits for it to ``resume``. If ``then`` is an ``Origin`` or has
        one, that is the request on whose behalf we ask.

        Raises:
            Refused: too many calls to this peer are open.
        """
        if self.calls.count(peer) >= self.limits.calls_per_peer:
            raise Refused(ErrorCode.OVERLOADED, "too many requests are outstanding to this peer")
        if (size := message_bytes(message)) > SMALL:
            self._check_bytes(peer, origin_of(then))
        return self._ask(peer, message, then, deadline, asked_at, size)

    def _check_bytes(self, peer: Peer, origin: Origin | None) -> None:
        """Keep what is open within bytes, and one message, to whom it goes and from whom it comes.

        Small ones are within bounds by their number, and so are not refused because of others' large ones.
        """
        limits = self.limits
        # One that is away is a hub.
        limit = (
            limits.calls_bytes if peer in self._requests and peer not in self._links else limits.link_bytes
        )
        if (is_open := self.calls.size(peer)) >= limit:
            raise Refused(ErrorCode.OVERLOADED, f"{is_open} bytes are on their way to this peer already")
        if origin is None or origin.peer in self._links:
            return
        if (asked := self._asked.get(origin.peer, 0)) >= 2 * limits.calls_bytes:
            raise Refused(ErrorCode.OVERLOADED, f"{asked} bytes of yours are on their way already")

    def check_held(self, origin: Origin, message: Message[Any], held: Iterable[Message[Any]]) -> None:
        """Let a message of a peer wait here until it can be sent, beside those of the same peer that do already.

        Raises:
            Refused: these have too many bytes.
        """
        if message_bytes(message) <= SMALL:
            return
        limits = self.limits
        limit = limits.link_bytes if origin.peer in self._links else 2 * limits.calls_bytes
        if (size := sum(map(message_bytes, held))) >= limit:
            raise Refused(ErrorCode.OVERLOADED, f"{size} bytes of yours wait here already")

    def _ask(
        self,
        peer: Peer,
        message: Message[Any],
        then: N,
        deadline: float,
        asked_at: float | None = None,
        size: int | None = None,
    ) -> Call[N]:
        if size is None:
            size = message_bytes(message)
        call = self.calls.open(peer, message, then, deadline, asked_at, size)
        if (origin := origin_of(then)) is not None:
            self.join(origin, call)
        if peer in self._requests:
            self._effects.append(Send(peer, Request(call.id, message), size))
        else:
            self.calls.park(peer)
        return call

    def join(self, origin: Origin, call: Call[N]) -> None:
        """A request is answered by this call of ours."""
        requests = self._requests.get(origin.peer)
        if requests is None or origin.id not in requests:
            return
        known, requests[origin.id] = requests[origin.id], call
        if change := call.size - (0 if known is None else known.size):
            self._account(origin.peer, change)

    def waits(self, origin: Origin) -> bool:
        """Whether a request is still open."""
        return origin.id in self._requests.get(origin.peer, ())

    def call_for(self, origin: Origin) -> Call[N] | None:
        """The open call that is made on behalf of a request."""
        call = self._requests.get(origin.peer, {}).get(origin.id)
        return call if call is not None and call.open else None

    def calls_for(self, peer: Peer) -> list[Call[N]]:
        """The open calls that are made on behalf of a peer."""
        return [call for call in self._requests.get(peer, {}).values() if call is not None and call.open]

    def take_answer(self, peer: Peer, answer: Response | Failure) -> Call[N] | None:
        """The call that is answered; None if it has come too late: nobody waits any more."""
        call = self.calls.settle(peer, answer.id)
        if call is None and not (isinstance(answer, Failure) and answer.code is ErrorCode.CANCELLED):
            self.late_answers += 1  # the other is how a call that was given up is answered
        return call

    def take_due(self, now: float) -> Iterator[tuple[Call[N], Failure]]:
        """The calls whose time is over, and the answer they have instead of one."""
        for call in self.calls.settle_due(now):
            if call.message.answer_only:
                self.notify(call.peer, CancelRequest(call.id))
            detail = f"no answer to {call.message.method} in time"
            yield call, Failure(call.id, ErrorCode.DEADLINE_EXCEEDED, detail)

    def give_up(self, call: Call[N]) -> None:
        """Wait no longer for an answer, and say so to whoever was to give it, now or when it is back."""
        was_open = self.calls.settle(call.peer, call.id) is not None
        if self.knows(call.peer):
            self.notify(call.peer, CancelRequest(call.id))
        elif was_open and call.message.result is Reply:
            withdrawn = self._withdrawn.setdefault(call.peer, [])
            withdrawn.append(call)
            del withdrawn[: -self.limits.calls_per_peer]
            if call.size:
                self._bound_withdrawn(withdrawn)

    def _bound_withdrawn(self, withdrawn: list[Call[N]]) -> None:
        """Forget the oldest, if all have too many bytes: a cancel that is lost costs work until a deadline."""
        size = sum(call.size for call in withdrawn)
        while size > self.limits.calls_bytes and len(withdrawn) > 1:
            size -= withdrawn.pop(0).size

    def withdraw(self, origin: Origin) -> Call[N] | None:
        """The caller of a request no longer waits: say so to whoever it was passed on to.

        Return that call, if there is one; its answer, should it still come, is ignored.
        """
        call = self.call_for(origin)
        self.refuse(origin, ErrorCode.CANCELLED, "cancelled by its caller")
        if call is None or call.then != origin:
            return None
        self.give_up(call)
        return call

    def notify(self, peer: Peer, message: Message[None]) -> None:
        """Send a notification, if the peer is still there."""
        if peer in self._requests:
            self._effects.append(Send(peer, Notification(message), message_bytes(message)))

    def notify_all(self, peers: Iterable[Peer], message: Message[None]) -> None:
        """Send several peers one notification."""
        frame, size = Notification(message), message_bytes(message)
        for peer in peers:
            if peer in self._requests:
                self._effects.append(Send(peer, frame, size))

    def log(self, level: str, text: str) -> None:
        """Tell the operator's log."""
        self._effects.append(Log(level, text))

    def perform(self, effect: Effect) -> None:
        """Ask for any other effect."""
        self._effects.append(effect)

    def drain(self) -> list[Effect]:
        """Hand over the effects collected since the last call."""
        effects, self._effects = self._effects, []
        return effects

    def _close(self, origin: Origin) -> bool:
        requests = self._requests.get(origin.peer)
        if requests is None or origin.id not in requests:
            return False
        call = requests.pop(origin.id)
        if call is not None and call.size:
            self._account(origin.peer, -call.size)
        return True

    def _account(self, peer: Peer, size: int) -> None:
        """So many bytes more, or less, are asked on behalf of a peer."""
        if peer in self._links:
            return
        self._asked[peer] = self._asked.get(peer, 0) + size
        if not self._asked[peer]:
            del self._asked[peer]

    def _fail(self, peer: Peer, request_id: int, code: ErrorCode, detail: str) -> None:
        self._effects.append(Send(peer, Failure(request_id, code, detail)))


def origin_of(then: Any) -> Origin | None:
    """The request on whose behalf a call is made, if there is one."""
    return then if type(then) is Origin else getattr(then, "origin", None)


def with_time_left(message: M, seconds: float) -> M:
    """A request that is repeated, with no more time in it than is left."""
    left = max(1, int(seconds * 1000))
    match message:
        case Ask(envelope) | MetaAsk(envelope) | DeliverAsk(envelope):
            # One that progress may extend keeps its time: each extension is that long. Whoever asked counts on.
            if envelope.timeout_ms is not None and envelope.timeout_ms > left and not envelope.extend:
                return evolve(message, envelope=evolve(envelope, timeout_ms=left))
        case WaitAgent(timeout_ms=timeout):
            # The hub that is asked is to say itself that the time is over, and we wait a little longer for it.
            left = max(1, left - int(2 * HOP_MARGIN * 1000))
            if timeout is None or timeout > left:
                return evolve(message, timeout_ms=left)
    return message
