"""Standard output and error of a program that serves others: whoever does not read them stops nobody.

What is printed is written by a thread. While that waits for a reader, more is kept, up to ``KEPT_BYTES``, and
beyond that dropped; when it is read again, a line says how much is missing. Not by ``O_NONBLOCK``: that would be
set for everybody who has the same terminal or pipe, our parent among them.
"""

from __future__ import annotations

import io
import os
import sys
import threading
from typing import Final, TextIO

__all__ = ["UnreadOutput", "finish_output", "shield_output"]

KEPT_BYTES: Final = 2**20
"""Unread bytes of one stream above which lines are dropped. One that begins below it is kept, however long."""
PIECE: Final = 65536
"""Bytes written at once."""
STALL_TIMEOUT: Final = 1.0
"""Seconds without progress after which a program that ends waits no longer for a reader."""


class _Writer:
    """The thread, for one file. Two streams that are the same terminal or pipe share it, and keep their order."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: list[tuple[UnreadOutput, bytes]] = []
        self._thread: threading.Thread | None = None
        self._progress = 0
        self._idle = True

    def put(self, output: UnreadOutput, text: str) -> None:
        data = text.encode(output.encoding, "backslashreplace")
        with self._changed:
            if output.is_broken:
                return
            if output.kept >= KEPT_BYTES:
                output.dropped += max(1, data.count(b"\n"))
                return
            output.kept += len(data)
            self._waiting.append((output, data))
            self._idle = False
            if self._thread is None:
                self._thread = threading.Thread(target=self._write_forever, name="output", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def finish(self, *, patient: bool) -> bool:
        """Wait until all is written; False if nobody reads it. ``patient``: for as long as that takes."""
        with self._changed:
            while not self._idle:
                progress = self._progress
                if not self._changed.wait(None if patient else STALL_TIMEOUT) and progress == self._progress:
                    return False
        return True

    def _write_forever(self) -> None:
        while True:
            with self._changed:
                while not self._waiting:
                    self._idle = True
                    self._changed.notify_all()
                    self._changed.wait()
                waiting, self._waiting = self._waiting, []
            for output, data in waiting:
                self._write(output, data)
            with self._changed:
                for output in {output for output, _ in waiting}:
                    output.add_missing(self._waiting)

    def _write(self, output: UnreadOutput, data: bytes) -> None:
        rest = memoryview(data)
        while rest and not output.is_broken:
            try:
                written = os.write(output.fileno(), rest[:PIECE])
            except OSError:
                output.is_broken = True  # nobody will ever read it
                break
            rest = rest[written:]
            with self._changed:
                self._progress += 1
                self._changed.notify_all()
        with self._changed:
            output.kept -= len(data)


class UnreadOutput(io.TextIOBase):
    """Stands for ``sys.stdout`` or ``sys.stderr``: writing never waits."""

    def __init__(self, stream: TextIO, writer: _Writer, name: str) -> None:
        stream.flush()
        self.stream = stream
        """What it stands for."""
        self.is_result = False
        """Something was printed that somebody waits for: the program does not end before that was read."""
        self.kept = 0
        self.dropped = 0
        self.is_broken = False
        """Whoever read it has gone."""
        self._fd = stream.fileno()
        self._encoding = stream.encoding or "utf-8"
        self._writer = writer
        self._name = name

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._encoding

    def write(self, text: str, /) -> int:
        # Whoever has only stdout's reader to talk to learns that it has gone; of a log's, nobody needs to know.
        if self.is_broken and self._name == "stdout":
            raise BrokenPipeError
        self._writer.put(self, text)
        return len(text)

    def flush(self) -> None:
        """Do nothing: it is being written as fast as it is read."""

    def fileno(self) -> int:
        return self._fd

    def isatty(self) -> bool:
        return os.isatty(self._fd)

    def finish(self) -> bool:
        """Wait until all is written; False if nobody reads it."""
        return self._writer.finish(patient=self.is_result)

    def add_missing(self, waiting: list[tuple[UnreadOutput, bytes]]) -> None:
        """Say how much was dropped, after what was kept before it. For the writer."""
        if self.dropped:
            line = f"({self.dropped} lines are missing here: {self._name} was not read)\n".encode()
            self.dropped = 0
            self.kept += len(line)
            waiting.append((self, line))


def shield_output() -> None:
    """From now on, printing waits for nobody."""
    if isinstance(sys.stderr, UnreadOutput):
        return
    try:
        files = [os.fstat(stream.fileno()) for stream in (sys.stdout, sys.stderr)]
    except (OSError, ValueError):
        return  # they are no files: somebody has replaced them, who reads them in this process
    out = _Writer()
    err = out if os.path.samestat(*files) else _Writer()
    sys.stdout = UnreadOutput(sys.stdout, out, "stdout")
    sys.stderr = UnreadOutput(sys.stderr, err, "stderr")


def finish_output() -> None:
    """Write what has been printed, as the last thing but one that the program does; what nobody reads is lost.

    From then on printing is as it was before; but what nobody has read up to now is not written to any more.
    """
    for name in ("stdout", "stderr"):
        output = getattr(sys, name)
        if isinstance(output, UnreadOutput) and output.finish():
            setattr(sys, name, output.stream)
