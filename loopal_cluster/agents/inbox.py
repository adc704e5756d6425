"""What others say to an agent, in the order it came: messages, and asks that want a reply."""

from __future__ import annotations

import math
import traceback
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from functools import partial
from itertools import count

import trio
from attrs import field

from loopal_cluster.errors import InvalidRequest, Overloaded, ProtocolError
from loopal_cluster.links.caller import Caller, OpenRequest
from loopal_cluster.messages import AgentSource, Envelope, Reply, Source
from loopal_cluster.outcomes import Done, Failed, Outcome
from loopal_cluster.records import define, record
from loopal_cluster.wire.contents import dumps, user_content

__all__ = ["Answerer", "Inbox", "Received", "failed", "text_of"]

_answered: ContextVar[Received | None] = ContextVar("answered", default=None)
"""What the task, or the one that has started it, is answering."""


@define(eq=False)
class _PendingReply:
    """The reply to an ask, until it is there, and the time in which it is worked on."""

    _request: OpenRequest
    _timeout: float
    """Seconds."""
    _extend: bool
    """Whether progress gives it that time anew."""
    scope: trio.CancelScope = field(init=False)
    """Of whoever works on it: it ends when nobody waits any more."""
    was_handed_over: bool = field(default=False, init=False)

    @classmethod
    def to(cls, ask: Envelope, request: OpenRequest) -> _PendingReply:
        """The reply to this ask, which is waited for as long as it says."""
        timeout = math.inf if ask.timeout_ms is None else ask.timeout_ms / 1000
        return cls(request, timeout, ask.extend)

    def __attrs_post_init__(self) -> None:
        self.scope = trio.CancelScope(deadline=trio.current_time() + self._timeout)

    @property
    def is_open(self) -> bool:
        """Whether there is none, and somebody still waits for it."""
        return self._request.is_open and not self.scope.cancel_called

    def settle(self, outcome: Outcome) -> None:
        """Reply, if nobody has and somebody waits. Whether it comes in time is for the hub to say."""
        self._request.answer(Reply(outcome))

    def hand_over(self) -> None:
        """Give whoever works on it from now on a scope of their own, with the time that is left."""
        old, self.was_handed_over = self.scope, True
        self.scope = trio.CancelScope(deadline=old.deadline)
        if old.cancel_called:
            self.scope.cancel()
        old.deadline = math.inf

    def id_at(self, caller: Caller) -> int:
        """The hub's id of the ask; 0 if it has come over another connection, or wants no reply any more."""
        return self._request.id if self._request.is_open and self._request.of(caller) else 0

    def progress(self) -> None:
        """Say that it is being worked on, if that makes a difference."""
        if self._extend and self.is_open:
            self.scope.deadline = trio.current_time() + self._timeout
            self._request.progress()


@record
class Received:
    """A message from the inbox; an ask, if ``wants_reply``."""

    text: str
    sender: str | None
    """The address to answer to; None if it does not come from an agent."""
    source: Source
    """Who wrote it: an agent, a human, a hub (``SystemSource``), ..."""
    envelope: Envelope
    _pending: _PendingReply | None = field(default=None, repr=False, eq=False)

    @property
    def wants_reply(self) -> bool:
        """Whether its sender waits for a reply; then ``reply`` or ``fail`` must follow."""
        return self._pending is not None

    @property
    def is_open(self) -> bool:
        """Whether it is an ask that nobody has answered, and whose sender still waits."""
        return self._pending is not None and self._pending.is_open

    def reply(self, result: object) -> None:
        """Answer an ask: with text, or something JSON can express. Only the first reply counts."""
        self._ask().settle(Done(text_of(result)))

    def fail(self, error: str | BaseException) -> None:
        """Answer an ask with an error: its sender gets ``AgentFailed``."""
        self._ask().settle(Failed(error) if isinstance(error, str) else failed(error))

    def settle(self, outcome: Outcome) -> None:
        """Answer an ask with any outcome."""
        if not isinstance(outcome, Done) or not isinstance(outcome.result, str):
            dumps(outcome)  # what cannot be written is our error, and not the hub's
        self._ask().settle(outcome)

    def progress(self) -> None:
        """Say that an ask is being worked on; it may take longer then, if its sender has allowed that."""
        self._ask().progress()

    @property
    def scope(self) -> trio.CancelScope:
        """A cancel scope for the work on an ask: it is cancelled when its sender no longer waits."""
        return self._ask().scope

    def handed_over(self) -> Received:
        """The same, for others to work on: whoever did is not cancelled any more if nobody waits for that."""
        if self._pending is not None:
            self._pending.hand_over()
        return self

    @property
    def was_handed_over(self) -> bool:
        """Whether others work on it."""
        return self._pending is None or self._pending.was_handed_over

    def _id_at(self, caller: Caller) -> int:
        """The id of an ask that a hub has given it, which wants to know what its agent works on; 0 if it is none."""
        return 0 if self._pending is None else self._pending.id_at(caller)

    async def answer(self, answerer: Answerer) -> None:
        """Reply to an ask with what ``answerer`` makes of it: its result, or its exception."""
        pending = self._ask()
        outcome: Outcome | None = None
        before = _answered.set(self)
        try:
            with pending.scope:
                outcome = Done(text_of(await answerer(self)))
        except* (Exception, SystemExit) as group:
            if pending.is_open:  # else it may be that of being cancelled
                outcome = failed(group)
        finally:
            _answered.reset(before)
        if outcome is not None:
            pending.settle(outcome)

    def _ask(self) -> _PendingReply:
        if self._pending is None:
            raise InvalidRequest("this message wants no reply; send one to its sender")
        return self._pending


