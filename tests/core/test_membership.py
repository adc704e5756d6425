"""Hubs come, go quiet, go away and come back; a MetaHub knows which is which."""

from __future__ import annotations

from typing import Any

import pytest

from loopal_cluster.address import Address
from loopal_cluster.config import Limits, Timeouts
from loopal_cluster.core.effects import Disconnect, Effect, Log, Send
from loopal_cluster.core.events import Peer, PeerConnected, TokensGiven
from loopal_cluster.core.parties import PROTOCOL
from loopal_cluster.errors import ErrorCode
from loopal_cluster.frames import Failure, Notification, Request, Response
from loopal_cluster.messages import (
    OK,
    AgentInfo,
    CancelAgent,
    CancelRequest,
    ClusterEvent,
    Found,
    Heartbeat,
    HubInfo,
    HubList,
    HubLost,
    Leave,
    ListHubs,
    Protocol,
    Register,
    RegisterHub,
    Resolve,
    Role,
    Status,
    Subscribe,
    WaitAgent,
    Waited,
    Welcome,
)
from loopal_cluster.outcomes import Lost
from loopal_cluster.payloads import HubAway, HubGone, HubJoined, HubSuspect
from loopal_cluster.testing import CoreDriver, sent

from .builders import TOKEN, answer_all, answers, attach, join, join_base, notices, open_meta, unlogged


def refusal(driver: CoreDriver, message, peer: Peer | None = None) -> Failure:
    """How a registration is refused."""
    peer = driver.connect() if peer is None else peer
    [failure] = sent(driver.request(peer, message), peer)
    assert isinstance(failure, Failure)
    return failure


def statuses(meta: CoreDriver) -> dict[str, str]:
    """What ``meta/list_hubs`` says."""
    client = attach(meta)
    [answer] = answers(meta.request(client, ListHubs()), client)
    meta.lose(client)
    return {hub.name: hub.status for hub in answer.result.hubs}


# Joining.


def test_a_hub_that_registers_is_welcomed_with_all_it_has_to_know():
    meta = open_meta()
    hub = meta.connect()

    effects = meta.request(hub, RegisterHub("a", TOKEN, ("gpu",), PROTOCOL, "a-1"))

    limits, timeouts = Limits(), Timeouts()
    assert unlogged(effects) == [
        Send(
            hub,
            Response(
                1,
                Welcome(
                    name="a",
                    kind="meta_hub",
                    protocol=PROTOCOL,
                    cluster="c",
                    heartbeat_interval=timeouts.heartbeat_interval,
                    line_bytes=limits.line_bytes,
                ),
            ),
        )
    ]


def test_a_hub_of_the_base_dialect_gets_a_plain_ok():
    meta = open_meta()
    hub = meta.connect()

    assert unlogged(meta.request(hub, RegisterHub("a", TOKEN))) == [Send(hub, Response(1, Welcome()))]


def test_both_sides_speak_only_what_both_know():
    meta = open_meta()
    hub = meta.connect()

    later = Protocol(7, ("teleport", "complete"))
    [welcome] = sent(meta.request(hub, RegisterHub("a", TOKEN, protocol=later)))

    assert welcome.result.protocol == Protocol(1, ("complete",))


def test_the_agents_of_all_hubs_are_a_number_that_travels_whatever_hubs_say():
    meta = open_meta()
    for name in "abc":
        meta.notify(join_base(meta, name), Heartbeat(name, agent_count=2**63 - 1))
    client = meta.connect()
    meta.request(client, Register("x", TOKEN, Role.CLIENT, PROTOCOL))

    [answer] = sent(meta.request(client, Status()))

    assert answer.result.agent_count == 3 * (2**31 - 1)


def test_the_hubs_are_listed_with_what_they_said_of_themselves():
    meta = open_meta()
    hub = join(meta, "a", capabilities=("gpu",), labels={"zone": "eu"}, agent_types=("t",))
    join_base(meta, "b")
    meta.notify(hub, Heartbeat("whatever", agent_count=3))

    assert unlogged(meta.request(hub, ListHubs())) == [
        Send(
            hub,
            Response(
                2,
                HubList(
                    (
                        HubInfo("a", "Connected", 3, ("gpu",), {"zone": "eu"}, ("t",), 1),
                        HubInfo("b", "Connected"),
                    )
                ),
            ),
        )
    ]


# Refusals.


