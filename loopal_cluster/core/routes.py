"""Where agents are, as a MetaHub knows it.

Hubs of ours announce their agents, so a bare name is found without asking anybody. Hubs of the base
dialect must be asked; their answers are believed for a while, and forgotten with the hub.
"""

from __future__ import annotations

from collections import OrderedDict

from attrs import field

from loopal_cluster.core.exchange import Refused
from loopal_cluster.errors import ErrorCode
from loopal_cluster.messages import Announce
from loopal_cluster.records import define

__all__ = ["Directory", "RouteCache"]

MAX_GENERATIONS = 1024
"""More than any ``agent_depth`` in use."""


@define
class Directory:
    """The announced agents, by name and by hub."""

    _limit: int = 20_000
    """Agents of a hub."""
    _by_name: dict[str, dict[str, tuple[str, float]]] = field(factory=dict, init=False)
    """The identity of each, and since when it is up."""
    _by_hub: dict[str, dict[str, str | None]] = field(factory=dict, init=False)
    """Each hub's agents, and the parent of each."""

    def update(self, hub: str, announce: Announce, now: float) -> None:
        """Take in what a hub says it runs now.

        Raises:
            Refused: it says more than a hub may.
        """
        if (
            self.count(hub) + len(announce.started) > self._limit
            and self._count_with(hub, announce) > self._limit
        ):
            raise Refused(ErrorCode.OVERLOADED, f"hub '{hub}' may announce {self._limit} agents")
        if announce.whole:
            self.forget(hub)
        known = self._by_hub.setdefault(hub, {})
        for name in announce.ended:
            if name in known:
                del known[name]
                self._drop(name, hub)
        for entry in announce.started:
            known[entry.name] = entry.parent
            self._by_name.setdefault(entry.name, {})[hub] = (entry.id, now - entry.up_ms / 1000)

    def _count_with(self, hub: str, announce: Announce) -> int:
        """How many agents a hub has announced then."""
        known = set() if announce.whole else {*self._by_hub.get(hub, ())}
        return len((known - {*announce.ended}) | {entry.name for entry in announce.started})

    def forget(self, hub: str) -> None:
        """Forget a hub's agents."""
        for name in self._by_hub.pop(hub, ()):
            self._drop(name, hub)

    def hubs_of(self, agent: str) -> list[str]:
        """The hubs that run an agent of this name."""
        return list(self._by_name.get(agent, ()))

    def only_hub_of(self, agent: str, asker: str) -> str | None:
        """The one hub besides ``asker`` that runs an agent of this name; None if there is none, or more than one."""
        hubs = self._by_name.get(agent)
        if hubs is None or len(hubs) > 2:
            return None
        others = [hub for hub in hubs if hub != asker]
        return others[0] if len(others) == 1 else None

    def has(self, agent: str, hub: str, agent_id: str | None = None) -> bool:
        """Whether the hub runs an agent of this name (and identity)."""
        known_id, _ = self._by_name.get(agent, {}).get(hub, (None, 0.0))
        return known_id is not None and agent_id in (None, known_id)

    def since(self, agent: str, hub: str) -> float:
        """Since when the hub's agent of this name is up, at the latest."""
        return self._by_name[agent][hub][1]

    def depth_below(self, parent: str | None, claimed: int) -> int:
        """The generations above an agent to be spawned: as many as we know of, or as its hub claims, if that is more.

        What a hub says of its own agents cannot be checked; but it cannot deny what it, or another, has announced.
        """
        known, hub = 0, None
        # Chains that bite their tail are as deep as any.
        while parent is not None and known < MAX_GENERATIONS:
            at, slash, name = parent.rpartition("/")
            hub = at if slash else hub
            agents = self._by_hub.get(hub or "", {})
            if name not in agents:  # a client of that hub, or an agent that we do not know
                break
            known, parent = known + 1, agents[name]
        return max(known, claimed, 0)

    def count(self, hub: str) -> int:
        """How many agents a hub has announced."""
        return len(self._by_hub.get(hub, ()))

    def _drop(self, name: str, hub: str) -> None:
        hubs = self._by_name[name]
        del hubs[hub]
        if not hubs:
            del self._by_name[name]


@define
class RouteCache:
    """The newest answers of base hubs, bounded and expiring."""

    _ttl: float
    _limit: int = 10_000
    _found: OrderedDict[str, tuple[str, float]] = field(factory=OrderedDict, init=False)

    def remember(self, agent: str, hub: str, now: float) -> None:
        """Believe for a while that ``hub`` has ``agent``."""
        self._found[agent] = (hub, now + self._ttl)
        self._found.move_to_end(agent)
        if len(self._found) > self._limit:
            self._found.popitem(last=False)

    def find(self, agent: str, now: float) -> str | None:
        """The hub that is believed to have ``agent``."""
        hub, until = self._found.get(agent, (None, 0.0))
        return hub if now < until else None

    def drop(self, agent: str) -> None:
        """An answer has proved wrong."""
        self._found.pop(agent, None)

    def forget(self, hub: str) -> None:
        """Forget what was believed of a hub."""
        for agent in [agent for agent, (known, _) in self._found.items() if known == hub]:
            del self._found[agent]
