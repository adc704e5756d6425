"""MCP over a pair of streams: one message a line, both ways (the protocol's "stdio" transport).

The reader is the program; each call of a tool is a task. When the client's output ends, so do its calls:
nobody is there to hear what comes of them. A client that does not read is not read from.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import trio

from loopal_cluster.config import Limits
from loopal_cluster.links.background import open_background
from loopal_cluster.mcp_server.session import Answer, Call, Session, ToolServer, failure
from loopal_cluster.wire.contents import dump
from loopal_cluster.wire.framing import LineBuffer, Oversized
from loopal_cluster.wire.jsonrpc import INVALID_REQUEST

__all__ = ["serve_lines"]

CHUNK = 65536
"""Bytes read at once."""
UNSENT = 64
"""Answers that may wait to be written; then the client must read before we do."""
FLUSH_TIMEOUT = 1.0
"""Seconds that a client which has gone has to take its last answers."""


async def serve_lines(
    receive: trio.abc.ReceiveStream,
    send: trio.abc.SendStream,
    server: ToolServer,
    *,
    begin: bytes = b"",
    on_client: Callable[[str], None] = lambda name: None,
) -> None:
    """Be the server of one client until its stream ends.

    ``begin`` is what has been read already; ``on_client`` is told what the client calls itself.
    """
    put, answers = trio.open_memory_channel[Answer](UNSENT)

    def offer(message: Answer) -> None:
        with suppress(trio.WouldBlock, trio.BrokenResourceError):
            put.send_nowait(message)

    reading = trio.CancelScope()
    async with trio.open_nursery() as writing:
        writing.start_soon(_write, answers, send, reading)
        with put, reading:
            await _read(receive, Session(server, offer), put, begin, on_client)
        writing.cancel_scope.deadline = trio.current_time() + FLUSH_TIMEOUT


async def _read(
    receive: trio.abc.ReceiveStream,
    session: Session,
    put: trio.MemorySendChannel[Answer],
    data: bytes,
    on_client: Callable[[str], None],
) -> None:
    lines = LineBuffer(Limits().line_bytes)
    async with open_background() as calls:
        data = data or await _receive(receive)
        while data:
            for line in lines.feed(data):
                answer = _take(session, line)
                if isinstance(answer, Call):
                    calls.start_soon(_run, answer, put)
                elif answer is not None:
                    await put.send(answer)
                if session.client is not None:
                    on_client(session.client)
            data = await _receive(receive)


def _take(session: Session, line: bytes | Oversized) -> Answer | Call | None:
    if isinstance(line, Oversized):
        return failure(None, INVALID_REQUEST, f"a message of more than {Limits().line_bytes} bytes")
    return session.take(line)


async def _receive(stream: trio.abc.ReceiveStream) -> bytes:
    """What comes next; nothing, if the other end has closed or broken it."""
    try:
        return bytes(await stream.receive_some(CHUNK))
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        return b""


async def _run(call: Call, put: trio.MemorySendChannel[Answer]) -> None:
    if (answer := await call.run()) is not None:
        await put.send(answer)


async def _write(
    answers: trio.MemoryReceiveChannel[Answer], send: trio.abc.SendStream, reading: trio.CancelScope
) -> None:
    """Write to the end; if nobody reads any more, that is the end of everything."""
    with answers:
        try:
            async for answer in answers:
                await send.send_all(dump(answer) + b"\n")
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            reading.cancel()