@pytest.mark.parametrize("message", [RegisterHub("a", "wrong"), RegisterHub("a"), Register("a", "wrong")])
def test_a_wrong_token_is_refused_and_the_connection_ended(message):
    meta = open_meta()
    peer = meta.connect()

    assert meta.request(peer, message) == [
        Send(peer, Failure(1, ErrorCode.UNAUTHORIZED, "invalid token")),
        Disconnect(peer, "invalid token", wrong_token=True),
    ]
    assert meta.request(peer, RegisterHub("a", TOKEN)) == []


def test_a_token_is_never_in_a_transcript():
    meta = open_meta()
    join(meta, "a")

    assert TOKEN not in "\n".join(meta.transcript)


@pytest.mark.parametrize("name", ["", "a/b", 'a"b', "a b", "é", "x" * 65])
def test_a_bad_hub_name_is_refused(name):
    failure = refusal(open_meta(), RegisterHub(name, TOKEN))

    assert failure.code is ErrorCode.INVALID_REQUEST
    assert failure.detail == f"hub name {name!r} is not 1 to 64 of A-Z a-z 0-9 . _ -"


def test_a_protocol_that_is_not_served_is_refused_naming_both_versions():
    failure = refusal(open_meta(), RegisterHub("a", TOKEN, protocol=Protocol(0)))

    detail = "protocol version 0 is not served here, only 1"
    assert failure == Failure(1, ErrorCode.INVALID_REQUEST, detail)


def test_a_request_before_registering_is_refused_and_the_connection_stays():
    meta = open_meta()
    peer = meta.connect()

    failure = refusal(meta, Status(), peer)

    assert failure == Failure(1, ErrorCode.NOT_REGISTERED, "expected meta/register first")
    assert isinstance(sent(meta.request(peer, RegisterHub("a", TOKEN)))[0], Response)


def test_a_second_register_is_refused_and_changes_nothing():
    meta = open_meta()
    hub = join(meta, "a")

    failure = refusal(meta, RegisterHub("b", TOKEN), hub)

    assert failure == Failure(2, ErrorCode.METHOD_NOT_FOUND, "unknown meta method: meta/register")
    assert statuses(meta) == {"a": "Connected"}


def test_an_agent_cannot_register_with_a_meta_hub():
    failure = refusal(open_meta(), Register("a", TOKEN, Role.AGENT))

    assert failure == Failure(1, ErrorCode.INVALID_REQUEST, "a MetaHub has no agents; register with a hub")


def test_there_is_a_limit_to_hubs():
    meta = open_meta(limits=Limits(hubs=1))
    join(meta, "a")

    failure = refusal(meta, RegisterHub("b", TOKEN))

    assert failure == Failure(1, ErrorCode.OVERLOADED, "this MetaHub has 1 hubs already")


def test_a_connection_that_does_not_register_is_ended_in_time():
    meta = open_meta()
    peer = meta.connect()

    assert meta.advance(9.9) == []
    assert meta.advance(0.1) == [Disconnect(peer, "it did not register in time")]


def test_a_refused_registration_does_not_buy_time():
    meta = open_meta()
    peer = meta.connect()
    refusal(meta, RegisterHub("a b", TOKEN), peer)

    assert meta.advance(10.0) == [Disconnect(peer, "it did not register in time")]


# Health.


def test_a_silent_hub_is_suspect_after_30_seconds_and_lost_after_90():
    meta = open_meta()
    hub = join(meta, "a")

    assert unlogged(meta.advance(29.9)) == []
    assert statuses(meta) == {"a": "Connected"}
    assert unlogged(meta.advance(0.1)) == []
    assert statuses(meta) == {"a": "Degraded"}
    assert unlogged(meta.advance(59.9)) == []
    assert statuses(meta) == {"a": "Degraded"}
    assert unlogged(meta.advance(0.1)) == [Disconnect(hub, "silent for 90 s")]
    assert statuses(meta) == {}


@pytest.mark.parametrize(
    ("joined_at", "silence", "status"), [(25.446, 30.0, "Degraded"), (74.26, 90.0, None)]
)
def test_a_rounded_difference_does_not_keep_the_meta_hub_from_seeing_silence(joined_at, silence, status):
    meta = open_meta()
    meta.now = joined_at
    join(meta, "a")
    assert (joined_at + silence) - joined_at < silence, "the example is one of rounding"

    meta.advance(silence)

    assert statuses(meta).get("a") == status


def test_a_hub_that_sends_heartbeats_stays_alive():
    meta = open_meta()
    hub = join(meta, "a")

    for _ in range(100):
        assert meta.advance(15.0) == []
        meta.notify(hub, Heartbeat("a"))

    assert statuses(meta) == {"a": "Connected"}


