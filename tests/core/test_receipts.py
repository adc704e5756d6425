"""A message from another hub that comes twice is delivered once, and both times answered."""

from __future__ import annotations

import pytest
from attrs import evolve

from loopal_cluster.config import Limits, Timeouts
from loopal_cluster.core.calls import Origin
from loopal_cluster.core.events import AgentEnded, AgentNotStarted, Link, Peer
from loopal_cluster.core.exchange import HOP_MARGIN
from loopal_cluster.core.parties import PROTOCOL
from loopal_cluster.core.receipts import Receipts
from loopal_cluster.errors import ErrorCode
from loopal_cluster.frames import Failure, Response
from loopal_cluster.messages import (
    OK,
    AgentSource,
    ChannelSource,
    DeliverEnvelope,
    HumanSource,
    MetaRoute,
    Reply,
    Route,
    Welcome,
)
from loopal_cluster.outcomes import Done
from loopal_cluster.testing import CoreDriver
from tests.simulation.bounds import TIMEOUTS

from .builders import (
    answer_all,
    answers,
    attach,
    call_of,
    come_up,
    envelope,
    in_cluster,
    join,
    open_meta,
    requests,
    start,
)

SECOND, THIRD = Origin(Peer(9), 2), Origin(Peer(9), 3)
YES = Response(0, OK)
NO = Failure(0, ErrorCode.OVERLOADED, "the inbox is full")
UNKNOWN = Failure(0, ErrorCode.DEADLINE_EXCEEDED, "no answer in time")
WITHDRAWN = Failure(0, ErrorCode.CANCELLED, "its caller no longer waits")


# The book.


def book(limit: int = 10, size: int = 2**20) -> Receipts:
    """One that remembers for as long as a message brings, rounded up to a power of two."""
    return Receipts(limit, size, lambda seconds: seconds)


def test_a_message_is_known_once_it_has_begun():
    receipts = book()

    assert not receipts.knows("m")
    receipts.begin("m", 60.0, 0.0)

    assert receipts.knows("m")


def test_whoever_repeats_a_message_on_its_way_waits_for_its_answer():
    receipts = book()
    receipts.begin("m", 60.0, 0.0)

    assert [receipts.repeat("m", origin) for origin in (SECOND, THIRD)] == [None, None]
    assert receipts.settle("m", YES, 0.0) == [SECOND, THIRD]
    assert receipts.settle("m", YES, 0.0) == []


@pytest.mark.parametrize("answer", [YES, UNKNOWN, WITHDRAWN])
def test_whoever_repeats_an_answered_message_gets_that_answer_even_if_it_was_that_nobody_knows(answer):
    receipts = book()
    receipts.begin("m", 60.0, 0.0)
    receipts.settle("m", answer, 0.0)

    assert receipts.repeat("m", SECOND) == answer


def test_what_was_certainly_not_done_may_be_tried_again():
    receipts = book()
    receipts.begin("m", 60.0, 0.0)
    receipts.repeat("m", SECOND)

    assert receipts.settle("m", NO, 0.0) == [SECOND]
    assert not receipts.knows("m")


def test_the_oldest_is_forgotten_when_there_are_too_many():
    receipts = book(2)

    for message_id in "abc":
        receipts.begin(message_id, 60.0, 0.0)
        receipts.settle(message_id, YES, 0.0)

    assert [receipts.knows(message_id) for message_id in "abc"] == [False, True, True]


def test_a_message_is_forgotten_when_nobody_repeats_it_any_more():
    receipts = book()
    for now, message_id in enumerate("ab"):
        receipts.begin(message_id, 60.0, now)
        receipts.settle(message_id, YES, now)
    receipts.begin("on its way", 60.0, 0.0)

    assert receipts.next_deadline() == 64.0
    receipts.expire(64.0)

    assert [receipts.knows(message_id) for message_id in ("a", "b", "on its way")] == [False, True, True]
    assert receipts.next_deadline() == 65.0


@pytest.mark.parametrize("seconds", [0.1, 5.0, 30.0, 600.0, 7200.0])
@pytest.mark.parametrize("timeouts", [Timeouts(), TIMEOUTS], ids=["default", "simulation"])
def test_each_is_remembered_for_longer_than_it_may_be_repeated(seconds, timeouts):
    receipts = Receipts(10, 2**20, timeouts.memory)
    # The sender's hub gives up then, at the latest: it counts from when it has sent, or heard of progress. What it has
    # sent by then may be on its way until its two connections are found to be dead.
    last = 1.04 * (seconds + 2 * HOP_MARGIN) + 2 * timeouts.lost_timeout
    receipts.begin("m", seconds, 0.0)
    receipts.settle("m", YES, 0.1)

    receipts.expire(last)

    assert receipts.knows("m")
    receipts.expire(2 * timeouts.memory(seconds) + 1.0)
    assert not receipts.knows("m")


