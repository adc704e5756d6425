"""``python -m benchmarks.trio_relay SENDERS``: a floor; what a wake-up, a read and a write cost on trio itself.

It does with the generator's load what ``floors.c relay`` does, in the shape that the MetaHub has: a task for each
connection waits for bytes, whole lines are handed to a fixed partner (the first SENDERS connections
have the next SENDERS, one each), and one flusher writes once in a pass of the scheduler. It looks into no line.
Whatever the MetaHub takes beyond this, it takes for what it does. It runs until it is killed.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Sequence
from contextlib import suppress

import trio
from attrs import define, field

__all__ = ["main"]

CHUNK = 65536
"""Bytes to read at once. With more, the C library maps memory anew for every read."""


@define(eq=False)
class Connection:
    """A generator's hub."""

    socket: socket.socket
    rest: bytes = b""
    """The beginning of a line."""
    unsent: list[bytes] = field(factory=list)


@define
class Relay:
    """All connections, in the order in which they came."""

    senders: int
    connections: list[Connection] = field(factory=list)
    dirty: list[Connection] = field(factory=list)
    """Those that have something unsent."""
    flusher: trio.lowlevel.Task | None = None
    """While it has nothing to do."""
    paired: trio.Event = field(factory=trio.Event)
    """Every sender has its partner; nothing is read before."""

    async def serve(self, listener: socket.socket) -> None:
        """Accept connections, and relay what they say."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._flush)
            while True:
                await trio.lowlevel.wait_readable(listener)
                with suppress(BlockingIOError):
                    while True:
                        nursery.start_soon(self._read, self._accept(listener))

    def _accept(self, listener: socket.socket) -> Connection:
        accepted, _ = listener.accept()
        accepted.setblocking(False)
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.connections.append(Connection(accepted))
        if len(self.connections) == 2 * self.senders:
            self.paired.set()
        return self.connections[-1]

    async def _read(self, connection: Connection) -> None:
        place = self.connections.index(connection)
        fd = connection.socket.fileno()
        await self.paired.wait()
        while True:
            await trio.lowlevel.wait_readable(fd)
            try:
                data = connection.socket.recv(CHUNK)
            except BlockingIOError:
                continue
            if not data:
                return
            end = data.rfind(b"\n") + 1
            if end:
                self._send(place, connection.rest + data[:end])
                connection.rest = data[end:]
            else:
                connection.rest += data

    def _send(self, place: int, lines: bytes) -> None:
        partner = self.connections[place + self.senders if place < self.senders else place - self.senders]
        if not partner.unsent:
            self.dirty.append(partner)
        partner.unsent.append(lines)
        if self.flusher is not None:
            trio.lowlevel.reschedule(self.flusher)
            self.flusher = None

    async def _flush(self) -> None:
        while True:
            if not self.dirty:
                self.flusher = trio.lowlevel.current_task()
                await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.SUCCEEDED)
            dirty, self.dirty = self.dirty, []
            for connection in dirty:
                await _write(connection)


async def _write(connection: Connection) -> None:
    data, connection.unsent = memoryview(b"".join(connection.unsent)), []
    while data:
        try:
            data = data[connection.socket.send(data) :]
        except BlockingIOError:  # the generator reads whatever happens; only the processor is waited for
            await trio.lowlevel.wait_writable(connection.socket)


def main(arguments: Sequence[str]) -> None:
    """Say where it listens, and serve."""
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        listener.setblocking(False)
        print(f"listening on 127.0.0.1:{listener.getsockname()[1]}", flush=True)
        trio.run(Relay(int(arguments[0])).serve, listener)


if __name__ == "__main__":
    main(sys.argv[1:])
