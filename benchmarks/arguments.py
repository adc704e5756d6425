"""What the programs here make of their arguments: wrong usage is one line, and exit status 2."""

from __future__ import annotations

import argparse
from typing import NoReturn

__all__ = ["Parser", "positive"]


class Parser(argparse.ArgumentParser):
    """A parser that shows the fault without the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}\n")


def positive(text: str) -> float:
    """A number above 0."""
    value = float(text)
    if not value > 0:
        raise ValueError(text)
    return value
