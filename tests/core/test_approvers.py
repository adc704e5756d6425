"""A permission reaches the operators of other hubs: what the MetaHub shows them, and what their hubs do with it."""

from __future__ import annotations

import pytest

from loopal_cluster.config import Limits, Policy
from loopal_cluster.core.effects import Log, Send
from loopal_cluster.core.parties import PROTOCOL
from loopal_cluster.errors import ErrorCode
from loopal_cluster.frames import Failure, Notification, Request, Response
from loopal_cluster.messages import (
    NULL,
    Answers,
    CancelRequest,
    Decided,
    Decision,
    Permission,
    Protocol,
    Question,
    Role,
)
from loopal_cluster.records import evolve

from .builders import (
    answers,
    attach,
    begin,
    join,
    join_base,
    join_meta,
    notices,
    open_hub,
    open_meta,
    requests,
    unlogged,
)

# At the MetaHub.

RM = Permission("Bash", NULL, "call-1", agent_name="x", ask_id="a's", timeout_ms=60_000)
SHOWN = Permission("Bash", NULL, "call-1", agent_name="a/x", ask_id="id-1", timeout_ms=60_000)


def taken_back(peer, allow: bool | None, by: str | None, call_id: int = 1) -> list[Send]:
    """What a judge gets who did not answer."""
    return [
        Send(peer, Notification(Decided("id-1", by, allow))),
        Send(peer, Notification(CancelRequest(call_id))),
    ]


def test_an_ask_is_shown_to_the_operators_of_the_meta_hub_and_to_every_hub_but_the_one_that_asks():
    meta = open_meta()
    a, b, c = (join(meta, name) for name in "abc")
    ann = attach(meta, "ann", Role.OPERATOR)

    assert meta.request(a, RM) == [Send(peer, Request(1, SHOWN)) for peer in (ann, b, c)]


def test_the_answer_of_a_hub_says_whose_it_is_and_the_others_are_told():
    meta = open_meta()
    a, b, c = (join(meta, name) for name in "abc")
    ann = attach(meta, "ann", Role.OPERATOR)
    meta.request(a, RM)

    first = meta.receive(b, Response(1, Decision(allow=True, by="bob")))
    second = meta.receive(c, Response(1, Decision(allow=False, by="cleo")))

    assert first == [
        Send(a, Response(2, Decision(allow=True, by="bob at b"))),
        *taken_back(ann, allow=True, by="bob at b"),
        *taken_back(c, allow=True, by="bob at b"),
    ]
    assert second == []


@pytest.mark.parametrize(
    "protocol", [None, Protocol(1, ("announce", "ask", "complete", "leave", "reconcile"))]
)
def test_a_hub_that_does_not_judge_is_not_asked(protocol):
    meta = open_meta()
    a, b = join(meta, "a"), join(meta, "b", protocol=protocol)

    assert requests(meta.request(a, RM), b) == []


def test_nobody_is_left_to_ask_if_all_others_are_base_hubs_and_that_is_logged():
    meta = open_meta()
    a = join(meta, "a")
    join_base(meta, "b")

    detail = "a/x asks a permission (Bash), and no operator is attached; it waits 60 s"
    assert meta.request(a, RM) == [Log("WARNING", detail)]


def test_what_a_base_hub_asks_is_judged_on_other_hubs_too():
    meta = open_meta()
    a, b = join_base(meta, "a"), join(meta, "b")
    meta.request(a, Permission("Bash", agent_name="x"))

    assert meta.receive(b, Response(1, Decision(allow=True, by="bob"))) == [
        Send(a, Response(2, Decision(allow=True, by="bob at b")))
    ]


def test_a_hub_that_joins_later_is_shown_what_is_asked():
    meta = open_meta()
    a = join(meta, "a")
    meta.request(a, RM)

    b = meta.new_peer() + 1
    assert join(meta, "b") == b

    assert meta.receive(b, Response(1, Decision(allow=True, by="bob"))) == [  # type: ignore[arg-type]
        Send(a, Response(2, Decision(allow=True, by="bob at b")))
    ]


def test_who_comes_later_is_told_how_much_time_is_left():
    meta = open_meta()
    a = join(meta, "a")
    meta.request(a, RM)
    meta.advance(20.0)

    b, ann = join(meta, "b"), attach(meta, "ann", Role.OPERATOR)

    left = [call.message.timeout_ms for call in meta.core.exchange.calls if call.peer in (b, ann)]  # type: ignore[attr-defined]
    assert left == [40_000, 40_000]


