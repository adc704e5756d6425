"""A proxy on loopback whose network can be cut: nothing is forwarded any more, and nobody is told."""

from __future__ import annotations

from contextlib import suppress

import trio
from attrs import define, field

__all__ = ["Proxy"]


@define(eq=False)
class Proxy:
    """Forwards connections to a MetaHub. While it is cut, bytes wait in the kernel, as on a real network they
    are sent again; an end of a connection is not passed on; new connections are accepted and not answered."""

    target: str
    """``HOST:PORT``."""
    address: str = ""
    """Where it listens, once it runs."""
    _open: trio.Event = field(factory=trio.Event)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Forward for ever."""
        self.heal()
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        host, port = listener.socket.getsockname()
        self.address = f"{host}:{port}"
        task_status.started()
        await trio.serve_listeners(self._serve, [listener])

    def cut(self) -> None:
        """Forward nothing from now on."""
        self._open = trio.Event()

    def heal(self) -> None:
        """Forward again, first of all what has waited."""
        self._open.set()

    async def _serve(self, near: trio.SocketStream) -> None:
        await self._open.wait()
        host, _, port = self.target.rpartition(":")
        async with near, await trio.open_tcp_stream(host, int(port)) as far, trio.open_nursery() as nursery:
            nursery.start_soon(self._pump, near, far, nursery.cancel_scope)
            nursery.start_soon(self._pump, far, near, nursery.cancel_scope)

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
