"""A program's connection to a hub or to a MetaHub: it asks, it watches, and an operator is asked.

``connect`` dials, ``open_client`` takes a channel that is there. What can be asked is in ``cluster_client``.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypedDict, Unpack

import trio
from attrs import field

from loopal_cluster.config import Limits
from loopal_cluster.errors import MethodNotFound
from loopal_cluster.links.alive import features_on, keep_alive, register
from loopal_cluster.links.ambient import Ambient
from loopal_cluster.links.background import open_background, require_trio
from loopal_cluster.links.caller import Caller, OpenRequest, open_caller
from loopal_cluster.links.channels import FrameChannel
from loopal_cluster.links.cluster_client import ClusterClient
from loopal_cluster.links.listeners import dial
from loopal_cluster.messages import (
    Answers,
    ClusterEvent,
    Decided,
    Decision,
    Message,
    Permission,
    Protocol,
    Question,
    Register,
    Role,
    Shown,
    Subscribe,
    Welcome,
)
from loopal_cluster.records import define, evolve
from loopal_cluster.wire.contents import payload

__all__ = [
    "Client",
    "ClientOptions",
    "EventStream",
    "PermissionHandler",
    "QuestionHandler",
    "connect",
    "open_client",
]

SHOWN = "shown"
"""The one addition to the base dialect that a client speaks."""

EVENT_BUFFER = 10_000
"""Events that wait for the reader of a stream."""

PermissionHandler = Callable[[Permission], Awaitable[Decision]]
"""Decides whether a tool may be used."""
QuestionHandler = Callable[[Question], Awaitable[Answers]]
"""Answers what an agent wants to know."""


class ClientOptions(TypedDict, total=False):
    """What ``connect`` and ``open_client`` take besides; another option is a ``TypeError`` there.

    A handler runs in a task of its own for each approval, which is cancelled when somebody else has answered
    first.
    """

    role: Role | None
    """Without one, a client with a handler is an operator, and any other a client."""
    on_permission: PermissionHandler | None
    """Asked for a decision. An operator without this handler refuses to decide, and others are asked."""
    on_question: QuestionHandler | None
    """Asked for answers."""
    on_decided: Callable[[Decided], None]
    """Told that somebody else was first, or that it is no longer asked."""
    acknowledge: bool
    """Whether a human sees what a handler is called with (true unless said otherwise); if not, the handlers call
    ``Client.acknowledge`` when one does."""
    event_buffer: int
    """Events of a stream that wait for its reader, 10,000; what comes beyond is dropped, and counted by the
    stream."""


class Client(ClusterClient):
    """A program's connection to a hub or a MetaHub. Made by ``open_client``."""

    def __init__(
        self,
        caller: Caller,
        welcome: Welcome,
        ambient: Ambient | None = None,
        event_buffer: int = EVENT_BUFFER,
    ) -> None:
        super().__init__(caller, ambient)
        self.welcome = welcome
        """What the other side is: ``kind``, ``hub``, ``cluster``."""
        self.closed = caller.closed
        """Set when the connection has ended."""
        self._event_buffer = event_buffer
        self._subscriptions = weakref.WeakSet[_Arrivals]()
        """Weak, so that a stream which nobody holds any more keeps no events."""

    def acknowledge(self, ask: Permission | Question) -> None:
        """Say that a human sees this now; what nobody acknowledges within seconds is shown to others, too.

        That is done when a handler is called, unless ``open_client`` was told to leave it to the handlers.
        """
        protocol = self.welcome.protocol
        if ask.ask_id is not None and protocol is not None and SHOWN in protocol.features:
            self._caller.notify(Shown(ask.ask_id))

    async def subscribe(self, since: int | None = None) -> EventStream:
        """Watch what happens from now on, and what is still kept of what came after ``since``.

        Each call returns a stream of its own: two of them both have every event.
        """
        arrivals = _Arrivals(self._event_buffer)
        self._subscriptions.add(arrivals)  # before the call: what is kept comes before its answer
        subscribed = await self._caller.call(Subscribe(since))
        arrivals.begin(subscribed.seq if since is None else min(since, subscribed.seq))
        return EventStream(arrivals, subscribed.seq if since is None else since, subscribed.seq)

    def _on_event(self, event: ClusterEvent) -> None:
        # A reader is told of one that does not fit by the gap in the numbers.
        for arrivals in [*self._subscriptions]:
            arrivals.put(event)

    def _end_events(self, reason: str) -> None:
        for arrivals in [*self._subscriptions]:
            arrivals.end(reason)


@define(eq=False)
class _Arrivals:
    """Events that have come and were not read. None of them is ever in the hand of a task that waits.

    All subscriptions of a client share its connection. What is sent again to one of them comes to the others,
    too, which have it already.
    """

    limit: int
    events: deque[ClusterEvent] = field(factory=deque)
    newest: int = 0
    """The number of the last one taken."""
    has_begun: bool = False
    """Whether the subscription is answered."""
    ended: str | None = None
    """Why no more will come."""
    arrived: trio.lowlevel.ParkingLot = field(factory=trio.lowlevel.ParkingLot)

    def put(self, event: ClusterEvent) -> None:
        if event.seq <= self.newest:
            if self.has_begun:
                return
            self.events.clear()  # what another subscription was sent, and we are about to be sent again
        if len(self.events) < self.limit and self.ended is None:
            self.newest = event.seq
            self.events.append(event)
            self.arrived.unpark()

    def begin(self, after: int) -> None:
        """Take the subscription for answered: it is for events with a number above ``after``."""
        self.has_begun = True
        self.newest = max(self.newest, after)
        while self.events and self.events[0].seq <= after:
            self.events.popleft()

    def end(self, reason: str) -> None:
        self.ended = self.ended or reason
        self.arrived.unpark_all()


