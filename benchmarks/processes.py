"""Processes, and what the kernel knows of them."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.errors import BenchmarkError

__all__ = [
    "ROOT",
    "TOKEN",
    "busy_seconds",
    "cpu_seconds",
    "environment",
    "pinned",
    "python",
    "resident_mb",
    "running",
    "said",
]

ROOT = Path(__file__).parent.parent
TOKEN = "token-of-the-benchmark"
STARTING = 30.0
"""Seconds for a server to say where it listens."""
TICK = 1 / os.sysconf("SC_CLK_TCK")


def pinned(command: Sequence[str], core: int | None) -> list[str]:
    """The command, on one core if one is given."""
    return [*command] if core is None else ["taskset", "--cpu-list", str(core), *command]


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Of a program: ours, with the checkout on its path, and with compiled modules kept.

    Where these are not kept, as in many containers, every start compiles each file anew, which an
    installed package does not.
    """
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**inherited, "LOOPAL_META_HUB_TOKEN": TOKEN, "PYTHONPATH": path, **(extra or {})}


@contextmanager
def running(
    command: Sequence[str], extra: Mapping[str, str] | None = None
) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """Run a program for the length of the block; all it says is in the file.

    It is killed, not asked to end: what a server does when it is told to is not what is measured here.
    """
    with tempfile.NamedTemporaryFile(prefix="loopal-benchmarks-") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment(extra)
        )
        try:
            yield process, Path(output.name)
        finally:
            process.kill()
            process.wait()


def said(process: subprocess.Popen[bytes], output: Path, prefix: str) -> str:
    """Wait until the program has said a whole line with ``prefix`` in it; return what follows there.

    Raises:
        BenchmarkError: it has ended, or does not say it within ``STARTING``.
    """
    deadline = time.monotonic() + STARTING
    while time.monotonic() < deadline:
        ended = process.poll() is not None
        lines = output.read_text(errors="replace").splitlines(keepends=True)
        for line in lines:
            if prefix in line and line.endswith("\n"):
                return line.partition(prefix)[2].strip()
        if ended:
            last = lines[-1].strip() if lines else f"exit status {process.returncode}"
            raise BenchmarkError(f"{process.args!r} did not start: {last}")
        time.sleep(0.002)
    raise BenchmarkError(f"{process.args!r} did not say {prefix!r} within {STARTING:g} s")


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has used, in all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK


def busy_seconds() -> float:
    """Processor time that everybody on this machine has used."""
    user, nice, system, _idle, _waiting, irq, softirq, *_ = map(
        int, Path("/proc/stat").read_text().split()[1:9]
    )
    return (user + nice + system + irq + softirq) * TICK


def resident_mb(pid: int) -> float:
    """Resident memory of a process, in MB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def python(*arguments: str) -> list[str]:
    """This interpreter."""
    return [sys.executable, *arguments]
