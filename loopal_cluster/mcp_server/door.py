"""A hub's door for the programs of its agents: they get their agent's tools through MCP.

Each has a token of its own, made when its agent begins and forgotten when it ends, and with it acts as that
agent: what it spawns are that agent's children, what it sends comes from that agent. The door opens when the
first agent needs it: over HTTP on loopback, and on a socket for the bridge (``bridge.py``). Both are this
machine's, and the socket this user's, alone.
"""

from __future__ import annotations

import importlib.util
import secrets
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import trio

from loopal_cluster.errors import ClusterError
from loopal_cluster.mcp_server.bridge import SOCKET_VARIABLE, TOKEN_VARIABLE
from loopal_cluster.mcp_server.guests import Guest
from loopal_cluster.mcp_server.lines import serve_lines
from loopal_cluster.mcp_server.session import ToolServer
from loopal_cluster.runtime.background import open_background
from loopal_cluster.runtime.listeners import address_of, open_listeners

__all__ = ["Door"]

NAME: Final = "loopal"
"""What the server is called in an agent's configuration; agents make it a part of our tools' names."""
HANDSHAKE_TIMEOUT: Final = 10.0
"""Seconds for a bridge to say whom it is for."""
TOKEN_BYTES: Final = 256
"""The longest line that may be a token."""


class Door:
    """Lets the programs of a hub's agents use their agents' tools; ``run`` must be a task meanwhile."""

    def __init__(self) -> None:
        self._guests: dict[str, Guest] = {}
        """By token."""
        self._wanted = trio.Event()
        self._opened = trio.Event()
        self._fault: ClusterError | None = None
        self._socket = ""
        self._http: str | None = None
        """``HOST:PORT``; None without the library for it."""

    @asynccontextmanager
    async def admit(self, server: ToolServer, *, http: bool) -> AsyncIterator[dict[str, Any]]:
        """Let an agent's program in for the block; it ends with all that the program still does here.

        What the block gets is the entry for ``mcpServers`` of ACP's ``session/new``: of type ``http`` if the
        program speaks that, and the hub can, else a command.

        Raises:
            ConfigError: the door cannot be opened.
        """
        self._wanted.set()
        await self._opened.wait()
        if self._fault is not None:
            raise self._fault
        token = secrets.token_urlsafe(32)
        guest = self._guests[token] = Guest(server)
        try:
            yield self._http_entry(token) if http and self._http is not None else self._stdio_entry(token)
        finally:
            del self._guests[token]
            guest.leave()

    def _http_entry(self, token: str) -> dict[str, Any]:
        headers = [{"name": "Authorization", "value": f"Bearer {token}"}]
        return {"type": "http", "name": NAME, "url": f"http://{self._http}/mcp", "headers": headers}

    def _stdio_entry(self, token: str) -> dict[str, Any]:
        # -P: the agent works in somebody's project, whose modules must not be taken for ours.
        return {
            "name": NAME,
            "command": sys.executable,
            "args": ["-P", "-m", "loopal_cluster", "mcp"],
            "env": [
                {"name": SOCKET_VARIABLE, "value": self._socket},
                {"name": TOKEN_VARIABLE, "value": token},
            ],
        }

    async def run(self) -> None:
        """Open when somebody is to be let in, and serve for ever."""
        await self._wanted.wait()
        with tempfile.TemporaryDirectory(prefix="loopal-mcp-") as directory:
            self._socket = str(Path(directory, "door.sock"))
            try:
                await self._serve([f"unix:{self._socket}", *(["127.0.0.1:0"] if _can_http() else [])])
            except ClusterError as error:
                self._fault = error
                self._opened.set()

    async def _serve(self, addresses: list[str]) -> None:
        async with open_listeners(addresses) as listeners, open_background() as nursery:
            serve = partial(trio.serve_listeners, handler_nursery=nursery)
            bridges, *https = listeners
            for listener in https:
                self._http = address_of(listener)
                nursery.start_soon(serve, self._serve_http, [listener])
            self._opened.set()
            await serve(self._serve_bridge, [bridges])

    async def _serve_http(self, stream: trio.SocketStream) -> None:
        from loopal_cluster.mcp_server.http import serve_http  # which needs a library of the extra [mcp]

        assert self._http is not None
        port = self._http.rpartition(":")[2]
        await serve_http(stream, self._guests.get, frozenset({self._http, f"localhost:{port}"}))

    async def _serve_bridge(self, stream: trio.SocketStream) -> None:
        async with stream:
            token, rest = "", b""
            with trio.move_on_after(HANDSHAKE_TIMEOUT):
                token, rest = await _first_line(stream)
            if (guest := self._guests.get(token)) is not None:
                with guest.visit():
                    await serve_lines(stream, stream, guest.server, begin=rest)


async def _first_line(stream: trio.abc.ReceiveStream) -> tuple[str, bytes]:
    """The first line of a stream, and what has come behind it; nothing, if there is none."""
    data = b""
    try:
        while b"\n" not in data and len(data) <= TOKEN_BYTES:
            if not (more := await stream.receive_some(TOKEN_BYTES)):
                return "", b""
            data += more
    except trio.BrokenResourceError:
        return "", b""
    line, _, rest = data.partition(b"\n")
    return line.decode("utf-8", "replace").strip(), rest


def _can_http() -> bool:
    return importlib.util.find_spec("h11") is not None
