"""Connections as TCP gives them: in order within one, any delay, and every way to break.

A ``Connection`` has two ``End``s. What is put into one comes out of the other in order, each frame after
a delay of its own. A ``Line`` is the cable that some connections share: it can be blocked one way or both
ways (nothing passes and nobody learns, until it heals), or slow. Ends learn of a break separately.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import Protocol

from attrs import define, field, frozen

from loopal_cluster.core.events import Peer
from loopal_cluster.frames import Frame, Rejected
from loopal_cluster.wire.codec import decode, encode
from tests.simulation.schedule import Schedule

__all__ = ["RESET", "Connection", "End", "Line", "Owner", "Pipe", "connect"]

NO_PEER = Peer(0)
RESET = "connection reset"
"""The end of a connection that was not closed, but broken."""


@frozen
class Opening:
    """The first thing that arrives on a connection."""

    accept: Callable[[End], None]


Item = Frame | bytes | Opening | str


class Owner(Protocol):
    """A party that has ends of connections."""

    def on_frame(self, end: End, frame: Frame) -> None:
        """The other side said something."""

    def on_lost(self, end: End, reason: str) -> None:
        """The connection ended, by the other side or by the network."""


@define(eq=False)
class Line:
    """A cable. ``up`` is from the end that dialled."""

    up_blocked: bool = False
    down_blocked: bool = False
    extra_delay: float = 0.0
    connections: list[Connection] = field(factory=list)

    @property
    def passable(self) -> bool:
        """Whether a new connection can be made."""
        return not (self.up_blocked or self.down_blocked)

    def block(self, *, up: bool, down: bool) -> None:
        """Let nothing pass in these directions; nobody is told."""
        self.up_blocked |= up
        self.down_blocked |= down

    def heal(self) -> None:
        """Let everything pass again, what has been held first."""
        self.up_blocked = self.down_blocked = False
        for connection in list(self.connections):
            connection.up.pump()
            connection.down.pump()


@define(eq=False)
class Pipe:
    """One direction of a connection."""

    schedule: Schedule
    line: Line
    upwards: bool
    delays: random.Random
    slowest: float
    codec: bool
    receiver: End = field(init=False)
    shut: bool = False
    """Nothing more goes in; what is in comes out."""
    _queue: deque[tuple[float, Item]] = field(factory=deque)
    _last: float = 0.0

    def put(self, item: Item) -> None:
        """Send a frame, or (a text) the end of the connection and why, or its beginning."""
        if self.shut:
            return
        if isinstance(item, str):
            self.shut = True
        elif self.codec and not isinstance(item, Opening | bytes):
            item = through_the_codec(item)
        delay = self.delays.uniform(0.001, self.slowest) + self.line.extra_delay
        self._last = max(self.schedule.now + delay, self._last)
        self._queue.append((self._last, item))
        self.schedule.at(self._last, self.pump)

    def pump(self) -> None:
        """Bring what is due to the receiver."""
        while self._queue and self._queue[0][0] <= self.schedule.now and not self._blocked:
            item = self._queue.popleft()[1]
            if isinstance(item, str):
                self.receiver.fail(item)
            elif isinstance(item, Opening):
                item.accept(self.receiver)
            elif self.receiver.open:
                self.receiver.take(item)

    def drop(self) -> None:
        """Lose what is on the way, and all that will be sent."""
        self._queue.clear()
        self.shut = True

    @property
    def _blocked(self) -> bool:
        return self.line.up_blocked if self.upwards else self.line.down_blocked


@define(eq=False)
class End:
    """One side of a connection."""

    owner: Owner
    label: str
    """Who is on the other side, for the transcript."""
    _out: Pipe
    peer: Peer = NO_PEER
    """What the owner's core calls it."""
    open: bool = True

    def send(self, frame: Frame) -> None:
        """Say something to the other side."""
        if self.open:
            self._out.put(frame)

    def take(self, item: Frame | bytes) -> None:
        """Bring to the owner what the other side has sent."""
        assert not isinstance(item, bytes)
        self.owner.on_frame(self, item)

    def close(self, reason: str = "closed by the other side") -> None:
        """End the connection; the owner is not told, the other side is, after what was sent."""
        self.open = False
        self._out.put(reason)

    def taken(self, count: int) -> None:
        """The other side has read so many bytes, if these are bytes."""

    def half_close(self) -> None:
        """Let the other side see the end, while we go on listening."""
        self._out.put("half closed")

    def fail(self, reason: str) -> None:
        """Let the owner learn that the connection has ended."""
        if self.open:
            self.close()
            self.owner.on_lost(self, reason)


@define(eq=False)
class Connection:
    """Two ends and what is between them."""

    schedule: Schedule
    line: Line
    delays: random.Random
    dialler: End
    listener: End
    up: Pipe
    down: Pipe

    def open(self, accept: Callable[[End], None]) -> None:
        """Let the listener have its end, as soon as word of it has come through."""
        self.up.put(Opening(accept))

    @property
    def alive(self) -> bool:
        """Whether either end still believes in it."""
        return self.dialler.open or self.listener.open

    def cut(self) -> None:
        """Break it: what is on the way is lost, and each end learns at a time of its own."""
        for pipe, end in ((self.up, self.dialler), (self.down, self.listener)):
            pipe.drop()
            self.schedule.after(self.delays.uniform(0.0, 0.3), end.fail, RESET)


MakeEnd = Callable[[Owner, str, Pipe], End]


def connect(
    schedule: Schedule,
    dialler: Owner,
    listener: Owner,
    *,
    names: tuple[str, str],
    seed: str,
    line: Line | None = None,
    slowest: float = 0.05,
    codec: bool = False,
    ends: tuple[MakeEnd, MakeEnd] | None = None,
) -> Connection:
    """Make a connection; ``slowest`` is the longest delay of a frame, in seconds."""
    line = line or Line()
    delays = random.Random(f"network-{seed}")
    up = Pipe(schedule, line, True, delays, slowest, codec)
    down = Pipe(schedule, line, False, delays, slowest, codec)
    make_here, make_there = ends or (End, End)
    here, there = make_here(dialler, names[1], up), make_there(listener, names[0], down)
    up.receiver, down.receiver = there, here
    connection = Connection(schedule, line, delays, here, there, up, down)
    line.connections = [old for old in line.connections if old.alive]
    line.connections.append(connection)
    return connection


def through_the_codec(frame: Frame) -> Frame:
    """What a frame is after it was a line of bytes. An answer's result is still to be read."""
    decoded = decode(encode(frame))
    assert not isinstance(decoded, Rejected), f"our own line was rejected: {decoded.detail}: {frame}"
    return decoded
