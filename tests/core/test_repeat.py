"""What a lost connection left unanswered is asked again, and has its effect once."""

from __future__ import annotations

import pytest

from loopal_cluster.address import Address
from loopal_cluster.config import Timeouts
from loopal_cluster.core.effects import Effect, Send, StartAgent
from loopal_cluster.core.events import AgentEnded, AgentNotStarted, AgentStarted, Link, Peer
from loopal_cluster.core.parties import PROTOCOL
from loopal_cluster.errors import ErrorCode
from loopal_cluster.frames import Failure, Request, Response
from loopal_cluster.messages import (
    EMPTY,
    OK,
    AgentInfo,
    AgentSource,
    Announce,
    Announced,
    CancelAgent,
    CancelRequest,
    ClusterTopology,
    ControlAgent,
    DeliverEnvelope,
    HubList,
    InterruptAgent,
    ListHubs,
    MetaComplete,
    MetaRoute,
    MetaSpawn,
    MetaTopology,
    RegisterHub,
    Resolve,
    Route,
    Shutdown,
    ShutdownAgent,
    SpawnAgent,
    Spawned,
    SpawnSpec,
    Topology,
    WaitAgent,
    Waited,
)
from loopal_cluster.outcomes import Done, Lost
from loopal_cluster.testing import CoreDriver, sent

from .builders import (
    TOKEN,
    answer_all,
    answers,
    attach,
    call_of,
    come_up,
    envelope,
    for_remote,
    in_cluster,
    join,
    join_base,
    join_base_meta,
    join_meta,
    notices,
    open_hub,
    open_meta,
    rejoin,
    requests,
    unlogged,
    with_shadow,
)

X_THERE = Address("x", "there")


def told(driver: CoreDriver, peer: Peer) -> list[str]:
    """The lines of the transcript that say what a peer was told."""
    return lines_with(driver, f"-> Send(peer={peer}, ")


def lines_with(driver: CoreDriver, text: str) -> list[str]:
    """The lines of the transcript with a text."""
    return [line for line in driver.transcript if text in line]


def asked(effects: list[Effect], peer: Peer, kind: type) -> list[Request]:
    """The requests of a kind among some effects."""
    return [
        frame
        for frame in sent(effects, peer)
        if isinstance(frame, Request) and isinstance(frame.message, kind)
    ]


# A hub that loses its MetaHub.

MAY_REPEAT = [
    Route(envelope("there/x")),
    WaitAgent(X_THERE, timeout_ms=5000),
    AgentInfo(X_THERE),
    CancelAgent(X_THERE),
    ShutdownAgent(X_THERE),
    Resolve("x"),
    ListHubs(),
    MetaTopology(),
]


@pytest.mark.parametrize("message", MAY_REPEAT)
def test_what_was_not_answered_is_asked_again_by_a_new_id_and_answered_once(message):
    hub = open_hub()
    client, up = attach(hub), join_meta(hub)
    [first] = sent(hub.request(client, message), up)

    lost = hub.lose(up)
    again, effects = rejoin(hub)
    [second] = asked(effects, again, type(first.message))
    result = {ListHubs: HubList(()), MetaTopology: ClusterTopology(())}.get(type(message), OK)
    answered = hub.receive(again, Response(second.id, result))

    assert answers(lost) == []
    assert second.message == first.message
    assert answered == [Send(client, Response(2, result))]
    assert hub.receive(again, Response(second.id, result)) == []
    assert hub.core.exchange.calls.count(up) == 0


@pytest.mark.parametrize("message", [InterruptAgent(X_THERE), ControlAgent(X_THERE, EMPTY)])
def test_what_may_not_be_done_twice_fails_with_the_connection(message):
    hub = open_hub()
    client, up = attach(hub), join_meta(hub)
    hub.request(client, message)

    [lost] = answers(hub.lose(up), client)
    [away] = answers(hub.request(client, message), client)

    assert (lost.code, away.code) == (ErrorCode.CONNECTION_LOST, ErrorCode.NOT_IN_CLUSTER)
    assert len(hub.core.exchange.calls) == 0


@pytest.mark.parametrize("message", MAY_REPEAT)
def test_what_is_asked_while_the_meta_hub_is_away_waits_for_it(message):
    hub = open_hub()
    client = attach(hub)
    hub.lose(join_meta(hub))

    assert hub.request(client, message) == []
    again, effects = rejoin(hub)

    kinds = [type(request) for request in requests(effects, again)]
    assert len(kinds) == 2
    assert kinds[1] in (type(message), MetaRoute)


