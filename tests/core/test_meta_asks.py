"""What a MetaHub does for spawns, outcomes, topology, watchers and humans."""

from __future__ import annotations

import pytest

from loopal_cluster.address import Address
from loopal_cluster.completions import wrap_result
from loopal_cluster.config import Limits
from loopal_cluster.core.effects import Send
from loopal_cluster.core.events import Peer
from loopal_cluster.errors import ErrorCode
from loopal_cluster.frames import Failure, Notification, Request, Response
from loopal_cluster.messages import (
    NULL,
    OK,
    AgentEvent,
    AgentNode,
    Answers,
    CancelRequest,
    ClusterEvent,
    ClusterTopology,
    Completion,
    Decided,
    Decision,
    DeliverEnvelope,
    Envelope,
    Heartbeat,
    HubComplete,
    HubTopology,
    MetaComplete,
    MetaSpawn,
    MetaTopology,
    Permission,
    Question,
    Role,
    SpawnAgent,
    Spawned,
    SpawnSpec,
    Status,
    StatusInfo,
    Subscribe,
    Subscribed,
    SystemSource,
    Topology,
    TopologyOf,
    UserContent,
)
from loopal_cluster.outcomes import Cancelled, Done, Failed
from loopal_cluster.payloads import Finished
from loopal_cluster.testing import sent

from .builders import answers, attach, join, join_base, open_meta, requests, unlogged

# Spawning.


def test_a_spawn_goes_to_its_hub_without_the_hub_and_with_the_parent_it_really_has():
    meta = open_meta()
    a, b = join(meta, "a"), join(meta, "b")

    spec = SpawnSpec("x", "do it", parent="a/main", target_hub="b", spawn_id="s-1", depth=1)
    there = meta.request(a, MetaSpawn(spec))
    back = meta.receive(b, Response(1, Spawned("s-1", "x")))

    passed_on = SpawnSpec("x", "do it", parent="a/main", spawn_id="s-1", depth=1)
    assert there == [Send(b, Request(1, SpawnAgent(passed_on)))]
    assert back == [Send(a, Response(2, Spawned("s-1", "x")))]


@pytest.mark.parametrize("claimed", ["b/main", "main", "c/d/main"])
def test_a_parent_is_always_an_agent_of_the_hub_that_asks(claimed):
    meta = open_meta()
    a, b = join(meta, "a"), join(meta, "b")

    [message] = requests(meta.request(a, MetaSpawn(SpawnSpec("x", parent=claimed, target_hub="b"))), b)

    assert message.spec.parent == "a/main"


def test_a_client_is_nobodys_parent_and_in_the_first_generation_whatever_it_claims():
    meta = open_meta()
    b, client = join(meta, "b"), attach(meta)
    spec = SpawnSpec("x", parent="b/main", target_hub="b", spawn_id="s-1", depth=5)

    assert requests(meta.request(client, SpawnAgent(spec)), b) == [SpawnAgent(SpawnSpec("x", spawn_id="s-1"))]


def test_what_a_client_spawns_has_an_identity_even_if_it_has_chosen_none():
    meta = open_meta()
    b, client = join(meta, "b"), attach(meta)

    [message] = requests(meta.request(client, SpawnAgent(SpawnSpec("x", target_hub="b"))), b)

    assert message == SpawnAgent(SpawnSpec("x", spawn_id="id-1"))


def test_a_spawn_without_a_hub_is_refused():
    meta = open_meta()
    a = join(meta, "a")

    assert meta.request(a, MetaSpawn(SpawnSpec("x"))) == [
        Send(a, Failure(2, ErrorCode.INVALID_REQUEST, "missing 'target_hub'"))
    ]


def test_a_spawn_on_an_unknown_hub_is_refused():
    meta = open_meta()
    a = join(meta, "a")

    assert meta.request(a, MetaSpawn(SpawnSpec("x", target_hub="b"))) == [
        Send(a, Failure(2, ErrorCode.HUB_NOT_CONNECTED, "hub 'b' not connected"))
    ]


def test_a_spawn_that_is_refused_is_refused_in_the_words_of_the_hub():
    meta = open_meta()
    a, b = join(meta, "a"), join(meta, "b")
    meta.request(a, MetaSpawn(SpawnSpec("x", target_hub="b")))

    assert meta.receive(b, Failure(1, ErrorCode.NAME_TAKEN, "agent name 'x' is taken")) == [
        Send(a, Failure(2, ErrorCode.NAME_TAKEN, "agent name 'x' is taken"))
    ]


