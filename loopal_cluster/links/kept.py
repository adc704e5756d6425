"""Files for what agents have made that is too large to be told (``core/kept.py`` decides what).

They are in ``kept`` below the user's state directory, readable by nobody else, and bounded in number and bytes: the
oldest go first. Until there are artifacts, that is where a result is that no line can carry.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

from loopal_cluster.links.logs import get_logger
from loopal_cluster.texts import KEPT_BYTES

__all__ = ["FILES", "FILES_BYTES", "KeptLine", "keep_line", "keep_text", "kept_directory"]

logger = get_logger(__name__)

FILES = 64
"""So many files are kept, of all hubs of this user on this machine."""
FILES_BYTES = 512 * 2**20
"""And so many bytes in all."""


def kept_directory() -> str:
    """Where they are: ``$XDG_STATE_HOME/loopal-cluster/kept``, or below ``~/.local/state``."""
    state = os.environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    return os.path.join(os.path.abspath(state), "loopal-cluster", "kept")


def keep_text(path: str, text: str | bytes) -> None:
    """Write a file, and remove the oldest that are too many beside it.

    Raises:
        OSError: it cannot be written.
    """
    data = (text.encode("utf-8", "replace") if isinstance(text, str) else text)[:KEPT_BYTES]
    with open(_open_file(path, len(data)), "wb") as opened:
        opened.write(data)


class KeptLine:
    """A line of an agent's program that is too long to be read (``wire.framing.Spilled``)."""

    def __init__(self, path: str) -> None:
        """Make its file.

        Raises:
            OSError: it cannot be written.
        """
        self._path = path
        self._left = KEPT_BYTES
        self._file = open(_open_file(path, KEPT_BYTES), "wb", buffering=0)  # noqa: SIM115  # until ``close``
        self._is_kept = True

    def write(self, data: bytes) -> bool:
        """Take some more of it; False if that is enough."""
        try:
            self._file.write(data[: self._left])
        except OSError as error:  # the disk is full
            self._is_kept = False
            logger.error("cannot keep %s: %s", self._path, error.strerror or error)
            return False
        self._left -= len(data)
        return self._left > 0

    def close(self) -> str | None:
        """Return where it is."""
        self._file.close()
        return self._path if self._is_kept else None


def keep_line(prefix: bytes, path: str) -> KeptLine | None:
    """Begin to keep a line of an agent's program, if it is a result or a reply: ``prefix`` is its start."""
    if not _RESULT.search(prefix):
        return None
    try:
        return KeptLine(path)
    except OSError as error:
        logger.error("cannot keep %s: %s", path, error.strerror or error)
        return None


_RESULT = re.compile(rb'"method"\s*:\s*"agent/completed"|"result"\s*:')


def _open_file(path: str, size: int) -> int:
    directory = Path(path).parent
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    _make_room(directory, size)
    # O_EXCL: never through a link, or into a file, that somebody else has put there.
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)


def _make_room(directory: Path, size: int) -> None:
    found = []
    for path in directory.iterdir():
        with suppress(OSError):  # another hub of this user may be doing the same
            status = path.lstat()
            found.append((status.st_mtime_ns, status.st_size, path))
    found.sort()
    count, total = len(found) + 1, sum(one[1] for one in found) + size
    for _, bytes_, path in found:
        if count <= FILES and total <= FILES_BYTES:
            return
        with suppress(OSError):
            path.unlink()
        count, total = count - 1, total - bytes_
