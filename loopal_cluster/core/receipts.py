"""Messages from other hubs that have been seen, so that each is delivered once.

A hub that lost its connection repeats what was not answered. What it repeats may have arrived: then the
repetition gets the answer of the first, now or when there is one. A refused message was not processed,
so it is forgotten, and may be tried again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

from attrs import define, field

from loopal_cluster.core.calls import Origin

__all__ = ["Receipts"]


@define
class Receipts:
    """The newest messages, by who sent them and their id: accepted, or on their way to the agent."""

    _limit: int
    _seen: OrderedDict[Hashable, list[Origin] | None] = field(factory=OrderedDict, init=False)
    """Who waits for the answer; None once it was accepted."""

    def first(self, message_id: Hashable, origin: Origin) -> bool | None:
        """True: it is new. None: it was accepted before. False: ``origin`` will learn with the first."""
        if message_id not in self._seen:
            self._seen[message_id] = [origin]
            if len(self._seen) > self._limit:
                self._seen.popitem(last=False)
            return True
        waiting = self._seen[message_id]
        if waiting is None:
            return None
        waiting.append(origin)
        return False

    def accepted(self, message_id: Hashable) -> list[Origin]:
        """The agent has it; return all who wait to know."""
        waiting = self._seen.get(message_id)
        if message_id in self._seen:
            self._seen[message_id] = None
        return waiting or []

    def refused(self, message_id: Hashable) -> list[Origin]:
        """The agent does not have it; return all who wait to know."""
        return self._seen.pop(message_id, None) or []