def test_a_hub_that_never_had_a_meta_hub_waits_for_none():
    hub = open_hub()
    client = attach(hub)

    for message in (ListHubs(), Resolve("x"), MetaTopology()):
        [failure] = sent(hub.request(client, message))
        assert failure.code is ErrorCode.NOT_IN_CLUSTER
    [failure] = sent(hub.request(client, Route(envelope("there/x"))))
    assert failure.code is ErrorCode.AGENT_NOT_FOUND


def test_what_waits_is_asked_in_the_order_in_which_it_came():
    hub = open_hub()
    client, up = attach(hub), join_meta(hub)
    texts = ["there/a", "there/b", "there/c", "there/d"]
    for target in texts[:2]:
        hub.request(client, Route(envelope(target)))
    hub.lose(up)
    for target in texts[2:]:
        hub.request(client, Route(envelope(target)))

    again, effects = rejoin(hub)

    assert [str(one.message.envelope.target) for one in asked(effects, again, MetaRoute)] == texts  # type: ignore[attr-defined]


def test_what_waits_has_the_deadline_that_it_had_and_fails_once():
    hub = open_hub()
    client, up = attach(hub), join_meta(hub)
    hub.request(client, Route(envelope("there/x")))
    hub.lose(up)

    assert answers(hub.advance(31.9)) == []
    [failure] = answers(hub.advance(0.1))
    again, effects = rejoin(hub)

    detail = "no answer to meta/route in time"
    assert failure == Failure(2, ErrorCode.DEADLINE_EXCEEDED, detail)
    assert asked(effects, again, MetaRoute) == []
    assert hub.core.exchange.calls.count(up) == 0


def test_what_was_asked_again_still_has_the_deadline_that_it_had():
    hub = open_hub()
    client, up = attach(hub), join_meta(hub)
    hub.request(client, Route(envelope("there/x")))
    hub.advance(20.0)
    hub.lose(up)
    again, _ = rejoin(hub)
    answer = [call for call in hub.core.exchange.calls if call.message.method == "meta/announce"]
    hub.receive(again, Response(answer[0].id, OK))

    assert answers(hub.advance(11.9), client) == []
    assert [failure.code for failure in answers(hub.advance(0.1), client)] == [ErrorCode.DEADLINE_EXCEEDED]


@pytest.mark.parametrize("how", ["cancelled", "gone"])
def test_what_nobody_waits_for_any_more_is_not_asked_again(how):
    hub = open_hub()
    client, up = attach(hub), join_meta(hub)
    hub.request(client, Route(envelope("there/x")))
    hub.lose(up)

    if how == "cancelled":
        [failure] = sent(hub.notify(client, CancelRequest(2)), client)
        assert failure.code is ErrorCode.CANCELLED
        _, effects = rejoin(hub)
        assert MetaRoute not in [type(message) for message in requests(effects)]
    else:
        hub.lose(client)
        again, effects = rejoin(hub)
        [request] = asked(effects, again, MetaRoute)  # a message is a message, whoever waits
        assert hub.receive(again, Response(request.id, OK)) == []
    assert hub.core.exchange.calls.count(up) == 0


def test_a_call_that_was_asked_again_can_be_withdrawn():
    hub = open_hub()
    client, up = attach(hub), join_meta(hub)
    hub.request(client, WaitAgent(X_THERE))
    hub.lose(up)
    again, effects = rejoin(hub)
    [request] = asked(effects, again, WaitAgent)

    assert notices(hub.notify(client, CancelRequest(2)), again) == [CancelRequest(request.id)]


def test_a_connection_that_is_lost_again_and_again_leaves_nothing_behind():
    hub = open_hub()
    client, up = attach(hub), join_meta(hub)
    hub.request(client, Route(envelope("there/x")))
    for _ in range(5):
        hub.lose(up)
        up, effects = rejoin(hub)

    [request] = asked(effects, up, MetaRoute)
    hub.receive(up, Response(request.id, OK))
    answer_all(hub, up, OK)

    assert len(hub.core.exchange.calls) == 0
    assert set(hub.core.exchange.calls._legs) <= {up}
    assert hub.core.exchange.calls._away == set()


def test_a_connection_that_ends_before_it_has_joined_changes_nothing():
    hub = open_hub()
    client = attach(hub)
    hub.lose(join_meta(hub))
    hub.request(client, Route(envelope("there/x")))

    assert answers(hub.lose(hub.connect(Link.UPLINK))) == []
    again, effects = rejoin(hub)

    assert len(asked(effects, again, MetaRoute)) == 1


def test_what_waits_outlives_a_refusal_for_whoever_refuses_may_only_hold_the_port():
    hub = open_hub()
    client = attach(hub)
    hub.lose(join_meta(hub))
    hub.request(client, Route(envelope("there/x")))

    refusing = hub.connect(Link.UPLINK)
    effects = hub.receive(refusing, Failure(1, ErrorCode.UNAUTHORIZED, "no"))
    hub.lose(refusing)
    again, joined = rejoin(hub)

    assert answers(effects, client) == []
    assert len(asked(joined, again, MetaRoute)) == 1


