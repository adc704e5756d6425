"""How a drill judges what it has seen, without a process."""

from __future__ import annotations

import pytest

from benchmarks.drills.findings import Drill, Findings, Result, Time
from benchmarks.drills.ledger import Balance, Ledger, answer_to
from benchmarks.drills.processes import Site
from benchmarks.drills.report import document, table
from loopal_cluster import AgentLost, ConnectionLost, HubNotConnected


async def run(site: Site) -> Findings:
    raise NotImplementedError


DRILL = Drill("a-drill", "something is killed", run)


def ledger(**answers: str | None) -> Ledger:
    return Ledger(dict(answers))


@pytest.mark.parametrize(
    ("answer", "journal", "balance"),
    [
        ("done", ["m"], Balance(lost=0, doubled=0)),
        ("done", [], Balance(lost=1, doubled=0)),
        ("done", ["m", "m"], Balance(lost=0, doubled=1)),
        ("hub_not_connected", [], Balance(lost=0, doubled=0)),
        ("hub_not_connected", ["m"], Balance(lost=0, doubled=1)),
        ("connection_lost", [], Balance(lost=0, doubled=0)),
        ("connection_lost", ["m"], Balance(lost=0, doubled=0)),
        ("connection_lost", ["m", "m"], Balance(lost=0, doubled=1)),
        (None, ["m"], Balance(lost=1, doubled=0)),
    ],
)
def test_an_answer_must_agree_with_what_was_done(
    answer: str | None, journal: list[str], balance: Balance
) -> None:
    assert ledger(m=answer).balance(journal) == balance


def test_what_was_done_for_nobody_we_know_is_not_counted() -> None:
    assert ledger(m="done").balance(["m", "probe", "probe"]) == Balance(lost=0, doubled=0)


@pytest.mark.parametrize(
    ("error", "answer"),
    [
        (ConnectionLost("gone"), "connection_lost"),
        (HubNotConnected("no hub"), "hub_not_connected"),
        (AgentLost("hub-b/a", "killed"), "AgentLost"),
    ],
)
async def test_an_error_is_an_answer(error: Exception, answer: str) -> None:
    async def request() -> None:
        raise error

    assert await answer_to(request) == answer


async def test_an_error_that_is_not_an_answer_breaks_the_drill() -> None:
    async def request() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await answer_to(request)


def test_a_drill_passes_when_its_times_are_kept_and_nothing_is_counted() -> None:
    findings = Findings(Time("from the kill", 0.9, 1.0), counts={"done": 3})

    assert Result(DRILL, 2.0, findings).faults == []


@pytest.mark.parametrize(
    ("findings", "fault"),
    [
        (Findings(detection=Time("told", 1.1, 1.0)), "told: 1.100 s, wanted 1 s"),
        (Findings(recovery=Time("works", 1.1, 1.0)), "works: 1.100 s, wanted 1 s"),
        (Findings(times=(Time("more", 1.1, 1.0),)), "more: 1.100 s, wanted 1 s"),
        (Findings(lost=1), "1 lost"),
        (Findings(doubled=2), "2 doubled"),
        (Findings(left=3), "3 left"),
    ],
)
def test_each_of_these_is_a_fault(findings: Findings, fault: str) -> None:
    result = Result(DRILL, 2.0, findings)

    assert result.faults == [fault]
    assert document([result])["passed"] is False
    assert "FAILED" in table([result])


def test_a_drill_that_broke_shows_no_counts() -> None:
    result = Result(DRILL, 2.0, error="TooSlowError")

    assert result.faults == ["TooSlowError"]
    assert table([result]).splitlines()[1].split() == ["a-drill", "?", "?", "?", "FAILED"]