Answerer = Callable[[Received], Awaitable[object]]
"""``async def answer(received)``: returns the reply, text or something JSON can express."""


class Inbox:
    """Messages and asks that the agent has not taken yet."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._items: dict[int, Received] = {}
        self._numbers = count()
        self._arrived = trio.lowlevel.ParkingLot()
        self._takers = 0
        """So many tasks wait for what arrives, or are about to take what has."""
        self.servers = 0
        """So many tasks take everything that arrives, and answer it beside each other."""

    def for_ask(self, caller: Caller) -> int | None:
        """The id of the ask that the running task answers, 0 if it answers none; None if nobody takes any meanwhile.

        That is how a hub knows whether those who ask this agent wait for what the task waits for.
        """
        if not self.servers and not self._takers:
            return None
        received = _answered.get()
        return 0 if received is None else received._id_at(caller)

    def put(self, envelope: Envelope) -> None:
        """Add a message.

        Raises:
            Overloaded: there are too many already.
            InvalidRequest: it cannot be read.
        """
        self._put(envelope, None)

    def put_ask(self, envelope: Envelope, request: OpenRequest) -> None:
        """Add an ask, which whoever takes it answers. If it is withdrawn before that, it is not taken.

        Raises:
            Overloaded, InvalidRequest: as ``put``.
        """
        pending = _PendingReply.to(envelope, request)
        number = self._put(envelope, pending)
        request.on_withdrawn = partial(self._withdraw, number, pending)

    def _put(self, envelope: Envelope, pending: _PendingReply | None) -> int:
        try:
            content = user_content(envelope.content)
        except ProtocolError as error:
            raise InvalidRequest(str(error)) from None
        if len(self._items) >= self._limit:
            raise Overloaded(f"the inbox is full ({self._limit} messages)")
        source = envelope.source
        sender = source.name if isinstance(source, AgentSource) else None
        number = next(self._numbers)
        self._items[number] = Received(content.text, sender, source, envelope, pending)
        self._arrived.unpark()
        return number

    def _withdraw(self, number: int, pending: _PendingReply) -> None:
        """Nobody waits for the reply any more."""
        self._items.pop(number, None)
        pending.scope.cancel()

    async def get(self) -> Received:
        """Take the oldest; wait for one."""
        await trio.lowlevel.checkpoint_if_cancelled()
        self._takers += 1
        try:
            while not self._items:
                await self._arrived.park()
        finally:
            self._takers -= 1
        return self._take()

    def get_nowait(self) -> Received | None:
        """Take the oldest, if there is one."""
        return self._take() if self._items else None

    def discard(self, unwanted: Callable[[Received], bool]) -> None:
        """Take out the messages that nobody needs to read any more."""
        for number, received in [*self._items.items()]:
            if not received.wants_reply and unwanted(received):
                del self._items[number]

    def __len__(self) -> int:
        return len(self._items)

    def _take(self) -> Received:
        return self._items.pop(next(iter(self._items)))


def text_of(result: object) -> str:
    """What a function has returned, as text."""
    if result is None:
        return ""
    return result if isinstance(result, str) else dumps(result).json.decode()


def failed(error: BaseException) -> Failed:
    """An exception as an outcome, with its traceback."""
    if isinstance(error, BaseExceptionGroup) and not error.message and len(error.exceptions) == 1:
        error = error.exceptions[0]  # ``except*`` has wrapped an exception that was no group
    return Failed(_describe(error), "".join(traceback.format_exception(error)))


def _describe(error: BaseException) -> str:
    """An exception in one line, an exception group by what is in it."""
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(_describe(inner) for inner in error.exceptions)
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
