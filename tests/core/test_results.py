"""The outcomes of agents that have ended, keyed by identity."""

from __future__ import annotations

from attrs import evolve

from loopal_cluster.address import Address
from loopal_cluster.core.results import FinishedAgent, Results
from loopal_cluster.messages import Waited
from loopal_cluster.outcomes import Cancelled, Done, Failed


def ended(agent_id: str, address: str = "a", outcome=Done("yes"), expires_at: float = 10.0) -> FinishedAgent:  # noqa: B008
    """An agent that has ended."""
    return FinishedAgent(agent_id, Address.parse(address), "t", None, outcome, expires_at)


def kept(*finished: FinishedAgent, limit: int = 10) -> Results:
    """Results that hold some agents."""
    results = Results(limit)
    for one in finished:
        results.add(one)
    return results


def test_a_name_finds_its_newest_run_and_an_identity_its_own():
    first, second = ended("1"), ended("2")
    results = kept(first, second)

    assert results.find(Address("a")) is second
    assert results.find(Address("a"), "1") is first
    assert results.find(Address("b"), "2") is second
    assert results.find(Address("a"), "3") is None


def test_a_qualified_run_is_found_by_its_bare_name_too():
    there = ended("1", "h/a")

    assert kept(there).find(Address("a", "h")) is there
    assert kept(there).find(Address("a")) is there


def test_a_bare_name_means_the_run_here_rather_than_one_elsewhere():
    here, there = ended("1"), ended("2", "h/a")

    assert kept(here, there).find(Address("a")) is here
    assert kept(there, here).find(Address("a")) is here


def test_the_oldest_goes_when_there_are_too_many():
    results = kept(ended("1"), ended("2", "b"), ended("3", "c"), limit=2)

    assert len(results) == 2
    assert results.find(Address("a")) is None


def test_forgetting_an_old_run_does_not_hide_a_newer_one():
    newer = ended("2", expires_at=20.0)
    results = kept(ended("1"), newer)

    results.expire(10.0)

    assert results.find(Address("a")) is newer
    assert results.find(Address("a"), "1") is None


def test_an_outcome_expires_when_it_is_due():
    results = kept(ended("1"))

    results.expire(9.9)
    assert results.next_deadline() == 10.0
    results.expire(10.0)

    assert results.next_deadline() is None
    assert results.find(Address("a")) is None


def test_a_wait_gets_the_outcome_and_the_words_of_the_base_dialect():
    outcome = Failed("no such file")

    waited = ended("1", outcome=outcome).waited()

    assert waited == Waited("no such file", agent="a", agent_id="1", outcome=outcome)


def test_the_details_of_a_failed_agent_say_why():
    assert ended("1", outcome=Failed("boom")).details().lifecycle == 'Failed("boom")'
    assert ended("1", outcome=Cancelled("enough")).details().lifecycle == "Finished"


def test_a_spawn_that_may_be_repeated_is_known_to_be_spent_when_its_outcome_was_forgotten():
    local, repeatable = ended("1"), evolve(ended("2"), repeated_until=50.0)
    results = kept(local, repeatable, ended("3"), ended("4"), limit=2)

    assert [results.is_spent(agent_id) for agent_id in "1234"] == [False, True, False, False]
    assert results.next_deadline() == 50.0
    results.expire(50.0)
    assert not results.is_spent("2")


def test_no_more_are_started_for_others_than_can_be_told_from_repetitions():
    agents = [evolve(ended(str(number)), repeated_until=50.0) for number in range(12)]

    assert not kept(*agents[:10], limit=1).full
    assert kept(*agents, limit=1).full
