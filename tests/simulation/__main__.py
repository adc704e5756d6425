"""``python -m tests.simulation --seeds N``: simulate clusters; exit status 1 and the seed on a finding."""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Sequence

from tests.simulation import Level, Peers, Report, Simulation, Weather

__all__ = ["main"]

CONTEXT = 60
"""So many lines of the transcript before the deviation are shown."""
WIDTH = 240
"""So much of each."""
NOISE = ("Heartbeat(", "<- DeadlineReached", "AgentEvent(", "ClusterEvent(", "-> Log(")
"""What is left out of them."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; return the exit status."""
    options = _parse(arguments)
    first = random.SystemRandom().randrange(1_000_000) if options.seed is None else options.seed
    level = Level(options.level)
    weathers = list(Weather) if options.weather == "both" else [Weather(options.weather)]
    # The base peers of the simulation speak in frames, and the runtime level is one of bytes.
    clusters = [peers for peers in Peers if options.peers in (peers.value, "both")]
    if level is Level.RUNTIME:
        clusters = [Peers.OURS]
    kinds = [(weather, peers) for weather in weathers for peers in clusters]
    began = time.perf_counter()
    for done, seed in enumerate(range(first, first + options.seeds)):
        for weather, peers in kinds:
            simulation = Simulation(seed, weather, peers, level)
            report = simulation.run()
            if report.deviations:
                _show(simulation, report, done + 1, time.perf_counter() - began, as_json=options.json)
                return 1
    seconds = time.perf_counter() - began
    runs = options.seeds * len(kinds)
    summary = {
        "level": level.value,
        "first_seed": first,
        "seeds": options.seeds,
        "runs": runs,
        "seconds": round(seconds, 3),
        "runs_per_second": round(runs / seconds, 1),
        "findings": 0,
    }
    if options.json:
        print(json.dumps(summary))
    else:
        print(
            f"seeds {first} to {first + options.seeds - 1}: {runs} runs in {seconds:.1f} s "
            f"({runs / seconds:.0f}/s), every promise kept"
        )
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=_positive, default=1, metavar="N", help="how many (default: 1)")
    parser.add_argument("--seed", type=int, metavar="S", help="the first (default: a random one, printed)")
    parser.add_argument(
        "--level",
        choices=[level.value for level in Level],
        default="core",
        help="what runs: the cores alone, or the whole runtime on trio",
    )
    parser.add_argument(
        "--weather", choices=("calm", "rough", "both"), default="both", help="what goes wrong"
    )
    parser.add_argument(
        "--peers",
        choices=("ours", "mixed", "both"),
        default="both",
        help="who is in the cluster: mixed has hubs, or a MetaHub, that speak the base dialect only; "
        "they are not at the runtime level",
    )
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    options = parser.parse_args(arguments)
    if options.level == Level.RUNTIME.value and options.peers == Peers.MIXED.value:
        parser.error("there are no peers of the base dialect at the runtime level")
    return options


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return int(text)


def _show(simulation: Simulation, report: Report, done: int, seconds: float, *, as_json: bool) -> None:
    weather, peers, level = simulation.weather.value, simulation.peers.value, simulation.level.value
    first = report.deviations[0]
    small = simulation.shrunk(first.checker).run(tracing=True)
    found = next(deviation for deviation in small.deviations if deviation.checker == first.checker)
    transcript = [line[:WIDTH] for line in small.transcript if _tells(line, found.at)]
    if as_json:
        finding = {
            "seed": report.seed,
            "weather": weather,
            "peers": peers,
            "level": level,
            "checker": first.checker,
            "deviations": [str(deviation) for deviation in report.deviations],
            "script": str(small.script).splitlines(),
            "transcript": transcript[-CONTEXT:],
        }
        print(json.dumps({"seeds": done, "seconds": round(seconds, 3), "findings": 1, "finding": finding}))
        return
    print(f"seed {report.seed} ({weather}, {peers}) breaks a promise:")
    print(*(f"  {deviation}" for deviation in report.deviations), sep="\n")
    print(f"the script, shrunk from {len(report.script.steps)} to {len(small.script.steps)} steps:")
    print(small.script)
    print(f"what happened in it, the last {CONTEXT} lines before:")
    print(*transcript[-CONTEXT:], sep="\n")
    print(f"  {found}")
    options = f"--weather {weather} --peers {peers} --level {level}"
    print(f"again: python -m tests.simulation --seed {report.seed} {options}")


def _tells(line: str, until: float) -> bool:
    return float(line.split(maxsplit=1)[0]) <= until and not any(noise in line for noise in NOISE)


if __name__ == "__main__":
    sys.exit(main())
