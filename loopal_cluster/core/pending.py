"""Things that wait for something and have until an instant for it: a dict whose entries have deadlines."""

from __future__ import annotations

from collections.abc import Callable, Hashable, ItemsView, Iterator, ValuesView
from typing import Any, Generic, TypeVar

from attrs import field

from loopal_cluster.core.deadlines import DeadlineQueue
from loopal_cluster.records import define

__all__ = ["Pending"]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@define
class Pending(Generic[K, V]):
    """Entries by key, in the order they were added, each with a deadline or none as yet.

    An entry and its deadline go together, so nothing becomes due that is not there any more. The deadlines are timers
    in the one queue of a core, so that instants of different kinds keep their order among each other, and the core,
    which looks for the earliest at every step, looks in one place. What is due stays until its owner pops it: some of it
    is only tried again.
    """

    _timers: DeadlineQueue[Any]
    _timer: Callable[[K], Any]
    """The record that stands for an entry's deadline in the queue of the core: ``WaitDue``."""
    _entries: dict[K, V] = field(factory=dict, init=False)

    def add(self, key: K, value: V, until: float | None = None) -> None:
        """Add an entry, or replace it and its deadline."""
        self._entries[key] = value
        self.set_deadline(key, until)

    def set_deadline(self, key: K, until: float | None) -> None:
        """Move the deadline of an entry, if it is there; None: it has none."""
        if key not in self._entries:
            return
        if until is None:
            self._timers.discard(self._timer(key))
        else:
            self._timers.set(self._timer(key), until)

    def has_deadline(self, key: K) -> bool:
        """Whether an entry has a deadline that has not come yet."""
        return self._timer(key) in self._timers

    def pop(self, key: K) -> V | None:
        """Remove an entry and its deadline, and return it, if it is there."""
        if key not in self._entries:
            return None
        self._timers.discard(self._timer(key))
        return self._entries.pop(key)

    def pop_all(self) -> list[V]:
        """Remove and return all entries, the oldest first."""
        for key in self._entries:
            self._timers.discard(self._timer(key))
        entries, self._entries = self._entries, {}
        return [*entries.values()]

    def get(self, key: K) -> V | None:
        """The entry, if it is there."""
        return self._entries.get(key)

    def items(self) -> ItemsView[K, V]:
        """The entries with their keys, the oldest first."""
        return self._entries.items()

    def values(self) -> ValuesView[V]:
        """The entries, the oldest first."""
        return self._entries.values()

    def __iter__(self) -> Iterator[K]:
        return iter(self._entries)

    def __contains__(self, key: K) -> bool:
        return key in self._entries

    def __len__(self) -> int:
        return len(self._entries)
