"""Every request a core has sent and that is not answered yet: who waits for it, until when.

Ids are chosen afresh for each leg and keyed by (peer, id), so two callers with equal ids are never
mixed up, and a peer cannot answer a call made to another. A call ends in exactly one of three ways:
answered, peer lost, or deadline; ``settle`` hands it out once, and the last two become a ``Failure``.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar
from weakref import ref

from attrs import Factory, field

from loopal_cluster.core.events import Peer
from loopal_cluster.message_sizes import SMALL, message_bytes
from loopal_cluster.messages import Message
from loopal_cluster.records import define, record

__all__ = ["Call", "CallTable", "Origin"]

N = TypeVar("N")


@record
class Origin:
    """A request of somebody else that is waiting for our answer.

    As what is next after a call: pass the answer on to it.
    """

    peer: Peer
    id: int


@define
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
    open: bool = field(default=True, eq=False, repr=False)
    """Until it is settled."""
    size: int = field(default=0, eq=False, repr=False)
    """Bytes of its message, if those are many; else 0."""


@define
class _Leg(Generic[N]):
    """One peer's calls and its id counter."""

    last_id: int = 0
    calls: dict[int, Call[N]] = Factory(dict)
    size: int = 0
    """Bytes of the large ones among them."""


@define
class CallTable(Generic[N]):
    """The outstanding calls of one core, by peer and id."""

    _legs: dict[Peer, _Leg[N]] = Factory(dict)
    _deadlines: _Deadlines[N] = Factory(lambda: _Deadlines())
    _away: set[Peer] = Factory(set)
    """Peers that are gone, of which calls wait for another connection. No order of it escapes."""

    def open(
        self,
        peer: Peer,
        message: Message[Any],
        then: N,
        deadline: float,
        asked_at: float | None = None,
        size: int | None = None,
    ) -> Call[N]:
        """Remember a call. The request to send has its id. ``size``: its ``message_bytes``, if they are known."""
        leg = self._legs.get(peer)
        if leg is None:
            leg = self._legs[peer] = _Leg()
        call_id = leg.last_id = leg.last_id + 1
        call = leg.calls[call_id] = Call(peer, call_id, message, then, deadline, asked_at)
        if size is None:
            size = message_bytes(message)
        if size > SMALL:
            call.size = size
            leg.size += size
        self._deadlines.add(call)
        return call

    def find(self, peer: Peer, call_id: int) -> Call[N] | None:
        """The call that an answer with this id would settle."""
        leg = self._legs.get(peer)
        return None if leg is None else leg.calls.get(call_id)

    def settle(self, peer: Peer, call_id: int) -> Call[N] | None:
        """Hand out a call for the one and only time; None if it is not (or no longer) open."""
        leg = self._legs.get(peer)
        call = None if leg is None else leg.calls.pop(call_id, None)
        if leg is not None and call is not None:
            call.open = False
            if call.size:
                leg.size -= call.size
            if self._away:
                self._tidy(peer)
        return call

    def extend(self, call: Call[N], deadline: float) -> None:
        """Give an open call more time."""
        if call.open:
            call.deadline = deadline
            self._deadlines.add(call)

    def settle_due(self, now: float) -> Iterator[Call[N]]:
        """Settle, earliest first, the calls whose deadline has come."""
        for call in self._deadlines.pop_due(now):
            self.settle(call.peer, call.id)
            yield call

    def settle_peer(self, peer: Peer, keep: Callable[[Call[N]], bool] = lambda call: False) -> list[Call[N]]:
        """Settle the calls to a peer that is gone, in the order they were made, but those to ``keep``."""
        leg = self._legs.pop(peer, None)
        self._away.discard(peer)
        calls = [] if leg is None else list(leg.calls.values())
        kept = {call.id: call for call in calls if keep(call)}
        if leg is not None and kept:
            leg.calls = kept
            leg.size = sum(call.size for call in kept.values())
            self._legs[peer] = leg
            self._away.add(peer)
        settled = [call for call in calls if call.id not in kept]
        for call in settled:
            call.open = False
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

    def size(self, peer: Peer) -> int:
        """The bytes of the large calls that are open to a peer."""
        leg = self._legs.get(peer)
        return 0 if leg is None else leg.size

    def of(self, peer: Peer) -> list[Call[N]]:
        """The calls that are open to a peer."""
        leg = self._legs.get(peer)
        return [] if leg is None else list(leg.calls.values())

    def next_deadline(self) -> float | None:
        """When the earliest open call is due."""
        return self._deadlines.next()

    def to(self, peer: Peer) -> Iterator[Call[N]]:
        """The open calls to a peer, the oldest first."""
        leg = self._legs.get(peer)
        yield from () if leg is None else leg.calls.values()

    def __iter__(self) -> Iterator[Call[N]]:
        for leg in self._legs.values():
            yield from leg.calls.values()

    def __len__(self) -> int:
        return sum(len(leg.calls) for leg in self._legs.values())


@define
class _Deadlines(Generic[N]):
    """Calls by deadline, those of one deadline in the order of adding.

    Unlike in a ``DeadlineQueue``, settling a call costs nothing here. Nearly all are settled long before they are
    due, and calls of one step have mostly one deadline: so there is a list for each, a call is appended, and
    what is no longer open is skipped when its turn comes. So that no millions of those are kept (100,000
    calls a second, 30 s), all of them go when they may outnumber the open ones. The references
    are weak: a call that is settled would otherwise keep its message, which may be large, until then.
    """

    _calls: dict[float, list[ref[Call[N]]]] = Factory(dict)
    _instants: list[float] = Factory(list)
    """A heap of the keys of ``_calls``."""
    _added: int = 0
    """Since they were last counted."""
    _enough: int = 64
    """When to count them again."""

    def add(self, call: Call[N]) -> None:
        at = call.deadline
        if (calls := self._calls.get(at)) is not None:
            calls.append(ref(call))
        else:
            self._calls[at] = [ref(call)]
            heapq.heappush(self._instants, at)
        self._added += 1
        if self._added > self._enough:
            self._tidy()

    def next(self) -> float | None:
        while self._instants:
            at = self._instants[0]
            calls = self._calls[at]
            while calls and _due(calls[-1], at) is None:
                calls.pop()
            if calls:
                return at
            del self._calls[heapq.heappop(self._instants)]
        return None

    def pop_due(self, now: float) -> Iterator[Call[N]]:
        while (at := self.next()) is not None and at <= now:
            for found in self._calls.pop(heapq.heappop(self._instants)):
                call = _due(found, at)
                if call is not None:  # what follows from the one before may have settled it
                    yield call

    def _tidy(self) -> None:
        due = {at: [call for call in calls if _due(call, at)] for at, calls in self._calls.items()}
        self._calls = {at: calls for at, calls in due.items() if calls}
        self._instants = sorted(self._calls)  # which is a heap
        self._added, self._enough = 0, 64 + sum(map(len, self._calls.values()))


def _due(found: ref[Call[N]], at: float) -> Call[N] | None:
    """The call, if it is still open and due at this instant."""
    call = found()
    return call if call is not None and call.open and call.deadline == at else None
