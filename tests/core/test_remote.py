"""Agents on other hubs: their shadows here, and our agents as shadows there."""

from __future__ import annotations

import pytest

from loopal_cluster.address import Address
from loopal_cluster.completions import wrap_result
from loopal_cluster.config import Limits
from loopal_cluster.core.effects import Send, StartAgent
from loopal_cluster.core.events import AgentEnded, Link
from loopal_cluster.core.parties import PROTOCOL
from loopal_cluster.errors import ErrorCode
from loopal_cluster.frames import Failure, Request, Response
from loopal_cluster.messages import (
    OK,
    AgentSource,
    CancelAgent,
    Completed,
    Completion,
    DeliverEnvelope,
    Envelope,
    HubComplete,
    HubLost,
    HumanSource,
    Interrupt,
    InterruptAgent,
    ListAgents,
    MetaComplete,
    MetaRoute,
    MetaSpawn,
    Route,
    Shutdown,
    ShutdownAgent,
    SpawnAgent,
    Spawned,
    SpawnSpec,
    SystemSource,
    UserContent,
    WaitAgent,
    Waited,
    Welcome,
)
from loopal_cluster.outcomes import Cancelled, Done, Failed, Lost, Outcome
from loopal_cluster.testing import sent

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
    notices,
    open_hub,
    quietly,
    requests,
    with_shadow,
)

THERE = Address("y", "there")


def report(outcome: Outcome, spawn_id: str = "id-2", agent: Address = THERE) -> HubComplete:
    """What the MetaHub tells of ``there/y``."""
    return HubComplete(Completion(spawn_id, agent, Address("x", "here"), outcome))


def waited(outcome: Outcome, text: str) -> Waited:
    """The answer to a wait for ``there/y``."""
    return Waited(text, agent="there/y", agent_id="id-2", outcome=outcome)


# Spawning there.


def test_a_spawn_on_another_hub_names_the_real_parent_and_an_identity():
    hub, x, up = in_cluster()

    there = hub.request(x, SpawnAgent(SpawnSpec("y", "do it", target_hub="there", parent="somebody")))
    [call] = sent(there)
    back = hub.receive(up, Response(call.id, Spawned("id-2", "y")))

    spec = SpawnSpec("y", "do it", parent="here/x", target_hub="there", spawn_id="id-2", depth=1)
    assert there == [Send(up, Request(call.id, MetaSpawn(spec)))]
    assert back == [Send(x, Response(1, Spawned("id-2", "y")))]


def test_the_shadow_is_there_before_the_request_leaves():
    hub, x, _ = with_shadow(up=False)

    [names] = answers(hub.request(x, ListAgents()), x)

    assert names.result.agents == ("x", "there/y")
    assert [child.address for child in hub.core.agents.local("x").children.values()] == [THERE]


def test_a_result_that_comes_before_the_answer_to_the_spawn_is_not_lost():
    hub, x, up = with_shadow(up=False)

    effects = hub.request(up, report(Done("fast")))

    assert Send(x, Response(1, Spawned("id-2", "y"))) in effects
    assert hub.receive(up, Response(call_of(hub, MetaSpawn), Spawned("id-2", "y"))) == []


def test_a_refused_spawn_leaves_no_shadow():
    hub, x, up = with_shadow(up=False)

    effects = hub.receive(up, Failure(call_of(hub, MetaSpawn), ErrorCode.UNKNOWN_AGENT_TYPE, "no 'z'"))

    assert effects == [Send(x, Failure(1, ErrorCode.UNKNOWN_AGENT_TYPE, "no 'z'"))]
    assert hub.core.agents.find(THERE) is None
    assert hub.core.agents.local("x").children == {}


def test_a_spawn_whose_answer_does_not_come_leaves_no_shadow():
    hub, x, _ = with_shadow(up=False)

    effects = hub.advance(60.0)

    assert [frame.code for frame in answers(effects, x)] == [ErrorCode.DEADLINE_EXCEEDED]
    assert hub.core.agents.find(THERE) is None


def test_a_spawn_that_cannot_even_be_asked_leaves_no_shadow():
    hub, x, _up = in_cluster(limits=Limits(calls_per_peer=1))
    hub.request(x, Route(envelope("z")))

    [failure] = sent(hub.request(x, SpawnAgent(SpawnSpec("y", target_hub="there"))))

    assert failure.code is ErrorCode.OVERLOADED
    assert hub.core.agents.find(THERE) is None


