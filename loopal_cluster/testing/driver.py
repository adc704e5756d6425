"""Drives one core by hand: events in, effects out, and a transcript of both."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from attrs import define, field

from loopal_cluster.core.effects import Effect, Send
from loopal_cluster.core.events import (
    DeadlineReached,
    Event,
    FrameReceived,
    Link,
    Peer,
    PeerConnected,
    PeerLost,
)
from loopal_cluster.frames import Frame, Notification, Request, Response
from loopal_cluster.messages import Message
from loopal_cluster.runtime.runtime import Core

__all__ = ["CoreDriver", "sent"]

C = TypeVar("C", bound=Core)


@define
class CoreDriver(Generic[C]):
    """One core, its peers and its time. No task, no clock: everything happens when you say so."""

    core: C
    now: float = 0.0
    transcript: list[str] = field(factory=list)
    """One line an event or effect, for a test to compare or a human to read."""
    _last_peer: int = 0
    _last_id: dict[Peer, int] = field(factory=dict)

    def handle(self, event: Event) -> list[Effect]:
        """Tell the core what happened; return what it decides."""
        effects = self.core.handle(event, self.now)
        self.transcript.append(f"{self.now:g} {event}")
        self.transcript += [f"{self.now:g}   -> {effect}" for effect in effects]
        return effects

    def new_peer(self) -> Peer:
        """A peer id that was not used before."""
        self._last_peer += 1
        return Peer(self._last_peer)

    def connect(self, link: Link = Link.ACCEPTED) -> Peer:
        """Let a connection come up; what the core says to it at once is in the transcript."""
        peer = self.new_peer()
        self.handle(PeerConnected(peer, link))
        return peer

    def receive(self, peer: Peer, frame: Frame) -> list[Effect]:
        """Let a peer say something."""
        return self.handle(FrameReceived(peer, frame))

    def request(self, peer: Peer, message: Message[Any]) -> list[Effect]:
        """Let a peer send a request, with the next id."""
        self._last_id[peer] = self._last_id.get(peer, 0) + 1
        return self.receive(peer, Request(self._last_id[peer], message))

    def notify(self, peer: Peer, message: Message[Any]) -> list[Effect]:
        """Let a peer send a notification."""
        return self.receive(peer, Notification(message))

    def answer(self, peer: Peer, request: Request, result: Any) -> list[Effect]:
        """Let a peer answer a request of the core."""
        return self.receive(peer, Response(request.id, result))

    def lose(self, peer: Peer, reason: str = "gone") -> list[Effect]:
        """Let a connection end."""
        return self.handle(PeerLost(peer, reason))

    def advance(self, seconds: float) -> list[Effect]:
        """Let time pass; every deadline on the way is reached when it is due."""
        until, effects = self.now + seconds, []
        while (deadline := self.core.next_deadline()) is not None and deadline <= until:
            self.now = max(self.now, deadline)
            effects += self.handle(DeadlineReached())
        self.now = until
        return effects


def sent(effects: list[Effect], peer: Peer | None = None) -> list[Frame]:
    """The frames among some effects, to one peer or to all."""
    return [effect.frame for effect in effects if isinstance(effect, Send) and peer in (None, effect.peer)]