@define
class EventStream:
    """Events in order, ``async for``; they end when the connection does.

    ``missed`` counts those that were dropped on the way to us.
    """

    _arrivals: _Arrivals = field(repr=False)
    last_seq: int
    newest_seq: int
    """The number of the newest event when the subscription began."""
    missed: int = 0

    @property
    def ended(self) -> str | None:
        """Why no more events come; None while they may."""
        return self._arrivals.ended

    def __aiter__(self) -> EventStream:
        return self

    async def __anext__(self) -> ClusterEvent:
        await trio.lowlevel.checkpoint()
        while not self._arrivals.events:
            if self._arrivals.ended is not None:
                raise StopAsyncIteration
            await self._arrivals.arrived.park()
        return self._count(self._arrivals.events.popleft())

    def arrived(self) -> Iterator[ClusterEvent]:
        """The events that are here already; whatever was answered to us since came after them."""
        while self._arrivals.events:
            yield self._count(self._arrivals.events.popleft())

    def _count(self, event: ClusterEvent) -> ClusterEvent:
        self.missed += max(0, event.seq - self.last_seq - 1)
        self.last_seq = event.seq
        return event


@asynccontextmanager
async def open_client(
    channel: FrameChannel,
    *,
    name: str,
    token: str = "",
    ambient: Ambient | None = None,
    role: Role | None = None,
    on_permission: PermissionHandler | None = None,
    on_question: QuestionHandler | None = None,
    on_decided: Callable[[Decided], None] = lambda decided: None,
    acknowledge: bool = True,
    event_buffer: int = EVENT_BUFFER,
) -> AsyncIterator[Client]:
    """Register over a connected channel and be a client of that hub or MetaHub for the block.

    ``ClientOptions`` tells what the options are for.

    Raises:
        Unauthorized: the token is wrong.
        ConnectionLost: the link ended, or nobody answered.
        ValueError: there are handlers, and a role that is never asked.
    """
    has_handlers = on_permission is not None or on_question is not None
    if role is None:
        role = Role.OPERATOR if has_handlers else Role.CLIENT
    elif has_handlers and role is not Role.OPERATOR:
        raise ValueError(
            f"on_permission and on_question are for operators: a client with role {role} is never asked"
        )
    client: Client
    registered = trio.Event()

    async def handle(handler: Callable[[Any], Awaitable[Any]], approval: Permission | Question) -> Any:
        if acknowledge:
            await registered.wait()  # what is asked at once may be read before what was agreed
            client.acknowledge(approval)
        return await handler(approval)

    def on_request(message: Message[Any], request: OpenRequest) -> None:
        match message:
            case Permission() if on_permission is not None:
                request.answer_later(partial(handle, on_permission, message))
            case Question() if on_question is not None:
                request.answer_later(partial(handle, on_question, message))
            case _:
                raise MethodNotFound(f"unknown: {message.method}")

    def on_notification(message: Message[Any]) -> None:
        match message:
            case ClusterEvent() if registered.is_set():
                client._on_event(evolve(message, payload=payload(message.payload)))
            case Decided():
                on_decided(message)
            case _:
                pass

    async with (
        open_caller(channel, on_request, on_notification, dialled=True) as caller,
        open_background() as nursery,
    ):
        features = features_on(channel) + ((SHOWN,) if role is Role.OPERATOR else ())
        message = Register(name=name, token=token, role=role, protocol=Protocol(1, features))
        welcome = await register(caller, message)
        client = Client(caller, welcome, ambient, event_buffer)
        registered.set()
        nursery.start_soon(_end_events, client, caller)
        nursery.start_soon(keep_alive, caller, channel, welcome)
        try:
            yield client
        finally:
            client._end_events("closed on this side")


async def _end_events(client: Client, caller: Caller) -> None:
    """Let whoever reads events know that the connection has ended: nothing else would."""
    await caller.closed.wait()
    client._end_events(caller.lost or "closed on this side")


@asynccontextmanager
async def connect(
    address: str, *, token: str = "", name: str = "program", **options: Unpack[ClientOptions]
) -> AsyncIterator[Client]:
    """Be a client of the hub or MetaHub at ``HOST:PORT`` or ``unix:PATH`` for the block.

    With ``on_permission`` or ``on_question`` it is an operator, who is asked; see ``ClientOptions``.

    Raises:
        ConnectionLost: it cannot be reached, or does not answer, within 10 seconds each.
        Unauthorized: the token is wrong.
        RuntimeError: trio does not run here.
    """
    require_trio()
    channel = await dial(address, Limits().line_bytes)
    async with open_client(channel, name=name, token=token, **options) as client:
        yield client
