"""A hub dials again: in time for the place that is kept for it, and not all hubs at once."""

from __future__ import annotations

import itertools
import random

import pytest

from loopal_cluster import Timeouts
from loopal_cluster.core.redial import redial_pauses

TIMES = Timeouts()


def dials(uniform, until: float = 30.0) -> list[float]:
    """When a hub dials whose connection ended at 0."""
    return [*itertools.takewhile(lambda at: at < until, itertools.accumulate(redial_pauses(TIMES, uniform)))]


def longest(low: float, high: float) -> float:
    return high


def test_pauses_are_short_while_the_place_is_kept_then_double_up_to_the_longest():
    times = Timeouts(redial_delay=0.125, rejoin_timeout=0.75, redial_delay_max=0.75)

    pauses = [*itertools.islice(redial_pauses(times, longest), 11)]

    assert pauses == [0.125] * 6 + [0.25, 0.5, 0.75, 0.75, 0.75]


def test_pauses_grow_to_seconds_while_the_meta_hub_refuses_and_shrink_when_it_only_is_away():
    times = Timeouts(redial_delay=0.125, rejoin_timeout=0.75, redial_delay_max=0.5, refused_delay_max=2.0)
    refused = [*[True] * 10, *[False] * 2]

    pauses = redial_pauses(times, longest, lambda: refused.pop(0) if refused else False)

    assert [*itertools.islice(pauses, 14)] == [0.125] * 6 + [0.25, 0.5, 1.0, 2.0, 2.0, 2.0, 2.0, 2.0]


@pytest.mark.parametrize("seed", range(200))
def test_a_hub_whose_meta_hub_is_reachable_again_in_time_dials_it_in_time(seed):
    at = [0.0, *dials(random.Random(seed).uniform)]

    in_time = [now for now in at if now <= TIMES.rejoin_timeout]
    assert TIMES.rejoin_timeout - in_time[-1] <= TIMES.redial_delay
    assert max(later - now for now, later in itertools.pairwise(in_time)) <= TIMES.redial_delay


@pytest.mark.parametrize("seed", range(200))
def test_a_hub_dials_at_least_once_in_the_second_after_its_meta_hub_is_back(seed):
    at = dials(random.Random(seed).uniform)

    assert max(later - now for now, later in itertools.pairwise(at)) <= TIMES.redial_delay_max < 1.0


def test_hubs_that_lost_their_meta_hub_together_do_not_come_back_together():
    fleet = sorted(dials(random.Random(seed).uniform)[20] for seed in range(100))

    assert fleet[-1] - fleet[0] > 1.0
    assert all(fleet[n + 10] - fleet[n] > 0.01 for n in range(90))


def test_there_is_time_for_a_pause_and_a_registration_before_a_hub_is_lost():
    with pytest.raises(ValueError, match="2 \\* redial_delay < rejoin_timeout"):
        Timeouts(rejoin_timeout=0.2, redial_delay=0.1)
