"""What agents report: one frozen record per event payload of the base dialect.

Hubs pass payloads on unread; a user interface reads them with ``wire.contents.payload``, and a hub or
an agent that has something to report makes one. Names and fields are those on the wire. Integers
are unsigned, of 32 or 64 bits: a base peer silently drops an event with any other number, so a
record refuses it first.
"""

from __future__ import annotations

from typing import Any

from attrs import field, validators

from loopal_cluster.messages import (
    Opaque,
    UserContent,
)
from loopal_cluster.records import record

__all__ = [
    "PAYLOADS",
    "AutoContinuation",
    "AutoModeDecision",
    "AwaitingInput",
    "Compacted",
    "Ended",
    "Error",
    "Finished",
    "HubAway",
    "HubGone",
    "HubJoined",
    "HubSuspect",
    "Interrupted",
    "MessageRouted",
    "MetaHubAway",
    "MetaHubBack",
    "ModeChanged",
    "Payload",
    "RetryCleared",
    "RetryError",
    "Rewound",
    "ServerToolResult",
    "ServerToolUse",
    "Started",
    "Stream",
    "SubAgentSpawned",
    "ThinkingComplete",
    "ThinkingStream",
    "TokenUsage",
    "ToolBatchStart",
    "ToolCall",
    "ToolPermissionRequest",
    "ToolProgress",
    "ToolResult",
    "TurnDiffSummary",
    "UserQuestionRequest",
]


def _unsigned(bits: int, **kwargs: Any) -> Any:
    """An integer that fits Loopal's type for it."""
    return field(validator=[validators.ge(0), validators.lt(2**bits)], **kwargs)


def _optional() -> Any:
    """A field that Loopal leaves out when it has no value, instead of writing ``null``."""
    # The codec treats it as it does our extensions of the protocol: left out at its default.
    return field(default=None, metadata={"extension": True})


def _optional_unsigned(bits: int) -> Any:
    number = validators.and_(validators.ge(0), validators.lt(2**bits))
    return field(default=None, validator=validators.optional(number), metadata={"extension": True})


# The life of an agent.


@record
class Started:
    """The agent's loop has begun."""


@record
class AwaitingInput:
    """The agent is idle."""


@record
class Interrupted:
    """The agent's turn was ended from outside."""


@record
class Finished:
    """The agent's loop has ended."""


@record
class SubAgentSpawned:
    """A hub started an agent for another one."""

    name: str
    agent_id: str
    parent: str | None = _optional()
    model: str | None = _optional()
    session_id: str | None = _optional()


@record
class MessageRouted:
    """A hub delivered a message."""

    source: str
    """The sender's label: a name, ``human``, ``scheduled``, ``system:<kind>``."""
    target: str
    content_preview: str | UserContent | Opaque
    """The start of the text. A hub puts the content itself here; the codec cuts it."""


# What the model says.


@record
class Stream:
    """A chunk of the model's text."""

    text: str


@record
class ThinkingStream:
    """A chunk of the model's thinking."""

    text: str


@record
class ThinkingComplete:
    """The model has done thinking."""

    token_count: int = _unsigned(32)


@record
class TokenUsage:
    """What the conversation has cost so far."""

    input_tokens: int = _unsigned(32)
    output_tokens: int = _unsigned(32)
    context_window: int = _unsigned(32)
    cache_creation_input_tokens: int = _unsigned(32)
    cache_read_input_tokens: int = _unsigned(32)
    thinking_tokens: int = _unsigned(32)


@record
class AutoContinuation:
    """The answer was cut off, and the agent asks the model to go on."""

    continuation: int = _unsigned(32)
    max_continuations: int = _unsigned(32)


@record
class Error:
    """Something went wrong."""

    message: str


@record
class RetryError:
    """The model's provider failed, and is tried again."""

    message: str
    attempt: int = _unsigned(32)
    max_attempts: int = _unsigned(32)


