"""Structured concurrency for AI agents across machines, on trio.

Every machine runs a *hub* that hosts agents; a *MetaHub* makes the hubs one cluster. Every spawn has an
owner, every ask has an outcome, every approval reaches a human, and stop means stop::

    async with open_meta_hub() as meta_hub:
        async with open_hub("laptop", agents={"count": count}, join=meta_hub.address, meta_token=meta_hub.token) as hub:
            async with hub.open_client() as client:
                agent = await client.spawn("count", "some text")
                print(await agent.result())

Follow one message from an agent on hub A to an agent on hub B, in five files:

1. ``runtime/channels.py``: bytes become a frame (``wire/framing.py``, ``wire/codec.py``);
2. ``runtime/runtime.py``, ``_on_frames``: the frame becomes an event, ``handle(FrameReceived(peer, frame))``;
3. ``core/meta_hub.py``, ``handle``, and ``core/meta_routing.py``, ``_on_route``: the decision,
   ``[Send(peer_b, Request(41, DeliverEnvelope(...)))]``;
4. ``runtime/runtime.py``, ``_perform`` and ``_flush``: the effect is queued, and written with all else
   that is queued for that peer;
5. the answer walks the same way back, through ``core/calls.py``, ``CallTable.settle``.

``messages.py`` is the vocabulary, ``core/__init__.py`` the contract of a core, ``docs/protocol.md`` the
protocol.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from loopal_cluster.acp.agent import AcpAgent
    from loopal_cluster.address import Address
    from loopal_cluster.agents.child import serve_agent
    from loopal_cluster.agents.context import AgentContext, AgentFunction
    from loopal_cluster.agents.inbox import Received
    from loopal_cluster.agents.types import AgentType, CommandAgent, FunctionAgent, ProcessAgent, python_agent
    from loopal_cluster.config import Limits, Policy, Timeouts
    from loopal_cluster.errors import (
        AgentCancelled,
        AgentError,
        AgentFailed,
        AgentLost,
        AgentNotFound,
        AgentTimedOut,
        AmbiguousName,
        AskCircle,
        BudgetExceeded,
        ClusterError,
        ConfigError,
        ConnectionLost,
        DeadlineExceeded,
        DeliveryFailed,
        ErrorCode,
        HubNotConnected,
        InvalidAddress,
        InvalidRequest,
        MethodNotFound,
        NameTaken,
        NoOperator,
        NotInCluster,
        Overloaded,
        ProtocolError,
        RemoteError,
        SpawnFailed,
        TextTooLong,
        Unauthorized,
        UnknownAgentType,
    )
    from loopal_cluster.messages import Answers, Decision, Role
    from loopal_cluster.outcomes import Cancelled, Done, Failed, Lost, Outcome, TimedOut
    from loopal_cluster.runtime.client import Client, connect
    from loopal_cluster.runtime.cluster_client import AgentHandle, ClusterClient
    from loopal_cluster.runtime.hub import Hub, open_hub
    from loopal_cluster.runtime.meta_hub import MetaHub, open_meta_hub, serve_meta_hub

__version__ = "0.1.0"

__all__ = [
    "AcpAgent",
    "Address",
    "AgentCancelled",
    "AgentContext",
    "AgentError",
    "AgentFailed",
    "AgentFunction",
    "AgentHandle",
    "AgentLost",
    "AgentNotFound",
    "AgentTimedOut",
    "AgentType",
    "AmbiguousName",
    "Answers",
    "AskCircle",
    "BudgetExceeded",
    "Cancelled",
    "Client",
    "ClusterClient",
    "ClusterError",
    "CommandAgent",
    "ConfigError",
    "ConnectionLost",
    "DeadlineExceeded",
    "Decision",
    "DeliveryFailed",
    "Done",
    "ErrorCode",
    "Failed",
    "FunctionAgent",
    "Hub",
    "HubNotConnected",
    "InvalidAddress",
    "InvalidRequest",
    "Limits",
    "Lost",
    "MetaHub",
    "MethodNotFound",
    "NameTaken",
    "NoOperator",
    "NotInCluster",
    "Outcome",
    "Overloaded",
    "Policy",
    "ProcessAgent",
    "ProtocolError",
    "Received",
    "RemoteError",
    "Role",
    "SpawnFailed",
    "TextTooLong",
    "TimedOut",
    "Timeouts",
    "Unauthorized",
    "UnknownAgentType",
    "__version__",
    "connect",
    "open_hub",
    "open_meta_hub",
    "python_agent",
    "serve_agent",
    "serve_meta_hub",
]


_HOMES = {
    "acp.agent": ("AcpAgent",),
    "address": ("Address",),
    "agents.child": ("serve_agent",),
    "agents.context": ("AgentContext", "AgentFunction"),
    "agents.inbox": ("Received",),
    "agents.types": ("AgentType", "CommandAgent", "FunctionAgent", "ProcessAgent", "python_agent"),
    "config": ("Limits", "Policy", "Timeouts"),
    "messages": ("Answers", "Decision", "Role"),
    "outcomes": ("Cancelled", "Done", "Failed", "Lost", "Outcome", "TimedOut"),
    "runtime.client": ("Client", "connect"),
    "runtime.cluster_client": ("AgentHandle", "ClusterClient"),
    "runtime.hub": ("Hub", "open_hub"),
    "runtime.meta_hub": ("MetaHub", "open_meta_hub", "serve_meta_hub"),
}
"""Where the names above live, if not in ``errors``."""

if not TYPE_CHECKING:  # with this, a checker would take any name for one of ours

    def __getattr__(name: str) -> Any:
        """Import a name above, and what it needs, when it is first asked for.

        All of them take a quarter of a second. Now the command line is in charge before that, and an interrupt
        meanwhile is its own; and an agent's process does not import what only a hub needs, nor a hub
        what only a MetaHub does.
        """
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        home = next((home for home, names in _HOMES.items() if name in names), "errors")
        globals()[name] = value = getattr(importlib.import_module(f"{__name__}.{home}"), name)
        return value
