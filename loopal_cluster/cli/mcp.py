"""``loopal-cluster mcp``: our tools for an MCP client that starts us, on standard input and output."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import trio
import typer

from loopal_cluster.address import check_name
from loopal_cluster.agents.child import claim_stdio
from loopal_cluster.cli.connect import Connect, TokenFile, address_and_token
from loopal_cluster.cli.run import async_command
from loopal_cluster.cli.show import note
from loopal_cluster.cli.signals import open_stopper
from loopal_cluster.config import Limits
from loopal_cluster.links.channels import FrameChannel
from loopal_cluster.links.listeners import check_address, dial
from loopal_cluster.mcp_server.bridge import SOCKET_VARIABLE, TOKEN_VARIABLE, bridge
from loopal_cluster.mcp_server.joining import Joining
from loopal_cluster.mcp_server.lines import serve_lines

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    async_command(app, "mcp")(mcp)


async def mcp(
    connect: Connect = None,
    name: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="This member's name in the cluster. [default: the client's own name]"
        ),
    ] = None,
    token_file: TokenFile = None,
) -> None:
    """Be an MCP server on stdin and stdout, with the cluster's tools.

    It makes its client a member of the cluster. A client starts it: 'claude mcp add loopal -- loopal-cluster
    mcp'. What the client's model has started in the cluster ends with it, unless it is detached.
    """
    if name is not None:
        check_name(name)
    if connect is not None:
        check_address(connect)
    if sys.stdin.isatty():
        note("This is for MCP clients, for example: claude mcp add loopal -- loopal-cluster mcp")
    from_client, to_client = (trio.lowlevel.FdStream(fd) for fd in claim_stdio())
    # Closed in the end, which also makes what we share with our starter blocking again.
    async with from_client, to_client, open_stopper() as stopper:
        with stopper.work():
            if (path := os.environ.get(SOCKET_VARIABLE)) is not None:
                await bridge(path, os.environ.get(TOKEN_VARIABLE, ""), from_client, to_client)
            else:
                await _serve(from_client, to_client, connect, name, token_file)


async def _serve(
    from_client: trio.abc.ReceiveStream,
    to_client: trio.abc.SendStream,
    connect: str | None,
    name: str | None,
    token_file: Path | None,
) -> None:
    async def dial_hub() -> tuple[FrameChannel, str]:
        # Anew each time: a hub that was started again has another token.
        address, token = address_and_token(connect, token_file)
        return await dial(address, Limits().line_bytes), token

    joining = Joining(dial_hub, name)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(joining.run)
        await serve_lines(from_client, to_client, joining, on_client=joining.introduce)
        nursery.cancel_scope.cancel()
