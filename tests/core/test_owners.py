"""What a client has spawned ends with the client, wherever it runs, unless it is detached."""

from __future__ import annotations

import pytest

from loopal_cluster.config import Timeouts
from loopal_cluster.core.effects import StopAgent
from loopal_cluster.core.events import AgentEnded, Peer
from loopal_cluster.core.parties import PROTOCOL
from loopal_cluster.errors import ErrorCode
from loopal_cluster.frames import Failure, Response
from loopal_cluster.messages import (
    Announce,
    Announced,
    CancelAgent,
    CancelRequest,
    Completed,
    MetaSpawn,
    RegisterHub,
    Shutdown,
    SpawnAgent,
    Spawned,
    SpawnSpec,
    Waited,
)
from loopal_cluster.outcomes import Cancelled
from loopal_cluster.testing import CoreDriver

from .builders import (
    TOKEN,
    attach,
    begin,
    call_of,
    come_up,
    in_cluster,
    join,
    notices,
    open_hub,
    open_meta,
    rejoin,
    requests,
    start,
)

GONE = "client 'ann' has gone"


def stops(effects, peer: Peer) -> list[tuple[str | None, str]]:
    """Which agents a peer is told to cancel, and why."""
    return [
        (message.agent_id, message.reason)
        for message in requests(effects, peer)
        if isinstance(message, CancelAgent)
    ]


# At a hub.


def test_an_agent_ends_with_the_client_that_spawned_it():
    hub = open_hub()
    ann = attach(hub)
    x = begin(hub, "x", by=ann)

    assert requests(hub.lose(ann), x) == [Shutdown()]


def test_what_it_has_spawned_itself_ends_too():
    hub = open_hub()
    ann = attach(hub)
    x = begin(hub, "x", by=ann)
    kid = begin(hub, "kid", by=x)

    assert requests(hub.lose(ann), kid) == [Shutdown()]


@pytest.mark.parametrize("whose", ["detached", "another client's", "an agent's"])
def test_what_is_not_its_own_goes_on(whose):
    hub = open_hub()
    ann = attach(hub)
    match whose:
        case "detached":
            begin(hub, "x", by=ann, detached=True)
        case "another client's":
            begin(hub, "x", by=attach(hub))
        case _:
            begin(hub, "x", by=begin(hub, "ann"))

    assert not requests(hub.lose(ann))


def test_an_agent_that_is_coming_up_ends_with_its_client():
    hub = open_hub()
    ann = attach(hub)
    agent_id = start(hub, "x", by=ann)

    assert StopAgent(agent_id) in hub.lose(ann)
    assert not hub.handle(AgentEnded(agent_id, "killed"))
    assert not hub.core.agents


def test_an_agent_on_another_hub_ends_with_its_client():
    hub, _, up = in_cluster()
    ann = attach(hub)
    hub.request(ann, SpawnAgent(SpawnSpec("y", target_hub="there", spawn_id="s-1")))
    hub.receive(up, Response(call_of(hub, MetaSpawn), Spawned("s-1", "y")))

    assert stops(hub.lose(ann), up) == [("s-1", GONE)]


def test_a_spawn_on_another_hub_that_is_not_answered_ends_with_its_client():
    hub, _, up = in_cluster()
    ann = attach(hub)
    hub.request(ann, SpawnAgent(SpawnSpec("y", target_hub="there", spawn_id="s-1")))

    assert stops(hub.lose(ann), up) == [("s-1", GONE)]


def test_a_detached_agent_on_another_hub_goes_on():
    hub, _, up = in_cluster()
    ann = attach(hub)
    hub.request(ann, SpawnAgent(SpawnSpec("y", target_hub="there", detached=True)))
    hub.receive(up, Response(call_of(hub, MetaSpawn), Spawned("id-2", "y")))

    assert not stops(hub.lose(ann), up)


def test_a_client_whose_agents_have_ended_leaves_nothing_to_do():
    hub = open_hub()
    ann = attach(hub)
    x = begin(hub, "x", by=ann)
    hub.notify(x, Completed(reason="goal"))

    assert hub.lose(ann) == []


# For the client of a MetaHub, at the hub that runs its agent.


def for_client(hub: CoreDriver, up: Peer, **spec) -> Peer:
    """Let an agent run here for a client of the MetaHub, with the id ``s-1``."""
    hub.request(up, SpawnAgent(SpawnSpec("r", spawn_id="s-1", **spec)))
    return come_up(hub, "s-1")


def test_the_agent_of_a_meta_hubs_client_ends_with_a_meta_hub_that_is_started_anew():
    hub, x, up = in_cluster()
    r = for_client(hub, up)
    hub.lose(up)

    _, effects = rejoin(hub, "another")

    assert requests(effects, r) == [Shutdown()]
    assert not requests(effects, x)


@pytest.mark.parametrize("detached", [False, True])
def test_it_goes_on_when_only_the_connection_was_broken(detached):
    hub, _, up = in_cluster()
    r = for_client(hub, up, detached=detached)
    hub.lose(up)

    _, effects = rejoin(hub)

    assert not requests(effects, r)