@pytest.mark.parametrize("spec", [SpawnSpec("y", target_hub="there"), SpawnSpec("y/z", target_hub="there")])
def test_a_spawn_there_that_cannot_be_is_refused_at_once(spec):
    hub, x, _ = with_shadow()

    [failure] = sent(hub.request(x, SpawnAgent(spec)))

    assert failure.code in (ErrorCode.NAME_TAKEN, ErrorCode.INVALID_REQUEST)


def test_spawning_on_the_own_hub_by_name_is_local():
    hub, x, _ = in_cluster()

    [effect] = hub.request(x, SpawnAgent(SpawnSpec("y", target_hub="here")))

    assert effect == StartAgent("id-2", "y", "t", "/here")


def test_an_agent_here_and_one_there_may_have_one_name():
    hub, x, up = with_shadow()
    y = begin(hub, "y", x)

    assert requests(hub.request(x, Route(envelope("y"))), y) != []
    assert requests(hub.request(x, Route(envelope("there/y"))), up) != []


def test_a_message_to_a_shadow_by_its_bare_name_goes_to_its_hub():
    hub, x, up = with_shadow()

    expected = MetaRoute(envelope("there/y", AgentSource("x")))
    assert requests(hub.request(x, Route(envelope("y"))), up) == [expected]
    assert requests(hub.request(x, InterruptAgent(Address("y"))), up) == [InterruptAgent(THERE)]


def test_a_bare_name_of_several_shadows_is_ambiguous():
    hub, x, _ = with_shadow()
    hub.request(x, SpawnAgent(SpawnSpec("y", target_hub="elsewhere")))

    [failure] = sent(hub.request(x, Route(envelope("y"))))

    assert failure.code is ErrorCode.AMBIGUOUS_NAME
    assert failure.detail == "agent name 'y' is on several hubs: there/y, elsewhere/y"


# Outcomes from there.


def test_an_outcome_from_there_reaches_all_who_wait_and_the_parent_once():
    hub, x, up = with_shadow()
    client = attach(hub)
    for peer in (x, client):
        assert hub.request(peer, WaitAgent(Address("y"))) == []

    effects = hub.request(up, report(Failed("boom")))

    result = waited(Failed("boom"), "boom")
    assert quietly(effects) == [
        Send(x, Response(2, result)),
        Send(client, Response(2, result)),
        Send(up, Response(1, OK)),
    ]


def test_a_parent_that_does_not_wait_gets_the_outcome_as_a_message():
    hub, x, up = with_shadow()

    [message] = requests(hub.request(up, report(Done("42"))), x)

    assert message.envelope.source == SystemSource("agent-completed")
    assert message.envelope.content == UserContent(wrap_result("y", "42"))


def test_a_repeated_outcome_is_acknowledged_and_changes_nothing():
    hub, _, up = with_shadow()
    hub.request(up, report(Done("42")))

    assert hub.request(up, report(Done("other"))) == [Send(up, Response(2, OK))]
    client = attach(hub)
    assert answers(hub.request(client, WaitAgent(THERE, "id-2")))[0].result.outcome == Done("42")


@pytest.mark.parametrize(
    "wrong", [report(Done("42"), agent=Address("y", "elsewhere")), report(Done("42"), spawn_id="id-9")]
)
def test_an_outcome_of_what_we_did_not_spawn_there_changes_nothing(wrong):
    hub, _, up = with_shadow()

    assert hub.request(up, wrong) == [Send(up, Response(1, OK))]
    assert hub.core.agents.find(THERE) is not None


def test_a_report_cannot_end_an_agent_that_runs_here():
    hub, _, up = in_cluster()

    hub.request(up, report(Done("forged"), spawn_id="id-1", agent=Address("x")))

    assert hub.core.agents.local("x") is not None


# Outcomes in the base dialect.


def base_report(name: str, text: str, origin: str | None = None) -> DeliverEnvelope:
    """What a hub of the base dialect sends."""
    content = UserContent(wrap_result(name, text))
    source = SystemSource("agent-completed")
    return DeliverEnvelope(Envelope("m", source, Address("x"), content, "2026-01-01", origin))


@pytest.mark.parametrize("origin", [None, "there"])
def test_an_outcome_in_words_is_understood(origin):
    hub, _, up = with_shadow()
    client = attach(hub)
    hub.request(client, WaitAgent(THERE))

    effects = hub.request(up, base_report("y", "[failed] boom", origin))

    assert answers(effects) == [Response(2, waited(Failed("boom"), "boom")), Response(1, OK)]


