"""Tools to look around: ``ListHubs``, ``ListAgents``."""

from __future__ import annotations

from typing import Any, ClassVar

from attrs import evolve

from loopal_cluster.errors import HubNotConnected, NotInCluster
from loopal_cluster.labels import printable
from loopal_cluster.links.cluster_client import ClusterClient
from loopal_cluster.messages import AgentNode, HubInfo, HubTopology, TopologyOf
from loopal_cluster.records import record
from loopal_cluster.tools.arguments import argument
from loopal_cluster.tools.placement import META_HUB, away, lone_hub
from loopal_cluster.tools.tool import PermissionLevel, Tool, ToolContext, ToolResult

__all__ = ["ListAgents", "ListHubs"]


@record
class ListHubs(Tool):
    """Which machines there are."""

    tool_name: ClassVar = "ListHubs"
    permission: ClassVar = PermissionLevel.READ_ONLY
    only_looks: ClassVar = True
    description: ClassVar = (
        "List the hubs of the cluster you run in. A hub is a program on some machine that runs AI agents; "
        "you are one of its agents. Hubs that share a coordinator, the MetaHub, form a cluster, and their "
        "agents can start each other and send each other messages. Use this before you start an agent on "
        "another machine (tool Agent, argument target_hub), to learn the hub's exact name, whether it is "
        "reachable, which agent types it runs and what it is capable of (for example 'gpu'). Returns one "
        "line per hub, your own marked, with its capabilities and labels: either can be asked for with the "
        "argument labels of the tool Agent. If your hub is in no cluster, it says so and shows your hub only."
    )

    async def run(self, context: ToolContext) -> ToolResult:
        client = context.client
        status = await client.status()
        try:
            hubs = await client.list_hubs()
        except NotInCluster as error:
            return _alone(await lone_hub(client), context.address, await away(client, error))
        own = status.uplink.hub_name if status.uplink else status.hub
        lines = [_hub_line(hub, own) for hub in hubs]
        heading = f"Connected to MetaHub as '{own}'" if own else "Connected to MetaHub"
        data = {"in_cluster": True, "own_hub": own, "own_address": context.address}
        text = "\n".join([heading, *_self_lines(context.address), "", "Hubs:", *lines])
        return ToolResult(text, data | {"hubs": [_hub_data(hub) for hub in hubs]})


def _self_lines(address: str | None) -> list[str]:
    return [] if address is None else [f"You are the agent '{address}': others can send you messages."]


def _alone(hub: HubInfo, address: str | None, why: str | None) -> ToolResult:
    heading = "Not in a cluster: there is only this hub."
    if why is not None:
        heading = f"Only this hub is listed: {why}."
    text = "\n".join([heading, *_self_lines(address), "", _hub_line(hub, hub.name)])
    data = {"in_cluster": False, "own_hub": hub.name, "own_address": address}
    return ToolResult(text, data | {"hubs": [_hub_data(hub)]})


def _hub_line(hub: HubInfo, own: str | None) -> str:
    facts = [hub.status, f"{hub.agent_count} agents"]
    if hub.agent_types:
        facts.append(f"runs {', '.join(hub.agent_types)}")
    if hub.capabilities:
        facts.append(f"capable of {', '.join(hub.capabilities)}")
    if hub.labels:
        facts.append(f"labels {', '.join(f'{key}={value}' for key, value in sorted(hub.labels.items()))}")
    return f"  - {hub.name} ({'; '.join(facts)}){' <- your hub' if hub.name == own else ''}"


def _hub_data(hub: HubInfo) -> dict[str, Any]:
    return {
        "name": hub.name,
        "status": hub.status,
        "agent_count": hub.agent_count,
        "agent_types": list(hub.agent_types),
        "capabilities": list(hub.capabilities),
        "labels": dict(hub.labels),
    }


@record
class ListAgents(Tool):
    """Which agents there are."""

    tool_name: ClassVar = "ListAgents"
    permission: ClassVar = PermissionLevel.READ_ONLY
    only_looks: ClassVar = True
    description: ClassVar = (
        "List the AI agents that run now, on all hubs of the cluster (a hub is a program on some machine "
        "that runs agents; see ListHubs). Use this to find whom you can send a message to (SendMessage), "
        "wait for (WaitAgent) or ask about (Agent with action 'status'). Returns one line per agent: its "
        "address 'hub/agent', which those tools take, its type, its state and which agent started it. "
        "Agents that have ended are not listed. A hub that does not answer is named with the reason."
    )
    hub: str | None = argument("Only the agents of this hub. Leave out for the whole cluster.", default=None)

    async def run(self, context: ToolContext) -> ToolResult:
        parts = await _topology(context.client)
        if self.hub is not None:
            parts = [part for part in parts if part.hub == self.hub]
            if not parts:
                raise HubNotConnected(f"hub '{self.hub}' not connected")
        agents = [_agent_data(part.hub, node) for part in parts for node in _nodes(part)]
        silent = {part.hub: part.error for part in parts if part.error is not None}
        lines = [_agent_line(agent) for agent in agents] or ["  (none)"]
        lines += [f"  - hub '{hub}' did not answer: {printable(error)}" for hub, error in silent.items()]
        return ToolResult("\n".join(["Agents:", *lines]), {"agents": agents, "unanswered": silent})


async def _topology(client: ClusterClient) -> list[TopologyOf]:
    try:
        return list(await client.topology())
    except NotInCluster as error:
        status, nodes = await client.status(), await client.local_agents()
        own, why = TopologyOf(status.hub or "hub", HubTopology(nodes)), await away(client, error)
        return [own] if why is None else [own, TopologyOf(META_HUB, error=why)]


def _nodes(part: TopologyOf) -> list[AgentNode]:
    """Those that really run there; a shadow is listed by the hub it is the shadow of."""
    nodes = part.topology.agents if part.topology is not None else ()
    return [evolve(node, hub=part.hub) for node in nodes if node.hub is None]


def _agent_data(hub: str, node: AgentNode) -> dict[str, Any]:
    parent = node.parent if node.parent is None or "/" in node.parent else f"{hub}/{node.parent}"
    return {
        "agent": f"{hub}/{node.name}",
        "agent_id": node.id,
        "type": node.type,
        "status": node.lifecycle,
        "parent": parent,
    }


def _agent_line(agent: dict[str, Any]) -> str:
    facts = [agent["type"] or "unknown type", agent["status"]]
    if agent["parent"] is not None:
        facts.append(f"started by {agent['parent']}")
    return f"  - {agent['agent']} ({'; '.join(facts)})"
