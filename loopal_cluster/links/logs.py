"""What is logged is one line, whatever names and texts of others are in it.

Escape sequences that move a terminal's cursor, line ends that begin a forged line, half of a surrogate pair:
none of them gets further than here. ``get_logger`` is for the library's own loggers, with whatever handlers a
program has; ``OneLine`` is the formatter of our program, for the loggers of others, too.
"""

from __future__ import annotations

import logging

from loopal_cluster.labels import cut, printable

__all__ = ["OneLine", "get_logger"]

MAX_TEXT = 2000
"""Characters of a logged text."""


def get_logger(name: str) -> logging.Logger:
    """A logger of this package: ``logging.getLogger``, and what it logs is one printable line."""
    logger = logging.getLogger(name)
    if _escape not in logger.filters:
        logger.addFilter(_escape)
    return logger


def _escape(record: logging.LogRecord) -> bool:
    record.msg, record.args = printable(cut(record.getMessage(), MAX_TEXT)), None
    return True


class OneLine(logging.Formatter):
    """A formatter of lines in which nothing but a traceback of ours has a second one."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as text."""
        return "\n".join(map(printable, super().format(record).split("\n")))

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """The first line of it."""
        return printable(super().formatMessage(record))
