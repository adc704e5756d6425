"""Drives one core: a reader per connection, one flusher for when there are many, one alarm.

``dispatch`` is the door: an event goes in, effects come out and are carried out before anybody else
runs. It is synchronous on purpose: with no checkpoint between deciding and queueing, no other task can
see a core half-way, and no lock is needed. Two rules keep it true: ``_perform`` never dispatches, and a
core that has asked for ``Disconnect`` treats that peer as gone, although ``PeerLost`` comes later.
"""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from typing import Any, Protocol

import trio
from attrs import field

from loopal_cluster.config import Limits
from loopal_cluster.core.effects import Disconnect, Effect, Log, Send, Watch
from loopal_cluster.core.events import (
    DeadlineReached,
    Event,
    FrameReceived,
    Link,
    Peer,
    PeerConnected,
    PeerLost,
)
from loopal_cluster.core.exchange import Exchange
from loopal_cluster.core.parties import Standing
from loopal_cluster.errors import ErrorCode
from loopal_cluster.frames import Failure, Frame, Notification, Rejected, Request, Response
from loopal_cluster.links.admission import Admission, Place
from loopal_cluster.links.alive import SILENT, Pulse, look_again
from loopal_cluster.links.background import open_background
from loopal_cluster.links.channels import PATIENCE, FrameChannel, Inbound
from loopal_cluster.links.descriptors import share_of_descriptors
from loopal_cluster.links.greeting import what_answered
from loopal_cluster.messages import OK, Message, Opaque, Reply
from loopal_cluster.payloads import SMALL, message_bytes, payload_bytes
from loopal_cluster.records import define
from loopal_cluster.runtime.sizes import long_lines
from loopal_cluster.wire.codec import decode_result
from loopal_cluster.wire.one_pass import EVENTS

__all__ = ["Core", "Runtime", "open_runtime"]

CLOSE_TIMEOUT = 5.0
"""Seconds a peer that is hung up on has to read what was sent to it."""

FEW_CONNECTIONS = 4
"""Among so few, hardly ever two have something for a third at the same time, and to gather it would only take time."""

ENCODED_BYTES = 2**20
"""What is encoded for one peer at a time. With more bytes of unsent answers, a program or an agent is not read from."""

STRANGER_LINE_BYTES = 65536
"""The longest line of a peer that has not registered: without a token nobody makes us keep more than that."""

STRANGER_FRAMES = 64
"""Frames of a peer that has not registered, before its connection is ended: most programs need one."""


class Core(Protocol):
    """What ``HubCore`` and ``MetaHubCore`` have in common."""

    exchange: Exchange[Any]

    def handle(self, event: Event, now: float) -> list[Effect]:
        """Take in what happened; return what to do."""

    def standing(self, peer: Peer) -> Standing:
        """What kind of party a peer is."""

    def next_deadline(self) -> float | None:
        """When ``DeadlineReached`` is due."""


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


