"""A hub's connection to its MetaHub in a test, which can be cut, or say nothing for a while."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import trio
from attrs import define, field

from loopal_cluster.frames import Frame, Rejected
from loopal_cluster.links.channels import FrameChannel, Inbound

__all__ = ["Wire", "WiredChannel"]


@define(eq=False)
class Wire:
    """What lies between a hub and its MetaHub, whichever connection they have now."""

    silent: bool = False
    """Nothing passes, and neither end is told: what is sent meanwhile arrives when it is over."""
    ends: tuple[FrameChannel, ...] = ()
    """Of the connection that there is, if there is one."""
    _heard: trio.Event = field(factory=trio.Event)

    def fall_silent(self) -> None:
        """Let nothing pass."""
        if not self.silent:
            self.silent, self._heard = True, trio.Event()

    def be_heard(self) -> None:
        """Let everything pass."""
        self.silent = False
        self._heard.set()

    async def until_heard(self) -> None:
        """Wait while it is silent."""
        while self.silent:
            await self._heard.wait()

    async def cut(self) -> None:
        """End the connection: both ends are told."""
        ends, self.ends = self.ends, ()
        for end in ends:
            await trio.aclose_forcefully(end)


class WiredChannel(FrameChannel):
    """One end of a connection over a wire."""

    def __init__(self, channel: FrameChannel, wire: Wire) -> None:
        self._channel = channel
        self._wire = wire
        self.in_process, self.can_vanish = channel.in_process, channel.can_vanish

    @property
    def received(self) -> int:  # type: ignore[override]  # it counts, and we only look
        return self._channel.received

    @property
    def sent(self) -> int:  # type: ignore[override]
        return self._channel.sent

    async def receive(self) -> Sequence[Inbound]:
        ended: Exception | None = None
        frames: Sequence[Inbound] = ()
        try:
            frames = await self._channel.receive()
        except (trio.EndOfChannel, trio.BrokenResourceError) as error:
            ended = error
        await self._wire.until_heard()  # the end, too, is not heard of sooner
        if ended is not None:
            raise ended
        return frames

    def send_nowait(self, frames: Sequence[Frame | Rejected]) -> bool:
        return self._channel.send_nowait(frames)

    async def drained(self) -> None:
        await self._channel.drained()

    def backlog(self) -> int:
        return self._channel.backlog()

    def limit_lines(self, line_bytes: int, long: Mapping[bytes, int] | None = None) -> None:
        self._channel.limit_lines(line_bytes, long)

    async def aclose(self) -> None:
        await self._channel.aclose()
