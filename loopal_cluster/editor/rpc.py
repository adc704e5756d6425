"""JSON-RPC 2.0, a line a message, between two that both may ask.

``open_peer`` reads and writes for the length of a block. Notifications are handled in the reader's own step, in
their order; each request has a task, which ``$/cancel_request`` cancels. A line that is no message is answered
with an error and changes nothing else. Source: jsonrpc.org/specification.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import trio
from attrs import define, field

from loopal_cluster.errors import ClusterError, ConnectionLost
from loopal_cluster.runtime.background import open_background
from loopal_cluster.wire.framing import LineBuffer, Oversized

__all__ = [
    "CANCELLED",
    "INTERNAL_ERROR",
    "INVALID_PARAMS",
    "INVALID_REQUEST",
    "METHOD_NOT_FOUND",
    "PARSE_ERROR",
    "Params",
    "Peer",
    "RpcError",
    "open_peer",
]

PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
INTERNAL_ERROR: Final = -32603
CANCELLED: Final = -32800
"""The Agent Client Protocol's own: the request was withdrawn."""

LINE_BYTES = 2**24
"""The longest message that is read: a prompt with whole files in it."""
UNSENT = 1000
"""Messages that wait to be written, above which ``drained`` waits."""
FLUSH_TIMEOUT = 1.0
"""Seconds that the other side has, at the end of the block, to take what is still to be sent."""

Params = dict[str, Any]
"""What a message carries."""
OnRequest = Callable[[str, Params], Awaitable[Any]]
OnNotification = Callable[[str, Params], None]


class RpcError(ClusterError):
    """An answer that says no."""

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        super().__init__(message)
        self.code = code
        self.data = data


@define(eq=False)
class _Pending:
    answered: trio.Event = field(factory=trio.Event)
    result: Any = None
    error: ClusterError | None = None


