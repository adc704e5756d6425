"""What is said in the log of those who were not let in: from where they came, and why.

Who is refused tries again, so each thing is said once in a while, with how often it was meanwhile.
"""

from __future__ import annotations

from attrs import field

from loopal_cluster.core.context import AnyPart
from loopal_cluster.records import define

__all__ = ["Refusals"]

INTERVAL = 60.0
"""Seconds between two lines that say the same."""
REMEMBERED = 256
"""Things that were said; the oldest is forgotten, and may be said again."""
LONGEST = 200
"""Characters of a reason: it may quote what a stranger has sent."""


@define
class Refusals(AnyPart):
    """The refusals of one core."""

    _said: dict[tuple[str, str], tuple[float, int]] = field(factory=dict, init=False)
    """When each was said, and how often it was not since."""

    def say(self, source: str, reason: str, now: float) -> None:
        """Somebody was refused."""
        key = source, reason[:LONGEST]
        said_at, more = self._said.get(key, (None, 0))
        if said_at is not None and now < said_at + INTERVAL:
            self._said[key] = said_at, more + 1
            return
        self._said.pop(key, None)
        if len(self._said) >= REMEMBERED:
            del self._said[next(iter(self._said))]
        self._said[key] = now, 0
        times = f" ({more} times more since the last line)" if more else ""
        self._exchange.log(
            "WARNING", f"refused a registration from {source or 'this process'}: {key[1]}{times}"
        )
