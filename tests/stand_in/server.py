"""A model's provider on this machine: HTTP/1.1 on loopback in front of ``script.py``.

``open_stand_in`` runs it for a block, ``python -m tests.stand_in`` until Ctrl-C. Every request is kept, for tests
to look at. Whoever hangs up is heard at once, also in the middle of an answer.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import h11
import trio
from attrs import define, field

from . import anthropic, chat, responses
from .script import Asked, Hang, next_move

__all__ = ["StandIn", "open_stand_in"]

BODY_BYTES = 2**24
"""What an agent may send at once: whole conversations, with the descriptions of all its tools."""

APIS: dict[str, Any] = {
    "/v1/messages": anthropic,
    "/v1/chat/completions": chat,
    "/v1/responses": responses,
}


@define(eq=False)
class StandIn:
    """A provider that runs."""

    url: str = ""
    """``http://127.0.0.1:PORT``, without the ``/v1`` that OpenAI's clients want at the end."""
    requests: list[Asked] = field(factory=list)
    """What it was asked, in order; those that offered no tools left out."""
    bodies: list[dict[str, Any]] = field(factory=list)
    """The same, word for word."""
    hanging: int = 0
    """Answers that have begun and will not end."""
    changed: trio.lowlevel.ParkingLot = field(factory=trio.lowlevel.ParkingLot)

    async def until_hanging(self, count: int = 1) -> None:
        """Wait until so many answers hang."""
        while self.hanging != count:
            await self.changed.park()


@asynccontextmanager
async def open_stand_in(port: int = 0) -> AsyncIterator[StandIn]:
    """Be a model's provider for the length of the block."""
    stand_in = StandIn()
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(
            partial(trio.serve_tcp, partial(_serve, stand_in), port, host="127.0.0.1")
        )
        stand_in.url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        yield stand_in
        nursery.cancel_scope.cancel()


async def _serve(stand_in: StandIn, stream: trio.SocketStream) -> None:
    """One connection, which may bring many requests."""
    http = h11.Connection(h11.SERVER)
    with suppress(trio.BrokenResourceError, h11.RemoteProtocolError):
        async with stream:
            while http.our_state is h11.IDLE and (request := await _request(http, stream)) is not None:
                await _answer(stand_in, http, stream, *request)
                if http.our_state is http.their_state is h11.DONE:
                    http.start_next_cycle()


async def _request(http: h11.Connection, stream: trio.SocketStream) -> tuple[str, str, bytes] | None:
    """The next request: method, path and body; None if there is none."""
    method = path = ""
    body = b""
    while True:
        match http.next_event():
            case h11.NEED_DATA:
                if http.they_are_waiting_for_100_continue:
                    await _send(http, stream, h11.InformationalResponse(status_code=100, headers=[]))
                http.receive_data(await stream.receive_some(65536))
            case h11.Request() as request:
                method, path = request.method.decode(), request.target.decode().partition("?")[0]
            case h11.Data() as data:
                body += data.data
                if len(body) > BODY_BYTES:
                    raise h11.RemoteProtocolError("the body is too long", 413)
            case h11.EndOfMessage():
                return method, path, body
            case _:
                return None


async def _answer(
    stand_in: StandIn, http: h11.Connection, stream: trio.SocketStream, method: str, path: str, body: bytes
) -> None:
    api = APIS.get(path)
    if path == "/v1/messages/count_tokens":
        await _send_document(http, stream, 200, {"input_tokens": 1000})
    elif method == "HEAD":  # somebody looks whether we are there at all
        await _send(http, stream, _head(200, "text/plain"))
        await _send(http, stream, h11.EndOfMessage())
    elif method != "POST" or api is None:
        error = {"type": "not_found_error", "message": f"no {method} {path} here"}
        await _send_document(http, stream, 404, {"type": "error", "error": error})
    else:
        await _answer_model(stand_in, api, http, stream, json.loads(body))


async def _answer_model(
    stand_in: StandIn, api: Any, http: h11.Connection, stream: trio.SocketStream, body: dict[str, Any]
) -> None:
    asked = api.read(body)
    move = next_move(asked)
    if asked.tools:
        stand_in.requests.append(asked)
        stand_in.bodies.append(body)
    number = len(stand_in.requests)
    if not body.get("stream"):
        await _send_document(http, stream, 200, api.whole(move, number))
        return
    await _send(http, stream, _head(200, "text/event-stream"))
    for event in api.stream(move, number):
        await _send(http, stream, h11.Data(data=event))
    if isinstance(move, Hang):
        await _hang(stand_in, stream)
    else:
        await _send(http, stream, h11.EndOfMessage())


async def _hang(stand_in: StandIn, stream: trio.SocketStream) -> None:
    """Say no more until the other side has gone; it has nothing to send before we have ended."""
    stand_in.hanging += 1
    stand_in.changed.unpark_all()
    try:
        with suppress(trio.BrokenResourceError):
            await stream.receive_some(1)
    finally:
        stand_in.hanging -= 1
        stand_in.changed.unpark_all()
    raise trio.BrokenResourceError("the answer was given up")


async def _send_document(http: h11.Connection, stream: trio.SocketStream, status: int, document: Any) -> None:
    await _send(http, stream, _head(status, "application/json"))
    await _send(http, stream, h11.Data(data=json.dumps(document).encode()))
    await _send(http, stream, h11.EndOfMessage())


def _head(status: int, kind: str) -> h11.Response:
    return h11.Response(status_code=status, headers=[("content-type", kind)])


async def _send(http: h11.Connection, stream: trio.SocketStream, event: h11.Event) -> None:
    if data := http.send(event):
        await stream.send_all(data)
