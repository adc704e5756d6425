"""The program: its commands, each in a file of its own."""

from __future__ import annotations

from typing import Annotated

import typer

from loopal_cluster import __version__
from loopal_cluster.cli import acp, act, attach, demo, doctor, hub, look, mcp, metahub
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


for module in (metahub, hub, attach, look, act, acp, mcp, doctor, demo):
    module.register(app)


def main() -> None:
    """Run the command that the arguments name."""
    app()