@pytest.mark.parametrize(
    ("asked_ms", "shown_ms"), [(2**63 - 1, 24 * 3600 * 1000), (-(2**63), 0), (60_000, 60_000)]
)
def test_no_hub_has_an_approval_wait_for_ever_or_for_less_than_no_time(asked_ms, shown_ms):
    meta = open_meta()
    a, b = join(meta, "a"), join(meta, "b")

    shown = requests(meta.request(a, evolve(RM, timeout_ms=asked_ms)), b)

    assert [permission.timeout_ms for permission in shown] == [shown_ms]


def test_a_hub_that_fails_or_leaves_has_not_answered_and_is_asked_again_when_it_is_back():
    meta = open_meta()
    a, b, c = (join(meta, name) for name in "abc")
    meta.request(a, RM)

    assert answers(meta.receive(c, Failure(1, ErrorCode.NO_OPERATOR, "nobody")), a) == []
    assert answers(meta.lose(b), a) == []
    again = join(meta, "b")

    assert answers(meta.receive(again, Response(1, Decision(allow=False, by="bob"))), a) == [
        Response(2, Decision(allow=False, by="bob at b"))
    ]


def test_a_hub_that_is_away_is_not_asked_until_it_is_back():
    meta = open_meta()
    a, b = join(meta, "a"), join(meta, "b")
    meta.lose(b)

    assert requests(meta.request(a, RM)) == []
    again = join(meta, "b")

    [call] = [call for call in meta.core.exchange.calls if call.peer == again]
    assert call.message == SHOWN


def test_a_hub_that_comes_back_on_a_new_connection_is_not_asked_what_it_asks_itself():
    meta = open_meta()
    a, b = join(meta, "a"), join(meta, "b")
    meta.request(a, RM)

    again = join(meta, "a")

    assert [call for call in meta.core.exchange.calls if call.peer in (a, again)] == []
    assert meta.receive(b, Response(1, Decision(allow=True, by="bob"))) == []
    [shown] = requests(meta.request(again, RM), b)
    assert shown.ask_id == "id-2"


def test_an_answer_of_the_asking_hub_itself_is_told_to_all_judges():
    meta = open_meta()
    a, b = join(meta, "a"), join(meta, "b")
    meta.request(a, RM)

    assert meta.notify(b, Decided("a's", "mallory", allow=True)) == []
    told = meta.notify(a, Decided("a's", "olga", allow=True))
    cancelled = meta.notify(a, CancelRequest(2))

    detail = "it has been answered, or taken back"
    assert told == [
        Send(a, Failure(2, ErrorCode.CANCELLED, detail)),
        *taken_back(b, allow=True, by="olga at a"),
    ]
    assert cancelled == []


def test_nobody_has_decided_what_a_policy_has():
    meta = open_meta()
    a, b = join(meta, "a"), join(meta, "b")
    meta.request(a, RM)

    assert notices(meta.notify(a, Decided("a's", "policy", allow=False)), b) == [
        Decided("id-1", "policy", allow=False),
        CancelRequest(1),
    ]


@pytest.mark.parametrize("how", ["cancels", "is lost"])
def test_what_is_no_longer_asked_is_taken_back_from_the_other_hubs(how):
    meta = open_meta()
    a, b = join(meta, "a"), join(meta, "b")
    meta.request(a, RM)

    effects = unlogged(meta.notify(a, CancelRequest(2)) if how == "cancels" else meta.lose(a))

    assert effects[:2] == taken_back(b, allow=None, by=None)
    assert meta.receive(b, Response(1, Decision(allow=True))) == []


# At a hub with an operator, for an agent of another hub.

ASKED = Permission("Bash", NULL, "call-1", agent_name="a/x", ask_id="meta's", timeout_ms=60_000)


def shown(ask_id: str) -> Permission:
    """What an operator sees of ``ASKED``."""
    return Permission("Bash", NULL, "call-1", agent_name="a/x", ask_id=ask_id, timeout_ms=60_000)


def test_a_hub_shows_its_operators_what_an_agent_of_another_hub_asks_and_says_who_answered():
    hub = open_hub()
    up = join_meta(hub)
    ann, bob = (attach(hub, name, Role.OPERATOR) for name in ("ann", "bob"))

    asked = hub.request(up, ASKED)
    answered = hub.receive(bob, Response(1, Decision(allow=True)))

    assert asked == [Send(peer, Request(1, shown("id-1"))) for peer in (ann, bob)]
    assert answered == [
        Send(up, Response(1, Decision(allow=True, by="bob"))),
        Send(ann, Notification(Decided("id-1", "bob", allow=True))),
        Send(ann, Notification(CancelRequest(1))),
    ]


