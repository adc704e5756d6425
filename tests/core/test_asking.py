"""An ask goes to one agent, is worked on once, and ends in one answer within its time."""

from __future__ import annotations

import pytest
from attrs import evolve

from loopal_cluster.config import Limits, Timeouts
from loopal_cluster.core.effects import Send
from loopal_cluster.core.events import AgentEnded, Closing, Peer
from loopal_cluster.errors import ErrorCode
from loopal_cluster.frames import Failure, Response
from loopal_cluster.messages import (
    AgentSource,
    CancelRequest,
    Completed,
    DeliverAsk,
    DeliverEnvelope,
    Found,
    HumanSource,
    MetaAsk,
    Progress,
    Protocol,
    RegisterHub,
    Reply,
    Resolve,
    Role,
    Route,
    Status,
    StatusInfo,
    WaitAgent,
)
from loopal_cluster.outcomes import Cancelled, Failed
from loopal_cluster.testing import CoreDriver, sent

from .builders import (
    FAR,
    TOKEN,
    agent_ask,
    answers,
    ask,
    attach,
    begin,
    call_of,
    calls,
    come_up,
    envelope,
    from_there,
    in_cluster,
    join_base,
    join_base_meta,
    meta_with,
    notices,
    open_hub,
    open_meta,
    rejoin,
    reply,
    requests,
    start,
)

# The way there and back.


def test_an_ask_of_an_agent_here_goes_to_it_with_the_sender_stamped_and_its_reply_comes_back():
    hub = open_hub()
    x, ann = begin(hub, "x"), attach(hub)

    [asked] = requests(hub.request(ann, ask()), x)
    effects = hub.answer(x, agent_ask(hub), reply())

    assert asked == DeliverAsk(evolve(ask().envelope, source=HumanSource()))
    assert answers(effects) == [Response(2, reply())]
    assert not calls(hub, DeliverAsk)


def test_an_agent_asks_under_its_own_name():
    hub = open_hub()
    x, y = begin(hub, "x"), begin(hub, "y")

    [asked] = requests(hub.request(x, ask("y")), y)

    assert asked.envelope.source == AgentSource("x")


def test_a_failure_of_the_agent_is_a_reply():
    hub = open_hub()
    x, ann = begin(hub, "x"), attach(hub)
    hub.request(ann, ask())

    effects = hub.answer(x, agent_ask(hub), Reply(Failed("no", "Traceback")))

    assert answers(effects, ann) == [Response(2, Reply(Failed("no", "Traceback")))]


def test_an_ask_of_an_agent_elsewhere_goes_up_with_its_time_and_its_reply_comes_back():
    hub, x, up = in_cluster()

    [asked] = requests(hub.request(x, ask(FAR)), up)
    effects = hub.receive(up, Response(call_of(hub, MetaAsk), reply()))

    assert (asked.envelope.timeout_ms, str(asked.envelope.target)) == (5000, FAR)
    assert answers(effects, x) == [Response(1, reply())]


def test_an_ask_without_a_time_has_that_of_the_hub_it_starts_from():
    hub, x, up = in_cluster(timeouts=Timeouts(ask_timeout=7.0))

    [asked] = requests(hub.request(x, ask(FAR, None)), up)

    assert asked.envelope.timeout_ms == 7000


@pytest.mark.parametrize(("given", "sent_on"), [(-5, 0), (0, 0), (2**63 - 1, 2**63 - 1)])
def test_the_time_of_an_ask_is_passed_on_as_an_integer_that_the_next_hub_takes(given, sent_on):
    hub, x, up = in_cluster()

    [asked] = requests(hub.request(x, ask(FAR, given)), up)

    assert asked.envelope.timeout_ms == sent_on


def test_a_meta_hub_brings_an_ask_to_the_hub_of_the_agent_and_the_reply_back():
    meta, [a, b] = meta_with("a", "b")
    source = AgentSource("x")

    [asked] = requests(meta.request(a, MetaAsk(evolve(ask("b/x").envelope, source=source))), b)
    effects = meta.receive(b, Response(call_of(meta, DeliverAsk), reply()))

    assert asked.envelope.source == AgentSource("a/x")
    assert asked.envelope.origin_hub == "a"
    assert str(asked.envelope.target) == "x"
    assert answers(effects) == [Response(3, reply())]


