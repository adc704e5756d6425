"""What of the Agent Client Protocol we read: version 1, and no more of it than we use.

Programs of many makes and ages speak it, each with something of its own. So what is unknown is passed over,
here and everywhere: fields, kinds of updates, kinds of options. What is known must be of its type; a part that
is not is left out by ``read``, in words.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

__all__ = [
    "AgentInfo",
    "Capabilities",
    "Chunk",
    "ConfigOption",
    "Initialized",
    "Mode",
    "Modes",
    "ModeUpdate",
    "OptionsUpdate",
    "PermissionOption",
    "PermissionRequest",
    "Plan",
    "SessionInfo",
    "ToolCall",
    "Unreadable",
    "Update",
    "UsageUpdate",
    "read",
    "read_update",
    "text_of_block",
]

T = TypeVar("T")


class Unreadable(ValueError):
    """Something is not what the protocol says; the message names the path."""


class _Wire(msgspec.Struct, rename="camel", frozen=True, kw_only=True):
    """Names as on the wire, in camel case; unknown ones are ignored."""


class AgentInfo(_Wire, frozen=True):
    """Which program it is."""

    name: str = ""
    title: str | None = None
    version: str = ""


class McpCapabilities(_Wire, frozen=True):
    """How it reaches MCP servers, besides starting them."""

    http: bool = False


class SessionCapabilities(_Wire, frozen=True):
    """What else it can do with sessions; null, or an object."""

    resume: Any = None
    close: Any = None


class Capabilities(_Wire, frozen=True):
    """What the program can do."""

    load_session: bool = False
    mcp_capabilities: McpCapabilities = McpCapabilities()
    session_capabilities: SessionCapabilities = SessionCapabilities()


class AuthMethod(_Wire, frozen=True):
    """A way to log in."""

    id: str
    name: str = ""


class Initialized(_Wire, frozen=True):
    """The answer to ``initialize``."""

    protocol_version: int
    agent_capabilities: Capabilities = Capabilities()
    auth_methods: tuple[AuthMethod, ...] = ()
    agent_info: AgentInfo | None = None


class Mode(_Wire, frozen=True):
    """A way to work: plan, ask, act."""

    id: str
    name: str = ""


class Modes(_Wire, frozen=True):
    """The modes of a session, and which is on."""

    current_mode_id: str
    available_modes: tuple[Mode, ...] = ()


class ConfigOption(_Wire, frozen=True):
    """A setting of a session: one of a list of values, which may be in groups."""

    id: str
    type: str = ""
    name: str = ""
    category: str | None = None
    current_value: Any = None
    options: tuple[Mapping[str, Any], ...] = ()

    @property
    def values(self) -> tuple[str, ...]:
        """The ids of the values it may have."""
        flat = [inner for item in self.options for inner in (item.get("options") or [item])]
        return tuple(value["value"] for value in flat if isinstance(value.get("value"), str))


class SessionInfo(_Wire, frozen=True):
    """The answer to ``session/new``; without the id, those to ``session/load`` and ``session/resume``."""

    session_id: str = ""
    modes: Modes | None = None
    config_options: tuple[ConfigOption, ...] | None = None


class PermissionOption(_Wire, frozen=True):
    """A possible answer. Its kind is the only part that means the same in all programs."""

    option_id: str
    kind: str
    name: str = ""


class ToolCall(_Wire, frozen=True):
    """A tool call, or what has become of it."""

    tool_call_id: str
    title: str | None = None
    name: str | None = None
    kind: str | None = None
    status: str | None = None
    content: Any = None
    locations: Any = None
    raw_input: Any = None
    raw_output: Any = None
    meta: Any = msgspec.field(default=None, name="_meta")


class PermissionRequest(_Wire, frozen=True):
    """May this tool be used?"""

    session_id: str
    tool_call: ToolCall
    options: tuple[PermissionOption, ...]


class Chunk(_Wire, frozen=True):
    """A piece of a message."""

    kind: str
    """``agent_message_chunk``, ``agent_thought_chunk`` or ``user_message_chunk``."""
    content: Mapping[str, Any]
    message_id: str | None = None


class PlanEntry(_Wire, frozen=True):
    """A step of a plan."""

    content: str
    status: str = ""


class Plan(_Wire, frozen=True):
    """What the agent is about to do; each replaces the one before."""

    entries: tuple[PlanEntry, ...]


class ModeUpdate(_Wire, frozen=True):
    """Another mode is on."""

    current_mode_id: str


class OptionsUpdate(_Wire, frozen=True):
    """Settings have changed; the mode may be one of them."""

    config_options: tuple[ConfigOption, ...]


class UsageUpdate(_Wire, frozen=True):
    """How full the model's context is, in tokens."""

    used: int
    size: int


Update = Chunk | ToolCall | Plan | ModeUpdate | OptionsUpdate | UsageUpdate

_UPDATES: Mapping[str, type[Update]] = {
    "tool_call": ToolCall,
    "tool_call_update": ToolCall,
    "plan": Plan,
    "current_mode_update": ModeUpdate,
    "config_option_update": OptionsUpdate,
    "usage_update": UsageUpdate,
}
_CHUNKS = ("agent_message_chunk", "agent_thought_chunk", "user_message_chunk")


def read(value: Any, type_: type[T]) -> T:
    """A plain value as a record.

    Raises:
        Unreadable: it is something else.
    """
    try:
        return msgspec.convert(value, type_)
    except (msgspec.ValidationError, RecursionError) as error:
        raise Unreadable(str(error).replace("`", "")) from None


def read_update(value: Any) -> Update | None:
    """The update of a ``session/update``; None if its kind is unknown, or not one that we use.

    Raises:
        Unreadable: it is of a known kind, but not of its form.
    """
    match value:
        case {"sessionUpdate": str(kind)} if kind in _CHUNKS:
            return read({**value, "kind": kind}, Chunk)
        case {"sessionUpdate": str(kind)} if kind in _UPDATES:
            return read(value, _UPDATES[kind])
        case _:
            return None


def text_of_block(block: Any) -> str:
    """A content block as text; of what is no text, what names it."""
    match block:
        case {"type": "text", "text": str(text)}:
            return text
        case {"type": "resource", "resource": {"text": str(text)}}:
            return text
        case {"type": "resource_link", "uri": str(uri)}:
            return uri
        case {"type": str(kind)}:
            return f"[{kind}]"
        case _:
            return ""
