"""What waits to be written to each connection: an outbox each, and one flusher for when there are many.

Frames are encoded when they are written, and no more at a time than a peer takes. A peer that does not read loses
notifications first; then it is not read from any more; an outbox that is full all the same ends its connection.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

import trio
from attrs import field

from loopal_cluster.config import Limits
from loopal_cluster.core.events import Peer
from loopal_cluster.errors import ErrorCode
from loopal_cluster.frames import Failure, Frame, Notification, Rejected, Request, Response
from loopal_cluster.links.admission import Place
from loopal_cluster.links.channels import FrameChannel
from loopal_cluster.message_sizes import SMALL, message_bytes, payload_bytes
from loopal_cluster.messages import OK, Opaque
from loopal_cluster.records import define
from loopal_cluster.wire.one_pass import EVENTS

__all__ = ["ENCODED_BYTES", "Connection", "Outboxes", "brief"]

FEW_CONNECTIONS = 4
"""Among so few, hardly ever two have something for a third at the same time, and to gather it would only take time."""

ENCODED_BYTES = 2**20
"""What is encoded for one peer at a time. With more bytes of unsent answers, a program or an agent is not read from."""


@define(eq=False)
class Connection:
    """A peer's channel, and its outbox: the frames that wait for the next flush."""

    peer: Peer
    channel: FrameChannel
    outbox: list[Frame] = field(factory=list)
    answers: int = 0
    """So many of them are answers."""
    answer_bytes: int = 0
    """So many bytes, about, these have that are large."""
    unsent_bytes: int = 0
    """The same of all frames."""
    is_link: bool = False
    """The other side is a hub or a MetaHub, which stops reading, too, when we do not read."""
    event_bytes: int = 0
    """So many bytes of them are the payloads of events."""
    dirty: bool = False
    """It is in the list of those to be flushed."""
    congested: bool = False
    """The transport has enough for now; a task waits until it is drained."""
    dropped: int = 0
    """Notifications dropped because the peer reads too slowly."""
    stranger: bool = False
    """It has not been answered yes yet; a core does so first to its registration."""
    place: Place | None = None
    """Where it is until then, unless it comes from this process."""
    hang_up_reason: str | None = None
    scope: trio.CancelScope = field(factory=trio.CancelScope)
    """Its reader's."""
    below_mark: trio.lowlevel.ParkingLot = field(factory=trio.lowlevel.ParkingLot)

    @property
    def is_delayed(self) -> bool:
        """Whether it has to wait for what is to be its last answer."""
        return self.place is not None and self.place.is_delayed


