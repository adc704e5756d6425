"""A child and everything it starts, with real processes."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import trio

from loopal_cluster.agents.children import Child, ChildNotStarted, open_child

from ..processes import children_of_ours, is_alive, open_fds, python

pytestmark = pytest.mark.skipif(os.name != "posix", reason="process groups are POSIX")

DEAF = "import signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); signal.pause()"
"""Neither the end of standard input nor SIGTERM ends it."""
WITH_GRANDCHILD = "sleep 1000 & echo $!; cat"
"""For ``sh -c``: says who the grandchild is; ends with standard input."""
ESCAPE = (
    "import subprocess, sys; p = subprocess.Popen(sys.argv[1:], start_new_session=True); "
    "print(p.pid, file=sys.stderr); p.returncode = 0"
)
"""Leaves a process in another session that holds standard output and error open."""


async def read_line(child: Child) -> str:
    line = b""
    while not line.endswith(b"\n"):
        byte = await child.stdout.receive_some(1)
        assert byte, child.ending
        line += byte
    return line.decode().strip()


async def read_all(child: Child) -> bytes:
    return b"".join([chunk async for chunk in child.stdout])


@asynccontextmanager
async def deaf_child(grace: float) -> AsyncIterator[Child]:
    async with open_child(python(DEAF), grace=grace) as child:
        assert await read_line(child) == "ready"
        yield child


# Starting.


async def test_a_child_gets_its_arguments_environment_directory_and_input(tmp_path: Path) -> None:
    code = "import os, sys; print(sys.argv[1], os.environ['COLOUR'], os.getcwd(), sys.stdin.read())"
    env = {**os.environ, "COLOUR": "blue"}
    cwd = await trio.Path(tmp_path).resolve()

    async with open_child(python(code, "one"), env=env, cwd=str(cwd)) as child:
        await child.stdin.send_all(b"two")
        await child.stdin.aclose()
        output = await read_all(child)

        assert output.decode().split() == ["one", "blue", str(cwd), "two"]
        assert await child.wait() == 0


async def test_a_child_leads_a_session_and_a_group_of_its_own() -> None:
    async with open_child(["cat"]) as child:
        assert os.getsid(child.pid) == os.getpgid(child.pid) == child.pid


@pytest.mark.parametrize(
    ("argv", "cwd", "message"),
    [
        ([], None, "no program was given"),
        (["no-such-program"], None, "program 'no-such-program' was not found on PATH"),
        (["./missing"], None, "program './missing' does not exist"),
        (["./plain"], ".", "program './plain' is not executable"),
        (["./folder"], ".", "program './folder' is not executable"),
        (["cat"], "missing", "working directory '{cwd}' does not exist"),
        (["cat"], "plain", "working directory '{cwd}' is not a directory"),
        (["./garbage"], ".", "program './garbage' could not be started: Exec format error"),
        (["cat", "a\0b"], None, "program 'cat' could not be started: embedded null byte"),
    ],
)
async def test_a_child_that_cannot_be_started_says_why(
    tmp_path: Path, argv: list[str], cwd: str | None, message: str
) -> None:
    (tmp_path / "plain").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "garbage").write_bytes(b"\1\2\3")
    (tmp_path / "garbage").chmod(0o755)
    directory = None if cwd is None else str(tmp_path / cwd)

    with pytest.raises(ChildNotStarted) as caught:
        async with open_child(argv, cwd=directory):
            pytest.fail("it started")

    assert str(caught.value) == message.format(cwd=directory)


async def test_a_name_with_a_slash_is_looked_up_from_the_childs_directory(tmp_path: Path) -> None:
    program = tmp_path / "bin" / "hello"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho hello\n")
    program.chmod(0o755)

    async with open_child(["bin/hello"], cwd=str(tmp_path)) as child:
        assert await read_line(child) == "hello"


async def test_a_bare_name_is_looked_up_on_the_childs_path(tmp_path: Path) -> None:
    program = tmp_path / "hello"
    program.write_text("#!/bin/sh\necho hello\n")
    program.chmod(0o755)

    async with open_child(["hello"], env={"PATH": str(tmp_path)}) as child:
        assert await read_line(child) == "hello"
    with pytest.raises(ChildNotStarted, match="'cat' was not found on PATH"):
        async with open_child(["cat"], env={"PATH": str(tmp_path)}):
            pytest.fail("it started")


# Ending.


async def test_a_child_that_ends_by_itself_has_its_status_and_its_last_words() -> None:
    async with open_child(["sh", "-c", "echo one >&2; echo two >&2; exit 3"]) as child:
        status = await child.wait()

        assert status == 3
        assert child.stderr_tail == "one\ntwo\n"
        assert await child.stop() == await child.stop() == "exited with status 3: one | two"


async def test_a_child_that_ends_with_its_input_is_not_signalled() -> None:
    async with open_child(["cat"]) as child:
        assert await child.stop() == "exited with status 0"
        assert "'cat'" in repr(child)


async def test_a_child_that_ignores_its_input_gets_sigterm_before_the_grace_is_over() -> None:
    async with open_child(["sleep", "1000"], grace=0.05) as child:
        assert await child.stop() == "killed by SIGTERM"
        assert await child.wait() == -signal.SIGTERM


async def test_a_child_that_ignores_sigterm_too_is_killed() -> None:
    async with deaf_child(grace=0.3) as child:
        started_at = trio.current_time()

        assert await child.stop() == "killed by SIGKILL"
        assert 0.3 <= trio.current_time() - started_at < 2


async def test_a_stopped_child_is_killed_too() -> None:
    async with open_child(["cat"], grace=0.05) as child:
        os.kill(child.pid, signal.SIGSTOP)

        assert await child.stop() == "killed by SIGKILL"


async def test_terminate_does_not_wait_for_the_grace() -> None:
    async with open_child(["sleep", "1000"], grace=1000) as child:
        child.terminate()

        assert await child.stop() == "killed by SIGTERM"
        child.terminate()


async def test_a_stop_that_is_cancelled_is_carried_on_by_leaving() -> None:
    async with deaf_child(grace=0.1) as child:
        with trio.move_on_after(0.02) as patience:
            await child.stop()
        assert patience.cancelled_caught
        assert is_alive(child.pid)

    assert not is_alive(child.pid)


async def test_any_number_of_tasks_may_stop_a_child() -> None:
    endings: list[str] = []

    async def stop(child: Child) -> None:
        endings.append(await child.stop())

    async with deaf_child(grace=0.05) as child, trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(stop, child)

    assert endings == ["killed by SIGKILL"] * 3


async def test_cancelling_the_block_leaves_no_process() -> None:
    with trio.CancelScope() as scope:
        async with deaf_child(grace=0.05) as child:
            scope.cancel()
            await trio.sleep_forever()

    assert scope.cancelled_caught
    assert not is_alive(child.pid)
    assert child.ending == "killed by SIGKILL"


async def test_cancelling_while_starting_leaves_no_process() -> None:
    before = children_of_ours()

    with trio.CancelScope() as scope:
        scope.cancel()
        async with open_child(["sleep", "1000"], grace=0.05):
            await trio.sleep_forever()
    with trio.move_on_after(0.001):
        async with open_child(["sleep", "1000"], grace=0.05):
            await trio.sleep_forever()

    assert children_of_ours() == before


async def test_an_exception_of_the_block_comes_out_bare() -> None:
    with pytest.raises(ValueError, match="ours"):
        async with open_child(["sleep", "1000"], grace=0.05) as child:
            raise ValueError("ours")

    assert not is_alive(child.pid)


# Grandchildren.


async def test_grandchildren_die_with_a_child_that_ends_by_itself() -> None:
    async with open_child(["sh", "-c", WITH_GRANDCHILD]) as child:
        grandchild = int(await read_line(child))
        assert is_alive(grandchild)
        await child.stdin.aclose()

        assert await child.wait() == 0
        assert not is_alive(grandchild)


async def test_grandchildren_die_with_a_child_that_is_killed() -> None:
    code = "trap '' TERM; (trap '' TERM; sleep 1000 & echo $!; wait) & wait; wait"
    async with open_child(["sh", "-c", code], grace=0.05) as child:
        grandchild = int(await read_line(child))

    assert child.ending == "killed by SIGKILL"
    assert not is_alive(grandchild)


@pytest.mark.parametrize("program", [["sleep", "1000"], ["yes"]], ids=["silent", "flooding"])
async def test_a_process_that_escaped_and_holds_the_pipes_open_keeps_nobody_waiting(
    program: list[str],
) -> None:
    async with open_child(python(ESCAPE, *program)) as child:
        await read_all(child)  # its end is the child's end
        await child.wait()
    escaped = int(child.stderr_tail)

    # What floods dies of SIGPIPE, now that nobody has the other end.
    assert program == ["yes"] or is_alive(escaped)
    with suppress(ProcessLookupError):
        os.kill(escaped, signal.SIGKILL)


async def test_output_is_read_to_its_end_after_the_child_has_ended() -> None:
    async with open_child(["sh", "-c", "head -c 50000 /dev/zero"]) as child:
        await child.wait()

        assert len(await read_all(child)) == 50000
        assert await child.stdout.receive_some() == b""
        await child.stdout.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await child.stdout.receive_some()


async def test_a_child_may_close_its_output_and_go_on() -> None:
    async with open_child(["sh", "-c", "exec >&-; read line"]) as child:
        assert await read_all(child) == b""
        assert is_alive(child.pid)


# Standard error.


async def test_a_flood_on_stderr_does_not_block_and_the_tail_is_bounded() -> None:
    code = "import sys; sys.stderr.write('x' * 10_000_000 + 'end'); print('done')"
    async with open_child(python(code)) as child:
        assert await read_line(child) == "done"
        await child.wait()

        assert len(child.stderr_tail) == 8192
        assert child.stderr_tail.endswith("xend")
        assert len(child.ending) < 600


async def test_lines_on_stderr_are_logged_for_debugging(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "loopal_cluster")

    async with open_child(["sh", "-c", "echo hello >&2"]) as child:
        await child.wait()

    assert f"stderr of {child.pid}: hello" in caplog.messages


# Nothing is left.


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
async def test_a_hundred_children_leave_no_process_and_no_descriptor() -> None:
    async with open_child(["true"]) as child:
        await child.wait()
    processes, descriptors = children_of_ours(), open_fds()
    limiter = trio.CapacityLimiter(20)

    async def spawn(number: int) -> None:
        async with limiter, open_child(["sh", "-c", WITH_GRANDCHILD], grace=0.3) as child:
            pids.append(int(await read_line(child)))
            pids.append(child.pid)
            if number % 2:
                os.kill(child.pid, signal.SIGKILL)

    pids: list[int] = []
    async with trio.open_nursery() as nursery:
        for number in range(100):
            nursery.start_soon(spawn, number)

    assert len(pids) == 200
    assert not [pid for pid in pids if is_alive(pid)]
    assert children_of_ours() == processes
    assert open_fds() == descriptors
