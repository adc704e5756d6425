"""Kills what a dead hub leaves behind.

A hub that is killed cannot clean up, and ``PR_SET_PDEATHSIG`` does not help: it fires when the
*thread* that forked ends, and trio forks in a worker thread. So each hub has one small guard
process that holds the other end of a pipe. The hub writes ``+group start-time`` and ``-group``; when
the pipe ends, in whatever way the hub did, the guard ends every group that is still on its list.

This file is both halves: ``Guard`` is the hub's, ``main`` the guard process's. The latter runs without
site-packages, which is why nothing but the standard library is imported at the top.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

__all__ = ["Guard", "living_groups", "open_guard", "signal_group"]

TERM_TIMEOUT = 1.0
"""Between SIGTERM and SIGKILL, once the hub is dead."""
CLOSE_TIMEOUT = 3.0
"""For the guard process to end after its pipe: ``TERM_TIMEOUT`` and ample time to be scheduled."""
UNREAD_BYTES = 2**20
"""More than this unread, some 50,000 children, and the guard process must be stuck."""

log = logging.getLogger(__name__)


@asynccontextmanager
async def open_guard() -> AsyncIterator[Guard]:
    """A guard for the children of one hub.

    Its process starts with the first child. Open it around everything that opens children: groups that
    are still watched when it closes are ended then, as if the hub had died.
    """
    import trio  # not at the top: the guard process must not need it

    guard = Guard()
    try:
        yield guard
    finally:
        if guard.pid is not None:
            # close() brings its own, shorter bound; a thread cannot be cancelled anyway.
            with trio.move_on_after(2 * CLOSE_TIMEOUT, shield=True):
                await trio.to_thread.run_sync(guard.close)


class Guard:
    """The hub's half: tells the guard process which process groups to end if the hub dies.

    ``watch`` and ``forget`` never raise, because a guard that cannot be had is worth a warning and not a
    failed child, and never wait, except half a millisecond for a guard process to be started.
    """

    def __init__(self) -> None:
        self._groups: dict[int, int] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._unread = bytearray()
        self._warned = False

    @property
    def pid(self) -> int | None:
        """The guard process, if there is one."""
        return self._process.pid if self._process else None

    def watch(self, pgid: int) -> None:
        """End this group if the hub dies. Call it before the group's leader can have been reaped."""
        self._groups[pgid] = start_time(pgid)
        self._tell(_watch_line(pgid, self._groups[pgid]))

    def forget(self, pgid: int) -> None:
        """This group is gone."""
        if self._groups.pop(pgid, None) is not None:
            self._tell(b"-%d\n" % pgid)

    def close(self) -> None:
        """End the guard process and, through it, the groups still watched. Blocks up to ``CLOSE_TIMEOUT``."""
        if self._process is None:
            return
        _close_pipe(self._process)
        try:
            self._process.wait(CLOSE_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._discard()
        self._process = None

    def _tell(self, line: bytes) -> None:
        for _ in range(2):  # the second time to a new process, which is told everything
            try:
                self._send(line)
                return
            except OSError as error:
                self._warn(error)
                self._discard()

    def _send(self, line: bytes) -> None:
        if self._process is None:
            if not self._groups:
                return
            self._process = _start_process()
            line = b"".join(_watch_line(pgid, started) for pgid, started in self._groups.items())
        self._unread += line
        assert self._process.stdin is not None
        # None: the pipe is full. What is left follows with the next line.
        written = self._process.stdin.write(self._unread) or 0
        del self._unread[:written]
        if len(self._unread) > UNREAD_BYTES:
            raise OSError("it does not read")

    def _discard(self) -> None:
        """Kill the guard process, and only then close its pipe: it must not take that for our death."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            _close_pipe(self._process)
        self._process = None
        self._unread.clear()

    def _warn(self, error: Exception) -> None:
        if not self._warned:
            log.warning("the guard process failed and is replaced: %s", error)
        self._warned = True


def _start_process() -> subprocess.Popen[bytes]:
    # Our end of the pipe is close-on-exec, as all descriptors of Python are: a child that inherited it
    # would keep the guard from seeing the end. A session of its own, or Ctrl-C would end the guard first.
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-E", os.path.abspath(__file__)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        bufsize=0,
        cwd="/",
        start_new_session=True,
    )
    assert process.stdin is not None
    os.set_blocking(process.stdin.fileno(), False)
    return process


def _close_pipe(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.close()


def _watch_line(pgid: int, started: int) -> bytes:
    return b"+%d %d\n" % (pgid, started)


def signal_group(pgid: int, signum: int) -> bool:
    """Signal a process group; False if there is nobody left to signal.

    On Linux a group of zombies still counts as somebody; on macOS it is refused with EPERM.
    """
    try:
        os.killpg(pgid, signum)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def living_groups(pgids: Iterable[int]) -> set[int]:
    """Which of these process groups have a member that is more than a zombie.

    An init that is slow to reap must not be taken for a process that is slow to die. Only Linux lets us
    see the difference, at the price of a walk through ``/proc``; elsewhere zombies do not answer anyway.
    """
    groups = {pgid for pgid in pgids if signal_group(pgid, 0)}
    if not groups or not os.path.isdir("/proc/self"):
        return groups
    return groups & {_group_of(pid) for pid in os.listdir("/proc") if pid.isdigit()}


def _group_of(pid: str) -> int:
    """The group of a process; 0, which is no group, if the process is a zombie or gone."""
    state, _, pgid, *_ = _stat(pid) or ("X", "", "0")
    return 0 if state in "ZX" else int(pgid)


def start_time(pid: int) -> int:
    """When a process started, in clock ticks after boot; 0 if that cannot be known (no ``/proc``, no process)."""
    fields = _stat(pid)
    return int(fields[19]) if fields else 0


def _stat(pid: int | str) -> list[str]:
    """The fields of ``/proc/PID/stat`` from the third on (proc(5)); empty if there is none."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
            # The second field is the program's name in parentheses, and may contain anything.
            return stat.read().rpartition(")")[2].split()
    except OSError:
        return []


# The guard process.


def main() -> None:
    """Read the list from standard input; when that ends, end what is on it."""
    # A service manager signals every process of the hub at once, and the hub is only about to clean up.
    # The guard goes last: when the hub has gone.
    for signum in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, signal.SIG_IGN)
    end_groups(read_groups(sys.stdin.buffer))


