"""``-v``: what the log shows, on standard error."""

from __future__ import annotations

import logging
import sys
from typing import Annotated

import typer

from loopal_cluster.cli.unread import shield_output
from loopal_cluster.links.logs import OneLine

__all__ = ["Verbose", "show_logs"]

Verbose = Annotated[
    int,
    typer.Option(
        "--verbose", "-v", count=True, show_default=False, help="Say what happens; -vv: every frame."
    ),
]


def show_logs(verbose: int) -> None:
    """Write the log to standard error: warnings, with 1 what happens, with 2 the transcript.

    From then on nothing that is printed waits for its reader.
    """
    shield_output()
    level = (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLine("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=level, handlers=[handler])