@pytest.mark.parametrize(
    "frame",
    [
        Notification(Heartbeat("a")),
        Request(9, ListHubs()),
        Response(9, None),
        Failure(9, ErrorCode.REFUSED, "no"),
        Notification(Status()),
    ],
)
def test_any_sign_of_life_revives_a_suspect_hub(frame):
    meta = open_meta()
    hub = join(meta, "a")
    meta.advance(40.0)
    assert statuses(meta) == {"a": "Degraded"}

    meta.receive(hub, frame)

    assert statuses(meta) == {"a": "Connected"}


def test_a_revived_hub_has_its_full_time_again():
    meta = open_meta()
    hub = join(meta, "a")
    meta.advance(40.0)
    meta.notify(hub, Heartbeat("a"))

    meta.advance(29.9)
    assert statuses(meta) == {"a": "Connected"}
    meta.advance(0.1)
    assert statuses(meta) == {"a": "Degraded"}
    meta.advance(59.9)
    assert statuses(meta) == {"a": "Degraded"}
    meta.advance(0.1)
    assert statuses(meta) == {}


def test_the_thresholds_can_be_set():
    meta = open_meta(Timeouts(heartbeat_interval=1, suspect_timeout=2, lost_timeout=3))
    join(meta, "a")

    meta.advance(2.0)
    assert statuses(meta) == {"a": "Degraded"}
    meta.advance(1.0)
    assert statuses(meta) == {}


# Away and back.


def test_a_hub_whose_connection_ended_keeps_its_place_for_a_moment():
    meta = open_meta()
    hub = join(meta, "a")

    meta.lose(hub)

    assert statuses(meta) == {"a": "Disconnected"}
    meta.advance(0.79)
    assert statuses(meta) == {"a": "Disconnected"}
    meta.advance(0.02)
    assert statuses(meta) == {}


def test_a_hub_of_the_base_dialect_is_lost_with_its_connection_because_it_does_not_redial():
    meta = open_meta()
    hub = join_base(meta, "a")

    meta.lose(hub)

    assert statuses(meta) == {}


def test_the_same_instance_returning_is_a_reconnect():
    meta = open_meta()
    other = join(meta, "b")
    meta.lose(join(meta, "a", "x", instance="1"))

    peer = meta.connect()
    effects = meta.request(peer, RegisterHub("a", TOKEN, protocol=PROTOCOL, instance="1"))

    assert [type(frame) for frame in sent(effects)] == [Response]
    assert statuses(meta) == {"b": "Connected", "a": "Connected"}
    assert meta.core.directory.hubs_of("x") == ["a"]
    meta.advance(1.0)
    assert statuses(meta) == {"b": "Connected", "a": "Connected"}
    assert sent(meta.advance(5.0), other) == []


def test_the_same_instance_returning_before_its_old_connection_ended_takes_over():
    meta = open_meta()
    old = join(meta, "a", instance="1")

    new = meta.connect()
    effects = unlogged(meta.request(new, RegisterHub("a", TOKEN, protocol=PROTOCOL, instance="1")))

    assert effects[0] == Disconnect(old, "the hub has connected again")
    assert isinstance(effects[1].frame, Response)
    assert unlogged(meta.lose(old)) == []
    assert statuses(meta) == {"a": "Connected"}


def test_what_the_old_connection_of_a_returned_hub_still_says_is_ignored():
    meta = open_meta()
    old = join(meta, "a", instance="1")
    join(meta, "a", instance="1")

    assert meta.request(old, ListHubs()) == []


# A name that another hub wants.

TAKEN = (ErrorCode.NAME_TAKEN, "hub name 'a' is taken by a live hub")


def claim(meta: CoreDriver, **fields) -> tuple[Peer, list[Effect]]:
    """Let another hub come with the name ``a``; its connection, and what the MetaHub does at once."""
    peer = meta.connect()
    known: dict[str, Any] = {"instance": "2", "protocol": PROTOCOL} | fields
    return peer, meta.request(peer, RegisterHub("a", TOKEN, **known))


def said_to(effects: list[Effect], peer: Peer) -> list[object]:
    """What a claimant is answered: a code and its detail, or the class of what says yes."""
    frames = [frame for frame in sent(effects, peer) if isinstance(frame, Response | Failure)]
    return [(f.code, f.detail) if isinstance(f, Failure) else type(f.result) for f in frames]


