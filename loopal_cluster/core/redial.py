"""How long a hub pauses before it dials its MetaHub again.

While its place may still be kept, it dials often: it is to be back before it is lost. Afterwards there is
nothing to be in time for, and the pauses grow: to below a second while nobody is reached, and to many seconds
while the MetaHub refuses it, for then a human has to do something first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from loopal_cluster.config import Timeouts

__all__ = ["redial_pauses"]


def redial_pauses(
    timeouts: Timeouts,
    uniform: Callable[[float, float], float],
    refused: Callable[[], bool] = lambda: False,
) -> Iterator[float]:
    """Seconds to wait before each dial after a good connection has ended; there is no last one.

    ``uniform`` chooses a number between two: the hubs of a MetaHub that restarts must not all come at once.
    ``refused`` says whether the last dial was.
    """
    longest, waited = timeouts.redial_delay, 0.0
    while True:
        pause = longest * uniform(0.5, 1.0)
        yield pause
        waited += pause
        if waited >= timeouts.rejoin_timeout:
            longest = min(2 * longest, timeouts.refused_delay_max if refused() else timeouts.redial_delay_max)
