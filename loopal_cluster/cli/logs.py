"""``-v``: what the log shows, on standard error."""

from __future__ import annotations

import logging
import sys
from typing import Annotated

import typer

__all__ = ["Verbose", "show_logs"]

Verbose = Annotated[
    int,
    typer.Option(
        "--verbose", "-v", count=True, show_default=False, help="Say what happens; -vv: every frame."
    ),
]


def show_logs(verbose: int) -> None:
    """Write the log to standard error: warnings, with 1 what happens, with 2 the transcript."""
    level = (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)]
    logging.basicConfig(stream=sys.stderr, level=level, format="%(asctime)s %(levelname)s %(message)s")
