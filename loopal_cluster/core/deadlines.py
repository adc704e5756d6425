"""What is due when: the timers of a core. Its calls, of which there are far more, have a table of their own (``calls``)."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Hashable
from typing import Any, Final, Generic, TypeVar

from attrs import Factory

from loopal_cluster.records import define

__all__ = ["DeadlineQueue"]

K = TypeVar("K", bound=Hashable)

_GONE: Final = object()


@define
class DeadlineQueue(Generic[K]):
    """Keys with an instant each, popped in the order of the instants, ties in the order of setting.

    Removing or moving a key leaves its old heap entry behind; the heap is rebuilt when such
    entries outnumber the live ones, so memory stays proportional to what is live and every
    operation is logarithmic on average.
    """

    _due: dict[K, list[Any]] = Factory(dict)
    """Each key's entry in the heap."""
    _heap: list[list[Any]] = Factory(list)
    """An instant, a number that makes every entry unlike, and the key, or ``_GONE``. So what is earliest is asked,
    which is done at every step of a runtime, without a look at keys, whose hashes are dear."""
    _counter: itertools.count[int] = Factory(itertools.count)

    def set(self, key: K, at: float) -> None:
        """Let ``key`` be due at ``at``, and no longer when it was due before."""
        self.discard(key)
        entry = self._due[key] = [at, next(self._counter), key]
        heapq.heappush(self._heap, entry)
        if len(self._heap) > 64 + 2 * len(self._due):
            self._heap = list(self._due.values())
            heapq.heapify(self._heap)

    def discard(self, key: K) -> None:
        """Forget ``key``, if it is there."""
        if (entry := self._due.pop(key, None)) is not None:
            entry[2] = _GONE

    def next(self) -> float | None:
        """The earliest instant."""
        heap = self._heap
        while heap:
            at: float = heap[0][0]
            if heap[0][2] is not _GONE:
                return at
            heapq.heappop(heap)
        return None

    def pop_due(self, now: float) -> K | None:
        """Remove and return the earliest key that is due, or None."""
        at = self.next()
        if at is None or at > now:
            return None
        key: K = heapq.heappop(self._heap)[2]
        del self._due[key]
        return key

    def __contains__(self, key: K) -> bool:
        return key in self._due

    def __len__(self) -> int:
        return len(self._due)
