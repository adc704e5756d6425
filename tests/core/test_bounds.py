"""What one party makes a core keep is bounded in bytes, and costs the others nothing."""

from __future__ import annotations

import tracemalloc

import pytest

from loopal_cluster.address import Address
from loopal_cluster.core.owed import OVERHEAD, Owed
from loopal_cluster.messages import (
    Announce,
    Announced,
    CancelAgent,
    MetaSpawn,
    SpawnAgent,
    SpawnSpec,
)

from .builders import attach, begin, join, join_meta, open_hub, open_meta, requests


def cancel(n: int, hub: str = "gone", reason: str = "x") -> CancelAgent:
    return CancelAgent(Address("a", hub), f"id-{n}", reason)


def test_cancels_for_hubs_that_are_not_there_are_kept_in_so_many_bytes():
    meta = open_meta()
    ann = attach(meta)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]

    for n in range(3_000):
        meta.request(ann, cancel(n, f"gone-{n}", reason="x" * 10_000))

    kept = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert kept < 20 * 2**20  # 250 MB with reasons of 4 MB, 60 of them


def test_who_asks_for_much_makes_room_and_not_the_others():
    owed = Owed(20 * (OVERHEAD + 20))
    owed.add("away", cancel(0), "honest")

    for n in range(1, 1000):
        for hub, agent_id in owed.add(f"gone-{n}", cancel(n), "attacker"):
            assert (hub, agent_id) != ("away", "id-0")

    assert owed.to("away") == [cancel(0)]
    assert len(owed) <= 20
    assert owed.size <= 20 * (OVERHEAD + 20)


def test_what_is_owed_twice_is_kept_once_and_can_be_forgotten():
    owed = Owed(10_000)
    owed.add("away", cancel(1), "a")
    owed.add("away", cancel(1, reason="y"), "b")

    assert owed.to("away") == [cancel(1, reason="y")]
    owed.forget("away", "id-1")
    owed.forget("away", "id-1")
    assert (len(owed), owed.size, owed.to("away")) == (0, 0, [])


# Depth.


def spawned_depth(meta, a, b, parent: str, depth: int) -> int:
    effects = meta.request(a, MetaSpawn(SpawnSpec("y", target_hub="b", parent=parent, depth=depth)))
    return requests(effects, b)[-1].spec.depth


@pytest.mark.parametrize(
    ("parent", "claimed", "computed"),
    [("a/leaf", -5, 3), ("leaf", 0, 3), ("leaf", 7, 7), ("a/client", -5, 0), ("a/client", 0, 0), ("a/ring", 1, 1024)],
)  # fmt: skip
def test_the_depth_of_an_agent_is_computed_from_its_ancestors_and_not_believed(parent, claimed, computed):
    meta = open_meta()
    a, b = join(meta, "a"), join(meta, "b", "root")
    meta.request(
        a,
        Announce(
            (
                Announced("child", "1", parent="b/root"),
                Announced("leaf", "2", parent="child"),
                Announced("ring", "3", parent="ring"),
            )
        ),
    )

    assert spawned_depth(meta, a, b, parent, claimed) == computed


def test_a_hub_knows_itself_how_deep_a_parent_is_that_it_had_started_elsewhere():
    hub = open_hub()
    up = join_meta(hub)
    x = begin(hub, "x")
    hub.request(x, SpawnAgent(SpawnSpec("y", target_hub="there")))
    spec = SpawnSpec("z", parent="there/y", depth=-5, spawn_id="z-1")

    hub.request(up, SpawnAgent(spec))

    record = hub.core.agents.local("z")
    assert record is not None
    assert record.depth == 2
