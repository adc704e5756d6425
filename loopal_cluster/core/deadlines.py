"""What is due when."""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

from attrs import Factory, define

__all__ = ["DeadlineQueue"]

K = TypeVar("K", bound=Hashable)


@define
class DeadlineQueue(Generic[K]):
    """Keys with an instant each, popped in the order of the instants, ties in the order of setting.

    What is set in one step of the runtime has one ``now``, hence mostly one deadline: so instants are kept in a
    heap, and keys in a bucket for each. Setting and removing a key then costs two dict operations,
    and the heap is touched once a step, not once a call. A bucket that has become empty stays until
    its instant is the earliest, or until most are empty: then all of them go, so memory stays proportional
    to what is live. Settled calls would otherwise stay until their deadline: at 100,000 a second
    and 30 s, three million of them.
    """

    _due: dict[K, float] = Factory(dict)
    _buckets: dict[float, OrderedDict[K, None]] = Factory(dict)
    """Ordered dicts find their first key at once, also when many before it are gone; plain ones search."""
    _instants: list[float] = Factory(list)
    """A heap of the keys of ``_buckets``."""

    def set(self, key: K, at: float) -> None:
        """Let ``key`` be due at ``at``, and no longer when it was due before."""
        if key in self._due:
            self.discard(key)
        self._due[key] = at
        bucket = self._buckets.get(at)
        if bucket is None:
            self._open_bucket(at)[key] = None
        else:
            bucket[key] = None

    def discard(self, key: K) -> None:
        """Forget ``key``, if it is there."""
        at = self._due.pop(key, None)
        if at is not None:
            del self._buckets[at][key]

    def next(self) -> float | None:
        """The earliest instant."""
        instants, buckets = self._instants, self._buckets
        while instants:
            if buckets[instants[0]]:
                return instants[0]
            del buckets[heapq.heappop(instants)]
        return None

    def pop_due(self, now: float) -> K | None:
        """Remove and return the earliest key that is due, or None."""
        at = self.next()
        if at is None or at > now:
            return None
        key = next(iter(self._buckets[at]))
        self.discard(key)
        return key

    def _open_bucket(self, at: float) -> OrderedDict[K, None]:
        if len(self._instants) > 64 + 2 * len(self._due):
            self._buckets = {instant: keys for instant, keys in self._buckets.items() if keys}
            self._instants = list(self._buckets)
            heapq.heapify(self._instants)
        bucket = self._buckets[at] = OrderedDict()
        heapq.heappush(self._instants, at)
        return bucket

    def __contains__(self, key: K) -> bool:
        return key in self._due

    def __len__(self) -> int:
        return len(self._due)
