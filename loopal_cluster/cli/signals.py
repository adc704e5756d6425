"""A long-running command: how it begins to serve, and ends when it is told to.

It ends gently at the first signal, at once at the second: within a second, whatever still runs. What that leaves
of agents' processes ends with it (``agents/guard.py``).
"""

from __future__ import annotations

import gc
import os
import signal
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import trio

from loopal_cluster.records import define

HURRY = 1.0
"""Seconds from the second signal to the end."""
INTERRUPTED = 130

__all__ = ["Stopper", "open_stopper", "settle_down"]


def settle_down() -> None:
    """Begin to serve: what is in memory by now will stay there.

    Python's garbage collector would go through all of it again and again, and each time nobody is served for
    20 ms: it was the 99th percentile of a busy MetaHub, which is 7 ms without.
    """
    gc.collect()
    gc.freeze()


@define(eq=False)
class Stopper:
    """What a signal ends. Made by ``open_stopper``."""

    _everything: trio.CancelScope
    _work: trio.CancelScope | None = None
    _last_resort: threading.Timer | None = None
    """Not a task: who hurries has no time for one that does not give way."""
    signal: int | None = None
    """The first signal that came."""

    @contextmanager
    def work(self) -> Iterator[trio.CancelScope]:
        """A block that the first signal ends, and only that: what is around it closes in peace."""
        with trio.CancelScope() as self._work:
            yield self._work
        self._work = None

    def stop(self, signum: int) -> None:
        """Do what a signal does."""
        if self.signal is None and self._work is not None:
            self._work.cancel()
        else:
            self._everything.cancel()
        if self.signal is not None and self._last_resort is None:
            self._last_resort = threading.Timer(HURRY, os._exit, [INTERRUPTED])
            self._last_resort.daemon = True
            self._last_resort.start()
        self.signal = self.signal or signum

    def ended(self) -> None:
        """All is closed: nothing more has to be hurried."""
        if self._last_resort is not None:
            self._last_resort.cancel()


@asynccontextmanager
async def open_stopper() -> AsyncIterator[Stopper]:
    """Let SIGTERM, SIGINT and the end of the terminal end the block, instead of the process.

    Raises:
        KeyboardInterrupt: the block has been ended by SIGINT.
    """
    # Not left to Python: its KeyboardInterrupt may strike in the middle of any step of a hub.
    signums = [signal.SIGTERM, signal.SIGINT]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as under nohup
        signums.append(signal.SIGHUP)
    with trio.open_signal_receiver(*signums) as signals:
        async with trio.open_nursery() as nursery:
            stopper = Stopper(nursery.cancel_scope)

            async def watch() -> None:
                async for signum in signals:
                    stopper.stop(signum)

            nursery.start_soon(watch)
            try:
                yield stopper
            finally:
                stopper.ended()
            nursery.cancel_scope.cancel()
    if stopper.signal is not None:
        # What is left is the end of the process: no third signal may turn that into a traceback.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    if stopper.signal == signal.SIGINT:
        raise KeyboardInterrupt
