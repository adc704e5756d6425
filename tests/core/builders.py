"""Cores with a few peers, ready to be told what happens; what tests of one rule start from."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from attrs import evolve

from loopal_cluster.address import Address
from loopal_cluster.config import HubSettings, MetaHubSettings, Timeouts
from loopal_cluster.core.calls import Call
from loopal_cluster.core.effects import Effect, Log, StartAgent
from loopal_cluster.core.events import AgentStarted, Link, Peer
from loopal_cluster.core.hub import HubCore
from loopal_cluster.core.meta_hub import MetaHubCore
from loopal_cluster.core.parties import PROTOCOL
from loopal_cluster.frames import Failure, Notification, Request, Response
from loopal_cluster.messages import (
    AgentSource,
    Announce,
    Announced,
    Ask,
    DeliverAsk,
    Envelope,
    HubInfo,
    HubList,
    Initialized,
    MetaSpawn,
    Register,
    RegisterHub,
    Reply,
    Role,
    Source,
    SpawnAgent,
    Spawned,
    SpawnSpec,
    Started,
    UserContent,
    Welcome,
)
from loopal_cluster.outcomes import Done
from loopal_cluster.testing import CoreDriver, sent

TOKEN = "secret"


def ids(prefix: str = "id") -> Callable[[], str]:
    """Ids that a test can foresee: ``id-1``, ``id-2``, ..."""
    numbers = itertools.count(1)
    return lambda: f"{prefix}-{next(numbers)}"


# A MetaHub and its hubs.


def open_meta(timeouts: Timeouts | None = None, **settings: Any) -> CoreDriver[MetaHubCore]:
    """A MetaHub without hubs."""
    known = MetaHubSettings(cluster="c", token=TOKEN, timeouts=timeouts or Timeouts(), **settings)
    return CoreDriver(MetaHubCore(known, ids()))


def join(meta: CoreDriver[MetaHubCore], name: str, *agents: str, **fields: Any) -> Peer:
    """A hub of ours that has joined and announced some agents."""
    peer = meta.connect()
    known: dict[str, Any] = {"token": TOKEN, "protocol": PROTOCOL, "instance": f"{name}-1"} | fields
    welcome, *_ = sent(meta.request(peer, RegisterHub(name, **known)), peer)
    assert isinstance(welcome, Response), welcome
    if agents:
        meta.request(peer, Announce(tuple(Announced(agent, f"{agent}-id") for agent in agents), whole=True))
    return peer


def join_base(meta: CoreDriver[MetaHubCore], name: str) -> Peer:
    """A hub of the base dialect that has joined."""
    return join(meta, name, protocol=None, instance=None)


def attach(driver: CoreDriver[Any], name: str = "ann", role: Role = Role.CLIENT) -> Peer:
    """A client that has registered with a hub or a MetaHub."""
    peer = driver.connect()
    driver.request(peer, Register(name, TOKEN, role, PROTOCOL))
    return peer


# A hub and its agents.


def open_hub(timeouts: Timeouts | None = None, **settings: Any) -> CoreDriver[HubCore]:
    """A hub ``here`` that runs the type ``t``, without agents and without a MetaHub."""
    fields: dict[str, Any] = {"agent_types": ("t",), "default_type": "t", "token": TOKEN, "cwd": "/here"}
    known = HubSettings("here", "here-1", timeouts=timeouts or Timeouts(), **(fields | settings))
    return CoreDriver(HubCore(known, ids()))


def join_meta(hub: CoreDriver[HubCore], welcome: Welcome | None = None) -> Peer:
    """Let a hub join a MetaHub of ours; return the uplink."""
    peer = hub.connect(Link.UPLINK)
    hub.receive(peer, Response(1, welcome or Welcome(protocol=PROTOCOL, cluster="c")))
    answer_all(hub, peer)
    return peer


def join_base_meta(hub: CoreDriver[HubCore]) -> Peer:
    """Let a hub join a MetaHub of the base dialect; return the uplink."""
    peer = hub.connect(Link.UPLINK)
    hub.receive(peer, Response(1, Welcome()))
    hub.receive(peer, Response(2, HubList((HubInfo("here", "Connected"),))))
    return peer


def rejoin(hub: CoreDriver[HubCore], cluster: str = "c") -> tuple[Peer, list[Effect]]:
    """Let a hub join (again); the new uplink, and what it does then."""
    up = hub.connect(Link.UPLINK)
    return up, hub.receive(up, Response(1, Welcome(protocol=PROTOCOL, cluster=cluster)))


def answer_all(driver: CoreDriver[Any], peer: Peer, result: Any = None) -> None:
    """Let a peer say ok to every call it has not answered."""
    for call in [call for call in driver.core.exchange.calls if call.peer == peer]:
        driver.receive(peer, Response(call.id, result))


def begin(hub: CoreDriver[HubCore], name: str = "x", by: Peer | None = None, **spec: Any) -> Peer:
    """Spawn an agent of this hub and let it come up; return its peer."""
    agent_id = start(hub, name, by, **spec)
    return come_up(hub, agent_id)


def start(hub: CoreDriver[HubCore], name: str = "x", by: Peer | None = None, **spec: Any) -> str:
    """Spawn an agent of this hub, that is not up yet; return its id."""
    by = attach(hub) if by is None else by
    [effect] = hub.request(by, SpawnAgent(SpawnSpec(name, **spec)))
    assert isinstance(effect, StartAgent), effect
    return effect.agent_id


def come_up(hub: CoreDriver[HubCore], agent_id: str) -> Peer:
    """Let a starting agent answer ``initialize`` and ``agent/start``."""
    peer = hub.new_peer()
    hub.handle(AgentStarted(agent_id, peer))
    hub.receive(peer, Response(1, Initialized()))
    hub.receive(peer, Response(2, Started("s")))
    return peer


def id_of(hub: CoreDriver[HubCore], name: str) -> str:
    """The identity of a live agent of this hub."""
    record = hub.core.agents.local(name)
    assert record is not None
    return record.id


# A hub and other hubs.


def in_cluster(**settings: Any) -> tuple[CoreDriver[HubCore], Peer, Peer]:
    """A hub in a cluster, with an agent ``x``: the hub, the agent, the uplink."""
    hub = open_hub(**settings)
    x, up = begin(hub, "x"), join_meta(hub)
    return hub, x, up


def with_shadow(up: bool = True, **spec: Any) -> tuple[CoreDriver[HubCore], Peer, Peer]:
    """The same, whose agent has spawned ``there/y``, with the id ``id-2``."""
    hub, x, uplink = in_cluster()
    hub.request(x, SpawnAgent(SpawnSpec("y", target_hub="there", **spec)))
    if up:
        hub.receive(uplink, Response(call_of(hub, MetaSpawn), Spawned("id-2", "y")))
    return hub, x, uplink


def for_remote(hub: CoreDriver[HubCore], up: Peer, name: str = "r", **spec: Any) -> Peer:
    """Let an agent run here for ``there/p``, with the id ``s-1``."""
    hub.request(up, SpawnAgent(SpawnSpec(name, parent="there/p", spawn_id="s-1", **spec)))
    return come_up(hub, "s-1")


def call_of(hub: CoreDriver[Any], kind: type[Any]) -> int:
    """The id of the open call with a message of this kind."""
    [call] = calls(hub, kind)
    return call.id


# Messages.


def envelope(target: str, source: Source | None = None, **fields: Any) -> Envelope:
    """A message that says hello."""
    return Envelope(
        "m",
        source or AgentSource("claimed"),
        Address.parse(target),
        UserContent("hello"),
        "2026-01-01",
        **fields,
    )


# Reading effects: what a test reads of a message is what it says of its kind, so the kind is left open.


def requests(effects: list[Effect], peer: Peer | None = None) -> list[Any]:
    """The messages of the requests among some effects."""
    return [frame.message for frame in sent(effects, peer) if isinstance(frame, Request)]


def notices(effects: list[Effect], peer: Peer | None = None) -> list[Any]:
    """The messages of the notifications among some effects."""
    return [frame.message for frame in sent(effects, peer) if isinstance(frame, Notification)]


def answers(effects: list[Effect], peer: Peer | None = None) -> list[Any]:
    """The answers among some effects."""
    return [frame for frame in sent(effects, peer) if isinstance(frame, Response | Failure)]


def unlogged(effects: list[Effect]) -> list[Effect]:
    """All but what goes to the log."""
    return [effect for effect in effects if not isinstance(effect, Log)]


def quietly(effects: list[Effect]) -> list[Effect]:
    """All but what goes to the log or may be dropped."""
    return [
        effect for effect in unlogged(effects) if not isinstance(getattr(effect, "frame", None), Notification)
    ]


# Asks.

FAR = "there/y"


def ask(
    target: str = "x", timeout_ms: int | None = 5000, *, message_id: str = "m", extend: bool = False
) -> Ask:
    """An ask for 5 seconds."""
    return Ask(evolve(envelope(target), id=message_id, timeout_ms=timeout_ms, extend=extend))


def from_there(timeout_ms: int = 5000, *, message_id: str = "m", extend: bool = False) -> DeliverAsk:
    """The same for ``x``, from an agent on another hub."""
    source = AgentSource("there/y")
    message = envelope("x", source, origin_hub="there", timeout_ms=timeout_ms, extend=extend)
    return DeliverAsk(evolve(message, id=message_id))


def agent_ask(driver: CoreDriver[Any]) -> Request:
    """The one open ask of an agent."""
    [call] = calls(driver, DeliverAsk)
    return Request(call.id, call.message)


def meta_with(*hubs: str) -> tuple[CoreDriver[MetaHubCore], list[Peer]]:
    """A MetaHub and hubs with an agent ``x`` each."""
    meta = open_meta()
    return meta, [join(meta, hub, "x") for hub in hubs]


def reply(text: str = "yes") -> Reply:
    """What an agent makes of an ask."""
    return Reply(Done(text))


def calls(driver: CoreDriver[Any], kind: type[Any]) -> list[Call[Any]]:
    """The open calls with a message of this kind."""
    return [call for call in driver.core.exchange.calls if isinstance(call.message, kind)]
