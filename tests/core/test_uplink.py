"""A hub joins a MetaHub, keeps in touch, and joins again."""

from __future__ import annotations

import pytest

from loopal_cluster.config import HubSettings, Limits
from loopal_cluster.core.effects import Disconnect, Joined, Log, Send
from loopal_cluster.core.events import AgentEnded, Closing, Link, NotReached, TokensGiven
from loopal_cluster.core.parties import PROTOCOL
from loopal_cluster.core.uplink import Absence
from loopal_cluster.errors import ErrorCode
from loopal_cluster.frames import Failure, Notification, Request, Response
from loopal_cluster.messages import (
    OK,
    Announce,
    Announced,
    Completed,
    Heartbeat,
    HubInfo,
    HubList,
    Leave,
    ListHubs,
    MetaComplete,
    MetaTopology,
    RegisterHub,
    Resolve,
    Role,
    Route,
    Status,
    Subscribe,
    UplinkInfo,
    Welcome,
)

from .builders import (
    answer_all,
    answers,
    attach,
    begin,
    call_of,
    come_up,
    envelope,
    for_remote,
    in_cluster,
    join_base_meta,
    join_meta,
    notices,
    open_hub,
    requests,
    start,
)

WELCOME = Welcome(protocol=PROTOCOL, cluster="c", heartbeat_interval=7.0)
ALL = Announce(whole=True)


# Joining.


def test_a_hub_registers_with_all_the_meta_hub_has_to_know():
    hub = open_hub(meta_token="meta", capabilities=("gpu",), labels={"zone": "eu"})

    up = hub.connect(Link.UPLINK)

    message = RegisterHub("here", "meta", ("gpu",), PROTOCOL, "here-1", {"zone": "eu"}, ("t",))
    assert hub.transcript[-1] == f"0   -> {Send(up, Request(1, message))}"


def test_a_hub_brings_the_first_of_the_tokens_that_it_was_given_last():
    hub = open_hub(meta_token="old")
    hub.handle(TokensGiven(("new", "newer")))

    hub.connect(Link.UPLINK)

    [call] = hub.core.exchange.calls
    assert call.message.token == "new"  # type: ignore[attr-defined]


def test_a_hub_that_is_welcome_has_joined_and_says_what_it_runs():
    hub = open_hub()
    begin(hub)
    up = hub.connect(Link.UPLINK)

    assert hub.receive(up, Response(1, WELCOME)) == [
        Joined(),
        Log("INFO", "joined the cluster as 'here'"),
        Send(up, Notification(Heartbeat("here", 1))),
        Send(up, Request(2, Announce((Announced("x", "id-1", "t"),), whole=True))),
    ]


@pytest.mark.parametrize(
    "code",
    [
        ErrorCode.UNAUTHORIZED,
        ErrorCode.NAME_TAKEN,
        ErrorCode.INVALID_REQUEST,
        ErrorCode.REFUSED,
        ErrorCode.OVERLOADED,
    ],
)
def test_a_refused_hub_hangs_up_and_knows_why_it_is_not_in_the_cluster(code):
    hub = open_hub()
    up = hub.connect(Link.UPLINK)

    reason = "the MetaHub refuses this hub: no"
    assert hub.receive(up, Failure(1, code, "no")) == [Disconnect(up, reason)]
    assert hub.lose(up) == []
    assert hub.core.uplink.absence == Absence(0.0, reason, code)


def test_an_answer_that_is_not_ok_is_a_refusal():
    hub = open_hub()
    up = hub.connect(Link.UPLINK)

    [effect] = hub.receive(up, Response(1, Welcome(ok=False)))

    assert effect == Disconnect(up, "the MetaHub refuses this hub: it did not say ok")
    assert hub.core.uplink.absence.refusal is ErrorCode.REFUSED


def test_a_meta_hub_that_does_not_answer_has_refused_nothing():
    hub = open_hub()
    up = hub.connect(Link.UPLINK)

    reason = "no answer to meta/register in time"
    assert hub.advance(10.0) == [Disconnect(up, reason)]
    assert hub.core.uplink.absence == Absence(10.0, reason)


def test_an_absence_begins_when_the_cluster_was_lost_and_has_the_newest_reason():
    hub = open_hub()
    before = hub.core.uplink.absence
    up = join_meta(hub)
    joined = hub.core.uplink.absence
    hub.advance(5.0)
    hub.lose(up, "reset")
    hub.advance(5.0)
    hub.handle(NotReached("cannot reach it"))
    lost = hub.core.uplink.absence
    join_meta(hub)

    assert (before, joined, hub.core.uplink.absence) == (None, None, None)
    assert lost == Absence(5.0, "cannot reach it")


