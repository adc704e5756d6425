"""Connections of bytes: what the runtime reads and writes instead of sockets.

They are the connections of ``network.py``, with its delays, cuts and partitions. What is sent may arrive
in pieces of any size, and who sends more than the window waits until the other side has read.
"""

from __future__ import annotations

import trio

from loopal_cluster.config import Limits
from loopal_cluster.frames import Frame, Rejected
from loopal_cluster.links.channels import FrameChannel, StreamChannel
from loopal_cluster.wire.codec import decode, encode
from loopal_cluster.wire.framing import LineBuffer, Oversized
from tests.simulation.network import RESET, End, Owner, Pipe

__all__ = ["LineEnd", "Reader", "SimStream", "stream_channel"]

WINDOWS = (1024, 8192, 65536)
"""Bytes sent and not yet read, at most."""


class Reader:
    """The owner of a ``SimStream``, which is not told what arrives: it reads."""

    def on_frame(self, end: End, frame: Frame) -> None:
        """Never called."""
        raise AssertionError("a stream brings bytes")

    def on_lost(self, end: End, reason: str) -> None:
        """Never called."""
        raise AssertionError("a stream tells its reader")


class SimStream(End, trio.abc.HalfCloseableStream):
    """One end of a connection, as a trio stream."""

    def __init__(self, owner: Owner, label: str, out: Pipe) -> None:
        super().__init__(owner, label, out)
        self._chance = out.delays
        self._window = self._chance.choice(WINDOWS)
        self._unread = 0
        """Bytes that we have sent and the other side has not yet read."""
        self._room = trio.lowlevel.ParkingLot()
        self._received = bytearray()
        self._arrived = trio.lowlevel.ParkingLot()
        self._ended = False
        """Nothing more will arrive."""
        self._broken = False

    # The network's side.

    def take(self, item: Frame | bytes) -> None:
        assert isinstance(item, bytes)
        self._received += item
        self._arrived.unpark_all()

    def taken(self, count: int) -> None:
        self._unread -= count
        self._room.unpark_all()

    def fail(self, reason: str) -> None:
        self._ended = True
        if reason == RESET and self.open:
            self._broken = True
            self.close(RESET)
        self._wake()

    def close(self, reason: str = "closed by the other side") -> None:
        super().close(reason)
        self._wake()

    def _wake(self) -> None:
        self._arrived.unpark_all()
        self._room.unpark_all()

    # The program's side.

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._checkpoint()
        rest = bytes(data)
        while rest:
            while self._unread >= self._window and self.open:
                await self._room.park()
            self._check_open()
            size = min(len(rest), self._window - self._unread)
            if self._chance.random() < 0.3:
                size = self._chance.randint(1, size)
            self._unread += size
            self._out.put(rest[:size])
            rest = rest[size:]

    async def wait_send_all_might_not_block(self) -> None:
        await self._checkpoint()
        while self._unread >= self._window and self.open:
            await self._room.park()
        self._check_open()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await self._checkpoint()
        while not self._received and not self._ended and self.open:
            await self._arrived.park()
        if not self._received or not self.open:
            self._check_open()
            return b""
        size = len(self._received) if max_bytes is None else max_bytes
        data = bytes(self._received[:size])
        del self._received[:size]
        self._out.receiver.taken(len(data))
        return data

    async def send_eof(self) -> None:
        await trio.lowlevel.checkpoint()
        self.half_close()

    async def aclose(self) -> None:
        if self.open:
            self.close()
        await trio.lowlevel.checkpoint()

    def _check_open(self) -> None:
        if self._broken:
            raise trio.BrokenResourceError(RESET)
        if not self.open:
            raise trio.ClosedResourceError

    async def _checkpoint(self) -> None:
        """At least one; more of them let other tasks come first that otherwise never would."""
        for _ in range(self._chance.choice((1, 1, 1, 1, 2, 3))):
            await trio.lowlevel.checkpoint()


def stream_channel(end: End) -> FrameChannel:
    """An end as the runtime sees it."""
    assert isinstance(end, SimStream)
    return StreamChannel(end, end, Limits().line_bytes)


class LineEnd(End):
    """One end of a connection of bytes, for an owner that speaks in frames."""

    def __init__(self, owner: Owner, label: str, out: Pipe) -> None:
        super().__init__(owner, label, out)
        self._lines = LineBuffer(Limits().line_bytes)

    def send(self, frame: Frame) -> None:
        if self.open:
            self._out.put(encode(frame))

    def take(self, item: Frame | bytes) -> None:
        assert isinstance(item, bytes)
        self._out.receiver.taken(len(item))
        for line in self._lines.feed(item):
            assert not isinstance(line, Oversized)
            frame = decode(line)
            assert not isinstance(frame, Rejected), f"our own line was rejected: {frame.detail}: {line!r}"
            if self.open:
                self.owner.on_frame(self, frame)
