"""Lines that a human types, or a script writes, on standard input."""

from __future__ import annotations

import os

import trio

from loopal_cluster.errors import ConfigError

__all__ = ["LineReader"]

LINE_BYTES = 2**20
"""Nobody types so much; a pipe without line ends must not fill the memory."""


class LineReader:
    """Reads lines without a thread, so that waiting for one can be cancelled at any moment."""

    def __init__(self, descriptor: int = 0) -> None:
        self._descriptor = descriptor
        self._unread = b""
        self._ended = False

    async def readline(self) -> str | None:
        """The next line, without its end; None when there are no more.

        If cancelled, nothing is lost: what was read of a line is kept for the next call.
        """
        while b"\n" not in self._unread and not self._ended:
            if len(self._unread) > LINE_BYTES:
                raise ConfigError(f"a line on standard input is longer than {LINE_BYTES} bytes")
            await self._read_more()
        line, newline, self._unread = self._unread.partition(b"\n")
        if not line and not newline:
            return None
        return line.decode(errors="replace").removesuffix("\r")

    async def _read_more(self) -> None:
        try:
            await trio.lowlevel.wait_readable(self._descriptor)
        except PermissionError:
            # A file, or /dev/null: never waited for, always readable.
            await trio.lowlevel.checkpoint()
        except OSError:
            self._ended = True  # standard input is closed
            return
        try:
            chunk = os.read(self._descriptor, 65536)
        except OSError:
            chunk = b""  # the terminal is gone
        self._unread += chunk
        self._ended = not chunk
