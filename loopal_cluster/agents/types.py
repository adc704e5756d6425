"""What a hub can run, as values: hand them to ``open_hub(agents={"name": ...})``.

An agent type opens an agent: something with a channel that speaks the agent protocol, which can be
stopped. The hub does the rest the same way for each.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from typing import Protocol

import trio
from attrs import field

from loopal_cluster.agents.children import Child, open_child
from loopal_cluster.agents.command import check_prompt_place, run_command
from loopal_cluster.agents.context import AgentContext, AgentFunction, Streamed
from loopal_cluster.agents.guard import Guard
from loopal_cluster.agents.session import serve_session
from loopal_cluster.config import Limits
from loopal_cluster.links.ambient import Ambient
from loopal_cluster.links.background import open_background
from loopal_cluster.links.channels import FrameChannel, StreamChannel, record_pair
from loopal_cluster.links.kept import keep_line, kept_directory
from loopal_cluster.records import record
from loopal_cluster.wire.framing import Spilled

__all__ = [
    "AgentType",
    "CommandAgent",
    "FunctionAgent",
    "McpDoor",
    "Place",
    "ProcessAgent",
    "RunningAgent",
    "python_agent",
]


def _argv(words: Sequence[str]) -> tuple[str, ...]:
    return tuple(words)


class McpDoor(Protocol):
    """Gives agents the cluster's tools through MCP."""

    def open_entry(
        self, context: AgentContext, *, http: bool
    ) -> AbstractContextManager[Mapping[str, object]]:
        """An entry for ``mcpServers`` of ACP's ``session/new``, good for the block.

        Its name begins with ``loopal`` and is new each time, so that no other server can be taken for it.

        What is called through it is done by ``context``, and so by this agent. ``http`` says whether the agent
        can reach a server over HTTP; otherwise it starts one, which talks over standard input and output.
        """


@record
class Place:
    """Where an agent is started: what its hub gives to every agent."""

    cwd: str
    guard: Guard
    limits: Limits
    end_grace: float
    """Seconds for an agent to end that has been asked to; then it is made to."""
    ambient: Ambient = Ambient()
    secrets: frozenset[str] = frozenset({"LOOPAL_META_HUB_TOKEN", "LOOPAL_MCP_SOCKET", "LOOPAL_MCP_TOKEN"})
    """Environment variables that no child gets to see."""
    name: str = "agent"
    """What the agent is called on its hub."""
    supervised: bool = True
    """Whether it is to ask before it acts."""
    mcp: McpDoor | None = None
    """Where it gets the cluster's tools, if it takes tools through MCP."""

    def spill(self, prefix: bytes) -> Spilled | None:
        """Keep a line of the agent's program that is too long to be read, if it carries what the agent has made."""
        return keep_line(prefix, f"{kept_directory()}/{self.name}-{self.ambient.new_id()[:8]}.json")

    def environment(self, extra: Mapping[str, str]) -> dict[str, str]:
        """The environment of a child: the hub's, without its secrets, and what its type adds.

        In ``PYTHONPATH`` an empty entry, or a relative one, would mean the directory that the child works in: a
        module of a stranger's repository would be imported in place of the one that was meant.
        """
        env = {k: v for k, v in os.environ.items() if k not in self.secrets} | dict(extra)
        if (path := _absolute(env.pop("PYTHONPATH", ""))) != "":
            env["PYTHONPATH"] = path
        return env


class RunningAgent(Protocol):
    """An agent that has been opened."""

    channel: FrameChannel

    async def stop(self) -> str:
        """End it, for certain; return how it ended, for people."""


class AgentType(Protocol):
    """Something a hub can run."""

    def open(self, place: Place) -> AbstractAsyncContextManager[RunningAgent]:
        """Start an agent. Leaving the block leaves nothing of it running.

        Raises:
            ClusterError, OSError: it cannot be started.
        """


class _Task:
    """An agent that is a task of the hub's own process."""

    def __init__(self, channel: FrameChannel, end_grace: float) -> None:
        self.channel = channel
        self.ended = trio.Event()
        self._end_grace = end_grace

    async def stop(self) -> str:
        await self.channel.aclose()  # which cancels its function
        with trio.move_on_after(self._end_grace):
            await self.ended.wait()
            return "its function ended"
        return "its function did not end when cancelled"


@record
class FunctionAgent:
    """An async function in the hub's own process.

    It ends when it is cancelled, as every trio task; one that shields itself, or blocks the process, nobody
    can end. Give what you do not trust a process of its own (``python_agent``).
    """

    function: AgentFunction

    @asynccontextmanager
    async def open(self, place: Place) -> AsyncIterator[RunningAgent]:
        """Run it in a task."""
        hub_end, agent_end = record_pair()
        task = _Task(hub_end, place.end_grace)

        async def run() -> None:
            try:
                await serve_session(agent_end, self.function, limits=place.limits, ambient=place.ambient)
            finally:
                task.ended.set()

        async with open_background() as nursery:
            nursery.start_soon(run)
            yield task


class _Process:
    """An agent that is a child process."""

    def __init__(self, child: Child, place: Place) -> None:
        self._child = child
        line_bytes = place.limits.line_bytes
        self.channel: FrameChannel = StreamChannel(child.stdout, child.stdin, line_bytes, spill=place.spill)

    async def stop(self) -> str:
        return await self._child.stop()


@record
class ProcessAgent:
    """Any program that speaks the agent protocol on its standard input and output."""

    argv: Sequence[str] = field(converter=_argv)
    env: Mapping[str, str] = field(factory=dict)
    cwd: str | None = None

    @asynccontextmanager
    async def open(self, place: Place) -> AsyncIterator[RunningAgent]:
        """Start the program, in a process group of its own."""
        async with open_child(
            self.argv,
            env=place.environment(self.env),
            cwd=self.cwd or place.cwd,
            grace=place.end_grace,
            guard=place.guard,
        ) as child:
            yield _Process(child, place)


@record
class CommandAgent:
    """Any program: the prompt on standard input (or for ``{prompt}``, after ``--``), its output is the result."""

    argv: Sequence[str] = field(converter=_argv)
    env: Mapping[str, str] = field(factory=dict)
    cwd: str | None = None

    def __attrs_post_init__(self) -> None:
        check_prompt_place(self.argv)

    @asynccontextmanager
    async def open(self, place: Place) -> AsyncIterator[RunningAgent]:
        """Run the command as what an agent function does."""

        async def command(context: AgentContext, prompt: str) -> Streamed:
            output = await run_command(
                self.argv,
                prompt,
                env=place.environment(self.env),
                cwd=self.cwd or place.cwd,
                grace=place.end_grace,
                guard=place.guard,
                on_output=context.stream,
            )
            return Streamed(output)

        async with FunctionAgent(command).open(place) as running:
            yield running


def python_agent(
    target: str,
    *,
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    directory: str | None = None,
) -> ProcessAgent:
    """The async function ``module:name``, as an agent in a Python process of its own.

    Its module is an installed one, or in ``directory``. It is never looked for where the agent works: that may
    be a repository of somebody else.
    """
    beside = () if directory is None else (os.path.abspath(directory),)
    # -P: ``-m`` would otherwise put the working directory first on sys.path, also for what we import ourselves.
    argv = (sys.executable, "-P", "-m", "loopal_cluster.agents", target, *beside)
    return ProcessAgent(argv, env or {}, cwd)


def _absolute(path: str) -> str:
    return os.pathsep.join(os.path.abspath(entry) for entry in path.split(os.pathsep) if entry)
