"""Hubs that have not heard of each other for a while: what they find out, and what they give up unasked."""

from __future__ import annotations

import pytest

from loopal_cluster.address import Address
from loopal_cluster.core.effects import Disconnect, Effect, Send
from loopal_cluster.core.events import AgentEnded, AgentNotStarted, Link, Peer
from loopal_cluster.core.parties import PROTOCOL
from loopal_cluster.errors import ErrorCode
from loopal_cluster.frames import Failure, Response
from loopal_cluster.messages import (
    OK,
    Announce,
    CancelAgent,
    Completed,
    HubReconcile,
    Interrupt,
    MetaComplete,
    MetaReconcile,
    MetaSpawn,
    Protocol,
    Reconciled,
    Shutdown,
    SpawnAgent,
    Spawned,
    SpawnSpec,
    WaitAgent,
    Welcome,
)
from loopal_cluster.outcomes import Done, Lost
from loopal_cluster.testing import CoreDriver, sent

from .builders import (
    answer_all,
    answers,
    attach,
    begin,
    call_of,
    for_remote,
    in_cluster,
    join,
    join_base,
    notices,
    open_hub,
    open_meta,
    requests,
    unlogged,
    with_shadow,
)

THERE = Address("y", "there")


def rejoin(hub: CoreDriver, up: Peer | None = None, cluster: str = "c") -> tuple[Peer, list[Effect]]:
    """Let a hub join, after it has lost the uplink it had; the new one, and what it does then."""
    if up is not None:
        hub.lose(up)
    again = hub.connect(Link.UPLINK)
    return again, hub.receive(again, Response(1, Welcome(protocol=PROTOCOL, cluster=cluster)))


def compared(effects: list[Effect]) -> list[MetaReconcile]:
    """The comparisons among some effects."""
    return [message for message in requests(effects) if isinstance(message, MetaReconcile)]


def heartbeats(hub: CoreDriver, up: Peer, count: int) -> None:
    """Let time pass, with a MetaHub that hears."""
    for _ in range(count):
        hub.advance(15.0)
        hub.receive(up, Response(call_of(hub, Announce), OK))


# Asking.


def test_a_hub_that_joins_again_compares_with_each_hub_that_runs_for_it_or_for_which_it_runs():
    hub, x, up = with_shadow()
    for_remote(hub, up)
    hub.request(x, SpawnAgent(SpawnSpec("z", target_hub="elsewhere")))
    hub.receive(up, Response(call_of(hub, MetaSpawn), Spawned("id-3", "z")))

    _, effects = rejoin(hub, up)

    assert compared(effects) == [
        MetaReconcile("elsewhere", owns=("id-3",)),
        MetaReconcile("there", runs=("s-1",), owns=("id-2",)),
    ]


def test_a_hub_that_has_nothing_elsewhere_compares_with_nobody():
    hub, _, up = in_cluster()

    _, effects = rejoin(hub, up)

    assert compared(effects) == []


def test_an_agent_that_comes_up_elsewhere_is_not_missed():
    hub, _, up = with_shadow(up=False)

    _, effects = rejoin(hub, up)

    assert compared(effects) == []
    assert MetaSpawn in [type(message) for message in requests(effects)]


def test_an_agent_that_comes_up_here_may_have_been_given_up():
    hub, _, up = in_cluster()
    hub.request(up, SpawnAgent(SpawnSpec("r", parent="there/p", spawn_id="s-1")))

    again, effects = rejoin(hub, up)
    stopped = hub.receive(again, Response(call_of(hub, MetaReconcile), Reconciled(given_up=("s-1",))))
    hub.handle(AgentNotStarted("s-1", "stopped"))

    assert compared(effects) == [MetaReconcile("there", runs=("s-1",))]
    assert len(stopped) == 1
    assert hub.core.agents.local("r") is None


def test_a_detached_agent_cannot_be_given_up():
    hub, _, up = in_cluster()
    for_remote(hub, up, detached=True)

    _, effects = rejoin(hub, up)

    assert compared(effects) == []


@pytest.mark.parametrize("protocol", [Protocol(1, ("announce", "complete")), Protocol(1)])
def test_a_meta_hub_that_does_not_know_how_is_not_asked(protocol):
    hub, _, up = with_shadow()
    hub.lose(up)

    effects = hub.receive(hub.connect(Link.UPLINK), Response(1, Welcome(protocol=protocol)))

    assert compared(effects) == []


# Answering.


def test_a_hub_says_what_it_does_not_own_and_does_not_run():
    hub, _, up = with_shadow()

    effects = hub.request(up, HubReconcile("there", runs=("id-2", "id-8"), owns=("id-1", "id-9")))

    assert effects == [Send(up, Response(1, Reconciled(given_up=("id-8",), gone=("id-9",))))]