def test_a_meta_hub_of_the_base_dialect_is_not_asked_twice():
    hub = open_hub()
    client, up = attach(hub), join_base_meta(hub)
    hub.request(client, Route(envelope("there/x")))

    [failure] = answers(hub.lose(up), client)
    again = hub.connect(Link.UPLINK)

    assert failure.code is ErrorCode.CONNECTION_LOST
    assert len([call for call in hub.core.exchange.calls if call.peer == again]) == 1


# A MetaHub that was restarted.


def restarted(hub: CoreDriver, up: Peer) -> Peer:
    """Let a hub lose its MetaHub, and join one that has just begun."""
    hub.lose(up)
    again, _ = rejoin(hub, "another")
    answer_all(hub, again, OK)
    return again


@pytest.mark.parametrize("code", [ErrorCode.HUB_NOT_CONNECTED, ErrorCode.AGENT_NOT_FOUND])
def test_a_restarted_meta_hub_is_asked_again_until_it_must_know(code):
    hub = open_hub()
    client = attach(hub)
    up = restarted(hub, join_meta(hub))
    hub.request(client, Route(envelope("there/x")))

    doubted = 0
    while not (said := answers(hub.receive(up, Failure(call_of(hub, MetaRoute), code, "who?")), client)):
        assert len(asked(hub.advance(0.25), up, MetaRoute)) == 1
        doubted += 1

    assert doubted == 12
    assert said == [Failure(2, code, "who?")]
    assert hub.now == 3.0


def test_what_a_restarted_meta_hub_knows_at_last_is_answered():
    hub = open_hub()
    client = attach(hub)
    up = restarted(hub, join_meta(hub))
    hub.request(client, WaitAgent(X_THERE))
    hub.receive(up, Failure(call_of(hub, WaitAgent), ErrorCode.HUB_NOT_CONNECTED, "who?"))
    hub.advance(0.25)

    result = Waited("42", outcome=Done("42"))
    effects = hub.receive(up, Response(call_of(hub, WaitAgent), result))

    assert answers(effects, client) == [Response(2, result)]


def test_what_is_doubted_when_the_connection_is_lost_is_asked_on_the_next():
    hub = open_hub()
    client = attach(hub)
    up = restarted(hub, join_meta(hub))
    hub.request(client, Route(envelope("there/x")))
    hub.receive(up, Failure(call_of(hub, MetaRoute), ErrorCode.HUB_NOT_CONNECTED, "who?"))
    hub.lose(up)
    hub.advance(0.5)

    again, effects = rejoin(hub, "another")

    assert len(asked(effects, again, MetaRoute)) == 1


def test_what_is_doubted_when_the_meta_hub_refuses_us_is_asked_when_it_does_not_any_more():
    hub = open_hub()
    client = attach(hub)
    up = restarted(hub, join_meta(hub))
    hub.request(client, Route(envelope("there/x")))
    hub.receive(up, Failure(call_of(hub, MetaRoute), ErrorCode.HUB_NOT_CONNECTED, "who?"))
    hub.lose(up)

    effects = hub.receive(hub.connect(Link.UPLINK), Failure(1, ErrorCode.UNAUTHORIZED, "no"))
    effects += hub.advance(1.0)
    again, joined = rejoin(hub, "another")

    assert answers(effects, client) == []
    assert len(asked(joined, again, MetaRoute)) == 1


@pytest.mark.parametrize(
    ("cluster", "message", "code"),
    [
        ("c", Route(envelope("there/x")), ErrorCode.HUB_NOT_CONNECTED),
        ("another", Route(envelope("there/x")), ErrorCode.AMBIGUOUS_NAME),
        ("another", Route(envelope("there/x")), ErrorCode.DELIVERY_FAILED),
        ("another", InterruptAgent(X_THERE), ErrorCode.HUB_NOT_CONNECTED),
    ],
)
def test_all_else_is_believed_at_once(cluster, message, code):
    hub = open_hub()
    client = attach(hub)
    hub.lose(join_meta(hub))
    up, _ = rejoin(hub, cluster)
    [request] = sent(hub.request(client, message), up)

    effects = hub.receive(up, Failure(request.id, code, "no"))

    assert answers(effects, client) == [Failure(2, code, "no")]


def test_the_first_meta_hub_of_a_hub_is_believed_at_once():
    hub = open_hub()
    client, up = attach(hub), join_meta(hub)
    [request] = sent(hub.request(client, Route(envelope("there/x"))), up)

    effects = hub.receive(up, Failure(request.id, ErrorCode.HUB_NOT_CONNECTED, "no"))

    assert [failure.code for failure in answers(effects, client)] == [ErrorCode.HUB_NOT_CONNECTED]