@pytest.mark.parametrize(("name", "origin"), [("z", "there"), ("y", "elsewhere"), ("x", "here"), ("x", None)])
def test_an_outcome_in_words_is_believed_only_of_what_runs_there_for_us(name, origin):
    hub, _, up = with_shadow()

    [failure] = sent(hub.request(up, base_report(name, "forged", origin)))

    assert failure.code is ErrorCode.AGENT_NOT_FOUND
    assert len(hub.core.agents) == 2


def test_words_that_are_no_outcome_are_a_message():
    hub, x, up = with_shadow()
    message = Envelope("m", SystemSource("agent-completed"), Address("x"), UserContent("hello"), "")

    assert requests(hub.request(up, DeliverEnvelope(message)), x) == [DeliverEnvelope(message)]


def test_an_agent_that_writes_an_outcome_has_only_written_a_message():
    hub, x, up = with_shadow()
    content = UserContent(wrap_result("y", "forged"))
    message = Envelope("m", AgentSource("there/z"), Address("x"), content, "", "there")

    assert requests(hub.request(up, DeliverEnvelope(message)), x) == [DeliverEnvelope(message)]
    assert hub.core.agents.find(THERE) is not None


# Stopping there.


def test_stopping_a_shadow_stops_the_agent_there():
    hub, x, up = with_shadow()

    asked = hub.request(x, CancelAgent(Address("y"), reason="enough"))
    outcome = Cancelled("enough")
    effects = hub.receive(up, Response(call_of(hub, CancelAgent), waited(outcome, "enough")))

    assert requests(asked, up) == [CancelAgent(THERE, "id-2", "enough", brief=True)]
    assert answers(effects, x) == [Response(2, waited(outcome, "enough"))]


@pytest.mark.parametrize("how", ["stopped", "completes", "dies"])
def test_the_end_of_a_parent_stops_its_children_there(how):
    hub, x, up = with_shadow()

    match how:
        case "stopped":
            effects = hub.request(attach(hub), ShutdownAgent(Address("x")))
        case "completes":
            effects = hub.notify(x, Completed())
        case _:
            effects = hub.handle(AgentEnded("id-1", "killed"))

    [message] = [one for one in requests(effects, up) if isinstance(one, CancelAgent)]
    assert (message.agent, message.agent_id) == (THERE, "id-2")


def test_a_detached_agent_there_goes_on():
    hub, x, up = with_shadow(detached=True)

    effects = hub.notify(x, Completed())

    assert [one for one in requests(effects, up) if isinstance(one, CancelAgent)] == []


def test_what_cannot_be_told_to_stop_now_is_told_when_the_meta_hub_is_back():
    hub, x, up = with_shadow()
    hub.lose(up)

    assert hub.request(x, CancelAgent(THERE, reason="enough")) == []
    again = hub.connect(Link.UPLINK)
    effects = hub.receive(again, Response(1, Welcome(protocol=PROTOCOL)))

    assert CancelAgent(THERE, "id-2", "enough", brief=True) in requests(effects, again)


def test_what_cannot_be_told_to_stop_in_time_is_lost():
    hub, x, up = with_shadow()
    hub.lose(up)
    hub.request(x, CancelAgent(THERE))

    [answer] = answers(hub.advance(60.0), x)

    reason = "hub 'there' did not stop it: no answer to hub/cancel_agent in time"
    assert answer.result.outcome == Lost(reason)


def test_what_is_not_stopped_is_lost():
    hub, x, up = with_shadow()
    hub.request(x, CancelAgent(THERE))

    effects = hub.receive(up, Failure(call_of(hub, CancelAgent), ErrorCode.HUB_NOT_CONNECTED, "gone"))

    assert answers(effects, x)[0].result.outcome == Lost("hub 'there' did not stop it: gone")


def test_a_hub_that_only_was_asked_to_stop_is_waited_for():
    hub, x, up = with_shadow()
    hub.request(x, CancelAgent(THERE))

    assert hub.receive(up, Response(call_of(hub, CancelAgent), Waited("asked", timed_out=True))) == []
    assert answers(hub.request(up, base_report("y", "42")), x)[0].result.outcome == Done("42")


def test_a_spawn_that_is_cancelled_and_then_refused_is_cancelled_for_who_cancelled():
    hub, x, up = with_shadow(up=False)
    hub.request(x, CancelAgent(THERE, reason="enough"))

    refused = hub.receive(up, Failure(call_of(hub, MetaSpawn), ErrorCode.SPAWN_FAILED, "stopped"))
    stopped = hub.receive(up, Failure(call_of(hub, CancelAgent), ErrorCode.AGENT_NOT_FOUND, "no agent"))

    assert answers(refused, x) == [Failure(1, ErrorCode.SPAWN_FAILED, "spawn failed: enough")]
    assert answers(stopped, x) == [Response(2, waited(Cancelled("enough"), "enough"))]