def test_whoever_watches_a_hub_is_told_why_it_is_not_in_its_cluster_each_thing_once_and_when_it_is_back():
    hub = open_hub()
    watcher = attach(hub)
    hub.request(watcher, Subscribe())
    for _ in range(3):
        hub.handle(NotReached("cannot reach it"))
    for _ in range(2):
        up = hub.connect(Link.UPLINK)
        hub.receive(up, Failure(1, ErrorCode.UNAUTHORIZED, "invalid token"))
        hub.lose(up)
    join_meta(hub)

    told = [
        line.partition("payload=")[2]
        for line in hub.transcript
        if "-> Send" in line and "ClusterEvent" in line
    ]
    assert [line.partition(")")[0] for line in told] == [
        "MetaHubAway(reason='cannot reach it'",
        "MetaHubAway(reason='the MetaHub refuses this hub: invalid token'",
        "MetaHubBack(",
    ]


def test_a_hub_that_was_never_in_a_cluster_says_why_to_those_who_want_to_reach_another():
    hub = open_hub()
    client, up = attach(hub), hub.connect(Link.UPLINK)
    hub.receive(up, Failure(1, ErrorCode.UNAUTHORIZED, "invalid token"))

    [failure] = answers(hub.request(client, Route(envelope("there/z"))), client)

    assert failure.code is ErrorCode.NOT_IN_CLUSTER
    assert failure.detail.endswith("cluster: the MetaHub refuses this hub: invalid token")


@pytest.mark.parametrize("stage", ["registering", "probing", "joined"])
def test_a_connection_that_ends_may_be_dialled_again_whenever_it_ends(stage):
    hub = open_hub()
    up = hub.connect(Link.UPLINK)
    if stage == "probing":
        hub.receive(up, Response(1, Welcome()))
    if stage == "joined":
        hub.receive(up, Response(1, WELCOME))

    effects = hub.lose(up, "reset")

    assert effects == []
    assert hub.core.next_deadline() == (
        hub.core.settings.timeouts.lease_timeout if stage == "joined" else None
    )
    join_meta(hub)
    assert hub.core.uplink.joined


# A MetaHub of the base dialect.


def test_a_meta_hub_that_says_only_ok_is_probed_before_it_is_believed():
    hub = open_hub()
    up = hub.connect(Link.UPLINK)

    probe = hub.receive(up, Response(1, Welcome()))
    assert not hub.core.uplink.joined
    joined = hub.receive(up, Response(2, HubList((HubInfo("here", "Connected"),))))

    assert probe == [Send(up, Request(2, ListHubs()))]
    assert joined == [
        Joined(),
        Log("INFO", "joined the cluster as 'here' (base dialect)"),
        Send(up, Notification(Heartbeat("here", 0))),
    ]


@pytest.mark.parametrize("answer", [Response(2, HubList((HubInfo("b", "Connected"),))), None])
def test_a_meta_hub_that_does_not_list_us_has_refused_us(answer):
    hub = open_hub()
    up = hub.connect(Link.UPLINK)
    hub.receive(up, Response(1, Welcome()))

    effects = hub.receive(up, answer) if answer else hub.advance(10.0)

    reason = "the MetaHub refuses this hub: it said ok but does not list us: is the name 'here' taken?"
    assert effects == [Disconnect(up, reason)]
    assert hub.core.uplink.absence.refusal is ErrorCode.NAME_TAKEN


def test_a_meta_hub_that_does_not_list_us_any_more_may_still_have_our_old_connection():
    hub = open_hub()
    hub.lose(join_base_meta(hub))
    again = hub.connect(Link.UPLINK)
    hub.receive(again, Response(1, Welcome()))

    hub.receive(again, Response(2, HubList(())))

    assert hub.core.uplink.absence.refusal is None


# Leaving.


def test_a_hub_that_closes_says_goodbye_when_its_agents_have_ended_and_all_is_reported():
    hub, _, up = in_cluster()
    answer_all(hub, up, OK)
    for_remote(hub, up)

    closing = requests(hub.handle(Closing()), up)
    ended = requests(hub.handle(AgentEnded("s-1", "stopped")), up)
    answer_all(hub, up, OK)
    farewell = requests(hub.handle(AgentEnded("id-1", "stopped")), up)

    assert closing == []
    assert [type(message) for message in ended] == [MetaComplete]
    assert farewell == [Leave()]
    assert not hub.core.closed


