"""A child process, with everything it starts, as something you can leave.

``open_child`` puts each child into a session and process group of its own and guarantees that the
group is gone when its block is left: the end of standard input first, then SIGTERM, then SIGKILL.
Standard error is always drained. What is said over standard input and output is the caller's business:
``command.py``, and ``ProcessAgent`` in ``types.py``.

Out of reach: a process that leaves the group on purpose (``setsid``). It survives, but it keeps
nobody waiting.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress

import trio

from loopal_cluster.agents.guard import Guard, living_groups, signal_group
from loopal_cluster.errors import ClusterError
from loopal_cluster.links.background import open_background
from loopal_cluster.links.descriptors import with_first_limit
from loopal_cluster.links.logs import get_logger
from loopal_cluster.links.pipes import ReadPipe

__all__ = ["Child", "ChildNotStarted", "open_child"]

KILL_TIMEOUT = 5.0
"""For the kernel to end a process after SIGKILL. Only one that hangs in the kernel takes longer."""
ORPHANS_TIMEOUT = 1.0
"""For the rest of a group to end after SIGKILL, once its leader has."""
TAIL_BYTES = 8192
"""So much of the end of standard error is kept."""
LAST_WORDS = 500
"""So many characters of it, and at most three lines, are part of how a child ended."""

log = get_logger(__name__)


class ChildNotStarted(ClusterError):
    """The program, or the directory it should run in, cannot be used; one line that names it."""


@asynccontextmanager
async def open_child(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    grace: float = 5.0,
    guard: Guard | None = None,
    on_stderr: Callable[[str], None] | None = None,
) -> AsyncIterator[Child]:
    """Run a program until the block is left; then it and its process group are gone and reaped.

    The program is looked up on the child's own PATH, or from ``cwd`` if its name contains a slash.
    ``env`` is the whole environment; None inherits ours. Leaving the block stops the child as
    ``Child.stop`` does, also when cancelled, and so takes at most ``grace`` and a few seconds for the
    kernel. ``guard`` ends the child if our own process is killed. ``on_stderr`` is called with
    each line of standard error; in any case the end of it is kept.

    Raises:
        ChildNotStarted: there is no such program or directory, or the system refused.
    """
    process = await _start(argv, env, cwd)
    child = Child(process, os.path.basename(argv[0]), grace, guard, on_stderr)
    async with open_background() as nursery:
        nursery.start_soon(child._supervise)
        try:
            yield child
        finally:
            with trio.move_on_after(grace + 2 * KILL_TIMEOUT, shield=True):
                await child.stop()
            child._close()


class Child:
    """A running child process; made by ``open_child``."""

    pid: int
    """The process id; also the id of its session and its process group."""
    stdin: trio.abc.SendStream
    stdout: trio.abc.ReceiveStream
    """Ends when the child has, even if a process it left behind holds the pipe open."""

    def __init__(
        self,
        process: trio.Process,
        name: str,
        grace: float,
        guard: Guard | None,
        on_stderr: Callable[[str], None] | None = None,
    ) -> None:
        assert process.stdin is not None
        self.pid = process.pid
        self.stdin = process.stdin
        self.stdout = self._stdout = _output(process.stdout)
        self._stderr = _output(process.stderr)
        self._stderr_tail = bytearray()
        self._process = process
        self._name = name
        self._grace = grace
        self._guard = guard
        self._on_stderr = on_stderr
        self._status: int | None = None  # once set, the child has been reaped and its pid may be reused
        self._ended = trio.Event()  # and the rest of its group is gone and its last words are known
        # Shielded, because the cleanup of a cancelled block still needs to learn of the child's end.
        self._supervision = trio.CancelScope(shield=True)
        if guard is not None:
            guard.watch(self.pid)

    async def wait(self) -> int:
        """Wait for the child to end by itself: its exit status, or minus the signal that killed it.

        Whatever is left of its process group has then been killed.
        """
        await self._ended.wait()
        assert self._status is not None
        return self._status

    async def stop(self) -> str:
        """Stop the child and its group, and say how it ended.

        Standard input is closed; after two thirds of ``grace`` seconds comes SIGTERM, at their end SIGKILL.
        Returns when the child is reaped. May be repeated, also by several tasks, and if cancelled
        is carried on by leaving ``open_child``.
        """
        await trio.aclose_forcefully(self.stdin)
        await self._ended_within(self._grace * 2 / 3)
        if not self._ended.is_set():
            self._signal(signal.SIGTERM)
            await self._ended_within(self._grace / 3)
        if not self._ended.is_set():
            self._signal(signal.SIGKILL)
            await self._ended_within(KILL_TIMEOUT)
        if not self._ended.is_set():
            log.error("%r is still there %g s after SIGKILL", self, KILL_TIMEOUT)
        return self.ending

    def terminate(self) -> None:
        """Ask with SIGTERM, now: for a child to which the end of standard input says nothing."""
        self._signal(signal.SIGTERM)

    @property
    def ending(self) -> str:
        """How the child ended, in one line: ``exited with status 3: its last words on stderr``."""
        lines = [line.strip() for line in self.stderr_tail.splitlines() if line.strip()]
        last_words = " | ".join(lines[-3:])[-LAST_WORDS:]
        return f"{_ending(self._status)}: {last_words}" if last_words else _ending(self._status)

    @property
    def stderr_tail(self) -> str:
        """The last 8 KiB of what the child has written to standard error."""
        return self._stderr_tail.decode("utf-8", "replace")

    def __repr__(self) -> str:
        return f"<Child {self._name!r} pid {self.pid}: {_ending(self._status)}>"

    def _signal(self, signum: signal.Signals) -> None:
        if self._status is None:
            signal_group(self.pid, signum)

    async def _ended_within(self, seconds: float) -> None:
        with trio.move_on_after(seconds):
            await self._ended.wait()

    async def _supervise(self) -> None:
        """Drain standard error, reap the child, end its group, end its streams."""
        with self._supervision:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._drain_stderr)
                self._status = await self._process.wait()
                # Nothing may wait between reaping and this: only now is the group's number surely still ours.
                await _end_orphans(self.pid)
                self._stdout.end()
                self._stderr.end()
            if self._guard is not None:
                self._guard.forget(self.pid)
            self._ended.set()
            log.debug("%r", self)

    async def _drain_stderr(self) -> None:
        line = bytearray()
        async for chunk in self._stderr:
            self._stderr_tail += chunk
            del self._stderr_tail[:-TAIL_BYTES]
            *ended, rest = (bytes(line) + chunk).split(b"\n")
            line[:] = rest[-TAIL_BYTES:]
            for text in ended:
                self._on_stderr_line(text.decode("utf-8", "replace"))

    def _on_stderr_line(self, line: str) -> None:
        log.debug("stderr of %d: %s", self.pid, line)
        if self._on_stderr is not None:
            self._on_stderr(line)

    def _close(self) -> None:
        # If SIGKILL has not helped, this is where we stop waiting. The guard still knows the group.
        self._supervision.cancel()
        self._stdout.close()
        self._stderr.close()


def _output(pipe: trio.abc.ReceiveStream | None) -> ReadPipe:
    """A pipe from a child, of which the end may never come: whoever inherited it may hold it open.

    But what the child itself wrote is in it when the child has ended: so much is read, and no more.
    """
    assert isinstance(pipe, trio.lowlevel.FdStream)
    return ReadPipe(pipe)


async def _start(argv: Sequence[str], env: Mapping[str, str] | None, cwd: str | None) -> trio.Process:
    # In a thread, because a directory on the PATH may be on a file server that does not answer.
    program = await trio.to_thread.run_sync(_find_program, argv, env, cwd)
    try:
        return await trio.lowlevel.open_process(
            with_first_limit([program, *argv[1:]]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=env,
            cwd=cwd,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:  # ValueError: a NUL in an argument
        reason = getattr(error, "strerror", None) or error
        raise ChildNotStarted(f"program {argv[0]!r} could not be started: {reason}") from error


def _find_program(argv: Sequence[str], env: Mapping[str, str] | None, cwd: str | None) -> str:
    """The absolute path of the program: the child changes its directory before it looks."""
    if not argv:
        raise ChildNotStarted("no program was given")
    if cwd is not None and not os.path.isdir(cwd):
        what = "is not a directory" if os.path.exists(cwd) else "does not exist"
        raise ChildNotStarted(f"working directory {cwd!r} {what}")
    name = argv[0]
    if os.sep not in name:
        path = (os.environ if env is None else env).get("PATH", os.defpath)
        if (found := shutil.which(name, path=path)) is None:
            raise ChildNotStarted(f"program {name!r} was not found on PATH")
        return os.path.abspath(found)
    program = os.path.join(os.path.abspath(cwd or os.curdir), name)
    if not os.path.exists(program):
        raise ChildNotStarted(f"program {name!r} does not exist")
    if not (os.path.isfile(program) and os.access(program, os.X_OK)):
        raise ChildNotStarted(f"program {name!r} is not executable")
    return program


async def _end_orphans(pgid: int) -> None:
    """Kill what is left in the group of a child that has been reaped, and wait until it is dead."""
    pause = 0.001
    with trio.move_on_after(ORPHANS_TIMEOUT):
        while signal_group(pgid, signal.SIGKILL):
            _reap_adopted(pgid)
            # Most are gone within 30 ms. Those that are not may be dead and only not reaped.
            if pause > 0.03 and not await trio.to_thread.run_sync(living_groups, [pgid]):
                return
            await trio.sleep(pause)
            pause *= 2
        return
    log.warning("process group %d still has members %g s after SIGKILL", pgid, ORPHANS_TIMEOUT)


def _reap_adopted(pgid: int) -> None:
    """Reap orphans that became our own children: we are process 1 of a container."""
    with suppress(ChildProcessError):
        while os.waitpid(-pgid, os.WNOHANG)[0]:
            pass


def _ending(status: int | None) -> str:
    if status is None:
        return "still running"
    if status >= 0:
        return f"exited with status {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"killed by signal {-status}"  # a real-time signal
