"""How a coding agent's question for permission is put to a human, and answered.

An answer is chosen by its kind, because names and ids differ from program to program. A human allows this
one use: an option that would allow more is never taken, so that nothing that was said to us widens what the
program lets itself do. The cluster's own tools can be let through, if the program says that it is one of them
in a way that its model cannot bring about.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from loopal_cluster.acp.schema import PermissionOption, PermissionRequest, ToolCall
from loopal_cluster.tools.toolbox import TOOLS

__all__ = ["choose_option", "is_cluster_tool", "shown_input"]

_TOOL_NAMES = "|".join(tool.tool_name for tool in TOOLS)
_GEMINI_TITLE = re.compile(rf"(?:{_TOOL_NAMES}) \((.+) MCP Server\)")


def choose_option(options: Sequence[PermissionOption], *, allow: bool) -> str | None:
    """The option to take; None if there is none that says no more than this.

    To be on the safe side, no may last longer than was said, and yes may not.
    """
    kinds = ("allow_once",) if allow else ("reject_once", "reject_always")
    for kind in kinds:
        for option in options:
            if option.kind == kind:
                return option.option_id
    return None


def is_cluster_tool(
    request: PermissionRequest, program: str, servers: Collection[str], own_name: str | None = None
) -> bool:
    """Whether a tool of our own is to be used; ``program`` is what the program calls itself, ``own_name`` the tool.

    ``servers`` is what our own server is called in this session. Others may be there, from a user's settings or from
    the repository that is worked in, under whatever names; that of ours nobody can know before.

    Each program says it in a way of its own, and what one says with its own words may in another be a text of
    the model: a command is a title, too.
    """
    call, program = request.tool_call, program.lower()
    if "claude" in program:
        # Newer ones name the server; older ones only tell the tool's own name, when they announce its use.
        return any(name in servers for name in (_claude_server(call.meta), _claude_server_of(own_name)))
    if "codex" in program:
        return isinstance(call.raw_input, dict) and _codex_server(call.raw_input) in servers
    if "gemini" in program:
        title = _GEMINI_TITLE.fullmatch(call.title or "")
        return call.kind != "execute" and title is not None and title[1] in servers
    return False


def shown_input(call: ToolCall) -> Any:
    """What a human is to see of a tool's use: its input, or, if that is not known, whatever else is said."""
    if call.raw_input not in (None, {}):
        return call.raw_input
    said = {"title": call.title, "kind": call.kind, "locations": call.locations, "content": call.content}
    return {key: value for key, value in said.items() if value}


def _codex_server(given: Mapping[str, Any]) -> str | None:
    name = given.get("server_name")
    return name if isinstance(name, str) else None


def _claude_server_of(tool: str | None) -> str | None:
    match (tool or "").split("__"):
        case ["mcp", server, _]:
            return server
        case _:
            return None


def _claude_server(meta: Any) -> str | None:
    match meta:
        case {"claudeCode": {"mcpServer": {"name": str(name)}}}:
            return name
        case _:
            return None