BASE = {"instance": None, "protocol": None}


@pytest.mark.parametrize(
    ("old", "silent"), [({"instance": "1"}, 0.0), ({"instance": "1"}, 40.0), (BASE, 40.0)]
)
@pytest.mark.parametrize("new", [{"instance": "2"}, BASE])
@pytest.mark.parametrize("answer", [Found(found=False), None])
def test_a_hub_that_answers_keeps_its_name(old, new, answer, silent):
    meta = open_meta()
    a = join(meta, "a", **old)
    meta.advance(silent)
    other, at_once = claim(meta, **new)
    [probe] = [frame for frame in sent(at_once, a) if isinstance(frame, Request)]

    no = Failure(probe.id, ErrorCode.METHOD_NOT_FOUND, "what?")
    effects = meta.receive(a, no if answer is None else Response(probe.id, answer))

    assert probe.message == Resolve("a")
    assert said_to(at_once, other) == []
    assert said_to(effects, other) == [TAKEN]
    assert statuses(meta) == {"a": "Connected"}


def test_a_base_hub_keeps_its_name_by_its_heartbeats_for_it_may_be_long_at_something():
    meta = open_meta()
    join_base(meta, "a")

    _, effects = claim(meta)

    assert [effect.frame.code for effect in effects if isinstance(effect, Send)] == [ErrorCode.NAME_TAKEN]


def test_a_hub_that_says_anything_keeps_its_name_even_if_it_does_not_answer():
    meta = open_meta()
    a = join(meta, "a", instance="1")
    other, _ = claim(meta)
    meta.advance(4.0)
    meta.notify(a, Heartbeat("a", 0))

    assert said_to(meta.advance(1.0), other) == [TAKEN]
    assert statuses(meta) == {"a": "Connected"}


def test_a_hub_that_says_nothing_gives_way_to_another_one_that_wants_its_name():
    meta = open_meta()
    watcher = join(meta, "b")
    old = join(meta, "a", "x", instance="1")
    new, _ = claim(meta)

    early = meta.advance(4.9)
    effects = meta.advance(0.1)

    reason = "it has not answered for 5.0 s, and another hub has come with its name"
    assert said_to(early, new) == []
    assert said_to(effects, new) == [Welcome]
    assert Disconnect(old, reason) in effects
    assert HubLost("a", reason) in [frame.message for frame in sent(effects, watcher)]
    assert meta.core.directory.hubs_of("x") == []
    assert statuses(meta) == {"b": "Connected", "a": "Connected"}


def test_the_place_of_a_hub_that_is_away_is_kept_for_it_whoever_wants_its_name():
    meta = open_meta()
    meta.lose(join(meta, "a", instance="1"))
    other, _ = claim(meta)
    meta.advance(0.7)

    back = meta.connect()
    effects = meta.request(back, RegisterHub("a", TOKEN, protocol=PROTOCOL, instance="1"))

    assert said_to(effects, other) == [TAKEN]
    assert said_to(effects, back) == [Welcome]


def test_a_hub_whose_connection_ends_while_another_one_wants_its_name_has_the_time_that_its_place_is_kept():
    meta = open_meta()
    old = join(meta, "a", instance="1")
    other, _ = claim(meta)
    meta.lose(old)

    waits = meta.advance(0.5)
    effects = meta.advance(0.5)

    assert said_to(waits, other) == []
    assert said_to(effects, other) == [Welcome]


def test_another_instance_takes_the_place_of_one_that_does_not_come_back():
    meta = open_meta()
    other = join(meta, "b")
    meta.lose(join(meta, "a", "x", instance="1"))
    new, _ = claim(meta)

    effects = meta.advance(0.8)

    lost = HubLost("a", "its connection ended and it did not come back")
    assert sent(effects, other) == [Request(1, lost)]
    assert said_to(effects, new) == [Welcome]
    assert meta.core.directory.hubs_of("x") == []
    assert unlogged(meta.advance(5.0)) == []
    assert statuses(meta) == {"b": "Connected", "a": "Connected"}


def test_of_two_that_want_a_name_the_first_gets_it_and_the_second_is_refused_when_that_one_lives():
    meta = open_meta()
    join(meta, "a", instance="1")
    first, _ = claim(meta, instance="2")
    second, _ = claim(meta, instance="3")

    effects = meta.advance(5.0)
    [probe] = [f for f in sent(effects, first) if isinstance(f, Request) and f.message == Resolve("a")]
    answered = meta.receive(first, Response(probe.id, Found(found=False)))

    assert said_to(effects, first) == [Welcome]
    assert said_to(effects, second) == []
    assert said_to(answered, second) == [TAKEN]