class Outboxes:
    """Writes what is queued for the connections of one host."""

    def __init__(
        self,
        connections: Mapping[Peer, Connection],
        limits: Limits,
        nursery: trio.Nursery,
        logger: logging.Logger,
    ) -> None:
        self._connections = connections
        self._limits = limits
        self._nursery = nursery
        self._logger = logger
        self._dirty: list[Connection] = []
        self._flusher: trio.lowlevel.Task | None = None
        """While it has nothing to do."""
        self.transcript = False
        """Every frame is logged. Asked for once a step."""
        self.dropped = 0
        """Notifications dropped, of all peers there ever were."""

    def queue(self, connection: Connection, frame: Frame | Rejected, size: int) -> None:
        """Queue a frame of about so many bytes, if the peer may have it."""
        outbox = connection.outbox
        if size > SMALL:
            frame, size = self._bounded(connection, frame, size)
        if len(outbox) >= self._limits.high_water and self._refused(connection, frame):
            return
        if isinstance(frame, Notification):
            if connection.event_bytes >= self._limits.high_water_bytes:
                self._drop(connection)
                return
            if isinstance(frame.message, EVENTS):
                connection.event_bytes += size  # which is that of its payload
        elif frame.id is not None and not isinstance(frame, Request):
            connection.answers += 1
            if connection.stranger and isinstance(frame, Response):
                connection.stranger = False
                if connection.place is not None:
                    connection.place.leave()
        if self.transcript and not isinstance(frame, Rejected):
            self._logger.debug(">%d %s", connection.peer, brief(frame))
        connection.unsent_bytes += size
        outbox.append(frame)  # type: ignore[arg-type]  # the codec encodes Rejected as the answer to it
        if not connection.dirty:
            self.mark(connection)

    def _bounded(
        self, connection: Connection, frame: Frame | Rejected, size: int
    ) -> tuple[Frame | Rejected, int]:
        """A large frame for a peer, or what it is told instead, because it does not read what it has asked for."""
        if not isinstance(frame, Response):
            return frame, size
        if connection.answer_bytes >= self._limits.answer_bytes:
            detail = f"{connection.answer_bytes} bytes of answers wait for you to read them"
            # A reply, which nobody here reads, was worked on; all else can be asked again.
            unread = isinstance(frame.result, Opaque)
            code = ErrorCode.CONNECTION_LOST if unread else ErrorCode.OVERLOADED
            return Failure(frame.id, code, detail), 0
        connection.answer_bytes += size
        return frame, size

    def _refused(self, connection: Connection, frame: Frame | Rejected) -> bool:
        """Whether one more frame is too much for the outbox of a slow peer."""
        # Nobody waits for either. Who prints much else than messages would otherwise not be read from any more,
        # and write for ever.
        if isinstance(frame, Notification) or frame.id is None:
            self._drop(connection)
            return True
        if len(connection.outbox) < self._limits.outbox_frames:
            return False
        # Limits proves that answers and calls fit; only requests that we had to reject could get here.
        connection.scope.cancel()
        connection.hang_up_reason = "its outbox is full"
        return True

    def _drop(self, connection: Connection) -> None:
        connection.dropped += 1
        self.dropped += 1

    def mark(self, connection: Connection) -> None:
        """Write to this connection at the end of the step, even if it is only that it ends."""
        if not connection.dirty and not connection.congested:
            connection.dirty = True
            self._dirty.append(connection)

    def flush_soon(self) -> None:
        """Write what is queued: among few connections at once, among many when all that are ready have been read."""
        if not self._dirty:
            return
        if len(self._connections) <= FEW_CONNECTIONS:
            self._flush_all()
        elif self._flusher is not None:
            trio.lowlevel.reschedule(self._flusher)
            self._flusher = None

    async def flush_forever(self) -> None:
        """Once per scheduler tick, write what all the readers of that tick have queued."""
        while True:
            if not self._dirty:
                self._flusher = trio.lowlevel.current_task()
                await trio.lowlevel.wait_task_rescheduled(self._abort_flusher)
            self._flush_all()

    def _flush_all(self) -> None:
        dirty, self._dirty = self._dirty, []
        for connection in dirty:
            connection.dirty = False
            self._flush(connection)

    def _abort_flusher(self, _: object) -> trio.lowlevel.Abort:
        self._flusher = None
        return trio.lowlevel.Abort.SUCCEEDED

    def _flush(self, connection: Connection) -> None:
        if self._connections.get(connection.peer) is not connection:
            return
        frames = connection.outbox
        if frames:
            is_slow = connection.answers > self._limits.requests_per_peer or connection.stranger
            if connection.unsent_bytes > ENCODED_BYTES:
                frames = self._take_some(connection)
                is_slow = True
            else:
                connection.outbox, connection.answers, connection.event_bytes = [], 0, 0
                connection.answer_bytes = connection.unsent_bytes = 0
            if is_slow:
                connection.below_mark.unpark_all()
            if not connection.channel.send_nowait(frames) or connection.outbox:
                connection.congested = True
                self._nursery.start_soon(self._drain, connection)
                return
        if connection.hang_up_reason is not None and not connection.is_delayed:
            connection.scope.cancel()

    def _take_some(self, connection: Connection) -> list[Frame]:
        """Of much that is unsent, take so much as is to be encoded at a time; the rest stays as it is."""
        outbox, taken = connection.outbox, 0
        for count, frame in enumerate(outbox):
            size = frame_bytes(frame)
            if count and taken + size > ENCODED_BYTES:
                break
            taken += size
            if isinstance(frame, Response | Failure):
                connection.answers -= 1
                if isinstance(frame, Response) and size > SMALL:
                    connection.answer_bytes -= size
            elif isinstance(frame, Notification) and isinstance(frame.message, EVENTS):
                connection.event_bytes -= payload_bytes(frame.message.payload)
        else:
            count = len(outbox)
        connection.unsent_bytes -= taken
        connection.outbox = outbox[count:]
        return outbox[:count]

    async def _drain(self, connection: Connection) -> None:
        await trio.lowlevel.checkpoint()  # what is encoded for one peer must not keep the others waiting
        try:
            await connection.channel.drained()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            connection.scope.cancel()
            return
        connection.congested = False
        if connection.stranger:
            connection.below_mark.unpark_all()
        self.mark(connection)
        self.flush_soon()


def frame_bytes(frame: Frame | Rejected) -> int:
    """About how long a frame's line will be, if what it says makes it long."""
    if isinstance(frame, Response):
        return 0 if frame.result is OK else payload_bytes(frame.result)
    return message_bytes(frame.message) if isinstance(frame, (Request, Notification)) else 0


def brief(frame: Frame) -> str:
    """A frame for the transcript: what it is, never what it says."""
    match frame:
        case Request(id_, message):
            return f"request {id_} {message.method}"
        case Notification(message):
            return f"notification {message.method}"
        case Response(id_):
            return f"response {id_}"
        case Failure(id_, code, detail):
            return f"failure {id_} {code.value}: {detail}"
