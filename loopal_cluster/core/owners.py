"""Whose an agent is: with its owner it ends, unless it is detached.

A hub ends what it runs (``Supervisor.end_owned``). A MetaHub ends what its own clients have had spawned, and on hubs of
the base dialect, which end nothing, also what agents of other hubs have (``MetaSpawns``, ``BaseAgents``).
"""

from __future__ import annotations

from loopal_cluster.address import Address
from loopal_cluster.core.events import Peer
from loopal_cluster.records import record

__all__ = ["LocalClient", "OnHub", "Owner", "Parent", "RemoteClient", "hub_of", "is_elsewhere", "parent_of"]


@record
class Parent:
    """An agent. Its hub answers for it: if that is lost, so is the parent."""

    address: Address
    """Bare if it is on this hub, qualified if not."""


@record
class LocalClient:
    """A client of this hub or MetaHub, for as long as its connection lasts."""

    peer: Peer


@record
class RemoteClient:
    """A client of the MetaHub, which ends itself what its clients leave behind.

    Not so if it is started anew, and so knows nothing of them: hence its life is what the owner is known by.
    """

    cluster: str


@record
class OnHub:
    """For a MetaHub: some agent or client of a hub, which ends with the hub at the latest."""

    hub: str


Owner = Parent | LocalClient | RemoteClient


def parent_of(owner: Owner | None) -> Address | None:
    """The address of a parent; None for an agent of a client, or of nobody."""
    return owner.address if isinstance(owner, Parent) else None


def hub_of(owner: Owner | None) -> str | None:
    """The other hub that a parent is on, if it is."""
    return owner.address.hub if isinstance(owner, Parent) else None


def is_elsewhere(owner: Owner | None) -> bool:
    """Whether only a MetaHub can tell of the end of an owner."""
    return isinstance(owner, RemoteClient) or hub_of(owner) is not None
