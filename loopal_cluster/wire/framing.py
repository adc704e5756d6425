"""Bytes to lines: one message is one line that ends in a line feed.

``LineBuffer`` takes the bytes in whatever pieces they come and gives whole lines. It bounds what a
peer can make us hold: a line that grows too long is reported once, with its start, and then
skipped, or kept elsewhere (``Spill``). Decoding is next door, in ``codec``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from loopal_cluster.records import record

__all__ = ["PREFIX_BYTES", "SHORT", "LineBuffer", "Oversized", "Spill", "Spilled", "read_head"]

SHORT: Final = 65536
"""Bytes of a line that says nothing which may be long: a name, a reason, a number. As many as are read at once."""
PREFIX_BYTES: Final = 256
"""Enough of an over-long line to read the request's id in it, where ids come early."""

_LONG: Final = 512
"""Bytes of a line from which on it is quicker to look for its end than to split: both take 3,000 instructions."""
_WINDOW: Final = 8192
"""Bytes that are split at a time: many short lines, and not too much of a long one behind them."""


@record
class Oversized:
    """A line that was too long to keep."""

    prefix: bytes
    """Its first bytes, for ``faults.reject``."""
    size: int
    """Its bytes when it was given up; how long it was to become is not known."""
    kept: str | None = None
    """Where all of it is, as far as that may be long."""


class Spilled(Protocol):
    """A line that is too long, on its way to somewhere else."""

    def write(self, data: bytes) -> bool:
        """Take some more of it. False: that is enough, and the rest will be skipped."""

    def close(self) -> str | None:
        """The line has ended; return where it is, if it is."""


Spill = Callable[[bytes], Spilled | None]
"""Takes the start of a line that has grown too long. None: it is not worth keeping."""


_SCALAR = re.compile(rb'\s*"(\w+)"\s*:\s*("[^"\\]*"|-?\d{1,18}|null)\s*,')
_KEY = re.compile(rb'\s*"(\w+)"\s*:')


def read_head(start: bytes) -> tuple[dict[bytes, bytes], bytes]:
    """The scalars at the start of an object, up to the first value that may be long, and the key of that.

    With the key order of Loopal, and with that of most others, id and method are among them.
    """
    head: dict[bytes, bytes] = {}
    position = start.find(b"{") + 1
    while pair := _SCALAR.match(start, position):
        head[pair[1]] = pair[2]
        position = pair.end()
    last = _KEY.match(start, position)
    return head, last[1] if last else b""


class LineBuffer:
    """Cuts a stream of bytes into lines of at most ``max_bytes``, the line feed not counted."""

    def __init__(self, max_bytes: int, spill: Spill = lambda prefix: None) -> None:
        self.max_bytes = max_bytes
        """May be changed at any time; a line that is too long by then is given up with its next bytes."""
        # A bytearray grows in amortized constant time, so a long line in small pieces costs linear
        # time; and unlike a list of the pieces it does not cost 40 bytes for each of them.
        self._open = bytearray()
        self._skipping = False
        self.long: Mapping[bytes, int] | None = None
        """What may be longer than ``SHORT``, by method, and how long; ``b""`` is an answer. None: anything."""
        self._spill = spill
        self._spilled: Spilled | None = None
        self._long = Oversized(b"", 0)
        """Of a line that is kept elsewhere, what will be reported at its end."""

    def feed(self, data: bytes) -> list[bytes | Oversized]:
        """The lines that ``data`` completes, without their ends and without blank ones.

        A line that grew too long appears as ``Oversized`` as soon as it has, not at its end; one that is kept, when
        all of it is.
        """
        pieces = _cut(data)
        rest = pieces.pop()
        found: list[bytes | Oversized] = []
        if pieces and (self._open or self._skipping):
            found += self._extend(pieces.pop(0))
            found += self._end()
        if len(data) <= self.max_bytes:
            found += [line for piece in pieces if (line := piece.strip())]
        else:
            found += self._bounded(pieces)
        if rest:
            found += self._extend(rest)
        return found

    def close(self) -> bytes | Oversized | None:
        """The last line, if the stream ended without a line feed."""
        return next(iter(self._end()), None)

    def _bounded(self, pieces: list[bytes]) -> list[bytes | Oversized]:
        found: list[bytes | Oversized] = []
        for piece in pieces:
            found += self._extend(piece)
            found += self._end()
        return found

    def _extend(self, piece: bytes) -> list[Oversized]:
        if self._skipping:
            return [] if self._spilled is None or self._spilled.write(piece) else self._end_spilled()
        self._open += piece
        size = len(self._open)
        if size <= self.max_bytes and (size <= SHORT or size <= self._limit()):
            return []
        long, self._open = bytes(self._open), bytearray()
        self._skipping = True
        self._long = Oversized(long[:PREFIX_BYTES], len(long))
        self._spilled = self._spill(self._long.prefix) if size > self.max_bytes else None
        if self._spilled is not None and self._spilled.write(long):
            return []
        return self._end_spilled()

    def _limit(self) -> int:
        """How long the line may become that has begun."""
        if self.long is None:
            return self.max_bytes
        head, last = read_head(bytes(self._open[:PREFIX_BYTES]))
        if (method := head.get(b"method")) is not None:
            return self.long.get(method.strip(b'"'), SHORT)
        return self.long.get(b"", SHORT) if last in (b"result", b"error") else SHORT

    def _end_spilled(self) -> list[Oversized]:
        kept = None if self._spilled is None else self._spilled.close()
        self._spilled = None
        return [Oversized(self._long.prefix, self._long.size, kept)]

    def _end(self) -> list[bytes | Oversized]:
        if self._spilled is not None:
            self._skipping = False
            return [*self._end_spilled()]
        line = bytes(self._open).strip()
        if self._open:
            self._open = bytearray()
        self._skipping = False
        return [line] if line else []


def _cut(data: bytes) -> list[bytes]:
    """``data.split(b"\\n")``, which looks at every byte, and takes 99,000 instructions for a line of 16 KiB.

    ``find`` jumps to the end of one, in 2,000, but for short lines it takes three times as long. So they are
    looked for, and those are split, a window at a time.
    """
    if len(data) <= _WINDOW:
        return data.split(b"\n")
    pieces: list[bytes] = []
    start = 0
    while (end := data.find(b"\n", start)) >= 0:
        if end - start >= _LONG:
            pieces.append(data[start:end])
        else:
            end = data.rfind(b"\n", start, start + _WINDOW)
            pieces += data[start:end].split(b"\n")
        start = end + 1
    pieces.append(data[start:])
    return pieces
