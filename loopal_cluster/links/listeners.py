"""Where connections come from: addresses, listeners, and dialling.

An address is ``HOST:PORT`` (IPv6 in brackets) or ``unix:PATH``.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress

import trio

from loopal_cluster.errors import ConfigError, ConnectionLost
from loopal_cluster.links.channels import FrameChannel, SocketChannel

__all__ = [
    "accept_connections",
    "accept_streams",
    "address_of",
    "check_address",
    "dial",
    "open_listeners",
    "parse_host_port",
]

DIAL_TIMEOUT = 10.0
"""Seconds; as long as the one that is dialled gives us to register."""
ACCEPT_PAUSE = 0.1
"""Seconds after a connection could not be accepted."""


def parse_host_port(text: str) -> tuple[str, int]:
    """Split ``HOST:PORT``.

    Raises:
        ConfigError: it is not one.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise ConfigError(f"{text!r} is not HOST:PORT")
    return host.removeprefix("[").removesuffix("]"), int(port)


def check_address(address: str) -> None:
    """Refuse what cannot be an address.

    Raises:
        ConfigError: it is neither ``HOST:PORT`` nor ``unix:PATH``.
    """
    if not address.startswith("unix:"):
        parse_host_port(address)


async def dial(address: str, line_bytes: int) -> FrameChannel:
    """Connect to an address.

    Raises:
        ConfigError: it is not an address.
        ConnectionLost: nobody is there, or not within ``DIAL_TIMEOUT``.
    """
    try:
        with trio.fail_after(DIAL_TIMEOUT):
            if address.startswith("unix:"):
                stream = await trio.open_unix_socket(address.removeprefix("unix:"))
            else:
                host, port = parse_host_port(address)
                stream = await trio.open_tcp_stream(host, port)
    except trio.TooSlowError:
        raise ConnectionLost(f"cannot reach {address}: no answer within {DIAL_TIMEOUT:g} s") from None
    except UnicodeError:
        raise ConfigError(f"{address!r} is not HOST:PORT: no host can have this name") from None
    except (OSError, RuntimeError) as error:
        raise ConnectionLost(f"cannot reach {address}: {_why(_first(error))}") from error
    return SocketChannel.from_stream(stream, line_bytes)


@asynccontextmanager
async def open_listeners(addresses: Iterable[str]) -> AsyncIterator[list[trio.SocketListener]]:
    """Listen on addresses for the length of the block. A unix socket is readable by its owner only.

    Raises:
        ConfigError: one is not an address, or cannot be listened on; the message says why.
    """
    listeners: list[trio.SocketListener] = []
    bound: list[str] = []
    try:
        for address in addresses:
            listeners += await _listen(address)
            bound = [address_of(listener) for listener in listeners]
        yield listeners
    finally:
        for listener in listeners:
            listener.socket.close()
        _remove_sockets(bound)


def address_of(listener: trio.SocketListener) -> str:
    """The address a listener is bound to, with the real port."""
    name = listener.socket.getsockname()
    if isinstance(name, str | bytes):
        return f"unix:{os.fsdecode(name)}"
    host = f"[{name[0]}]" if ":" in name[0] else name[0]
    return f"{host}:{name[1]}"


async def accept_connections(
    listeners: Sequence[trio.SocketListener],
    serve: Callable[[FrameChannel], Awaitable[object]],
    nursery: trio.Nursery,
    line_bytes: int,
    on_failure: Callable[[OSError], None] = lambda error: None,
) -> None:
    """Accept for ever; each connection is served by a task of ``nursery``. ``on_failure`` as in ``accept_streams``."""

    async def handle(stream: trio.SocketStream) -> None:
        await serve(SocketChannel.from_stream(stream, line_bytes))

    async with trio.open_nursery() as accepting:
        for listener in listeners:
            accepting.start_soon(accept_streams, listener, handle, nursery, on_failure)


async def accept_streams(
    listener: trio.SocketListener,
    serve: Callable[[trio.SocketStream], Awaitable[object]],
    nursery: trio.Nursery,
    on_failure: Callable[[OSError], None],
) -> None:
    """Accept for ever, whatever happens; ``on_failure`` is told when it could not be, and may make room.

    Not ``trio.serve_listeners``, which writes a traceback each time there is no descriptor left.
    """

    async def handle(stream: trio.SocketStream) -> None:
        try:
            await serve(stream)
        finally:
            await trio.aclose_forcefully(stream)

    while True:
        try:
            stream = await listener.accept()
        except OSError as error:
            # No descriptors or no memory for one more, or a connection that was gone before we took it.
            on_failure(error)
            await trio.sleep(ACCEPT_PAUSE)
        else:
            nursery.start_soon(handle, stream)


async def _listen(address: str) -> list[trio.SocketListener]:
    if address.startswith("unix:"):
        return [await _listen_unix(address.removeprefix("unix:"))]
    host, port = parse_host_port(address)
    try:
        return list(await trio.open_tcp_listeners(port, host=host))
    except UnicodeError:
        raise ConfigError(f"{address!r} is not HOST:PORT: no host can have this name") from None
    except OSError as error:
        raise ConfigError(f"cannot listen on {address}: {_why(error)}") from error


def _first(error: BaseException) -> BaseException:
    """What a failed dialling began with: trio tries every address of a host, and groups the failures."""
    while isinstance(cause := error.__cause__, OSError | BaseExceptionGroup):
        error = cause.exceptions[0] if isinstance(cause, BaseExceptionGroup) else cause
    return error


def _why(error: BaseException) -> str:
    if getattr(error, "errno", None) == errno.EADDRINUSE:
        return "the port is in use (another one, or port 0 for any, would do)"
    number = getattr(error, "errno", None)
    if isinstance(number, int) and number > 0:
        return os.strerror(number)  # trio's text repeats the address; name look-ups have negative numbers
    return getattr(error, "strerror", None) or str(error)


async def _listen_unix(path: str) -> trio.SocketListener:
    sock = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        await _remove_stale(path)
        mask = os.umask(0o177)
        try:
            await sock.bind(path)
        finally:
            os.umask(mask)
        sock.listen(1024)
    except OSError as error:
        sock.close()
        raise ConfigError(f"cannot listen on unix:{path}: {error.strerror or error}") from error
    except ConfigError:
        sock.close()
        raise
    return trio.SocketListener(sock)


async def _remove_stale(path: str) -> None:
    """Remove a socket that nobody listens on any more, and nothing else."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):  # local and quick
            raise ConfigError(f"cannot listen on unix:{path}: there is a file of that name")
    except FileNotFoundError:
        return
    try:
        stream = await trio.open_unix_socket(path)
    except OSError:
        os.unlink(path)
        return
    await stream.aclose()
    raise ConfigError(f"cannot listen on unix:{path}: somebody else does")


def _remove_sockets(addresses: Iterable[str]) -> None:
    for address in addresses:
        if address.startswith("unix:"):
            with suppress(FileNotFoundError):
                os.unlink(address.removeprefix("unix:"))
