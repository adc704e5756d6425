"""Which hub a MetaHub passes a request on to, and how the answer finds its way back."""

from __future__ import annotations

import pytest
from attrs import evolve

from loopal_cluster.address import Address
from loopal_cluster.config import Limits
from loopal_cluster.core.effects import Send
from loopal_cluster.errors import ErrorCode
from loopal_cluster.frames import Failure, Notification, Request, Response
from loopal_cluster.messages import (
    EMPTY,
    OK,
    AgentInfo,
    AgentSource,
    Announce,
    Announced,
    CancelAgent,
    CancelRequest,
    ChannelSource,
    ControlAgent,
    DeliverEnvelope,
    Found,
    Heartbeat,
    HumanSource,
    InterruptAgent,
    MetaRoute,
    Ok,
    Resolve,
    Role,
    Route,
    ShutdownAgent,
    SystemSource,
    WaitAgent,
    Waited,
)
from loopal_cluster.outcomes import Done
from loopal_cluster.testing import sent

from .builders import answers, attach, envelope, join, join_base, notices, open_meta, requests, unlogged

NOT_FOUND = "agent 'x' not found on any hub of the cluster"


def delivered(sender: str, origin_hub: str) -> DeliverEnvelope:
    """What the receiving hub is sent for ``envelope(".../x")``."""
    return DeliverEnvelope(envelope("x", AgentSource(sender), origin_hub=origin_hub))


# Routing.


def test_a_qualified_message_goes_to_its_hub_without_asking_and_the_answer_comes_back():
    meta = open_meta()
    a, b = join(meta, "a"), join(meta, "b")

    there = meta.request(a, MetaRoute(envelope("b/x", AgentSource("main"))))
    back = meta.receive(b, Response(1, OK))

    assert there == [Send(b, Request(1, delivered("a/main", "a")))]
    assert back == [Send(a, Response(2, OK))]


def test_a_bare_name_is_found_in_what_the_hubs_have_announced():
    meta = open_meta()
    a, b = join(meta, "a"), join(meta, "b", "x")

    assert meta.request(a, MetaRoute(envelope("x", AgentSource("main")))) == [
        Send(b, Request(1, delivered("a/main", "a")))
    ]


def test_a_bare_name_does_not_mean_an_agent_of_the_hub_that_asks():
    meta = open_meta()
    a, b = join(meta, "a", "x"), join(meta, "b", "x")

    assert requests(meta.request(a, MetaRoute(envelope("x"))), b) != []


def test_a_bare_name_nobody_has_is_an_error_at_once():
    meta = open_meta()
    a = join(meta, "a")

    effects = meta.request(a, MetaRoute(envelope("x")))

    assert effects == [Send(a, Failure(2, ErrorCode.AGENT_NOT_FOUND, NOT_FOUND))]


def test_a_bare_name_on_several_hubs_is_an_error_that_names_them():
    meta = open_meta()
    a = join(meta, "a")
    join(meta, "c", "x")
    join(meta, "b", "x")

    detail = "agent name 'x' is on several hubs: b/x, c/x"
    assert meta.request(a, MetaRoute(envelope("x"))) == [
        Send(a, Failure(2, ErrorCode.AMBIGUOUS_NAME, detail))
    ]


def test_an_agent_that_has_ended_is_not_found():
    meta = open_meta()
    a, b = join(meta, "a"), join(meta, "b", "x", "y")
    assert meta.request(b, Announce(ended=("x",))) == [Send(b, Response(3, OK))]

    [failure] = answers(meta.request(a, MetaRoute(envelope("x"))))

    assert failure.code is ErrorCode.AGENT_NOT_FOUND


@pytest.mark.parametrize("state", ["unknown", "lost"])
def test_a_hub_that_is_not_in_the_cluster_is_an_error_at_once(state):
    meta = open_meta()
    a = join(meta, "a")
    if state == "lost":
        meta.lose(join(meta, "b"))
        meta.advance(1.0)

    effects = meta.request(a, MetaRoute(envelope("b/x")))

    assert effects == [Send(a, Failure(2, ErrorCode.HUB_NOT_CONNECTED, "hub 'b' not connected"))]


