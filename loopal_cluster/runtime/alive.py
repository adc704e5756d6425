"""Whether the other side of a client's connection is there: when it registers, and from then on.

Nobody who accepts a connection and never speaks may keep a client waiting.
"""

from __future__ import annotations

import trio

from loopal_cluster.errors import ConnectionLost
from loopal_cluster.messages import Register, Welcome
from loopal_cluster.runtime.caller import Caller

__all__ = ["REGISTER_TIMEOUT", "register"]

REGISTER_TIMEOUT = 10.0
"""Seconds to answer a registration; a hub gives the same time to say it (``handshake_timeout``)."""


async def register(caller: Caller, message: Register) -> Welcome:
    """Register over a new connection.

    Raises:
        ConnectionLost: the link ended, or whoever is at its other end does not speak.
    """
    with trio.move_on_after(REGISTER_TIMEOUT):
        return await caller.call(message)
    raise ConnectionLost(
        f"no answer to the registration within {REGISTER_TIMEOUT:g} s: what is there is no hub, or is stopped"
    )
