"""What Loopal's hub and MetaHub have in common, as far as other peers notice it.

They speak the base dialect and nothing else (``docs/protocol.md``, what is not marked *ext*): no answer
but the first is final, nothing is repeated or remembered, no request has a deadline, the requests of one
connection are handled one after the other, and a refusal is a number and words. They are honest: what
they do not promise they do not do on purpose either. ``BasePeer`` is driven like a core of ours.
"""

from __future__ import annotations

import abc
import math
from collections import deque
from collections.abc import Callable
from typing import Any

from loopal_cluster.config import Limits
from loopal_cluster.core.calls import Origin
from loopal_cluster.core.effects import Effect
from loopal_cluster.core.events import (
    AgentEnded,
    AgentNotStarted,
    AgentStarted,
    DeadlineReached,
    Event,
    FrameReceived,
    Link,
    Peer,
    PeerConnected,
    PeerLost,
)
from loopal_cluster.core.exchange import Exchange
from loopal_cluster.core.parties import Standing
from loopal_cluster.errors import ErrorCode
from loopal_cluster.frames import Failure, Notification, Request, Response
from loopal_cluster.messages import Message

__all__ = ["DROPPED", "BasePeer", "Then"]

Then = Callable[[Response | Failure], None]
"""What to do with an answer."""

DROPPED = "response channel dropped"
"""What is said of a request whose connection has ended."""


class BasePeer(abc.ABC):
    """Takes in events and returns effects; what it does with requests is up to the subclass."""

    def __init__(self, new_id: Callable[[], str]) -> None:
        self.exchange: Exchange[Then] = Exchange(Limits())
        self.now = 0.0
        self._new_id = new_id
        self._unread: dict[Peer, deque[tuple[Origin, Message[Any]]]] = {}
        """Requests that wait for an earlier one of their connection."""
        self._reading: dict[Peer, Origin] = {}
        """The request of each connection that is being handled."""

    def handle(self, event: Event, now: float) -> list[Effect]:
        """Take in what happened; return what to do, in this order."""
        self.now = now
        match event:
            case PeerConnected(peer, link):
                self.exchange.admit(peer)
                self.on_connected(peer, link)
            case FrameReceived(peer, frame) if self.exchange.knows(peer):
                self._on_frame(peer, frame)
            case PeerLost(peer):
                self.on_lost(peer)  # first: nobody shall ask it anything more
                self.forget(peer)
            case AgentStarted(agent_id, peer):
                self.exchange.admit(peer)
                self.on_agent_started(agent_id, peer)
            case AgentEnded(agent_id) | AgentNotStarted(agent_id):
                self.on_agent_ended(agent_id)
            case DeadlineReached():
                for call in self.exchange.calls.settle_due(now):
                    call.then(Failure(call.id, ErrorCode.REFUSED, "timeout"))
                self.on_time()
            case _:
                pass
        return self.exchange.drain()

    def standing(self, peer: Peer) -> Standing:
        """It takes no less of one than of another."""
        return Standing.HUB

    def next_deadline(self) -> float | None:
        """When ``DeadlineReached`` is due."""
        due = self.exchange.calls.next_deadline()
        return None if due is None or math.isinf(due) else due

    def _on_frame(self, peer: Peer, frame: Any) -> None:
        match frame:
            case Request(_, message):
                if (origin := self.exchange.take(peer, frame)) is not None:
                    self._unread.setdefault(peer, deque()).append((origin, message))
                    self._read_on(peer)
            case Notification(message):
                self.on_notification(peer, message)
            case Response() | Failure():
                if (call := self.exchange.calls.settle(peer, frame.id)) is not None:
                    call.then(frame)

    # Asking and answering.

    def ask(self, peer: Peer, message: Message[Any], then: Then, timeout: float = math.inf) -> None:
        """Ask, and wait for ever unless told otherwise."""
        self.exchange.call(peer, message, then, self.now + timeout)

    def answer(self, origin: Origin, result: Any) -> None:
        """Answer yes, and look at the connection's next request."""
        self.exchange.answer(origin, result)
        self.read_on(origin)

    def refuse(self, origin: Origin, detail: str) -> None:
        """Answer no, in words, and look at the connection's next request."""
        self.exchange.refuse(origin, ErrorCode.REFUSED, detail)
        self.read_on(origin)

    def pass_on(self, origin: Origin, answer: Response | Failure, prefix: str = "") -> None:
        """Answer with what somebody else answered; of a refusal only the words are left."""
        if isinstance(answer, Response):
            self.answer(origin, answer.result)
        else:
            self.refuse(origin, prefix + answer.detail)

    def read_on(self, origin: Origin) -> None:
        """Look at the connection's next request, whether this one is answered or not."""
        if self._reading.get(origin.peer) == origin:
            del self._reading[origin.peer]
            self._read_on(origin.peer)

    def _read_on(self, peer: Peer) -> None:
        if peer not in self._reading and (unread := self._unread.get(peer)):
            origin, message = unread.popleft()
            self._reading[peer] = origin
            self.on_request(origin, message)

    def forget(self, peer: Peer) -> None:
        """Stop talking with a peer; what it was asked has failed."""
        self._unread.pop(peer, None)
        self._reading.pop(peer, None)
        for call in self.exchange.forget(peer):
            call.then(Failure(call.id, ErrorCode.REFUSED, DROPPED))

    # For the subclass.

    @abc.abstractmethod
    def on_connected(self, peer: Peer, link: Link) -> None:
        """A connection is up."""

    @abc.abstractmethod
    def on_request(self, origin: Origin, message: Message[Any]) -> None:
        """The next request of a connection; it is handled until ``answer``, ``refuse`` or ``read_on``."""

    # What a subclass may leave out.

    def on_notification(self, peer: Peer, message: Message[Any]) -> None:  # noqa: B027
        """Somebody told us something."""

    def on_lost(self, peer: Peer) -> None:  # noqa: B027
        """A connection ended."""

    def on_agent_started(self, agent_id: str, peer: Peer) -> None:  # noqa: B027
        """An agent's process runs."""

    def on_agent_ended(self, agent_id: str) -> None:  # noqa: B027
        """An agent's process is gone."""

    def on_time(self) -> None:  # noqa: B027
        """``next_deadline()`` has come."""
