"""Every request is answered exactly once."""

from __future__ import annotations

from typing import Any

import pytest

from loopal_cluster.config import Limits
from loopal_cluster.core.calls import Origin
from loopal_cluster.core.effects import Disconnect, Send
from loopal_cluster.core.events import Peer
from loopal_cluster.core.exchange import Exchange, Refused, with_time_left
from loopal_cluster.errors import ErrorCode
from loopal_cluster.frames import Failure, Notification, Request, Response
from loopal_cluster.messages import OK, CancelRequest, Interrupt, MetaAsk, Route, Status, WaitAgent

from .builders import ask, envelope, from_there

A, B = Peer(1), Peer(2)


def talk(**limits) -> Exchange[str]:
    """An exchange with two peers."""
    exchange: Exchange[str] = Exchange(Limits(**limits))
    exchange.admit(A)
    exchange.admit(B)
    return exchange


def taken(exchange: Exchange[str], *request: Any) -> Any:
    """The origin of a request that is taken on: in a test that expects a refusal, None."""
    return exchange.take(*request)


def test_a_request_is_answered_once():
    exchange = talk()
    origin = taken(exchange, A, Request(7, Status()))

    assert exchange.answer(origin, OK)
    assert not exchange.answer(origin, OK)
    exchange.refuse(origin, ErrorCode.REFUSED, "too late")

    assert exchange.drain() == [Send(A, Response(7, OK))]
    assert exchange.drain() == []


def test_a_refusal_is_an_answer():
    exchange = talk()
    origin = taken(exchange, A, Request(7, Status()))

    exchange.refuse(origin, ErrorCode.REFUSED, "no")

    assert exchange.drain() == [Send(A, Failure(7, ErrorCode.REFUSED, "no"))]
    assert not exchange.answer(origin, OK)


@pytest.mark.parametrize("answer", [Response(3, OK), Failure(3, ErrorCode.REFUSED, "no")])
def test_an_answer_that_is_passed_on_gets_the_id_of_the_request(answer):
    exchange = talk()
    origin = taken(exchange, A, Request(7, Status()))

    exchange.pass_on(origin, answer)

    assert [effect.frame.id for effect in exchange.drain()] == [7]


def test_equal_ids_of_two_peers_are_two_requests():
    exchange = talk()
    first, second = (taken(exchange, peer, Request(1, Status())) for peer in (A, B))

    exchange.answer(second, OK)

    assert exchange.drain() == [Send(B, Response(1, OK))]
    assert exchange.answer(first, OK)


def test_an_id_that_is_still_open_is_refused_and_the_first_request_goes_on():
    exchange = talk()
    origin = taken(exchange, A, Request(7, Status()))

    assert taken(exchange, A, Request(7, Status())) is None

    detail = "request 7 is already open"
    assert exchange.drain() == [Send(A, Failure(7, ErrorCode.INVALID_REQUEST, detail))]
    assert exchange.answer(origin, OK)


def test_an_id_may_be_used_again_after_its_answer():
    exchange = talk()
    exchange.answer(taken(exchange, A, Request(7, Status())), OK)

    assert taken(exchange, A, Request(7, Status())) == Origin(A, 7)


def test_a_peer_with_too_many_open_requests_is_overloaded_at_once():
    exchange = talk(requests_per_peer=2)
    first = taken(exchange, A, Request(1, Status()))
    taken(exchange, A, Request(2, Status()))

    assert taken(exchange, A, Request(3, Status())) is None

    detail = "too many unanswered requests"
    assert exchange.drain() == [Send(A, Failure(3, ErrorCode.OVERLOADED, detail))]
    assert taken(exchange, B, Request(3, Status())) is not None
    exchange.answer(first, OK)
    assert taken(exchange, A, Request(3, Status())) is not None


