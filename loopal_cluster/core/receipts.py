"""Messages from other hubs that have been seen, so that each is delivered once.

A hub that lost its connection repeats what was not answered. What it repeats may have arrived: then the
repetition gets the answer of the first, now or when there is one, be it yes or "nobody knows". A message
that was certainly not processed is forgotten, and may be tried again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

from attrs import define, field

from loopal_cluster.core.calls import Origin
from loopal_cluster.errors import ErrorCode
from loopal_cluster.frames import Failure
from loopal_cluster.messages import Ok

__all__ = ["UNCERTAIN", "Receipts"]

UNCERTAIN = {ErrorCode.CONNECTION_LOST, ErrorCode.DEADLINE_EXCEEDED}
"""Refusals that do not say whether it was done."""


@define
class _Receipt:
    expires_at: float
    waiting: list[Origin]
    """Who is told once there is an answer."""
    answer: Ok | Failure | None = None


@define
class Receipts:
    """The newest messages, by who sent them and their id: answered, or on their way to the agent."""

    _limit: int
    _ttl: float
    """Seconds; longer than anybody repeats a message."""
    _seen: OrderedDict[Hashable, _Receipt] = field(factory=OrderedDict, init=False)
    """Oldest first, which is also the order in which they expire."""

    def knows(self, message_id: Hashable) -> bool:
        """Whether it has been seen, and not certainly failed."""
        return message_id in self._seen

    def repeat(self, message_id: Hashable, origin: Origin) -> Ok | Failure | None:
        """The answer to one that was seen; None if ``origin`` will get it with the first."""
        receipt = self._seen[message_id]
        if receipt.answer is None:
            receipt.waiting.append(origin)
        return receipt.answer

    def begin(self, message_id: Hashable, now: float) -> None:
        """Remember one that is on its way to the agent."""
        self._seen[message_id] = _Receipt(now + self._ttl, [])
        if len(self._seen) > self._limit:
            self._seen.popitem(last=False)

    def settle(self, message_id: Hashable, answer: Ok | Failure) -> list[Origin]:
        """There is an answer; return who waits for it besides the first."""
        if isinstance(answer, Failure) and answer.code not in UNCERTAIN:
            receipt = self._seen.pop(message_id, None)
        else:
            receipt = self._seen.get(message_id)
        if receipt is None:
            return []
        waiting, receipt.waiting, receipt.answer = receipt.waiting, [], answer
        return waiting

    def expire(self, now: float) -> None:
        """Forget what nobody repeats any more."""
        while self._seen and next(iter(self._seen.values())).expires_at <= now:
            self._seen.popitem(last=False)

    def next_deadline(self) -> float | None:
        """When the oldest expires."""
        return next(iter(self._seen.values())).expires_at if self._seen else None