@pytest.mark.parametrize("end", ["answered", "refused", "silent", "cut"])
def test_a_hub_has_left_when_its_goodbye_is_answered_or_never_will_be(end):
    hub = open_hub()
    up = join_meta(hub)
    hub.handle(Closing())
    assert not hub.core.closed

    match end:
        case "answered":
            hub.receive(up, Response(call_of(hub, Leave), OK))
        case "refused":
            hub.receive(up, Failure(call_of(hub, Leave), ErrorCode.OVERLOADED, "no"))
        case "silent":
            hub.advance(hub.core.settings.timeouts.rejoin_timeout)
        case "cut":
            assert hub.lose(up) == []

    assert hub.core.closed


@pytest.mark.parametrize("uplink", ["none", "base", "lost", "too busy"])
def test_a_hub_that_cannot_say_goodbye_goes_without(uplink):
    hub = open_hub(limits=Limits(calls_per_peer=1))
    if uplink == "base":
        join_base_meta(hub)
    if uplink == "lost":
        hub.lose(join_meta(hub))
    if uplink == "too busy":
        join_meta(hub)
        hub.request(attach(hub), Route(envelope("there/z")))

    assert hub.handle(Closing()) == []
    assert hub.core.closed


def test_a_hub_says_goodbye_once():
    hub = open_hub()
    up = join_meta(hub)

    hub.handle(Closing())

    assert requests(hub.handle(Closing()), up) == []


# Heartbeats.


def test_heartbeats_are_sent_as_often_as_the_meta_hub_wants_and_each_with_something_to_answer():
    hub = open_hub()
    up = hub.connect(Link.UPLINK)
    hub.receive(up, Response(1, WELCOME))
    answer_all(hub, up, OK)

    for request_id in range(3, 13):
        assert hub.advance(6.9) == []
        assert hub.advance(0.1) == [
            Send(up, Notification(Heartbeat("here", 0))),
            Send(up, Request(request_id, Announce())),
        ]
        answer_all(hub, up, OK)


@pytest.mark.parametrize(
    ("wanted", "kept"), [(-1.0, 0.1), (-1e308, 0.1), (1e-300, 0.1), (0.1, 0.1), (90.0, 90.0), (1e308, 90.0)]
)
def test_no_meta_hub_makes_a_hub_beat_without_end_or_never(wanted, kept):
    hub = open_hub()
    up = hub.connect(Link.UPLINK)

    hub.receive(up, Response(1, Welcome(protocol=PROTOCOL, cluster="c", heartbeat_interval=wanted)))
    hub.receive(up, Response(2, OK))

    assert hub.core.next_deadline() == pytest.approx(kept)


def test_a_meta_hub_that_does_not_say_gets_a_heartbeat_every_15_seconds():
    hub = open_hub()
    up = join_base_meta(hub)

    assert [len(hub.advance(seconds)) for seconds in (14.9, 0.1, 150.0)] == [0, 1, 10]
    assert notices(hub.lose(up)) == []
    assert hub.advance(100.0) == []


# Announcing.


def test_agents_are_announced_as_they_come_and_go():
    hub = open_hub()
    up = join_meta(hub)
    client = attach(hub)
    agent_id = start(hub, "x", client)
    come_up(hub, agent_id)
    peer = hub._last_peer

    announced = hub.transcript[-2:]
    answer_all(hub, up, OK)
    gone = hub.notify(peer, Completed())  # type: ignore[arg-type]

    assert any(repr(Announce((Announced("x", "id-1", "t"),))) in line for line in announced)
    assert requests(gone, up) == [Announce(ended=("x",))]


def test_one_announcement_at_a_time_and_the_next_says_all_that_changed_meanwhile():
    hub = open_hub()
    up = join_meta(hub)
    x = begin(hub, "x")
    begin(hub, "y")
    hub.notify(x, Completed())

    [call] = [call for call in hub.core.exchange.calls if call.peer == up]
    effects = hub.receive(up, Response(call.id, OK))

    assert call.message == Announce((Announced("x", "id-1", "t"),))
    assert requests(effects, up) == [Announce((Announced("y", "id-2", "t"),), ended=("x",))]