# A MetaHub that loses a hub.

PATIENT = Timeouts(rejoin_timeout=100.0)


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        (MetaRoute(envelope("b/x")), DeliverEnvelope),
        (MetaSpawn(SpawnSpec("x", target_hub="b", spawn_id="s")), SpawnAgent),
        (WaitAgent(Address("x", "b")), WaitAgent),
        (AgentInfo(Address("x", "b")), AgentInfo),
        (CancelAgent(Address("x", "b")), CancelAgent),
        (ShutdownAgent(Address("x", "b")), ShutdownAgent),
    ],
)
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_hub_that_comes_back_is_asked_what_it_has_not_answered_after_its_welcome(message, kind, when):
    meta = open_meta()
    a, b = join(meta, "a"), join(meta, "b")
    if when == "before":
        meta.request(a, message)
    assert answers(meta.lose(b)) == []
    if when == "after":
        assert meta.request(a, message) == []

    again = join(meta, "b")
    welcome, request = told(meta, again)
    answered = meta.receive(again, Response(1, OK))

    assert "Welcome" in welcome
    assert kind.__name__ in request
    assert answers(answered, a) == [Response(2, OK)]
    assert len(meta.core.exchange.calls) == 0


def test_a_message_for_a_hub_that_stays_away_fails_when_its_time_is_up_and_once():
    meta = open_meta(PATIENT)
    a, b = join(meta, "a"), join(meta, "b")
    meta.lose(b)
    meta.request(a, MetaRoute(envelope("b/x")))

    assert answers(meta.advance(30.9), a) == []
    [failure] = answers(meta.advance(0.1), a)
    again = join(meta, "b")

    assert failure == Failure(2, ErrorCode.DEADLINE_EXCEEDED, "no answer to agent/message in time")
    assert meta.core.exchange.calls.count(b) == meta.core.exchange.calls.count(again) == 0


def test_what_waits_for_a_hub_fails_when_that_does_not_come_back():
    meta = open_meta()
    a, b = join(meta, "a"), join(meta, "b")
    meta.request(a, MetaRoute(envelope("b/x")))
    meta.lose(b)
    meta.request(a, MetaRoute(envelope("b/y")))

    failures = answers(meta.advance(0.8), a)

    detail = "hub 'b' is gone: its connection ended and it did not come back"
    assert failures == [Failure(n, ErrorCode.CONNECTION_LOST, detail) for n in (2, 3)]
    assert meta.core.exchange.calls.count(b) == 0


def test_another_instance_is_not_asked_what_waits_for_the_one_that_is_gone():
    meta = open_meta()
    a, b = join(meta, "a"), join(meta, "b")
    meta.request(a, MetaRoute(envelope("b/x")))
    meta.lose(b)

    again = meta.connect()
    meta.request(again, RegisterHub("b", TOKEN, protocol=PROTOCOL, instance="b-2"))
    meta.advance(0.8)

    detail = "hub 'b' is gone: its connection ended and it did not come back"
    assert f"0.8   -> {Send(a, Failure(2, ErrorCode.CONNECTION_LOST, detail))}" in meta.transcript
    assert meta.core.exchange.calls.count(b) == meta.core.exchange.calls.count(again) == 0


def test_a_silent_hub_that_is_lost_leaves_no_call_open():
    meta = open_meta()
    a, b = join(meta, "a"), join(meta, "b")
    meta.advance(60.0)
    meta.request(a, WaitAgent(Address("x", "b")))

    effects = meta.advance(30.0)
    meta.lose(b)

    assert [frame.result.outcome for frame in answers(effects, a)] == [
        Lost("hub 'b' is gone: silent for 90 s")
    ]
    assert meta.core.exchange.calls.count(b) == 0


def test_what_was_cancelled_is_not_asked_of_a_hub_that_comes_back():
    meta = open_meta()
    a, b = join(meta, "a"), join(meta, "b")
    meta.lose(b)
    meta.request(a, MetaRoute(envelope("b/x")))

    effects = meta.notify(a, CancelRequest(2))
    again = join(meta, "b")

    assert [frame.code for frame in answers(effects, a)] == [ErrorCode.CANCELLED]
    assert meta.core.exchange.calls.count(again) == meta.core.exchange.calls.count(b) == 0