class Runtime:
    """The tasks around one core. Made by ``open_runtime``."""

    def __init__(
        self,
        core: Core,
        limits: Limits,
        nursery: trio.Nursery,
        logger: logging.Logger,
        perform: Callable[[Effect], None],
    ) -> None:
        self._core = core
        self._limits = limits
        self._nursery = nursery
        self._logger = logger
        self._perform_other = perform
        self._connections: dict[Peer, Connection] = {}
        self._last_peer = 0
        self._dirty: list[Connection] = []
        self._flusher: trio.lowlevel.Task | None = None
        """While it has nothing to do."""
        self._transcript = False
        """Every frame is logged. Asked for once a step."""
        self._alarm = trio.CancelScope()
        self._alarm_at = math.inf
        self._dispatched = trio.lowlevel.ParkingLot()
        self._pulses: dict[Peer, Pulse] = {}
        """Of the clients that have promised to be heard of."""
        self._pulse_taken = trio.lowlevel.ParkingLot()
        self._watched = 0
        """So many tasks look at the core after each step."""
        self.dropped = 0
        """Notifications dropped, of all peers there ever were."""
        self.admission = Admission(share_of_descriptors(limits.unauthenticated), logger)

    def dispatch(self, event: Event) -> None:
        """Tell the core what happened and carry out what it decides."""
        self._transcript = self._logger.isEnabledFor(logging.DEBUG)
        for effect in self._core.handle(event, trio.current_time()):
            self._perform(effect)
        self._end_step()

    def _end_step(self) -> None:
        """Once for all that happens at one time: only now the alarm, and those who wait in ``until``, are looked at."""
        deadline = self._core.next_deadline()
        if deadline is not None and deadline < self._alarm_at:
            self._alarm.deadline = self._alarm_at = deadline
        if self._watched:
            self._dispatched.unpark_all()
        if self._dirty:
            self._flush_soon()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something that the core decides has come true."""
        self._watched += 1
        try:
            while not condition():
                await self._dispatched.park()
        finally:
            self._watched -= 1

    async def serve(self, channel: FrameChannel, link: Link) -> str:
        """Run one connection from its beginning to its end; return why it ended."""
        peer = self.admit(channel)
        connection = self._connections[peer]
        reason = "the hub is closing"
        try:
            with ExitStack() as stack:
                if link is Link.ACCEPTED:
                    self._make_stranger(connection, stack)
                self.dispatch(PeerConnected(peer, link, channel.source or ""))
                reason = await self.read(peer, dialled=link is Link.UPLINK)
        finally:
            self.dismiss(peer)
            self.dispatch(PeerLost(peer, reason))
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(channel)
        return reason

    def _make_stranger(self, connection: Connection, stack: ExitStack) -> None:
        """Give it little, until it has registered."""
        connection.stranger = True
        connection.channel.limit_lines(min(STRANGER_LINE_BYTES, self._limits.line_bytes))
        if (source := connection.channel.source) is not None:

            def make_room() -> None:
                self._cut(connection, "it has not registered, and others wait")

            connection.place = stack.enter_context(self.admission.take_place(source, make_room))

    def admit(self, channel: FrameChannel) -> Peer:
        """Give a channel its peer id; from now on frames can be sent to it."""
        self._last_peer += 1
        peer = Peer(self._last_peer)
        self._connections[peer] = Connection(peer, channel)
        return peer

    def dismiss(self, peer: Peer) -> None:
        """Forget a peer; what is still queued for it is dropped."""
        connection = self._connections.pop(peer)
        connection.outbox.clear()
        self._pulses.pop(peer, None)
        connection.below_mark.unpark_all()

    async def read(self, peer: Peer, *, dialled: bool = False) -> str:
        """Bring a peer's frames to the core until the connection ends; return why it did.

        If we have ``dialled`` it, we may have dialled something else.
        """
        connection = self._connections[peer]
        reason = "closed by the other side"
        with connection.scope:
            try:
                await self._read_stranger(connection)
                standing = self._core.standing(peer)
                connection.is_link = standing is Standing.HUB
                line_bytes = self._limits.line_bytes
                connection.channel.limit_lines(line_bytes, long_lines(standing, line_bytes))
                if dialled:
                    await self._read_first(connection)
                while True:
                    frames = await connection.channel.receive()
                    while frames := self._on_frames(connection, frames):
                        # What it reads meanwhile must not keep the others waiting.
                        await trio.lowlevel.checkpoint()
                        await self._wait_for_reader(connection)
                    await self._wait_for_reader(connection)
            except trio.EndOfChannel:
                pass
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                reason = f"broken connection ({error})" if str(error) else "broken connection"
        return connection.hang_up_reason or reason

    async def _read_first(self, connection: Connection) -> None:
        """What a MetaHub says first is a frame."""
        try:
            received = await connection.channel.receive_one()
        except trio.EndOfChannel:
            self._cut(connection, "it was closed before it was answered: is that a MetaHub?")
            return
        if isinstance(received[0], Rejected):
            answered = what_answered(connection.channel.greeting)
            self._cut(connection, f"what answers there is no MetaHub, but {answered}")
        else:
            self._on_frames(connection, received)

    async def _wait_for_reader(self, connection: Connection) -> None:
        """Do not read from a peer that asks and does not read.

        Only answers count. In bytes, those to a program or an agent: these read in any case, or have only themselves
        to blame. Not those to a hub: two hubs that send each other much would both stop reading, each until
        the other one reads. There only more answers count than a peer of ours ever waits for; and what they
        have in bytes is bounded in ``_bounded``.
        """
        limit = self._limits.requests_per_peer
        while connection.answers > limit or (
            not connection.is_link and connection.answer_bytes > ENCODED_BYTES
        ):
            await connection.below_mark.park()

    async def _read_stranger(self, connection: Connection) -> None:
        """Bring frames to the core one by one until the peer has registered; it must read what it is answered."""
        frames = 0
        while connection.stranger:
            if frames >= STRANGER_FRAMES:
                self._cut(connection, "it does not register")
            while connection.outbox or connection.congested or connection.hang_up_reason is not None:
                await connection.below_mark.park()
            received = await connection.channel.receive_one()
            async with self._turn(connection):
                self._on_frames(connection, received)
            frames += len(received)

    @asynccontextmanager
    async def _turn(self, connection: Connection) -> AsyncIterator[None]:
        """A block in which a token may be looked at. Whoever hangs up while it waits for that waits no more."""
        if (place := connection.place) is None:
            yield
            return

        async def watch() -> None:
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await connection.channel.ended()
            self._cut(connection, "closed by the other side")

        async with open_background() as nursery:
            if place.must_wait:
                nursery.start_soon(watch)
            async with place.turn():
                nursery.cancel_scope.cancel()
                yield

    def _cut(self, connection: Connection, reason: str) -> None:
        """End a connection now, whatever is queued for it."""
        connection.hang_up_reason = reason
        connection.scope.cancel()

    def _refuse_token(self, connection: Connection, reason: str) -> None:
        """Hang up, but not at once: who guesses is to wait. Until then nothing is sent to it, or read from it."""
        if (place := connection.place) is None:
            self.hang_up(connection.peer, reason)
            return
        connection.hang_up_reason = reason
        answers, connection.outbox = connection.outbox, []
        delay = place.wrong_token()

        async def refuse() -> None:
            await place.wait(delay)
            connection.outbox = answers
            self.hang_up(connection.peer, reason)
            self._flush_soon()

        self._nursery.start_soon(refuse)

    def hang_up(self, peer: Peer, reason: str) -> None:
        """End a peer's connection after what is queued for it has been sent."""
        if (connection := self._connections.get(peer)) is not None:
            connection.hang_up_reason = reason
            connection.scope.deadline = trio.current_time() + CLOSE_TIMEOUT
            self._mark_dirty(connection)

    def _on_frames(self, connection: Connection, frames: Sequence[Inbound]) -> Sequence[Inbound]:
        """Bring a peer's frames to the core, each when what follows from those before has been done.

        Return those for which it is to wait until the peer has read.
        """
        peer, now, handle = connection.peer, trio.current_time(), self._core.handle
        call_of = self._core.exchange.calls.find
        self._transcript = self._logger.isEnabledFor(logging.DEBUG)
        left: Sequence[Inbound] = ()
        for number, frame in enumerate(frames, 1):
            if isinstance(frame, Response):
                # The call table knows what was asked, hence what the answer should look like.
                if (
                    call := call_of(peer, frame.id)
                ) is not None:  # else it has come too late; the core counts it
                    frame = decode_result(frame, expected_by_hub(call.message))
            elif isinstance(frame, Rejected):
                self._on_rejected(connection, frame)
                continue
            if self._transcript:
                self._logger.debug("%d> %s", peer, brief(frame))
            for effect in handle(FrameReceived(peer, frame), now):
                self._perform(effect)
            if connection.answer_bytes > ENCODED_BYTES and not connection.is_link:
                left = frames[number:]
                break
        self._end_step()
        return left

    def _on_rejected(self, connection: Connection, line: Rejected) -> None:
        self._logger.info("peer %d: rejected a line: %s", connection.peer, line.detail)
        if line.answer:
            self._queue(connection, line, 0)

    def _perform(self, effect: Effect) -> None:
        match effect:
            case Send():
                if (connection := self._connections.get(effect.peer)) is not None:
                    self._queue(connection, effect.frame, effect.size)
            case Disconnect(peer, reason):
                if effect.wrong_token and peer in self._connections:
                    self._refuse_token(self._connections[peer], reason)
                else:
                    self.hang_up(peer, reason)
                self._perform_other(effect)
            case Watch(peer, pings):
                self._watch(peer, pings)
            case Log(level, text):
                self._logger.log(logging.getLevelName(level), text)
            case _:
                self._perform_other(effect)

    def _queue(self, connection: Connection, frame: Frame | Rejected, size: int) -> None:
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
        if self._transcript and not isinstance(frame, Rejected):
            self._logger.debug(">%d %s", connection.peer, brief(frame))
        connection.unsent_bytes += size
        outbox.append(frame)  # type: ignore[arg-type]  # the codec encodes Rejected as the answer to it
        if not connection.dirty:
            self._mark_dirty(connection)

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

    def _mark_dirty(self, connection: Connection) -> None:
        if not connection.dirty and not connection.congested:
            connection.dirty = True
            self._dirty.append(connection)

    def _flush_soon(self) -> None:
        """Write what is queued: among few connections at once, among many when all that are ready have been read."""
        if len(self._connections) <= FEW_CONNECTIONS:
            self._flush_all()
        elif self._flusher is not None:
            trio.lowlevel.reschedule(self._flusher)
            self._flusher = None

    async def _flush_forever(self) -> None:
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
        self._mark_dirty(connection)
        self._flush_soon()

    def _watch(self, peer: Peer, pings: bool) -> None:
        if (connection := self._connections.get(peer)) is None:
            return
        connection.channel.be_patient(PATIENCE)
        # One on this machine cannot vanish, and may be stopped for a while, or look at its pager.
        if pings and connection.channel.can_vanish:
            self._pulses[peer] = Pulse(connection.channel)
            self._pulse_taken.unpark_all()

    async def _watch_forever(self) -> None:
        """End the connections of clients of which nothing shows any more that they are there."""
        while True:
            while not self._pulses:
                await self._pulse_taken.park()
            forgiven = await look_again()
            for peer in [peer for peer, pulse in self._pulses.items() if pulse.is_silent(forgiven)]:
                del self._pulses[peer]
                self._connections[peer].hang_up_reason = SILENT
                self._connections[peer].scope.cancel()

    async def _ring_forever(self) -> None:
        while True:
            deadline = self._core.next_deadline()
            self._alarm_at = math.inf if deadline is None else deadline
            with trio.CancelScope(deadline=self._alarm_at) as self._alarm:
                await trio.sleep_forever()
            self.dispatch(DeadlineReached())


@asynccontextmanager
async def open_runtime(
    core: Core,
    limits: Limits,
    logger: logging.Logger,
    perform: Callable[[Effect], None],
) -> AsyncIterator[Runtime]:
    """Run a core's flusher and alarm around the block. ``perform`` does what is not for a connection."""
    async with open_background() as nursery:
        runtime = Runtime(core, limits, nursery, logger, perform)
        nursery.start_soon(runtime._flush_forever)
        nursery.start_soon(runtime._ring_forever)
        nursery.start_soon(runtime.admission.report_forever)
        nursery.start_soon(runtime._watch_forever)
        yield runtime


def frame_bytes(frame: Frame | Rejected) -> int:
    """About how long a frame's line will be, if what it says makes it long."""
    if isinstance(frame, Response):
        return 0 if frame.result is OK else payload_bytes(frame.result)
    return message_bytes(frame.message) if isinstance(frame, (Request, Notification)) else 0


def expected_by_hub(message: Message[Any]) -> Any:
    """How to read the answer to a hub's or a MetaHub's request. A reply is for whoever asked: it is passed on unread."""
    return None if message.result is Reply else message.result


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
