"""What one party makes a core keep is bounded in bytes, and costs the others nothing."""

from __future__ import annotations

import tracemalloc

import pytest

from loopal_cluster.address import Address
from loopal_cluster.config import Limits
from loopal_cluster.core.calls import Origin
from loopal_cluster.core.events import Peer
from loopal_cluster.core.owed import OVERHEAD, Owed
from loopal_cluster.core.receipts import Receipts
from loopal_cluster.core.results import FinishedAgent, Results
from loopal_cluster.errors import ErrorCode
from loopal_cluster.frames import Failure, Response
from loopal_cluster.message_sizes import payload_bytes
from loopal_cluster.messages import (
    OK,
    Announce,
    Announced,
    Ask,
    CancelAgent,
    CancelRequest,
    Envelope,
    Found,
    HumanSource,
    MetaSpawn,
    Opaque,
    Permission,
    Role,
    Route,
    SpawnAgent,
    Spawned,
    SpawnSpec,
    Subscribe,
)
from loopal_cluster.outcomes import Done
from loopal_cluster.testing import sent

from .builders import (
    answer_all,
    attach,
    begin,
    envelope,
    join,
    join_base,
    join_meta,
    notices,
    open_hub,
    open_meta,
    rejoin,
    requests,
    start,
)


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


# Bytes on their way, and what is kept of them.

LARGE = Opaque(b'{"text":"%b"}' % (b"x" * 100_000))


def large(n: int, target: str = "x") -> Route:
    return Route(Envelope(f"m-{n}", HumanSource(), Address(target), LARGE, "now"))


def codes(effects, peer) -> list[ErrorCode]:
    return [frame.code for frame in sent(effects, peer) if isinstance(frame, Failure)]


def test_large_messages_to_an_agent_that_does_not_answer_are_bounded_in_bytes_and_small_ones_go_on():
    hub = open_hub(limits=Limits(calls_bytes=1_000_000))
    x, ann = begin(hub, "x"), attach(hub, "ann")

    refused = [codes(hub.request(ann, large(n)), ann) for n in range(300)]

    assert refused[:10] == [[]] * 10
    assert refused[10:] == [[ErrorCode.OVERLOADED]] * 290
    assert hub.core.exchange.calls.size(x) < 1_100_000
    assert requests(hub.request(ann, Route(envelope("x"))), x) != []
    answer_all(hub, x, OK)
    assert hub.core.exchange.calls.size(x) == 0
    assert codes(hub.request(ann, large(301)), ann) == []


def test_one_who_writes_to_many_is_bounded_too_and_the_others_are_not():
    hub = open_hub(limits=Limits(calls_bytes=1_000_000))
    for n in range(10):
        begin(hub, f"x-{n}")
    ann, bob = attach(hub, "ann"), attach(hub, "bob")

    refused = [codes(hub.request(ann, large(n, f"x-{n % 10}")), ann) for n in range(100)]

    assert sum(map(len, refused)) == 80
    assert codes(hub.request(bob, large(1, "x-1")), bob) == []


def test_messages_for_an_agent_that_is_coming_up_are_bounded_in_bytes():
    hub = open_hub(limits=Limits(calls_bytes=1_000_000))
    ann = attach(hub, "ann")
    start(hub, "x", ann)

    refused = [codes(hub.request(ann, large(n)), ann) for n in range(100)]

    assert sum(map(len, refused)) == 90


def test_messages_of_one_for_many_agents_that_are_coming_up_are_bounded_too():
    hub = open_hub(limits=Limits(calls_bytes=1_000_000))
    ann, bob = attach(hub, "ann"), attach(hub, "bob")
    for n in range(10):
        start(hub, f"x-{n}", ann)

    refused = [codes(hub.request(ann, large(n, f"x-{n % 10}")), ann) for n in range(100)]

    assert sum(map(len, refused)) == 80
    assert codes(hub.request(bob, large(1, "x-1")), bob) == []


def test_messages_that_wait_for_base_hubs_to_say_whose_a_name_is_are_bounded_in_bytes():
    meta = open_meta(limits=Limits(calls_bytes=1_000_000))
    base, ann, bob = join_base(meta, "base"), attach(meta, "ann"), attach(meta, "bob")

    refused = [codes(meta.request(ann, large(n, f"x-{n % 5}")), ann) for n in range(100)]

    assert sum(map(len, refused)) == 80
    assert codes(meta.request(bob, large(1, "x-1")), bob) == []
    assert len(requests(meta.request(ann, Route(envelope("y"))), base)) == 1


def test_prompts_that_wait_for_a_base_hub_to_say_whether_a_name_is_free_are_bounded_in_bytes():
    meta = open_meta(limits=Limits(calls_bytes=1_000_000))
    base, ann = join_base(meta, "base"), attach(meta, "ann")

    def spawn(n: int) -> list[ErrorCode]:
        return codes(
            meta.request(ann, SpawnAgent(SpawnSpec(f"x-{n}", "p" * 100_000, target_hub="base"))), ann
        )

    assert sum(len(spawn(n)) for n in range(100)) == 80
    answer_all(meta, base, Found(found=False))
    answer_all(meta, base, Spawned("own", "x"))
    assert sum(payload_bytes(agent.message) for agent in meta.core.base_agents._of("base")) < 100_000


