"""The real processes of a drill: started, signalled, found in ``/proc``, and gone when it ends.

Every process of a site carries its mark in the environment, and so does whatever these start. So nothing
of them can hide, whatever was killed before it could clean up. The price: only Linux lets us look.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path

import trio
from attrs import define, field

from benchmarks.drills.agents import JOURNAL
from loopal_cluster import Client, connect

__all__ = ["Program", "Site", "is_alive", "open_site", "until"]

MARK = "LOOPAL_DRILL"
START_TIMEOUT = 20.0
"""For a process to be up, on a loaded machine."""
STOP_TIMEOUT = 20.0
"""For a hub to end: three times its ``stop_grace``, and ample time to be scheduled."""
LEFT_TIMEOUT = 5.0
"""For what a killed hub left behind: its guard gives it a second before it kills."""

ROOT = Path(__file__).parents[2]
AGENTS = "benchmarks.drills.agents"

CONFIG = f"""
[agents.desk]
protocol = "python"
target = "{AGENTS}:desk"

[agents.process-desk]
protocol = "python"
target = "{AGENTS}:desk"
process = true

[agents.note]
protocol = "python"
target = "{AGENTS}:note"

[agents.nap]
protocol = "python"
target = "{AGENTS}:nap"

[agents.boss]
protocol = "python"
target = "{AGENTS}:boss"
process = true

[agents.sleeper]
protocol = "command"
command = ["sh", "-c", "sleep 600 & exec sleep 600"]
"""
"""What every hub of a drill can run. A sleeper is two processes: to stop it is to stop its group."""


@define(eq=False)
class Program:
    """A MetaHub or a hub that runs."""

    name: str
    process: trio.Process
    said: str = ""
    """On standard error, so far."""
    ended: bool = False
    _heard: trio.lowlevel.ParkingLot = field(factory=trio.lowlevel.ParkingLot, repr=False)

    async def says(self, text: str) -> str:
        """Wait until it has said this; return what it says after it on that line."""
        with trio.fail_after(START_TIMEOUT):
            while text not in self.said:
                if self.ended:
                    raise ChildProcessError(f"{self.name} ended: {self.said.strip() or 'without a word'}")
                await self._heard.park()
        return self.said.partition(text)[2].partition("\n")[0]

    def freeze(self) -> None:
        """Stop it as a debugger does: its connections stay open, and nothing moves."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self.process.send_signal(signal.SIGCONT)

    async def kill(self) -> float:
        """Kill it, so that it can clean up nothing; return when that was."""
        at = trio.current_time()
        self.process.kill()
        await self.process.wait()
        return at

    async def stop(self) -> None:
        """End it in good order, if it runs."""
        if self.process.poll() is None:
            self.thaw()
            self.process.terminate()
            with trio.fail_after(STOP_TIMEOUT):
                await self.process.wait()

    async def listen(self) -> None:
        """Keep what it says."""
        assert self.process.stderr is not None
        async with self.process.stderr as stderr:
            async for chunk in stderr:
                self.said += chunk.decode(errors="replace")
                self._heard.unpark_all()
        self.ended = True
        self._heard.unpark_all()


