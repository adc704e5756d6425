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
from loopal_cluster.frames import Rejected, Response
from loopal_cluster.links.admission import Admission
from loopal_cluster.links.alive import SILENT, Pulse, look_again
from loopal_cluster.links.background import open_background
from loopal_cluster.links.channels import FrameChannel, Inbound
from loopal_cluster.links.descriptors import share_of_descriptors
from loopal_cluster.links.greeting import what_answered
from loopal_cluster.links.sockets import PATIENCE
from loopal_cluster.messages import Message, Reply
from loopal_cluster.runtime.outbox import ENCODED_BYTES, Connection, Outboxes, brief
from loopal_cluster.runtime.sizes import long_lines
from loopal_cluster.wire.codec import decode_result

__all__ = ["Core", "Runtime", "open_runtime"]

CLOSE_TIMEOUT = 5.0
"""Seconds a peer that is hung up on has to read what was sent to it."""

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
        self.outboxes = Outboxes(self._connections, limits, nursery, logger)
        self._alarm = trio.CancelScope()
        self._alarm_at = math.inf
        self._dispatched = trio.lowlevel.ParkingLot()
        self._pulses: dict[Peer, Pulse] = {}
        """Of the clients that have promised to be heard of."""
        self._pulse_taken = trio.lowlevel.ParkingLot()
        self._watched = 0
        """So many tasks look at the core after each step."""
        self.admission = Admission(share_of_descriptors(limits.unauthenticated), logger)

    def dispatch(self, event: Event) -> None:
        """Tell the core what happened and carry out what it decides."""
        self.outboxes.transcript = self._logger.isEnabledFor(logging.DEBUG)
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
        self.outboxes.flush_soon()

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
            self.outboxes.flush_soon()

        self._nursery.start_soon(refuse)

    def hang_up(self, peer: Peer, reason: str) -> None:
        """End a peer's connection after what is queued for it has been sent."""
        if (connection := self._connections.get(peer)) is not None:
            connection.hang_up_reason = reason
            connection.scope.deadline = trio.current_time() + CLOSE_TIMEOUT
            self.outboxes.mark(connection)

    def _on_frames(self, connection: Connection, frames: Sequence[Inbound]) -> Sequence[Inbound]:
        """Bring a peer's frames to the core, each when what follows from those before has been done.

        Return those for which it is to wait until the peer has read.
        """
        peer, now, handle = connection.peer, trio.current_time(), self._core.handle
        call_of = self._core.exchange.calls.find
        self.outboxes.transcript = self._logger.isEnabledFor(logging.DEBUG)
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
            if self.outboxes.transcript:
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
            self.outboxes.queue(connection, line, 0)

    def _perform(self, effect: Effect) -> None:
        match effect:
            case Send():
                if (connection := self._connections.get(effect.peer)) is not None:
                    self.outboxes.queue(connection, effect.frame, effect.size)
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
        nursery.start_soon(runtime.outboxes.flush_forever)
        nursery.start_soon(runtime._ring_forever)
        nursery.start_soon(runtime.admission.report_forever)
        nursery.start_soon(runtime._watch_forever)
        yield runtime


def expected_by_hub(message: Message[Any]) -> Any:
    """How to read the answer to a hub's or a MetaHub's request. A reply is for whoever asked: it is passed on unread."""
    return None if message.result is Reply else message.result
