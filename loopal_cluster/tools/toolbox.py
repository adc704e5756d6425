"""Runs tools by name, for a model: whatever goes wrong becomes a result that says so."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

import attrs
import trio

from loopal_cluster.errors import ClusterError, ErrorCode, RemoteError
from loopal_cluster.links.cluster_client import ClusterClient
from loopal_cluster.messages import Decision
from loopal_cluster.tools.agent import Agent, CancelAgent, WaitAgent
from loopal_cluster.tools.arguments import InvalidArguments, json_schema, read_arguments
from loopal_cluster.tools.cluster import ListAgents, ListHubs
from loopal_cluster.tools.mailbox import Mailbox
from loopal_cluster.tools.talk import Inbox, SendMessage
from loopal_cluster.tools.tool import PermissionLevel, Tool, ToolContext, ToolResult

__all__ = ["MCP_SERVER", "TOOLS", "Toolbox"]

TOOLS: Final[tuple[type[Tool], ...]] = (
    ListHubs,
    ListAgents,
    Agent,
    SendMessage,
    WaitAgent,
    CancelAgent,
    Inbox,
)
"""The tools of a cluster."""

MCP_SERVER: Final = "loopal"
"""What our MCP server is called; agents make it a part of our tools' names."""

LATENESS: Final = 5.0
"""Seconds after its time limit at which a call is given up: what waits has returned by then, and says more."""

Authorize = Callable[[str, Mapping[str, Any]], Awaitable[Decision]]
"""Asks whether a tool may be used with these arguments; ``AgentContext.ask_permission`` is one."""

_HINTS: Final[Mapping[ErrorCode, str]] = {
    ErrorCode.AGENT_NOT_FOUND: "ListAgents shows the agents there are",
    ErrorCode.HUB_NOT_CONNECTED: "ListHubs shows the hubs there are",
    ErrorCode.UNKNOWN_AGENT_TYPE: "ListHubs shows what each hub runs",
    ErrorCode.NOT_IN_CLUSTER: "leave out the hub to work on this one",
    ErrorCode.NAME_TAKEN: "choose another name, or leave it out",
    ErrorCode.AMBIGUOUS_NAME: "use one of the qualified names",
    ErrorCode.OVERLOADED: "try again later",
}


class Toolbox:
    """Some tools, and the connection they are used over: an ``AgentContext`` or a ``Client``."""

    def __init__(
        self,
        client: ClusterClient,
        *,
        tools: Sequence[type[Tool]] = TOOLS,
        address: str | None = None,
        mailbox: Mailbox | None = None,
        authorize: Authorize | None = None,
    ) -> None:
        self._client = client
        self._address = address
        self._mailbox = mailbox
        self._authorize = authorize
        self.tools: Mapping[str, type[Tool]] = {
            tool.tool_name: tool for tool in tools if mailbox is not None or not tool.needs_mailbox
        }
        """By name; without a ``mailbox``, those that do not need one."""

    def definitions(self) -> list[dict[str, Any]]:
        """What a model is told: ``name``, ``description`` and ``input_schema`` of each tool."""
        return [
            {"name": name, "description": tool.description, "input_schema": json_schema(tool)}
            for name, tool in self.tools.items()
        ]

    async def call(
        self, name: str, arguments: Mapping[str, Any] | str = "", *, time_limit: float = math.inf
    ) -> ToolResult:
        """Use a tool; ``arguments`` are a mapping or JSON text.

        What waits for longer than ``time_limit`` seconds goes on without this call, whose result then says
        how to wait again. Never raises for what a model can get wrong, or for what the cluster refuses: that
        is a result with ``is_error``. If cancelled while an agent that was spawned in the foreground runs,
        that agent is cancelled, too.
        """
        if (tool := self.tools.get(name)) is None:
            return ToolResult.error(f"unknown tool {name[:80]!r}; the tools are: {', '.join(self.tools)}")
        deadline = trio.current_time() + time_limit
        context = ToolContext(self._client, self._mailbox, deadline, self._address)
        try:
            with trio.move_on_at(deadline + LATENESS):
                call = read_arguments(tool, arguments)
                return await self._denied(call) or await call.run(context)
        except InvalidArguments as error:
            return ToolResult.error(f"invalid arguments for {name}: {error}")
        except ClusterError as error:
            return ToolResult.error(f"{name}: {error}{_hint(error)}")
        return ToolResult.error(f"{name}: not done after {time_limit:g} s, and given up; try again later")

    async def _denied(self, call: Tool) -> ToolResult | None:
        if self._authorize is None or call.level is PermissionLevel.READ_ONLY:
            return None
        decision = await self._authorize(call.tool_name, _given(call))
        if decision.allow:
            return None
        said = "it is not allowed, but nobody has refused it" if decision.unanswered else "permission denied"
        reason = f": {decision.reason}" if decision.reason else ""
        return ToolResult.error(f"{call.tool_name}: {said}{reason}")


def _given(call: Tool) -> dict[str, Any]:
    return {key: value for key, value in attrs.asdict(call).items() if value is not None}


def _hint(error: ClusterError) -> str:
    hint = _HINTS.get(error.code) if isinstance(error, RemoteError) else None
    return f" ({hint})" if hint else ""
