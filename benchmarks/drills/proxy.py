"""A proxy on loopback whose network can be cut: nothing is forwarded any more, and nobody is told.

Or it resets its connections (RST), as a router does that was restarted, and may reset every new one.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import trio
from attrs import define, field

__all__ = ["Proxy", "open_proxy"]


@asynccontextmanager
async def open_proxy(target: str) -> AsyncIterator[Proxy]:
    """Forward to ``HOST:PORT`` for the length of the block."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    host, port = listener.socket.getsockname()
    proxy = Proxy(f"{host}:{port}", target)
    proxy.heal()
    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, proxy.serve, [listener])
        yield proxy
        nursery.cancel_scope.cancel()


@define(eq=False)
class Proxy:
    """Made by ``open_proxy``.

    While it is cut, bytes wait in the kernel, as on a real network they are sent again; an end of a
    connection is not passed on; new connections are accepted and not answered.
    """

    address: str
    """Where it listens."""
    _target: str
    _open: trio.Event = field(factory=trio.Event)
    _refusing: bool = False
    _connections: dict[trio.CancelScope, tuple[trio.SocketStream, trio.SocketStream]] = field(factory=dict)

    def cut(self) -> None:
        """Forward nothing from now on."""
        self._open = trio.Event()

    def heal(self) -> None:
        """Forward again, first of all what has waited."""
        self._open.set()

    def reset(self) -> None:
        """Reset all connections; new ones are forwarded."""
        for scope, streams in self._connections.items():
            for stream in streams:
                _will_reset(stream)
            scope.cancel()

    def refuse(self) -> None:
        """Reset all connections, and from now on every new one."""
        self._refusing = True
        self.reset()

    def accept(self) -> None:
        """Forward new connections again."""
        self._refusing = False

    async def serve(self, near: trio.SocketStream) -> None:
        """Forward one connection, both ways."""
        await self._open.wait()
        if self._refusing:
            _will_reset(near)
            await near.aclose()
            return
        host, _, port = self._target.rpartition(":")
        async with near, await trio.open_tcp_stream(host, int(port)) as far, trio.open_nursery() as nursery:
            self._connections[nursery.cancel_scope] = near, far
            nursery.start_soon(self._pump, near, far, nursery.cancel_scope)
            nursery.start_soon(self._pump, far, near, nursery.cancel_scope)
        self._connections.pop(nursery.cancel_scope)

    async def _pump(
        self, source: trio.SocketStream, sink: trio.SocketStream, scope: trio.CancelScope
    ) -> None:
        """Forward until a side has closed or reset, and end the connection: nobody here half-closes."""
        data = b"."
        with suppress(trio.BrokenResourceError):
            while data:
                await self._open.wait()
                data = await source.receive_some()
                await self._open.wait()
                await sink.send_all(data)
        scope.cancel()


def _will_reset(stream: trio.SocketStream) -> None:
    """Have the connection end with RST when it is closed, and not with FIN: nothing lingers (socket(7))."""
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
