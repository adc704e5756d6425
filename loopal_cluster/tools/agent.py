"""Tools to start agents and to get what they found out: ``Agent``, ``WaitAgent``."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, ClassVar, Literal

import trio
from attrs import frozen

from loopal_cluster.errors import ClusterError
from loopal_cluster.messages import AgentDetails
from loopal_cluster.outcomes import Done, Failed, Outcome, reason_of
from loopal_cluster.runtime.client import AgentHandle, ClusterClient
from loopal_cluster.tools.arguments import argument, blame
from loopal_cluster.tools.tool import PermissionLevel, Tool, ToolResult

__all__ = ["Agent", "WaitAgent"]

CANCEL_TIMEOUT = 5.0
"""Seconds that a cancelled call waits for its agent to be gone; it has been told all the same."""
LONGEST_WAIT = 600.0
"""Seconds; the base dialect's bound for one wait."""


@frozen
class Agent(Tool):
    """Start an agent, or ask about one."""

    tool_name: ClassVar = "Agent"
    permission: ClassVar = PermissionLevel.SUPERVISED
    description: ClassVar = (
        "Start another AI agent that works on a task for you, or ask about one. Agents run on hubs: a hub "
        "is a program on some machine, and several hubs can form a cluster (see ListHubs). Use action "
        "'spawn' to hand over a self-contained piece of work, to do several pieces at the same time, or, "
        "with target_hub, to have work done on another machine. The agent knows nothing of your "
        "conversation: the prompt must say everything. It is stopped when you end.\n"
        "- spawn (needs prompt): in the foreground you wait, and get the agent's result as the result of "
        "this call; a failed agent is an error with its text. With run_in_background you get the agent's "
        "address at once and go on; its result comes as a message to you when it ends, and WaitAgent "
        "waits for it.\n"
        "- result (needs name): wait until that agent has ended, however long it takes, and return its "
        "result.\n"
        "- status (needs name): return at once whether that agent runs or how it ended."
    )
    action: Literal["spawn", "result", "status"] = argument("What to do.", default="spawn")
    prompt: str | None = argument(
        "The task for the new agent, complete in itself. Needed for 'spawn'.", default=None
    )
    name: str | None = argument(
        "For 'spawn': a name for the new agent, 1 to 64 of A-Z a-z 0-9 . _ - (default: one is made up). "
        "For 'result' and 'status', where it is needed: the agent, as 'name' or 'hub/name'.",
        default=None,
    )
    subagent_type: str | None = argument(
        "The type of agent to start; ListHubs shows which types each hub runs. Default: the hub's own "
        "default type.",
        default=None,
    )
    model: str | None = argument("The language model it should use, if it uses one.", default=None)
    target_hub: str | None = argument(
        "Start it on this hub of the cluster, a name from ListHubs. Default: your own hub.", default=None
    )
    run_in_background: bool = argument(
        "True: do not wait for the new agent; its result comes as a message.", default=False
    )

    def __attrs_post_init__(self) -> None:
        needed = "prompt" if self.action == "spawn" else "name"
        if getattr(self, needed) is None:
            blame(needed, f"expected str, which action '{self.action}' needs, got nothing")

    async def run(self, client: ClusterClient) -> ToolResult:
        name = str(self.name)
        match self.action:
            case "result":
                return _ended(name, await client.wait(name))
            case "status":
                return _status(name, await client.agent_info(name))
        # Shielded, because nobody would know the agent that a half-way cancelled spawn leaves behind. The
        # hub answers in bounded time (``start_timeout``, ``spawn_timeout``).
        with trio.CancelScope(shield=True):
            handle = await self._spawn(client)
        return _in_background(handle) if self.run_in_background else await _in_foreground(handle)

    async def _spawn(self, client: ClusterClient) -> AgentHandle:
        return await client.spawn(
            self.subagent_type,
            str(self.prompt),
            hub=self.target_hub,
            name=self.name,
            model=self.model,
            notify_parent=self.run_in_background,
        )


@frozen
class WaitAgent(Tool):
    """Wait for an agent, but not for ever."""

    tool_name: ClassVar = "WaitAgent"
    permission: ClassVar = PermissionLevel.READ_ONLY
    description: ClassVar = (
        "Wait until an AI agent has ended and return its result. Use this for an agent that you started "
        "with Agent and run_in_background, or for any other agent of the cluster, on whatever hub (the "
        "program on some machine that runs it). Returns the agent's result as soon as it has one, at once "
        "if it has ended already; an error with the reason if it failed, was cancelled or was lost. If "
        "the agent still runs after 'timeout' seconds, it goes on, and you get the status 'running' and "
        "may wait again."
    )
    name: str = argument("The agent, as 'name' or 'hub/name'; ListAgents shows the addresses.")
    timeout: float = argument(
        "How long to wait, in seconds.", default=60.0, minimum=0.0, maximum=LONGEST_WAIT
    )

    async def run(self, client: ClusterClient) -> ToolResult:
        waited = await client.wait_once(self.name, seconds=self.timeout)
        agent = self.name  # not ``waited.agent``, which is the name that the agent's own hub uses
        if waited.outcome is not None:
            return _ended(agent, waited.outcome, agent_id=waited.agent_id)
        return ToolResult(
            f"Agent '{agent}' is still running after {self.timeout:g} seconds. "
            f"Call WaitAgent again with name '{agent}' to go on waiting.",
            {"agent": agent, "agent_id": waited.agent_id, "status": "running"},
        )


async def _in_foreground(handle: AgentHandle) -> ToolResult:
    outcome: Outcome | None = None
    try:
        outcome = await handle.outcome()
    finally:
        if outcome is None:
            with trio.move_on_after(CANCEL_TIMEOUT, shield=True), suppress(ClusterError):
                await handle.cancel("the call that waited for it was cancelled")
    return _ended(str(handle.address), outcome, agent_id=handle.id)


def _in_background(handle: AgentHandle) -> ToolResult:
    agent = str(handle.address)
    return ToolResult(
        f"Agent '{agent}' runs in the background (agentId: {handle.id}).\n"
        f"Its result comes to you as a message when it ends; WaitAgent with name '{agent}' waits for it.",
        {"agent": agent, "agent_id": handle.id, "status": "running"},
    )


def _ended(agent: str, outcome: Outcome, *, agent_id: str | None = None) -> ToolResult:
    data: dict[str, Any] = {"agent": agent, "agent_id": agent_id, "status": outcome.kind}
    if isinstance(outcome, Done):
        return ToolResult(outcome.result, data | {"result": outcome.result})
    how = {"timed_out": "timed out", "lost": "was lost", "cancelled": "was cancelled"}.get(
        outcome.kind, outcome.kind
    )
    reason = reason_of(outcome)
    return ToolResult.error(f"agent '{agent}' {how}: {reason}", data | {"error": reason})


def _status(agent: str, details: AgentDetails) -> ToolResult:
    """How it stands. That an agent has failed is an answer here, not an error."""
    outcome = details.outcome
    data: dict[str, Any] = {
        "agent": agent,
        "agent_id": details.id,
        "type": details.type,
        "parent": details.parent,
        "children": list(details.children),
        "status": outcome.kind if outcome is not None else details.lifecycle.lower(),
    }
    if outcome is None:
        return ToolResult(f"Agent '{agent}': {details.lifecycle}", data)
    text = reason_of(outcome)
    key = "result" if isinstance(outcome, Done) else "error"
    if isinstance(outcome, Failed) and outcome.traceback:
        data["traceback"] = outcome.traceback
    return ToolResult(f"Agent '{agent}' has ended ({outcome.kind}): {text}", data | {key: text})