@define(eq=False)
class Site:
    """A cluster of real processes on loopback, in a directory of its own. Made by ``open_site``."""

    directory: Path
    say: Callable[[str], None]
    """Tells whoever watches what is being done."""
    _nursery: trio.Nursery = field(repr=False)
    mark: str = field(factory=lambda: secrets.token_hex(8))
    token: str = field(factory=lambda: secrets.token_hex(16), repr=False)
    address: str = "127.0.0.1:0"
    """The MetaHub's, once it has been started; it keeps its port."""
    programs: dict[str, Program] = field(factory=dict)
    """By name; a hub that was started again replaces the one before."""

    async def start_meta_hub(self, *options: str) -> Program:
        """Start the MetaHub, or start it again; return when it listens."""
        program = await self._start("metahub", "metahub", "--bind", self.address, *options)
        self.address = (await program.says("MetaHub listening on ")).strip()
        return program

    async def start_hub(self, name: str, *, join: str | None = None) -> Program:
        """Start a hub; return when it has joined."""
        config = self.directory / "hub.toml"
        config.write_text(CONFIG)
        arguments = ["hub", "--server", "--hub-name", name, "--config", str(config)]
        program = await self._start(name, *arguments, "--join-hub", join or self.address)
        await program.says("ready (joined")
        return program

    async def start_cluster(self, *hubs: str, options: Iterable[str] = ()) -> Program:
        """Start a MetaHub and, at the same time, all its hubs; return the MetaHub."""
        meta_hub = await self.start_meta_hub(*options)
        async with trio.open_nursery() as nursery:
            for hub in hubs:
                nursery.start_soon(self.start_hub, hub)
        self.say(f"a MetaHub and {len(hubs)} hubs are up")
        return meta_hub

    def connect(self, program: str) -> AbstractAsyncContextManager[Client]:
        """Be a client of a hub, or of the MetaHub."""
        if program == "metahub":
            return connect(self.address, token=self.token, name="drill")
        found = json.loads((self.directory / "loopal-cluster" / f"{program}.json").read_text())
        return connect(f"unix:{found['unix']}", token=found["token"], name="drill")

    def journal(self) -> list[str]:
        """The lines that agents have written down."""
        path = self.directory / "journal"
        return path.read_text().splitlines() if path.exists() else []

    def processes(self, words: str = "") -> set[int]:
        """The living processes of this site, guards included, whose command line has these words."""
        mark = f"{MARK}={self.mark}".encode()
        found = (pid for pid in _pids() if mark in _read(pid, "environ") and is_alive(pid))
        return {pid for pid in found if words.encode() in _read(pid, "cmdline").replace(b"\0", b" ")}

    async def stop(self) -> int:
        """End everything in good order, the MetaHub last; return how many processes are left then."""
        async with trio.open_nursery() as nursery:
            for name in self.programs.keys() - {"metahub"}:
                nursery.start_soon(self.programs[name].stop)
        await self.programs["metahub"].stop()
        with trio.move_on_after(LEFT_TIMEOUT):
            await until(lambda: not self.processes())
        return len(self.processes())

    async def _start(self, name: str, *arguments: str) -> Program:
        process = await trio.lowlevel.open_process(
            [sys.executable, "-m", "loopal_cluster", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=self.environment(),
            start_new_session=True,  # or Ctrl-C would end it before we can
        )
        program = self.programs[name] = Program(name, process)
        self._nursery.start_soon(program.listen)
        return program

    def environment(self) -> dict[str, str]:
        """What every process of the site is started with."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith("LOOPAL_")}
        path = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        return kept | {
            "PYTHONPATH": os.pathsep.join(path),
            "XDG_RUNTIME_DIR": str(self.directory),
            "LOOPAL_META_HUB_TOKEN": self.token,
            JOURNAL: str(self.directory / "journal"),
            MARK: self.mark,
        }

    async def _kill_all(self) -> None:
        """End every process, whatever it is and whoever started it."""
        while pids := self.processes():
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            await trio.sleep(0.01)
        for program in self.programs.values():
            await program.process.wait()


@asynccontextmanager
async def open_site(say: Callable[[str], None]) -> AsyncIterator[Site]:
    """A site for the length of the block; then, whatever happened, nothing of it is left."""
    with tempfile.TemporaryDirectory(prefix="drill-") as directory:
        async with trio.open_nursery() as nursery:
            site = Site(Path(directory), say, nursery)
            try:
                yield site
            finally:
                with trio.CancelScope(shield=True), trio.fail_after(STOP_TIMEOUT):
                    await site._kill_all()
                nursery.cancel_scope.cancel()


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that the kernel tells nobody: there is only looking."""
    while not condition():  # noqa: ASYNC110
        await trio.sleep(0.01)


def is_alive(pid: int) -> bool:
    """Whether the process runs. A zombie does not: init may reap at its leisure."""
    state = _read(pid, "stat").rpartition(b")")[2].split()[:1]
    return state not in ([], [b"Z"], [b"X"])


def _pids() -> Iterator[int]:
    return (int(name) for name in os.listdir("/proc") if name.isdigit())


def _read(pid: int, name: str) -> bytes:
    """A file of ``/proc``; empty if the process is gone, or somebody else's."""
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""
