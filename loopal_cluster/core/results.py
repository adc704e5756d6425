"""The outcomes of agents that have ended: bounded, expiring, keyed by identity.

A name finds the newest run of that name; an identity finds exactly one. Reusing a name therefore
never returns an older run's result to somebody who knows which run they mean.
"""

from __future__ import annotations

from collections import OrderedDict

from attrs import field

from loopal_cluster.address import Address
from loopal_cluster.message_sizes import payload_bytes
from loopal_cluster.messages import AgentDetails, Waited
from loopal_cluster.outcomes import Failed, Outcome, reason_of
from loopal_cluster.records import define, record

__all__ = ["FinishedAgent", "Results"]


LIFECYCLE = 200
"""So many characters of its error are in the base dialect's word for where a failed agent stands."""


@record
class FinishedAgent:
    """An agent that has ended."""

    id: str
    address: Address
    type: str | None
    parent: Address | None
    outcome: Outcome
    expires_at: float
    was_up: bool = True
    """Whether its spawn had been answered yes."""
    repeated_until: float | None = None
    """Until when its spawn may be repeated; None: never."""

    def waited(self, *, brief: bool = False) -> Waited:
        """The answer to a wait. ``brief``: with the text only once, for those who read the outcome."""
        return Waited(
            output="" if brief else reason_of(self.outcome),
            agent=str(self.address),
            agent_id=self.id,
            outcome=self.outcome,
        )

    def details(self, *, brief: bool = False) -> AgentDetails:
        """The answer to ``hub/agent_info``; ``brief`` as in a wait."""
        failed = isinstance(self.outcome, Failed)
        reason = reason_of(self.outcome)
        return AgentDetails(
            name=self.address.agent,
            lifecycle=f'Failed("{reason[:LIFECYCLE]}")' if failed else "Finished",
            output=None if brief else reason,
            parent=None if self.parent is None else str(self.parent),
            id=self.id,
            type=self.type,
            hub=self.address.hub,
            outcome=self.outcome,
        )


@define
class Results:
    """The last finished agents of one hub."""

    _limit: int
    _limit_bytes: int = 64 * 2**20
    _bytes: int = field(default=0, init=False)
    _by_id: dict[str, FinishedAgent] = field(factory=dict, init=False)
    """In the order they ended, which is also the order they expire."""
    _newest: dict[Address, str] = field(factory=dict, init=False)
    _spent: OrderedDict[str, float] = field(factory=OrderedDict, init=False)
    """Identities whose outcomes were forgotten because there were too many, until when they are not used again."""

    def add(self, finished: FinishedAgent, *, by_name: bool = True) -> None:
        """Keep an outcome; forget the oldest if there are too many. Without ``by_name`` only its id finds it."""
        if (before := self._by_id.pop(finished.id, None)) is not None:
            self._bytes -= payload_bytes(before.outcome)
        self._by_id[finished.id] = finished
        self._bytes += payload_bytes(finished.outcome)
        if by_name:
            self._name(finished)
        while len(self._by_id) > self._limit or (self._bytes > self._limit_bytes and len(self._by_id) > 1):
            oldest = next(iter(self._by_id.values()))
            if oldest.repeated_until is not None:
                self._spent[oldest.id] = oldest.repeated_until
            self._forget(oldest.id)

    def _name(self, finished: FinishedAgent) -> None:
        self._newest[finished.address] = finished.id
        if (bare := finished.address.on(None)) != finished.address:
            # A shadow's bare name finds it too, unless an agent of this hub has used the name.
            known = self._by_id.get(self._newest.get(bare, ""))
            if known is None or known.address.hub is not None:
                self._newest[bare] = finished.id

    def expire(self, now: float) -> None:
        """Forget what has been kept long enough."""
        while self._by_id and self._by_id[oldest := next(iter(self._by_id))].expires_at <= now:
            self._forget(oldest)
        while self._spent and next(iter(self._spent.values())) <= now:
            self._spent.popitem(last=False)

    def next_deadline(self) -> float | None:
        """When the oldest expires."""
        oldest = next(iter(self._by_id.values())).expires_at if self._by_id else None
        return next(iter(self._spent.values()), oldest)

    def is_spent(self, agent_id: str) -> bool:
        """Whether an agent with this identity has ended, and how is not known any more."""
        return agent_id in self._spent

    @property
    def full(self) -> bool:
        """Whether so many have ended that no more could be told from new ones."""
        return len(self._spent) >= 10 * self._limit

    def get(self, agent_id: str) -> FinishedAgent | None:
        """The run with this identity."""
        return self._by_id.get(agent_id)

    def find(self, address: Address, agent_id: str | None = None) -> FinishedAgent | None:
        """The run with this identity, or the newest of this address."""
        if agent_id is not None:
            return self._by_id.get(agent_id)
        newest = self._newest.get(address)
        return None if newest is None else self._by_id[newest]

    def __len__(self) -> int:
        return len(self._by_id)

    def _forget(self, agent_id: str) -> None:
        finished = self._by_id.pop(agent_id)
        self._bytes -= payload_bytes(finished.outcome)
        address = finished.address
        for key in (address, address.on(None)):
            if self._newest.get(key) == agent_id:
                del self._newest[key]