class Peer:
    """The other side. Made by ``open_peer``."""

    def __init__(
        self,
        receiver: trio.abc.ReceiveStream,
        sender: trio.abc.SendStream,
        on_request: OnRequest,
        on_notification: OnNotification,
    ) -> None:
        self._receiver = receiver
        self._sender = sender
        self._on_request = on_request
        self._on_notification = on_notification
        self._last_id = 0
        self._pending: dict[int, _Pending] = {}
        self._answering: dict[str | int, trio.CancelScope] = {}
        self._unsent: list[bytes] = []
        self._wanted = trio.lowlevel.ParkingLot()
        self._written = trio.lowlevel.ParkingLot()
        self._nursery: trio.Nursery  # while ``_run`` runs
        self.ended = trio.Event()
        """Set when the other side has closed its end, or the connection is broken."""

    async def call(self, method: str, params: Params) -> Any:
        """Ask, and wait for the answer. If we are cancelled, the other side is told that nobody waits.

        Raises:
            RpcError: the answer says no.
            ConnectionLost: the other side has gone.
        """
        if self.ended.is_set():
            raise ConnectionLost("the other side has gone")
        self._last_id += 1
        request_id = self._last_id
        pending = self._pending[request_id] = _Pending()
        self._send({"id": request_id, "method": method, "params": params})
        try:
            await pending.answered.wait()
        finally:
            del self._pending[request_id]
            if not pending.answered.is_set():
                self.notify("$/cancel_request", {"requestId": request_id})
        if pending.error is not None:
            raise pending.error
        return pending.result

    def notify(self, method: str, params: Params) -> None:
        """Say something that has no answer. It is dropped if the other side has gone."""
        self._send({"method": method, "params": params})

    async def drained(self, left: int = UNSENT) -> None:
        """Wait until no more than so many messages are unsent, or the other side has gone."""
        while len(self._unsent) > left and not self.ended.is_set():
            await self._written.park()

    def _send(self, message: Params) -> None:
        if not self.ended.is_set():
            # ASCII, so that half a character of a model's text can neither break a line nor be refused.
            self._unsent.append(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")
            self._wanted.unpark_all()

    async def _run(self, task_status: trio.TaskStatus[trio.CancelScope]) -> None:
        with trio.CancelScope(shield=True) as scope:  # a block that is cancelled may have last words
            async with trio.open_nursery() as self._nursery:
                self._nursery.start_soon(self._write)
                task_status.started(scope)
                await self._read()
                self._end()
                self._nursery.cancel_scope.cancel()

    async def _write(self) -> None:
        while True:
            while not self._unsent:
                await self._wanted.park()
            batch = self._unsent.copy()
            try:
                await self._sender.send_all(b"".join(batch))
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                self._end()
                return
            del self._unsent[: len(batch)]
            self._written.unpark_all()

    async def _read(self) -> None:
        lines = LineBuffer(LINE_BYTES)
        try:
            async for data in self._receiver:
                for line in lines.feed(bytes(data)):
                    self._on_line(line)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return
        if (last := lines.close()) is not None:
            self._on_line(last)

    def _end(self) -> None:
        self.ended.set()
        for pending in self._pending.values():
            if not pending.answered.is_set():
                pending.error = ConnectionLost("the other side has gone")
                pending.answered.set()
        self._written.unpark_all()

    # What comes in.

    def _on_line(self, line: bytes | Oversized) -> None:
        if isinstance(line, Oversized):
            self._send(_refusal(None, RpcError(INVALID_REQUEST, f"a line is longer than {LINE_BYTES} bytes")))
            return
        try:
            message = json.loads(line)
        except (ValueError, RecursionError) as error:
            self._send(_refusal(None, RpcError(PARSE_ERROR, f"not JSON: {error}")))
            return
        match message:
            case {"method": str(method), "id": str() | int() as request_id}:
                scope = self._answering[request_id] = (
                    trio.CancelScope()
                )  # may be withdrawn before it has begun
                self._nursery.start_soon(self._answer, scope, request_id, method, message.get("params"))
            case {"method": "$/cancel_request", "params": {"requestId": str() | int() as request_id}}:
                if (answering := self._answering.get(request_id)) is not None:
                    answering.cancel()
            case {"method": str(method)} if "id" not in message and isinstance(
                params := message.get("params") or {}, dict
            ):
                self._on_notification(method, params)
            case {"id": int(request_id)} if "result" in message or "error" in message:
                self._on_answer(request_id, message)
            case {"id": None, "error": _}:
                pass  # the other side could not read something of ours, and cannot say what
            case _:
                self._send(_refusal(None, RpcError(INVALID_REQUEST, "neither a request nor an answer")))

    def _on_answer(self, request_id: int, message: Params) -> None:
        pending = self._pending.get(request_id)
        if pending is None or pending.answered.is_set():
            return  # withdrawn
        match message.get("error"):
            case None:
                pending.result = message["result"]
            case {"code": int(code), "message": str(words), **rest}:
                pending.error = RpcError(code, words, rest.get("data"))
            case error:
                pending.error = RpcError(INTERNAL_ERROR, f"an error of a wrong shape: {error}"[:200])
        pending.answered.set()

    async def _answer(self, scope: trio.CancelScope, request_id: str | int, method: str, params: Any) -> None:
        answer: Params | None = None
        with scope:
            try:
                if not isinstance(params, dict | None):
                    raise RpcError(INVALID_PARAMS, f"{method}: params must be an object")
                answer = {"id": request_id, "result": await self._on_request(method, params or {})}
            except RpcError as error:
                answer = _refusal(request_id, error)
            finally:
                self._answering.pop(request_id, None)
        self._send(answer or _refusal(request_id, RpcError(CANCELLED, "cancelled")))


def _refusal(request_id: str | int | None, error: RpcError) -> Params:
    data = {} if error.data is None else {"data": error.data}
    return {"id": request_id, "error": {"code": error.code, "message": str(error)} | data}


@asynccontextmanager
async def open_peer(
    receiver: trio.abc.ReceiveStream,
    sender: trio.abc.SendStream,
    on_request: OnRequest,
    on_notification: OnNotification,
) -> AsyncIterator[Peer]:
    """Talk over a pair of streams for the length of the block; closing them is the caller's.

    ``on_request`` raises ``RpcError`` to refuse; ``on_notification`` must not block.
    """
    async with open_background() as background:
        peer = Peer(receiver, sender, on_request, on_notification)
        scope = await background.start(peer._run)
        try:
            yield peer
        finally:
            with trio.move_on_after(FLUSH_TIMEOUT, shield=True):
                await peer.drained(0)
            scope.cancel()
