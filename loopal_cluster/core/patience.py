"""How long an answer may take: what the message says itself, or the time of its ``patience``."""

from __future__ import annotations

from typing import Any

from loopal_cluster.config import Timeouts
from loopal_cluster.messages import Message, Patience

__all__ = ["LONGEST_APPROVAL", "seconds_for"]

CALL, LOOK, ASK, WAIT = Patience.CALL, Patience.LOOK, Patience.ASK, Patience.WAIT
"""Looked up once: this is asked of every message, and the members of an ``Enum`` are found slowly."""

LONGEST_APPROVAL = 24 * 3600.0
"""Seconds that another hub may have an approval wait here, whatever it asks for."""


def seconds_for(message: Message[Any], timeouts: Timeouts) -> float:
    """Return the seconds within which the hub nearest to the asker must have the answer."""
    patience = message.patience
    if patience is CALL or patience is LOOK:
        return timeouts.call_timeout
    if patience is ASK:
        said, otherwise = _asked(message), timeouts.ask_timeout
    elif patience is WAIT:
        said, otherwise = _said(message), timeouts.wait_timeout
    elif patience is Patience.APPROVAL:
        said, otherwise = _said(message), timeouts.permission_timeout
        if said is not None:  # by another hub, which is believed within reason
            said = min(max(0, said), int(1000 * LONGEST_APPROVAL))
    else:
        return timeouts.spawn_timeout
    return otherwise if said is None else said / 1000


def _said(message: Any) -> int | None:
    timeout_ms: int | None = message.timeout_ms
    return timeout_ms


def _asked(message: Any) -> int | None:
    return _said(message.envelope)
