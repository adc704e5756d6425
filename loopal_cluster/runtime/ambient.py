"""What a running part finds rather than decides: identities, the time of day, and chance.

A core is given these as arguments; its runtime takes them from here. The simulation gives others, and
with them a run can be repeated.
"""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable

from attrs import frozen

__all__ = ["Ambient"]


def _new_uuid() -> str:
    return str(uuid.uuid4())


@frozen
class Ambient:
    """By default, the world as it is."""

    new_id: Callable[[], str] = _new_uuid
    """An identity that nothing else ever has."""
    time: Callable[[], float] = time.time
    """Seconds since 1970, by the clock on the wall."""
    uniform: Callable[[float, float], float] = random.uniform
    """Any number between two."""