def test_what_was_seen_after_all_that_was_forgotten_too_early_is_new():
    receipts = book(2)
    for now, message_id in enumerate("abcd"):
        receipts.begin(message_id, 60.0, now)
        receipts.settle(message_id, YES, now)

    assert [receipts.knows(message_id) for message_id in "abcd"] == [False, False, True, True]
    assert [receipts.may_have_forgotten(since) for since in (0.0, 1.0, 1.5)] == [True, True, False]


def test_what_is_forgotten_in_its_time_leaves_no_doubt():
    receipts = book()
    receipts.begin("m", 1.0, 0.0)
    receipts.settle("m", YES, 0.0)
    receipts.expire(1.0)

    assert (receipts.knows("m"), receipts.may_have_forgotten(-100.0)) == (False, False)


def test_answers_are_bounded_in_bytes_and_remembered_as_answered():
    receipts = book(size=5000)
    for number in range(10):
        receipts.begin(number, 60.0, 0.0)
        receipts.settle(number, Response(0, Reply(Done("x" * 2000))), 0.0)

    answers = [receipts.repeat(number, SECOND) for number in range(10)]
    assert [isinstance(answer, Failure) for answer in answers] == [True] * 8 + [False] * 2


# The hub.


def there(target: str = "x", **fields) -> DeliverEnvelope:
    """A message from ``there/p``, as the MetaHub brings it."""
    message = envelope(target, AgentSource("there/p"), origin_hub="there")
    return DeliverEnvelope(evolve(message, **fields))


def rejoined(hub: CoreDriver, up: Peer) -> Peer:
    """Let the hub lose its MetaHub, and find it again."""
    hub.lose(up)
    again = hub.connect(Link.UPLINK)
    hub.receive(again, Response(1, Welcome(protocol=PROTOCOL, cluster="c")))
    answer_all(hub, again, OK)
    return again


def test_a_message_that_comes_again_after_it_was_accepted_is_answered_and_not_delivered():
    hub, x, up = in_cluster()
    hub.request(up, there())
    hub.receive(x, Response(call_of(hub, DeliverEnvelope), OK))
    again = rejoined(hub, up)

    effects = hub.request(again, there())

    assert requests(effects, x) == []
    assert answers(effects, again) == [Response(1, OK)]


def test_a_message_that_comes_again_on_its_way_to_the_agent_is_answered_with_the_first():
    hub, x, up = in_cluster()
    hub.request(up, there())
    again = rejoined(hub, up)

    assert hub.request(again, there()) == []
    effects = hub.receive(x, Response(call_of(hub, DeliverEnvelope), OK))

    assert answers(effects) == [Response(1, OK)]


def test_a_message_that_comes_again_while_the_agent_comes_up_is_delivered_once():
    hub, _, up = in_cluster()
    agent_id = start(hub, "y")
    hub.request(up, there("y"))
    assert hub.request(up, there("y")) == []

    y = come_up(hub, agent_id)
    effects = hub.receive(y, Response(call_of(hub, DeliverEnvelope), OK))

    assert answers(effects, up) == [Response(1, OK), Response(2, OK)]


def test_a_repetition_of_a_refused_message_is_another_try():
    hub, x, up = in_cluster()
    hub.request(up, there())
    hub.receive(x, Failure(call_of(hub, DeliverEnvelope), ErrorCode.OVERLOADED, "full"))

    effects = hub.request(up, there())

    assert requests(effects, x) == [there()]


def test_all_who_have_sent_a_message_learn_that_it_was_refused():
    hub, x, up = in_cluster()
    hub.request(up, there())
    hub.request(up, there())

    effects = hub.receive(x, Failure(call_of(hub, DeliverEnvelope), ErrorCode.OVERLOADED, "full"))

    assert [(frame.id, frame.code) for frame in answers(effects, up)] == [
        (1, ErrorCode.OVERLOADED),
        (2, ErrorCode.OVERLOADED),
    ]


def test_a_message_of_which_nobody_knows_whether_it_arrived_is_not_delivered_again():
    hub, x, up = in_cluster()
    hub.request(up, there())
    hub.handle(AgentEnded("id-1", "killed"))

    effects = hub.request(up, there())

    assert [frame.code for frame in answers(effects, up)] == [ErrorCode.CONNECTION_LOST]
    assert requests(effects, x) == []


