"""JSON-RPC 2.0 over lines: one side of a talk with a program, in which both sides ask.

Notifications are handled in the reader's own step, in order, and before the answer that follows them is
given to whoever waits for it; requests run in tasks. Nothing that the program writes makes us hold more than a
bound: what is no message is skipped and only its end remembered, and who does not read its answers is not
read from.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import trio

from loopal_cluster.errors import ClusterError, ProtocolError
from loopal_cluster.links.background import open_background
from loopal_cluster.wire.contents import DEPTH, TooDeep, dump, parse
from loopal_cluster.wire.framing import PREFIX_BYTES, LineBuffer, Oversized
from loopal_cluster.wire.jsonrpc import CANCELLED, INVALID_REQUEST

__all__ = ["Answer", "PeerGone", "Refused", "RpcPeer", "open_peer"]

LINE_BYTES = 16 * 2**20
"""The longest line, as at a hub: some programs write six bytes for a letter that is no ASCII."""
OPEN_REQUESTS = 64
"""Requests of the other side that may be open at one time."""
HIGH_WATER = 2**20
"""Above so many unsent bytes, the other side is not read from: it does not read."""
NOISE_LINES, NOISE_CHARACTERS = 20, 200
"""So much is kept of what was no message."""
FLUSH_TIMEOUT = 0.5
"""Seconds that the other side has, at the end of the block, to take what is still to be sent."""

_UPDATE = re.compile(rb'"method"\s*:\s*"session/update"')

Handler = Callable[[str, Any], Awaitable[Any]]
"""Answers a request: its method, its parameters; raises ``Refused``."""
Listener = Callable[[str, Any], None]
"""Hears a notification."""


class Refused(ClusterError):
    """An answer that says no, of either side."""

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        super().__init__(message if data is None else f"{message}: {_short(data)}")
        self.code = code
        self.message = message
        self.data = data


class PeerGone(ClusterError):
    """The other side has ended, or broken the protocol, while its answer was waited for."""


class Answer:
    """What the other side will say to a request. It may be waited for more than once."""

    def __init__(self) -> None:
        self.settled = trio.Event()
        self.result: Any = None
        self.error: ClusterError | None = None

    async def wait(self) -> Any:
        """The result.

        Raises:
            Refused: the other side said no.
            PeerGone: it ended first.
        """
        await self.settled.wait()
        if self.error is not None:
            raise self.error
        return self.result

    def settle(self, result: Any, error: ClusterError | None = None) -> None:
        """It is known."""
        self.result, self.error = result, error
        self.settled.set()


class RpcPeer:
    """The other side; made by ``open_peer``."""

    def __init__(
        self,
        sender: trio.abc.SendStream,
        on_request: Handler,
        on_notification: Listener,
        line_bytes: int,
    ) -> None:
        self._sender = sender
        self._on_request = on_request
        self._on_notification = on_notification
        self._nursery: trio.Nursery  # while ``_run`` runs
        self._ids = count(1)
        self._asked: dict[int, Answer] = {}
        self._answering: dict[int | str, trio.CancelScope] = {}
        self._lines = LineBuffer(line_bytes)
        self._unsent = bytearray()
        self._is_deaf = False
        """Whether the other side has closed its input, and is still read from."""
        self._to_send = trio.lowlevel.ParkingLot()
        self._sent = trio.lowlevel.ParkingLot()
        self.noise: deque[str] = deque(maxlen=NOISE_LINES)
        """The last lines that were no messages, shortened: banners, warnings."""
        self.closed = trio.Event()
        """Set when the talk has ended."""
        self.lost: str | None = None
        """Why it has."""

    def ask(self, method: str, params: Mapping[str, Any]) -> Answer:
        """Send a request; its answer can be waited for."""
        answer = Answer()
        if self.lost is not None:
            answer.settle(None, PeerGone(self.lost))
            return answer
        request_id = next(self._ids)
        self._asked[request_id] = answer
        self._send({"id": request_id, "method": method, "params": params})
        return answer

    async def call(self, method: str, params: Mapping[str, Any]) -> Any:
        """Send a request and wait for its result; raises as ``Answer.wait``.

        If we are cancelled, the other side is told that nobody waits any more.
        """
        answer = self.ask(method, params)
        try:
            return await answer.wait()
        finally:
            if not answer.settled.is_set():
                self._withdraw(answer)

    def _withdraw(self, answer: Answer) -> None:
        [request_id] = [number for number, asked in self._asked.items() if asked is answer]
        del self._asked[request_id]
        self.notify("$/cancel_request", {"requestId": request_id})

    def notify(self, method: str, params: Mapping[str, Any]) -> None:
        """Send a notification. It is dropped if the talk has ended."""
        self._send({"method": method, "params": params})

    def _send(self, message: Mapping[str, Any]) -> None:
        if self.lost is None and not self._is_deaf:
            self._unsent += dump({"jsonrpc": "2.0", **message}) + b"\n"
            self._to_send.unpark()

    # The two tasks.

    async def _run(
        self, receiver: trio.abc.ReceiveStream, task_status: trio.TaskStatus[trio.CancelScope]
    ) -> None:
        # Shielded, because a block that is cancelled may still have something to say: that a turn shall end.
        try:
            async with trio.open_nursery() as nursery:
                nursery.cancel_scope.shield = True
                self._nursery = nursery
                nursery.start_soon(self._write_forever)
                nursery.start_soon(self._read_forever, receiver)
                task_status.started(nursery.cancel_scope)
        finally:
            self._end("closed on this side")

    async def _write_forever(self) -> None:
        try:
            while True:
                while not self._unsent:
                    self._sent.unpark_all()
                    await self._to_send.park()
                # It counts as unsent until it is: whoever flushes waits for that.
                data = bytes(self._unsent)
                await self._sender.send_all(data)
                del self._unsent[: len(data)]
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            # Whether it has also ended, and how, its output says.
            self._is_deaf = True
            self._unsent.clear()
            self._sent.unpark_all()

    async def _read_forever(self, receiver: trio.abc.ReceiveStream) -> None:
        reason = "it closed its standard output"
        try:
            async for chunk in receiver:
                for line in self._lines.feed(bytes(chunk)):
                    self._on_line(line)
                while len(self._unsent) > HIGH_WATER:
                    await self._sent.park()
            if (last := self._lines.close()) is not None:
                self._on_line(last)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            reason = "the pipe to it broke"
        except PeerGone as error:
            reason = str(error)
        self._end(reason)

    async def flush(self) -> None:
        """Wait until everything has been handed to the transport, or never will be."""
        while self._unsent and self.lost is None:
            await self._sent.park()

    def _end(self, reason: str) -> None:
        if self.lost is not None:
            return
        self.lost = reason
        self.closed.set()
        self._sent.unpark_all()
        for answer in self._asked.values():
            answer.settle(None, PeerGone(reason))
        self._asked.clear()
        for scope in self._answering.values():
            scope.cancel()

    # What is said to us.

    def _on_line(self, line: bytes | Oversized) -> None:
        if isinstance(line, Oversized):
            self._on_unusable(line.prefix, f"a line of more than {self._lines.max_bytes} bytes")
            return
        try:
            message = _parse(line)
        except TooDeep:
            self._on_unusable(line, f"a line that is nested more than {DEPTH} times")
            return
        match message:
            case {"method": str(method), "id": int() | str() as request_id, **rest}:
                self._on_asked(request_id, method, rest.get("params"))
            case {"method": "$/cancel_request", "params": {"requestId": int() | str() as request_id}}:
                if request_id in self._answering:
                    self._answering[request_id].cancel()
            case {"method": str(method), **rest}:
                self._on_notification(method, rest.get("params"))
            case {"id": int(request_id), "error": error}:
                self._on_answer(request_id, None, _refusal(error))
            case {"id": int(request_id), "result": result}:
                self._on_answer(request_id, result, None)
            case {"jsonrpc": _}:
                pass  # a message all the same: an answer to nothing that we asked
            case _:
                self.noise.append(line.decode("utf-8", "replace")[:NOISE_CHARACTERS])

    def _on_unusable(self, begin: bytes, what: str) -> None:
        # One report more or less changes nothing, unless it is the answer itself; any other message is one that
        # somebody waits for.
        begin = begin[:PREFIX_BYTES]
        if not _UPDATE.search(begin) or b'"agent_message_chunk"' in begin:
            raise PeerGone(f"it wrote {what}")

    def _on_answer(self, request_id: int, result: Any, error: Refused | None) -> None:
        if (answer := self._asked.pop(request_id, None)) is not None:
            answer.settle(result, error)

    def _on_asked(self, request_id: int | str, method: str, params: Any) -> None:
        if request_id in self._answering:
            self._refuse(request_id, Refused(INVALID_REQUEST, "a request with this id is open already"))
        elif len(self._answering) >= OPEN_REQUESTS:
            self._refuse(request_id, Refused(INVALID_REQUEST, f"{OPEN_REQUESTS} requests are open already"))
        else:
            scope = self._answering[request_id] = trio.CancelScope()
            self._nursery.start_soon(self._answer, request_id, method, params, scope)

    async def _answer(self, request_id: int | str, method: str, params: Any, scope: trio.CancelScope) -> None:
        try:
            with scope:
                self._send({"id": request_id, "result": await self._on_request(method, params)})
            if scope.cancelled_caught:
                self._refuse(request_id, Refused(CANCELLED, "cancelled"))
        except Refused as error:
            self._refuse(request_id, error)
        finally:
            del self._answering[request_id]

    def _refuse(self, request_id: int | str, error: Refused) -> None:
        data = {} if error.data is None else {"data": error.data}
        self._send({"id": request_id, "error": {"code": error.code, "message": error.message, **data}})


def _parse(line: bytes) -> Any:
    """The JSON value of a line, or None if there is none.

    Raises:
        TooDeep: it is nested too deeply to be passed on.
    """
    if not line.startswith(b"{"):
        return None
    try:
        return parse(line)
    except TooDeep:
        raise
    except ProtocolError:
        pass
    # Half of a surrogate pair, from a program that has cut a text in the wrong place: ours is stricter
    # than most parsers of JSON.
    try:
        return parse(dump(json.loads(line.decode("utf-8", "replace"))))
    except RecursionError:
        raise TooDeep from None
    except ValueError:
        return None


def _refusal(error: Any) -> Refused:
    match error:
        case {"code": int(code), "message": str(message), **rest}:
            return Refused(code, message or f"error {code}", rest.get("data"))
        case _:
            return Refused(0, f"an error without words: {_short(error)}")


def _short(data: Any) -> str:
    text = data if isinstance(data, str) else dump(data).decode()
    return text if len(text) <= 300 else f"{text[:300]}..."


@asynccontextmanager
async def open_peer(
    receiver: trio.abc.ReceiveStream,
    sender: trio.abc.SendStream,
    on_request: Handler,
    on_notification: Listener,
    *,
    line_bytes: int = LINE_BYTES,
) -> AsyncIterator[RpcPeer]:
    """Talk for the length of the block. The streams are not closed: whoever made them does that."""
    async with open_background() as background:
        peer = RpcPeer(sender, on_request, on_notification, line_bytes)
        # Cancelled in here, we would leave the tasks, which are shielded, without anybody who can end them.
        with trio.CancelScope(shield=True):
            tasks = await background.start(peer._run, receiver)
        try:
            yield peer
        finally:
            with trio.move_on_after(FLUSH_TIMEOUT, shield=True):
                await peer.flush()
            tasks.cancel()