def test_an_agent_that_two_have_stopped_was_stopped_for_the_reason_its_own_hub_gives():
    hub, x, up = with_shadow(up=False)
    hub.request(x, CancelAgent(THERE, reason="enough"))

    refused = hub.receive(up, Failure(call_of(hub, MetaSpawn), ErrorCode.SPAWN_FAILED, "shutdown"))
    first = waited(Cancelled("shutdown"), "shutdown")
    stopped = hub.receive(up, Response(call_of(hub, CancelAgent), first))

    assert answers(refused, x) == [Failure(1, ErrorCode.SPAWN_FAILED, "spawn failed: enough")]
    assert answers(stopped, x) == [Response(2, first)]


def test_a_spawn_that_fails_while_its_stop_is_on_the_way_leaves_nothing_behind():
    hub, x, up = with_shadow(up=False)
    hub.request(x, CancelAgent(THERE, reason="enough"))
    hub.receive(up, Failure(call_of(hub, MetaSpawn), ErrorCode.SPAWN_FAILED, "stopped"))

    effects = hub.receive(up, Response(call_of(hub, CancelAgent), Waited("asked", timed_out=True)))

    assert answers(effects, x) == [Response(2, waited(Cancelled("enough"), "enough"))]
    assert [str(record.address) for record in hub.core.agents] == ["x"]


# The loss of a hub.


def test_the_agents_on_a_lost_hub_are_lost():
    hub, x, up = with_shadow()
    hub.request(x, WaitAgent(THERE))

    effects = hub.request(up, HubLost("there", "silent"))

    reason = "hub 'there' was lost: silent"
    assert quietly(effects) == [
        Send(x, Response(2, waited(Lost(reason), reason))),
        Send(up, Response(1, OK)),
    ]


def test_a_spawn_on_a_hub_that_is_lost_meanwhile_is_refused():
    hub, x, up = with_shadow(up=False)

    effects = hub.request(up, HubLost("there", "silent"))

    detail = "spawn failed: hub 'there' was lost: silent"
    assert answers(effects, x) == [Failure(1, ErrorCode.SPAWN_FAILED, detail)]
    assert hub.receive(up, Failure(call_of(hub, MetaSpawn), ErrorCode.CONNECTION_LOST, "")) == []


def test_agents_whose_parent_was_on_a_lost_hub_are_stopped():
    hub, x, up = in_cluster()
    r = for_remote(hub, up)

    effects = hub.request(up, HubLost("there", "silent"))
    hub.handle(AgentEnded("s-1", "killed"))

    assert notices(effects, r) + requests(effects, r) == [Interrupt(), Shutdown()]
    assert sent(effects, x) == []
    [answer] = answers(hub.request(x, WaitAgent(Address("r"))), x)
    assert answer.result.outcome == Cancelled("hub 'there' of its parent was lost")


def test_a_detached_agent_outlives_the_hub_of_its_parent():
    hub, _, up = in_cluster()
    r = for_remote(hub, up, detached=True)

    assert sent(hub.request(up, HubLost("there", "silent")), r) == []


def test_the_loss_of_another_hub_changes_nothing():
    hub, _, up = with_shadow()

    assert hub.request(up, HubLost("elsewhere", "silent")) == [Send(up, Response(1, OK))]


# Running here for another hub.


def test_an_agent_for_another_hub_keeps_its_identity_and_not_the_directory():
    hub, _, up = in_cluster()

    [effect] = hub.request(
        up, SpawnAgent(SpawnSpec("r", parent="there/p", spawn_id="s-1", cwd="/tmp", depth=3))
    )
    come_up(hub, "s-1")

    record = hub.core.agents.local("r")
    assert effect == StartAgent("s-1", "r", "t", "/here")
    assert (record.parent, record.depth) == (Address("p", "there"), 3)


def test_generations_are_counted_across_hubs():
    hub, _, up = in_cluster(limits=Limits(agent_depth=3))

    [failure] = sent(hub.request(up, SpawnAgent(SpawnSpec("r", depth=4))))

    assert failure.code is ErrorCode.BUDGET_EXCEEDED


def test_the_meta_hub_stops_what_runs_here_by_identity():
    hub, _, up = in_cluster()
    r = for_remote(hub, up)

    effects = hub.request(up, CancelAgent(Address("r"), "s-1", "enough"))
    gone = hub.handle(AgentEnded("s-1", "killed"))

    assert requests(effects, r) == [Shutdown()]
    [answer] = answers(gone, up)
    assert answer.result.outcome == Cancelled("enough")


