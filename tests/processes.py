"""What the kernel knows of processes, for tests that start real ones. Linux has it all in ``/proc``."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import trio


def python(code: str, *arguments: str) -> list[str]:
    """A program, as quick to start as Python can be."""
    return [sys.executable, "-I", "-S", "-c", code, *arguments]


def is_alive(pid: int) -> bool:
    """Whether the process runs. A zombie does not: init may reap at its leisure."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return not Path("/proc/self").exists()


def children_of_ours() -> set[int]:
    """Children of this process, zombies included, the guards of its hubs and who forks (``warm``) not."""
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        with suppress(FileNotFoundError):  # a thread that has just ended
            found |= {int(pid) for pid in (task / "children").read_text().split()}
    return {pid for pid in found if not _is_guard(pid)}


def _is_guard(pid: int) -> bool:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return False
    return b"agents/guard.py" in command or b"tests/warm.py" in command


def open_fds() -> set[int]:
    """The descriptors that this process has open."""
    return {int(fd) for fd in os.listdir("/proc/self/fd")}


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that the kernel tells nobody: there is only looking."""
    with trio.fail_after(10):
        while not condition():  # noqa: ASYNC110
            await trio.sleep(0.01)


def resident_bytes(pid: int | str = "self") -> int:
    """The memory that a process has now."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