@pytest.mark.parametrize(
    "message", [InterruptAgent(Address("x", "b")), ControlAgent(Address("x", "b"), EMPTY)]
)
def test_what_may_not_be_done_twice_is_an_error_at_once_when_its_hub_is_away(message):
    meta = open_meta()
    a = join(meta, "a")
    meta.lose(join(meta, "b"))

    effects = meta.request(a, message)

    assert effects == [Send(a, Failure(2, ErrorCode.HUB_NOT_CONNECTED, "hub 'b' not connected"))]


def test_what_may_not_be_done_twice_is_an_error_at_once_when_its_hub_goes_mid_call():
    meta = open_meta()
    a, b = join(meta, "a"), join(meta, "b")
    meta.request(a, InterruptAgent(Address("x", "b")))

    effects = meta.lose(b, "reset")

    assert answers(effects) == [Failure(2, ErrorCode.CONNECTION_LOST, "connection lost: reset")]


def test_a_hub_that_does_not_answer_is_an_error_when_the_time_is_up():
    meta = open_meta()
    a, b = join(meta, "a"), join(meta, "b")
    meta.request(a, MetaRoute(envelope("b/x")))

    assert answers(meta.advance(30.9)) == []
    effects = meta.advance(0.1)

    detail = "no answer to agent/message in time"
    assert answers(effects) == [Failure(2, ErrorCode.DEADLINE_EXCEEDED, detail)]
    assert unlogged(meta.receive(b, Response(1, OK))) == []


def test_not_ok_is_a_failed_delivery():
    meta = open_meta()
    a, b = join(meta, "a"), join(meta, "b")
    meta.request(a, MetaRoute(envelope("b/x")))

    detail = "the hub could not deliver the message"
    assert meta.receive(b, Response(1, Ok(ok=False))) == [
        Send(a, Failure(2, ErrorCode.DELIVERY_FAILED, detail))
    ]


def test_a_refusal_is_passed_on_in_its_own_words():
    meta = open_meta()
    a, b = join(meta, "a"), join(meta, "b")
    meta.request(a, MetaRoute(envelope("b/x")))

    assert meta.receive(b, Failure(1, ErrorCode.AGENT_NOT_FOUND, "no agent 'x'")) == [
        Send(a, Failure(2, ErrorCode.AGENT_NOT_FOUND, "no agent 'x'"))
    ]


def test_another_hub_cannot_answer():
    meta = open_meta()
    a, b, c = join(meta, "a"), join(meta, "b"), join(meta, "c")
    meta.request(a, MetaRoute(envelope("b/x")))

    assert meta.receive(c, Response(1, OK)) == []
    assert meta.receive(a, Response(1, OK)) == []
    assert meta.receive(b, Response(1, OK)) == [Send(a, Response(2, OK))]


def test_equal_requests_of_two_hubs_are_answered_each_to_its_own():
    meta = open_meta()
    a, b, c = join(meta, "a"), join(meta, "b"), join(meta, "c")
    meta.request(a, WaitAgent(Address("x", "c")))
    meta.request(b, WaitAgent(Address("x", "c")))

    first = meta.receive(c, Response(1, Waited("for a")))
    second = meta.receive(c, Response(2, Waited("for b")))

    assert first == [Send(a, Response(2, Waited("for a")))]
    assert second == [Send(b, Response(2, Waited("for b")))]


def test_a_caller_that_no_longer_waits_is_answered_and_the_hub_told():
    meta = open_meta()
    a, b = join(meta, "a"), join(meta, "b")
    meta.request(a, WaitAgent(Address("x", "b")))

    assert meta.notify(a, CancelRequest(2)) == [
        Send(a, Failure(2, ErrorCode.CANCELLED, "cancelled by its caller")),
        Send(b, Notification(CancelRequest(1))),
    ]
    assert meta.receive(b, Failure(1, ErrorCode.CANCELLED, "")) == []


