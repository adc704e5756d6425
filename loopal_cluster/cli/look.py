"""Commands that only look: ``status``, ``hubs``, ``agents``, ``topology``, ``events``.

They work the same on a MetaHub and on a hub, which asks its MetaHub; a hub that is alone shows itself. What is
missing, because a hub did not answer or the MetaHub is away, is said on stderr, and is an entry with ``error`` for
programs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any

import typer
from attrs import field

from loopal_cluster.cli import show
from loopal_cluster.cli.connect import (
    LOOK_TIMEOUT,
    AsJson,
    Connect,
    Timeout,
    TokenFile,
    hub_of,
    open_session,
)
from loopal_cluster.cli.run import DONE, UNREACHABLE, async_command
from loopal_cluster.errors import ConnectionLost, NotInCluster
from loopal_cluster.links.client import Client, EventStream
from loopal_cluster.messages import (
    AgentNode,
    ClusterEvent,
    HubInfo,
    HubTopology,
    Role,
    StatusInfo,
    TopologyOf,
    Welcome,
)
from loopal_cluster.records import define, evolve
from loopal_cluster.tools.placement import META_HUB, away, lone_hub

__all__ = ["EventPrinter", "register"]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""

    @async_command(app, "status")
    async def status(
        timeout: Timeout = LOOK_TIMEOUT,
        connect: Connect = None,
        token_file: TokenFile = None,
        as_json: AsJson = False,
    ) -> int:
        """Show how this hub, or the MetaHub, is. The status is 4 if the hub's MetaHub is away."""
        async with open_session(connect, token_file, role=Role.OBSERVER, timeout=timeout) as client:
            found = await client.status()
            hubs = await client.list_hubs() if client.welcome.kind == "meta_hub" else ()
        document = status_document(client.welcome, found, hubs)
        if as_json:
            show.document(document)
        else:
            for line in status_lines(document, time.time()):
                show.out(line)
        is_away = found.uplink is not None and not found.uplink.connected
        return UNREACHABLE if is_away else DONE

    @async_command(app, "hubs")
    async def hubs(
        timeout: Timeout = LOOK_TIMEOUT,
        connect: Connect = None,
        token_file: TokenFile = None,
        as_json: AsJson = False,
    ) -> None:
        """List the hubs of the cluster and how they are."""
        async with open_session(connect, token_file, role=Role.OBSERVER, timeout=timeout) as client:
            found, why = await _hubs(client)
        if as_json:
            missing = [] if why is None else [{"name": META_HUB, "error": why}]
            show.document([*map(hub_document, found), *missing])
        else:
            show.table(("HUB", "STATUS", "AGENTS", "CAPABILITIES", "TYPES"), map(hub_row, found))
        if why is not None:
            show.note(show.one_line(f"incomplete: only this hub is listed: {why}"))

    @async_command(app, "agents")
    async def agents(
        timeout: Timeout = LOOK_TIMEOUT,
        connect: Connect = None,
        token_file: TokenFile = None,
        as_json: AsJson = False,
    ) -> None:
        """List the live agents of the cluster."""
        async with open_session(connect, token_file, role=Role.OBSERVER, timeout=timeout) as client:
            parts = await _topology(client)
        found = [agent_document(part.hub, node) for part in parts for node in running_on(part)]
        if as_json:
            missing = [topology_document(part) for part in parts if part.topology is None]
            show.document([*found, *missing])
        else:
            show.table(("AGENT", "TYPE", "LIFECYCLE", "PARENT"), map(agent_row, found))
        _tell_missing(parts)

    @async_command(app, "topology")
    async def topology(
        timeout: Timeout = LOOK_TIMEOUT,
        connect: Connect = None,
        token_file: TokenFile = None,
        as_json: AsJson = False,
    ) -> None:
        """Show every hub's agents as a tree."""
        async with open_session(connect, token_file, role=Role.OBSERVER, timeout=timeout) as client:
            parts = await _topology(client)
        if as_json:
            show.document([topology_document(part) for part in parts])
        else:
            complete = {part.hub for part in parts if part.topology is not None}
            agents = {f"{part.hub}/{node.name}" for part in parts for node in running_on(part)}
            for part in parts:
                for line in tree_lines(part, lambda parent: parent in agents or _hub(parent) not in complete):
                    show.out(line)
        _tell_missing(parts)

    @async_command(app, "events")
    async def events(
        follow: Annotated[
            bool, typer.Option("--follow", help="Go on with what happens, until interrupted.")
        ] = False,
        since: Annotated[
            int | None,
            typer.Option(
                min=0,
                metavar="NUMBER",
                help="Only those after this number. [default: all; with --follow: none]",
            ),
        ] = None,
        timeout: Timeout = None,
        connect: Connect = None,
        token_file: TokenFile = None,
        as_json: AsJson = False,
    ) -> None:
        """Show what has happened, as far as it is kept."""
        if timeout is None and not follow:
            timeout = LOOK_TIMEOUT
        async with open_session(connect, token_file, role=Role.OBSERVER, timeout=timeout) as client:
            if follow:
                await EventPrinter(await client.subscribe(since), as_json).follow()
            else:
                EventPrinter(await client.subscribe(since or 0), as_json).print_kept()