@pytest.mark.parametrize("message", [ask("b/x"), MetaAsk(ask("b/x").envelope)], ids=["hub/ask", "meta/ask"])
def test_a_client_of_a_meta_hub_asks_as_a_human_from_no_hub(message):
    meta, [b] = meta_with("b")

    [asked] = requests(meta.request(attach(meta), message), b)

    assert asked.envelope.source == HumanSource()
    assert asked.envelope.origin_hub is None


# Who is not asked.


def refusal(effects) -> Failure:
    [failure] = answers(effects)
    assert isinstance(failure, Failure)
    return failure


def test_an_unknown_agent_of_a_lonely_hub_is_not_found():
    hub = open_hub()

    assert refusal(hub.request(attach(hub), ask("nobody"))).code is ErrorCode.AGENT_NOT_FOUND


def test_an_observer_may_not_ask():
    hub = open_hub()
    begin(hub, "x")

    assert refusal(hub.request(attach(hub, "eve", Role.OBSERVER), ask())).code is ErrorCode.UNAUTHORIZED


@pytest.mark.parametrize(
    ("target", "code"),
    [
        ("nobody", ErrorCode.AGENT_NOT_FOUND),
        ("x", ErrorCode.AMBIGUOUS_NAME),
        ("z/x", ErrorCode.HUB_NOT_CONNECTED),
    ],
)
def test_a_meta_hub_says_why_it_cannot_ask(target, code):
    meta, _ = meta_with("a", "b")

    assert refusal(meta.request(attach(meta), ask(target))).code is code


def test_a_base_meta_hub_is_asked_nothing_it_does_not_know():
    hub = open_hub()
    x, up = begin(hub, "x"), join_base_meta(hub)

    effects = hub.request(x, ask(FAR))

    assert refusal(effects).code is ErrorCode.METHOD_NOT_FOUND
    assert not sent(effects, up)


@pytest.mark.parametrize("features", [None, ("announce", "complete")])
def test_a_hub_that_knows_no_asks_is_not_asked(features):
    meta = open_meta()
    old = join_base(meta, "b") if features is None else meta.connect()
    if features is not None:
        meta.request(old, RegisterHub("b", TOKEN, protocol=Protocol(1, features), instance="b-1"))

    effects = meta.request(attach(meta), ask("b/x"))

    assert refusal(effects) == Failure(
        2, ErrorCode.METHOD_NOT_FOUND, "hub 'b' takes messages for its agents, but no asks"
    )
    assert not sent(effects, old)


def test_a_bare_name_that_only_a_base_hub_has_is_refused_after_it_was_found():
    meta = open_meta()
    base, ann = join_base(meta, "b"), attach(meta)
    meta.request(ann, ask("x"))

    effects = meta.receive(base, Response(call_of(meta, Resolve), Found(found=True)))

    assert refusal(effects).code is ErrorCode.METHOD_NOT_FOUND


def test_an_agent_that_knows_no_asks_says_so():
    hub = open_hub()
    x, ann = begin(hub, "x"), attach(hub)
    hub.request(ann, ask())

    effects = hub.receive(x, Failure(agent_ask(hub).id, ErrorCode.METHOD_NOT_FOUND, "unknown: agent/ask"))

    assert refusal(effects) == Failure(
        2, ErrorCode.METHOD_NOT_FOUND, "delivery to 'x' failed: unknown: agent/ask"
    )


def test_a_full_inbox_is_overloaded_and_may_be_asked_again():
    hub, x, up = in_cluster()
    hub.request(up, from_there())

    first = hub.receive(x, Failure(agent_ask(hub).id, ErrorCode.OVERLOADED, "full"))
    again = hub.request(up, from_there())

    assert refusal(first).code is ErrorCode.OVERLOADED
    assert requests(again, x)


# The time that an ask has.


def test_a_reply_that_does_not_come_in_time_is_a_deadline_and_the_agent_is_told():
    hub = open_hub()
    x, ann = begin(hub, "x"), attach(hub)
    hub.request(ann, ask())
    request = agent_ask(hub)

    assert hub.advance(4.999) == []
    effects = hub.advance(0.001)

    assert notices(effects, x) == [CancelRequest(request.id)]
    assert refusal(effects).code is ErrorCode.DEADLINE_EXCEEDED


