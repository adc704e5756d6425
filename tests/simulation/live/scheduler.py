"""What makes ``trio.run`` repeatable: a clock that knows what happens next, and a seeded scheduler."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import trio
import trio._core._run as trio_run

from tests.simulation.schedule import Schedule

__all__ = ["SimClock", "seeded_scheduler"]


IDLE_LIMIT = 100
"""So often, and 0.1 s each, a run may wait for the real world."""


class SimClock(trio.abc.Clock):
    """Virtual time, shared with the schedule of the world.

    trio asks for the time until its next deadline only when no task can run. If the schedule has
    something earlier, that happens then and there: there is no task for the network, which would take
    part in the scheduling.
    """

    def __init__(self, schedule: Schedule, on_error: Callable[[Exception], None]) -> None:
        self._schedule = schedule
        self._on_error = on_error
        self._idle = 0

    def start_clock(self) -> None:
        """It stands still until somebody waits."""

    def current_time(self) -> float:
        return self._schedule.now

    def deadline_to_sleep_time(self, deadline: float) -> float:
        schedule = self._schedule
        if schedule.next_at <= deadline and schedule.next_at < math.inf:
            self._run_next()
        elif deadline < math.inf:
            schedule.now = max(schedule.now, deadline)
        else:
            # At the end of a run trio wakes itself through a socket; the world itself always has a deadline.
            self._idle += 1
            if self._idle > IDLE_LIMIT:
                raise RuntimeError("deadlock: every task waits, and nothing will ever happen")
            return 0.1
        return 0.0

    def _run_next(self) -> None:
        try:
            self._schedule.run_next()
        except Exception as error:
            # Raised from here it would break trio itself, and nothing could be cleaned up.
            self._on_error(error)


@contextmanager
def seeded_scheduler(seed: int) -> Iterator[None]:
    """Let trio run the tasks that are ready in an order that only the seed decides.

    trio has this, for hypothesis, under two private names, and no public way to it (python-trio #239).
    A test holds that both still work.
    """
    before = trio_run._ALLOW_DETERMINISTIC_SCHEDULING, trio_run._r.getstate()
    assert isinstance(trio_run._r, random.Random)
    trio_run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]  # hypothesis's plugin does the same
    trio_run._r.seed(f"tasks-{seed}")
    try:
        yield
    finally:
        trio_run._ALLOW_DETERMINISTIC_SCHEDULING = before[0]  # type: ignore[misc]
        trio_run._r.setstate(before[1])
