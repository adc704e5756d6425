"""A channel that is watched: for the transcript, and to see when a hub wants an agent to end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from loopal_cluster.frames import Frame, Rejected
from loopal_cluster.links.channels import FrameChannel, Inbound

__all__ = ["WatchedChannel"]

Watcher = Callable[[str, Inbound], None]
"""Is told ``<-`` or ``->``, and what has passed."""


class WatchedChannel(FrameChannel):
    """A channel, and somebody who is told what passes."""

    def __init__(self, channel: FrameChannel, watcher: Watcher) -> None:
        self._channel = channel
        self._watcher = watcher
        self.in_process, self.can_vanish = channel.in_process, channel.can_vanish

    # What shows that somebody is at the other end: without it, every client is cut after 40 s.

    @property
    def received(self) -> int:  # type: ignore[override]
        return self._channel.received

    @property
    def sent(self) -> int:  # type: ignore[override]
        return self._channel.sent

    def backlog(self) -> int:
        return self._channel.backlog()

    def be_patient(self, seconds: float) -> None:
        self._channel.be_patient(seconds)

    async def receive(self) -> Sequence[Inbound]:
        frames = await self._channel.receive()
        for frame in frames:
            self._watcher("<-", frame)
        return frames

    def send_nowait(self, frames: Sequence[Frame | Rejected]) -> bool:
        for frame in frames:
            self._watcher("  ->", frame)
        return self._channel.send_nowait(frames)

    async def drained(self) -> None:
        await self._channel.drained()

    def limit_lines(self, line_bytes: int, long: Mapping[bytes, int] | None = None) -> None:
        self._channel.limit_lines(line_bytes, long)

    async def aclose(self) -> None:
        await self._channel.aclose()
