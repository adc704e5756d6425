"""A MetaHub that speaks the base dialect only, as Loopal's does.

It says ok to a taken name and then never another word, says ok to a message whatever became of it, asks
one hub after the other who has an agent, and does one thing at a time: while a hub has not answered a
message, nobody else's is passed on. It has no operators, so it denies; it has no clients, no health and no
events, and tells nobody of a hub that is gone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from attrs import evolve

from loopal_cluster.config import MetaHubSettings
from loopal_cluster.core.calls import Origin
from loopal_cluster.core.events import Link, Peer
from loopal_cluster.errors import ErrorCode
from loopal_cluster.frames import Failure, Response
from loopal_cluster.messages import (
    OK,
    ClusterTopology,
    DeliverEnvelope,
    Envelope,
    Found,
    Heartbeat,
    HubInfo,
    HubList,
    ListHubs,
    Message,
    MetaRoute,
    MetaSpawn,
    MetaTopology,
    Opaque,
    Permission,
    Question,
    RegisterHub,
    Resolve,
    SpawnAgent,
    SpawnSpec,
    Topology,
    TopologyOf,
    Welcome,
)
from loopal_cluster.wire.contents import dumps
from tests.simulation.base_peer import DROPPED, BasePeer

__all__ = ["DENIED", "BaseMetaHub"]

DENIED = Opaque(b'{"allow":false}')
"""The denial of a permission, and of a question, too."""


class BaseMetaHub(BasePeer):
    """Passes requests on between hubs."""

    def __init__(self, settings: MetaHubSettings, new_id: Callable[[], str]) -> None:
        super().__init__(new_id)
        self._settings = settings
        self._hubs: dict[str, Peer] = {}
        self._names: dict[Peer, str] = {}
        self._agent_counts: dict[str, int] = {}
        self._cache: dict[str, tuple[str, float]] = {}
        self._locked = False
        self._waiting: deque[Callable[[], None]] = deque()
        """What is done when the lock is free."""

    def on_connected(self, peer: Peer, link: Link) -> None:
        pass  # it says nothing until the hub does

    def on_lost(self, peer: Peer) -> None:
        name = self._names.pop(peer, None)
        if name is not None:
            del self._hubs[name]
            self._cache = {agent: found for agent, found in self._cache.items() if found[0] != name}

    def on_notification(self, peer: Peer, message: Message[Any]) -> None:
        if isinstance(message, Heartbeat) and peer in self._names:
            self._agent_counts[self._names[peer]] = message.agent_count

    def on_request(self, origin: Origin, message: Message[Any]) -> None:
        if isinstance(message, RegisterHub):
            self._register(origin, message)
        elif origin.peer in self._names:
            self._lock(partial(self._serve, origin, message))
        # Nobody else is answered, ever.

    def _register(self, origin: Origin, message: RegisterHub) -> None:
        if message.token != self._settings.token:
            self.exchange.refuse(origin, ErrorCode.UNAUTHORIZED, "invalid token")
            return
        self.exchange.answer(origin, Welcome())
        self._lock(partial(self._add, origin, message.name))

    def _add(self, origin: Origin, name: str) -> None:
        if self.exchange.knows(origin.peer) and name not in self._hubs:
            self._hubs[name] = origin.peer
            self._names[origin.peer] = name
            self.read_on(origin)
        self._unlock()

    # One thing at a time.

    def _lock(self, act: Callable[[], None]) -> None:
        if self._locked:
            self._waiting.append(act)
        else:
            self._locked = True
            act()

    def _unlock(self) -> None:
        self._locked = False
        if self._waiting:
            self._lock(self._waiting.popleft())

    def _serve(self, origin: Origin, message: Message[Any]) -> None:
        """Answer a hub, under the lock."""
        sender = self._names.get(origin.peer)
        match message:
            case MetaRoute(envelope) if sender is not None:
                self._route(origin, envelope, sender)
                return  # it keeps the lock
            case MetaSpawn(spec):
                self._spawn(origin, spec)
            case Resolve(name):
                self._resolve(name, partial(self._say_where, origin))
                return
            case ListHubs():
                hubs = (HubInfo(name, "Connected", self._agent_counts.get(name, 0)) for name in self._hubs)
                self.answer(origin, HubList(tuple(hubs)))
            case MetaTopology():
                self._gather(origin, list(self._hubs), ())
            case Permission() | Question():
                self.answer(origin, DENIED)
            case _:
                self.refuse(origin, f"unknown meta method: {message.method}")
        self._unlock()

    # Messages.

    def _route(self, origin: Origin, envelope: Envelope, sender: str) -> None:
        target = envelope.target
        if target.hub == sender:
            self.refuse(origin, f"self-routing detected: target '{target}' is on originating hub '{sender}'")
            self._unlock()
        elif target.hub is not None:
            self._deliver(origin, envelope, target.hub)
        else:
            self._resolve(target.agent, partial(self._deliver, origin, envelope))

    def _resolve(self, agent: str, then: Callable[[str | None], None]) -> None:
        hub, until = self._cache.get(agent, ("", 0.0))
        if self.now < until:
            then(hub)
        else:
            self._ask_next(agent, list(self._hubs), then)

    def _ask_next(self, agent: str, hubs: list[str], then: Callable[[str | None], None]) -> None:
        """Ask each hub in turn, the sender, too."""
        while hubs and hubs[0] not in self._hubs:
            hubs = hubs[1:]
        if not hubs:
            then(None)
            return

        def on_answer(answer: Response | Failure) -> None:
            if isinstance(answer, Response) and answer.result.found:
                self._cache[agent] = (hubs[0], self.now + self._settings.timeouts.route_cache_ttl)
                then(hubs[0])
            else:
                self._ask_next(agent, hubs[1:], then)

        self.ask(self._hubs[hubs[0]], Resolve(agent), on_answer)

    def _say_where(self, origin: Origin, hub: str | None) -> None:
        self.answer(origin, Found(found=hub is not None, hub=hub))
        self._unlock()

    def _deliver(self, origin: Origin, envelope: Envelope, hub: str | None) -> None:
        if hub is None:
            self.refuse(origin, f"agent '{envelope.target.agent}' not found on any sub-hub")
            self._unlock()
        elif (peer := self._hubs.get(hub)) is None:
            self.refuse(origin, f"hub '{hub}' not connected")
            self._unlock()
        else:
            # An envelope is read and written anew, so what is ours in it is gone.
            message = DeliverEnvelope(evolve(envelope, target=envelope.target.on(None), origin_hub=None))
            self.ask(peer, message, partial(self._on_delivered, origin, hub))

    def _on_delivered(self, origin: Origin, hub: str, answer: Response | Failure) -> None:
        if isinstance(answer, Failure) and answer.detail == DROPPED:
            self.refuse(origin, f"route to hub '{hub}' failed: {answer.detail}")
        else:
            self.answer(origin, OK)  # whatever it was
        self._unlock()

    # Spawns, and looking.

    def _spawn(self, origin: Origin, spec: SpawnSpec) -> None:
        peer = self._hubs.get(spec.target_hub or "")
        if peer is None:
            self.refuse(origin, f"hub '{spec.target_hub}' not connected")
            return
        message = SpawnAgent(evolve(spec, target_hub=None))
        self.ask(peer, message, partial(self._on_spawned, origin, spec.target_hub or ""))

    def _on_spawned(self, origin: Origin, hub: str, answer: Response | Failure) -> None:
        if isinstance(answer, Response):
            self.answer(origin, answer.result)
        elif answer.detail == DROPPED:
            self.refuse(origin, f"spawn on '{hub}' failed: {answer.detail}")
        else:
            # A refusal comes as a success.
            self.answer(origin, dumps({"code": -32600, "message": answer.detail}))

    def _gather(self, origin: Origin, hubs: list[str], parts: tuple[TopologyOf, ...]) -> None:
        """Ask one hub after the other for its part."""
        hubs = [hub for hub in hubs if hub in self._hubs]
        if not hubs:
            self.answer(origin, ClusterTopology(parts))
            return

        def on_answer(answer: Response | Failure) -> None:
            part = TopologyOf(hubs[0], error="unreachable")
            if isinstance(answer, Response):
                part = TopologyOf(hubs[0], topology=answer.result)
            self._gather(origin, hubs[1:], (*parts, part))

        timeout = self._settings.timeouts.topology_timeout
        self.ask(self._hubs[hubs[0]], Topology(), on_answer, timeout)