def test_a_hub_that_no_longer_waits_for_a_name_does_not_get_it():
    meta = open_meta()
    join(meta, "a", instance="1")
    gone, _ = claim(meta)
    cancelled, _ = claim(meta)
    meta.lose(gone)
    meta.notify(cancelled, CancelRequest(1))

    meta.advance(5.0)

    assert statuses(meta) == {}


def test_whoever_waits_for_a_name_registers_as_nothing_else_meanwhile():
    meta = open_meta()
    join(meta, "a", instance="1")
    new, _ = claim(meta)

    effects = meta.request(new, Register("ann", TOKEN, Role.CLIENT, PROTOCOL))

    assert said_to(effects, new) == [(ErrorCode.INVALID_REQUEST, "it waits for a hub name already")]


def test_a_name_has_no_more_than_16_that_wait_for_it():
    meta = open_meta()
    join(meta, "a", instance="1")

    refused = [said_to(effects, peer) for peer, effects in (claim(meta) for _ in range(17))]

    assert refused == [[]] * 16 + [[(ErrorCode.NAME_TAKEN, "hub name 'a' is wanted by 16 others")]]


def test_a_hub_that_leaves_makes_room_at_once_for_who_wants_its_name():
    meta = open_meta()
    old = join(meta, "a", instance="1")
    new, _ = claim(meta)

    assert said_to(meta.request(old, Leave()), new) == [Welcome]


# What was refused.


def logged(effects: list[Effect]) -> list[str]:
    return [effect.text for effect in effects if isinstance(effect, Log) and effect.level == "WARNING"]


def test_what_was_refused_is_in_the_log_with_address_and_reason_each_thing_once_a_minute():
    meta = open_meta()

    def try_to_join(source: str) -> list[str]:
        peer = meta.new_peer()
        meta.handle(PeerConnected(peer, source=source))
        return logged(meta.request(peer, RegisterHub("a b", TOKEN)))

    said = [line for source in ("192.0.2.1", "192.0.2.1", "192.0.2.2", "") for line in try_to_join(source)]
    meta.advance(60.0)
    said += try_to_join("192.0.2.1")

    assert [line.partition(": ")[0] for line in said] == [
        "refused a registration from 192.0.2.1",
        "refused a registration from 192.0.2.2",
        "refused a registration from this process",
        "refused a registration from 192.0.2.1",
    ]
    assert "'a b'" in said[0]
    assert said[-1].endswith(" (1 times more since the last line)")


# Tokens.


def test_a_meta_hub_takes_each_of_its_tokens_and_no_other():
    meta = open_meta()
    meta.handle(TokensGiven(("new", "newer")))

    for token in ("new", "newer"):
        join(meta, f"hub-{token}", token=token)
    assert refusal(meta, RegisterHub("a", TOKEN)).code is ErrorCode.UNAUTHORIZED
    assert "newer" not in repr(TokensGiven(("newer",)))


# Losing.


def test_every_other_hub_of_ours_is_told_of_a_loss():
    meta = open_meta()
    others = [join(meta, name) for name in ("b", "c")]
    join_base(meta, "d")
    meta.lose(join(meta, "a"))

    effects = unlogged(meta.advance(0.8))

    lost = HubLost("a", "its connection ended and it did not come back")
    assert effects == [Send(peer, Request(1, lost)) for peer in others]
    for peer in others:
        answer_all(meta, peer)
    assert len(meta.core.exchange.calls) == 0


def test_a_hub_that_leaves_is_gone_at_once_and_every_other_hub_of_ours_is_told():
    meta = open_meta()
    other, hub = join(meta, "b"), join(meta, "a", "x")

    effects = meta.request(hub, Leave())

    assert effects == [
        Send(hub, Response(3, OK)),
        Disconnect(hub, "it has left"),
        Log("INFO", "hub 'a' has left"),
        Send(other, Request(1, HubLost("a", "it has left"))),
    ]
    assert statuses(meta) == {"b": "Connected"}
    assert meta.core.directory.hubs_of("x") == []
    assert unlogged(meta.lose(hub)) == []


def test_the_name_of_a_hub_that_has_left_is_free_even_while_its_connection_is_not_closed():
    meta = open_meta()
    old = join(meta, "a")
    meta.request(old, Leave())

    join(meta, "a", instance="2")
    meta.lose(old)

    assert statuses(meta) == {"a": "Connected"}


