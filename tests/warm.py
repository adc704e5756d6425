"""The program, started warm: as a process of its own that somebody has forked who had imported it already.

All of it is real but the half second in which Python imports it: arguments, environment, descriptors, signals,
exit status. ``open_program`` and ``run_program`` are for tests of what the program does; those of how it starts,
ends during its start, or talks to a terminal start it cold (``test_imports``, ``cli/test_signals``,
``cli/test_terminal``, ``end_to_end/test_demo``).

Run as a program, this file is who forks. A keeper stands between it and each program, and says how that ended.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import select
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from typing import Any

import trio

STATUS_BYTES = 16
"""Of a number in a line of its own, at most."""


class WarmProcess:
    """What ``trio.Process`` is for a program that was started cold."""

    def __init__(self, pid: int, stdin: int, stdout: int, stderr: int | None, status: int) -> None:
        self.pid = pid
        self.stdin = trio.lowlevel.FdStream(stdin)
        self.stdout = trio.lowlevel.FdStream(stdout)
        self.stderr = None if stderr is None else trio.lowlevel.FdStream(stderr)
        self.returncode: int | None = None
        self._status = status

    async def wait(self) -> int:
        """Wait until it has ended; return its exit status, or the negative number of its signal."""
        if self.returncode is None:
            await trio.lowlevel.wait_readable(self._status)
        return self._ended()

    def poll(self) -> int | None:
        """Its exit status, if it has ended."""
        if self.returncode is None and not select.select([self._status], [], [], 0)[0]:
            return None
        return self._ended()

    def _ended(self) -> int:
        if self.returncode is None:
            self.returncode = int(os.read(self._status, STATUS_BYTES))
            os.close(self._status)
        return self.returncode

    def send_signal(self, signum: int) -> None:
        """Signal it, if it has not ended."""
        if self.poll() is None:
            os.kill(self.pid, signum)

    def kill(self) -> None:
        """Kill it."""
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)


def open_program(*arguments: str, env: Mapping[str, str], merged: bool = False) -> WarmProcess:
    """Start ``loopal-cluster`` with these arguments; ``merged`` makes its stderr its stdout."""
    stdin, stdout, status = os.pipe(), os.pipe(), os.pipe()
    stderr = (None, stdout[1]) if merged else os.pipe()
    theirs = [stdin[0], stdout[1], stderr[1], status[1]]
    order = json.dumps({"arguments": arguments, "env": dict(env), "cwd": os.getcwd()}).encode()
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, its:
        socket.send_fds(_forker()[0], [b"start"], [its.fileno()])
        socket.send_fds(ours, [order], theirs)
        pid = int(ours.recv(STATUS_BYTES))
    for fd in {*theirs}:
        os.close(fd)
    return WarmProcess(pid, stdin[1], stdout[0], stderr[0], status[0])


async def run_program(*arguments: str, env: Mapping[str, str], stdin: bytes = b"") -> tuple[int, str, str]:
    """Run it to its end, with this input: its exit status, what it has printed, and what it has said on stderr."""
    process = open_program(*arguments, env=env)
    assert process.stderr is not None
    said: list[bytes] = [b"", b""]

    async def read(number: int, stream: trio.abc.ReceiveStream) -> None:
        said[number] = b"".join([chunk async for chunk in stream])

    try:
        async with process.stdout, process.stderr, trio.open_nursery() as nursery:
            nursery.start_soon(read, 0, process.stdout)
            nursery.start_soon(read, 1, process.stderr)
            async with process.stdin:
                with suppress(trio.BrokenResourceError):  # it has ended without reading all
                    await process.stdin.send_all(stdin)
            status = await process.wait()
    finally:
        process.kill()
    return status, said[0].decode(), said[1].decode()


@cache
def _forker() -> tuple[socket.socket, subprocess.Popen[bytes]]:
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with its:
        process = subprocess.Popen([sys.executable, __file__, str(its.fileno())], pass_fds=[its.fileno()])
    return ours, process


# Who forks.


def main(orders: socket.socket) -> None:
    """Fork a program for each order, until nobody is there to give one."""
    import loopal_cluster.cli

    for module in pkgutil.iter_modules(loopal_cluster.cli.__path__, "loopal_cluster.cli."):
        importlib.import_module(module.name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # keepers say all there is to say
    while True:
        word, fds, _, _ = socket.recv_fds(orders, STATUS_BYTES, 1)
        if not word:
            return
        with socket.socket(fileno=fds[0]) as order:
            if os.fork() == 0:
                orders.close()
                _keep(order)


def _keep(order: socket.socket) -> None:
    """Be the keeper of one program."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    text, fds, _, _ = socket.recv_fds(order, 2**20, 4)
    pid = os.fork()
    if pid == 0:
        order.close()
        os.close(fds.pop())
        _be_the_program(json.loads(text), fds)
    order.send(b"%d" % pid)
    for fd in fds[:3]:
        os.close(fd)
    for fd in range(3):
        os.dup2(os.open(os.devnull, os.O_RDWR), fd)
    _, status = os.waitpid(pid, 0)
    os.write(fds[3], b"%d" % os.waitstatus_to_exitcode(status))
    os._exit(0)


def _be_the_program(order: dict[str, Any], fds: list[int]) -> None:
    for number, fd in enumerate(fds):
        os.dup2(fd, number)
    for fd in fds:
        os.close(fd)
    os.environ.clear()
    os.environ.update(order["env"])
    os.chdir(order["cwd"])
    del sys.path[0]  # as with ``python -P -m``
    sys.argv = ["loopal-cluster", *order["arguments"]]
    status = 1
    try:
        from loopal_cluster.__main__ import main as program

        program()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])))