def test_a_hub_that_is_back_before_its_old_connection_has_ended_is_asked_again_only_what_may_be():
    meta = open_meta()
    a, b = join(meta, "a"), join(meta, "b")
    meta.request(a, MetaRoute(envelope("b/x")))
    meta.request(a, InterruptAgent(Address("x", "b")))
    meta.request(a, MetaTopology())
    mark = len(meta.transcript)

    again = join(meta, "b")
    lost = meta.lose(b)

    calls = [call for call in meta.core.exchange.calls if call.peer == again]
    assert [type(call.message) for call in calls] == [DeliverEnvelope]
    assert "connection_lost" in "\n".join(meta.transcript[mark:])
    assert unlogged(lost) == []
    assert meta.core.exchange.calls.count(b) == 0


def test_a_base_hub_does_not_come_back_so_nothing_waits_for_it():
    meta = open_meta()
    a, b = join(meta, "a"), join_base(meta, "b")
    meta.request(a, MetaRoute(envelope("b/x")))

    [failure] = answers(meta.lose(b), a)

    assert failure.code is ErrorCode.CONNECTION_LOST
    assert meta.core.exchange.calls.count(b) == 0


def test_a_topology_does_not_wait_for_a_hub_that_is_away():
    meta = open_meta()
    a, b = join(meta, "a"), join(meta, "b")
    meta.lose(b)

    effects = meta.request(a, MetaTopology())

    assert requests(effects, a) == [Topology()]
    assert meta.core.exchange.calls.count(b) == 0


# A spawn that is asked twice.

SPEC = SpawnSpec("r", "do it", parent="there/p", spawn_id="s-1")


def test_a_repeated_spawn_of_an_agent_that_comes_up_is_answered_when_it_is_up():
    hub, _, up = in_cluster()
    hub.request(up, SpawnAgent(SPEC))
    hub.lose(up)
    again, _ = rejoin(hub)

    assert hub.request(again, SpawnAgent(SPEC)) == []
    come_up(hub, "s-1")

    assert f"{Send(again, Response(1, Spawned('s-1', 'r')))}" in "\n".join(hub.transcript)
    assert len([line for line in hub.transcript if "StartAgent(agent_id='s-1'" in line]) == 1


def test_whoever_asked_first_on_the_same_connection_is_answered_too():
    hub, _, up = in_cluster()
    hub.request(up, SpawnAgent(SPEC))

    effects = hub.request(up, SpawnAgent(SPEC))
    come_up(hub, "s-1")

    assert [frame.id for frame in answers(effects, up)] == [1]
    assert answers(effects, up)[0].code is ErrorCode.CANCELLED
    assert f"{Send(up, Response(2, Spawned('s-1', 'r')))}" in "\n".join(hub.transcript)


def test_a_repeated_spawn_of_an_agent_that_runs_is_answered_at_once_and_starts_nothing():
    hub, _, up = in_cluster()
    for_remote(hub, up)

    effects = hub.request(up, SpawnAgent(SpawnSpec("r", parent="there/p", spawn_id="s-1")))

    assert effects == [Send(up, Response(2, Spawned("s-1", "r")))]


def test_a_repeated_spawn_of_an_agent_that_has_ended_is_answered_and_starts_nothing():
    hub, _, up = in_cluster()
    for_remote(hub, up)
    hub.handle(AgentEnded("s-1", "killed"))

    effects = hub.request(up, SpawnAgent(SpawnSpec("r", parent="there/p", spawn_id="s-1")))

    assert effects == [Send(up, Response(2, Spawned("s-1", "r")))]


def test_a_repeated_spawn_of_an_agent_that_was_stopped_before_it_was_up_is_refused():
    hub, _, up = in_cluster()
    client = attach(hub)
    hub.request(up, SpawnAgent(SPEC))
    hub.request(client, CancelAgent(Address("r"), "s-1", "enough"))
    hub.handle(AgentNotStarted("s-1", "stopped"))

    effects = hub.request(up, SpawnAgent(SPEC))

    assert effects == [Send(up, Failure(2, ErrorCode.SPAWN_FAILED, "spawn failed: enough"))]


def test_a_spawn_that_failed_may_be_tried_again():
    hub, _, up = in_cluster()
    hub.request(up, SpawnAgent(SPEC))
    hub.handle(AgentNotStarted("s-1", "no such program"))

    [effect] = hub.request(up, SpawnAgent(SPEC))

    assert isinstance(effect, StartAgent)


def test_a_spawn_that_failed_when_its_program_ran_is_not_run_again():
    hub, _, up = in_cluster()
    hub.request(up, SpawnAgent(SPEC))
    hub.handle(AgentStarted("s-1", hub.new_peer()))
    hub.handle(AgentEnded("s-1", "crashed"))

    effects = hub.request(up, SpawnAgent(SPEC))

    assert effects == [Send(up, Failure(2, ErrorCode.SPAWN_FAILED, "spawn failed: crashed"))]


