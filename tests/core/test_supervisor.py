"""The agents of one hub, from spawn to outcome."""

from __future__ import annotations

import pytest

from loopal_cluster.address import Address
from loopal_cluster.completions import wrap_result
from loopal_cluster.config import Limits, Timeouts
from loopal_cluster.core.effects import Disconnect, Effect, Send, StartAgent, StopAgent
from loopal_cluster.core.events import AgentEnded, AgentNotStarted, AgentStarted, Closing, Peer
from loopal_cluster.errors import ErrorCode
from loopal_cluster.frames import Failure, Notification, Request, Response
from loopal_cluster.messages import (
    OK,
    AgentDetails,
    AgentEvent,
    AgentInfo,
    AgentStart,
    CancelAgent,
    CancelRequest,
    ClusterEvent,
    Completed,
    DeliverEnvelope,
    Envelope,
    Initialize,
    Initialized,
    Interrupt,
    Register,
    Role,
    Route,
    Shutdown,
    ShutdownAgent,
    SpawnAgent,
    Spawned,
    SpawnSpec,
    Started,
    Status,
    Subscribe,
    SystemSource,
    UserContent,
    WaitAgent,
    Waited,
)
from loopal_cluster.outcomes import Cancelled, Done, Failed, Lost, Outcome, reason_of
from loopal_cluster.payloads import Ended, Error, SubAgentSpawned
from loopal_cluster.testing import CoreDriver, sent

from .builders import (
    TOKEN,
    answers,
    attach,
    begin,
    come_up,
    envelope,
    id_of,
    notices,
    open_hub,
    quietly,
    requests,
    start,
    unlogged,
)

X, Y = Address("x"), Address("y")


def waited(outcome: Outcome, name: str = "x", agent_id: str = "id-1") -> Waited:
    """The answer to a wait for an agent that has ended."""
    return Waited(reason_of(outcome), agent=name, agent_id=agent_id, outcome=outcome)


def outcome_of(hub: CoreDriver, name: str = "x", agent_id: str | None = None) -> Outcome | None:
    """How an agent ended, as a late waiter learns it."""
    client = attach(hub)
    [answer] = answers(hub.request(client, WaitAgent(Address(name), agent_id)), client)
    assert isinstance(answer, Response), answer
    return answer.result.outcome


# Coming up.


def test_a_spawn_starts_the_agent_greets_it_lets_it_begin_and_only_then_answers():
    hub = open_hub()
    client, peer = attach(hub), hub.new_peer()

    starting = hub.request(client, SpawnAgent(SpawnSpec("x", "do it", agent_type="t", model="m")))
    greeting = hub.handle(AgentStarted("id-1", peer))
    beginning = hub.receive(peer, Response(1, Initialized()))
    up = hub.receive(peer, Response(2, Started("s")))

    assert starting == [StartAgent("id-1", "x", "t", "/here")]
    assert greeting == [Send(peer, Request(1, Initialize()))]
    begins = AgentStart(
        cwd="/here",
        lifecycle="ephemeral",
        model="m",
        permission_mode="supervised",
        prompt="do it",
        name="x",
        hub="here",
        agent_id="id-1",
        agent_type="t",
    )
    assert beginning == [Send(peer, Request(2, begins))]
    assert up == [Send(client, Response(2, Spawned("id-1", "x")))]


def test_a_new_agent_is_an_event():
    hub = open_hub()
    client = attach(hub)
    hub.request(client, Subscribe())
    come_up(hub, start(hub, "x", client))

    spawned = SubAgentSpawned("x", "id-1", session_id="s")
    assert hub.transcript[-1].endswith(
        repr(Send(client, Notification(ClusterEvent(1, 0.0, "here", "x", spawned))))
    )


def test_a_spawner_may_choose_the_directory_and_the_lifecycle():
    hub = open_hub()
    client, peer = attach(hub), hub.new_peer()

    [effect] = hub.request(client, SpawnAgent(SpawnSpec("x", cwd="/there", lifecycle="persistent")))
    hub.handle(AgentStarted("id-1", peer))
    [begins] = requests(hub.receive(peer, Response(1, Initialized())))

    assert effect.cwd == begins.cwd == "/there"
    assert begins.lifecycle == "persistent"