def test_the_meta_hub_does_not_mean_a_shadow():
    hub, _, up = with_shadow()

    [failure] = sent(hub.request(up, CancelAgent(Address("y"))))

    assert failure == Failure(1, ErrorCode.AGENT_NOT_FOUND, "no agent 'y' on hub 'here'")


# Reporting.


def outcome_report(outcome: Outcome) -> MetaComplete:
    """What we tell of ``here/r``."""
    return MetaComplete(Completion("s-1", Address("r", "here"), Address("p", "there"), outcome))


def reports(effects) -> list:
    """The reports among some effects."""
    return [message for message in requests(effects) if isinstance(message, MetaComplete | MetaRoute)]


def test_an_outcome_is_reported_to_the_hub_of_the_parent_and_forgotten_when_acknowledged():
    hub, _, up = in_cluster()
    r = for_remote(hub, up)

    assert reports(hub.notify(r, Completed(result_text="42"))) == [outcome_report(Done("42"))]
    assert hub.core._reports
    answer_all(hub, up, OK)

    assert not hub.core._reports
    assert reports(hub.advance(10.0)) == []


def test_a_local_outcome_is_not_reported():
    hub, x, _ = in_cluster()

    assert reports(hub.notify(x, Completed(result_text="42"))) == []


@pytest.mark.parametrize(
    "code", [ErrorCode.HUB_NOT_CONNECTED, ErrorCode.OVERLOADED, ErrorCode.CONNECTION_LOST]
)
def test_a_report_that_does_not_arrive_is_repeated_each_second(code):
    hub, _, up = in_cluster()
    r = for_remote(hub, up)
    hub.notify(r, Completed(result_text="42"))

    for _ in range(3):
        hub.receive(up, Failure(call_of(hub, MetaComplete), code, "not now"))
        assert reports(hub.advance(0.9)) == []
        assert reports(hub.advance(0.2)) == [outcome_report(Done("42"))]


def test_a_report_that_is_refused_for_good_is_not_repeated():
    hub, _, up = in_cluster()
    r = for_remote(hub, up)
    hub.notify(r, Completed(result_text="42"))
    hub.receive(up, Failure(call_of(hub, MetaComplete), ErrorCode.INVALID_REQUEST, "no"))

    assert reports(hub.advance(10.0)) == []
    assert not hub.core._reports


@pytest.mark.parametrize("ended", ["before", "after"])
def test_a_report_is_repeated_when_the_cluster_is_joined_again(ended):
    hub, _, up = in_cluster()
    r = for_remote(hub, up)
    if ended == "before":
        hub.notify(r, Completed(result_text="42"))
    hub.lose(up)
    if ended == "after":
        assert reports(hub.notify(r, Completed(result_text="42"))) == []

    again = hub.connect(Link.UPLINK)
    effects = hub.receive(again, Response(1, Welcome(protocol=PROTOCOL)))

    assert reports(effects) == [outcome_report(Done("42"))]


def test_a_report_is_forgotten_with_its_result():
    hub, _, up = in_cluster()
    r = for_remote(hub, up)
    hub.lose(up)
    hub.notify(r, Completed(result_text="42"))
    hub.advance(3600.0)

    assert not hub.core._reports
    assert hub.core.next_deadline() is None


def test_nobody_wants_the_report_when_the_hub_of_the_parent_is_lost():
    hub, _, up = in_cluster()
    r = for_remote(hub, up)
    hub.notify(r, Completed(result_text="42"))
    hub.request(up, HubLost("there", "silent"))

    assert not hub.core._reports
    hub.receive(up, Failure(call_of(hub, MetaComplete), ErrorCode.HUB_NOT_CONNECTED, "gone"))
    assert reports(hub.advance(5.0)) == []


def test_a_meta_hub_of_the_base_dialect_gets_a_sender_that_can_be_answered():
    hub = open_hub()
    x = begin(hub, "x")
    up = join_base_meta(hub)

    effects = hub.request(x, Route(envelope("there/y", HumanSource())))

    assert requests(effects, up) == [MetaRoute(envelope("there/y", AgentSource("here/x")))]


def test_a_meta_hub_of_the_base_dialect_gets_the_outcome_in_words():
    hub = open_hub()
    up = join_base_meta(hub)
    r = for_remote(hub, up)

    [message] = reports(hub.notify(r, Completed("error", "boom")))

    assert message.envelope.source == SystemSource("agent-completed")
    assert message.envelope.target == Address("p", "there")
    assert message.envelope.content == UserContent(wrap_result("r", "[failed] boom"))