def test_an_ask_with_no_time_left_is_over_at_once():
    hub = open_hub()
    begin(hub, "x")
    hub.request(attach(hub), ask(timeout_ms=-1))

    assert refusal(hub.advance(0.0)).code is ErrorCode.DEADLINE_EXCEEDED


def test_a_late_reply_is_dropped_and_counted_and_the_answer_to_a_cancel_is_not():
    hub = open_hub()
    x, ann = begin(hub, "x"), attach(hub)
    for id_ in ("1", "2"):
        hub.request(ann, ask(message_id=id_))
    late, cancelled = calls(hub, DeliverAsk)
    hub.advance(5.0)

    effects = hub.receive(x, Response(late.id, reply()))
    effects += hub.receive(x, Failure(cancelled.id, ErrorCode.CANCELLED, "cancelled by its caller"))

    assert effects == []
    [status] = answers(hub.request(ann, Status()))
    assert isinstance(status.result, StatusInfo)
    assert status.result.late_answers == 1


def test_a_meta_hub_counts_late_replies_too():
    meta, [b] = meta_with("b")
    ann = attach(meta)
    meta.request(ann, ask("b/x"))
    call_id = call_of(meta, DeliverAsk)
    meta.advance(6.0)

    assert meta.receive(b, Response(call_id, reply())) == []
    [status] = answers(meta.request(ann, Status()))
    assert status.result.late_answers == 1


def test_each_hub_on_the_way_waits_a_second_longer_so_that_the_one_of_the_agent_reports_it():
    hub, x, _up = in_cluster()
    meta, [a, _] = meta_with("a", "b")
    hub.request(x, ask(FAR))
    meta.request(a, MetaAsk(ask("b/x").envelope))

    assert calls(hub, MetaAsk)[0].deadline == 7.0
    assert calls(meta, DeliverAsk)[0].deadline == 6.0


def test_progress_gives_an_ask_that_may_be_extended_its_time_anew_on_every_hub_of_the_way():
    hub, x, up = in_cluster()
    hub.request(up, from_there(extend=True))
    hub.advance(4.0)

    effects = hub.notify(x, Progress(agent_ask(hub).id))

    assert notices(effects, up) == [Progress(1)]
    assert hub.advance(4.9) == []
    assert refusal(hub.advance(0.1)).code is ErrorCode.DEADLINE_EXCEEDED


def test_progress_is_passed_on_by_the_hub_of_the_asker_and_the_meta_hub():
    hub, x, up = in_cluster()
    meta, [a, b] = meta_with("a", "b")
    hub.request(x, ask(FAR, extend=True))
    meta.request(a, MetaAsk(ask("b/x", extend=True).envelope))
    for driver in (hub, meta):
        driver.advance(4.0)

    assert notices(hub.notify(up, Progress(call_of(hub, MetaAsk)))) == [Progress(1)]
    assert notices(meta.notify(b, Progress(call_of(meta, DeliverAsk)))) == [Progress(3)]
    assert calls(hub, MetaAsk)[0].deadline == 11.0
    assert calls(meta, DeliverAsk)[0].deadline == 10.0


def test_progress_does_not_extend_what_may_not_be_extended():
    hub, x, up = in_cluster()
    meta, [a, b] = meta_with("a", "b")
    hub.request(up, from_there())
    hub.request(x, ask(FAR))
    meta.request(a, MetaAsk(ask("b/x").envelope))

    assert hub.notify(x, Progress(agent_ask(hub).id)) == []
    assert hub.notify(up, Progress(call_of(hub, MetaAsk))) == []
    assert meta.notify(b, Progress(call_of(meta, DeliverAsk))) == []
    assert refusal(hub.advance(5.0)).code is ErrorCode.DEADLINE_EXCEEDED