def test_an_agent_is_the_parent_of_what_it_spawns_whatever_it_claims():
    hub = open_hub()
    x = begin(hub, "x")
    begin(hub, "y", x, parent="somebody", spawn_id="chosen", depth=7)

    y = hub.core.agents.local("y")
    assert (y.parent, y.id, y.depth) == (X, "chosen", 1)


def test_a_client_is_no_parent_even_if_an_agent_has_its_name():
    hub = open_hub()
    begin(hub, "ann")
    begin(hub, "x", attach(hub, "ann"))

    assert hub.core.agents.local("x").parent is None
    assert hub.core.agents.local("ann").children == {}


@pytest.mark.parametrize(
    ("spec", "code", "detail"),
    [
        (
            SpawnSpec("x", agent_type="z"),
            ErrorCode.UNKNOWN_AGENT_TYPE,
            "hub 'here' does not run agent type 'z' (it runs: t)",
        ),
        (SpawnSpec("taken"), ErrorCode.NAME_TAKEN, "agent name 'taken' is taken"),
        (
            SpawnSpec("a/b"),
            ErrorCode.INVALID_REQUEST,
            "agent name 'a/b' is not 1 to 64 of A-Z a-z 0-9 . _ -",
        ),
        (
            SpawnSpec("x", target_hub="there"),
            ErrorCode.NOT_IN_CLUSTER,
            "target_hub specified but no MetaHub uplink",
        ),
    ],
)
def test_a_spawn_that_cannot_be_is_refused_at_once(spec, code, detail):
    hub = open_hub()
    begin(hub, "taken")
    client = attach(hub)

    assert hub.request(client, SpawnAgent(spec)) == [Send(client, Failure(2, code, detail))]
    assert len(hub.core.agents) == 1


def test_a_spawn_without_a_type_needs_a_default():
    hub = open_hub(default_type=None)
    client = attach(hub)

    [failure] = sent(hub.request(client, SpawnAgent(SpawnSpec("x"))))

    assert failure.detail == "no agent type given, and hub 'here' has no default (it runs: t)"


def test_there_is_a_limit_to_agents():
    hub = open_hub(limits=Limits(agents=1))
    begin(hub, "x")
    client = attach(hub)

    [failure] = sent(hub.request(client, SpawnAgent(SpawnSpec("y"))))

    assert failure == Failure(2, ErrorCode.OVERLOADED, "this hub has 1 agents already")


def test_there_is_a_limit_to_generations():
    hub = open_hub(limits=Limits(agent_depth=1))
    y = begin(hub, "y", begin(hub, "x"))

    [failure] = sent(hub.request(y, SpawnAgent(SpawnSpec("z"))))

    assert failure == Failure(1, ErrorCode.BUDGET_EXCEEDED, "agents nest at most 1 deep")


# Not coming up.


def fail_to_start(hub: CoreDriver, how: str) -> list[Effect]:
    """Let the agent ``id-1`` fail in one of the possible ways."""
    peer = hub.new_peer()
    no = ErrorCode.REFUSED
    match how:
        case "not started":
            return hub.handle(AgentNotStarted("id-1", "no such file"))
        case "not up in time":
            return hub.advance(30.0)
    hub.handle(AgentStarted("id-1", peer))
    match how:
        case "refuses to initialize":
            return hub.receive(peer, Failure(1, no, "no"))
        case "silent":
            return hub.advance(30.0)
        case "exits before initialize":
            return hub.handle(AgentEnded("id-1", "exit status 1"))
    hub.receive(peer, Response(1, Initialized()))
    match how:
        case "refuses to start":
            return hub.receive(peer, Failure(2, no, "no"))
        case "exits before start":
            return hub.handle(AgentEnded("id-1", "exit status 1"))
    raise AssertionError(how)


FAILURES = {
    "not started": "no such file",
    "not up in time": "it was not up after 30 s",
    "refuses to initialize": "agent initialize failed: no",
    "silent": "agent initialize failed: no answer to initialize in time",
    "exits before initialize": "exit status 1",
    "refuses to start": "agent/start failed: no",
    "exits before start": "exit status 1",
}


