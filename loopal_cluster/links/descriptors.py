"""How many descriptors this process may have: connections, pipes and files are all of them.

The usual soft limit of 1024 is for programs that use ``select``. A hub does not, and raises it to the hard one;
its children begin with the limit it began with.
"""

from __future__ import annotations

import resource
from contextlib import suppress
from typing import Final

__all__ = ["raise_descriptor_limit", "share_of_descriptors", "with_first_limit"]

SHARE: Final = 4
"""One in so many, at most, is for those who have not said who they are."""
MOST: Final = 2**20
"""More is not asked for: some systems have no limit, and then refuse to have none."""

_first_limit: int | None = None
"""What the soft limit was before we raised it; None if we have not."""


def raise_descriptor_limit() -> None:
    """Have as many descriptors as the system lets us."""
    global _first_limit
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST if hard == resource.RLIM_INFINITY else min(hard, MOST)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        _first_limit = soft


def share_of_descriptors(wanted: int) -> int:
    """So many, or fewer, if the limit is low."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return wanted if soft == resource.RLIM_INFINITY else max(1, min(wanted, soft // SHARE))


def with_first_limit(argv: list[str]) -> list[str]:
    """A program's arguments, so that it has the limit that we began with; with ``exec``, it is the same process.

    By a shell, because Python can do something between fork and exec only where it has no threads.
    """
    if _first_limit is None:
        return argv
    return ["/bin/sh", "-c", f'ulimit -S -n {_first_limit}; exec "$@"', "sh", *argv]
