"""One end of a connection, as frames.

A ``FrameChannel`` hides what carries the bytes, or whether there are bytes at all:

* ``SocketChannel``: a TCP or unix socket, read and written without a task or a lock in between;
* ``StreamChannel``: any trio stream (pipes, TLS, memory), through the ordinary stream methods, but that a pipe
  takes at once what it can;
* ``record_pair()``: two ends in one process, without bytes.

Receiving gives all frames of one wake-up at once, and sending takes many at once: one system call per
batch, not per message, is what makes a hub fast.
"""

from __future__ import annotations

import abc
import socket
from collections import deque
from collections.abc import Mapping, Sequence

import trio

from loopal_cluster.frames import Frame, Rejected
from loopal_cluster.links.greeting import GREETING_BYTES
from loopal_cluster.links.sockets import PATIENCE, source_of, unacknowledged, watch_transport, write_some
from loopal_cluster.wire.codec import decode, encode
from loopal_cluster.wire.faults import reject
from loopal_cluster.wire.framing import LineBuffer, Oversized, Spill

__all__ = [
    "FrameChannel",
    "Inbound",
    "SocketChannel",
    "StreamChannel",
    "record_pair",
]

CHUNK = 65536
"""Bytes read at once. More is slower: larger buffers are fetched from and returned to the system."""
FIRST_CHUNK = 4096
"""The same, while nobody knows who the other side is: what it sends, we keep."""


ENDED_CHUNKS = 4
"""So many are read of whoever sends on while it is not listened to."""

Inbound = Frame | Rejected
"""What a channel brings."""


class FrameChannel(trio.abc.ReceiveChannel[Sequence[Inbound]]):
    """Frames in, in batches; frames out, without waiting."""

    in_process = False
    """Whether the other end is in this process, and lives as long as we do."""
    can_vanish = True
    """Whether the other end can be gone without our being told, as over a network."""
    received = 0
    """So many bytes have come."""
    sent = 0
    """So many have been taken to be sent."""

    @abc.abstractmethod
    def send_nowait(self, frames: Sequence[Frame | Rejected]) -> bool:
        """Take frames to send. False: they were taken, but ``drained`` must come before more.

        What is sent of a ``Rejected`` is the answer to it. A broken connection is not reported here but
        to whoever receives.
        """

    @abc.abstractmethod
    async def drained(self) -> None:
        """Wait until everything taken has been handed to the transport.

        Raises:
            trio.BrokenResourceError, trio.ClosedResourceError: it never will be. Not every transport
                raises; whoever receives is told in any case.
        """

    async def receive_one(self) -> Sequence[Inbound]:
        """The next frame, and no more: for as long as nobody knows who the other side is.

        Others that have come with it are not even decoded before they are received. Without lines there is
        nothing to decode, and they come all at once.
        """
        return await self.receive()

    async def ended(self) -> None:
        """Wait until the other side has closed, while nothing is received; not every transport can tell."""
        await trio.sleep_forever()

    @property
    def greeting(self) -> bytes:
        """The beginning of what the first ``receive_one`` has read. Without lines there is none."""
        return b""

    @property
    def source(self) -> str | None:
        """Where the other side is, as a log may say it: without its port. None: in this process."""
        return None

    def limit_lines(self, line_bytes: int, long: Mapping[bytes, int] | None = None) -> None:
        """From now on, read no longer lines than this, and long ones only of these methods (``LineBuffer.long``).

        Without lines there is nothing to do.
        """

    def backlog(self) -> int:
        """So many of the bytes taken the other end has not acknowledged, as far as the transport can say."""
        return 0

    def be_patient(self, seconds: float) -> None:
        """Take a transport that says nothing for so long for broken. Only TCP is told."""


