"""Cancels that a hub is still to hear of: it was away, or did not answer, when somebody gave its agent up.

Any agent of any hub can name a hub that there is not, and what is owed is kept for an hour. So it is bounded in
all, in bytes, and who is owed most in the name of makes room: what others asked for stays.
"""

from __future__ import annotations

from collections.abc import Hashable

from attrs import field

from loopal_cluster.messages import CancelAgent
from loopal_cluster.records import define, record

__all__ = ["Owed"]

OVERHEAD = 700
"""Bytes that an entry takes besides its texts: records, keys, a timer."""


@record
class _Entry:
    message: CancelAgent
    asker: Hashable
    size: int


@define
class Owed:
    """Cancels by hub and agent id."""

    _limit: int
    """Bytes."""
    _by_hub: dict[str, dict[str, _Entry]] = field(factory=dict, init=False)
    _by_asker: dict[Hashable, dict[tuple[str, str], int]] = field(factory=dict, init=False)
    """The size of each, the oldest first."""
    _bytes_of: dict[Hashable, int] = field(factory=dict, init=False)
    size: int = field(default=0, init=False)
    """Bytes of all."""

    def add(self, hub: str, message: CancelAgent, asker: Hashable) -> list[tuple[str, str]]:
        """Remember a cancel in the name of ``asker``; return the hub and agent id of those that made room."""
        agent_id = message.agent_id or ""
        self.forget(hub, agent_id)
        size = OVERHEAD + len(hub) + len(agent_id) + len(message.agent.agent) + len(message.reason)
        self._by_hub.setdefault(hub, {})[agent_id] = _Entry(message, asker, size)
        self._by_asker.setdefault(asker, {})[hub, agent_id] = size
        self._bytes_of[asker] = self._bytes_of.get(asker, 0) + size
        self.size += size
        made_room = []
        while self.size > self._limit and self.size > size:
            greediest = max(self._bytes_of, key=self._bytes_of.__getitem__)
            oldest = next(iter(self._by_asker[greediest]))
            self.forget(*oldest)
            made_room.append(oldest)
        return made_room

    def to(self, hub: str) -> list[CancelAgent]:
        """What a hub is still to hear."""
        return [entry.message for entry in self._by_hub.get(hub, {}).values()]

    def forget(self, hub: str, agent_id: str) -> None:
        """Nothing more is to be said about this agent."""
        entry = self._by_hub.get(hub, {}).pop(agent_id, None)
        if entry is None:
            return
        if not self._by_hub[hub]:
            del self._by_hub[hub]
        del self._by_asker[entry.asker][hub, agent_id]
        self._bytes_of[entry.asker] -= entry.size
        self.size -= entry.size
        if not self._by_asker[entry.asker]:
            del self._by_asker[entry.asker], self._bytes_of[entry.asker]

    def __len__(self) -> int:
        return sum(map(len, self._by_asker.values()))