# Outcomes.


def completion(agent: str, parent: str, outcome=Done("yes")) -> Completion:  # noqa: B008
    """An outcome on its way."""
    return Completion("s-1", Address.parse(agent), Address.parse(parent), outcome)


def test_an_outcome_goes_to_the_hub_of_the_parent():
    meta = open_meta()
    a, b = join(meta, "a"), join(meta, "b")
    report = completion("b/x", "a/main")

    assert meta.request(b, MetaComplete(report)) == [Send(a, Request(1, HubComplete(report)))]
    assert meta.receive(a, Response(1, OK)) == [Send(b, Response(2, OK))]


def test_a_hub_can_only_report_the_outcomes_of_its_own_agents():
    meta = open_meta()
    a, b = join(meta, "a"), join(meta, "b")

    [message] = requests(meta.request(b, MetaComplete(completion("c/x", "a/main"))), a)

    assert message.completion.agent == Address("x", "b")


@pytest.mark.parametrize(
    ("outcome", "text"),
    [
        (Done("yes"), "yes"),
        (Failed("boom"), "[failed] boom"),
        (Cancelled("enough"), "[cancelled] enough"),
    ],
)
def test_a_parent_on_a_hub_of_the_base_dialect_gets_the_outcome_in_words(outcome, text):
    meta = open_meta()
    a, b = join_base(meta, "a"), join(meta, "b")

    effects = meta.request(b, MetaComplete(completion("b/x", "a/main", outcome)))

    message = Envelope(
        id="id-1",
        source=SystemSource("agent-completed"),
        target=Address("main"),
        content=UserContent(wrap_result("x", text)),
        timestamp="1970-01-01T00:00:00+00:00",
    )
    assert effects == [Send(a, Request(1, DeliverEnvelope(message)))]


def test_an_outcome_for_a_hub_that_is_away_waits_for_it():
    meta = open_meta()
    a, b = join(meta, "a"), join(meta, "b")
    meta.lose(a)

    assert meta.request(b, MetaComplete(completion("b/x", "a/main"))) == []
    again = join(meta, "a")
    effects = meta.receive(again, Response(1, OK))

    assert answers(effects, b) == [Response(2, OK)]
    assert len(meta.core.exchange.calls) == 0


def test_an_outcome_for_a_hub_that_is_lost_is_refused_so_that_it_is_repeated():
    meta = open_meta()
    a, b = join(meta, "a"), join(meta, "b")
    meta.lose(a)
    meta.request(b, MetaComplete(completion("b/x", "a/main")))

    [failure] = answers(meta.advance(1.0), b)
    [again] = answers(meta.request(b, MetaComplete(completion("b/x", "a/main"))), b)

    assert failure.code is ErrorCode.CONNECTION_LOST
    assert again.code is ErrorCode.HUB_NOT_CONNECTED


def test_an_outcome_for_a_bare_parent_is_refused():
    meta = open_meta()
    b = join(meta, "b")

    [failure] = sent(meta.request(b, MetaComplete(completion("b/x", "main"))))

    assert failure == Failure(2, ErrorCode.INVALID_REQUEST, "parent 'main' is not qualified")


# Topology.

TREE = HubTopology((AgentNode("x"),))


def test_the_topology_is_gathered_from_all_hubs_at_once():
    meta = open_meta()
    a, b = join(meta, "a"), join_base(meta, "b")

    asked = meta.request(a, MetaTopology())
    assert meta.receive(b, Response(1, HubTopology(()))) == []
    done = meta.receive(a, Response(1, TREE))

    assert asked == [Send(peer, Request(1, Topology())) for peer in (a, b)]
    parts = (TopologyOf("a", TREE), TopologyOf("b", HubTopology(())))
    assert done == [Send(a, Response(2, ClusterTopology(parts)))]


