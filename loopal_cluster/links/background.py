"""A nursery for the tasks behind an object that is open for the length of a block."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

__all__ = ["open_background", "require_trio"]


@asynccontextmanager
async def open_background() -> AsyncIterator[trio.Nursery]:
    """Open a nursery whose tasks are cancelled when the block is left.

    That there is a nursery is our own affair: an exception comes out as it was raised, be it the block's or a
    task's. Only when there are several do they come in a group.
    """
    require_trio()
    failures: list[BaseException] = []
    try:
        async with trio.open_nursery() as nursery:
            try:
                yield nursery
            except (Exception, KeyboardInterrupt, SystemExit) as error:
                # Kept out of the nursery, which would make a group of it, and a copy of it if it is one.
                # Not so a cancellation, which may be the nursery's own.
                failures.append(error)
            finally:
                nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        failures += group.exceptions
    try:
        if len(failures) == 1:
            raise failures[0]
        if failures:
            raise BaseExceptionGroup("several failures", failures)
    finally:
        failures.clear()  # they refer to this frame


def require_trio() -> None:
    """Refuse to work under another event loop, where nothing but misleading errors would follow.

    Raises:
        RuntimeError: trio does not run here.
    """
    if not trio.lowlevel.in_trio_run():
        raise RuntimeError(
            "loopal_cluster works under trio, which does not run here: start the program with "
            "trio.run(main), or with anyio.run(main, backend='trio'), instead of asyncio.run(main())"
        )
