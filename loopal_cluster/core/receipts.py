"""Messages and asks from other hubs that have been seen, so that each is delivered once.

A hub that lost its connection repeats what was not answered. What it repeats may have arrived: then the
repetition gets the answer of the first, now or when there is one, be it yes or "nobody knows". A message
that was certainly not processed is forgotten, and may be tried again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

from attrs import field

from loopal_cluster.core.calls import Origin
from loopal_cluster.errors import ErrorCode
from loopal_cluster.frames import Failure, Response
from loopal_cluster.payloads import SMALL, payload_bytes
from loopal_cluster.records import define

__all__ = ["UNCERTAIN", "Receipts"]

UNCERTAIN = {ErrorCode.CONNECTION_LOST, ErrorCode.DEADLINE_EXCEEDED}
"""Refusals that do not say whether it was done."""


Answer = Response | Failure
"""Its ``id`` means nothing here."""


@define
class Receipts:
    """The newest messages, by who sent them and their id: answered, or on their way to the agent."""

    _limit: int
    _ttl: float
    """Seconds; longer than anybody repeats a message that has been answered."""
    _limit_bytes: int = 64 * 2**20
    _waiting: dict[Hashable, list[Origin]] = field(factory=dict, init=False)
    """Of those on their way: whoever is told, besides the first, once there is an answer."""
    _answered: OrderedDict[Hashable, tuple[Answer, float]] = field(factory=OrderedDict, init=False)
    """The answers, and when to forget them, the oldest first."""
    _large: dict[Hashable, int] = field(factory=dict, init=False)
    """The bytes of the large ones among them, the oldest first."""
    _bytes: int = field(default=0, init=False)
    """Of those."""

    def knows(self, message_id: Hashable) -> bool:
        """Whether it has been seen, and not certainly failed."""
        return message_id in self._waiting or message_id in self._answered

    def repeat(self, message_id: Hashable, origin: Origin) -> Answer | None:
        """The answer to one that was seen; None if ``origin`` will get it with the first."""
        if (answered := self._answered.get(message_id)) is not None:
            return answered[0]
        self._waiting[message_id].append(origin)
        return None

    def waiting(self, message_id: Hashable) -> list[Origin]:
        """Who has repeated one that is on its way."""
        return self._waiting.get(message_id, [])

    def begin(self, message_id: Hashable) -> None:
        """Remember one that is on its way to the agent."""
        self._waiting[message_id] = []

    def settle(self, message_id: Hashable, answer: Answer, now: float) -> list[Origin]:
        """There is an answer; return who waits for it besides the first."""
        if message_id not in self._waiting:
            return []  # it did not come from another hub
        waiting = self._waiting.pop(message_id)
        # Of an ask that was withdrawn nobody knows how far it had come; to begin it again would be twice.
        if isinstance(answer, Response) or answer.code in UNCERTAIN | {ErrorCode.CANCELLED}:
            self._answered[message_id] = (answer, now + self._ttl)
            if isinstance(answer, Response) and (size := payload_bytes(answer.result)) > SMALL:
                self._large[message_id] = size
                self._bytes += size
                while self._bytes > self._limit_bytes:
                    self._forget_answer()
            if len(self._answered) > self._limit:
                self._forget_oldest()
        return waiting

    def expire(self, now: float) -> None:
        """Forget what nobody repeats any more."""
        while self._answered and next(iter(self._answered.values()))[1] <= now:
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        message_id, _ = self._answered.popitem(last=False)
        self._bytes -= self._large.pop(message_id, 0)

    def _forget_answer(self) -> None:
        """Of the oldest large answer, remember only that there was one: it is not to be worked on twice."""
        message_id = next(iter(self._large))
        self._bytes -= self._large.pop(message_id)
        _, until = self._answered[message_id]
        answer = Failure(0, ErrorCode.CONNECTION_LOST, "it was answered, and the answer is no longer kept")
        self._answered[message_id] = (answer, until)

    def next_deadline(self) -> float | None:
        """When the oldest expires."""
        return next(iter(self._answered.values()))[1] if self._answered else None
