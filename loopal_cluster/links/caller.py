"""One party's end of a connection: it asks and is asked.

``HubCore`` and ``MetaHubCore`` decide between many parties; a client and an agent are only one, and
plain ``await`` reads straighter for that. ``Caller`` matches answers to questions and lets a handler answer
what it is asked, at once or later (``OpenRequest``). It writes at once if little goes on, and else once for all
that tasks send in their turns.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import trio

from loopal_cluster.errors import ConnectionLost, ErrorCode, RemoteError, remote_error
from loopal_cluster.frames import Failure, Frame, Notification, Rejected, Request, Response
from loopal_cluster.links.background import open_background
from loopal_cluster.links.channels import FrameChannel, Inbound
from loopal_cluster.links.greeting import what_answered
from loopal_cluster.messages import CancelRequest, Message, Progress
from loopal_cluster.records import define
from loopal_cluster.wire.codec import decode_result

__all__ = ["Caller", "OpenRequest", "open_caller"]

R = TypeVar("R")

OFFERS = 4096
"""Unsent frames above which what is only offered is dropped."""

FEW_REQUESTS = 4
"""With so few open ones, it is not worth a turn of the scheduler to gather what is to be sent."""

FLUSH_TIMEOUT = 1.0
"""Seconds that the other side has, at the end of the block, to take what is still to be sent."""


@define(eq=False)
class OpenRequest:
    """A request of the other side, until it is answered, or nobody waits for that any more."""

    id: int
    """The one that the other side has given it."""
    _caller: Caller
    on_withdrawn: Callable[[], None] = lambda: None
    """Called if nobody waits any more: it was withdrawn, or the connection has ended."""
    is_open: bool = True
    """Whether it has not been answered, and somebody still waits for that."""

    def of(self, caller: Caller) -> bool:
        """Whether it has come over this connection."""
        return self._caller is caller

    def answer(self, result: Any) -> None:
        """Answer yes. Only the first answer counts, and only while somebody waits."""
        if self.is_open:
            self._caller._answer(self, Response(self.id, result))

    def refuse(self, error: RemoteError) -> None:
        """Answer no."""
        if self.is_open:
            self._caller._answer(self, Failure(self.id, error.code, error.detail))

    def answer_later(self, work: Callable[[], Awaitable[Any]]) -> None:
        """Answer with what an async function returns, which is cancelled if nobody waits any more."""
        scope = trio.CancelScope()
        self.on_withdrawn = scope.cancel
        self._caller._nursery.start_soon(self._answer_with, work, scope)

    def progress(self) -> None:
        """Say that it is being worked on."""
        if self.is_open:
            self._caller.notify(Progress(self.id))

    async def _answer_with(self, work: Callable[[], Awaitable[Any]], scope: trio.CancelScope) -> None:
        try:
            with scope:
                self.answer(await work())
        except RemoteError as error:
            self.refuse(error)


OnRequest = Callable[[Message[Any], OpenRequest], Any]
"""Returns the result record, or None if it will be answered later; raises ``RemoteError`` to refuse."""
OnNotification = Callable[[Message[Any]], None]


@define(eq=False)
class _Pending:
    """A request of ours, and the task that waits for its answer.

    Not a ``trio.Event``, which every call would have to make: one task waits, and it is woken once.
    """

    message: Message[Any]
    on_progress: Callable[[], None]
    answer: Response | Failure | None = None
    _waiter: trio.lowlevel.Task | None = None

    async def wait(self) -> None:
        """Wait until there is an answer, or never will be."""
        self._waiter = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(self._abort)

    def wake(self) -> None:
        """There is an answer, or never will be."""
        if (waiter := self._waiter) is not None:
            self._waiter = None
            trio.lowlevel.reschedule(waiter)

    def _abort(self, _: object) -> trio.lowlevel.Abort:
        self._waiter = None
        return trio.lowlevel.Abort.SUCCEEDED


class Caller:
    """Made by ``open_caller``."""

    def __init__(
        self,
        channel: FrameChannel,
        on_request: OnRequest,
        on_notification: OnNotification,
        *,
        dialled: bool = False,
    ) -> None:
        self._dialled = dialled
        self._channel = channel
        self._nursery: trio.Nursery  # while ``_run`` runs
        self._on_request = on_request
        self._on_notification = on_notification
        self._last_id = 0
        self._pending: dict[int, _Pending] = {}
        self._open: dict[int, OpenRequest] = {}
        self._unsent: list[Frame | Rejected] = []
        self._congested = False
        """The transport has enough for now."""
        self._flush_wanted = trio.lowlevel.ParkingLot()
        self._flushed = trio.lowlevel.ParkingLot()
        self._lost: str | None = None
        self.closed = trio.Event()
        """Set when the connection has ended."""

    async def call(self, message: Message[R], on_progress: Callable[[], None] = lambda: None) -> R:
        """Send a request and wait for its answer; ``on_progress`` is called when that is said to be near.

        There is no timeout of our own: use ``trio.fail_after``. If cancelled, the other side is told
        that nobody waits any more; it may still carry the request out.

        Raises:
            RemoteError: the other side refused; ``error.code`` says why.
            ConnectionLost: the link ended first; the request may or may not have been carried out.
        """
        if self._lost is not None:
            raise ConnectionLost(self._lost)
        self._last_id += 1
        request_id = self._last_id
        pending = self._pending[request_id] = _Pending(message, on_progress)
        try:
            self._send(Request(request_id, message))
            await pending.wait()
        finally:
            del self._pending[request_id]
            if pending.answer is None:
                self._send(Notification(CancelRequest(request_id)))
        if pending.answer is None:
            raise ConnectionLost(self._lost or "connection lost")
        if isinstance(pending.answer, Failure):
            raise remote_error(pending.answer.code, pending.answer.detail)
        result: R = pending.answer.result
        return result

    def notify(self, message: Message[None]) -> None:
        """Send a notification. It is dropped if the connection has ended."""
        self._send(Notification(message))

    def offer(self, message: Message[None]) -> None:
        """Send a notification that is worth less than a full queue: then it is dropped."""
        if len(self._unsent) < OFFERS:
            self.notify(message)

    async def flush(self) -> None:
        """Wait until everything has been handed to the transport, or the connection has ended."""
        while (self._unsent or self._congested) and self._lost is None:
            await self._flushed.park()

    def _send(self, frame: Frame | Rejected) -> None:
        """Write it at once if little else goes on, and else together with what other tasks send in their turns."""
        if self._lost is not None:
            return
        self._unsent.append(frame)
        if len(self._unsent) == 1 and not self._congested:
            if len(self._pending) + len(self._open) <= FEW_REQUESTS:
                self._flush()
            if self._unsent or self._congested:
                self._flush_wanted.unpark()

    def _flush(self) -> None:
        frames, self._unsent = self._unsent, []
        self._congested = not self._channel.send_nowait(frames)

    async def _run(self, task_status: trio.TaskStatus[trio.CancelScope]) -> None:
        """Read and write until the scope that we start with is cancelled, and by nothing else.

        Shielded, because a block that is cancelled may still have something to say: that an agent it
        was starting shall be stopped. Without a reader and a writer nobody would hear it or answer.
        """
        try:
            async with open_background() as nursery:
                nursery.cancel_scope.shield = True
                self._nursery = nursery
                nursery.start_soon(self._flush_forever)
                nursery.start_soon(self._read_forever)
                task_status.started(nursery.cancel_scope)
                await trio.sleep_forever()
        finally:
            self.end("closed on this side")

    async def _flush_forever(self) -> None:
        try:
            while True:
                if self._congested:
                    await self._channel.drained()
                    self._congested = False
                elif self._unsent:
                    self._flush()
                else:
                    self._flushed.unpark_all()
                    await self._flush_wanted.park()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self.end("broken connection")

    async def _read_forever(self) -> None:
        reason = "closed by the other side"
        try:
            if self._dialled:
                received = await self._channel.receive_one()
                if isinstance(received[0], Rejected):
                    self.end(f"what answers there is no hub, but {what_answered(self._channel.greeting)}")
                    return
                for frame in received:
                    self._on_frame(frame)
            async for frames in self._channel:
                for frame in frames:
                    self._on_frame(frame)
        except trio.EndOfChannel:
            pass
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            reason = f"broken connection ({error})" if str(error) else "broken connection"
        self.end(reason)

    @property
    def lost(self) -> str | None:
        """Why the connection has ended, in words; None while it has not."""
        return self._lost

    def end(self, reason: str) -> None:
        """Take the connection for ended: whoever waits is told, and nothing more is sent."""
        if self._lost is not None:
            return
        self._lost = f"connection lost: {reason}"
        self.closed.set()
        self._flushed.unpark_all()
        for pending in self._pending.values():
            pending.wake()
        for request in [*self._open.values()]:
            self._withdraw(request)

    def _on_frame(self, frame: Inbound) -> None:
        match frame:
            case Request():
                self._on_request_frame(frame)
            case Response() | Failure():
                self._on_answer(frame)
            case Notification(CancelRequest(request_id)):
                if (request := self._open.get(request_id)) is not None:
                    self._withdraw(request)
            case Notification(Progress(request_id)):
                if request_id in self._pending:
                    self._pending[request_id].on_progress()
            case Notification(message):
                self._on_notification(message)
            case Rejected():
                if frame.answer:
                    self._send(frame)

    def _on_answer(self, answer: Response | Failure) -> None:
        pending = self._pending.get(answer.id)
        if pending is None or pending.answer is not None:
            return
        if isinstance(answer, Response):
            answer = decode_result(answer, pending.message.result)
        pending.answer = answer
        pending.wake()

    def _on_request_frame(self, frame: Request) -> None:
        if frame.id in self._open:
            detail = f"request {frame.id} is already open"
            self._send(Failure(frame.id, ErrorCode.INVALID_REQUEST, detail))
            return
        request = self._open[frame.id] = OpenRequest(frame.id, self)
        try:
            result = self._on_request(frame.message, request)
        except RemoteError as error:
            request.refuse(error)
        else:
            if result is not None:
                request.answer(result)

    def _answer(self, request: OpenRequest, answer: Response | Failure) -> None:
        request.is_open = False
        del self._open[request.id]
        self._send(answer)

    def _withdraw(self, request: OpenRequest) -> None:
        request.refuse(RemoteError("cancelled by its caller", ErrorCode.CANCELLED))
        request.on_withdrawn()


@asynccontextmanager
async def open_caller(
    channel: FrameChannel,
    on_request: OnRequest,
    on_notification: OnNotification,
    *,
    dialled: bool = False,
) -> AsyncIterator[Caller]:
    """Talk over a channel for the length of the block, then close it.

    If we have ``dialled`` it, we may have dialled something else, whose first words are no frame.

    ``on_request`` and ``on_notification`` are called in the reader's own step, in the order of what comes, and
    must not block: what takes longer is answered later (``OpenRequest``).
    """
    async with open_background() as background:
        caller = Caller(channel, on_request, on_notification, dialled=dialled)
        # Cancelled in here, we would leave the tasks without anybody who can end them.
        with trio.CancelScope(shield=True):
            tasks = await background.start(caller._run)
        try:
            yield caller
        finally:
            with trio.move_on_after(FLUSH_TIMEOUT, shield=True):
                await caller.flush()
            tasks.cancel()
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(channel)
