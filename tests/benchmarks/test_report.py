"""What is made of samples: medians, rows, tables, plots, and the gate on instruction counts."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest

from benchmarks.__main__ import main
from benchmarks.instructions import compare
from benchmarks.load import Events, Faults, Latency, Sample
from benchmarks.plots import by_series, plot
from benchmarks.routing import LINES, LOADS, routing_rows
from benchmarks.sampling import Medians
from benchmarks.table import Row, number, rows_table

SURROUNDINGS = {"python": "3.11.7", "trio": "1", "msgspec": "1", "attrs": "1", "cattrs": "1"}
COMMITTED = {**SURROUNDINGS, "per_route": {"codec": 1000}}


def sample(rate: float) -> Sample:
    return Sample(
        seconds=1.0,
        load=Latency(int(rate), rate, 1e6 / rate, 2e6 / rate, 3e6 / rate),
        server_cpu_us=5.0,
        generator_cores=0.2,
        server_cores=0.9,
        connect_seconds=0.1,
        idle_mb=40.0,
        mb=41.0,
        events=Events(0, 0, 0, 0.0),
        faults=Faults(0, 0, 0, 0),
    )


def test_the_median_of_the_samples_counts() -> None:
    assert Medians([sample(10), sample(1000), sample(30)]).rate == 30


def test_a_row_needs_all_its_loads() -> None:
    measured = {"two cores": {"slow-hub": Medians([sample(90)])}}

    assert routing_rows(measured) == []


def test_what_others_keep_is_a_share_of_the_rate_without_a_slow_hub() -> None:
    measured = {"two cores": {"window-16": Medians([sample(100)]), "slow-hub": Medians([sample(90)])}}

    keeps = next(row for row in routing_rows(measured) if "answers after 500 ms" in row.work)

    assert keeps.ours == {"two cores": 90}


def test_every_line_of_the_table_is_about_loads_that_there_are() -> None:
    assert {name for line in LINES for name in line.needs} <= LOADS.keys()


@pytest.mark.parametrize(
    ("value", "at_most", "missed"),
    [(9, False, True), (10, False, False), (11, True, True), (10, True, False), (None, True, False)],
)
def test_a_missed_target_is_marked(value: float | None, at_most: bool, missed: bool) -> None:
    row = Row("work", "5", 10, "ms", at_most, {"here": value})

    assert ("(missed)" in rows_table([row], "others")) is missed


def test_figures_have_three_digits() -> None:
    assert [number(value) for value in (0.01234, 1.234, 123.4, 123456.0, None)] == [
        "0.0123", "1.23", "123", "123,456", "-",
    ]  # fmt: skip


def test_a_plot_is_a_document_with_a_curve_for_each_series() -> None:
    curves = by_series([("a <b>", 1, 10), ("c", 16, 20), ("c", 256, 0), ("a <b>", 256, 5000)])

    document = ElementTree.fromstring(plot("title", "x", "y", curves))

    assert [
        len(line.attrib["points"].split()) for line in document.iter("{http://www.w3.org/2000/svg}polyline")
    ] == [2, 1]


@pytest.mark.parametrize(("counted", "passed"), [(1050, True), (1051, False), (500, True)])
def test_five_per_cent_more_instructions_are_too_many(counted: int, passed: bool) -> None:
    lines, verdict = compare({"codec": counted}, COMMITTED, SURROUNDINGS)

    assert verdict is passed
    assert f"{counted:,} instructions" in lines[0]


def test_counts_of_another_python_are_not_compared() -> None:
    lines, passed = compare({"codec": 5000}, COMMITTED, {**SURROUNDINGS, "python": "3.12.0"})

    assert passed
    assert lines == ["instructions: 3.11.7 was counted, not 3.12.0: not compared"]


def test_a_changed_dependency_is_named_when_the_counts_have_grown() -> None:
    lines, passed = compare({"codec": 5000}, COMMITTED, {**SURROUNDINGS, "msgspec": "2"})

    assert not passed
    assert lines[-1] == "of another version than before: msgspec"


def test_an_unknown_load_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["--only", "nothing"])

    assert exit_.value.code == 2
    assert capsys.readouterr().err.startswith("error: argument --only: invalid choice: 'nothing'")


def test_a_missing_compiler_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")

    assert main(["--only", "window-1"]) == 1
    assert capsys.readouterr().err == (
        "error: the load generator is a C program, and no compiler (cc, gcc, clang) was found\n"
    )


@pytest.mark.parametrize(("turned", "passed"), [(1100, True), (1120, False)])
def test_a_peer_that_writes_its_lines_in_another_way_must_have_nearly_the_same_speed(turned, passed):
    committed = {**SURROUNDINGS, "per_route": {"runtime": 1000, "turned": 1100}}

    assert compare({"runtime": 1000, "turned": turned}, committed, SURROUNDINGS)[1] is passed
