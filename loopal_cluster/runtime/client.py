"""A program's connection to a hub or to a MetaHub: it asks, it watches, and an operator is asked.

``connect`` dials, ``open_client`` takes a channel that is there. What can be asked is in ``cluster_client``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import trio
from attrs import field

from loopal_cluster.config import Limits
from loopal_cluster.errors import MethodNotFound
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
from loopal_cluster.runtime.alive import features_on, keep_alive, register
from loopal_cluster.runtime.ambient import Ambient
from loopal_cluster.runtime.background import open_background
from loopal_cluster.runtime.caller import Caller, OpenRequest, open_caller
from loopal_cluster.runtime.channels import FrameChannel
from loopal_cluster.runtime.cluster_client import ClusterClient
from loopal_cluster.runtime.listeners import dial
from loopal_cluster.wire.contents import payload

__all__ = ["Adviser", "Client", "EventStream", "Judge", "connect", "open_client"]

SHOWN = "shown"
"""The one addition to the base dialect that a client speaks."""

Judge = Callable[[Permission], Awaitable[Decision]]
Adviser = Callable[[Question], Awaitable[Answers]]


class Client(ClusterClient):
    """A program's connection to a hub or a MetaHub. Made by ``open_client``."""

    def __init__(
        self,
        caller: Caller,
        welcome: Welcome,
        arrivals: _Arrivals,
        ambient: Ambient | None = None,
    ) -> None:
        super().__init__(caller, ambient)
        self.welcome = welcome
        """What the other side is: ``kind``, ``hub``, ``cluster``."""
        self.closed = caller.closed
        """Set when the connection has ended."""
        self._arrivals = arrivals

    def acknowledge(self, ask: Permission | Question) -> None:
        """Say that a human sees this now; what nobody acknowledges within seconds is shown to others, too.

        That is done when a handler is called, unless ``open_client`` was told to leave it to the handlers.
        """
        protocol = self.welcome.protocol
        if ask.ask_id is not None and protocol is not None and SHOWN in protocol.features:
            self._caller.notify(Shown(ask.ask_id))

    async def subscribe(self, since: int | None = None) -> EventStream:
        """Watch what happens from now on, and what is still kept of what came after ``since``."""
        subscribed = await self._caller.call(Subscribe(since))
        next_seq = subscribed.seq if since is None else since
        return EventStream(self._arrivals, next_seq, subscribed.seq)


@define(eq=False)
class _Arrivals:
    """Events that have come and were not read. None of them is ever in the hand of a task that waits."""

    limit: int
    events: deque[ClusterEvent] = field(factory=deque)
    ended: str | None = None
    """Why no more will come."""
    arrived: trio.lowlevel.ParkingLot = field(factory=trio.lowlevel.ParkingLot)

    def put(self, event: ClusterEvent) -> None:
        if len(self.events) < self.limit and self.ended is None:
            self.events.append(event)
            self.arrived.unpark()

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
    role: Role = Role.CLIENT,
    on_permission: Judge | None = None,
    on_question: Adviser | None = None,
    on_decided: Callable[[Decided], None] = lambda decided: None,
    acknowledge: bool = True,
    event_buffer: int = 10_000,
    ambient: Ambient | None = None,
) -> AsyncIterator[Client]:
    """Register over a connected channel and be a client of that hub or MetaHub for the block.

    An operator (``role``) is asked: ``on_permission`` and ``on_question`` run in a task of their own
    for each ask and are cancelled when somebody else has answered it first. When a handler is called, the ask
    is acknowledged as shown to a human; with ``acknowledge=False`` the handlers do that, with
    ``Client.acknowledge``, when a human sees it. Events beyond ``event_buffer`` that are not read are dropped, and
    counted by the stream.

    Raises:
        Unauthorized: the token is wrong.
        ConnectionLost: the link ended, or nobody answered.
    """
    arrivals = _Arrivals(event_buffer)
    client: Client
    registered = trio.Event()

    async def handle(handler: Callable[[Any], Awaitable[Any]], ask: Permission | Question) -> Any:
        if acknowledge:
            await registered.wait()  # what is asked at once may be read before what was agreed
            client.acknowledge(ask)
        return await handler(ask)

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
            case ClusterEvent():
                # The reader is told of one that does not fit by the gap in the numbers.
                arrivals.put(evolve(message, payload=payload(message.payload)))
            case Decided():
                on_decided(message)
            case _:
                pass

    async with (
        open_caller(channel, on_request, on_notification, dialled=True) as caller,
        open_background() as nursery,
    ):
        nursery.start_soon(_end_events, caller, arrivals)
        features = features_on(channel) + ((SHOWN,) if role is Role.OPERATOR else ())
        message = Register(name=name, token=token, role=role, protocol=Protocol(1, features))
        welcome = await register(caller, message)
        nursery.start_soon(keep_alive, caller, channel, welcome)
        client = Client(caller, welcome, arrivals, ambient)
        registered.set()
        try:
            yield client
        finally:
            arrivals.end("closed on this side")


async def _end_events(caller: Caller, arrivals: _Arrivals) -> None:
    """Let whoever reads events know that the connection has ended: nothing else would."""
    await caller.closed.wait()
    arrivals.end(caller.lost or "closed on this side")


@asynccontextmanager
async def connect(
    address: str,
    *,
    token: str = "",
    name: str = "program",
    role: Role = Role.CLIENT,
    on_permission: Judge | None = None,
    on_question: Adviser | None = None,
    on_decided: Callable[[Decided], None] = lambda decided: None,
    acknowledge: bool = True,
) -> AsyncIterator[Client]:
    """Be a client of the hub or MetaHub at ``HOST:PORT`` or ``unix:PATH`` for the block.

    Raises:
        ConnectionLost: it cannot be reached, or does not answer, within 10 seconds each.
        Unauthorized: the token is wrong.
    """
    channel = await dial(address, Limits().line_bytes)
    async with open_client(
        channel,
        name=name,
        token=token,
        role=role,
        on_permission=on_permission,
        on_question=on_question,
        on_decided=on_decided,
        acknowledge=acknowledge,
    ) as client:
        yield client
