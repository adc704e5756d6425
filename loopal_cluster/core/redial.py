"""How long a hub pauses before it dials its MetaHub again.

While its place may still be kept, it dials often: it is to be back before it is lost. Afterwards there is
nothing to be in time for, and the pauses grow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from loopal_cluster.config import Timeouts

__all__ = ["redial_pauses"]


def redial_pauses(timeouts: Timeouts, uniform: Callable[[float, float], float]) -> Iterator[float]:
    """Seconds to wait before each dial after a good connection has ended; there is no last one.

    ``uniform`` chooses a number between two: the hubs of a MetaHub that restarts must not all come at once.
    """
    longest, waited = timeouts.redial_delay, 0.0
    while True:
        pause = longest * uniform(0.5, 1.0)
        yield pause
        waited += pause
        if waited >= timeouts.rejoin_timeout:
            longest = min(2 * longest, timeouts.redial_delay_max)