def read_groups(lines: Iterable[bytes]) -> dict[int, int]:
    """The groups left when the hub is gone, with the start times of their leaders."""
    groups: dict[int, int] = {}
    for line in lines:
        if not line.endswith(b"\n"):
            break  # the hub died while it wrote
        if line.startswith(b"+"):
            pgid, started = map(int, line[1:].split())
            groups[pgid] = started
        else:
            groups.pop(int(line[1:]), None)
    return groups


def end_groups(groups: dict[int, int]) -> None:
    """SIGTERM, ``TERM_TIMEOUT`` to comply, SIGKILL."""
    ours = _signal_all(groups, signal.SIGTERM)
    kill_at = time.monotonic() + TERM_TIMEOUT
    while living_groups(ours) and time.monotonic() < kill_at:
        time.sleep(0.02)
    _signal_all(ours, signal.SIGKILL)


def _signal_all(groups: dict[int, int], signum: int) -> dict[int, int]:
    """Signal the groups that are still ours, and return those that are."""
    return {pgid: at for pgid, at in groups.items() if _is_ours(pgid, at) and signal_group(pgid, signum)}


def _is_ours(pgid: int, started: int) -> bool:
    # A number is not given to a new process while it is the id of a group. So: another process has it,
    # then our group is gone; no process has it, then what is in the group are its leader's orphans.
    return start_time(pgid) in (0, started) or started == 0


if __name__ == "__main__":
    main()
