"""The load generator as a function: compile it, run it against a server, get what it has measured."""

from __future__ import annotations

import resource
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec
from attrs import evolve, frozen

from benchmarks.errors import BenchmarkError
from benchmarks.processes import busy_seconds, cpu_seconds, pinned
from benchmarks.servers import Server

__all__ = ["Events", "Faults", "Latency", "Load", "Sample", "compiled", "measure"]

HERE = Path(__file__).parent
PATIENCE = 600.0
"""Seconds for one run of the generator."""

Load = Mapping[str, int | float | str]
"""Settings of ``generator.c``, where they are not its defaults."""


@frozen
class Latency:
    """How many requests of one closed loop were answered, and after what time."""

    routes: int
    per_second: float
    p50_us: float
    p99_us: float
    max_us: float


@frozen
class Events:
    """Events beside the load: sent by a hub, seen by an observer."""

    sent: int
    seen: int
    gaps: int
    """Events that the observer has not seen, by their numbers."""
    per_second: float
    """Seen."""


@frozen
class Faults:
    """What went wrong. ``first`` says what did so first."""

    lost: int
    refused: int
    misplaced: int
    doubled: int
    first: str = ""

    def __bool__(self) -> bool:
        return bool(self.lost or self.refused or self.misplaced or self.doubled)


@frozen
class Sample:
    """One run of the generator."""

    seconds: float
    load: Latency
    server_cpu_us: float
    """Microseconds of the server's processor time for each request."""
    generator_cores: float
    """What the generator took of its core. Near 1, the generator is what was measured."""
    server_cores: float
    connect_seconds: float
    """For all hubs to be registered and announced."""
    idle_mb: float
    """Resident memory of the server then."""
    mb: float
    """And after the load."""
    events: Events
    faults: Faults
    slow: Latency | None = None
    """What went to the slow hub."""
    others: float = 0.0
    """Cores that everybody else on this machine was using meanwhile."""


@contextmanager
def compiled() -> Iterator[Path]:
    """Compile ``generator`` and ``floors``; the directory they are in is there for the length of the block.

    Raises:
        BenchmarkError: there is no C compiler, or it fails.
    """
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if compiler is None:
        raise BenchmarkError("the load generator is a C program, and no compiler (cc, gcc, clang) was found")
    with tempfile.TemporaryDirectory(prefix="loopal-benchmarks-") as directory:
        for name in ("generator", "floors"):
            command = [compiler, "-std=gnu11", "-O2", "-o", f"{directory}/{name}", f"{HERE / name}.c"]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise BenchmarkError(f"cannot compile {name}.c: {done.stderr.strip().splitlines()[0]}")
        yield Path(directory)


def measure(
    programs: Path, server: Server, load: Load, *, core: int | None = None, patience: float = PATIENCE
) -> Sample:
    """Run the generator against a server, for ``patience`` seconds at most.

    Raises:
        BenchmarkError: it could not do its work, or something was lost, refused, misplaced or doubled.
    """
    settings = {
        "connect": server.address,
        "token": server.token,
        "dialect": server.dialect,
        "pid": server.pid,
    }
    words = [f"{name}={value}" for name, value in {**settings, **load}.items()]
    command = pinned([str(programs / "generator"), *words], core)
    began, busy, ours = time.monotonic(), busy_seconds(), _our_seconds(server)
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=patience)
    except subprocess.TimeoutExpired:
        raise BenchmarkError(f"the generator was not done within {patience:g} s") from None
    if done.returncode:
        raise BenchmarkError(done.stderr.strip().removeprefix("error: ") or "the generator has crashed")
    ours = _our_seconds(server) - ours
    others = max(0.0, busy_seconds() - busy - ours) / (time.monotonic() - began)
    sample = msgspec.json.decode(done.stdout, type=Sample)
    if sample.faults:
        raise BenchmarkError(f"the load was not carried out faultlessly: {sample.faults}")
    return evolve(sample, others=others)


def _our_seconds(server: Server) -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)  # the generator, once it has ended
    return cpu_seconds(server.pid) + usage.ru_utime + usage.ru_stime
