"""The reading end of a pipe, for little more than the system call.

trio's own ``FdStream`` is right for anything that is seldom read. An agent's pipe is read for every message,
and there a checkpoint, a lock and a second system call before the first byte cost as much as reading its line.
"""

from __future__ import annotations

import fcntl
import math
import os
import sys
import termios

import trio

__all__ = ["ReadPipe"]

CHUNK = 65536
"""Bytes read at once: what a pipe holds."""


class ReadPipe(trio.abc.ReceiveStream):
    """Takes over a stream, which must not be read otherwise any more."""

    def __init__(self, pipe: trio.lowlevel.FdStream) -> None:
        self._pipe = pipe
        self._left = math.inf
        """No more bytes than this are still to come."""

    def end(self) -> None:
        """Whoever wrote has ended: what is in the pipe is all, though others may hold it open."""
        if (fd := self._pipe.fileno()) >= 0:
            self._left = _readable_bytes(fd)
            if not self._left:
                trio.lowlevel.notify_closing(fd)  # wakes whoever waits for more

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        while True:
            if (fd := self._pipe.fileno()) < 0:
                raise trio.ClosedResourceError
            if self._left <= 0:
                await trio.lowlevel.checkpoint()
                return b""
            try:
                await trio.lowlevel.wait_readable(fd)
                data = os.read(fd, int(min(max_bytes or CHUNK, self._left)))
            except (trio.ClosedResourceError, BlockingIOError):
                continue  # ``end`` or ``close`` has woken us
            except OSError as error:
                raise trio.BrokenResourceError(str(error)) from error
            self._left -= len(data)
            return data

    def close(self) -> None:
        """Close it; whoever waits for more gets ``ClosedResourceError``."""
        self._pipe.close()

    async def aclose(self) -> None:
        self.close()
        await trio.lowlevel.checkpoint()


def _readable_bytes(fd: int) -> int:
    return int.from_bytes(fcntl.ioctl(fd, termios.FIONREAD, bytes(4)), sys.byteorder)
