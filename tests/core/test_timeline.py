"""What has happened, in order, for those who watch."""

from __future__ import annotations

from loopal_cluster.config import Limits
from loopal_cluster.core.effects import Send
from loopal_cluster.core.events import Peer
from loopal_cluster.core.exchange import Exchange
from loopal_cluster.core.timeline import Timeline
from loopal_cluster.frames import Notification
from loopal_cluster.messages import AgentEvent, ClusterEvent, Subscribed
from loopal_cluster.payloads import Finished

WATCHER = Peer(1)


def open_timeline(**fields) -> tuple[Timeline, Exchange]:
    """A timeline that keeps three events, and one watcher that is connected."""
    exchange: Exchange = Exchange(Limits(timeline=3))
    exchange.admit(WATCHER)
    return Timeline(exchange, 1000.0, **fields), exchange


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

    assert timeline.subscribe(WATCHER, None) == Subscribed(1)
    timeline.publish("h", "a", Finished(), 1.0)

    assert exchange.drain() == [event(2)]


def test_since_brings_back_what_is_still_kept_and_counts_what_is_not():
    timeline, exchange = open_timeline()
    publish(timeline, 5)

    assert timeline.subscribe(WATCHER, 1) == Subscribed(5, missed=1)

    assert exchange.drain() == [event(3), event(4), event(5)]


def test_since_the_newest_brings_nothing_and_misses_nothing():
    timeline, exchange = open_timeline()
    publish(timeline, 5)

    assert timeline.subscribe(WATCHER, 5) == Subscribed(5, missed=0)
    assert exchange.drain() == []


def test_since_the_beginning_misses_nothing_that_never_was():
    timeline, _ = open_timeline()
    publish(timeline, 2)

    assert timeline.subscribe(WATCHER, 0) == Subscribed(2, missed=0)
    assert timeline.subscribe(WATCHER, -1) == Subscribed(2, missed=0)


def test_since_a_number_not_reached_yet_misses_nothing():
    timeline, exchange = open_timeline()
    publish(timeline, 2)

    assert timeline.subscribe(WATCHER, 100) == Subscribed(2, missed=0)
    assert exchange.drain() == []


def test_subscribing_twice_does_not_double_the_events():
    timeline, exchange = open_timeline()
    timeline.subscribe(WATCHER, None)
    timeline.subscribe(WATCHER, None)

    publish(timeline, 1)

    assert exchange.drain() == [event(1)]


def test_a_forgotten_subscriber_hears_no_more():
    timeline, exchange = open_timeline()
    timeline.subscribe(WATCHER, None)

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