def test_what_a_hub_has_not_answered_when_it_leaves_fails_at_once():
    meta = open_meta()
    asker, hub = join(meta, "b"), join(meta, "a")
    meta.request(asker, AgentInfo(Address("x", "a")))

    [failure] = answers(meta.request(hub, Leave()), asker)

    assert (failure.code, failure.detail) == (ErrorCode.CONNECTION_LOST, "hub 'a' is gone: it has left")


@pytest.mark.parametrize("message", [WaitAgent(Address("x", "a")), CancelAgent(Address("x", "a"))])
def test_whoever_waits_for_an_agent_of_a_hub_that_is_gone_learns_that_it_is_lost(message):
    meta = open_meta()
    client, hub = attach(meta), join(meta, "a")
    meta.request(client, message)

    [answer] = answers(meta.request(hub, Leave()), client)

    reason = "hub 'a' is gone: it has left"
    assert answer.result == Waited(reason, agent="a/x", outcome=Lost(reason))


@pytest.mark.parametrize(("agent_id", "code"), [("x-id", None), ("other", ErrorCode.CONNECTION_LOST)])
def test_of_an_identity_that_a_hub_that_is_gone_has_not_announced_nobody_says_that_it_is_lost(agent_id, code):
    meta = open_meta()
    client, hub = attach(meta), join(meta, "a", "x")
    meta.request(client, WaitAgent(Address("x", "a"), agent_id))

    [answer] = answers(meta.request(hub, Leave()), client)

    assert getattr(answer, "code", None) is code


def test_watchers_see_that_a_hub_has_left():
    meta = open_meta()
    hub, watcher = join(meta, "a"), attach(meta, role=Role.OBSERVER)
    meta.request(watcher, Subscribe())

    [event] = notices(meta.request(hub, Leave()), watcher)

    assert event == ClusterEvent(2, 0.0, "a", None, HubGone("a", "it has left"))


@pytest.mark.parametrize("role", [Role.CLIENT, Role.OPERATOR])
def test_only_a_hub_can_leave(role):
    meta = open_meta()
    join(meta, "a")

    [failure] = answers(meta.request(attach(meta, "a", role), Leave()))

    assert failure.code is ErrorCode.METHOD_NOT_FOUND
    assert statuses(meta) == {"a": "Connected"}


def test_a_hub_that_does_not_take_the_news_is_logged_and_kept():
    meta = open_meta()
    join(meta, "b")
    meta.lose(join(meta, "a"))
    meta.advance(0.8)

    effects = meta.advance(30.0)

    assert Log("WARNING", "hub 'b' did not take the news: no answer to hub/hub_lost in time") in effects
    assert "b" in statuses(meta)


def test_many_hubs_that_are_lost_at_once_are_a_line_each_in_the_log():
    meta = open_meta()
    for hub in [join(meta, f"h{number}") for number in range(20)]:
        meta.lose(hub)

    effects = meta.advance(100.0)

    lines = [effect.text for effect in effects if isinstance(effect, Log)]
    assert lines == [
        f"hub 'h{number}' was lost: its connection ended and it did not come back" for number in range(20)
    ]


def test_calls_to_a_hub_that_is_gone_fail_at_once():
    meta = open_meta()
    asker, base = join(meta, "a"), join_base(meta, "b")
    meta.request(asker, Resolve("x"))

    effects = meta.lose(base, "reset")

    assert answers(effects, asker)[0].result.found is False


def test_what_happens_to_hubs_is_told_to_those_who_watch():
    meta = open_meta()
    watcher = attach(meta, role=Role.OBSERVER)
    meta.request(watcher, Subscribe())

    hub = join(meta, "a")
    meta.advance(30.0)
    meta.notify(hub, Heartbeat("a"))
    meta.lose(hub, "reset")
    meta.advance(0.8)

    payloads = [HubJoined("a"), HubSuspect("a"), HubAway("a", "reset")]
    payloads.append(HubGone("a", "its connection ended and it did not come back"))
    expected = [
        ClusterEvent(seq, at, "a", None, payload)
        for seq, at, payload in zip((1, 2, 3, 4), (0.0, 30.0, 30.0, 30.8), payloads, strict=True)
    ]
    events = [line.partition("message=")[2] for line in meta.transcript if "ClusterEvent(" in line]
    assert events == [f"{event}))" for event in expected]
    assert notices(meta.lose(watcher)) == []
