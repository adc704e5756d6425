"""What a dead hub leaves behind, with real hubs that really die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from loopal_cluster.agents import guard as guard_module
from loopal_cluster.agents.children import open_child
from loopal_cluster.agents.guard import Guard, open_guard

from ..processes import is_alive, until

pytestmark = pytest.mark.skipif(os.name != "posix", reason="process groups are POSIX")

needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")

HUB = """
import sys, trio
from loopal_cluster.agents.children import open_child
from loopal_cluster.agents.guard import open_guard

async def main():
    async with open_guard() as guard, open_child(["sh", "-c", sys.argv[1]], guard=guard) as child:
        pids = b""
        while not pids.endswith(b"\\n"):
            pids += await child.stdout.receive_some()
        print(guard.pid, child.pid, pids.decode(), flush=True)
        await trio.sleep_forever()

trio.run(main)
"""


async def until_gone(*pids: int) -> None:
    await until(lambda: not any(map(is_alive, pids)))


@contextmanager
def running_sleeper() -> Iterator[int]:
    with subprocess.Popen(["sleep", "1000"], start_new_session=True) as process:
        yield process.pid
        process.kill()


@pytest.fixture
def sleeper() -> Iterator[int]:
    """A process with a group of its own."""
    with running_sleeper() as pid:
        yield pid


@pytest.fixture
def other_sleeper() -> Iterator[int]:
    """Another one."""
    with running_sleeper() as pid:
        yield pid


def start_time(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


async def run_guard_process(text: str) -> None:
    """The guard process's half alone, with everything the hub ever said."""
    await trio.run_process(
        [sys.executable, "-I", "-S", guard_module.__file__], stdin=text.encode(), check=True
    )


async def killed_hub(script: str) -> tuple[int, list[int]]:
    """Kill a hub whose child ran ``script``: its guard, and the pids that outlived it at first."""
    argv = [sys.executable, "-c", HUB, script]
    hub = await trio.lowlevel.open_process(argv, stdout=subprocess.PIPE)
    assert hub.stdout is not None
    async with hub.stdout:
        line = b""
        while not line.endswith(b"\n"):
            chunk = await hub.stdout.receive_some()
            assert chunk, "the hub did not start"
            line += chunk
    guard_pid, *pids = map(int, line.split())
    assert all(map(is_alive, [guard_pid, *pids]))
    hub.kill()
    await hub.wait()
    return guard_pid, pids


async def test_a_killed_hub_leaves_no_child_and_no_grandchild() -> None:
    guard_pid, pids = await killed_hub("sleep 1000 & echo $!; wait")

    with trio.fail_after(3):
        await until_gone(*pids, guard_pid)


async def test_children_of_a_killed_hub_that_ignore_sigterm_are_killed() -> None:
    guard_pid, pids = await killed_hub("trap '' TERM; sleep 1000 & echo $!; wait; wait")

    with trio.fail_after(4):
        await until_gone(*pids, guard_pid)


async def test_grandchildren_of_a_killed_hub_die_although_the_child_went_first() -> None:
    # The end of its input ends the child before the guard has looked.
    guard_pid, pids = await killed_hub("(trap '' TERM; exec sleep 1000 >&- 2>&-) & echo $!; cat")

    with trio.fail_after(4):
        await until_gone(*pids, guard_pid)


async def test_a_guard_is_not_started_before_it_is_needed() -> None:
    async with open_guard() as guard:
        guard.forget(1)

        assert guard.pid is None


async def test_a_guard_ends_with_its_hub_and_leaves_forgotten_groups_alone(sleeper: int) -> None:
    async with open_guard() as guard:
        guard.watch(sleeper)
        guard_pid = guard.pid
        guard.forget(sleeper)

    assert guard_pid is not None
    assert not is_alive(guard_pid)
    assert is_alive(sleeper)