@pytest.mark.parametrize(("how", "reason"), FAILURES.items())
def test_an_agent_that_does_not_come_up_is_a_refusal_with_the_reason(how, reason):
    hub = open_hub()
    client = attach(hub)
    start(hub, "x", client)

    effects = fail_to_start(hub, how)

    assert answers(effects) == [Failure(2, ErrorCode.SPAWN_FAILED, f"spawn failed: {reason}")]
    assert len(hub.core.agents) == 0


@pytest.mark.parametrize("how", FAILURES)
def test_an_agent_that_did_not_come_up_is_stopped_and_leaves_nothing_behind(how):
    hub = open_hub()
    client = attach(hub)
    start(hub, "x", client)

    effects = fail_to_start(hub, how)
    hub.handle(AgentEnded("id-1", "stopped"))

    assert (StopAgent("id-1") in effects) == (not how.startswith("exits"))
    assert list(hub.core.exchange.calls) == []
    assert hub.core.next_deadline() is None
    assert not hub.core.exchange.knows(Peer(2))
    assert start(hub, "x", client) == "id-2"


def test_an_agent_that_could_not_start_has_no_voice_any_more():
    hub = open_hub()
    start(hub, "x")
    peer = hub.new_peer()
    hub.handle(AgentStarted("id-1", peer))
    hub.receive(peer, Failure(1, ErrorCode.REFUSED, "no"))

    assert hub.request(peer, SpawnAgent(SpawnSpec("y"))) == []


def test_an_agent_that_started_too_late_is_stopped_again():
    hub = open_hub()
    start(hub, "x")
    hub.advance(30.0)

    assert hub.handle(AgentStarted("id-1", hub.new_peer())) == [StopAgent("id-1")]
    assert hub.handle(AgentEnded("id-1", "stopped")) == []


def test_messages_for_an_agent_that_does_not_come_up_are_refused():
    hub = open_hub()
    client = attach(hub)
    start(hub, "x", client)
    hub.request(client, Route(envelope("x")))

    effects = hub.handle(AgentNotStarted("id-1", "no"))

    assert Failure(3, ErrorCode.AGENT_NOT_FOUND, "agent 'x' ended") in answers(effects)


def test_whoever_waits_for_an_agent_that_does_not_come_up_is_refused():
    hub = open_hub()
    client = attach(hub)
    start(hub, "x", client)
    hub.request(client, WaitAgent(X))

    effects = hub.handle(AgentNotStarted("id-1", "no"))

    failed = (ErrorCode.SPAWN_FAILED, "spawn failed: no")
    assert answers(effects) == [Failure(2, *failed), Failure(3, *failed)]


# Ending.


@pytest.mark.parametrize(
    ("message", "outcome"),
    [
        (Completed("goal", "42"), Done("42")),
        (Completed("shutdown"), Done("")),
        (Completed("some new reason", "42"), Done("42")),
        (Completed("error", "boom", "line 1"), Failed("boom", "line 1")),
        (Completed("error"), Failed("the agent failed and did not say why")),
        (Completed("aborted", "ctrl-c"), Cancelled("ctrl-c")),
        (Completed("aborted"), Cancelled("the agent was interrupted")),
    ],
)
def test_what_an_agent_says_last_is_its_outcome(message, outcome):
    hub = open_hub()
    x, client = begin(hub), attach(hub)
    hub.request(client, WaitAgent(X))

    assert quietly(hub.notify(x, message)) == [StopAgent("id-1"), Send(client, Response(2, waited(outcome)))]


def test_an_agent_that_dies_without_a_word_has_failed_with_the_reason():
    hub = open_hub()
    begin(hub)
    client = attach(hub)
    hub.request(client, WaitAgent(X))

    effects = hub.handle(AgentEnded("id-1", "exit status 3: boom"))

    outcome = Failed("it ended without a result: exit status 3: boom")
    assert quietly(effects) == [Send(client, Response(2, waited(outcome)))]