def test_too_many_calls_to_one_hub_are_refused_at_once():
    meta = open_meta(limits=Limits(calls_per_peer=1))
    a, b = join(meta, "a"), join(meta, "b")
    meta.request(a, MetaRoute(envelope("b/x")))

    [failure] = sent(meta.request(a, MetaRoute(envelope("b/x"))))

    assert failure.code is ErrorCode.OVERLOADED
    assert answers(meta.receive(b, Response(1, OK)), a) == [Response(2, OK)]


# Senders.


@pytest.mark.parametrize("claimed", ["main", "b/main", "x/y/main", "a/main"])
def test_a_sender_is_an_agent_of_the_hub_the_message_comes_from_whatever_it_claims(claimed):
    meta = open_meta()
    a, b = join(meta, "a"), join(meta, "b")

    forged = envelope("b/x", AgentSource(claimed), origin_hub="b")

    assert requests(meta.request(a, MetaRoute(forged)), b) == [delivered("a/main", "a")]


@pytest.mark.parametrize(
    "source", [HumanSource(), SystemSource("agent-completed"), ChannelSource("c", "ann")]
)
def test_a_hub_may_send_for_others_than_agents(source):
    meta = open_meta()
    a, b = join(meta, "a"), join(meta, "b")

    [message] = requests(meta.request(a, MetaRoute(envelope("b/x", source))), b)

    assert (message.envelope.source, message.envelope.origin_hub) == (source, "a")


@pytest.mark.parametrize("source", [AgentSource("a/main"), SystemSource("agent-completed"), HumanSource()])
def test_a_client_writes_as_a_human_whatever_it_claims(source):
    meta = open_meta()
    b, client = join(meta, "b"), attach(meta)

    effects = meta.request(client, Route(envelope("b/x", source, origin_hub="a")))

    assert requests(effects, b) == [DeliverEnvelope(envelope("x", HumanSource()))]


def test_a_client_may_bring_what_somebody_said_on_a_channel():
    meta = open_meta()
    b, client = join(meta, "b"), attach(meta)

    source = ChannelSource("irc", "ann")

    [message] = requests(meta.request(client, Route(envelope("b/x", source))), b)
    assert message.envelope.source == source


def test_what_a_message_says_is_passed_on_unread():
    meta = open_meta()
    a, b = join(meta, "a"), join(meta, "b")
    opaque = evolve(envelope("b/x"), content=EMPTY)

    [message] = requests(meta.request(a, MetaRoute(opaque)), b)

    assert message.envelope.content is EMPTY


def test_an_observer_may_look_but_not_send():
    meta = open_meta()
    join(meta, "b")
    observer = attach(meta, role=Role.OBSERVER)

    [failure] = sent(meta.request(observer, Route(envelope("b/x"))))

    assert failure == Failure(2, ErrorCode.UNAUTHORIZED, "an observer may not use hub/route")


# About one agent.


@pytest.mark.parametrize(
    "message",
    [
        WaitAgent(Address("x", "b"), "id", 5),
        AgentInfo(Address("x", "b")),
        ControlAgent(Address("x", "b"), EMPTY),
        InterruptAgent(Address("x", "b")),
        ShutdownAgent(Address("x", "b")),
        CancelAgent(Address("x", "b"), "id", "enough"),
    ],
)
def test_a_request_about_an_agent_goes_to_its_hub_with_a_bare_name(message):
    meta = open_meta()
    a, b = join(meta, "a"), join(meta, "b", "x")
    bare = evolve(message, agent=Address("x"))

    assert requests(meta.request(a, message), b) == [bare]
    assert requests(meta.request(a, bare), b) == [bare]


def test_a_wait_through_the_meta_hub_has_the_time_it_brings():
    meta = open_meta()
    a, b = join(meta, "a"), join(meta, "b")
    meta.request(a, WaitAgent(Address("x", "b"), timeout_ms=100_000))
    for _ in range(10):
        meta.advance(10.0)
        for hub in (a, b):
            meta.notify(hub, Heartbeat())

    assert answers(meta.receive(b, Response(1, Waited("yes", outcome=Done("yes")))), a) != []


