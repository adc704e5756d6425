"""``loopal-cluster acp``: a cluster agent for an editor that speaks the Agent Client Protocol.

Standard input and output are the protocol's alone; what is to be said goes to standard error, which editors keep in
their logs. The end of input ends the agents.
"""

from __future__ import annotations

import sys
from typing import Annotated

import trio
import typer

from loopal_cluster.address import check_name
from loopal_cluster.agents.child import claim_stdio
from loopal_cluster.cli.connect import Connect, TokenFile, hub_of, open_session
from loopal_cluster.cli.logs import Verbose, show_logs
from loopal_cluster.cli.run import async_command
from loopal_cluster.cli.show import note
from loopal_cluster.cli.signals import open_stopper
from loopal_cluster.editor.service import Editor
from loopal_cluster.errors import ConfigError
from loopal_cluster.links.client import Client

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    async_command(app, "acp")(acp)


async def acp(
    agent: Annotated[
        str | None,
        typer.Option(metavar="TYPE", help="A type that the hub runs. [default: the hub's default]"),
    ] = None,
    hub: Annotated[
        str | None, typer.Option(metavar="HUB", help="Where. [default: the hub connected to]")
    ] = None,
    connect: Connect = None,
    token_file: TokenFile = None,
    verbose: Verbose = 0,
) -> None:
    """Be a coding agent for an editor, run by agents of the cluster.

    Each session of the editor is such an agent. For Zed, JetBrains, Neovim and others that speak the Agent
    Client Protocol. The human is asked in the editor for what the agent may do.
    """
    if hub is not None:
        check_name(hub, "hub name")
    show_logs(verbose)
    if sys.stdin.isatty():
        note("This is for editors, which start it themselves: see docs/editors.md")
    editor_in, editor_out = (trio.lowlevel.FdStream(fd) for fd in claim_stdio())
    local = connect is None or connect.startswith("unix:")
    editor = Editor(agent, hub, local=local and hub is None)
    async with (
        editor_in,
        editor_out,
        open_stopper() as stopper,
        open_session(connect, token_file, on_permission=editor.on_permission, acknowledge=False) as client,
    ):
        _check(client, hub)
        with stopper.work():
            await editor.serve(client, editor_in, editor_out)


def _check(client: Client, hub: str | None) -> None:
    connected = hub_of(client)
    if connected is None and hub is None:
        raise ConfigError("a MetaHub runs no agents itself: say where with --hub")
    if connected is not None and hub not in (None, connected):
        note(
            f"What agents on {hub} report is known there and at the MetaHub, not on {connected}: "
            "--connect to the MetaHub to see it."
        )