@pytest.mark.parametrize(
    ("completed", "outcome"),
    [
        (Completed("goal", ""), Failed("the model says no")),
        (Completed("goal"), Failed("the model says no")),
        (Completed("goal", "42"), Done("42")),
        (Completed("shutdown"), Done("")),
    ],
)
def test_an_agent_that_reports_an_error_and_then_ends_without_a_result_has_failed(completed, outcome):
    hub = open_hub()
    client = attach(hub)
    x = begin(hub, by=client)
    hub.request(client, WaitAgent(X))
    hub.notify(x, AgentEvent(None, Error("the model says no")))

    [answer] = answers(hub.notify(x, completed), client)

    assert answer.result.outcome == outcome


def test_an_agent_ends_once():
    hub = open_hub()
    x = begin(hub)
    hub.notify(x, Completed(result_text="first"))

    assert hub.notify(x, Completed(result_text="second")) == []
    assert hub.handle(AgentEnded("id-1", "exit status 0")) == []

    assert outcome_of(hub) == Done("first")


def test_an_agent_that_ends_before_it_has_answered_its_start_was_up():
    hub = open_hub()
    client, peer = attach(hub), hub.new_peer()
    start(hub, "x", client)
    hub.handle(AgentStarted("id-1", peer))
    hub.receive(peer, Response(1, Initialized()))

    effects = hub.notify(peer, Completed(result_text="fast"))

    assert answers(effects) == [Response(2, Spawned("id-1", "x"))]
    assert outcome_of(hub) == Done("fast")


def test_the_end_of_an_agent_is_an_event():
    hub = open_hub()
    x, watcher = begin(hub), attach(hub, role=Role.OBSERVER)
    hub.request(watcher, Subscribe())

    [event] = notices(hub.notify(x, Completed(result_text="y" * 1000)), watcher)

    assert (event.agent, event.payload) == ("x", Ended("done", "y" * 200))


def test_what_an_agent_that_has_ended_still_wants_is_ignored():
    hub = open_hub()
    x = begin(hub)
    hub.notify(x, Completed())

    assert hub.request(x, Status()) == []


def test_calls_to_an_agent_that_ends_fail_at_once():
    hub = open_hub()
    x, client = begin(hub), attach(hub)
    hub.request(client, Route(envelope("x")))

    [failure] = answers(hub.notify(x, Completed()), client)

    assert failure.code is ErrorCode.CONNECTION_LOST


def test_an_agent_that_ends_no_longer_watches():
    hub = open_hub()
    x = begin(hub)
    hub.request(x, Subscribe())

    hub.notify(x, Completed())

    assert hub.core._timeline._subscribers == {}


def test_an_agent_that_waits_for_itself_is_not_answered_when_it_is_gone():
    hub = open_hub()
    x = begin(hub)
    hub.request(x, WaitAgent(X))
    hub.request(x, ShutdownAgent(X))

    assert sent(hub.handle(AgentEnded("id-1", "killed")), x) == []


# Waiting.


def test_any_number_may_wait_and_all_get_the_same():
    hub = open_hub()
    x = begin(hub)
    clients = [attach(hub, name) for name in ("ann", "bob")]
    y = begin(hub, "y")
    for peer in (*clients, y):
        assert hub.request(peer, WaitAgent(X)) == []

    effects = hub.notify(x, Completed(result_text="42"))

    expected = waited(Done("42"))
    assert answers(effects) == [Response(2, expected), Response(2, expected), Response(1, expected)]


def test_a_late_waiter_gets_the_outcome_for_an_hour():
    hub = open_hub()
    hub.notify(begin(hub), Completed(result_text="42"))

    hub.advance(3599.0)
    assert outcome_of(hub) == Done("42")
    hub.advance(1.0)

    client = attach(hub)
    assert answers(hub.request(client, WaitAgent(X)))[0].code is ErrorCode.AGENT_NOT_FOUND


def test_a_wait_ends_when_its_time_is_up_and_the_agent_goes_on():
    hub = open_hub()
    x, client = begin(hub), attach(hub)
    hub.request(client, WaitAgent(X, timeout_ms=1500))

    assert hub.advance(1.4) == []
    effects = hub.advance(0.1)

    assert effects == [
        Send(client, Response(2, Waited("(agent timed out)", timed_out=True, agent="x", agent_id="id-1")))
    ]
    assert answers(hub.notify(x, Completed()), client) == []