def test_a_failed_announcement_is_followed_by_all_at_the_next_heartbeat():
    hub = open_hub()
    up = hub.connect(Link.UPLINK)
    hub.receive(up, Response(1, WELCOME))

    assert hub.receive(up, Failure(2, ErrorCode.OVERLOADED, "busy")) == []
    assert requests(hub.advance(7.0), up) == [ALL]


def test_an_announcement_that_cannot_be_sent_harms_nobody_and_is_made_up_for():
    hub = open_hub(limits=Limits(calls_per_peer=1))
    up = join_meta(hub)
    client = attach(hub)
    hub.request(client, Route(envelope("there/z")))

    begin(hub, "x", client)
    answer_all(hub, up, OK)

    x = Announced("x", "id-1", "t", up_ms=15_000)
    assert requests(hub.advance(15.0), up) == [Announce((x,), whole=True)]


def test_only_what_is_up_is_announced():
    hub = open_hub()
    start(hub, "x")
    up = hub.connect(Link.UPLINK)

    assert requests(hub.receive(up, Response(1, WELCOME)), up) == [ALL]


def test_a_hub_that_joins_again_says_all_again():
    hub = open_hub()
    begin(hub)
    hub.lose(join_meta(hub))

    up = hub.connect(Link.UPLINK)
    effects = hub.receive(up, Response(1, WELCOME))

    assert requests(effects, up) == [Announce((Announced("x", "id-1", "t"),), whole=True)]


def test_an_external_agent_is_announced():
    hub = open_hub()
    join_meta(hub)
    attach(hub, "x", Role.AGENT)

    assert "Announced(name='x', id='id-1', type='external'" in "\n".join(hub.transcript)


def test_tokens_are_never_in_a_transcript():
    settings = HubSettings("here", "1", token="secret-1", meta_token="secret-2")
    hub = open_hub(meta_token="secret-2")
    hub.connect(Link.UPLINK)

    assert "secret" not in "\n".join([*hub.transcript, repr(settings)])


@pytest.mark.parametrize("message", [ListHubs(), MetaTopology(), Resolve("x")])
@pytest.mark.parametrize("asked", [-0.1, 0.0, 0.4, 0.9, 100.0])
def test_whoever_looks_at_the_cluster_waits_for_a_meta_hub_that_is_away_only_a_moment(message, asked):
    hub = open_hub()
    client, up = attach(hub), join_meta(hub)
    effects = [] if asked >= 0 else hub.request(client, message)
    effects += hub.lose(up)
    hub.advance(max(asked, 0.0))
    effects += hub.request(client, message) if asked >= 0 else []
    effects += hub.advance(0.9)

    [failure] = answers(effects, client)

    since = f"{max(0.8, asked):.0f}"
    assert failure.code is ErrorCode.NOT_IN_CLUSTER
    assert (
        failure.detail
        == f"the MetaHub is away for {since} s (connection lost: gone); this hub dials it again"
    )


@pytest.mark.parametrize("message", [ListHubs(), MetaTopology(), Resolve("x")])
def test_whoever_looked_when_a_connection_broke_has_as_long_as_ever_on_the_next(message):
    hub = open_hub()
    client, up = attach(hub), join_meta(hub)
    hub.request(client, message)
    hub.lose(up)
    hub.advance(0.5)
    hub.receive(again := hub.connect(Link.UPLINK), Response(1, WELCOME))

    assert answers(hub.advance(20.0), client) == []
    assert type(call_of(hub, type(message))) is int
    assert again != up


def test_a_hub_whose_meta_hub_has_not_answered_yet_is_not_alone():
    hub = open_hub(meta_hub="host:9900")
    ann = attach(hub)

    [status] = answers(hub.request(ann, Status()), ann)
    [looked] = answers(hub.request(ann, ListHubs()), ann)
    [asked] = answers(hub.request(ann, Route(envelope("y"))), ann)

    reason = "host:9900 has not answered yet"
    assert status.result.uplink == UplinkInfo(False, "here", reason=reason)
    assert {(failure.code, failure.detail) for failure in (looked, asked)} == {
        (ErrorCode.NOT_IN_CLUSTER, f"not connected to MetaHub cluster: {reason}")
    }


def test_the_status_says_since_when_and_why_the_meta_hub_is_away():
    hub = open_hub()
    client, up = attach(hub), join_meta(hub)
    hub.advance(10.0)
    hub.lose(up)
    hub.advance(10.0)

    [answer] = answers(hub.request(client, Status()), client)

    assert answer.result.uplink == UplinkInfo(False, "here", since=10.0, reason="connection lost: gone")