# Asking.


async def _hubs(client: Client) -> tuple[list[HubInfo], str | None]:
    """What hubs there are, and why others may be missing."""
    try:
        return list(await client.list_hubs()), None
    except NotInCluster as error:
        hub, why = await lone_hub(client), await away(client, error)
    if why is None:
        show.note(f"hub '{hub.name}' is in no cluster")
        return [hub], None
    return [evolve(hub, status="Disconnected")], why


async def _topology(client: Client) -> list[TopologyOf]:
    try:
        return list(await client.topology())
    except NotInCluster as error:
        parts = [TopologyOf(hub_of(client) or "?", HubTopology(await client.local_agents()))]
        why = await away(client, error)
        return parts if why is None else [*parts, TopologyOf(META_HUB, error=why)]


def running_on(part: TopologyOf) -> Iterator[AgentNode]:
    """The agents that really run on a hub; those it spawned elsewhere are listed there."""
    nodes = () if part.topology is None else part.topology.agents
    return (node for node in nodes if node.hub in (None, part.hub))


def _tell_missing(parts: list[TopologyOf]) -> None:
    missing = [f"'{part.hub}' did not answer ({part.error})" for part in parts if part.topology is None]
    if missing:
        show.note(show.one_line(f"incomplete: {', '.join(missing)}"))


# The state of one hub, or of the MetaHub.


def status_document(welcome: Welcome, status: StatusInfo, hubs: Sequence[HubInfo]) -> dict[str, Any]:
    """The state for ``--json``."""
    waiting = dict(status.waiting)
    if welcome.kind == "meta_hub":
        hub_documents = [hub_document(hub) for hub in hubs]
        own = {"kind": "meta_hub", "cluster": welcome.cluster, "agent_count": status.agent_count}
        return {**own, "hubs": hub_documents, "waiting": waiting}
    return {
        "kind": "hub",
        "hub": status.hub or welcome.hub,
        "agent_count": status.agent_count,
        "agent_types": list(status.agent_types),
        "capabilities": list(status.capabilities),
        "meta_hub": _meta_hub_document(status),
        "waiting": waiting,
    }


def _meta_hub_document(status: StatusInfo) -> dict[str, Any]:
    if status.uplink is None:
        return {"state": "alone"}
    if status.uplink.connected:
        return {"state": "joined"}
    return {"state": "away", "since": status.uplink.since, "reason": status.uplink.reason}


def status_lines(document: dict[str, Any], now: float) -> list[str]:
    """The state for people."""
    if document["kind"] == "meta_hub":
        count = len(document["hubs"])
        lines = [f"MetaHub of {count} hub{'s' * (count != 1)}, {document['agent_count']} agents"]
        lines += [
            f"hub {hub['name']}: {hub['status']}, {hub['agent_count']} agents" for hub in document["hubs"]
        ]
    else:
        lines = [f"hub {document['hub']}, {document['agent_count']} agents"]
        meta_hub = document["meta_hub"]
        match meta_hub["state"]:
            case "joined":
                lines.append("MetaHub: joined")
            case "alone":
                lines.append("MetaHub: none, it is alone")
            case _:
                since = meta_hub["since"]
                for_long = "" if since is None else f" for {max(0, now - since):.0f} s"
                lines.append(f"MetaHub: away{for_long}: {meta_hub['reason']}")
    waiting = [f"{count} {name.replace('_', ' ')}" for name, count in document["waiting"].items()]
    lines.append(f"waiting: {', '.join(waiting) or 'nothing'}")
    return [show.one_line(line) for line in lines]


# Records as documents and rows.


def hub_document(hub: HubInfo) -> dict[str, Any]:
    """A hub for ``--json``."""
    return {
        "name": hub.name,
        "status": hub.status,
        "agent_count": hub.agent_count,
        "capabilities": list(hub.capabilities),
        "agent_types": list(hub.agent_types),
        "labels": dict(hub.labels),
    }


def hub_row(hub: HubInfo) -> tuple[str, ...]:
    """A hub for people."""
    capabilities, types = ",".join(hub.capabilities), ",".join(hub.agent_types)
    return hub.name, hub.status, str(hub.agent_count), capabilities, types


