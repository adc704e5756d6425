"""What is due when: against the simplest model, and in memory."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from loopal_cluster.core.deadlines import DeadlineQueue

KEYS = st.integers(0, 5)
INSTANTS = st.integers(0, 10).map(float)
STEPS = st.lists(
    st.tuples(st.just("set"), KEYS, INSTANTS)
    | st.tuples(st.just("discard"), KEYS)
    | st.tuples(st.just("pop"), INSTANTS),
    max_size=200,
)


@given(STEPS)
def test_it_behaves_as_a_dictionary_that_is_searched(steps):
    queue: DeadlineQueue[int] = DeadlineQueue()
    model: dict[int, float] = {}  # in the order of setting

    for step in steps:
        match step:
            case ("set", key, at):
                queue.set(key, at)
                model.pop(key, None)
                model[key] = at
            case ("discard", key):
                queue.discard(key)
                model.pop(key, None)
            case ("pop", now):
                due = [key for key, at in model.items() if at <= now]
                expected = min(due, key=lambda key: model[key], default=None)
                if expected is not None:
                    del model[expected]
                assert queue.pop_due(now) == expected
        assert queue.next() == min(model.values(), default=None)
        assert len(queue) == len(model)
        assert all((key in queue) == (key in model) for key in range(6))


def test_ties_are_popped_in_the_order_of_setting():
    queue: DeadlineQueue[str] = DeadlineQueue()
    for key in "cab":
        queue.set(key, 1.0)
    queue.set("c", 1.0)

    assert [queue.pop_due(1.0) for _ in range(4)] == ["a", "b", "c", None]


def test_keys_need_not_be_comparable():
    queue: DeadlineQueue[object] = DeadlineQueue()
    queue.set(object(), 1.0)
    queue.set(object(), 1.0)

    assert queue.pop_due(1.0) is not queue.pop_due(1.0)


def test_settled_deadlines_leave_nothing_behind():
    queue: DeadlineQueue[int] = DeadlineQueue()
    queue.set(-1, 1e9)

    largest = 0
    for key in range(100_000):
        queue.set(key, 30.0 + key)
        queue.discard(key)
        largest = max(largest, len(queue._heap))

    assert largest < 100
    assert queue.next() == 1e9


def test_moving_one_deadline_again_and_again_keeps_one_entry_in_essence():
    queue: DeadlineQueue[str] = DeadlineQueue()

    for at in range(100_000):
        queue.set("heartbeat", float(at))

    assert len(queue._heap) < 100
    assert queue.next() == 99_999.0