@pytest.mark.parametrize(
    "spec",
    [
        SpawnSpec("r", "do it", parent="elsewhere/p", spawn_id="s-1"),
        SpawnSpec("r", "do it", parent="there/q", spawn_id="s-1"),
        SpawnSpec("r", "do it", spawn_id="s-1"),
        SpawnSpec("z", "do it", parent="there/p", spawn_id="s-1"),
    ],
)
@pytest.mark.parametrize("state", ["coming up", "running", "ended"])
def test_the_identity_of_somebody_elses_agent_is_refused(spec, state):
    hub, _, up = in_cluster()
    hub.request(up, SpawnAgent(SPEC))
    if state != "coming up":
        come_up(hub, "s-1")
    if state == "ended":
        hub.handle(AgentEnded("s-1", "killed"))

    effects = hub.request(up, SpawnAgent(spec))

    assert effects == [Send(up, Failure(2, ErrorCode.NAME_TAKEN, "agent id 's-1' is taken"))]


@pytest.mark.parametrize("whose", ["agent", "shadow"])
def test_the_identity_of_an_agent_of_our_own_is_refused(whose):
    hub, _, up = with_shadow()
    agent_id = "id-1" if whose == "agent" else "id-2"

    effects = hub.request(up, SpawnAgent(SpawnSpec("z", parent="there/p", spawn_id=agent_id)))

    assert [frame.code for frame in answers(effects, up)] == [ErrorCode.NAME_TAKEN]


# A repetition for somebody who was not there when it was first asked.


@pytest.mark.parametrize(
    "message", [Route(envelope("there/x")), SpawnAgent(SpawnSpec("x", target_hub="there"))]
)
def test_a_repetition_says_how_long_before_this_connection_it_was_first_asked(message):
    hub = open_hub()
    client, up = attach(hub), join_meta(hub)
    [first] = sent(hub.request(client, message), up)

    hub.advance(0.2)
    hub.lose(up)
    hub.advance(0.5)
    again, effects = rejoin(hub)
    hub.advance(0.2)
    hub.lose(again)
    once_more, more = rejoin(hub)

    kind = type(first.message)
    assert "asked_ms=None" in repr(first)
    assert ["asked_ms=700" in repr(frame) for frame in asked(effects, again, kind)] == [True]
    assert ["asked_ms=900" in repr(frame) for frame in asked(more, once_more, kind)] == [True]


def test_what_was_never_sent_is_no_repetition():
    hub = open_hub()
    client, up = attach(hub), join_meta(hub)
    hub.lose(up)
    hub.request(client, Route(envelope("there/x")))
    hub.advance(0.5)

    again, effects = rejoin(hub)

    [request] = asked(effects, again, MetaRoute)
    assert request.message.envelope.asked_ms is None  # type: ignore[attr-defined]


def test_a_hub_says_how_long_ago_it_first_registered():
    hub = open_hub()
    up = join_meta(hub)
    hub.advance(2.5)
    hub.lose(up)

    hub.connect(Link.UPLINK)

    first, second = lines_with(hub, "RegisterHub")
    assert "up_ms=0" in first
    assert "up_ms=2500" in second


REPEATED = [
    MetaRoute(envelope("b/x", asked_ms=500)),
    MetaSpawn(SpawnSpec("y", target_hub="b", spawn_id="s", asked_ms=500)),
]


@pytest.mark.parametrize(("message", "asked_ms"), [*zip(REPEATED, (500, None), strict=True)])
def test_a_repetition_is_passed_on_to_a_hub_that_was_there(message, asked_ms):
    meta = open_meta()
    a, b = join(meta, "a"), join(meta, "b", up_ms=500)

    [request] = sent(meta.request(a, message), b)

    assert f"asked_ms={asked_ms}" in repr(request)


@pytest.mark.parametrize("message", REPEATED)
def test_a_repetition_for_a_hub_that_was_started_anew_since_is_refused_because_nobody_knows(message):
    meta = open_meta()
    a, _ = join(meta, "a"), join(meta, "b", up_ms=499)

    [refusal] = answers(meta.request(a, message), a)

    assert refusal.code is ErrorCode.CONNECTION_LOST
    assert "has changed hands" in refusal.detail


def test_how_long_ago_is_reckoned_from_when_the_asking_hub_joined_and_not_from_now():
    meta = open_meta()
    a = join(meta, "a")
    meta.advance(5.0)
    b = join(meta, "b", up_ms=5250)

    early = meta.request(a, MetaRoute(envelope("b/x", asked_ms=500)))
    late = meta.request(a, MetaRoute(envelope("b/x", asked_ms=250)))

    assert [frame.code for frame in answers(early, a)] == [ErrorCode.CONNECTION_LOST]
    # For b it is reckoned from when b joined.
    message = envelope("x", AgentSource("a/claimed"), origin_hub="a", asked_ms=5250)
    assert requests(late, b) == [DeliverEnvelope(message)]


