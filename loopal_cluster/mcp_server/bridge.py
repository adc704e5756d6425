"""The stdio end of a door: for an agent that a hub hosts, and whose program cannot speak MCP over HTTP.

The program starts this one, which connects its standard input and output with the hub. The hub speaks the
protocol; here nothing is understood. Which agent it is for, the token says.
"""

from __future__ import annotations

from contextlib import suppress

import trio

from loopal_cluster.errors import ConnectionLost

__all__ = ["SOCKET_VARIABLE", "TOKEN_VARIABLE", "bridge"]

SOCKET_VARIABLE = "LOOPAL_MCP_SOCKET"
"""Where the hub's door is: the path of a socket."""
TOKEN_VARIABLE = "LOOPAL_MCP_TOKEN"
"""Whom to let in."""


async def bridge(path: str, token: str, receive: trio.abc.ReceiveStream, send: trio.abc.SendStream) -> None:
    """Be the way between a program and its hub until the program's stream ends.

    Raises:
        ConnectionLost: the hub is gone, or its agent, or it does not know the token.
    """
    try:
        hub = await trio.open_unix_socket(path)
    except OSError as error:
        raise ConnectionLost(f"cannot reach the hub at {path}: {error.strerror or error}") from error
    async with hub, trio.open_nursery() as nursery:

        async def to_hub() -> None:
            await _copy(receive, hub)
            nursery.cancel_scope.cancel()

        with suppress(trio.BrokenResourceError):  # it has closed already; that is said below
            await hub.send_all(token.encode() + b"\n")
        nursery.start_soon(to_hub)
        await _copy(hub, send)
        raise ConnectionLost("the hub has ended the connection: this agent has ended, or is not known there")


async def _copy(receive: trio.abc.ReceiveStream, send: trio.abc.SendStream) -> None:
    try:
        async for data in receive:
            await send.send_all(data)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass  # as if it had been closed