def test_all_who_have_sent_a_message_learn_that_its_agent_never_came_up():
    hub, _, up = in_cluster()
    agent_id = start(hub, "y")
    hub.request(up, there("y"))
    hub.request(up, there("y"))

    effects = hub.handle(AgentNotStarted(agent_id, "no such program"))

    assert [(frame.id, frame.code) for frame in answers(effects, up)] == [
        (1, ErrorCode.AGENT_NOT_FOUND),
        (2, ErrorCode.AGENT_NOT_FOUND),
    ]
    assert not hub.core._deliveries.receipts._answered


@pytest.mark.parametrize(
    "other",
    [
        {"id": "m-2"},
        {"origin_hub": "elsewhere"},
        {"origin_hub": None},
        {"source": AgentSource("there/q")},
        {"source": HumanSource()},
        {"source": ChannelSource("general", "ann")},
    ],
)
def test_the_same_id_from_somebody_else_is_another_message(other):
    hub, x, up = in_cluster()
    hub.request(up, there())

    assert requests(hub.request(up, there(**other)), x) == [there(**other)]


def test_a_message_within_the_hub_is_never_taken_for_a_repetition():
    hub, x, _ = in_cluster()
    client = attach(hub)

    for _ in range(2):
        assert len(requests(hub.request(client, Route(envelope("x"))), x)) == 1


def test_no_more_messages_are_remembered_than_the_limit_says():
    hub, x, up = in_cluster(limits=Limits(receipts=3))

    for n in range(5):
        hub.request(up, there(id=f"m-{n}"))
        hub.receive(x, Response(call_of(hub, DeliverEnvelope), OK))

    assert [bool(requests(hub.request(up, there(id=f"m-{n}")), x)) for n in (4, 3, 2)] == [False] * 3
    assert requests(hub.request(up, there(id="m-0")), x) == [there(id="m-0")]


def test_a_hub_at_rest_forgets_its_messages_and_has_nothing_left_to_do_for_them():
    hub, x, up = in_cluster()
    hub.request(up, there())
    hub.receive(x, Response(call_of(hub, DeliverEnvelope), OK))
    hub.lose(up)

    hub.advance(10_000.0)

    assert not hub.core._deliveries.receipts._answered
    assert hub.core.next_deadline() is None


def overloaded() -> tuple[CoreDriver, Peer, Peer]:
    """A hub that remembers one message, and has had two."""
    hub, x, up = in_cluster(limits=Limits(receipts=1))
    hub.advance(1.0)
    for number in "12":
        hub.request(up, there(id=number))
        hub.receive(x, Response(call_of(hub, DeliverEnvelope), OK))
    return hub, x, up


def test_a_repetition_of_what_may_have_been_forgotten_is_refused_and_not_done_again():
    hub, x, up = overloaded()

    effects = hub.request(up, there(id="1", asked_ms=-1000))

    [failure] = answers(effects, up)
    assert (failure.code, requests(effects, x)) == (ErrorCode.CONNECTION_LOST, [])


def test_a_repetition_of_what_was_sent_later_than_all_that_was_forgotten_is_delivered():
    hub, x, up = overloaded()
    hub.advance(11.0)

    [message] = requests(hub.request(up, there(id="3", asked_ms=-12_000)), x)

    assert (message.envelope.id, message.envelope.asked_ms) == ("3", None)


def test_a_meta_hub_says_of_what_it_repeats_when_it_was_first_sent():
    meta = open_meta()
    a, b = join(meta, "a"), join(meta, "b", "x")
    meta.advance(10.0)
    meta.request(a, MetaRoute(envelope("b/x")))
    meta.advance(2.0)
    meta.lose(b)

    again = join(meta, "b")

    [call] = [call for call in meta.core.exchange.calls if isinstance(call.message, DeliverEnvelope)]
    assert (call.peer, call.message.envelope.asked_ms) == (again, 2000)  # type: ignore[attr-defined]


def test_a_meta_hub_passes_on_when_what_a_hub_repeats_was_first_sent():
    meta = open_meta()
    a, b = join(meta, "a"), join(meta, "b", "x")
    meta.advance(10.0)
    meta.lose(a)
    a = join(meta, "a")

    [message] = requests(meta.request(a, MetaRoute(evolve(envelope("b/x"), asked_ms=3000))), b)

    assert message.envelope.asked_ms == -7000
