"""What is due when: the timers of a core. Its calls, of which there are far more, have a table of their own (``calls``)."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Hashable
from typing import Generic, TypeVar

from attrs import Factory, define

__all__ = ["DeadlineQueue"]

K = TypeVar("K", bound=Hashable)


@define
class DeadlineQueue(Generic[K]):
    """Keys with an instant each, popped in the order of the instants, ties in the order of setting.

    Removing or moving a key leaves its old heap entry behind; the heap is rebuilt when such
    entries outnumber the live ones, so memory stays proportional to what is live and every
    operation is logarithmic on average.
    """

    _due: dict[K, tuple[float, int]] = Factory(dict)
    _heap: list[tuple[float, int, K]] = Factory(list)
    _counter: itertools.count[int] = Factory(itertools.count)

    def set(self, key: K, at: float) -> None:
        """Let ``key`` be due at ``at``, and no longer when it was due before."""
        entry = (at, next(self._counter))
        self._due[key] = entry
        heapq.heappush(self._heap, (*entry, key))
        if len(self._heap) > 64 + 2 * len(self._due):
            self._heap = [(*entry, key) for key, entry in self._due.items()]
            heapq.heapify(self._heap)

    def discard(self, key: K) -> None:
        """Forget ``key``, if it is there."""
        self._due.pop(key, None)

    def next(self) -> float | None:
        """The earliest instant."""
        self._drop_stale()
        return self._heap[0][0] if self._heap else None

    def pop_due(self, now: float) -> K | None:
        """Remove and return the earliest key that is due, or None."""
        self._drop_stale()
        if not self._heap or self._heap[0][0] > now:
            return None
        key = heapq.heappop(self._heap)[2]
        del self._due[key]
        return key

    def _drop_stale(self) -> None:
        heap, due = self._heap, self._due
        while heap and due.get(heap[0][2]) != heap[0][:2]:
            heapq.heappop(heap)

    def __contains__(self, key: K) -> bool:
        return key in self._due

    def __len__(self) -> int:
        return len(self._due)
