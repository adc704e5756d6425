"""A dict whose entries have deadlines: an entry and its deadline go together."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from loopal_cluster.core.deadlines import DeadlineQueue
from loopal_cluster.core.pending import Pending
from loopal_cluster.core.steps import ReportDue

KEYS = st.sampled_from(["a", "b", "c"])
UNTIL = st.none() | st.integers(0, 10).map(float)
STEPS = st.lists(
    st.tuples(st.just("add"), KEYS, UNTIL)
    | st.tuples(st.just("set_deadline"), KEYS, UNTIL)
    | st.tuples(st.just("pop"), KEYS)
    | st.tuples(st.just("pop_all")),
    max_size=50,
)


@given(STEPS)
def test_the_timers_of_a_core_are_those_of_the_entries_that_are_there(steps):
    timers: DeadlineQueue[object] = DeadlineQueue()
    pending: Pending[str, int] = Pending(timers, ReportDue)
    model: dict[str, tuple[int, float | None]] = {}

    for number, step in enumerate(steps):
        match step:
            case ("add", key, until):
                pending.add(key, number, until)
                model[key] = (number, until)
            case ("set_deadline", key, until):
                pending.set_deadline(key, until)
                if key in model:
                    model[key] = (model[key][0], until)
            case ("pop", key):
                assert pending.pop(key) == model.pop(key, (None, None))[0]
            case ("pop_all",):
                assert pending.pop_all() == [value for value, _ in model.values()]
                model = {}
        assert list(pending.items()) == [(key, value) for key, (value, _) in model.items()]
        assert len(pending) == len(model)
        timed = {key for key, (_, until) in model.items() if until is not None}
        assert {key for key in "abc" if pending.has_deadline(key)} == timed
        assert len(timers) == len(timed)


def test_what_is_due_stays_until_it_is_popped_and_can_be_tried_again():
    timers: DeadlineQueue[object] = DeadlineQueue()
    pending: Pending[str, str] = Pending(timers, ReportDue)
    pending.add("a", "the report", 1.0)

    assert timers.pop_due(1.0) == ReportDue("a")
    assert (pending.get("a"), pending.has_deadline("a")) == ("the report", False)
    pending.set_deadline("a", 2.0)
    assert timers.next() == 2.0


def test_two_of_them_share_the_timers_of_a_core():
    timers: DeadlineQueue[object] = DeadlineQueue()
    first: Pending[int, str] = Pending(timers, lambda key: ("first", key))
    second: Pending[int, str] = Pending(timers, lambda key: ("second", key))
    first.add(1, "one", 2.0)
    second.add(1, "another", 1.0)

    second.pop_all()
    assert (timers.pop_due(9.0), timers.pop_due(9.0)) == (("first", 1), None)
