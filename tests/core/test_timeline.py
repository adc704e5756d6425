"""What has happened, in order, for those who watch."""

from __future__ import annotations

import pytest

from loopal_cluster.config import Limits
from loopal_cluster.core.context import Context
from loopal_cluster.core.deadlines import DeadlineQueue
from loopal_cluster.core.effects import Send
from loopal_cluster.core.events import Peer
from loopal_cluster.core.exchange import Exchange
from loopal_cluster.core.timeline import Timeline
from loopal_cluster.frames import Notification
from loopal_cluster.message_sizes import payload_bytes
from loopal_cluster.messages import AgentEvent, ClusterEvent, Opaque, Subscribed, UserContent
from loopal_cluster.payloads import Finished, MessageRouted, Stream, ToolBatchStart, ToolCall

WATCHER = Peer(1)


def open_timeline(limits: Limits = Limits(timeline=3), **fields) -> tuple[Timeline, Exchange]:  # noqa: B008
    """A timeline that keeps three events, and one watcher that is connected."""
    exchange: Exchange = Exchange(limits)
    exchange.admit(WATCHER)
    context = Context(None, exchange, DeadlineQueue(), str, epoch=1000.0)
    return Timeline(context, **fields), exchange


def publish(timeline: Timeline, count: int) -> None:
    """So many events of one agent, one a second."""
    for second in range(count):
        timeline.publish("h", "a", Finished(), float(second))


def event(seq: int) -> Send:
    """What ``publish`` sends a watcher."""
    return Send(WATCHER, Notification(ClusterEvent(seq, 999.0 + seq, "h", "a", Finished())))


def test_a_subscriber_gets_what_happens_from_now_on_numbered_and_dated():
    timeline, exchange = open_timeline()
    publish(timeline, 1)

    assert timeline.subscribe(WATCHER, None, 0.0) == Subscribed(1)
    timeline.publish("h", "a", Finished(), 1.0)

    assert exchange.drain() == [event(2)]


def test_since_brings_back_what_is_still_kept_and_counts_what_is_not():
    timeline, exchange = open_timeline()
    publish(timeline, 5)

    assert timeline.subscribe(WATCHER, 1, 0.0) == Subscribed(5, missed=1)

    assert exchange.drain() == [event(3), event(4), event(5)]


def test_the_oldest_are_forgotten_when_all_that_is_kept_has_too_many_bytes():
    timeline, exchange = open_timeline(limits=Limits(timeline=100, timeline_bytes=10))
    for size in (3, 4, 5):
        timeline.publish("h", "a", Stream("x" * size), 0.0)

    assert timeline.subscribe(WATCHER, 0, 0.0) == Subscribed(3, missed=1)
    assert [effect.frame.message.seq for effect in exchange.drain()] == [2, 3]


def test_an_event_that_is_too_large_to_be_kept_is_missed_and_those_after_it_are_kept():
    timeline, exchange = open_timeline(limits=Limits(timeline=3, timeline_bytes=10))
    for size in (3, 11, 5):
        timeline.publish("h", "a", Stream("x" * size), 0.0)

    assert timeline.subscribe(WATCHER, 0, 0.0) == Subscribed(3, missed=2)
    assert [effect.frame.message.seq for effect in exchange.drain()] == [3]


@pytest.mark.parametrize(
    ("payload", "size"),
    [
        (Finished(), 0),
        (Stream("abc"), 3),
        (Opaque(b'{"Stream":{"text":"abc"}}'), 25),
        (ToolBatchStart(("a", "bc")), 3),
        (ToolCall("1", "Bash", Opaque(b"{}")), 7),
        (MessageRouted("a", "b", UserContent("hello")), 7),
    ],
    ids=repr,
)
def test_a_payload_takes_as_many_bytes_as_its_texts(payload, size):
    assert payload_bytes(payload) == size


def test_since_the_newest_brings_nothing_and_misses_nothing():
    timeline, exchange = open_timeline()
    publish(timeline, 5)

    assert timeline.subscribe(WATCHER, 5, 0.0) == Subscribed(5, missed=0)
    assert exchange.drain() == []


def test_since_the_beginning_misses_nothing_that_never_was():
    timeline, _ = open_timeline()
    publish(timeline, 2)

    assert timeline.subscribe(WATCHER, 0, 0.0) == Subscribed(2, missed=0)
    assert timeline.subscribe(WATCHER, -1, 0.0) == Subscribed(2, missed=0)


def test_since_a_number_not_reached_yet_misses_nothing():
    timeline, exchange = open_timeline()
    publish(timeline, 2)

    assert timeline.subscribe(WATCHER, 100, 0.0) == Subscribed(2, missed=0)
    assert exchange.drain() == []


def test_subscribing_twice_does_not_double_the_events():
    timeline, exchange = open_timeline()
    timeline.subscribe(WATCHER, None, 0.0)
    timeline.subscribe(WATCHER, None, 0.0)

    publish(timeline, 1)

    assert exchange.drain() == [event(1)]


def test_a_forgotten_subscriber_hears_no_more():
    timeline, exchange = open_timeline()
    timeline.subscribe(WATCHER, None, 0.0)

    timeline.forget(WATCHER)
    publish(timeline, 1)

    assert exchange.drain() == []


def test_only_events_of_the_own_hub_are_relayed():
    relayed: list[AgentEvent] = []
    timeline, _ = open_timeline(own_hub="h", relay=relayed.append)

    timeline.publish("h", "a", Finished(), 0.0)
    timeline.publish("other", "a", Finished(), 0.0)
    timeline.publish(None, None, Finished(), 0.0)

    assert relayed == [AgentEvent("a", Finished())]
