"""The program: its commands, each in a file of its own, which is imported when it is asked for."""

from __future__ import annotations

import gc
import importlib
import sys
from typing import Annotated

import typer

from loopal_cluster import __version__
from loopal_cluster.cli.show import out

__all__ = ["app", "main"]

app = typer.Typer(
    name="loopal-cluster",
    help="Hubs that host AI agents, and the MetaHub that makes them one cluster.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        out(f"loopal-cluster {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Show the version.")
    ] = False,
) -> None:
    """Take the options that come before a command."""


_HOMES = {
    "metahub": ("metahub",),
    "hub": ("hub",),
    "attach": ("attach",),
    "look": ("status", "hubs", "agents", "topology", "events"),
    "act": ("send", "ask", "spawn", "wait", "interrupt", "shutdown", "cancel"),
    "acp": ("acp",),
    "mcp": ("mcp",),
    "doctor": ("doctor",),
    "demo": ("demo",),
}
"""Where the commands live, in the order in which ``--help`` shows them."""


def add_commands(wanted: str | None = None) -> None:
    """Add this command to the app; all of them if there is none of this name, as for ``--help``."""
    home_of = {name: home for home, names in _HOMES.items() for name in names}
    for home in [home_of[wanted]] if wanted in home_of else _HOMES:
        importlib.import_module(f"loopal_cluster.cli.{home}").register(app)


def main() -> None:
    """Run the command that the arguments name."""
    # Most processes are one hub, or one MetaHub: all commands would be a fifth of the time in which it starts.
    add_commands(*sys.argv[1:2])
    gc.freeze()
    gc.enable()
    app()
