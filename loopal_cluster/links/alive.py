"""Whether anybody is at the other end of a client's connection: when it registers, and from then on.

A network can lose a connection without telling either side: a NAT forgets it, a firewall drops it, a lid is closed. So
a client that registers promises to be heard of: it pings, each ``PING_INTERVAL`` seconds. It is answered, and so
each side knows that the other one is gone when nothing has come for ``SILENCE_TIMEOUT`` seconds. What is merely slow
is not silent: each byte counts, also of a line that is still on its way, and that the other side acknowledges what had
been waiting for it.
"""

from __future__ import annotations

from contextlib import suppress

import trio
from attrs import field

from loopal_cluster.errors import ConnectionLost, RemoteError
from loopal_cluster.links.caller import Caller
from loopal_cluster.links.channels import FrameChannel
from loopal_cluster.messages import Ping, Register, Welcome
from loopal_cluster.records import define

__all__ = [
    "REGISTER_TIMEOUT",
    "SILENCE_TIMEOUT",
    "Pulse",
    "features_on",
    "keep_alive",
    "look_again",
    "register",
]

REGISTER_TIMEOUT = 10.0
"""Seconds to answer a registration; a hub gives the same time to say it (``handshake_timeout``)."""
PING_INTERVAL = 15.0
"""Seconds from the answer to a ping to the next one."""
SILENCE_TIMEOUT = 40.0
"""Seconds: more than two pings. With ``LOOK_INTERVAL`` well below the minute in which both sides are to know."""
LOOK_INTERVAL = 5.0
"""Seconds between two looks at whether anything has come."""
LATE = 1.0
"""Whoever looks so much later than it meant to was itself stopped, and has not yet read what came meanwhile."""
MUCH = 4096
"""Bytes: more than pings, which a proxy or the system may take for somebody who is not there."""

SILENT = f"nothing has come from the other side for {SILENCE_TIMEOUT:g} s"


def features_on(channel: FrameChannel) -> tuple[str, ...]:
    """What a client can promise on a channel."""
    return () if channel.in_process else ("ping",)


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


@define(eq=False)
class Pulse:
    """Since when a channel has shown no sign of its other end."""

    channel: FrameChannel
    heard_at: float = field(factory=trio.current_time)
    _received: int = 0
    _acknowledged: int = 0
    _backlog: int = 0

    def is_silent(self, forgiven: float) -> bool:
        """Look, and say whether it has been silent for too long; ``forgiven`` seconds do not count."""
        now = trio.current_time()
        self.heard_at += forgiven
        received, backlog = self.channel.received, self.channel.backlog()
        acknowledged = self.channel.sent - backlog
        # The system acknowledges a ping even for a program that is stopped, but not for long what it does not read.
        was_taken = self._backlog > MUCH and acknowledged > self._acknowledged
        if received != self._received or was_taken:
            self.heard_at = now
        self._received, self._acknowledged, self._backlog = received, acknowledged, backlog
        return now >= self.heard_at + SILENCE_TIMEOUT


async def look_again() -> float:
    """Wait until it is time for another look; return by how much that was too late."""
    due = trio.current_time() + LOOK_INTERVAL
    await trio.sleep_until(due)
    late = trio.current_time() - due
    return late if late > LATE else 0.0


async def keep_alive(caller: Caller, channel: FrameChannel, welcome: Welcome) -> None:
    """Ping the other side, if it answers that, and end the connection when it has fallen silent."""
    if welcome.protocol is None or "ping" not in welcome.protocol.features:
        return
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_ping_forever, caller)
        pulse = Pulse(channel)
        while not pulse.is_silent(await look_again()):
            pass
        caller.end(SILENT)
        nursery.cancel_scope.cancel()


async def _ping_forever(caller: Caller) -> None:
    with suppress(ConnectionLost):
        while True:
            await trio.sleep(PING_INTERVAL)
            with suppress(RemoteError):  # even a refusal is a sign of life
                await caller.call(Ping())
