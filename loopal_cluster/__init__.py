"""Structured concurrency for AI agents across machines, on trio.

Every machine runs a *hub* that hosts agents; a *MetaHub* makes the hubs one cluster. Every spawn has an
owner, every ask has an outcome, every approval reaches a human, and stop means stop::

    async with open_meta_hub() as meta_hub:
        async with open_hub("laptop", agents={"count": count}, join=meta_hub.address, meta_token=meta_hub.token) as hub:
            async with hub.open_client() as client:
                agent = await client.spawn("count", "some text")
                print(await agent.result())

Follow one message, ``await ctx.send("hub-b/two", "hi")``, from an agent on hub A to an agent on hub B:

1. ``links/cluster_client.py``, ``send``: the agent sends its hub a request, ``Route(envelope)``, and waits for the
   answer (``links/caller.py``, ``call``);
2. ``runtime/runtime.py``, ``_on_frames``: hub A has read a frame, which becomes an event for its core,
   ``handle(FrameReceived(peer, frame))``;
3. ``core/hub_routing.py``, ``_route``: the decision. The agent is not here, so the request goes up: ``handle`` returns
   ``[Send(meta_hub, Request(41, ...))]``;
4. ``runtime/runtime.py``, ``_perform``, and ``runtime/outbox.py``, ``_flush``: the effect is queued, and written with all else that is queued
   for that peer (``wire/codec.py``, ``encode``);
5. ``links/channels.py``, ``feed``: at the MetaHub bytes become frames (``wire/framing.py``, ``feed``,
   ``wire/codec.py``, ``decode``), and these events, as in hub A;
6. ``core/meta_routing.py``, ``_on_route``: the MetaHub says who has sent it, and passes it on to hub B;
7. ``core/deliveries.py``, ``deliver_once``: hub B hands it to its agent, once, however often it comes;
8. ``agents/inbox.py``, ``put``: the agent has it. The answer goes back the same way, each hub finding in
   ``core/calls.py``, ``settle``, whom it is for.

``messages.py`` is the vocabulary, ``core/__init__.py`` the contract of a core, ``docs/protocol.md`` the protocol.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# The public names. This is their one list: type checkers read it, and so does ``__getattr__``.
if TYPE_CHECKING:  # isort: off
    from loopal_cluster.acp.agent import AcpAgent as AcpAgent
    from loopal_cluster.address import Address as Address
    from loopal_cluster.agents.child import serve_agent as serve_agent
    from loopal_cluster.agents.context import AgentContext as AgentContext, AgentFunction as AgentFunction
    from loopal_cluster.agents.inbox import Answerer as Answerer, Received as Received
    from loopal_cluster.agents.types import (
        AgentType as AgentType,
        CommandAgent as CommandAgent,
        FunctionAgent as FunctionAgent,
        Place as Place,
        ProcessAgent as ProcessAgent,
        RunningAgent as RunningAgent,
        python_agent as python_agent,
    )
    from loopal_cluster.config import Limits as Limits, Policy as Policy, Timeouts as Timeouts
    from loopal_cluster.core.uplink import Absence as Absence
    from loopal_cluster.errors import (
        AgentCancelled as AgentCancelled,
        AgentError as AgentError,
        AgentFailed as AgentFailed,
        AgentLost as AgentLost,
        AgentNotFound as AgentNotFound,
        AgentTimedOut as AgentTimedOut,
        AmbiguousName as AmbiguousName,
        AskCircle as AskCircle,
        BudgetExceeded as BudgetExceeded,
        ClusterError as ClusterError,
        ConfigError as ConfigError,
        ConnectionLost as ConnectionLost,
        DeadlineExceeded as DeadlineExceeded,
        DeliveryFailed as DeliveryFailed,
        ErrorCode as ErrorCode,
        HubNotConnected as HubNotConnected,
        InvalidAddress as InvalidAddress,
        InvalidRequest as InvalidRequest,
        MethodNotFound as MethodNotFound,
        NameTaken as NameTaken,
        NoOperator as NoOperator,
        NotInCluster as NotInCluster,
        Overloaded as Overloaded,
        ProtocolError as ProtocolError,
        RemoteError as RemoteError,
        SpawnFailed as SpawnFailed,
        TextTooLong as TextTooLong,
        Unauthorized as Unauthorized,
        UnknownAgentType as UnknownAgentType,
    )
    from loopal_cluster.messages import (
        AgentDetails as AgentDetails,
        AgentNode as AgentNode,
        AgentSource as AgentSource,
        Answers as Answers,
        ChannelSource as ChannelSource,
        ClusterEvent as ClusterEvent,
        Decided as Decided,
        Decision as Decision,
        Envelope as Envelope,
        HubInfo as HubInfo,
        HubTopology as HubTopology,
        HumanSource as HumanSource,
        Image as Image,
        Opaque as Opaque,
        Permission as Permission,
        Protocol as Protocol,
        Question as Question,
        Role as Role,
        ScheduledSource as ScheduledSource,
        Source as Source,
        StatusInfo as StatusInfo,
        SystemSource as SystemSource,
        TopologyOf as TopologyOf,
        UplinkInfo as UplinkInfo,
        UserContent as UserContent,
        Waited as Waited,
        Welcome as Welcome,
    )
    from loopal_cluster.outcomes import (
        Cancelled as Cancelled,
        Done as Done,
        Failed as Failed,
        Lost as Lost,
        Outcome as Outcome,
        TimedOut as TimedOut,
    )
    from loopal_cluster.payloads import Payload as Payload
    from loopal_cluster.links.channels import FrameChannel as FrameChannel
    from loopal_cluster.links.client import (
        Client as Client,
        ClientOptions as ClientOptions,
        EventStream as EventStream,
        PermissionHandler as PermissionHandler,
        QuestionHandler as QuestionHandler,
        connect as connect,
        open_client as open_client,
    )
    from loopal_cluster.links.cluster_client import (
        AgentHandle as AgentHandle,
        ClusterClient as ClusterClient,
    )
    from loopal_cluster.runtime.hub import (
        AgentTypes as AgentTypes,
        Dial as Dial,
        Hub as Hub,
        open_hub as open_hub,
    )
    from loopal_cluster.runtime.meta_hub import (
        MetaHub as MetaHub,
        open_meta_hub as open_meta_hub,
        serve_meta_hub as serve_meta_hub,
    )
    from loopal_cluster.links.nursery import AgentNursery as AgentNursery, SpawnOptions as SpawnOptions
    from loopal_cluster.runtime.tokens import Tokens as Tokens
    from loopal_cluster.tools.toolbox import Toolbox as Toolbox

if not TYPE_CHECKING:  # with this, a checker would take any name for one of ours

    def __getattr__(name: str) -> Any:
        """Import a name above, and what it needs, when it is first asked for.

        All of them take a quarter of a second. Now the command line is in charge before that, and an interrupt
        meanwhile is its own; and an agent's process does not import what only a hub needs, nor a hub
        what only a MetaHub does.
        """
        if name == "__all__":
            value = sorted(["__version__", *_homes()])
        elif name.startswith("_") or name not in _homes():
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        else:
            import importlib

            value = getattr(importlib.import_module(_homes()[name]), name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return [*globals(), *_homes()]

    @cache
    def _homes() -> dict[str, str]:
        """The module of each public name."""
        import ast  # not at the top: a program that gives our names by their homes does without

        tree = ast.parse(__spec__.loader.get_source(__name__))
        imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        return {alias.asname: node.module for node in imports for alias in node.names if alias.asname}