def test_a_hub_that_is_back_is_as_old_as_it_was():
    meta = open_meta()
    meta.lose(join(meta, "b"))
    meta.advance(0.5)
    b = join(meta, "b", up_ms=500)
    a = join(meta, "a")

    assert requests(meta.request(a, MetaRoute(envelope("b/x", asked_ms=500))), b) != []


@pytest.mark.parametrize(("up_ms", "passes"), [(500, True), (499, False)])
def test_a_repetition_by_bare_name_reaches_only_an_agent_that_had_the_name_then(up_ms, passes):
    meta = open_meta()
    a, b = join(meta, "a"), join(meta, "b", up_ms=10_000)
    meta.request(b, Announce((Announced("x", "x-id", up_ms=up_ms),), whole=True))

    effects = meta.request(a, MetaRoute(envelope("x", asked_ms=500)))

    assert bool(requests(effects, b)) is passes
    assert [frame.code for frame in answers(effects, a)] == ([] if passes else [ErrorCode.CONNECTION_LOST])


@pytest.mark.parametrize(
    ("target", "code", "told"),
    [
        ("there/x", ErrorCode.HUB_NOT_CONNECTED, ErrorCode.CONNECTION_LOST),
        ("there/x", ErrorCode.OVERLOADED, ErrorCode.CONNECTION_LOST),
        ("there/x", ErrorCode.AGENT_NOT_FOUND, ErrorCode.AGENT_NOT_FOUND),
        ("there/x", ErrorCode.DELIVERY_FAILED, ErrorCode.DELIVERY_FAILED),
        ("x", ErrorCode.AGENT_NOT_FOUND, ErrorCode.CONNECTION_LOST),
        ("x", ErrorCode.AMBIGUOUS_NAME, ErrorCode.CONNECTION_LOST),
    ],
)
@pytest.mark.parametrize("repeated", [True, False])
def test_that_nobody_is_there_for_a_repetition_does_not_say_that_nobody_was(target, code, told, repeated):
    hub = open_hub()
    client, up = attach(hub), join_meta(hub)
    hub.request(client, Route(envelope(target)))
    if repeated:
        hub.advance(0.1)
        hub.lose(up)
        up, _ = rejoin(hub)

    effects = hub.receive(up, Failure(call_of(hub, MetaRoute), code, "no"))

    assert [frame.code for frame in answers(effects, client)] == [told if repeated else code]


def test_a_repetition_that_is_not_believed_is_asked_again_as_a_repetition():
    hub = open_hub()
    client, up = attach(hub), join_meta(hub)
    hub.request(client, Route(envelope("there/x")))
    hub.advance(0.1)
    hub.lose(up)
    up, _ = rejoin(hub, cluster="another")
    hub.receive(up, Failure(call_of(hub, MetaRoute), ErrorCode.HUB_NOT_CONNECTED, "not yet"))

    [again] = asked(hub.advance(0.25), up, MetaRoute)

    assert again.message.envelope.asked_ms == 100  # type: ignore[attr-defined]


def test_an_agent_or_a_client_cannot_make_a_repetition():
    hub, x, up = in_cluster()
    meta = open_meta()
    client, b = attach(meta), join(meta, "b")

    by_agent = hub.request(x, Route(envelope("there/y", asked_ms=5)))
    by_client = meta.request(client, Route(envelope("b/y", asked_ms=5)))

    assert [message.envelope.asked_ms for message in requests(by_agent, up)] == [None]
    assert [message.envelope.asked_ms for message in requests(by_client, b)] == [None]


# A spawn that is given up.


def test_a_spawn_whose_answer_does_not_come_in_time_is_revoked():
    hub, x, up = with_shadow(up=False)

    effects = []
    for _ in range(4):
        effects += hub.advance(15.0)
        for call in [call for call in hub.core.exchange.calls if isinstance(call.message, Announce)]:
            hub.receive(up, Response(call.id, OK))

    [message] = [one for one in requests(effects, up) if isinstance(one, CancelAgent)]
    assert (message.agent, message.agent_id) == (Address("y", "there"), "id-2")
    assert [frame.code for frame in answers(effects, x)] == [ErrorCode.DEADLINE_EXCEEDED]
    answer_all(hub, up, Waited("stopped"))
    assert len(hub.core.exchange.calls) == 0


def test_a_spawn_whose_hub_was_lost_meanwhile_is_revoked():
    hub, _, up = with_shadow(up=False)

    effects = hub.receive(up, Failure(call_of(hub, MetaSpawn), ErrorCode.CONNECTION_LOST, "gone"))

    assert [type(message) for message in requests(effects, up)] == [CancelAgent]
    refused = hub.receive(up, Failure(call_of(hub, CancelAgent), ErrorCode.HUB_NOT_CONNECTED, "gone"))
    assert refused == []