def test_a_wait_that_is_cancelled_is_over():
    hub = open_hub()
    x, client = begin(hub), attach(hub)
    hub.request(client, WaitAgent(X))

    assert hub.notify(client, CancelRequest(2)) == [
        Send(client, Failure(2, ErrorCode.CANCELLED, "cancelled by its caller"))
    ]
    assert hub.core.next_deadline() is None
    assert answers(hub.notify(x, Completed())) == []


def test_a_waiter_that_is_gone_is_forgotten():
    hub = open_hub()
    x, client = begin(hub), attach(hub)
    hub.request(client, WaitAgent(X))
    hub.lose(client)

    assert hub.core.next_deadline() is None
    assert answers(hub.notify(x, Completed())) == []


def test_waiting_for_nobody_is_an_error_at_once():
    hub = open_hub()
    client = attach(hub)

    detail = "no agent 'x' on hub 'here'"
    assert hub.request(client, WaitAgent(X)) == [Send(client, Failure(2, ErrorCode.AGENT_NOT_FOUND, detail))]


def test_a_used_name_never_gives_the_result_of_another_run_to_who_knows_which_one():
    hub = open_hub()
    hub.notify(begin(hub), Completed(result_text="first"))
    client = attach(hub)
    begin(hub, "x", client)

    assert outcome_of(hub, "x", "id-1") == Done("first")
    [failure] = answers(hub.request(client, WaitAgent(X, "id-9")))
    assert failure.code is ErrorCode.AGENT_NOT_FOUND
    assert hub.request(client, WaitAgent(X, "id-2")) == []


def test_details_of_an_agent_that_has_ended_say_how():
    hub = open_hub()
    hub.notify(begin(hub), Completed("error", "boom"))
    client = attach(hub)

    details = AgentDetails("x", 'Failed("boom")', "boom", id="id-1", type="t", outcome=Failed("boom"))
    assert hub.request(client, AgentInfo(X)) == [Send(client, Response(2, details))]


# A parent gets the outcome once.


def told(name: str, text: str) -> Envelope:
    """The message that tells a parent."""
    content = UserContent(wrap_result(name, text))
    return Envelope("id-3", SystemSource("agent-completed"), X, content, "1970-01-01T00:00:00+00:00")


@pytest.mark.parametrize("notify", [None, True])
def test_a_parent_that_does_not_wait_gets_the_outcome_as_a_message(notify):
    hub = open_hub()
    x = begin(hub, "x")
    y = begin(hub, "y", x, notify_parent=notify)

    effects = hub.notify(y, Completed("error", "boom"))

    assert requests(effects, x) == [DeliverEnvelope(told("y", "[failed] boom"))]


@pytest.mark.parametrize("notify", [None, True, False])
def test_a_parent_that_waits_gets_the_outcome_as_the_answer_and_not_again(notify):
    hub = open_hub()
    x = begin(hub, "x")
    y = begin(hub, "y", x, notify_parent=notify)
    hub.request(x, WaitAgent(Y))

    effects = hub.notify(y, Completed(result_text="42"))

    assert sent(effects, x) == [Response(2, waited(Done("42"), "y", "id-2"))]


def test_a_parent_that_does_not_want_to_be_told_is_not():
    hub = open_hub()
    x = begin(hub, "x")
    y = begin(hub, "y", x, notify_parent=False)

    assert sent(hub.notify(y, Completed(result_text="42")), x) == []
    assert outcome_of(hub, "y") == Done("42")


def test_another_agent_with_the_name_of_the_parent_is_not_the_parent():
    hub = open_hub()
    x = begin(hub, "x")
    y = begin(hub, "y", x, detached=True)
    hub.notify(x, Completed())
    namesake = begin(hub, "x")

    assert sent(hub.notify(y, Completed(result_text="42")), namesake) == []


# Stopping.


