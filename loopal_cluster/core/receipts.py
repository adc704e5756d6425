"""Messages and asks from other hubs that have been seen, so that each is delivered once.

A hub that lost its connection repeats what was not answered. What it repeats may have arrived: then the
repetition gets the answer of the first, now or when there is one, be it yes or "nobody knows". A message
that was certainly not processed is forgotten, and may be tried again.

The memory outlives every repetition. Each is remembered for the time that it brought, for as long again as what was
sent can be on its way (``Timeouts.memory``), and that after it was answered. Only if there are too many is one
forgotten earlier; then a repetition that we do not know is believed to be new only if it was first sent after all that
was forgotten so.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator

from attrs import field

from loopal_cluster.core.calls import Origin
from loopal_cluster.errors import ErrorCode
from loopal_cluster.frames import Failure, Response
from loopal_cluster.message_sizes import payload_bytes
from loopal_cluster.records import define

__all__ = ["UNCERTAIN", "Receipts"]

UNCERTAIN = {ErrorCode.CONNECTION_LOST, ErrorCode.DEADLINE_EXCEEDED}
"""Refusals that do not say whether it was done."""

SMALL = 1024
"""Bytes of an answer that is not worth forgetting alone: 20,000 of them are 20 MB."""

Answer = Response | Failure
"""Its ``id`` means nothing here."""


@define
class _OnItsWay:
    """One that the agent has not answered yet."""

    seen_at: float
    seconds: float
    """The time that it brought."""
    waiting: list[Origin] = field(factory=list)
    """Whoever is told, besides the first, once there is an answer."""


@define
class _Answered:
    answer: Answer
    seen_at: float
    expires_at: float
    size: int


@define
class Receipts:
    """The newest messages, by who sent them and their id: answered, or on their way to the agent."""

    _limit: int
    _bytes: int
    """Of all answers."""
    _memory: Callable[[float], float]
    """For how long one is remembered after its answer, by the time that it brought."""
    _on_their_way: dict[Hashable, _OnItsWay] = field(factory=dict, init=False)
    _answered: dict[int, OrderedDict[Hashable, _Answered]] = field(factory=dict, init=False)
    """By the power of two of the seconds for which they are remembered: in each, the oldest expires first."""
    _powers: dict[Hashable, int] = field(factory=dict, init=False)
    """Where each of them is."""
    _large: dict[Hashable, None] = field(factory=dict, init=False)
    """Those with large answers, the oldest first."""
    _size: int = field(default=0, init=False)
    _forgotten: float = field(default=-math.inf, init=False)
    """When the newest was seen of those that were forgotten too early."""

    def knows(self, message_id: Hashable) -> bool:
        """Whether it has been seen, and not certainly failed."""
        return message_id in self._on_their_way or message_id in self._powers

    def may_have_forgotten(self, since: float) -> bool:
        """Whether one that we do not know, and that was first sent then, may have been seen all the same."""
        return since <= self._forgotten

    def repeat(self, message_id: Hashable, origin: Origin) -> Answer | None:
        """The answer to one that was seen; None if ``origin`` will get it with the first."""
        if (power := self._powers.get(message_id)) is not None:
            return self._answered[power][message_id].answer
        self._on_their_way[message_id].waiting.append(origin)
        return None

    def waiting(self, message_id: Hashable) -> list[Origin]:
        """Who has repeated one that is on its way."""
        known = self._on_their_way.get(message_id)
        return [] if known is None else known.waiting

    def begin(self, message_id: Hashable, seconds: float, now: float) -> None:
        """Remember one that is on its way to the agent, and that brings so much time."""
        self._on_their_way[message_id] = _OnItsWay(now, seconds)

    def settle(self, message_id: Hashable, answer: Answer, now: float) -> list[Origin]:
        """There is an answer; return who waits for it besides the first."""
        known = self._on_their_way.pop(message_id, None)
        if known is None:
            return []  # it did not come from another hub
        # Of an ask that was withdrawn nobody knows how far it had come; to begin it again would be twice.
        if isinstance(answer, Response) or answer.code in UNCERTAIN | {ErrorCode.CANCELLED}:
            self._keep(message_id, known, answer, now)
        return known.waiting

    def _keep(self, message_id: Hashable, known: _OnItsWay, answer: Answer, now: float) -> None:
        power = max(0, math.ceil(math.log2(self._memory(known.seconds))))
        entry = _Answered(answer, known.seen_at, now + 2**power, size_of(answer))
        self._answered.setdefault(power, OrderedDict())[message_id] = entry
        self._powers[message_id] = power
        self._size += entry.size
        if entry.size > SMALL:
            self._large[message_id] = None
        while self._size > self._bytes and self._large:
            self._forget_answer(next(iter(self._large)))
        while len(self._powers) > self._limit:
            forgotten = self._forget(min(self._oldest())[1])
            self._forgotten = max(self._forgotten, forgotten.seen_at)

    def _forget_answer(self, message_id: Hashable) -> None:
        """Of the oldest large answer, remember only that there was one: it is not to be worked on twice."""
        del self._large[message_id]
        entry = self._answered[self._powers[message_id]][message_id]
        self._size -= entry.size
        entry.size = 0
        entry.answer = Failure(
            0, ErrorCode.CONNECTION_LOST, "it was answered, and the answer is no longer kept"
        )

    def _oldest(self) -> Iterator[tuple[float, int]]:
        return ((next(iter(entries.values())).expires_at, power) for power, entries in self._answered.items())

    def _forget(self, power: int) -> _Answered:
        entries = self._answered[power]
        message_id, entry = entries.popitem(last=False)
        if not entries:
            del self._answered[power]
        del self._powers[message_id]
        self._large.pop(message_id, None)
        self._size -= entry.size
        return entry

    def expire(self, now: float) -> None:
        """Forget what nobody repeats any more."""
        while self._answered and min(self._oldest())[0] <= now:
            self._forget(min(self._oldest())[1])

    def next_deadline(self) -> float | None:
        """When the oldest expires."""
        return min(self._oldest())[0] if self._answered else None


def size_of(answer: Answer) -> int:
    """The bytes of a large answer; small ones are bounded by their number."""
    size = payload_bytes(answer.result) if isinstance(answer, Response) else 0
    return size if size > SMALL else 0
