"""One party's end of a connection: it asks and is asked.

``HubCore`` and ``MetaHubCore`` decide between many parties; a client and an agent are only one, and
plain ``await`` reads straighter for that. ``Caller`` matches answers to questions, answers what it is
asked by a handler, and writes once per wake-up.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import trio
from attrs import field

from loopal_cluster.errors import ConnectionLost, ErrorCode, RemoteError, remote_error
from loopal_cluster.frames import Failure, Frame, Letter, Notification, Rejected, Request, Response
from loopal_cluster.messages import CancelRequest, Message, Progress
from loopal_cluster.records import define
from loopal_cluster.runtime.background import open_background
from loopal_cluster.runtime.channels import FrameChannel, Inbound
from loopal_cluster.wire.codec import decode_result

__all__ = ["Caller", "open_caller"]

R = TypeVar("R")

OFFERS = 4096
"""Unsent frames above which what is only offered is dropped."""

FLUSH_TIMEOUT = 1.0
"""Seconds that the other side has, at the end of the block, to take what is still to be sent."""

OnRequest = Callable[[Message[Any], int], Awaitable[Any]]
OnNotification = Callable[[Message[Any]], None]


@define(eq=False)
class _Pending:
    message: Message[Any]
    on_progress: Callable[[], None]
    answered: trio.Event = field(factory=trio.Event)
    answer: Response | Failure | None = None


class Caller:
    """Made by ``open_caller``."""

    def __init__(
        self,
        channel: FrameChannel,
        on_request: OnRequest,
        on_notification: OnNotification,
    ) -> None:
        self._channel = channel
        self._nursery: trio.Nursery  # while ``_run`` runs
        self._on_request = on_request
        self._on_notification = on_notification
        self._last_id = 0
        self._pending: dict[int, _Pending] = {}
        self._answering: dict[int, trio.CancelScope] = {}
        self._last_begun = trio.Event()  # set when the newest request has begun to be handled
        self._last_begun.set()
        self._unsent: list[Frame | Rejected] = []
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
        self._send(Request(request_id, message))
        try:
            await pending.answered.wait()
        finally:
            del self._pending[request_id]
            if not pending.answered.is_set():
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
        while self._unsent and self._lost is None:
            await self._flushed.park()

    def _send(self, frame: Frame | Rejected) -> None:
        if self._lost is None:
            self._unsent.append(frame)
            if len(self._unsent) == 1:
                self._flush_wanted.unpark()

    async def _run(self, task_status: trio.TaskStatus[trio.CancelScope]) -> None:
        """Read and write until the scope that we start with is cancelled, and by nothing else.

        Shielded, because a block that is cancelled may still have something to say: that an agent it
        was starting shall be stopped. Without a reader and a writer nobody would hear it or answer.
        """
        try:
            async with trio.open_nursery() as nursery:
                nursery.cancel_scope.shield = True
                self._nursery = nursery
                nursery.start_soon(self._flush_forever)
                nursery.start_soon(self._read_forever)
                task_status.started(nursery.cancel_scope)
        finally:
            self._end("closed on this side")

    async def _flush_forever(self) -> None:
        try:
            while True:
                if not self._unsent:
                    self._flushed.unpark_all()
                    await self._flush_wanted.park()
                frames = self._unsent.copy()
                if not self._channel.send_nowait(frames):
                    await self._channel.drained()
                del self._unsent[: len(frames)]
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._end("broken connection")

    async def _read_forever(self) -> None:
        reason = "closed by the other side"
        try:
            async for frames in self._channel:
                for frame in frames:
                    self._on_frame(frame)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            reason = f"broken connection ({error})" if str(error) else "broken connection"
        self._end(reason)

    def _end(self, reason: str) -> None:
        if self._lost is not None:
            return
        self._lost = f"connection lost: {reason}"
        self.closed.set()
        self._flushed.unpark_all()
        for pending in self._pending.values():
            pending.answered.set()
        for scope in self._answering.values():
            scope.cancel()

    def _on_frame(self, frame: Inbound) -> None:
        match frame:
            case Request(request_id) if request_id in self._answering:
                detail = f"request {request_id} is already open"
                self._send(Failure(request_id, ErrorCode.INVALID_REQUEST, detail))
            case Request(request_id, message):
                scope = self._answering[request_id] = trio.CancelScope()
                previous, self._last_begun = self._last_begun, trio.Event()
                begun = self._last_begun
                self._nursery.start_soon(self._answer, request_id, message, scope, previous, begun)
            case Notification(CancelRequest(request_id)):
                if request_id in self._answering:
                    self._answering[request_id].cancel()
            case Notification(Progress(request_id)):
                if request_id in self._pending:
                    self._pending[request_id].on_progress()
            case Notification(message):
                self._on_notification(message)
            case Response() | Failure():
                self._on_answer(frame)
            case Rejected():
                if frame.answer:
                    self._send(frame)
            case Letter():
                raise AssertionError("only a MetaHub leaves letters sealed")

    def _on_answer(self, answer: Response | Failure) -> None:
        pending = self._pending.get(answer.id)
        if pending is None or pending.answered.is_set():
            return
        if isinstance(answer, Response):
            answer = decode_result(answer, pending.message.result)
        pending.answer = answer
        pending.answered.set()

    async def _answer(
        self,
        request_id: int,
        message: Message[Any],
        scope: trio.CancelScope,
        previous: trio.Event,
        begun: trio.Event,
    ) -> None:
        # trio runs tasks that are ready together in any order, but messages must not change theirs.
        if not previous.is_set():
            await previous.wait()
        begun.set()  # the next task runs no earlier than when this one first waits
        answer: Response | Failure = Failure(request_id, ErrorCode.CANCELLED, "cancelled by its caller")
        try:
            with scope:
                answer = Response(request_id, await self._on_request(message, request_id))
        except RemoteError as error:
            answer = Failure(request_id, error.code, error.detail)
        finally:
            del self._answering[request_id]
        self._send(answer)


@asynccontextmanager
async def open_caller(
    channel: FrameChannel, on_request: OnRequest, on_notification: OnNotification
) -> AsyncIterator[Caller]:
    """Talk over a channel for the length of the block, then close it.

    ``on_request`` runs in a task per request, which it gets with its id, and returns the result record, or
    raises ``RemoteError`` to refuse. ``on_notification`` is called in the reader's own step and must not block.
    """
    async with open_background() as background:
        caller = Caller(channel, on_request, on_notification)
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