def test_a_hub_that_cannot_say_is_in_the_topology_with_the_reason():
    meta = open_meta(limits=Limits(calls_per_peer=16384))
    client = attach(meta)
    late, gone, refusing, away = (join(meta, name) for name in ("late", "gone", "refusing", "away"))
    meta.lose(away)
    meta.request(client, MetaTopology())
    meta.lose(gone)
    meta.receive(refusing, Failure(1, ErrorCode.OVERLOADED, "busy"))

    assert answers(meta.advance(4.9), client) == []
    [answer] = answers(meta.advance(0.1), client)

    errors = {part.hub: part.error for part in answer.result.hubs}
    assert errors == {"late": "timeout", "gone": "unreachable", "refusing": "busy", "away": "unreachable"}
    assert meta.receive(late, Response(1, TREE)) == []


def test_the_topology_of_no_hubs_is_empty():
    meta = open_meta()
    client = attach(meta)

    assert meta.request(client, MetaTopology()) == [Send(client, Response(2, ClusterTopology(())))]


def test_whoever_goes_while_the_topology_is_gathered_is_not_answered():
    meta = open_meta()
    a, client = join(meta, "a"), attach(meta)
    meta.request(client, MetaTopology())
    meta.lose(client)

    assert meta.receive(a, Response(1, TREE)) == []


def test_the_status_counts_the_agents_of_all_hubs():
    meta = open_meta()
    client = attach(meta)
    for name, count in (("a", 2), ("b", 3)):
        meta.notify(join(meta, name), Heartbeat(name, count))

    assert meta.request(client, Status()) == [Send(client, Response(2, StatusInfo(5, None)))]


# Events.


def test_an_event_of_a_hub_reaches_those_who_watch_with_the_name_of_the_hub():
    meta = open_meta()
    a, watcher = join(meta, "a"), attach(meta, role=Role.OBSERVER)

    assert meta.request(watcher, Subscribe()) == [Send(watcher, Response(2, Subscribed(1)))]

    assert meta.notify(a, AgentEvent("x", Finished())) == [
        Send(watcher, Notification(ClusterEvent(2, 0.0, "a", "x", Finished())))
    ]


def test_who_watches_may_be_gone():
    meta = open_meta()
    a, watcher = join(meta, "a"), attach(meta, role=Role.OBSERVER)
    meta.request(watcher, Subscribe())
    meta.lose(watcher)

    assert meta.notify(a, AgentEvent("x", Finished())) == []


def test_strangers_are_not_listened_to():
    meta = open_meta()
    watcher, stranger = attach(meta, role=Role.OBSERVER), meta.connect()
    meta.request(watcher, Subscribe())

    assert meta.notify(stranger, AgentEvent("x", Finished())) == []
    assert meta.notify(watcher, AgentEvent("x", Finished())) == []


# Permissions and questions.

RM = Permission("Bash", NULL, "call-1", agent_name="x")
SHOWN = Permission("Bash", NULL, "call-1", agent_name="a/x", ask_id="id-1", timeout_ms=300_000)


def told(peer, allow: bool | None, by: str | None, call_id: int = 1) -> list[Send]:
    """What an operator gets who did not answer."""
    return [
        Send(peer, Notification(Decided("id-1", by, allow))),
        Send(peer, Notification(CancelRequest(call_id))),
    ]


def test_a_permission_is_shown_to_the_operator_and_its_answer_passed_on_with_a_name():
    meta = open_meta()
    a, ann = join(meta, "a"), attach(meta, "ann", Role.OPERATOR)

    assert meta.request(a, RM) == [Send(ann, Request(1, SHOWN))]
    assert meta.receive(ann, Response(1, Decision(allow=True))) == [
        Send(a, Response(2, Decision(allow=True, by="ann")))
    ]


def test_the_first_answer_wins_and_the_others_are_told():
    meta = open_meta()
    a = join(meta, "a")
    ann, bob = (attach(meta, name, Role.OPERATOR) for name in ("ann", "bob"))
    assert meta.request(a, RM) == [Send(peer, Request(1, SHOWN)) for peer in (ann, bob)]

    decision = Decision(allow=False, reason="no", by="bob")
    first = meta.receive(bob, Response(1, Decision(allow=False, reason="no")))
    second = meta.receive(ann, Response(1, Decision(allow=True)))

    assert first == [Send(a, Response(2, decision)), *told(ann, allow=False, by="bob")]
    assert second == []


