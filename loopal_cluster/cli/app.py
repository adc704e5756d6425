"""The program: its commands, each in a file of its own."""

from __future__ import annotations

import typer

from loopal_cluster.cli import act, attach, demo, hub, look, metahub

__all__ = ["app", "main"]

app = typer.Typer(
    name="loopal-cluster",
    help="Hubs that host AI agents, and the MetaHub that makes them one cluster.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

for module in (metahub, hub, attach, look, act, demo):
    module.register(app)


def main() -> None:
    """Run the command that the arguments name."""
    app()