def test_an_agent_of_another_hub_is_none_of_that_hub():
    hub, _, up = with_shadow()

    effects = hub.request(up, HubReconcile("elsewhere", runs=("id-2",)))

    assert effects == [Send(up, Response(1, Reconciled(given_up=("id-2",))))]


@pytest.mark.parametrize("state", ["coming up", "running", "being stopped", "reported"])
def test_what_will_still_be_reported_is_not_gone(state):
    hub, _, up = in_cluster()
    if state == "coming up":
        hub.request(up, SpawnAgent(SpawnSpec("r", parent="there/p", spawn_id="s-1")))
    else:
        r = for_remote(hub, up)
    if state == "being stopped":
        hub.request(up, CancelAgent(Address("r"), "s-1"))
    if state == "reported":
        hub.notify(r, Completed(result_text="42"))

    [answer] = sent(hub.request(up, HubReconcile("there", owns=("s-1",))), up)

    assert answer.result == Reconciled()


def test_what_is_missed_although_it_was_reported_is_reported_again():
    hub, _, up = in_cluster()
    hub.notify(for_remote(hub, up), Completed(result_text="42"))
    answer_all(hub, up, OK)

    effects = hub.request(up, HubReconcile("there", owns=("s-1",)))

    [report] = [message for message in requests(effects, up) if isinstance(message, MetaComplete)]
    assert report.completion.outcome == Done("42")
    assert [answer.result for answer in answers(effects, up)] == [Reconciled()]


def test_what_has_ended_so_long_ago_that_nothing_is_known_of_it_is_gone():
    hub, _, up = in_cluster()
    hub.notify(for_remote(hub, up), Completed(result_text="42"))
    answer_all(hub, up, OK)
    heartbeats(hub, up, 240)

    [answer] = sent(hub.request(up, HubReconcile("there", owns=("s-1",))), up)

    assert answer.result == Reconciled(gone=("s-1",))


def test_an_agent_that_is_still_asked_for_is_owned():
    hub, _, up = with_shadow(up=False)

    [answer] = sent(hub.request(up, HubReconcile("there", runs=("id-2",))), up)

    assert answer.result == Reconciled()


# Learning.


def test_what_was_given_up_is_stopped():
    hub, _, up = in_cluster()
    r = for_remote(hub, up)
    again, _ = rejoin(hub, up)

    effects = hub.receive(again, Response(call_of(hub, MetaReconcile), Reconciled(given_up=("s-1",))))

    assert notices(effects, r) + requests(effects, r) == [Interrupt(), Shutdown()]
    hub.handle(AgentEnded("s-1", "killed"))
    [answer] = answers(hub.request(attach(hub), WaitAgent(Address("r"), "s-1")))
    assert answer.result.output == "its owner on hub 'there' has given it up"


def test_what_is_gone_is_lost_to_those_who_wait():
    hub, x, up = with_shadow()
    hub.request(x, WaitAgent(THERE))
    again, _ = rejoin(hub, up)

    effects = hub.receive(again, Response(call_of(hub, MetaReconcile), Reconciled(gone=("id-2",))))

    assert [frame.result.outcome for frame in answers(effects, x)] == [
        Lost("hub 'there' does not run it any more")
    ]


@pytest.mark.parametrize("answer", [Reconciled(given_up=("id-1", "id-2")), Reconciled(gone=("id-1", "s-1"))])
def test_a_hub_can_give_up_only_its_own_and_miss_only_what_it_was_to_run(answer):
    hub, _, up = with_shadow()
    for_remote(hub, up)
    again, _ = rejoin(hub, up)

    effects = hub.receive(again, Response(call_of(hub, MetaReconcile), answer))

    assert effects == []


def test_what_has_ended_meanwhile_is_no_news():
    hub, _, up = with_shadow()
    again, _ = rejoin(hub, up)
    call_id = call_of(hub, MetaReconcile)
    hub.request(attach(hub), CancelAgent(THERE))
    hub.receive(again, Failure(call_of(hub, CancelAgent), ErrorCode.AGENT_NOT_FOUND, "gone"))

    assert hub.receive(again, Response(call_id, Reconciled(gone=("id-2",)))) == []