def test_an_operator_who_comes_later_is_shown_it_and_until_then_nobody_is_told():
    hub = open_hub()
    up = join_meta(hub)

    assert hub.request(up, ASKED) == []
    ann = attach(hub, "ann", Role.OPERATOR)

    assert hub.receive(ann, Response(1, Decision(allow=False, reason="no"))) == [
        Send(up, Response(1, Decision(allow=False, reason="no", by="ann")))
    ]


@pytest.mark.parametrize("policy", list(Policy))
def test_the_policy_of_a_hub_is_not_for_the_agents_of_others(policy):
    hub = open_hub(policy=policy)
    up, ann = join_meta(hub), attach(hub, "ann", Role.OPERATOR)

    assert requests(hub.request(up, ASKED), ann) == [shown("id-1")]
    assert len(requests(hub.request(up, Question(ask_id="q")), ann)) == 1


def test_it_never_goes_up_again():
    hub = open_hub()
    up = join_meta(hub)
    hub.request(up, ASKED)
    ann = attach(hub, "ann", Role.OPERATOR)

    assert requests(hub.lose(ann), up) == []
    assert (
        requests(hub.receive(attach(hub, "bob", Role.OPERATOR), Failure(1, ErrorCode.REFUSED, "no")), up)
        == []
    )


def test_when_its_time_is_up_it_is_refused_and_not_denied():
    hub = open_hub()
    up, ann = join_meta(hub), attach(hub, "ann", Role.OPERATOR)
    hub.request(up, Permission("Bash", timeout_ms=2000))

    refused = answers(hub.advance(2.9), up), answers(hub.advance(0.1), up)

    assert refused == ([], [Failure(1, ErrorCode.NO_OPERATOR, "no operator answered within 2 s")])
    assert hub.receive(ann, Response(1, Decision(allow=True))) == []


def test_operators_are_told_who_has_decided_elsewhere():
    hub = open_hub()
    up, ann = join_meta(hub), attach(hub, "ann", Role.OPERATOR)
    hub.request(up, ASKED)

    told = hub.notify(up, Decided("meta's", "cleo at c", allow=True))

    assert notices(told, ann) == [Decided("id-1", "cleo at c", allow=True), CancelRequest(1)]
    assert answers(told, up) == [Failure(1, ErrorCode.CANCELLED, "it has been answered, or taken back")]
    assert hub.notify(up, CancelRequest(1)) == []
    assert hub.receive(ann, Response(1, Decision(allow=False))) == []


def test_an_ask_that_is_taken_back_is_no_longer_shown():
    hub = open_hub()
    up, ann = join_meta(hub), attach(hub, "ann", Role.OPERATOR)
    hub.request(up, ASKED)

    taken = hub.notify(up, CancelRequest(1))

    assert notices(taken, ann) == [Decided("id-1", None), CancelRequest(1)]


def test_only_the_meta_hub_says_that_something_is_decided():
    hub = open_hub()
    x, up, ann = begin(hub), join_meta(hub), attach(hub, "ann", Role.OPERATOR)
    hub.request(up, ASKED)
    hub.request(x, Permission("Bash", ask_id="mine"))

    for peer in (x, ann):
        assert hub.notify(peer, Decided("meta's", "mallory", allow=True)) == []
        assert hub.notify(peer, Decided("mine", "mallory", allow=True)) == []


def test_when_the_meta_hub_is_lost_what_it_asked_is_taken_back():
    hub = open_hub()
    up, ann = join_meta(hub), attach(hub, "ann", Role.OPERATOR)
    hub.request(up, ASKED)

    lost = hub.lose(up)

    assert notices(lost, ann) == [Decided("id-1", None), CancelRequest(1)]
    assert hub.receive(ann, Response(1, Decision(allow=True))) == []


def test_the_answers_to_a_question_go_back_too():
    hub = open_hub()
    up, ann = join_meta(hub), attach(hub, "ann", Role.OPERATOR)
    hub.request(up, Question(ask_id="meta's"))

    assert hub.receive(ann, Response(1, Answers(("yes",)))) == [
        Send(up, Response(1, Answers(("yes",), by="ann")))
    ]


def test_asks_of_other_hubs_do_not_keep_our_own_agents_from_asking():
    hub = open_hub(limits=Limits(asks=1, asks_shown_per_hub=1, asks_shown_per_agent=1))
    x, up, ann = begin(hub), join_meta(hub), attach(hub, "ann", Role.OPERATOR)
    hub.request(up, ASKED)

    [too_many] = answers(hub.request(up, ASKED), up)
    shown_too = requests(hub.request(x, Permission("Bash")), ann)

    assert too_many.code is ErrorCode.OVERLOADED
    assert len(shown_too) == 1


def test_hubs_and_meta_hubs_of_ours_judge():
    assert "judge" in PROTOCOL.features
