"""``python -m benchmarks.drills`` as people run it: with real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import trio

from benchmarks.drills.__main__ import DRILLS

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "benchmarks.drills"]
EVERYDAY = "callee-killed"
"""The drill that is part of the everyday tests."""


async def run(*arguments: str) -> tuple[int, str, str]:
    done = await trio.run_process(
        [*COMMAND, *arguments], cwd=ROOT, capture_stdout=True, capture_stderr=True, check=False
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


@pytest.mark.limit(120)
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == EVERYDAY else [pytest.mark.slow]) for name in DRILLS]
)
async def test_a_drill_loses_nothing_doubles_nothing_and_leaves_nothing(name: str) -> None:
    _, out, err = await run("--json", "--only", name)

    (drill,) = json.loads(out)["drills"]
    # Not its times: other tests run beside this one.
    assert [drill["name"], drill["lost"], drill["doubled"], drill["left"]] == [name, 0, 0, 0], err
    assert all("wanted" in fault for fault in drill["faults"]), err


async def test_an_unknown_drill_is_refused_in_one_line() -> None:
    status, out, err = await run("--only", "nonsense")

    assert (status, out) == (2, "")
    assert err.startswith("error: argument --only: invalid choice: 'nonsense'")
    assert err.count("\n") == 1


async def test_ctrl_c_leaves_no_process_and_no_directory(short_path: Path) -> None:
    process = await trio.lowlevel.open_process(
        [*COMMAND, "--only", "hub-killed"],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(short_path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    async with process.stderr as stderr:
        try:
            await says(stderr, "are up")
            assert processes_of(short_path)

            process.send_signal(signal.SIGINT)

            assert await process.wait() == 130
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()
    assert processes_of(short_path) == []
    assert os.listdir(short_path) == []


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A directory for sockets, whose paths may have no more than a hundred characters."""
    with tempfile.TemporaryDirectory(prefix="t-") as directory:
        yield Path(directory)


async def says(stderr: trio.abc.ReceiveStream, text: str) -> None:
    """Wait until a process has said this."""
    said = ""
    while text not in said:
        chunk = await stderr.receive_some()
        assert chunk, said
        said += chunk.decode()


def processes_of(directory: Path) -> list[str]:
    """The processes that work in a directory: it is in their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):  # it has ended, or is somebody else's
            if f"JOURNAL={directory}/".encode() in path.read_bytes():
                found.append(path.parent.name)
    return found
