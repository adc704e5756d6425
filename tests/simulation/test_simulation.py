"""Clusters from seeds: calm and rough, the same every time, and small when they fail."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from attrs import evolve

from loopal_cluster.core.supervisor import Supervisor
from loopal_cluster.core.waits import Waits
from tests.simulation import Simulation, Weather
from tests.simulation.__main__ import main
from tests.simulation.shrink import shrink

CALM_SEEDS, ROUGH_SEEDS = range(40), range(40)
"""Those of every day. ``.ci/run`` simulates fresh ones, and the slow tests thousands."""


def findings(weather: Weather, seeds: range) -> list[str]:
    return [
        f"seed {seed}: {deviation}"
        for seed in seeds
        for deviation in Simulation(seed, weather).run().deviations
    ]


def test_in_calm_weather_every_promise_is_kept():
    assert findings(Weather.CALM, CALM_SEEDS) == []


def test_in_rough_weather_every_promise_is_kept():
    assert findings(Weather.ROUGH, ROUGH_SEEDS) == []


def test_the_wire_changes_no_outcome():
    for seed in range(6):
        simulation = Simulation(seed, Weather.ROUGH)
        assert simulation.script is not None
        as_records, as_lines = (
            evolve(simulation, script=evolve(simulation.script, codec=codec)).run() for codec in (False, True)
        )

        assert [(str(op), op.verdict, op.ended_at) for op in as_records.history.ops] == [
            (str(op), op.verdict, op.ended_at) for op in as_lines.history.ops
        ]


DIGEST = """
from tests.simulation import Simulation, Weather
for seed in range(3):
    print(Simulation(seed, Weather.ROUGH).run(tracing=True).digest)
"""


def digests(hash_seed: str) -> list[str]:
    environment = os.environ | {"PYTHONHASHSEED": hash_seed}
    done = subprocess.run(
        [sys.executable, "-c", DIGEST],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout.split()


def test_a_seed_gives_the_same_transcript_in_every_process():
    here = [Simulation(seed, Weather.ROUGH).run(tracing=True).digest for seed in range(3)]

    assert len(set(here)) == 3
    assert digests("1") == here
    assert digests("12345") == here


def test_tracing_changes_nothing_but_the_transcript():
    for seed in range(3):
        simulation = Simulation(seed, Weather.ROUGH)
        seen, unseen = simulation.run(tracing=True), simulation.run()

        assert evolve(seen, transcript=()).digest == unseen.digest


def test_a_failing_script_shrinks_to_what_it_needs(monkeypatch):
    monkeypatch.setattr(Supervisor, "_tell_parent", lambda *_: None)
    failing = next(
        simulation
        for simulation in map(Simulation, range(100), [Weather.CALM] * 100)
        if any(found.checker == "parent is told" for found in simulation.run().deviations)
    )

    small = failing.shrunk("parent is told")

    assert len(small.script.steps) == 2, "a parent and a child, spawned"
    assert any(found.checker == "parent is told" for found in small.run().deviations)


def test_shrinking_keeps_what_the_failure_needs():
    assert shrink(range(100), lambda items: {13, 77} <= set(items)) == [13, 77]
    assert len(shrink(range(100), lambda items: len(items) >= 3)) == 3


def test_the_command_says_how_many_runs_kept_every_promise(capsys):
    status = main(["--seeds", "3", "--seed", "0", "--weather", "calm", "--peers", "ours"])

    assert status == 0
    assert "seeds 0 to 2: 3 runs" in capsys.readouterr().out


def test_the_command_shows_the_seed_the_script_and_the_transcript_of_a_finding(monkeypatch, capsys):
    monkeypatch.setattr(Waits, "on_due", lambda *_: None)

    status = main(["--seeds", "50", "--seed", "0", "--weather", "calm"])

    out = capsys.readouterr().out
    assert status == 1
    assert "[one outcome]" in out
    assert "hub/wait_agent" in out
    assert "again: python -m tests.simulation --seed" in out


def test_the_command_speaks_json(capsys):
    status = main(["--seeds", "2", "--seed", "0", "--weather", "calm", "--peers", "ours", "--json"])

    said = json.loads(capsys.readouterr().out)
    assert status == 0
    assert (said["first_seed"], said["runs"], said["findings"]) == (0, 2, 0)


@pytest.mark.slow
@pytest.mark.parametrize("weather", Weather)
def test_thousands_of_seeds_keep_every_promise(weather):
    assert findings(weather, range(1000, 6000)) == []


@pytest.mark.parametrize("seeds", ["0", "-1", "x", "1.5"])
def test_the_number_of_seeds_is_a_positive_one(seeds, capsys):
    with pytest.raises(SystemExit):
        main([f"--seeds={seeds}"])

    assert f"argument --seeds: '{seeds}' is not a positive number" in capsys.readouterr().err