@record
class RetryCleared:
    """The retry worked."""


# Tools.


@record
class ToolCall:
    """The agent uses a tool."""

    id: str
    name: str
    input: Opaque


@record
class ToolProgress:
    """A tool is still at work."""

    id: str
    name: str
    output_tail: str
    elapsed_ms: int = _unsigned(64)


@record
class ToolResult:
    """A tool has answered."""

    id: str
    name: str
    result: str
    is_error: bool
    duration_ms: int | None = _optional_unsigned(64)
    metadata: Opaque | None = _optional()


@record
class ToolBatchStart:
    """Several tools start at once."""

    tool_ids: tuple[str, ...]


@record
class ServerToolUse:
    """The model's provider uses a tool of its own."""

    id: str
    name: str
    input: Opaque


@record
class ServerToolResult:
    """A provider's own tool has answered."""

    tool_use_id: str
    content: Opaque


@record
class ToolPermissionRequest:
    """A tool waits for permission. Not sent by agents behind a hub: they ask with a request."""

    id: str
    name: str
    input: Opaque


@record
class UserQuestionRequest:
    """A question waits for an answer. Not sent by agents behind a hub."""

    id: str
    questions: Opaque


@record
class AutoModeDecision:
    """The automatic policy decided about a tool."""

    tool_name: str
    decision: str
    reason: str
    duration_ms: int = _unsigned(64, default=0)


# The conversation.


@record
class ModeChanged:
    """The agent plans, or acts."""

    mode: str
    """``plan`` or ``act``."""


@record
class Rewound:
    """The conversation was cut back."""

    remaining_turns: int = _unsigned(64)


@record
class Compacted:
    """The conversation was shortened to fit."""

    strategy: str
    """``smart`` or ``emergency``."""
    kept: int = _unsigned(64)
    removed: int = _unsigned(64)
    tokens_before: int = _unsigned(32)
    tokens_after: int = _unsigned(32)


@record
class TurnDiffSummary:
    """The files that a turn changed."""

    modified_files: tuple[str, ...]


# Ours: a base peer drops what it does not know.


@record
class Ended:
    """An agent's outcome, as its hub settled it."""

    outcome: str
    """``done``, ``failed``, ``cancelled``, ``timed_out`` or ``lost``."""
    text: str
    """The beginning of its result, its error or its reason."""


@record
class HubJoined:
    """A hub has joined, or is back."""

    name: str


@record
class HubSuspect:
    """A hub has been silent for longer than it should."""

    name: str


@record
class HubAway:
    """A hub's connection ended; its place is kept for a moment."""

    name: str
    reason: str


@record
class HubGone:
    """A hub is lost, and with it all it ran; or it has left, and says so in the reason."""

    name: str
    reason: str


@record
class MetaHubAway:
    """A hub is not in its cluster (any more): the MetaHub is lost, not reached, or refuses it. It dials on."""

    reason: str


@record
class MetaHubBack:
    """A hub is in its cluster, after it was not."""


Payload = (
    Started
    | AwaitingInput
    | Interrupted
    | Finished
    | SubAgentSpawned
    | MessageRouted
    | Stream
    | ThinkingStream
    | ThinkingComplete
    | TokenUsage
    | AutoContinuation
    | Error
    | RetryError
    | RetryCleared
    | ToolCall
    | ToolProgress
    | ToolResult
    | ToolBatchStart
    | ServerToolUse
    | ServerToolResult
    | ToolPermissionRequest
    | UserQuestionRequest
    | AutoModeDecision
    | ModeChanged
    | Rewound
    | Compacted
    | TurnDiffSummary
    | Ended
    | HubJoined
    | HubSuspect
    | HubAway
    | HubGone
    | MetaHubAway
    | MetaHubBack
)

PAYLOADS: dict[str, type[Payload]] = {cls.__name__: cls for cls in Payload.__args__}
"""Every payload by its name on the wire."""