def test_a_hub_that_is_silent_is_asked_again_and_not_lost_before_the_meta_hub_says_so():
    hub, x, up = with_shadow()
    hub.request(x, WaitAgent(THERE))
    again, _ = rejoin(hub, up)
    message = compared(
        hub.receive(again, Failure(call_of(hub, MetaReconcile), ErrorCode.DEADLINE_EXCEEDED, "?"))
    )
    no = Failure(call_of(hub, MetaReconcile), ErrorCode.HUB_NOT_CONNECTED, "gone")

    effects = hub.receive(again, no)

    assert [entry.hub for entry in message] == ["there"]
    assert [frame.result.outcome for frame in answers(effects, x)] == [Lost("hub 'there' was lost: gone")]


def test_a_hub_that_is_not_there_any_more_is_lost():
    hub, x, up = with_shadow()
    r = for_remote(hub, up)
    hub.request(x, WaitAgent(THERE))
    again, _ = rejoin(hub, up)

    effects = hub.receive(again, Failure(call_of(hub, MetaReconcile), ErrorCode.HUB_NOT_CONNECTED, "gone"))

    assert [frame.result.outcome for frame in answers(effects, x)] == [Lost("hub 'there' was lost: gone")]
    assert requests(effects, r) == [Shutdown()]


def test_a_hub_that_only_cannot_say_is_not_lost():
    hub, _, up = with_shadow()
    again, _ = rejoin(hub, up)

    effects = hub.receive(
        again, Failure(call_of(hub, MetaReconcile), ErrorCode.METHOD_NOT_FOUND, "base dialect")
    )

    assert effects == []
    assert hub.core.agents.find(THERE) is not None


def test_a_base_hub_does_not_come_back_to_a_restarted_meta_hub_as_the_hub_it_was():
    hub, x, up = with_shadow()
    r = for_remote(hub, up)
    hub.request(x, WaitAgent(THERE))
    again, _ = rejoin(hub, up, cluster="another")

    refusal = Failure(call_of(hub, MetaReconcile), ErrorCode.METHOD_NOT_FOUND, "base dialect")
    effects = hub.receive(again, refusal)

    lost = Lost("hub 'there' does not run it any more")
    assert [frame.result.outcome for frame in answers(effects, x)] == [lost]
    assert requests(effects, r) == [Shutdown()]


def test_a_hub_that_a_restarted_meta_hub_does_not_know_yet_is_not_lost():
    hub, _, up = with_shadow()
    again, _ = rejoin(hub, up, cluster="another")

    refusal = Failure(call_of(hub, MetaReconcile), ErrorCode.HUB_NOT_CONNECTED, "who?")
    assert hub.receive(again, refusal) == []
    [message] = compared(hub.advance(0.25))

    assert message.owns == ("id-2",)
    assert hub.receive(again, Response(call_of(hub, MetaReconcile), Reconciled())) == []
    assert hub.core.agents.find(THERE) is not None


def test_a_hub_that_a_restarted_meta_hub_still_does_not_know_when_all_has_settled_is_lost():
    hub, _, up = with_shadow()
    again, _ = rejoin(hub, up, cluster="another")

    while hub.core.agents.find(THERE) is not None:
        hub.receive(again, Failure(call_of(hub, MetaReconcile), ErrorCode.HUB_NOT_CONNECTED, "who?"))
        hub.advance(0.25)

    assert hub.now == 3.25


# The MetaHub in between.


def test_a_meta_hub_passes_a_comparison_on_and_says_who_asks():
    meta = open_meta()
    a, b = join(meta, "a"), join(meta, "b")

    there = meta.request(a, MetaReconcile("b", ("1",), ("2",)))
    back = meta.receive(b, Response(1, Reconciled(("1",), ("2",))))

    assert requests(there, b) == [HubReconcile("a", ("1",), ("2",))]
    assert answers(back, a) == [Response(2, Reconciled(("1",), ("2",)))]


def test_a_comparison_waits_for_a_hub_that_is_away():
    meta = open_meta()
    a, b = join(meta, "a"), join(meta, "b")
    meta.lose(b)

    assert meta.request(a, MetaReconcile("b")) == []
    again = join(meta, "b")

    assert [call.message for call in meta.core.exchange.calls] == [HubReconcile("a")]
    assert meta.core.exchange.calls.count(again) == 1


@pytest.mark.parametrize(
    ("hub", "code"), [("nobody", ErrorCode.HUB_NOT_CONNECTED), ("base", ErrorCode.METHOD_NOT_FOUND)]
)
def test_a_comparison_with_a_hub_that_cannot_is_refused_at_once(hub, code):
    meta = open_meta()
    a = join(meta, "a")
    join_base(meta, "base")

    [failure] = sent(meta.request(a, MetaReconcile(hub)), a)

    assert failure.code is code