@pytest.mark.parametrize("message", [ShutdownAgent(X), CancelAgent(X, reason="enough")])
def test_a_stop_asks_first_then_sees_to_it_and_is_done_when_the_agent_is_gone(message):
    hub = open_hub()
    x, client = begin(hub), attach(hub)

    asking = hub.request(client, message)
    asked = hub.receive(x, Response(3, OK))
    gone = hub.handle(AgentEnded("id-1", "exit status 0"))

    assert asking == [Send(x, Notification(Interrupt())), Send(x, Request(3, Shutdown()))]
    assert asked == [StopAgent("id-1")]
    cancelled = message == CancelAgent(X, reason="enough")
    result = waited(Cancelled("enough")) if cancelled else OK
    assert quietly(gone) == [Send(client, Response(2, result))]


def test_an_agent_that_does_not_answer_is_stopped_after_a_quarter_of_its_grace():
    hub = open_hub()
    begin(hub)
    hub.request(attach(hub), ShutdownAgent(X))

    assert hub.advance(1.24) == []
    assert hub.advance(0.01) == [StopAgent("id-1")]
    assert hub.core.agents.local("x") is not None


def test_an_agent_that_says_goodbye_while_it_is_stopped_is_cancelled_when_it_is_gone():
    hub = open_hub()
    x, client = begin(hub), attach(hub)
    hub.request(client, ShutdownAgent(X))

    assert answers(hub.notify(x, Completed("shutdown", "half a result"))) == []
    assert answers(hub.handle(AgentEnded("id-1", "exit status 0"))) == [Response(2, OK)]

    assert outcome_of(hub) == Cancelled("shutdown")


def test_stopping_twice_is_answered_twice_and_asked_once():
    hub = open_hub()
    x, client = begin(hub), attach(hub)
    hub.request(client, ShutdownAgent(X))

    assert hub.request(client, CancelAgent(X)) == []
    hub.receive(x, Response(3, OK))
    effects = hub.handle(AgentEnded("id-1", "exit status 0"))

    assert [frame.id for frame in answers(effects, client)] == [3, 2]


def test_cancelling_an_agent_that_has_ended_gives_its_outcome():
    hub = open_hub()
    hub.notify(begin(hub), Completed(result_text="42"))
    client = attach(hub)

    assert hub.request(client, CancelAgent(X)) == [Send(client, Response(2, waited(Done("42"))))]


def test_a_stop_reaches_all_descendants_but_those_that_are_detached():
    hub = open_hub()
    x = begin(hub, "x")
    y = begin(hub, "y", x)
    z = begin(hub, "z", y)
    d = begin(hub, "d", x, detached=True)

    effects = hub.request(attach(hub), ShutdownAgent(X))

    assert [(effect.peer, effect.frame.message) for effect in effects] == [
        (peer, message) for peer in (x, y, z) for message in (Interrupt(), Shutdown())
    ]
    for agent_id in ("id-1", "id-2", "id-3"):
        hub.handle(AgentEnded(agent_id, "exit status 0"))
    assert outcome_of(hub, "z") == Cancelled("its parent 'y' was stopped")
    assert hub.core.agents.local("d").peer == d


@pytest.mark.parametrize("how", ["completes", "dies"])
def test_children_of_an_agent_that_ends_are_stopped(how):
    hub = open_hub()
    x = begin(hub, "x")
    y = begin(hub, "y", x)

    effects = hub.notify(x, Completed()) if how == "completes" else hub.handle(AgentEnded("id-1", "killed"))
    hub.handle(AgentEnded("id-2", "exit status 0"))

    assert notices(effects, y) + requests(effects, y) == [Interrupt(), Shutdown()]
    assert outcome_of(hub, "y") == Cancelled("its parent 'x' ended")


@pytest.mark.parametrize("stage", ["not started", "started", "initialized"])
def test_stopping_an_agent_that_is_coming_up_answers_its_spawner_too(stage):
    hub = open_hub()
    client, peer = attach(hub), hub.new_peer()
    start(hub, "x", client)
    if stage != "not started":
        hub.handle(AgentStarted("id-1", peer))
    if stage == "initialized":
        hub.receive(peer, Response(1, Initialized()))

    stopping = hub.request(client, CancelAgent(X, reason="enough"))
    gone = hub.handle(AgentEnded("id-1", "stopped"))

    assert (StopAgent("id-1") in stopping) == (stage == "not started")
    assert answers(gone) == [
        Failure(2, ErrorCode.SPAWN_FAILED, "spawn failed: enough"),
        Response(3, waited(Cancelled("enough"))),
    ]
    assert hub.core.quiet