def agent_document(hub: str, node: AgentNode) -> dict[str, Any]:
    """An agent for ``--json``; its parent is bare if it is on the same hub, else qualified."""
    return {
        "name": node.name,
        "hub": hub,
        "parent": node.parent,
        "type": node.type,
        "lifecycle": node.lifecycle,
        "persistent": node.persistent,
        "id": node.id,
        "children": list(node.children),
    }


def agent_row(agent: dict[str, Any]) -> tuple[str, ...]:
    """An agent for people, with the address to use in other commands."""
    return f"{agent['hub']}/{agent['name']}", agent["type"] or "", agent["lifecycle"], agent["parent"] or ""


def topology_document(part: TopologyOf) -> dict[str, Any]:
    """A hub's part of the topology for ``--json``: as on the wire, and an error if it is missing."""
    if part.topology is None:
        return {"hub": part.hub, "error": part.error}
    return {"hub": part.hub, "agents": [_node_document(part.hub, node) for node in part.topology.agents]}


def _node_document(hub: str, node: AgentNode) -> dict[str, Any]:
    return agent_document(node.hub or hub, node)


def tree_lines(part: TopologyOf, is_agent: Callable[[str], bool] = lambda parent: True) -> list[str]:
    """A hub's agents as a tree, children below their parents.

    ``is_agent`` says whether a parent on another hub is one: it may be a client, or an agent that has ended.
    """
    if part.topology is None:
        return [show.one_line(f"{part.hub}  (did not answer: {part.error})")]
    below = _by_parent(part.topology.agents)
    lines = [show.one_line(part.hub)]
    # A stack, and not a function that calls itself: how deep it goes is up to another hub.
    waiting = [("", node, last) for node, last in _with_last(below.pop(None, []))][::-1]
    while waiting:
        indent, node, last = waiting.pop()
        lines.append(f"{indent}{'└── ' if last else '├── '}{_tree_label(node, is_agent)}")
        children = below.pop(node.name, []) if node.hub is None else []
        deeper = indent + ("    " if last else "│   ")
        waiting += [(deeper, child, is_last) for child, is_last in _with_last(children)][::-1]
    return lines


def _by_parent(nodes: Sequence[AgentNode]) -> dict[str | None, list[AgentNode]]:
    """The nodes by the parent to draw them under; None for those at the top."""
    here = {node.name: node.parent for node in nodes if node.hub is None}
    below: dict[str | None, list[AgentNode]] = {}
    for node in nodes:
        # Up to the top: a tree that a foreign hub made circular is to be drawn, too.
        seen, above = set[str](), node.parent
        while above in here and above not in seen:
            seen.add(above)
            above = here[above]
        is_top = node.parent not in here or above in seen
        below.setdefault(None if is_top else node.parent, []).append(node)
    return below


def _with_last(nodes: list[AgentNode]) -> Iterator[tuple[AgentNode, bool]]:
    return ((node, index == len(nodes) - 1) for index, node in enumerate(nodes))


def _tree_label(node: AgentNode, is_agent: Callable[[str], bool]) -> str:
    name = node.name if node.hub is None else f"{node.hub}/{node.name}"
    label = f"{name}  ({node.type or 'agent'}, {node.lifecycle})"
    if node.parent is not None and "/" in node.parent:
        label += (
            f"  child of {node.parent}" if is_agent(node.parent) else f"  spawned from {_hub(node.parent)}"
        )
    return show.one_line(label)


def _hub(address: str) -> str:
    return address.partition("/")[0]


# Events.


@define
class EventPrinter:
    """Prints the events of a stream, and between them how many are missing."""

    stream: EventStream
    as_json: bool
    _missed: int = field(default=0, init=False)

    async def follow(self) -> None:
        """Print what comes, for as long as the connection lasts.

        Raises:
            ConnectionLost: it has ended.
        """
        async for event in self.stream:
            self._print(event)
        raise ConnectionLost(f"{self.stream.ended}; no more events")

    def print_kept(self) -> None:
        """Print what was kept from before, and return."""
        for event in self.stream.arrived():
            self._print(event)
        self._print_gap(self.stream.newest_seq - self.stream.last_seq, self.stream.newest_seq)

    def _print(self, event: ClusterEvent) -> None:
        self._print_gap(self.stream.missed - self._missed, event.seq - 1)
        self._missed = self.stream.missed
        if self.as_json:
            show.document(show.event_document(event))
        else:
            show.out(show.event_line(event))

    def _print_gap(self, missed: int, last_seq: int) -> None:
        if missed <= 0:
            return
        if self.as_json:
            show.document(show.gap_document(missed, last_seq))
        else:
            show.out(show.gap_line(missed))