def test_a_client_has_nothing_to_compare():
    meta = open_meta()
    join(meta, "b")

    [failure] = sent(meta.request(attach(meta), MetaReconcile("b")))

    assert failure.code is ErrorCode.METHOD_NOT_FOUND


# The lease.


def test_without_a_meta_hub_for_too_long_nothing_is_left_running_for_others_or_waited_for_elsewhere():
    hub, x, up = with_shadow()
    r = for_remote(hub, up)
    hub.request(x, WaitAgent(THERE))
    hub.lose(up)

    assert unlogged(hub.advance(59.9)) == []
    effects = hub.advance(0.1)

    assert [frame.result.outcome for frame in answers(effects, x)] == [Lost("no MetaHub for 60 s")]
    assert requests(effects, r) == [Shutdown()]
    assert requests(effects, x) == []


def test_a_detached_agent_outlives_the_lease_on_both_sides():
    hub, _, up = with_shadow(detached=True)
    r = for_remote(hub, up, detached=True)
    hub.lose(up)

    assert sent(hub.advance(1000.0), r) == []
    assert hub.core.agents.find(THERE) is not None


def test_a_spawn_that_waits_has_a_deadline_of_its_own_and_not_the_lease():
    hub, x, up = in_cluster()
    hub.lose(up)
    hub.advance(30.0)
    hub.request(x, SpawnAgent(SpawnSpec("y", target_hub="there")))

    assert answers(hub.advance(59.9), x) == []
    assert [frame.code for frame in answers(hub.advance(0.1), x)] == [ErrorCode.DEADLINE_EXCEEDED]


def test_a_hub_that_joins_in_time_keeps_everything():
    hub, _, up = with_shadow()
    for_remote(hub, up)
    hub.lose(up)
    hub.advance(59.0)
    again, _ = rejoin(hub)
    answer_all(hub, again, Reconciled())

    heartbeats(hub, again, 10)

    assert hub.core.agents.find(THERE) is not None
    assert hub.core.agents.local("r") is not None


def test_dialling_in_vain_does_not_prolong_the_lease():
    hub, _, up = with_shadow()
    hub.lose(up)
    for _ in range(5):
        hub.advance(10.0)
        hub.lose(hub.connect(Link.UPLINK))

    hub.advance(10.0)

    assert hub.core.agents.find(THERE) is None


def test_a_lease_that_has_ended_leaves_the_agents_of_the_hub_itself():
    hub, x, up = in_cluster()
    begin(hub, "child", x)
    hub.lose(up)

    assert sent(hub.advance(1000.0)) == []
    assert [record.name for record in hub.core.agents] == ["x", "child"]


# A silent MetaHub.


def test_a_meta_hub_that_does_not_answer_an_announcement_is_hung_up_on():
    hub, _, up = in_cluster()
    hub.advance(15.0)

    assert [effect for effect in hub.advance(29.9) if isinstance(effect, Disconnect)] == []
    effects = hub.advance(0.1)

    assert Disconnect(up, "the MetaHub has fallen silent") in effects


def test_a_meta_hub_that_answers_is_kept():
    hub, _, up = in_cluster()

    heartbeats(hub, up, 20)

    assert hub.core.uplink.joined
    assert "fallen silent" not in "\n".join(hub.transcript)


def test_a_meta_hub_that_refuses_an_announcement_is_not_silent():
    hub, _, up = in_cluster()
    hub.advance(15.0)

    effects = hub.receive(up, Failure(call_of(hub, Announce), ErrorCode.OVERLOADED, "busy"))

    assert effects == []
    assert hub.core.uplink.joined


def test_what_a_silent_meta_hub_was_asked_is_asked_on_the_next_connection():
    hub, _, up = in_cluster()
    hub.advance(40.0)
    client = attach(hub)
    hub.request(client, WaitAgent(THERE))
    hub.advance(5.0)

    again, effects = rejoin(hub, up)

    [request] = [asked for asked in requests(effects, again) if isinstance(asked, WaitAgent)]
    assert request == WaitAgent(THERE, timeout_ms=595_000), "as long as it still has"
    [call] = [call for call in hub.core.exchange.calls if isinstance(call.message, WaitAgent)]
    assert answers(hub.receive(again, Failure(call.id, ErrorCode.AGENT_NOT_FOUND, "no")), client) != []


def test_a_meta_hub_that_was_not_agreed_to_be_told_is_never_taken_for_silent():
    hub = open_hub()
    up = hub.connect(Link.UPLINK)
    hub.receive(up, Response(1, Welcome(protocol=Protocol(1))))

    assert [effect for effect in hub.advance(1000.0) if isinstance(effect, Disconnect)] == []
