"""What happens in a cluster: what the events of ``Client.subscribe`` say, and what ``AgentContext.emit`` takes.

::

    async for event in await client.subscribe():
        match event.payload:
            case Stream(text):
                print(event.hub, event.agent, text)

A payload that is none of these comes as ``Opaque``, the JSON it was sent as.
"""

from loopal_cluster.links.client import EventStream
from loopal_cluster.messages import ClusterEvent
from loopal_cluster.payloads import (
    AutoContinuation,
    AutoModeDecision,
    AwaitingInput,
    Compacted,
    Ended,
    Error,
    Finished,
    HubAway,
    HubGone,
    HubJoined,
    HubSuspect,
    Interrupted,
    MessageRouted,
    MetaHubAway,
    MetaHubBack,
    ModeChanged,
    Payload,
    RetryCleared,
    RetryError,
    Rewound,
    ServerToolResult,
    ServerToolUse,
    Started,
    Stream,
    SubAgentSpawned,
    ThinkingComplete,
    ThinkingStream,
    TokenUsage,
    ToolBatchStart,
    ToolCall,
    ToolPermissionRequest,
    ToolProgress,
    ToolResult,
    TurnDiffSummary,
    UserQuestionRequest,
)

__all__ = [
    "AutoContinuation",
    "AutoModeDecision",
    "AwaitingInput",
    "ClusterEvent",
    "Compacted",
    "Ended",
    "Error",
    "EventStream",
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
