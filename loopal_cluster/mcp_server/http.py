"""MCP over HTTP/1.1 on loopback (the protocol's "streamable HTTP" transport), on h11.

Who a caller is, its bearer token says, for each request anew, and nothing else of a request is kept before that
is known. Answers are plain JSON, never event streams: we
have nothing to say that was not asked for. A caller that closes its connection withdraws its request, for the
answer could not reach it any more; so does ``notifications/cancelled``, within a session.

On h11, which is HTTP without a transport, as our cores are: a web framework and its server would be larger
than all that they carry here.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from http import HTTPStatus
from typing import Final

import h11
import trio

from loopal_cluster.links.background import open_background
from loopal_cluster.mcp_server.entrance import Entrance
from loopal_cluster.mcp_server.guests import Guest, Room
from loopal_cluster.mcp_server.session import VERSIONS, Answer, Call, Session, failure
from loopal_cluster.records import record
from loopal_cluster.wire.contents import dump

__all__ = ["FindGuest", "serve_http"]

PATH: Final = "/mcp"
CHUNK: Final = 65536
"""Bytes read at once."""
FIRST_CHUNK: Final = 4096
"""The same, of somebody whose token is not known yet."""
HEADER_BYTES: Final = 16384
BODY_BYTES: Final = 4 * 2**20
"""A prompt of a megabyte is a large one."""
PIPELINED_BYTES: Final = 65536
"""Bytes that a caller may send ahead of the answer it waits for."""
IDLE_TIMEOUT: Final = 300.0
"""Seconds between two requests of a connection whose token is known."""
REQUEST_TIMEOUT: Final = 60.0
"""Seconds for the rest of its request to come, and for an answer to be taken."""
STRANGER_TIMEOUT: Final = 10.0
"""Seconds for a connection to show a token that is known, from its beginning: saying little does not help it."""
UNSUPPORTED_VERSION: Final = -32022
"""JSON-RPC code of later versions of the protocol; their clients fall back to one of ours."""

FindGuest = Callable[[str], Guest | None]
"""Who has this token."""


@record
class _Reply:
    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


async def serve_http(
    stream: trio.abc.Stream, find_guest: FindGuest, hosts: frozenset[str], entrance: Entrance
) -> None:
    """Serve one connection until it ends. ``hosts`` is what we may be called: ``127.0.0.1:PORT``, ..."""
    async with stream:
        connection = _Connection(stream, find_guest, hosts, entrance)
        try:
            while await connection.serve_request():
                pass
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
            pass  # the caller has gone, or might as well


class _Refused(Exception):
    def __init__(self, status: int, text: str, *headers: tuple[str, str]) -> None:
        super().__init__(text)
        self.reply = _Reply(status, f"{text}\n".encode(), (("Content-Type", "text/plain"), *headers))


class _Connection:
    def __init__(
        self, stream: trio.abc.Stream, find_guest: FindGuest, hosts: frozenset[str], entrance: Entrance
    ) -> None:
        self._stream = stream
        self._find_guest = find_guest
        self._hosts = hosts
        self._entrance = entrance
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=HEADER_BYTES)
        self._stranger_until = trio.current_time() + STRANGER_TIMEOUT
        self._is_head = False
        """Whether the answer must have no body, whatever its length would be."""

    async def serve_request(self) -> bool:
        """Answer the next request; whether another may follow.

        Raises:
            TooSlowError: it did not come, or its answer was not taken, in time.
            BrokenResourceError: the caller has gone.
        """
        was_known = self._entrance.is_known
        try:
            with self._limit(IDLE_TIMEOUT):
                request = await self._next()
            if not isinstance(request, h11.Request):
                return False  # closed in peace
            self._is_head = request.method == b"HEAD"
            reply = await self._answer(request)
        except h11.RemoteProtocolError as error:
            reply = _Refused(error.error_status_hint, f"not HTTP: {error}").reply
        except _Refused as refused:
            reply = refused.reply
        if self._http.our_state is h11.ERROR:
            return False
        with self._limit(REQUEST_TIMEOUT):
            await self._send(reply)
        if self._http.states != {h11.CLIENT: h11.DONE, h11.SERVER: h11.DONE}:
            return False
        self._http.start_next_cycle()
        return was_known or self._entrance.is_known or reply.status != 401

    def _limit(self, seconds: float) -> AbstractContextManager[trio.CancelScope]:
        """So long for one step of somebody who is known; a stranger has no more than all its time."""
        return trio.fail_after(seconds) if self._entrance.is_known else trio.fail_at(self._stranger_until)

    async def _answer(self, request: h11.Request) -> _Reply:
        """Look at who asks before anything of what is asked is kept."""
        headers = {name.decode(): value.decode("latin-1") for name, value in request.headers}
        refused = None
        try:
            guest = await self._check(request, headers)
        except _Refused as error:
            refused = error
        if refused is not None:
            with self._limit(REQUEST_TIMEOUT):
                await self._skip_body()
            raise refused
        self._entrance.let_in(guest)
        with self._entrance.work(), guest.room_for_bodies() as room:
            with self._limit(REQUEST_TIMEOUT):
                body = await self._body(room)
            return await self._reply(guest, request, headers, body)

    async def _next(self) -> object:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            if self._http.they_are_waiting_for_100_continue:
                go_on = h11.InformationalResponse(status_code=100, headers=[])
                await self._stream.send_all(self._http.send(go_on) or b"")
            chunk = CHUNK if self._entrance.is_known else FIRST_CHUNK
            self._http.receive_data(bytes(await self._stream.receive_some(chunk)))
        return event

    async def _body(self, room: Room) -> bytes:
        body = bytearray()
        while isinstance(event := await self._next(), h11.Data):
            body += event.data
            if len(body) > BODY_BYTES:
                raise _Refused(413, f"a body of more than {BODY_BYTES} bytes")
            if not room.take(len(event.data)):
                raise _Refused(429, "too much at one time: wait for the answer to a request")
        return bytes(body)

    async def _skip_body(self) -> None:
        """Read what nobody looks at: most callers read no answer before they have said all."""
        skipped = 0
        while skipped <= BODY_BYTES and not self._http.they_are_waiting_for_100_continue:
            if not isinstance(event := await self._next(), h11.Data):
                break
            skipped += len(event.data)

    async def _send(self, reply: _Reply) -> None:
        headers = [("Content-Length", str(len(reply.body))), ("Cache-Control", "no-store"), *reply.headers]
        reason = HTTPStatus(reply.status).phrase
        response = h11.Response(status_code=reply.status, headers=headers, reason=reason)
        pieces = [self._http.send(response)]
        if reply.body and not self._is_head:
            pieces.append(self._http.send(h11.Data(data=reply.body)))
        pieces.append(self._http.send(h11.EndOfMessage()))
        await self._stream.send_all(b"".join(piece or b"" for piece in pieces))

    # What is asked.

    async def _reply(
        self, guest: Guest, request: h11.Request, headers: Mapping[str, str], body: bytes
    ) -> _Reply:
        method = request.method.decode()
        if method == "DELETE":
            guest.end_session(_session_of(guest, headers))
            return _Reply(204)
        if method != "POST":
            raise _Refused(
                405, "only POST and DELETE: there are no event streams here", ("Allow", "POST, DELETE")
            )
        if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise _Refused(415, "Content-Type: expected application/json")
        version = headers.get("mcp-protocol-version", VERSIONS[0])
        if version not in VERSIONS:
            data = {"supported": list(VERSIONS), "requested": version}
            text = f"protocol version {version[:80]!r} is not spoken here, only {', '.join(VERSIONS)}"
            return _json(400, failure(None, UNSUPPORTED_VERSION, text, data))
        return await self._post(guest, headers, body)

    async def _check(self, request: h11.Request, headers: Mapping[str, str]) -> Guest:
        # A page in a browser can be made to resolve its own name to 127.0.0.1: these two tell it from a program.
        if headers.get("host", "") not in self._hosts:
            raise _Refused(403, "Host: not the name of this server")
        origin = headers.get("origin")
        if origin is not None and origin.removeprefix("http://") not in self._hosts:
            raise _Refused(403, "Origin: not this server")
        if request.target.decode().partition("?")[0] != PATH:
            raise _Refused(404, f"only {PATH} is here")
        scheme, _, token = headers.get("authorization", "").partition(" ")
        guest = self._find_guest(token.strip()) if scheme.lower() == "bearer" else None
        if guest is None:
            if token:
                await self._entrance.refuse()
            what = "is not known (any more)" if token else "is missing"
            raise _Refused(401, f"the bearer token {what}", ("WWW-Authenticate", 'Bearer realm="loopal"'))
        return guest

    async def _post(self, guest: Guest, headers: Mapping[str, str], body: bytes) -> _Reply:
        if "mcp-session-id" in headers:
            session_id, session = "", guest.sessions[_session_of(guest, headers)]
        else:
            session_id, session = secrets.token_urlsafe(16), Session(guest.server)
        if guest.is_crowded:
            raise _Refused(429, "too many calls at one time: wait for one of them")
        answer = session.take(body)
        if session_id and session.client is not None:  # it has been initialized with this
            guest.begin_session(session_id, session)
            return _json(200, answer, ("Mcp-Session-Id", session_id))
        if isinstance(answer, Call):
            return await self._run(guest, answer)
        return _Reply(202) if answer is None else _json(200, answer)

    async def _run(self, guest: Guest, call: Call) -> _Reply:
        answer: Answer | None = None
        with guest.visit():
            async with open_background() as nursery:
                nursery.start_soon(self._watch, call.scope)
                answer = await call.run()
        return _Reply(202) if answer is None else _json(200, answer)  # HTTP's way to say that none will come

    async def _watch(self, call: trio.CancelScope) -> None:
        """Withdraw a call whose caller has closed its connection."""
        ahead = 0
        with suppress(trio.BrokenResourceError):
            while ahead <= PIPELINED_BYTES and (data := bytes(await self._stream.receive_some(CHUNK))):
                self._http.receive_data(data)
                ahead += len(data)
        call.cancel()


def _session_of(guest: Guest, headers: Mapping[str, str]) -> str:
    session_id = headers.get("mcp-session-id", "")
    if session_id not in guest.sessions:
        raise _Refused(404, "Mcp-Session-Id: there is no such session (any more): initialize again")
    return session_id


def _json(status: int, answer: Answer | Call | None, *headers: tuple[str, str]) -> _Reply:
    return _Reply(status, dump(answer), (("Content-Type", "application/json"), *headers))