def test_an_operator_who_leaves_has_not_answered():
    meta = open_meta()
    a = join(meta, "a")
    ann, bob = (attach(meta, name, Role.OPERATOR) for name in ("ann", "bob"))
    meta.request(a, RM)

    assert meta.lose(ann) == []
    assert answers(meta.receive(bob, Response(1, Decision(allow=True))), a) == [
        Response(2, Decision(allow=True, by="bob"))
    ]


def test_an_operator_who_fails_has_not_answered():
    meta = open_meta()
    a = join(meta, "a")
    ann, bob = (attach(meta, name, Role.OPERATOR) for name in ("ann", "bob"))
    meta.request(a, RM)

    assert meta.receive(ann, Failure(1, ErrorCode.REFUSED, "crashed")) == []
    assert meta.receive(bob, Response(1, Decision(allow=True))) == [
        Send(a, Response(2, Decision(allow=True, by="bob")))
    ]


def test_an_operator_who_attaches_later_is_shown_what_is_asked():
    meta = open_meta()
    a = join(meta, "a")
    assert sent(meta.request(a, RM)) == []

    ann = meta.new_peer()
    assert attach(meta, "ann", Role.OPERATOR) == ann + 1

    meta.receive(a, Response(99, None))
    assert meta.receive(Peer(ann + 1), Response(1, Decision(allow=True))) == [
        Send(a, Response(2, Decision(allow=True, by="ann")))
    ]


@pytest.mark.parametrize("role", [Role.CLIENT, Role.OBSERVER])
def test_only_operators_are_asked(role):
    meta = open_meta()
    a = join(meta, "a")
    attach(meta, role=role)

    assert sent(meta.request(a, RM)) == []


def keep_alive(meta, a, seconds: float) -> list:
    """Let time pass while a hub sends heartbeats."""
    effects = []
    while seconds > 0:
        effects += meta.advance(min(15.0, seconds))
        meta.notify(a, Heartbeat("a"))
        seconds -= 15.0
    return effects


def test_a_permission_nobody_answers_is_denied_in_words():
    meta = open_meta()
    a, ann = join(meta, "a"), attach(meta, "ann", Role.OPERATOR)
    meta.request(a, RM)

    assert keep_alive(meta, a, 299.0) == []
    effects = keep_alive(meta, a, 1.0)

    reason = "no operator answered within 300 s"
    decision = Decision(allow=False, reason=reason, by="policy", unanswered=True)
    assert effects == [Send(a, Response(2, decision)), *told(ann, allow=False, by="policy")]


def test_the_hub_says_how_long_a_permission_may_take():
    meta = open_meta()
    a = join(meta, "a")
    meta.request(a, Permission("Bash", timeout_ms=2000))

    assert meta.advance(1.9) == []
    [decision] = answers(meta.advance(0.1), a)

    assert decision.result.reason == "nobody was there to answer within 2 s: no operator was attached"


def test_a_question_nobody_answers_is_refused_in_words():
    meta = open_meta()
    a = join(meta, "a")
    meta.request(a, Question(timeout_ms=2000))

    detail = "nobody was there to answer within 2 s: no operator was attached"
    assert meta.advance(2.0) == [Send(a, Failure(2, ErrorCode.NO_OPERATOR, detail))]


def test_the_answers_to_a_question_come_back_with_a_name():
    meta = open_meta()
    a, ann = join(meta, "a"), attach(meta, "ann", Role.OPERATOR)
    meta.request(a, Question())

    assert meta.receive(ann, Response(1, Answers(("yes",)))) == [
        Send(a, Response(2, Answers(("yes",), by="ann")))
    ]


@pytest.mark.parametrize("how", ["cancels", "is lost"])
def test_what_is_no_longer_asked_is_taken_back_from_the_operators(how):
    meta = open_meta()
    a, ann = join(meta, "a"), attach(meta, "ann", Role.OPERATOR)
    meta.request(a, RM)

    effects = unlogged(meta.notify(a, CancelRequest(2)) if how == "cancels" else meta.lose(a))

    assert effects[:2] == told(ann, allow=None, by=None)
    assert meta.receive(ann, Response(1, Decision(allow=True))) == []


def test_too_many_permissions_are_refused():
    meta = open_meta(limits=Limits(asks=1, asks_shown_per_hub=1, asks_shown_per_agent=1))
    a = join(meta, "a")
    meta.request(a, RM)

    [failure] = sent(meta.request(a, RM))

    assert failure.code is ErrorCode.OVERLOADED
