"""Virtual time: what happens when, and nothing else. Equal instants keep the order they were set in."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from typing import Any

from attrs import define, field

__all__ = ["Schedule"]


@define(eq=False)
class Schedule:
    """A heap of things to do, each at an instant in seconds since the start of the run."""

    now: float = 0.0
    done: int = 0
    """How many things have happened."""
    _heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = field(factory=list)
    _last: int = 0

    def at(self, when: float, act: Callable[..., None], *args: Any) -> None:
        """Let ``act(*args)`` happen at ``when``, or at once if that has passed."""
        self._last += 1
        heapq.heappush(self._heap, (max(when, self.now), self._last, act, args))

    def after(self, delay: float, act: Callable[..., None], *args: Any) -> None:
        """Let ``act(*args)`` happen in ``delay`` seconds."""
        self.at(self.now + delay, act, *args)

    def run_until(self, until: float) -> None:
        """Let everything happen that is due by ``until``; time then is ``until``."""
        while self.next_at <= until:
            self.run_next()
        self.now = until

    @property
    def next_at(self) -> float:
        """When the next thing is due; infinity if nothing is."""
        return self._heap[0][0] if self._heap else math.inf

    def run_next(self) -> None:
        """Let the next thing happen."""
        self.now, _, act, args = heapq.heappop(self._heap)
        self.done += 1
        act(*args)

    def clear(self) -> None:
        """Let nothing of it happen."""
        self._heap.clear()