def test_asks_that_were_withdrawn_while_the_meta_hub_is_away_are_kept_in_so_many_bytes():
    hub = open_hub(limits=Limits(calls_bytes=1_000_000))
    x, up = begin(hub, "x"), join_meta(hub)
    hub.lose(up)

    for n in range(2, 102):
        hub.request(x, Ask(large(n, "far/y").envelope))
        hub.notify(x, CancelRequest(n - 1))

    [withdrawn] = hub.core.exchange._withdrawn.values()
    assert sum(call.size for call in withdrawn) < 1_100_000
    assert withdrawn[-1].message.envelope.id == "m-101"  # type: ignore[attr-defined]


def test_permissions_with_large_inputs_are_bounded_in_bytes():
    hub = open_hub(limits=Limits(calls_bytes=1_000_000))
    x, y = begin(hub, "x"), begin(hub, "y")
    permission = Permission("id", "Write", Opaque(b'"' + b"x" * 100_000 + b'"'))  # type: ignore[arg-type]

    refused = [codes(hub.request(x, permission), x) for _ in range(100)]

    assert sum(map(len, refused)) == 80
    assert codes(hub.request(y, permission), y) == []


def test_prompts_of_live_agents_are_bounded_in_bytes():
    hub = open_hub(limits=Limits(spawn_bytes=1_000_000))
    ann = attach(hub, "ann")

    refused = [
        codes(hub.request(ann, SpawnAgent(SpawnSpec(f"x-{n}", "p" * 100_000))), ann) for n in range(20)
    ]

    assert sum(map(len, refused)) == 10
    assert hub.core.agents.spawn_bytes < 1_100_000


def test_outcomes_are_kept_in_so_many_bytes_and_the_newest_always():
    results = Results(10_000, 1_000_000)

    for n in range(100):
        outcome = Done("x" * 100_000 * (20 if n == 99 else 1))
        results.add(FinishedAgent(f"id-{n}", Address(f"x-{n}"), "t", None, outcome, 1.0))

    assert len(results) == 1
    assert results.get("id-99") is not None


def test_of_answers_that_are_too_much_to_keep_only_that_they_were_given_is_remembered():
    receipts = Receipts(10_000, 1_000_000, lambda seconds: seconds)
    for n in range(20):
        receipts.begin(n, 60.0, 0.0)
        receipts.settle(n, Response(0, Opaque(b"x" * 100_000)), 0.0)

    kept = [receipts.repeat(n, Origin(Peer(1), n)) for n in range(20)]
    assert [type(answer) for answer in kept] == [Failure] * 10 + [Response] * 10
    assert {answer.code for answer in kept if isinstance(answer, Failure)} == {ErrorCode.CONNECTION_LOST}


# Replays and announcements.


@pytest.mark.parametrize("kind", ["hub", "meta_hub"])
def test_two_thousand_replays_at_once_are_two(kind):
    driver = open_hub() if kind == "hub" else open_meta()
    ann, bob = attach(driver, "ann", Role.OBSERVER), attach(driver, "bob", Role.OBSERVER)
    for _ in range(3000):
        driver.core._timeline.publish("a", "x", Opaque(b"1"), 0.0)

    effects = [effect for _ in range(2000) for effect in driver.request(ann, Subscribe(0))]

    assert len(notices(effects, ann)) == 2 * 2048
    assert codes(effects, ann) == [ErrorCode.OVERLOADED] * 1998
    assert len(notices(driver.request(bob, Subscribe(0)), bob)) == 2048
    driver.advance(1.0)
    assert len(notices(driver.request(ann, Subscribe(2990)), ann)) == 10


def test_a_hub_may_announce_so_many_agents_and_is_told_so():
    meta = open_meta()
    a = join(meta, "a")
    agents = [Announced(f"x-{n}", "i") for n in range(20_001)]

    assert codes(meta.request(a, Announce(tuple(agents), whole=True)), a) == [ErrorCode.OVERLOADED]
    assert codes(meta.request(a, Announce(tuple(agents[:20_000]), whole=True)), a) == []
    assert codes(meta.request(a, Announce(tuple(agents[20_000:]))), a) == [ErrorCode.OVERLOADED]
    assert codes(meta.request(a, Announce(tuple(agents[20_000:]), ended=("nobody",))), a) == [
        ErrorCode.OVERLOADED
    ]
    assert codes(meta.request(a, Announce(tuple(agents[20_000:]), ended=("x-1",))), a) == []
    assert meta.core.directory.count("a") == 20_000


def test_a_hub_announces_in_chunks():
    hub = open_hub()
    ann = attach(hub)
    for n in range(1200):
        begin(hub, f"x-{n}", ann)

    up, effects = rejoin(hub)
    chunks = []
    while announced := [message for message in requests(effects, up) if isinstance(message, Announce)]:
        chunks += announced
        [call] = [call for call in hub.core.exchange.calls if isinstance(call.message, Announce)]
        effects = hub.receive(up, Response(call.id, OK))

    assert [(len(chunk.started), chunk.whole) for chunk in chunks] == [
        (500, True),
        (500, False),
        (200, False),
    ]
