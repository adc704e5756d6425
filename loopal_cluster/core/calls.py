"""Every request a core has sent and that is not answered yet: who waits for it, until when.

Ids are chosen afresh for each leg and keyed by (peer, id), so two callers with equal ids are never
mixed up, and a peer cannot answer a call made to another. A call ends in exactly one of three ways:
answered, peer lost, or deadline; ``settle`` hands it out once, and the last two become a ``Failure``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

from attrs import Factory, define, evolve

from loopal_cluster.core.deadlines import DeadlineQueue
from loopal_cluster.core.events import Peer
from loopal_cluster.frames import Request
from loopal_cluster.messages import Message
from loopal_cluster.records import record

__all__ = ["Call", "CallTable", "Origin"]

N = TypeVar("N")


@record
class Origin:
    """A request of somebody else that is waiting for our answer."""

    peer: Peer
    id: int


@record
class Call(Generic[N]):
    """An outstanding request."""

    peer: Peer
    id: int
    message: Message[Any]
    then: N
    """What the core does with the answer."""
    deadline: float
    asked_at: float | None = None
    """When it was first sent, if that matters to who repeats it."""


@define
class _Leg(Generic[N]):
    """One peer's calls and its id counter."""

    last_id: int = 0
    calls: dict[int, Call[N]] = Factory(dict)


@define
class CallTable(Generic[N]):
    """The outstanding calls of one core, by peer and id."""

    _legs: dict[Peer, _Leg[N]] = Factory(dict)
    _deadlines: DeadlineQueue[tuple[Peer, int]] = Factory(DeadlineQueue)
    _away: set[Peer] = Factory(set)
    """Peers that are gone, of which calls wait for another connection. No order of it escapes."""

    def open(
        self, peer: Peer, message: Message[Any], then: N, deadline: float, asked_at: float | None = None
    ) -> Request:
        """Remember a call and return the request to send."""
        leg = self._legs.get(peer)
        if leg is None:
            leg = self._legs[peer] = _Leg()
        call_id = leg.last_id = leg.last_id + 1
        leg.calls[call_id] = Call(peer, call_id, message, then, deadline, asked_at)
        self._deadlines.set((peer, call_id), deadline)
        return Request(call_id, message)

    def find(self, peer: Peer, call_id: int) -> Call[N] | None:
        """The call that an answer with this id would settle."""
        leg = self._legs.get(peer)
        return None if leg is None else leg.calls.get(call_id)

    def settle(self, peer: Peer, call_id: int) -> Call[N] | None:
        """Hand out a call for the one and only time; None if it is not (or no longer) open."""
        leg = self._legs.get(peer)
        call = None if leg is None else leg.calls.pop(call_id, None)
        if call is not None:
            self._deadlines.discard((peer, call_id))
            if peer in self._away:
                self._tidy(peer)
        return call

    def extend(self, call: Call[N], deadline: float) -> None:
        """Give an open call more time."""
        if self.find(call.peer, call.id) is call:
            self._legs[call.peer].calls[call.id] = evolve(call, deadline=deadline)
            self._deadlines.set((call.peer, call.id), deadline)

    def settle_due(self, now: float) -> Iterator[Call[N]]:
        """Settle, earliest first, the calls whose deadline has come."""
        while (key := self._deadlines.pop_due(now)) is not None:
            call = self._legs[key[0]].calls.pop(key[1])
            self._tidy(key[0])
            yield call

    def settle_peer(self, peer: Peer, keep: Callable[[Call[N]], bool] = lambda call: False) -> list[Call[N]]:
        """Settle the calls to a peer that is gone, in the order they were made, but those to ``keep``."""
        leg = self._legs.pop(peer, None)
        self._away.discard(peer)
        calls = [] if leg is None else list(leg.calls.values())
        kept = {call.id: call for call in calls if keep(call)}
        if leg is not None and kept:
            leg.calls = kept
            self._legs[peer] = leg
            self._away.add(peer)
        settled = [call for call in calls if call.id not in kept]
        for call in settled:
            self._deadlines.discard((peer, call.id))
        return settled

    def park(self, peer: Peer) -> None:
        """What is open to this peer waits for another connection; nothing will be left of it but that."""
        self._away.add(peer)

    def _tidy(self, peer: Peer) -> None:
        # Never for a live peer: its leg has the counter that keeps ids from being used twice.
        if peer in self._away and not self._legs[peer].calls:
            del self._legs[peer]
            self._away.discard(peer)

    def count(self, peer: Peer) -> int:
        """How many calls are open to a peer."""
        leg = self._legs.get(peer)
        return 0 if leg is None else len(leg.calls)

    def next_deadline(self) -> float | None:
        """When the earliest open call is due."""
        return self._deadlines.next()

    def __iter__(self) -> Iterator[Call[N]]:
        for leg in self._legs.values():
            yield from leg.calls.values()

    def __len__(self) -> int:
        return sum(len(leg.calls) for leg in self._legs.values())