def test_a_spawn_that_was_refused_is_not_revoked():
    hub, _, up = with_shadow(up=False)

    effects = hub.receive(up, Failure(call_of(hub, MetaSpawn), ErrorCode.UNKNOWN_AGENT_TYPE, "no"))

    assert requests(effects, up) == []


@pytest.mark.parametrize(("detached", "away"), [(False, 60.0), (True, 3600.0)])
def test_a_spawn_that_is_given_up_while_the_meta_hub_is_away_is_revoked_when_it_is_back(detached, away):
    hub, x, up = with_shadow(up=False, detached=detached)
    hub.lose(up)

    refused = hub.advance(away)
    again, effects = rejoin(hub)

    assert [frame.code for frame in answers(refused, x)] == [ErrorCode.DEADLINE_EXCEEDED]
    assert asked(effects, again, MetaSpawn) == []
    assert len(asked(effects, again, CancelAgent)) == 1


def test_a_clients_spawn_on_a_hub_that_was_lost_meanwhile_is_revoked_when_that_is_back():
    meta = open_meta()
    client, b = attach(meta), join(meta, "b")
    [start] = sent(meta.request(client, SpawnAgent(SpawnSpec("x", target_hub="b"))), b)
    meta.lose(b)
    [failure] = answers(meta.advance(0.8), client)

    again = join(meta, "b")

    [revoked] = [message for message in told(meta, again) if "CancelAgent" in message]
    assert failure.code is ErrorCode.CONNECTION_LOST
    assert start.message.spec.spawn_id in revoked
    assert meta.core.exchange.calls.count(b) == 0


def test_a_clients_agent_that_has_ended_while_its_hub_was_away_is_forgotten():
    meta = open_meta()
    client, b = attach(meta), join(meta, "b")
    [start] = sent(meta.request(client, SpawnAgent(SpawnSpec("x", target_hub="b"))), b)
    meta.receive(b, Response(start.id, Spawned(start.message.spec.spawn_id, "x")))
    meta.lose(b)
    again = join(meta, "b")
    meta.request(again, Announce(whole=True))

    assert requests(meta.lose(client), again) == []


def test_a_clients_agent_is_forgotten_with_its_hub_even_if_that_never_came_to_announce_it():
    meta = open_meta()
    client, b = attach(meta), join(meta, "b")
    [start] = sent(meta.request(client, SpawnAgent(SpawnSpec("x", target_hub="b"))), b)
    meta.receive(b, Response(start.id, Spawned(start.message.spec.spawn_id, "x")))
    meta.lose(b)
    meta.advance(0.8)
    again = join(meta, "b")

    assert requests(meta.lose(client), again) == []


def test_an_agent_that_is_stopped_while_its_hub_is_gone_is_stopped_when_that_comes():
    meta = open_meta()
    a = join(meta, "a")

    refused = answers(meta.request(a, CancelAgent(Address("x", "b"), "x-id", "enough")), a)
    b = join(meta, "b")

    assert [frame.code for frame in refused] == [ErrorCode.HUB_NOT_CONNECTED]
    assert any("x-id" in line for line in told(meta, b))


def test_a_stop_by_name_is_not_kept_for_a_hub_that_is_gone():
    meta = open_meta()
    meta.request(join(meta, "a"), CancelAgent(Address("x", "b"), reason="enough"))

    b = join(meta, "b")

    assert not any("CancelAgent" in line for line in told(meta, b))


def test_a_revoked_agent_that_comes_up_all_the_same_is_stopped_by_its_hub():
    hub, _, up = in_cluster()
    r = for_remote(hub, up)

    effects = hub.request(up, CancelAgent(Address("r"), "s-1", "its spawn was given up"))

    assert requests(effects, r) == [Shutdown()]


def test_a_spawn_in_flight_when_the_connection_breaks_is_repeated_and_is_one_agent_with_one_outcome():
    hub, x, up = with_shadow(up=False)
    lost = hub.lose(up)
    again, effects = rejoin(hub)
    [request] = asked(effects, again, MetaSpawn)

    up_effects = hub.receive(again, Response(request.id, Spawned("id-2", "y")))

    assert answers(lost) == []
    assert request.message.spec.spawn_id == "id-2"  # type: ignore[attr-defined]
    assert answers(up_effects, x) == [Response(1, Spawned("id-2", "y"))]


def test_reports_are_not_kept_but_sent_anew():
    hub, _, up = in_cluster()
    for_remote(hub, up)
    hub.handle(AgentEnded("s-1", "killed"))
    hub.lose(up)

    again, effects = rejoin(hub)

    assert len(asked(effects, again, MetaComplete)) == 1