def test_too_many_calls_to_one_peer_are_refused_before_anything_is_sent():
    exchange = talk(calls_per_peer=1)
    exchange.call(A, Status(), "then", 1.0)
    exchange.drain()

    with pytest.raises(Refused) as refused:
        exchange.call(A, Status(), "then", 1.0)

    assert refused.value.code is ErrorCode.OVERLOADED
    assert exchange.drain() == []
    assert exchange.calls.count(A) == 1


def test_nobody_answers_a_peer_that_is_gone():
    exchange = talk()
    origin = taken(exchange, A, Request(7, Status()))
    exchange.forget(A)

    assert not exchange.answer(origin, OK)
    exchange.notify(A, Interrupt())

    assert exchange.drain() == []


def test_a_connection_is_hung_up_once_and_said_nothing_more():
    exchange = talk()
    origin = taken(exchange, A, Request(7, Status()))

    exchange.hang_up(A, "enough")
    exchange.hang_up(A, "again")
    exchange.answer(origin, OK)

    assert exchange.drain() == [Disconnect(A, "enough")]
    assert not exchange.knows(A)


def test_the_calls_to_a_peer_are_handed_over_when_it_is_forgotten():
    exchange = talk()
    exchange.call(A, Status(), "first", 1.0)
    exchange.call(B, Status(), "other", 1.0)

    assert [call.then for call in exchange.forget(A)] == ["first"]
    assert [call.then for call in exchange.calls] == ["other"]


def test_withdrawing_a_request_answers_it_and_tells_whoever_was_asked_for_it():
    exchange = talk()
    origin = taken(exchange, A, Request(7, Status()))
    exchange.call(B, Status(), origin, 1.0)
    exchange.call(B, Status(), "for another", 1.0)
    exchange.drain()

    exchange.withdraw(origin)

    assert exchange.drain() == [
        Send(A, Failure(7, ErrorCode.CANCELLED, "cancelled by its caller")),
        Send(B, Notification(CancelRequest(1))),
    ]
    assert [call.then for call in exchange.calls] == ["for another"]


# What is asked again, and for whom.


def test_the_time_that_is_left_travels_with_what_is_asked_again():
    wait = WaitAgent(envelope("x").target, timeout_ms=60_000)

    assert with_time_left(ask(), 1.5) == ask(timeout_ms=1500)
    assert with_time_left(MetaAsk(ask().envelope), 1.5).envelope.timeout_ms == 1500
    assert with_time_left(from_there(), 1.5) == from_there(1500)
    assert with_time_left(wait, 12.0).timeout_ms == 10_000  # we wait two seconds longer than the hub


@pytest.mark.parametrize("seconds", [5.0, 6.5, 1e9])
def test_nothing_gets_more_time_by_being_asked_again(seconds):
    assert with_time_left(ask(), seconds) == ask()
    assert with_time_left(WaitAgent(envelope("x").target, timeout_ms=1), seconds).timeout_ms == 1


@pytest.mark.parametrize("seconds", [0.0, -3.0])
def test_what_has_no_time_left_has_a_millisecond(seconds):
    assert with_time_left(ask(), seconds).envelope.timeout_ms == 1
    assert with_time_left(WaitAgent(envelope("x").target), seconds).timeout_ms == 1


def test_a_wait_without_an_end_gets_one():
    assert with_time_left(WaitAgent(envelope("x").target), 12.0).timeout_ms == 10_000


def test_what_progress_may_extend_keeps_its_time_because_each_extension_is_that_long():
    assert with_time_left(ask(extend=True), 1.0) == ask(extend=True)


def test_all_else_is_repeated_as_it_was():
    assert with_time_left(Route(envelope("x")), 1.0) == Route(envelope("x"))


def test_the_calls_for_a_peer_are_those_made_on_its_behalf_and_still_open():
    exchange = talk()
    first, second = (taken(exchange, A, Request(n, Status())) for n in (1, 2))
    taken(exchange, A, Request(3, Status()))
    for origin in (first, second):
        exchange.call(B, Status(), origin, 1.0)
    exchange.take_answer(B, Response(1, OK))

    assert [call.then for call in exchange.calls_for(A)] == [second]
    assert exchange.calls_for(B) == []
