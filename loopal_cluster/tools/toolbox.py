"""Runs tools by name, for a model: whatever goes wrong becomes a result that says so."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

import attrs

from loopal_cluster.errors import ClusterError, ErrorCode, RemoteError
from loopal_cluster.messages import Decision
from loopal_cluster.runtime.client import ClusterClient
from loopal_cluster.tools.agent import Agent, WaitAgent
from loopal_cluster.tools.arguments import InvalidArguments, json_schema, read_arguments
from loopal_cluster.tools.cluster import ListAgents, ListHubs, SendMessage
from loopal_cluster.tools.tool import PermissionLevel, Tool, ToolResult

__all__ = ["TOOLS", "Toolbox"]

TOOLS: Final[tuple[type[Tool], ...]] = (ListHubs, ListAgents, Agent, SendMessage, WaitAgent)
"""The tools of a cluster."""

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
        authorize: Authorize | None = None,
    ) -> None:
        self._client = client
        self._authorize = authorize
        self.tools: Mapping[str, type[Tool]] = {tool.tool_name: tool for tool in tools}
        """By name."""

    def definitions(self) -> list[dict[str, Any]]:
        """What a model is told: ``name``, ``description`` and ``input_schema`` of each tool."""
        return [
            {"name": name, "description": tool.description, "input_schema": json_schema(tool)}
            for name, tool in self.tools.items()
        ]

    async def call(self, name: str, arguments: Mapping[str, Any] | str = "") -> ToolResult:
        """Use a tool; ``arguments`` are a mapping or JSON text.

        Never raises for what a model can get wrong, or for what the cluster refuses: that is a result
        with ``is_error``. If cancelled while an agent that was spawned in the foreground runs, that
        agent is cancelled, too.
        """
        if (tool := self.tools.get(name)) is None:
            return ToolResult.error(f"unknown tool {name[:80]!r}; the tools are: {', '.join(self.tools)}")
        try:
            call = read_arguments(tool, arguments)
            if (denied := await self._denied(call)) is not None:
                return denied
            return await call.run(self._client)
        except InvalidArguments as error:
            return ToolResult.error(f"invalid arguments for {name}: {error}")
        except ClusterError as error:
            return ToolResult.error(f"{name}: {error}{_hint(error)}")

    async def _denied(self, call: Tool) -> ToolResult | None:
        if self._authorize is None or call.permission is PermissionLevel.READ_ONLY:
            return None
        decision = await self._authorize(call.tool_name, _given(call))
        if decision.allow:
            return None
        reason = f": {decision.reason}" if decision.reason else ""
        return ToolResult.error(f"{call.tool_name}: permission denied{reason}")


def _given(call: Tool) -> dict[str, Any]:
    return {key: value for key, value in attrs.asdict(call).items() if value is not None}


def _hint(error: ClusterError) -> str:
    hint = _HINTS.get(error.code) if isinstance(error, RemoteError) else None
    return f" ({hint})" if hint else ""