class _Lines:
    """Bytes in, frames out."""

    def __init__(self, line_bytes: int, spill: Spill = lambda prefix: None) -> None:
        self._buffer = LineBuffer(line_bytes, spill)
        self.waiting: deque[bytes | Oversized] = deque()
        """Lines that have come and were not asked for: there are some only after ``keep``."""
        self.greeting = b""

    def feed(self, data: bytes) -> list[Inbound]:
        return [
            reject(line) if isinstance(line, Oversized) else decode(line) for line in self._buffer.feed(data)
        ]

    def keep(self, data: bytes) -> None:
        """Have lines wait until they are taken."""
        self.greeting = self.greeting or data[:GREETING_BYTES]
        self.waiting += self._buffer.feed(data)

    def take(self, count: int | None = None) -> list[Inbound]:
        """What waits, or the first of it."""
        lines = [self.waiting.popleft() for _ in range(min(count or len(self.waiting), len(self.waiting)))]
        return [reject(line) if isinstance(line, Oversized) else decode(line) for line in lines]

    def last(self) -> list[Inbound]:
        """A line that only the end of the stream terminated still counts."""
        if (line := self._buffer.close()) is None:
            raise trio.EndOfChannel
        return [reject(line) if isinstance(line, Oversized) else decode(line)]

    def limit(self, line_bytes: int, long: Mapping[bytes, int] | None) -> None:
        self._buffer.max_bytes, self._buffer.long = line_bytes, long


class SocketChannel(FrameChannel):
    """Lines over a connected, non-blocking stream socket."""

    def __init__(self, sock: socket.socket, line_bytes: int) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._lines = _Lines(line_bytes)
        self._unsent = memoryview(b"")
        self._closed = False
        self.can_vanish = sock.family != socket.AF_UNIX
        self.be_patient(PATIENCE)

    @classmethod
    def from_stream(cls, stream: trio.SocketStream, line_bytes: int) -> SocketChannel:
        """Take over the socket of a trio stream, which must not be used any more."""
        # trio hides the socket that lowlevel.wait_readable wants; detaching it is the public way to it.
        return cls(socket.socket(fileno=stream.socket.detach()), line_bytes)

    async def receive(self) -> list[Inbound]:
        if self._closed:
            raise trio.ClosedResourceError
        if self._lines.waiting:
            await trio.lowlevel.checkpoint()
            return self._lines.take()
        while True:
            await trio.lowlevel.wait_readable(self._sock)
            if (data := self._recv(CHUNK)) is None:
                continue
            if not data:
                return self._lines.last()
            self.received += len(data)
            if frames := self._lines.feed(data):
                return frames

    async def receive_one(self) -> list[Inbound]:
        if self._closed:
            raise trio.ClosedResourceError
        await trio.lowlevel.checkpoint()
        while not self._lines.waiting:
            await trio.lowlevel.wait_readable(self._sock)
            if (data := self._recv(FIRST_CHUNK)) is None:
                continue
            if not data:
                return self._lines.last()
            self._lines.keep(data)
        return self._lines.take(1)

    def _recv(self, chunk: int) -> bytes | None:
        """What has come; None if nothing has."""
        try:
            return self._sock.recv(chunk)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError as error:
            raise trio.BrokenResourceError(str(error)) from error

    async def ended(self) -> None:
        for _ in range(ENDED_CHUNKS):
            await trio.lowlevel.wait_readable(self._sock)
            if (data := self._recv(FIRST_CHUNK)) is not None:
                if not data:
                    return
                self._lines.keep(data)
        await trio.sleep_forever()  # it sends, and is to be read first

    @property
    def greeting(self) -> bytes:
        return self._lines.greeting

    @property
    def source(self) -> str:
        return source_of(self._sock)

    def send_nowait(self, frames: Sequence[Frame | Rejected]) -> bool:
        data = b"".join([encode(frame) for frame in frames])
        self.sent += len(data)
        if self._unsent:
            self._unsent = memoryview(self._unsent.tobytes() + data)
            return False
        self._unsent = memoryview(data)
        self._send_some()
        return not self._unsent

    async def drained(self) -> None:
        while self._unsent:
            if self._closed:
                raise trio.ClosedResourceError  # closed before we came to wait: there is no socket to wait for
            await trio.lowlevel.wait_writable(self._sock)
            self._send_some()

    def _send_some(self) -> None:
        # A view, because the rest of what a slow peer has not taken may be large, and is cut many times.
        try:
            self._unsent = self._unsent[self._sock.send(self._unsent) :]
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            self._unsent = memoryview(b"")  # the reader is told of the broken connection by its next recv

    def limit_lines(self, line_bytes: int, long: Mapping[bytes, int] | None = None) -> None:
        self._lines.limit(line_bytes, long)

    def backlog(self) -> int:
        return len(self._unsent) + unacknowledged(self._sock)

    def be_patient(self, seconds: float) -> None:
        if self.can_vanish:
            watch_transport(self._sock, seconds)

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            trio.lowlevel.notify_closing(self._sock)
            self._sock.close()
        await trio.lowlevel.checkpoint()


