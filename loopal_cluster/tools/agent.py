"""Tools to start agents, to get what they found out, and to stop them: ``Agent``, ``WaitAgent``, ``CancelAgent``."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, ClassVar, Literal

import trio

from loopal_cluster.errors import ClusterError
from loopal_cluster.links.cluster_client import AgentHandle
from loopal_cluster.messages import AgentDetails, Waited
from loopal_cluster.outcomes import Done, Failed, Outcome, reason_of
from loopal_cluster.records import record
from loopal_cluster.tools.arguments import argument, blame
from loopal_cluster.tools.placement import choose_hub
from loopal_cluster.tools.tool import LONGEST_WAIT, PermissionLevel, Tool, ToolContext, ToolResult

__all__ = ["Agent", "CancelAgent", "WaitAgent"]

CANCEL_TIMEOUT = 5.0
"""Seconds that a cancelled call waits for its agent to be gone; it has been told all the same."""
ANSWER_TIME = 1.0
"""Seconds before the end of a bounded call at which a wait ends, so that the answer is there in time."""


@record
class Agent(Tool):
    """Start an agent, or ask about one."""

    tool_name: ClassVar = "Agent"
    permission: ClassVar = PermissionLevel.SUPERVISED
    description: ClassVar = (
        "Start another AI agent in the hub cluster that works on a task for you, or ask about one. Agents run "
        "on hubs: a hub is a program on some machine, and several hubs can form a cluster (see ListHubs). Use "
        "action 'spawn' to hand over a self-contained piece of work, to do several pieces at the same time, "
        "or, with target_hub or labels, to have work done on another machine. The agent knows nothing of your "
        "conversation and has no access to your files unless it runs on your machine: the prompt must say "
        "everything. It is stopped when you end, unless it is detached.\n"
        "- spawn (needs prompt): in the foreground you wait, and get the agent's result as the result of "
        "this call; a failed agent is an error with its text. With run_in_background you get the agent's "
        "address at once and go on; its result comes as a message to you when it ends (Inbox), and WaitAgent "
        "waits for it. If the result has status 'running', the agent needs longer than one tool call may take: "
        "it goes on, and WaitAgent gets its result.\n"
        "- result (needs name): wait until that agent has ended and return its result; it may return "
        "'running', too.\n"
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
    labels: str | None = argument(
        "Instead of target_hub: start it on any hub that has all of these, the least busy one. A comma between "
        "each two; capabilities and labels as ListHubs shows them, for example 'gpu, os=linux'.",
        default=None,
    )
    run_in_background: bool = argument(
        "True: do not wait for the new agent; its result comes as a message.", default=False
    )
    detached: bool = argument(
        "True: the new agent goes on when you end. Nobody but a human may stop it then.", default=False
    )

    def __attrs_post_init__(self) -> None:
        needed = "prompt" if self.action == "spawn" else "name"
        if getattr(self, needed) is None:
            blame(needed, f"expected str, which action '{self.action}' needs, got nothing")
        if self.labels is not None and self.target_hub is not None:
            blame("labels", "expected nothing beside target_hub, which says where already")

    @property
    def level(self) -> PermissionLevel:
        return PermissionLevel.SUPERVISED if self.action == "spawn" else PermissionLevel.READ_ONLY

    async def run(self, context: ToolContext) -> ToolResult:
        match self.action:
            case "result":
                return await _wait(context, str(self.name), context.time_left)
            case "status":
                return _status(str(self.name), await context.client.agent_info(str(self.name)))
        handle = await self._spawn(context)
        return _in_background(handle) if self.run_in_background else await _in_foreground(context, handle)

    async def _spawn(self, context: ToolContext) -> AgentHandle:
        hub = self.target_hub
        if self.labels is not None:
            hub = await choose_hub(context.client, self.labels, self.subagent_type)
        return await context.client.spawn(
            self.subagent_type,
            str(self.prompt),
            hub=hub,
            name=self.name,
            model=self.model,
            # In the foreground we are waiting, and are told so; but not for longer than a call may take.
            notify_parent=self.run_in_background or context.is_bounded,
            detached=self.detached,
        )


@record
class WaitAgent(Tool):
    """Wait for an agent, but not for ever."""

    tool_name: ClassVar = "WaitAgent"
    permission: ClassVar = PermissionLevel.READ_ONLY
    only_looks: ClassVar = True
    description: ClassVar = (
        "Wait until an AI agent of the hub cluster has ended and return its result. Use this for an agent that "
        "you started with Agent and that is still running, or for any other agent of the cluster, on whatever "
        "hub (the program on some machine that runs it). Returns the agent's result as soon as it has one, at "
        "once if it has ended already; an error with the reason if it failed, was cancelled or was lost. If "
        "the agent still runs after 'timeout' seconds, or when this call has taken as long as one may, it goes "
        "on, and you get the status 'running' and may wait again."
    )
    name: str = argument("The agent, as 'name' or 'hub/name'; ListAgents shows the addresses.")
    timeout: float = argument(
        "How long to wait at most, in seconds.", default=60.0, minimum=0.0, maximum=LONGEST_WAIT
    )

    async def run(self, context: ToolContext) -> ToolResult:
        return await _wait(context, self.name, self.timeout)


@record
class CancelAgent(Tool):
    """Stop an agent."""

    tool_name: ClassVar = "CancelAgent"
    permission: ClassVar = PermissionLevel.SUPERVISED
    destroys: ClassVar = True
    description: ClassVar = (
        "Stop an AI agent of the hub cluster, on whatever hub (the program on some machine that runs it), and "
        "all agents that it has started. Use this when its work is no longer needed or goes wrong; its work so "
        "far is lost. Returns when it is gone, with how it ended: 'cancelled', or its result if it had one by "
        "then."
    )
    name: str = argument("The agent, as 'name' or 'hub/name'; ListAgents shows the addresses.")
    reason: str = argument("Why; it and others are told.", default="no longer needed")

    async def run(self, context: ToolContext) -> ToolResult:
        outcome = None
        with trio.move_on_after(max(0.0, context.time_left - ANSWER_TIME)):
            outcome = await context.client.cancel(self.name, self.reason)
        data: dict[str, Any] = {"agent": self.name}
        if outcome is None:
            text = (
                f"Agent '{self.name}' has been told to stop and is not gone yet; WaitAgent says when it is."
            )
            return ToolResult(text, data | {"status": "stopping"})
        _forget_message(context, self.name, outcome)
        text = reason_of(outcome)
        how = "has ended with a result" if isinstance(outcome, Done) else _how(outcome)
        key = "result" if isinstance(outcome, Done) else "reason"
        return ToolResult(f"Agent '{self.name}' {how}: {text}", data | {"status": outcome.kind, key: text})


async def _in_foreground(context: ToolContext, handle: AgentHandle) -> ToolResult:
    result: ToolResult | None = None
    try:
        result = await _wait(context, str(handle.address), context.time_left, agent_id=handle.id)
    finally:
        if result is None:
            with trio.move_on_after(CANCEL_TIMEOUT, shield=True), suppress(ClusterError):
                await handle.cancel("the call that waited for it was cancelled")
    return result


async def _wait(
    context: ToolContext, agent: str, seconds: float, *, agent_id: str | None = None
) -> ToolResult:
    """How an agent has ended, or after so many seconds, or at the end of the call, that it has not."""
    seconds = max(0.0, min(seconds, context.time_left - ANSWER_TIME))
    waited = await _outcome_within(context, agent, seconds, agent_id)
    agent_id = waited.agent_id or agent_id
    if waited.outcome is None:
        return ToolResult(
            f"Agent '{agent}' is still running after {seconds:.3g} seconds. "
            f"Call WaitAgent again with name '{agent}' to go on waiting.",
            {"agent": agent, "agent_id": agent_id, "status": "running"},
        )
    _forget_message(context, agent, waited.outcome)
    return _ended(agent, waited.outcome, agent_id=agent_id)


async def _outcome_within(context: ToolContext, agent: str, seconds: float, agent_id: str | None) -> Waited:
    if seconds <= LONGEST_WAIT:
        return await context.client.wait_once(agent, agent_id=agent_id, seconds=seconds)
    return Waited("", agent_id=agent_id, outcome=await context.client.wait(agent, agent_id=agent_id))


def _forget_message(context: ToolContext, agent: str, outcome: Outcome) -> None:
    """An agent that ended while nobody waited has been reported by a message. Its result is not to be read twice."""
    if context.mailbox is not None:
        text = reason_of(outcome)
        context.mailbox.discard_result(
            agent, text if isinstance(outcome, Done) else f"[{outcome.kind}] {text}"
        )


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
    reason = reason_of(outcome)
    return ToolResult.error(f"agent '{agent}' {_how(outcome)}: {reason}", data | {"error": reason})


def _how(outcome: Outcome) -> str:
    words = {"timed_out": "timed out", "lost": "was lost", "cancelled": "was cancelled"}
    return words.get(outcome.kind, outcome.kind)


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
