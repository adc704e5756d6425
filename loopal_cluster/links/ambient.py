"""What a running part finds rather than decides: identities, the time of day, and chance.

A core is given these as arguments; its runtime takes them from here. The simulation gives others, and
with them a run can be repeated.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable

from loopal_cluster.records import record

__all__ = ["Ambient"]


def _new_uuid() -> str:
    """As ``str(uuid.uuid4())``, which is five times as dear: every message has one."""
    text = os.urandom(16).hex()
    variant = "89ab"[int(text[16], 16) & 3]
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-{variant}{text[17:20]}-{text[20:]}"


@record
class Ambient:
    """By default, the world as it is."""

    new_id: Callable[[], str] = _new_uuid
    """An identity that nothing else ever has."""
    time: Callable[[], float] = time.time
    """Seconds since 1970, by the clock on the wall."""
    uniform: Callable[[float, float], float] = random.uniform
    """Any number between two."""