def test_a_hub_of_the_base_dialect_cannot_be_waited_on_because_nothing_else_would_get_through():
    meta = open_meta()
    a = join(meta, "a")
    join_base(meta, "b")

    detail = "hub 'b' cannot be waited on from another hub"
    assert meta.request(a, WaitAgent(Address("x", "b"))) == [
        Send(a, Failure(2, ErrorCode.METHOD_NOT_FOUND, detail))
    ]


def test_a_hub_of_the_base_dialect_is_asked_to_shut_down_what_is_to_be_cancelled():
    meta = open_meta()
    a, b = join(meta, "a"), join_base(meta, "b")

    assert requests(meta.request(a, CancelAgent(Address("x", "b"))), b) == [ShutdownAgent(Address("x"))]
    assert meta.receive(b, Response(1, OK)) == [Send(a, Response(2, Waited("asked to stop", timed_out=True)))]


def test_an_unknown_method_is_refused_by_name():
    meta = open_meta()
    a = join(meta, "a")

    [failure] = sent(meta.request(a, DeliverEnvelope(envelope("x"))))

    assert failure == Failure(2, ErrorCode.METHOD_NOT_FOUND, "unknown: agent/message")


# Bare names on hubs of the base dialect.


def test_hubs_of_the_base_dialect_are_all_asked_at_once():
    meta = open_meta()
    a, b, c = join(meta, "a"), join_base(meta, "b"), join_base(meta, "c")

    asked = meta.request(a, MetaRoute(envelope("x", AgentSource("main"))))
    waiting = meta.receive(b, Response(1, Found(found=False)))
    found = meta.receive(c, Response(1, Found(found=True)))

    assert asked == [Send(b, Request(1, Resolve("x"))), Send(c, Request(1, Resolve("x")))]
    assert waiting == []
    assert found == [Send(c, Request(2, delivered("a/main", "a")))]


def test_all_who_want_the_same_agent_wait_for_one_asking():
    meta = open_meta()
    a, b = join(meta, "a"), join_base(meta, "b")

    first = meta.request(a, MetaRoute(envelope("x")))
    second = meta.request(a, MetaRoute(envelope("x")))
    effects = meta.receive(b, Response(1, Found(found=True)))

    assert requests(first, b) == [Resolve("x")]
    assert second == []
    assert [type(message) for message in requests(effects, b)] == [DeliverEnvelope] * 2


def test_a_found_agent_is_believed_for_a_minute():
    meta = open_meta()
    a, b = join(meta, "a"), join_base(meta, "b")
    meta.request(a, Resolve("x"))
    meta.receive(b, Response(1, Found(found=True)))

    for _ in range(3):
        meta.advance(19.9)
        meta.receive(b, Response(99, None))
        assert meta.request(a, Resolve("x"))[-1].frame.result == Found(found=True, hub="b")
    meta.advance(0.4)

    assert requests(meta.request(a, Resolve("x")), b) == [Resolve("x")]


def test_a_belief_that_has_proved_wrong_is_dropped():
    meta = open_meta()
    a, b = join(meta, "a"), join_base(meta, "b")
    meta.request(a, Resolve("x"))
    meta.receive(b, Response(1, Found(found=True)))
    meta.request(a, MetaRoute(envelope("x")))
    meta.receive(b, Response(2, Ok(ok=False)))

    assert requests(meta.request(a, MetaRoute(envelope("x"))), b) == [Resolve("x")]


def test_what_was_believed_of_a_hub_is_lost_with_it():
    meta = open_meta()
    a, b = join(meta, "a"), join_base(meta, "b")
    meta.request(a, Resolve("x"))
    meta.receive(b, Response(1, Found(found=True)))
    meta.lose(b)

    assert answers(meta.request(a, MetaRoute(envelope("x"))), a)[0].code is ErrorCode.AGENT_NOT_FOUND