def test_a_detached_one_outlives_the_meta_hub():
    hub, _, up = in_cluster()
    r = for_client(hub, up, detached=True)
    hub.lose(up)

    _, effects = rejoin(hub, "another")

    assert not requests(effects, r)
    assert not requests(hub.advance(2 * Timeouts().lease_timeout), r)


def test_without_a_meta_hub_it_ends_with_the_lease():
    hub, x, up = in_cluster()
    r = for_client(hub, up)
    hub.lose(up)

    assert not requests(hub.advance(Timeouts().lease_timeout - 0.1), r)
    effects = hub.advance(0.1)
    assert requests(effects, r) == [Shutdown()]
    assert not requests(effects, x)


# At a MetaHub.


def spawned(**spec) -> tuple[CoreDriver, Peer, Peer]:
    """A MetaHub whose client has an agent ``b/r`` with the id ``s-1``: the MetaHub, the hub, the client."""
    meta = open_meta()
    b, ann = join(meta, "b"), attach(meta)
    meta.request(ann, SpawnAgent(SpawnSpec("r", target_hub="b", spawn_id="s-1", **spec)))
    meta.receive(b, Response(call_of(meta, SpawnAgent), Spawned("s-1", "r")))
    meta.request(b, Announce((Announced("r", "s-1"),)))
    return meta, b, ann


def test_the_agent_of_a_meta_hubs_client_is_stopped_when_the_client_is_gone():
    meta, b, ann = spawned()

    assert stops(meta.lose(ann), b) == [("s-1", GONE)]


def test_a_detached_one_and_one_that_has_ended_are_not_stopped():
    meta, b, ann = spawned()
    meta.request(ann, SpawnAgent(SpawnSpec("d", target_hub="b", spawn_id="s-2", detached=True)))
    meta.receive(b, Response(call_of(meta, SpawnAgent), Spawned("s-2", "d")))
    meta.request(b, Announce((Announced("d", "s-2"),), ended=("r",)))

    assert not stops(meta.lose(ann), b)


@pytest.mark.parametrize("how", ["the client is gone", "the client withdraws it"])
def test_a_clients_spawn_that_is_not_answered_is_revoked(how):
    meta = open_meta()
    b, ann = join(meta, "b"), attach(meta)
    meta.request(ann, SpawnAgent(SpawnSpec("r", target_hub="b", spawn_id="s-1")))
    call_id = call_of(meta, SpawnAgent)

    effects = meta.lose(ann) if how == "the client is gone" else meta.notify(ann, CancelRequest(2))

    assert notices(effects, b) == [CancelRequest(call_id)]
    assert [agent_id for agent_id, _ in stops(effects, b)] == ["s-1"]


def test_a_detached_spawn_that_is_not_answered_goes_on_without_its_client():
    meta = open_meta()
    b, ann = join(meta, "b"), attach(meta)
    meta.request(ann, SpawnAgent(SpawnSpec("r", target_hub="b", spawn_id="s-1", detached=True)))

    effects = meta.lose(ann)

    assert not stops(effects, b)
    assert not notices(effects, b)


def test_a_hub_that_is_away_when_the_client_goes_is_told_when_it_is_back():
    meta, b, ann = spawned()
    meta.lose(b)

    assert not requests(meta.lose(ann))
    b = meta.connect()
    effects = meta.request(b, RegisterHub("b", TOKEN, protocol=PROTOCOL, instance="b-1"))

    assert stops(effects, b) == [("s-1", GONE)]


def test_what_was_stopped_for_a_client_is_forgotten_when_the_hub_has_answered():
    meta, b, ann = spawned()
    meta.lose(ann)
    meta.receive(b, Response(call_of(meta, CancelAgent), Waited("", outcome=Cancelled(GONE))))
    meta.lose(b)

    b = meta.connect()
    effects = meta.request(b, RegisterHub("b", TOKEN, protocol=PROTOCOL, instance="b-1"))

    assert not stops(effects, b)


def test_the_agents_of_a_lost_hub_belong_to_nobody():
    meta, b, ann = spawned()
    meta.lose(b)
    meta.advance(1.0)

    assert meta.lose(ann) == []


def test_a_client_owns_the_newest_agent_of_a_name_and_not_another_clients():
    meta, b, ann = spawned()
    bob = attach(meta, "bob")
    meta.request(b, Announce(ended=("r",)))
    meta.request(bob, SpawnAgent(SpawnSpec("r", target_hub="b", spawn_id="s-2")))
    meta.receive(b, Response(call_of(meta, SpawnAgent), Spawned("s-2", "r")))

    assert not stops(meta.lose(ann), b)
    assert stops(meta.lose(bob), b) == [("s-2", "client 'bob' has gone")]


def test_a_spawn_that_was_refused_belongs_to_nobody():
    meta = open_meta()
    b, ann = join(meta, "b"), attach(meta)
    meta.request(ann, SpawnAgent(SpawnSpec("r", target_hub="b", spawn_id="s-1")))
    meta.receive(b, Failure(call_of(meta, SpawnAgent), ErrorCode.NAME_TAKEN, "no"))

    assert not stops(meta.lose(ann), b)