async def test_closing_a_guard_ends_what_is_still_watched(sleeper: int) -> None:
    async with open_guard() as guard:
        guard.watch(sleeper)

    assert not is_alive(sleeper)


async def test_a_child_is_watched_while_it_lives() -> None:
    class RecordingGuard(Guard):
        calls: list[tuple[str, int]] = []  # noqa: RUF012

        def watch(self, pgid: int) -> None:
            self.calls.append(("watch", pgid))

        def forget(self, pgid: int) -> None:
            self.calls.append(("forget", pgid))

    guard = RecordingGuard()
    async with open_child(["cat"], guard=guard) as child:
        assert guard.calls == [("watch", child.pid)]

    assert guard.calls == [("watch", child.pid), ("forget", child.pid)]


@needs_proc
async def test_a_guard_outlives_the_signals_that_end_a_hub(sleeper: int) -> None:
    async with open_guard() as guard:
        guard.watch(sleeper)
        assert guard.pid is not None
        assert os.getsid(guard.pid) != os.getsid(0)
        await _until_ready(guard.pid)
        for signum in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
            os.kill(guard.pid, signum)

    assert not is_alive(sleeper)


async def _until_ready(guard_pid: int) -> None:
    """Until the guard process ignores signals: the last thing it does before it reads."""
    await until(lambda: ignores(guard_pid, signal.SIGTERM))


def ignores(pid: int, signum: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    (mask,) = [line.split()[1] for line in status if line.startswith("SigIgn:")]
    return bool(int(mask, 16) & 1 << (signum - 1))


async def test_a_guard_that_died_is_replaced_and_told_everything(
    sleeper: int, other_sleeper: int, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_guard() as guard:
        guard.watch(sleeper)
        for _ in range(2):
            assert guard.pid is not None
            os.kill(guard.pid, signal.SIGKILL)
            await until_gone(guard.pid)
            guard.watch(other_sleeper)

    assert not is_alive(sleeper)
    assert not is_alive(other_sleeper)
    assert caplog.messages == ["the guard process failed and is replaced: [Errno 32] Broken pipe"]


async def test_a_guard_that_cannot_be_started_is_one_warning() -> None:
    hub = """
import logging, sys, trio
from loopal_cluster.agents.children import open_child
from loopal_cluster.agents.guard import open_guard

async def main():
    async with open_guard() as guard:
        for _ in range(2):
            async with open_child(["true"], guard=guard) as child:
                assert await child.wait() == 0

logging.basicConfig()
sys.executable = "/missing/python"
trio.run(main)
"""

    ended = await trio.run_process([sys.executable, "-c", hub], capture_stderr=True)

    (warning,) = ended.stderr.decode().splitlines()
    assert warning.endswith(
        "the guard process failed and is replaced: [Errno 2] No such file or directory: '/missing/python'"
    )


async def test_a_guard_that_does_not_read_never_blocks_the_hub(sleeper: int) -> None:
    async with open_guard() as guard:
        guard.watch(sleeper)
        first = guard.pid
        assert first is not None
        os.kill(first, signal.SIGSTOP)
        while guard.pid == first:
            guard.watch(2**31 - 1)  # above any process id
            guard.forget(2**31 - 1)

        assert not is_alive(first)
        assert is_alive(sleeper)


@needs_proc
async def test_a_reused_process_id_is_left_alone(sleeper: int) -> None:
    await run_guard_process(f"+{sleeper} {start_time(sleeper) - 1}\n")
    assert is_alive(sleeper)

    await run_guard_process(f"+{sleeper} {start_time(sleeper)}\n")
    assert not is_alive(sleeper)


async def test_a_group_without_a_known_start_is_ended(sleeper: int) -> None:
    await run_guard_process(f"+{sleeper} 0\n")

    assert not is_alive(sleeper)


async def test_a_line_cut_short_by_the_hubs_death_is_ignored(sleeper: int) -> None:
    await run_guard_process(f"+{sleeper} 0")

    assert is_alive(sleeper)