def test_progress_of_what_nobody_asked_or_by_somebody_else_means_nothing():
    hub = open_hub()
    x, y, ann = begin(hub, "x"), begin(hub, "y"), attach(hub)
    hub.request(ann, ask(extend=True))
    hub.advance(4.0)

    for peer, call_id in ((x, 99), (x, -1), (y, agent_ask(hub).id), (ann, agent_ask(hub).id)):
        assert hub.notify(peer, Progress(call_id)) == []

    assert refusal(hub.advance(1.0)).code is ErrorCode.DEADLINE_EXCEEDED


# Whoever asked no longer waits.


@pytest.mark.parametrize("how", ["withdraws", "is gone"])
def test_an_agent_is_told_when_nobody_waits_for_its_reply_any_more(how):
    hub = open_hub()
    x, ann = begin(hub, "x"), attach(hub)
    hub.request(ann, ask())
    call_id = agent_ask(hub).id

    effects = hub.notify(ann, CancelRequest(2)) if how == "withdraws" else hub.lose(ann)

    assert notices(effects, x) == [CancelRequest(call_id)]
    assert not calls(hub, DeliverAsk)
    assert [answer.code for answer in answers(effects)] == [ErrorCode.CANCELLED] * (how == "withdraws")


@pytest.mark.parametrize("how", ["withdraws", "is killed", "completes"])
def test_the_meta_hub_is_told_when_the_asking_agent_no_longer_waits(how):
    hub, x, up = in_cluster()
    hub.request(x, ask(FAR))
    call_id = call_of(hub, MetaAsk)

    match how:
        case "withdraws":
            effects = hub.notify(x, CancelRequest(1))
        case "is killed":
            effects = hub.handle(AgentEnded("id-1", "killed"))
        case _:
            effects = hub.notify(x, Completed(reason="goal"))

    assert CancelRequest(call_id) in notices(effects, up)
    assert not calls(hub, MetaAsk)


def test_an_agent_that_is_killed_while_it_waits_for_another_is_not_waited_with():
    hub, x, up = in_cluster()
    hub.request(x, WaitAgent(envelope(FAR).target))
    call_id = call_of(hub, WaitAgent)

    assert CancelRequest(call_id) in notices(hub.handle(AgentEnded("id-1", "killed")), up)


@pytest.mark.parametrize("how", ["withdraws", "is gone"])
def test_a_meta_hub_tells_the_hub_when_its_client_no_longer_waits(how):
    meta, [b] = meta_with("b")
    ann = attach(meta)
    meta.request(ann, ask("b/x"))
    call_id = call_of(meta, DeliverAsk)

    effects = meta.notify(ann, CancelRequest(2)) if how == "withdraws" else meta.lose(ann)

    assert notices(effects, b) == [CancelRequest(call_id)]


def test_the_asks_of_a_lost_hub_are_given_up_and_those_of_a_hub_that_is_away_are_not():
    meta, [a, b] = meta_with("a", "b")
    meta.request(a, MetaAsk(ask("b/x").envelope))
    call_id = call_of(meta, DeliverAsk)

    away, lost = meta.lose(a), meta.advance(1.0)

    assert CancelRequest(call_id) not in notices(away, b)
    assert CancelRequest(call_id) in notices(lost, b)


# While the agent comes up.


def coming_up() -> tuple[CoreDriver, str, Peer]:
    """A hub whose agent ``x`` is not up yet: the hub, the agent's id, a client that has asked it."""
    hub = open_hub()
    agent_id, ann = start(hub, "x"), attach(hub)
    assert hub.request(ann, ask()) == []
    return hub, agent_id, ann


def test_an_ask_waits_for_an_agent_that_comes_up_and_its_time_runs():
    hub, agent_id, ann = coming_up()
    hub.advance(3.0)

    x = come_up(hub, agent_id)

    assert agent_ask(hub).message.envelope.timeout_ms == 2000  # type: ignore[attr-defined]
    hub.advance(1.9)
    assert answers(hub.answer(x, agent_ask(hub), reply()), ann) == [Response(2, reply())]


def test_an_ask_whose_agent_is_not_up_in_time_is_answered_in_time_and_never_asked():
    hub, agent_id, _ann = coming_up()

    effects = hub.advance(5.0)

    assert refusal(effects) == Failure(2, ErrorCode.DEADLINE_EXCEEDED, "agent 'x' was not up in time")
    come_up(hub, agent_id)
    assert not calls(hub, DeliverAsk)