def test_an_agent_on_several_hubs_of_the_base_dialect_is_ambiguous():
    meta = open_meta()
    a, b, c = join(meta, "a"), join_base(meta, "b"), join_base(meta, "c")
    meta.request(a, MetaRoute(envelope("x")))
    meta.receive(b, Response(1, Found(found=True)))

    effects = meta.receive(c, Response(1, Found(found=True)))

    detail = "agent name 'x' is on several hubs: b/x, c/x"
    assert effects == [Send(a, Failure(2, ErrorCode.AMBIGUOUS_NAME, detail))]


@pytest.mark.parametrize("trouble", ["refuses", "is silent", "is lost"])
def test_a_hub_that_does_not_say_whether_it_has_the_agent_has_not(trouble):
    meta = open_meta()
    a, b = join(meta, "a"), join_base(meta, "b")
    meta.request(a, MetaRoute(envelope("x")))

    match trouble:
        case "refuses":
            effects = meta.receive(b, Failure(1, ErrorCode.REFUSED, "no"))
        case "is silent":
            assert meta.advance(4.9) == []
            effects = meta.advance(0.1)
        case _:
            effects = meta.lose(b)

    assert answers(effects, a) == [Failure(2, ErrorCode.AGENT_NOT_FOUND, NOT_FOUND)]


def test_a_hub_that_is_too_busy_to_be_asked_leaves_nobody_waiting():
    meta = open_meta(limits=Limits(calls_per_peer=1))
    a, b = join(meta, "a"), join_base(meta, "b")
    meta.request(a, MetaRoute(envelope("b/y")))

    busy = unlogged(meta.request(a, MetaRoute(envelope("x"))))
    meta.receive(b, Response(1, OK))
    free = meta.request(a, MetaRoute(envelope("x")))

    assert busy == [Send(a, Failure(3, ErrorCode.AGENT_NOT_FOUND, NOT_FOUND))]
    assert requests(free, b) == [Resolve("x")]


@pytest.mark.parametrize("how", ["cancelled", "gone"])
def test_a_message_whose_sender_no_longer_waits_is_not_sent_when_the_agent_is_found(how):
    meta = open_meta()
    a, b = join(meta, "a"), join_base(meta, "b")
    meta.request(a, MetaRoute(envelope("x")))

    _ = meta.notify(a, CancelRequest(2)) if how == "cancelled" else meta.lose(a)

    assert meta.receive(b, Response(1, Found(found=True))) == []


def test_a_hub_that_sends_bad_names_gets_one_clear_line():
    meta = open_meta()
    a = join(meta, "a")

    [failure] = sent(meta.request(a, Resolve("no such/name")))

    assert failure.code is ErrorCode.INVALID_REQUEST
    assert "hub name 'no such'" in failure.detail


# Resolving.


def test_whoever_resolves_a_name_learns_the_hub():
    meta = open_meta()
    a = join(meta, "a")
    join(meta, "b", "x")

    assert meta.request(a, Resolve("x")) == [Send(a, Response(2, Found(found=True, hub="b")))]


def test_a_name_nobody_has_resolves_to_nothing_with_and_without_hubs_of_the_base_dialect():
    meta = open_meta()
    a = join(meta, "a")

    assert meta.request(a, Resolve("x")) == [Send(a, Response(2, Found(found=False)))]
    b = join_base(meta, "b")
    meta.request(a, Resolve("x"))
    assert meta.receive(b, Response(1, Found(found=False))) == [Send(a, Response(3, Found(found=False)))]


def test_an_announcement_that_says_all_replaces_what_was_known():
    meta = open_meta()
    a, b = join(meta, "a"), join(meta, "b", "x", "y")
    meta.request(b, Announce((Announced("z", "1"),), whole=True))

    found = [meta.request(a, Resolve(name))[0].frame.result.found for name in "xyz"]

    assert found == [False, False, True]
    assert notices(meta.lose(b)) == []
