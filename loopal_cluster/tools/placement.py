"""Chooses the hub for an agent by what the hub can do, instead of by its name.

A hub has *capabilities*, which are words, and *labels*, which have values. What is asked for is a list of
``word`` and ``label=value``; the least busy hub that has all of them is chosen. If there is none, the error
says of each hub what it lacks: that is what a model, or its human, needs to go on.
"""

from __future__ import annotations

from loopal_cluster.errors import ClusterError, NotInCluster
from loopal_cluster.links.cluster_client import ClusterClient
from loopal_cluster.messages import HubInfo

__all__ = ["META_HUB", "NoHubFits", "all_hubs", "away", "choose_hub", "lone_hub"]


META_HUB = "MetaHub"
"""Who did not answer, where a hub should be named: all those that only the MetaHub knows."""


class NoHubFits(ClusterError):
    """No hub has what is asked for; the message says what each of them lacks."""


async def all_hubs(client: ClusterClient) -> tuple[HubInfo, ...]:
    """The hubs of the cluster; if there is none, the hub that we are connected to."""
    try:
        return await client.list_hubs()
    except NotInCluster:
        return (await lone_hub(client),)


async def lone_hub(client: ClusterClient) -> HubInfo:
    """The hub that we are connected to, as a cluster would list it."""
    status = await client.status()
    return HubInfo(
        name=status.hub or "hub",
        status="Connected",
        agent_count=status.agent_count,
        capabilities=status.capabilities,
        agent_types=status.agent_types,
    )


async def away(client: ClusterClient, error: NotInCluster) -> str | None:
    """Why a hub cannot say more than what it has itself; None if it is alone, and there is no more."""
    status = await client.status()
    return None if status.uplink is None else error.detail


async def choose_hub(client: ClusterClient, labels: str, agent_type: str | None) -> str:
    """The name of the least busy hub that has all of ``labels`` and runs ``agent_type``.

    Raises:
        NoHubFits: there is none.
    """
    wanted = [word.strip() for word in labels.split(",") if word.strip()]
    hubs = await all_hubs(client)
    lacking = {hub.name: _lacks(hub, wanted, agent_type) for hub in hubs}
    fitting = [hub for hub in hubs if not lacking[hub.name]]
    if not fitting:
        reasons = "; ".join(f"hub '{name}' {why}" for name, why in lacking.items()) or "there are no hubs"
        raise NoHubFits(f"no hub fits '{', '.join(wanted)}': {reasons}")
    return min(fitting, key=lambda hub: (hub.agent_count, hub.name)).name


def _lacks(hub: HubInfo, wanted: list[str], agent_type: str | None) -> str:
    """Why a hub does not fit; empty if it does."""
    has = {*hub.capabilities, *hub.labels, *(f"{key}={value}" for key, value in hub.labels.items())}
    missing = [word for word in wanted if word not in has]
    if hub.status == "Disconnected":
        return "is disconnected"
    if missing:
        return f"lacks {', '.join(missing)}"
    if agent_type is not None and agent_type not in hub.agent_types:
        return f"does not run '{agent_type}' (it runs: {', '.join(hub.agent_types) or 'none'})"
    return ""
