"""A hub's door for the programs of its agents: they get their agent's tools through MCP.

Each has a token of its own, made when its agent begins and forgotten when it ends, and with it acts as that
agent: what it spawns are that agent's children, what it sends comes from that agent. The door opens when the
first agent needs it: over HTTP on loopback, and on a socket for the bridge (``bridge.py``). Both are this
machine's, and the socket this user's, alone.
"""

from __future__ import annotations

import importlib.util
import secrets
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from functools import partial
from hmac import compare_digest
from pathlib import Path
from typing import Any, Final

import trio

from loopal_cluster.agents.context import AgentContext
from loopal_cluster.errors import ConfigError
from loopal_cluster.links.admission import Admission
from loopal_cluster.links.background import open_background
from loopal_cluster.links.descriptors import share_of_descriptors
from loopal_cluster.links.listeners import accept_streams
from loopal_cluster.links.logs import get_logger
from loopal_cluster.mcp_server.bridge import SOCKET_VARIABLE, TOKEN_VARIABLE
from loopal_cluster.mcp_server.entrance import Entrance, open_entrance
from loopal_cluster.mcp_server.guests import VISITS, Guest
from loopal_cluster.mcp_server.lines import serve_lines
from loopal_cluster.tools.toolbox import MCP_SERVER

__all__ = ["Door", "open_door"]

logger = get_logger(__name__)

Serve = Callable[[trio.SocketStream, Entrance], Awaitable[object]]
"""Serves one connection until it ends."""

HANDSHAKE_TIMEOUT: Final = 10.0
"""Seconds for a bridge to say whom it is for."""
TOKEN_BYTES: Final = 256
"""The longest line that may be a token."""
BACKLOG: Final = 128
"""Connections that may wait to be accepted."""
CONNECTIONS: Final = 2 * VISITS
"""Connections of all agents at one time; no more than a quarter of the hub's descriptors."""
STRANGERS: Final = 32
"""Connections that have not shown a token: other users of this machine can make them, too."""


class Door:
    """Lets the programs of a hub's agents use their agents' tools. Made by ``open_door``."""

    def __init__(self, nursery: trio.Nursery, leftovers: ExitStack, connections: int, strangers: int) -> None:
        self._nursery = nursery
        self._leftovers = leftovers
        """What is to be removed in the end."""
        self._guests: dict[str, Guest] = {}
        """By token."""
        self._socket: str | None = None
        """Where bridges come to; None while nobody was to be let in."""
        self._http: str | None = None
        """``HOST:PORT``; None without the library for it."""
        self._known = Admission(share_of_descriptors(connections), logger)
        self._unknown = Admission(share_of_descriptors(strangers), logger)

    @contextmanager
    def open_entry(self, context: AgentContext, *, http: bool) -> Iterator[dict[str, Any]]:
        """Let an agent's program in for the block; it ends with all that the program still does here.

        What the block gets is the entry for ``mcpServers`` of ACP's ``session/new``: of type ``http`` if the
        program speaks that (``http``), and the hub can; else a command.

        Raises:
            ConfigError: the door cannot be opened.
        """
        if self._socket is None:
            self._open()
        token = secrets.token_urlsafe(32)
        guest = self._guests[token] = Guest(context.tools)
        try:
            yield self._http_entry(token) if http and self._http is not None else self._stdio_entry(token)
        finally:
            del self._guests[token]
            guest.leave()

    def _http_entry(self, token: str) -> dict[str, Any]:
        headers = [{"name": "Authorization", "value": f"Bearer {token}"}]
        return {"type": "http", "name": _new_name(), "url": f"http://{self._http}/mcp", "headers": headers}

    def _stdio_entry(self, token: str) -> dict[str, Any]:
        env = {SOCKET_VARIABLE: self._socket, TOKEN_VARIABLE: token}
        return {
            "name": _new_name(),
            "command": sys.executable,
            # -P: the agent works in somebody's project, whose modules must not be taken for ours.
            "args": ["-P", "-m", "loopal_cluster", "mcp"],
            "env": [{"name": name, "value": value} for name, value in env.items()],
        }

    def _open(self) -> None:
        # The directory is this user's alone, and so is the socket in it.
        try:
            directory = self._leftovers.enter_context(tempfile.TemporaryDirectory(prefix="loopal-mcp-"))
            path = str(Path(directory, "door.sock"))
            self._listen(socket.AF_UNIX, path, self._serve_bridge)
            if _can_http():
                host, port = self._listen(socket.AF_INET, ("127.0.0.1", 0), self._serve_http)
                self._http = f"{host}:{port}"
        except OSError as error:
            raise ConfigError(f"cannot serve MCP on this machine: {error.strerror or error}") from error
        self._socket = path

    def _listen(self, family: int, address: Any, serve: Serve) -> Any:
        sock = socket.socket(family)
        self._leftovers.callback(sock.close)
        sock.bind(address)
        sock.listen(BACKLOG)
        name = sock.getsockname()
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(sock))
        admit = partial(self._admit, serve)
        self._nursery.start_soon(accept_streams, listener, admit, self._nursery, self._unknown.unaccepted)
        return name

    async def _admit(self, serve: Serve, stream: trio.SocketStream) -> None:
        source = "127.0.0.1" if stream.socket.family == socket.AF_INET else "this machine's socket"
        with open_entrance(self._unknown, self._known, f"{source} (MCP)") as entrance:
            await serve(stream, entrance)

    def _find_guest(self, token: str) -> Guest | None:
        """Who has this token. Compared with all of them, so that the time it takes tells nothing of any."""
        given = token.encode()
        fits = [guest for known, guest in self._guests.items() if compare_digest(known.encode(), given)]
        return fits[0] if fits else None

    async def _serve_http(self, stream: trio.SocketStream, entrance: Entrance) -> None:
        from loopal_cluster.mcp_server.http import serve_http  # which needs a library of the extra [mcp]

        assert self._http is not None
        port = self._http.rpartition(":")[2]
        await serve_http(stream, self._find_guest, frozenset({self._http, f"localhost:{port}"}), entrance)

    async def _serve_bridge(self, stream: trio.SocketStream, entrance: Entrance) -> None:
        async with stream:
            token, rest = "", b""
            with trio.move_on_after(HANDSHAKE_TIMEOUT):
                token, rest = await _first_line(stream)
            if (guest := self._find_guest(token)) is not None:
                entrance.let_in(guest)
                with guest.visit(), entrance.work():
                    await serve_lines(stream, stream, guest.server, begin=rest)
            elif token:
                await entrance.refuse()


@asynccontextmanager
async def open_door(*, connections: int = CONNECTIONS, strangers: int = STRANGERS) -> AsyncIterator[Door]:
    """Have a door for the block; it stays shut until somebody is to be let in."""
    with ExitStack() as leftovers:
        async with open_background() as nursery:
            door = Door(nursery, leftovers, connections, strangers)
            nursery.start_soon(door._unknown.report_forever)
            yield door


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


def _new_name() -> str:
    """What the server is called in one program's session: nobody else can have called one so beforehand.

    What a program lets its model do goes by the names of servers, and the repository that it works in may bring some.
    """
    return f"{MCP_SERVER}-{secrets.token_hex(4)}"


def _can_http() -> bool:
    return importlib.util.find_spec("h11") is not None
