"""A coding agent's program while it runs: the child process, and the client that speaks to it.

A task owns both. It ends when the program has, or has been told to, and by then ``ending`` says why, for
people: what it did wrong, how it exited, its last words.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import trio

from loopal_cluster.acp.client import AcpError, Client, LoginNeeded, PeerGone, open_client
from loopal_cluster.agents.children import Child, ChildNotStarted, open_child
from loopal_cluster.agents.guard import Guard
from loopal_cluster.records import record

__all__ = ["Command", "Program"]

HANDSHAKE_TIMEOUT = 60.0
"""Seconds to answer ``initialize``. The slowest take 3, on a machine that has nothing else to do."""
EXIT_TIMEOUT = 0.5
"""Seconds to exit after its output has ended; then how it exited is our doing, and not its last word."""
CLIENT_NAME, CLIENT_VERSION = "loopal-cluster", "1"
"""The version is that of this client: no program shall behave differently with a new release of ours."""


@record
class Command:
    """How a program is started."""

    name: str
    """What to call it, for people."""
    argv: Sequence[str]
    env: Mapping[str, str]
    """The whole environment."""
    cwd: str
    grace: float
    """Seconds to end, from the end of its input to SIGKILL."""
    guard: Guard | None = None
    auth: str | None = None
    """The login method to choose before the first session."""
    install: str = ""
    """How a human gets the program."""
    login: str = ""
    """How a human logs in."""


class Program:
    """A run of a program; to run it again, make another."""

    def __init__(self, command: Command) -> None:
        self.command = command
        self.ended = trio.Event()
        """Set when nothing of it runs any more."""
        self._client: Client | None = None
        self._ready = trio.Event()
        self._talk = trio.CancelScope()
        self._fault = ""
        self._how = "stopped"

    async def start(self, nursery: trio.Nursery) -> None:
        """Start it, in a task of this nursery, for as long as it runs or the nursery does.

        Raises:
            ChildNotStarted: there is no such program, or directory.
        """
        await nursery.start(self._run)

    async def _run(self, task_status: trio.TaskStatus[None]) -> None:
        try:
            async with self._open_child() as child:
                task_status.started()
                async with open_client(child.stdout, child.stdin) as client:
                    with self._talk:
                        await self._talk_to(client)
                    await self._end(child, client)
        finally:
            self._ready.set()
            self.ended.set()

    async def client(self) -> Client:
        """The client, when the program has introduced itself.

        Raises:
            PeerGone: it never will.
        """
        await self._ready.wait()
        if self._client is None:
            raise PeerGone(self.ending)
        return self._client

    async def stop(self, fault: str = "") -> str:
        """End it and all it has started, for certain; return how it ended."""
        self.kill(fault)
        await self.ended.wait()
        return self.ending

    def kill(self, fault: str = "") -> None:
        """Begin to end it; ``fault`` is what it has done."""
        self._fault = self._fault or fault
        self._talk.cancel()

    @property
    def ending(self) -> str:
        """How it has ended, in one line."""
        return f"{self._fault} ({self._how})" if self._fault else self._how

    @asynccontextmanager
    async def _open_child(self) -> AsyncIterator[Child]:
        command = self.command
        try:
            async with open_child(
                command.argv, env=command.env, cwd=command.cwd, grace=command.grace, guard=command.guard
            ) as child:
                yield child
        except ChildNotStarted as error:
            raise ChildNotStarted(
                f"{error} ({command.install})" if command.install else str(error)
            ) from error

    async def _talk_to(self, client: Client) -> None:
        try:
            with trio.fail_after(HANDSHAKE_TIMEOUT):
                await client.initialize(name=CLIENT_NAME, version=CLIENT_VERSION)
                if self.command.auth is not None:
                    await client.authenticate(self.command.auth)
        except trio.TooSlowError:
            self._fault = f"it did not answer initialize within {HANDSHAKE_TIMEOUT:g} s"
        except LoginNeeded as error:
            self._fault = f"{error}; {self.command.login}" if self.command.login else str(error)
        except AcpError as error:
            self._fault = str(error)
        except PeerGone:
            self._fault = self._said(client)
        else:
            self._client = client
            self._ready.set()
            await client.closed.wait()

    async def _end(self, child: Child, client: Client) -> None:
        if client.closed.is_set():
            with trio.move_on_after(EXIT_TIMEOUT) as waiting:
                await child.wait()
            if waiting.cancelled_caught and not self._fault:
                self._fault = client.lost or ""
        self._how = await child.stop()

    def _said(self, client: Client) -> str:
        """What it has said instead of an introduction: that it knows no such option, for example."""
        return f"it does not speak ACP: {client.noise[-1]!r}" if client.noise else ""
