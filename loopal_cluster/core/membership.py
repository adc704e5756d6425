"""The hubs of a cluster and how they are: alive, suspect, or away with their place kept."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping

from attrs import field

from loopal_cluster.core.events import Peer
from loopal_cluster.messages import HubInfo, Protocol
from loopal_cluster.records import define

__all__ = ["Health", "HubRecord", "Membership"]


class Health(enum.Enum):
    """What is known of a hub; the values are the base dialect's words."""

    ALIVE = "Connected"
    SUSPECT = "Degraded"
    """It has been silent for ``suspect_timeout``."""
    AWAY = "Disconnected"
    """Its connection ended; its place is kept for ``rejoin_timeout``."""


@define(eq=False)
class HubRecord:
    """One registered hub."""

    name: str
    instance: str | None
    """None for a hub of the base dialect."""
    peer: Peer
    protocol: Protocol | None
    capabilities: tuple[str, ...]
    labels: Mapping[str, str]
    agent_types: tuple[str, ...]
    seen_at: float
    """When it last said anything."""
    since: float
    """When this instance first registered, here or with our predecessor."""
    joined_at: float
    """When its connection registered."""
    health: Health = Health.ALIVE
    silent_since: float = 0.0
    """When it was last found not to be alive."""
    agent_count: int = 0
    """As its last heartbeat had it."""
    attended: bool = False
    """Whether it has an operator, as far as it has said on the connection that is up."""
    told_attended: bool = False
    """What it was last told of the operators of others, on that connection."""

    def speaks(self, feature: str) -> bool:
        """Whether it has agreed to one of our additions."""
        return self.protocol is not None and feature in self.protocol.features

    def info(self) -> HubInfo:
        """A copy for ``meta/list_hubs``."""
        return HubInfo(
            name=self.name,
            status=self.health.value,
            agent_count=self.agent_count,
            capabilities=self.capabilities,
            labels=self.labels,
            agent_types=self.agent_types,
            protocol=None if self.protocol is None else self.protocol.version,
        )


@define
class Membership:
    """The hubs of one MetaHub, by name, in the order they came."""

    _by_name: dict[str, HubRecord] = field(factory=dict, init=False)

    def add(self, record: HubRecord) -> None:
        """Add a hub; its name must be free."""
        assert record.name not in self._by_name
        self._by_name[record.name] = record

    def remove(self, record: HubRecord) -> None:
        """Remove a hub."""
        del self._by_name[record.name]

    def get(self, name: str) -> HubRecord | None:
        """The hub of this name, alive or not."""
        return self._by_name.get(name)

    def reachable(self) -> list[HubRecord]:
        """The hubs that are connected, alive or suspect."""
        return [record for record in self._by_name.values() if record.health is not Health.AWAY]

    def __iter__(self) -> Iterator[HubRecord]:
        return iter(list(self._by_name.values()))

    def __len__(self) -> int:
        return len(self._by_name)
