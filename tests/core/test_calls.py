"""Every outstanding call ends once: answered, peer lost, or deadline."""

from __future__ import annotations

import weakref

from hypothesis import given
from hypothesis import strategies as st

from loopal_cluster.core.calls import Call, CallTable
from loopal_cluster.core.events import Peer
from loopal_cluster.messages import Status

A, B = Peer(1), Peer(2)


def test_ids_are_counted_for_each_peer():
    calls: CallTable[str] = CallTable()

    opened = [calls.open(peer, Status(), "then", 1.0) for peer in (A, A, B, A)]

    assert [call.id for call in opened] == [1, 2, 1, 3]


def test_a_call_is_settled_by_its_answer_once():
    calls: CallTable[str] = CallTable()
    calls.open(A, Status(), "then", 1.0)

    assert calls.find(A, 1) == Call(A, 1, Status(), "then", 1.0)
    assert calls.settle(A, 1) == Call(A, 1, Status(), "then", 1.0)

    assert calls.settle(A, 1) is None
    assert list(calls.settle_due(9.0)) == []
    assert calls.settle_peer(A) == []


def test_a_settled_call_no_longer_keeps_its_message():
    calls: CallTable[str] = CallTable()
    message = Status()
    kept = weakref.ref(message)
    calls.open(A, message, "then", 1e9)
    del message

    assert kept() is not None
    calls.settle(A, 1)

    assert kept() is None


def test_a_call_is_settled_by_its_deadline_once():
    calls: CallTable[str] = CallTable()
    calls.open(A, Status(), "late", 2.0)
    calls.open(B, Status(), "early", 1.0)

    assert list(calls.settle_due(0.9)) == []
    assert [call.then for call in calls.settle_due(2.0)] == ["early", "late"]

    assert list(calls.settle_due(9.0)) == []
    assert calls.settle(A, 1) is None
    assert calls.settle_peer(B) == []


def test_a_call_is_settled_by_the_loss_of_its_peer_once():
    calls: CallTable[str] = CallTable()
    for then in ("first", "second"):
        calls.open(A, Status(), then, 1.0)
    calls.open(B, Status(), "other", 1.0)

    assert [call.then for call in calls.settle_peer(A)] == ["first", "second"]

    assert calls.settle(A, 1) is None
    assert [call.then for call in calls.settle_due(9.0)] == ["other"]


def test_a_peer_cannot_answer_a_call_made_to_another():
    calls: CallTable[str] = CallTable()
    calls.open(A, Status(), "for a", 1.0)

    assert calls.settle(B, 1) is None
    assert calls.find(B, 1) is None

    assert calls.count(A) == len(calls) == 1


def test_equal_ids_of_two_peers_are_two_calls():
    calls: CallTable[str] = CallTable()
    assert calls.open(A, Status(), "for a", 1.0).id == calls.open(B, Status(), "for b", 1.0).id == 1

    settled = calls.settle(B, 1)

    assert settled is not None
    assert settled.then == "for b"
    assert [call.then for call in calls] == ["for a"]


def test_an_id_is_not_used_again():
    calls: CallTable[str] = CallTable()
    calls.open(A, Status(), "first", 1.0)
    calls.settle(A, 1)

    assert calls.open(A, Status(), "second", 1.0).id == 2


def test_calls_that_are_kept_stay_open_until_their_deadline():
    calls: CallTable[str] = CallTable()
    for then, deadline in (("keep", 2.0), ("drop", 1.0)):
        calls.open(A, Status(), then, deadline)

    assert [call.then for call in calls.settle_peer(A, lambda call: call.then == "keep")] == ["drop"]
    assert calls.next_deadline() == 2.0
    assert [call.then for call in calls.settle_due(2.0)] == ["keep"]
    assert (calls._legs, calls._away) == ({}, set())


def test_a_call_may_be_opened_to_a_peer_that_is_away_and_leaves_nothing_when_it_is_settled():
    calls: CallTable[str] = CallTable()
    request = calls.open(A, Status(), "then", 1.0)
    calls.park(A)

    assert calls.settle(A, request.id) is not None
    assert (calls._legs, calls._away) == ({}, set())


STEPS = st.lists(
    st.tuples(st.just("open"), st.sampled_from([A, B]), st.integers(0, 9))
    | st.tuples(st.just("settle"), st.sampled_from([A, B]), st.integers(1, 9))
    | st.tuples(st.just("lose"), st.sampled_from([A, B]))
    | st.tuples(st.just("keep"), st.sampled_from([A, B]))
    | st.tuples(st.just("time"), st.integers(0, 9)),
    max_size=60,
)


@given(STEPS)
def test_whatever_happens_every_call_is_handed_out_exactly_once(steps):
    calls: CallTable[int] = CallTable()
    opened, settled = 0, []

    for step in steps:
        match step:
            case ("open", peer, at):
                calls.open(peer, Status(), opened, float(at))
                opened += 1
            case ("settle", peer, call_id):
                settled += [call for call in [calls.settle(peer, call_id)] if call is not None]
            case ("lose", peer):
                settled += calls.settle_peer(peer)
            case ("keep", peer):
                settled += calls.settle_peer(peer, lambda call: call.then % 2 == 0)
            case ("time", now):
                settled += calls.settle_due(float(now))
        assert len(calls) + len(settled) == opened
    settled += calls.settle_due(10.0)

    assert sorted(call.then for call in settled) == list(range(opened))
    assert calls.next_deadline() is None
