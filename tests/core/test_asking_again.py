"""An ask whose connection breaks is asked again, worked on once, and can still be withdrawn."""

from __future__ import annotations

from attrs import evolve

from loopal_cluster.core.events import Peer
from loopal_cluster.core.parties import PROTOCOL
from loopal_cluster.errors import ErrorCode
from loopal_cluster.frames import Failure, Notification, Request, Response
from loopal_cluster.messages import (
    OK,
    AgentSource,
    CancelRequest,
    DeliverAsk,
    DeliverEnvelope,
    HumanSource,
    MetaAsk,
    Progress,
    RegisterHub,
)
from loopal_cluster.testing import CoreDriver, sent

from .builders import (
    FAR,
    TOKEN,
    agent_ask,
    answers,
    ask,
    attach,
    call_of,
    calls,
    envelope,
    from_there,
    in_cluster,
    meta_with,
    notices,
    rejoin,
    reply,
    requests,
)


def asked_from_there() -> tuple[CoreDriver, Peer, Peer]:
    """A hub whose agent ``x`` is asked from another hub: the hub, the agent, the uplink."""
    hub, x, up = in_cluster()
    hub.request(up, from_there())
    return hub, x, up


def test_a_repeated_ask_is_worked_on_once_and_answered_each_time():
    hub, x, up = asked_from_there()
    hub.lose(up)
    new_up, _ = rejoin(hub)

    assert not requests(hub.request(new_up, from_there(1000)), x)
    effects = hub.answer(x, agent_ask(hub), reply())

    assert answers(effects) == [Response(1, reply())]
    assert answers(hub.request(new_up, from_there(500))) == [Response(2, reply())]


def test_a_reply_while_the_meta_hub_is_away_is_given_to_whoever_asks_again():
    hub, x, up = asked_from_there()
    hub.lose(up)
    hub.answer(x, agent_ask(hub), reply())
    new_up, _ = rejoin(hub)

    effects = hub.request(new_up, from_there(1000))

    assert sent(effects) == [Response(1, reply())]


def test_an_ask_that_was_repeated_while_it_is_worked_on_can_be_withdrawn_by_the_repetition():
    hub, x, up = asked_from_there()
    call_id = agent_ask(hub).id
    hub.lose(up)
    new_up, _ = rejoin(hub)
    hub.request(new_up, from_there(1000))

    effects = hub.notify(new_up, CancelRequest(1))

    assert notices(effects, x) == [CancelRequest(call_id)]
    assert [answer.code for answer in answers(effects)] == [ErrorCode.CANCELLED]


def test_progress_is_told_to_whoever_has_repeated_the_ask():
    hub, x, up = in_cluster()
    hub.request(up, from_there(extend=True))
    hub.request(up, from_there(extend=True))

    effects = hub.notify(x, Progress(agent_ask(hub).id))

    assert notices(effects, up) == [Progress(1), Progress(2)]


def test_a_message_and_an_ask_of_one_sender_and_id_are_not_mixed_up():
    hub, x, up = in_cluster()
    hub.request(up, DeliverEnvelope(from_there().envelope))
    hub.receive(x, Response(call_of(hub, DeliverEnvelope), OK))

    assert requests(hub.request(up, from_there()), x)


def test_equal_ids_of_two_senders_are_two_asks():
    hub, x, up = asked_from_there()
    other = DeliverAsk(evolve(from_there().envelope, source=AgentSource("there/z")))

    assert requests(hub.request(up, other), x)


def test_an_ask_is_asked_again_with_the_time_that_is_left():
    hub, x, up = in_cluster()
    hub.request(x, ask(FAR))
    hub.lose(up)
    hub.advance(4.0)

    up, effects = rejoin(hub)

    [again] = [m for m in requests(effects, up) if isinstance(m, MetaAsk)]
    assert again.envelope.timeout_ms == 3000  # the two seconds of the hops included


def test_an_ask_that_is_withdrawn_while_the_meta_hub_is_away_is_withdrawn_when_it_is_back():
    hub, x, up = in_cluster()
    hub.request(x, ask(FAR))
    hub.lose(up)
    hub.notify(x, CancelRequest(1))

    up, effects = rejoin(hub)

    [again] = [frame for frame in sent(effects, up) if isinstance(getattr(frame, "message", 0), MetaAsk)]
    assert Notification(CancelRequest(again.id)) in sent(effects, up)
    assert not calls(hub, MetaAsk)


def test_an_ask_that_is_withdrawn_while_its_hub_is_away_is_withdrawn_when_that_is_back():
    meta, [b] = meta_with("b")
    ann = attach(meta)
    meta.request(ann, ask("b/x"))
    meta.lose(b)
    meta.notify(ann, CancelRequest(2))

    b = meta.connect()
    effects = meta.request(b, RegisterHub("b", TOKEN, protocol=PROTOCOL, instance="b-1"))

    [again] = [frame for frame in sent(effects, b) if isinstance(frame, Request)]
    assert isinstance(again.message, DeliverAsk)
    assert sent(effects, b)[-1] == Notification(CancelRequest(again.id))


def test_an_ask_that_is_withdrawn_while_its_hub_is_away_is_forgotten_with_the_hub():
    meta, [b] = meta_with("b")
    ann = attach(meta)
    meta.request(ann, ask("b/x"))
    meta.lose(b)
    meta.notify(ann, CancelRequest(2))
    meta.advance(10.0)

    assert not meta.core.exchange._withdrawn


def test_what_a_restarted_meta_hub_does_not_know_is_not_asked_again_for_nobody():
    hub, x, up = in_cluster()
    hub.lose(up)
    up, _ = rejoin(hub, "another")
    hub.request(x, ask(FAR))
    hub.receive(up, Failure(call_of(hub, MetaAsk), ErrorCode.HUB_NOT_CONNECTED, "hub 'there' not connected"))

    hub.notify(x, CancelRequest(1))

    assert not requests(hub.advance(3.0), up)


def test_what_a_restarted_meta_hub_does_not_know_is_asked_again_with_the_time_that_is_left():
    hub, x, up = in_cluster()
    hub.lose(up)
    up, _ = rejoin(hub, "another")
    hub.request(x, ask(FAR, 2000))
    for wait in (0.25,) * 10:
        hub.receive(up, Failure(call_of(hub, MetaAsk), ErrorCode.HUB_NOT_CONNECTED, "not connected"))
        effects = hub.advance(wait)

    [again] = [message for message in requests(effects, up) if isinstance(message, MetaAsk)]
    assert again.envelope.timeout_ms == 1500


def test_the_asks_of_a_restarted_meta_hubs_clients_are_given_up_and_those_of_other_hubs_are_not():
    hub, x, up = asked_from_there()
    hub.request(up, DeliverAsk(envelope("x", HumanSource(), timeout_ms=5000)))
    clients = calls(hub, DeliverAsk)[1].id
    hub.lose(up)

    _, effects = rejoin(hub, "another")

    assert notices(effects, x) == [CancelRequest(clients)]
    assert [call.message for call in calls(hub, DeliverAsk)] == [from_there()]