class StreamChannel(FrameChannel):
    """Lines over any trio stream, or over a pair of one-way streams."""

    def __init__(
        self,
        receiver: trio.abc.ReceiveStream,
        sender: trio.abc.SendStream,
        line_bytes: int,
        *,
        spill: Spill = lambda prefix: None,
    ) -> None:
        self._receiver = receiver
        self._sender = sender
        self._lines = _Lines(line_bytes, spill)
        self._unsent = b""

    async def receive(self) -> list[Inbound]:
        if self._lines.waiting:
            await trio.lowlevel.checkpoint()
            return self._lines.take()
        while True:
            data = await self._receiver.receive_some(CHUNK)
            if not data:
                return self._lines.last()
            self.received += len(data)
            if frames := self._lines.feed(bytes(data)):
                return frames

    async def receive_one(self) -> list[Inbound]:
        await trio.lowlevel.checkpoint()
        while not self._lines.waiting:
            data = await self._receiver.receive_some(FIRST_CHUNK)
            if not data:
                return self._lines.last()
            self._lines.keep(bytes(data))
        return self._lines.take(1)

    @property
    def greeting(self) -> bytes:
        return self._lines.greeting

    def send_nowait(self, frames: Sequence[Frame | Rejected]) -> bool:
        data = b"".join([encode(frame) for frame in frames])
        self.sent += len(data)
        # The end of a pipe takes most of what it is given at once, which spares everybody a task.
        if isinstance(self._sender, trio.lowlevel.FdStream) and not self._unsent:
            data = write_some(self._sender.fileno(), data)
        self._unsent += data
        return not self._unsent

    async def drained(self) -> None:
        while data := self._unsent[:CHUNK]:
            await self._sender.send_all(data)
            self._unsent = self._unsent[len(data) :]

    def backlog(self) -> int:
        return len(self._unsent)

    def limit_lines(self, line_bytes: int, long: Mapping[bytes, int] | None = None) -> None:
        self._lines.limit(line_bytes, long)

    async def aclose(self) -> None:
        try:
            await self._sender.aclose()
        finally:
            await self._receiver.aclose()


class _Mailbox:
    """One direction of a record pair: what was sent and not yet received."""

    def __init__(self, limit: int) -> None:
        self.frames: deque[Frame | Rejected] = deque()
        self.limit = limit
        self.sender_closed = False
        self.receiver_closed = False
        self.arrived = trio.lowlevel.ParkingLot()
        self.taken = trio.lowlevel.ParkingLot()


class _RecordChannel(FrameChannel):
    in_process = True
    can_vanish = False

    def __init__(self, inbound: _Mailbox, outbound: _Mailbox) -> None:
        self._in = inbound
        self._out = outbound

    async def receive(self) -> list[Inbound]:
        if self._in.receiver_closed:
            raise trio.ClosedResourceError
        if self._in.frames or self._in.sender_closed:
            await trio.lowlevel.checkpoint()
        while not self._in.frames:
            if self._in.receiver_closed:
                raise trio.ClosedResourceError
            if self._in.sender_closed:
                raise trio.EndOfChannel
            await self._in.arrived.park()
        frames: list[Inbound] = list(self._in.frames)
        self._in.frames.clear()
        self._in.taken.unpark_all()
        return frames

    def send_nowait(self, frames: Sequence[Frame | Rejected]) -> bool:
        if not self._out.receiver_closed:
            self._out.frames.extend(frames)
            self._out.arrived.unpark_all()
        return len(self._out.frames) < self._out.limit

    async def drained(self) -> None:
        while len(self._out.frames) >= self._out.limit and not self._out.receiver_closed:
            if self._out.sender_closed:
                raise trio.ClosedResourceError
            await self._out.taken.park()

    async def aclose(self) -> None:
        self._out.sender_closed = True
        self._in.receiver_closed = True
        self._in.frames.clear()
        for box in (self._in, self._out):
            box.arrived.unpark_all()
            box.taken.unpark_all()
        await trio.lowlevel.checkpoint()


def record_pair(limit: int = 4096) -> tuple[FrameChannel, FrameChannel]:
    """Make two connected ends that pass records, for agents and programs in the hub's own process.

    Above ``limit`` frames that were not received, sending asks the sender to wait.
    """
    there, back = _Mailbox(limit), _Mailbox(limit)
    return _RecordChannel(back, there), _RecordChannel(there, back)
