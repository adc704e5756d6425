"""What has happened, in order, for those who watch.

Every event gets the next number. Subscribers are sent each as a notification, which a slow one may
lose; the jump in the numbers tells it so, and ``since`` brings back what is still kept. Hence a slow
watcher slows nobody, and loses nothing silently. A hub also relays its own events to its MetaHub.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Any

from attrs import field

from loopal_cluster.core.context import AnyPart
from loopal_cluster.core.events import Peer
from loopal_cluster.core.exchange import Refused
from loopal_cluster.errors import ErrorCode
from loopal_cluster.message_sizes import payload_bytes
from loopal_cluster.messages import AgentEvent, ClusterEvent, Subscribed
from loopal_cluster.records import define

__all__ = ["Timeline"]

REPLAY_INTERVAL = 1.0
"""Seconds in which a connection is sent again no more than twice all that is kept."""


@define
class Timeline(AnyPart):
    """The last events, and who wants to hear of the next."""

    _own_hub: str | None = None
    """The hub whose events are relayed."""
    _relay: Callable[[AgentEvent], None] = lambda event: None
    _kept: deque[tuple[ClusterEvent, int]] = field(factory=deque, init=False)
    """The last events, and how many bytes each has."""
    _kept_bytes: int = field(default=0, init=False)
    _subscribers: dict[Peer, None] = field(factory=dict, init=False)
    _replayed: dict[Peer, tuple[float, int]] = field(factory=dict, init=False)
    """Since when, and how many events, each has been sent again lately."""
    _seq: int = field(default=0, init=False)

    def publish(self, hub: str | None, agent: str | None, payload: Any, now: float) -> None:
        """Number an event, keep it, and tell the subscribers."""
        self._seq += 1
        event = ClusterEvent(self._seq, self._epoch + now, hub, agent, payload)
        kept, limits, size = self._kept, self._exchange.limits, payload_bytes(payload)
        kept.append((event, size))
        self._kept_bytes += size
        while len(kept) > limits.timeline or self._kept_bytes > limits.timeline_bytes:
            self._kept_bytes -= kept.popleft()[1]
        self._exchange.notify_all(self._subscribers, event)
        if hub is not None and hub == self._own_hub:
            self._relay(AgentEvent(agent, payload))

    def subscribe(self, peer: Peer, since: int | None, now: float) -> Subscribed:
        """Add a subscriber and send it what is kept after ``since``.

        Raises:
            Refused: it has just had a replay, of as much as there can be.
        """
        if since is None:
            self._subscribers[peer] = None
            return Subscribed(self._seq)
        since = max(0, since)
        replay = self._after(since)
        began, count = self._replayed.get(peer, (now, 0))
        if now - began >= REPLAY_INTERVAL:
            began, count = now, 0
        if count + len(replay) > 2 * self._exchange.limits.timeline:
            detail = f"one replay at a time: this connection had {count} events within {REPLAY_INTERVAL:g} s"
            raise Refused(ErrorCode.OVERLOADED, detail)
        self._subscribers[peer] = None
        self._replayed[peer] = (began, count + len(replay))
        for event in replay:
            self._exchange.notify(peer, event)
        return Subscribed(self._seq, missed=max(0, self._seq - since - len(replay)))

    def _after(self, since: int) -> list[ClusterEvent]:
        first = self._seq - len(self._kept)  # the number before that of the first that is kept
        return [event for event, _ in islice(self._kept, max(0, since - first), None)]

    def forget(self, peer: Peer) -> None:
        """Remove a subscriber."""
        self._subscribers.pop(peer, None)
        self._replayed.pop(peer, None)
