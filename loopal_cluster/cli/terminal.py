"""The front end of a hub: a human, and the root agent the human talks to.

What the agent says and does is shown, what is typed is sent to it, and what any agent of the hub asks is
asked here. The first line typed is the prompt, if none was given. The end of the input ends the
conversation, but never an ephemeral agent: a job is done when it is done.
"""

from __future__ import annotations

import sys

import trio
from attrs import field

from loopal_cluster.cli.asking import ApprovalQueue, TerminalView
from loopal_cluster.cli.lines import LineReader
from loopal_cluster.cli.show import as_plain, event_line, note, one_line, result
from loopal_cluster.errors import ClusterError, ConfigError
from loopal_cluster.links.client import Client, EventStream
from loopal_cluster.links.cluster_client import AgentHandle
from loopal_cluster.messages import ClusterEvent
from loopal_cluster.outcomes import Done, Outcome, reason_of
from loopal_cluster.payloads import (
    AwaitingInput,
    Ended,
    Finished,
    MessageRouted,
    Started,
    Stream,
    SubAgentSpawned,
    ThinkingComplete,
    ThinkingStream,
    TokenUsage,
    ToolProgress,
)
from loopal_cluster.records import define, record
from loopal_cluster.runtime.hub import Hub

__all__ = ["ROOT", "Root", "converse", "show_outcome"]

ROOT = "root"
"""The name of the agent that a human talks to, on its hub."""
LAST_EVENTS_TIMEOUT = 1.0
"""Seconds for the events of an agent that has ended to arrive."""

_NOT_SHOWN = (
    AwaitingInput,
    Finished,
    MessageRouted,
    Started,
    SubAgentSpawned,
    ThinkingComplete,
    ThinkingStream,
    TokenUsage,
    ToolProgress,
)


@record
class Root:
    """The root agent that a hub is to have."""

    agent_type: str | None
    """None: the hub has no type for it, and there is nobody to talk to."""
    prompt: str | None
    """None: the first line that is typed."""
    persistent: bool

    async def spawn(self, client: Client, prompt: str) -> AgentHandle:
        """Start it; its lifecycle is always said, never guessed from the prompt."""
        return await client.spawn(self.agent_type, prompt, name=ROOT, persistent=self.persistent)


async def converse(hub: Hub, root: Root) -> Outcome | None:
    """Be the hub's front end until the root agent has ended or, if that is persistent, the input has.

    Returns the outcome of an ephemeral agent, when it has been shown; None after a conversation.

    Raises:
        ConfigError: an ephemeral agent has no prompt, and none was typed.
    """
    approvals = ApprovalQueue(TerminalView())
    async with hub.open_client(
        name="terminal",
        on_permission=approvals.on_permission,
        on_question=approvals.on_question,
        on_decided=approvals.on_decided,
        acknowledge=False,
    ) as client:
        approvals.turns.open(client.acknowledge)
        return await _Conversation(client, approvals, root).run()


def show_outcome(outcome: Outcome) -> None:
    """The result on stdout; anything else in one line on stderr."""
    if isinstance(outcome, Done):
        result(outcome.result)
    else:
        note(f"error: the agent {_ENDINGS[outcome.kind]}: {one_line(reason_of(outcome))}")


_ENDINGS = {"failed": "failed", "cancelled": "was cancelled", "timed_out": "timed out", "lost": "was lost"}


@define(eq=False)
class _Conversation:
    _client: Client
    _approvals: ApprovalQueue
    _root: Root
    _agent: AgentHandle | None = None
    _begun: trio.Event = field(factory=trio.Event)
    """There is an agent, or there will be none, because nothing was typed."""
    _ended: trio.Event = field(factory=trio.Event)
    """The last event of the agent has been shown."""
    _said: list[str] = field(factory=list)
    """The agent's text."""

    async def run(self) -> Outcome | None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._show_events, await self._client.subscribe())
            if self._root.prompt is not None:
                await self._begin(self._root.prompt)
            if self._root.persistent:
                await self._read_lines()
                if self._agent is not None and not sys.stdin.isatty():
                    note("The input has ended, and with it the agent; --ephemeral waits for its result.")
                outcome = None
            else:
                nursery.start_soon(self._read_lines)
                outcome = await self._finish()
            nursery.cancel_scope.cancel()
        return outcome

    async def _begin(self, prompt: str) -> None:
        self._agent = await self._root.spawn(self._client, prompt)
        self._begun.set()

    async def _finish(self) -> Outcome:
        await self._begun.wait()
        if self._agent is None:
            raise ConfigError("--ephemeral needs a prompt: none was given, and none was typed")
        outcome = await self._agent.outcome()
        with trio.move_on_after(LAST_EVENTS_TIMEOUT):
            await self._ended.wait()
        if not (self._is_on_screen(outcome)):
            show_outcome(outcome)
        return outcome

    def _is_on_screen(self, outcome: Outcome) -> bool:
        """Whether the human has just read the result, and no program waits for it."""
        if not isinstance(outcome, Done) or not (sys.stdout.isatty() and sys.stderr.isatty()):
            return False
        return bool(outcome.result) and "".join(self._said).rstrip("\n").endswith(outcome.result.rstrip("\n"))

    # What is typed.

    async def _read_lines(self) -> None:
        lines = LineReader()
        while (line := await lines.readline()) is not None:
            if not self._approvals.offer(line) and line.strip():
                await self._say(line)
        self._approvals.close()
        self._begun.set()

    async def _say(self, line: str) -> None:
        try:
            if self._agent is None:
                await self._begin(line)
            else:
                await self._agent.send(line)
        except ClusterError as error:
            if not self._root.persistent and self._agent is None:
                raise
            note(f"error: {error}")

    # What is shown.

    async def _show_events(self, events: EventStream) -> None:
        async for event in events:
            if event.agent == ROOT:
                self._show(event)

    def _show(self, event: ClusterEvent) -> None:
        if isinstance(event.payload, Stream):
            self._write(event.payload.text)
            return
        self._end_line()
        if isinstance(event.payload, Ended):
            self._ended.set()
            if self._root.persistent:
                note(event_line(event))
        elif not isinstance(event.payload, _NOT_SHOWN):
            note(event_line(event))

    def _write(self, text: str) -> None:
        # What a persistent agent says is what one talks to it for; of an ephemeral one, that is the result.
        stream = sys.stdout if self._root.persistent else sys.stderr
        stream.write(as_plain(text) if stream.isatty() else text)
        stream.flush()
        self._said = [text] if self._root.persistent else [*self._said, text]

    def _end_line(self) -> None:
        if self._said and not self._said[-1].endswith("\n"):
            self._write("\n")
