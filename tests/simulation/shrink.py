"""Leave things out of a list for as long as it still fails (delta debugging, Zeller 1999)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

__all__ = ["shrink"]

T = TypeVar("T")


def shrink(items: Sequence[T], fails: Callable[[Sequence[T]], bool], tries: int = 400) -> list[T]:
    """A shortest list we can find, within so many tries, that still fails. ``items`` itself does."""
    items, size = list(items), max(1, len(items) // 2)
    while tries > 0:
        start, smaller = 0, False
        while start < len(items) and tries > 0:
            rest = items[:start] + items[start + size :]
            tries -= 1
            if fails(rest):
                items, smaller = rest, True
            else:
                start += size
        if size == 1 and not smaller:
            break
        size = size if smaller else max(1, size // 2)
    return list(items)