@pytest.mark.parametrize("how", ["withdraws", "is gone"])
def test_an_ask_that_nobody_waits_for_when_its_agent_comes_up_is_never_asked(how):
    hub, agent_id, ann = coming_up()

    effects = hub.notify(ann, CancelRequest(2)) if how == "withdraws" else hub.lose(ann)

    assert [answer.code for answer in answers(effects, ann)] == [ErrorCode.CANCELLED] * (how == "withdraws")
    come_up(hub, agent_id)
    assert not calls(hub, DeliverAsk)


def test_a_message_whose_sender_is_gone_is_delivered_all_the_same():
    hub = open_hub()
    agent_id, ann = start(hub, "x"), attach(hub)
    hub.request(ann, Route(envelope("x")))

    hub.lose(ann)

    come_up(hub, agent_id)
    assert calls(hub, DeliverEnvelope)


def test_an_ask_that_waits_for_an_agent_that_does_not_come_up_is_refused():
    hub, agent_id, ann = coming_up()

    effects = hub.handle(AgentEnded(agent_id, "exit status 1"))

    assert Failure(2, ErrorCode.AGENT_NOT_FOUND, "agent 'x' ended") in answers(effects, ann)
    assert hub.advance(10.0) == []


def test_too_many_asks_for_an_agent_that_comes_up_are_overloaded():
    hub = open_hub(limits=Limits(inbox=1))
    start(hub, "x")
    ann = attach(hub)
    hub.request(ann, ask(message_id="1"))

    assert refusal(hub.request(ann, ask(message_id="2"))).code is ErrorCode.OVERLOADED


def test_a_repeated_ask_can_be_withdrawn_when_its_agent_has_come_up_meanwhile():
    hub, _, up = in_cluster()
    agent_id = start(hub, "z")
    message = DeliverAsk(evolve(from_there().envelope, target=envelope("z").target))
    hub.request(up, message)
    hub.lose(up)
    new_up, _ = rejoin(hub)
    hub.request(new_up, message)
    z = come_up(hub, agent_id)

    effects = hub.notify(new_up, CancelRequest(1))

    assert [type(notice) for notice in notices(effects, z)] == [CancelRequest]
    assert not calls(hub, DeliverAsk)


# The agent or its hub ends.


@pytest.mark.parametrize("how", ["is killed", "completes"])
def test_an_ask_of_an_agent_that_ends_is_lost(how):
    hub = open_hub()
    x, ann = begin(hub, "x"), attach(hub)
    hub.request(ann, ask())

    effects = (
        hub.handle(AgentEnded("id-1", "killed"))
        if how == "is killed"
        else hub.notify(x, Completed(reason="goal"))
    )

    assert refusal(
        [effect for effect in effects if isinstance(effect, Send) and effect.peer == ann]
    ).code is (ErrorCode.CONNECTION_LOST)


def test_an_ask_of_an_agent_of_a_hub_that_is_lost_is_lost():
    meta, [b] = meta_with("b")
    meta.request(attach(meta), ask("b/x"))

    meta.lose(b)

    assert refusal(meta.advance(1.0)).code is ErrorCode.CONNECTION_LOST


def test_an_ask_of_a_hub_that_is_closing_ends_with_the_agent():
    hub = open_hub()
    begin(hub, "x")
    ann = attach(hub)
    hub.handle(Closing())
    hub.request(ann, ask())

    effects = hub.handle(AgentEnded("id-1", "stopped"))

    [reply] = [answer for answer in answers(effects, ann) if isinstance(answer, Response)]
    assert reply.result == Reply(Cancelled("hub 'here' is closing"))


def test_an_agent_that_asks_itself_and_ends_leaves_nothing_open():
    hub = open_hub()
    x = begin(hub, "x")
    hub.request(x, ask())

    hub.handle(AgentEnded("id-1", "killed"))

    assert not calls(hub, DeliverAsk)


def test_an_agent_that_asks_itself_is_refused_at_once():
    hub = open_hub()
    x = begin(hub, "x")

    assert [answer.code for answer in answers(hub.request(x, ask()), x)] == [ErrorCode.ASK_CIRCLE]
