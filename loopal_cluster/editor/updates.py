"""What an agent reports, as what an editor shows; what an editor sends, as what an agent reads. No IO.

Editors ignore what they do not know, so what has no place in their protocol is left out rather than forced into
one. Source: agentclientprotocol.com, "Prompt Turn", "Tool Calls" and "Content".
"""

from __future__ import annotations

from typing import Any, Final

from attrs import field

from loopal_cluster.acp.rpc import Refused
from loopal_cluster.address import Address
from loopal_cluster.errors import ProtocolError
from loopal_cluster.messages import Decision, Opaque, Permission
from loopal_cluster.payloads import ThinkingStream, TokenUsage, ToolCall, ToolProgress, ToolResult
from loopal_cluster.records import define
from loopal_cluster.wire.contents import loads
from loopal_cluster.wire.jsonrpc import INVALID_PARAMS

__all__ = [
    "OPTIONS",
    "Spoken",
    "Tools",
    "Update",
    "decision_of",
    "message_chunk",
    "prompt_text",
    "tool_call_of",
    "update_of",
]

Update = dict[str, Any]
"""What goes into ``session/update``."""

OPTIONS: Final = [
    {"optionId": "allow", "name": "Allow", "kind": "allow_once"},
    {"optionId": "reject", "name": "Reject", "kind": "reject_once"},
]
"""What a human can answer. There is no "always": a hub's policy is its owner's, not an editor's."""

_KINDS = {
    "read": ("read", "cat", "open", "view"),
    "edit": ("edit", "write", "patch", "notebook"),
    "delete": ("delete", "remove"),
    "move": ("move", "rename"),
    "search": ("grep", "glob", "search", "find", "list", "ls"),
    "execute": ("bash", "shell", "exec", "run", "terminal"),
    "fetch": ("fetch", "web", "http"),
    "think": ("think", "plan"),
}
"""The protocol's kinds, which choose an icon, by the beginnings of tools' names."""


def update_of(payload: object) -> Update | None:
    """An event of an agent as an update of its session; None if an editor has no place for it.

    All that is said about the use of a tool is a ``tool_call``; ``Tools`` knows which of them are new.
    """
    match payload:
        case ThinkingStream(text):
            return {"sessionUpdate": "agent_thought_chunk", "content": _text(text)}
        case ToolCall(id, name, tool_input):
            return _tool(id, name) | {"status": "in_progress", "rawInput": _plain(tool_input)}
        case ToolProgress(id, name, output_tail):
            return _tool(id, name) | {"status": "in_progress", "content": _content(output_tail)}
        case ToolResult(id, name, result, is_error):
            status = "failed" if is_error else "completed"
            return _tool(id, name) | {"status": status, "content": _content(result), "rawOutput": result}
        case TokenUsage(input_tokens, output_tokens, context_window):
            used = input_tokens + output_tokens
            return {"sessionUpdate": "usage_update", "used": used, "size": max(context_window, used)}
        case _:
            return None


def message_chunk(text: str) -> Update:
    """A piece of what the agent says."""
    return {"sessionUpdate": "agent_message_chunk", "content": _text(text)}


@define
class Tools:
    """Which uses of tools were shown in a turn: an editor is told of each as new once, and of changes after that.

    Agents report a use again when its input has come, and some report progress of what they never began.
    """

    _shown: set[str] = field(factory=set)

    def begin(self) -> None:
        """A turn begins."""
        self._shown.clear()

    def show(self, update: Update) -> Update:
        """An update as it is to be sent."""
        if update["sessionUpdate"] != "tool_call":
            return update
        known = update["toolCallId"] in self._shown
        self._shown.add(update["toolCallId"])
        return update | {"sessionUpdate": "tool_call_update"} if known else update


@define
class Spoken:
    """What was said in a turn, so that nothing of its result is said twice, or not at all.

    A result comes as a whole in the reply. Some agents stream it before, as they write; what a function returns is
    streamed after, by the agent's own side, when the turn has ended here. Both come in order.
    """

    _streamed: str = ""
    _ahead: str = ""
    """What was said before its event has come."""

    def begin(self) -> None:
        """A turn begins."""
        self._streamed = ""

    def stream(self, text: str) -> str:
        """A piece of text has come; return what of it is to be said."""
        if text and self._ahead.startswith(text):
            self._ahead = self._ahead[len(text) :]
            return ""
        self._ahead = ""
        self._streamed += text
        return text

    def end(self, result: str) -> str:
        """The turn has ended with a result; return what of it is still to be said."""
        if self._streamed.rstrip().endswith(result.rstrip()):
            return ""
        self._ahead = result.removeprefix(self._streamed)
        return self._ahead


def tool_call_of(permission: Permission, agent: Address) -> Update:
    """The tool call that is shown with a permission. That of another agent says whose it is."""
    asker = permission.agent_name
    own = asker in (None, agent.agent, str(agent))
    title = permission.tool_name if own else f"{asker}: {permission.tool_name}"
    return {
        "toolCallId": permission.tool_call_id, "title": title, "kind": _kind(permission.tool_name),
        "status": "pending", "rawInput": _plain(permission.tool_input),
    }  # fmt: skip


def decision_of(answer: Any) -> Decision | None:
    """What the human chose; None if it was taken back with the turn.

    Raises:
        ProtocolError: it is none of what was offered.
    """
    match answer:
        case {"outcome": {"outcome": "cancelled"}}:
            return None
        case {"outcome": {"outcome": "selected", "optionId": "allow" | "reject" as option}}:
            return Decision(allow=option == "allow")
        case _:
            raise ProtocolError(f"the editor answered a permission with {answer!r}"[:300])


def prompt_text(blocks: Any) -> str:
    """The blocks of a prompt as one text: what the human wrote, and the files that go with it.

    Raises:
        Refused: they are none, or of a kind that we said we do not take.
    """
    if not isinstance(blocks, list) or not blocks:
        raise Refused(INVALID_PARAMS, "session/prompt: prompt must be a list of content blocks")
    return "\n\n".join(_block_text(block) for block in blocks)


def _block_text(block: Any) -> str:
    match block:
        case {"type": "text", "text": str(text)}:
            return text
        case {"type": "resource_link", "uri": str(uri)}:
            name = block.get("title") or block.get("name")
            return f"[{name}]({uri})" if isinstance(name, str) else uri
        case {"type": "resource", "resource": {"uri": str(uri), "text": str(text)}}:
            return f'<file uri="{uri}">\n{text}\n</file>'
        case {"type": str(kind)}:
            raise Refused(INVALID_PARAMS, f"session/prompt: cannot take {kind}; only text, and files of text")
        case _:
            raise Refused(INVALID_PARAMS, "session/prompt: a content block without a type")


def _tool(call: str, name: str) -> Update:
    return {"sessionUpdate": "tool_call", "toolCallId": call, "title": name, "kind": _kind(name)}


def _kind(tool: str) -> str:
    name = tool.rpartition("__")[2].lower()
    return next((kind for kind, starts in _KINDS.items() if name.startswith(starts)), "other")


def _plain(value: Opaque) -> Any:
    try:
        return loads(value)
    except ProtocolError:
        return None  # a number that no editor could read, either


def _text(text: str) -> Update:
    return {"type": "text", "text": text}


def _content(text: str) -> list[Update]:
    return [{"type": "content", "content": _text(text)}]