def test_an_agent_that_is_stopped_before_it_started_is_not_let_begin():
    hub = open_hub()
    client, peer = attach(hub), hub.new_peer()
    start(hub, "x", client)
    hub.handle(AgentStarted("id-1", peer))
    hub.request(client, CancelAgent(X))

    assert hub.receive(peer, Response(1, Initialized())) == []


def test_an_agent_that_is_stopped_and_then_cannot_start_is_cancelled():
    hub = open_hub()
    client = attach(hub)
    start(hub, "x", client)
    hub.request(client, CancelAgent(X, reason="enough"))

    effects = hub.handle(AgentNotStarted("id-1", "no such file"))

    assert answers(effects)[1] == Response(3, waited(Cancelled("enough")))


def test_an_agent_that_is_asked_too_much_already_is_stopped_without_asking():
    hub = open_hub(limits=Limits(calls_per_peer=1))
    x, client = begin(hub), attach(hub)
    hub.request(client, Route(envelope("x")))

    assert hub.request(client, ShutdownAgent(X)) == [Send(x, Notification(Interrupt())), StopAgent("id-1")]


def test_a_parent_that_is_being_stopped_is_not_told_of_its_children():
    hub = open_hub()
    x = begin(hub, "x")
    y = begin(hub, "y", x)
    hub.request(attach(hub), ShutdownAgent(X))

    assert requests(hub.handle(AgentEnded("id-2", "killed")), x) == []
    assert not hub.core.exchange.knows(y)


# Agents that have connected to us.


def test_an_external_agent_is_an_agent():
    hub = open_hub()
    x = attach(hub, "x", Role.AGENT)

    assert id_of(hub, "x") == "id-1"
    assert requests(hub.request(attach(hub), Route(envelope("x"))), x) != []
    hub.notify(x, Completed(result_text="42"))
    assert outcome_of(hub) == Done("42")


def test_an_external_agent_that_goes_is_lost():
    hub = open_hub()
    x = attach(hub, "x", Role.AGENT)
    hub.lose(x, "reset")

    assert outcome_of(hub) == Lost("connection lost: reset")


def test_an_external_agent_is_stopped_by_hanging_up():
    hub = open_hub()
    x, client = attach(hub, "x", Role.AGENT), attach(hub)
    hub.request(client, ShutdownAgent(X))

    assert hub.receive(x, Response(1, OK)) == [Disconnect(x, "stopped")]
    assert answers(hub.lose(x, "stopped")) == [Response(2, OK)]
    assert outcome_of(hub) == Cancelled("shutdown")


# Closing.


def test_a_hub_that_closes_stops_everything_and_is_quiet_when_all_are_gone():
    hub = open_hub()
    x = begin(hub, "x")
    begin(hub, "y", x)

    assert [type(message) for message in requests(hub.handle(Closing()))] == [Shutdown, Shutdown]
    assert not hub.core.quiet
    hub.handle(AgentEnded("id-1", "killed"))
    hub.handle(AgentEnded("id-2", "killed"))

    assert hub.core.quiet
    assert outcome_of(hub, "x") == Cancelled("hub 'here' is closing")


@pytest.mark.parametrize("message", [SpawnAgent(SpawnSpec("y")), Register("y", TOKEN)])
def test_a_hub_that_closes_takes_no_agent(message):
    hub = open_hub()
    peer = attach(hub) if isinstance(message, SpawnAgent) else hub.connect()
    hub.handle(Closing())

    [failure] = sent(hub.request(peer, message))

    assert (failure.code, failure.detail) == (ErrorCode.SPAWN_FAILED, "hub 'here' is closing")


def test_results_are_kept_as_long_as_set():
    hub = open_hub(Timeouts(result_ttl=10.0))
    hub.notify(begin(hub), Completed())

    assert unlogged(hub.advance(10.0)) == []
    assert hub.core.next_deadline() is None
