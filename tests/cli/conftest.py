"""The real program, as a process, with a runtime directory of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from attrs import define, field

from ..warm import WarmProcess, open_program, run_program


@define(eq=False)
class Running:
    """A program that runs: what it has said so far, and what it ended with."""

    process: WarmProcess
    out: str = ""
    err: str = ""
    _heard: trio.lowlevel.ParkingLot = field(factory=trio.lowlevel.ParkingLot)

    async def says(self, text: str, *, on: str = "err") -> str:
        """Wait until it has said this; return all it has said there."""
        while text not in getattr(self, on):
            await self._heard.park()
        said: str = getattr(self, on)
        return said

    async def types(self, text: str) -> None:
        """Write to its standard input."""
        await self.process.stdin.send_all(text.encode())

    async def ends_input(self) -> None:
        """Close its standard input."""
        await self.process.stdin.aclose()

    async def ends(self) -> int:
        """Wait until it has ended; return its exit status."""
        return await self.process.wait()

    async def listen(self, on: str, stream: trio.abc.ReceiveStream | None) -> None:
        """Keep what it says."""
        assert stream is not None
        async for chunk in stream:
            setattr(self, on, getattr(self, on) + chunk.decode())
            self._heard.unpark_all()


@define
class Program:
    """Starts the program."""

    directory: Path
    """Where its runtime directory is; nothing else of the machine's is seen."""
    environment: dict[str, str]

    async def run(self, *arguments: str, stdin: str = "", **env: str) -> subprocess.CompletedProcess[str]:
        """Run it to its end."""
        ran = await run_program(*arguments, env=self.environment | env, stdin=stdin.encode())
        return subprocess.CompletedProcess(arguments, *ran)

    @asynccontextmanager
    async def start(self, *arguments: str, **env: str) -> AsyncIterator[Running]:
        """Run it beside the block; it is killed if it has not ended then."""
        process = open_program(*arguments, env=self.environment | env)
        running = Running(process)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(running.listen, "out", process.stdout)
            nursery.start_soon(running.listen, "err", process.stderr)
            try:
                yield running
            finally:
                if process.poll() is None:
                    process.kill()
                with trio.CancelScope(shield=True):
                    await process.wait()
                    await _close(process.stdin)
        await _close(process.stdout)
        await _close(process.stderr)


async def _close(stream: trio.abc.AsyncResource | None) -> None:
    assert stream is not None
    await stream.aclose()


@pytest.fixture
def program() -> Iterator[Program]:
    """The program, in a directory of its own; a short one, for the path of a socket must be."""
    directory = Path(tempfile.mkdtemp(prefix="lc-"))
    hidden = ("LOOPAL_META_HUB_TOKEN", "PYTHONWARNINGS")
    environment = {key: value for key, value in os.environ.items() if key not in hidden}
    yield Program(
        directory,
        environment | {"XDG_RUNTIME_DIR": str(directory), "XDG_STATE_HOME": str(directory / "state")},
    )
    shutil.rmtree(directory)
