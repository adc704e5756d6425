"""``python -m benchmarks``: how fast the MetaHub is, beside what it is compared with.

Exit status 0: measured; 1: something could not be; 2: wrong usage; 130: interrupted. A missed target is
marked in the table and is no failure.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import asdict

from benchmarks.arguments import Parser
from benchmarks.errors import BenchmarkError
from benchmarks.load import Sample, compiled
from benchmarks.machine import describe
from benchmarks.peers.environments import PEERS
from benchmarks.peers.side_by_side import Answered, compare, comparison_table
from benchmarks.routing import LOADS, SIDE_BY_SIDE, routing_rows
from benchmarks.sampling import BOTH, Job, Medians, medians, sample_all
from benchmarks.servers import SERVERS, find_nats
from benchmarks.sweeps import write_plots, write_whole_path_plots
from benchmarks.table import Row, markdown, number, rows_table
from benchmarks.whole_path import WHOLE_PATH, whole_path_rows

LONG = {"idle-1000", "bare-1000", "idle-10000", "two-hubs", "slow-hub", "large-256", "deaf-observer"}
"""What ``--quick`` leaves out."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, show, and return the exit status."""
    options = _parser().parse_args(arguments)
    _allow_many_files()
    try:
        document = _measure(options)
    except BenchmarkError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(json.dumps(document, indent=2) if options.json else document["markdown"])
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m benchmarks", description=__doc__.splitlines()[0] if __doc__ else "")
    names = [*LOADS, *WHOLE_PATH]
    parser.add_argument("--only", action="append", choices=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--quick", action="store_true", help="one short sample each, of the short ones")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of tables")
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="samples of each (default: 3)")
    parser.add_argument("--seconds", type=float, default=1.0, metavar="S", help="for a sample (default: 1)")
    parser.add_argument(
        "--retries", type=int, default=3, metavar="N", help="of a disturbed sample (default: 3)"
    )
    for name, peer in PEERS.items():
        parser.add_argument(f"--{name}", action="store_true", help=f"measure {peer.title}, too; installs it")
    parser.add_argument("--plots", type=Path, metavar="DIRECTORY", help="write plots as SVG there, instead")
    return parser


def _measure(options: argparse.Namespace) -> dict[str, Any]:
    left_out = []
    if options.nats:
        try:
            find_nats()
        except BenchmarkError as error:
            options.nats = False
            left_out.append(str(error))
            print(f"left out: {error}", file=sys.stderr)
    peers = [name for name, peer in PEERS.items() if peer.module and getattr(options, name)]
    repeats, retries = (1, 0) if options.quick else (options.repeats, options.retries)
    seconds = min(options.seconds, 0.3) if options.quick else options.seconds
    chosen = options.only or [name for name in (*LOADS, *WHOLE_PATH) if not (options.quick and name in LONG)]
    with compiled() as programs:
        if options.plots is not None:
            servers = ["metahub", "metahub-unix", "relay", "trio-relay", *(["nats"] if options.nats else [])]
            paths = write_plots(
                programs, options.plots, servers, seconds=seconds, repeats=repeats, retries=retries
            )
            answered, missing = compare(peers, max(seconds, 1.0), repeats)
            paths += write_whole_path_plots(options.plots, answered)
            return _plotted(paths, [*left_out, *missing])
        jobs = _jobs(chosen, nats=options.nats, seconds=seconds)
        taken = sample_all(programs, jobs, repeats=repeats, retries=retries)
    whole = whole_path_rows([name for name in WHOLE_PATH if name in chosen], seconds, repeats)
    answered, missing = compare(peers, max(seconds, 1.0), repeats) if peers else ({}, [])
    return _document(taken, whole, answered, [*left_out, *missing])


def _plotted(paths: Sequence[Path], left_out: Sequence[str]) -> dict[str, Any]:
    lines = [*map(str, paths), *(f"Left out: {reason}." for reason in left_out)]
    return {"plots": [str(path) for path in paths], "left_out": [*left_out], "markdown": "\n".join(lines)}


def _jobs(chosen: Sequence[str], *, nats: bool, seconds: float) -> list[Job]:
    servers = [name for name in SERVERS if name != "nats" or nats]
    return [
        Job(server, name, placement, {"seconds": seconds, **load})
        for name, load in LOADS.items()
        if name in chosen
        for placement in BOTH
        for server in (servers if name in SIDE_BY_SIDE else ["metahub"])
    ]


def _document(
    taken: Sequence[tuple[Job, Sample]], whole: Sequence[Row], answered: Answered, left_out: Sequence[str]
) -> dict[str, Any]:
    machine, found = describe(), medians(taken)
    ours: dict[str, dict[str, Medians]] = {placement.name: {} for placement in BOTH}
    for job, median in found.items():
        if job.server == "metahub":
            ours[job.placement.name][job.scenario] = median
    rows = routing_rows(ours)
    parts = [_described(machine)]
    if rows:
        parts += ["## The MetaHub alone", rows_table(rows, "Loopal, Rust")]
        parts += ["## Side by side", _side_by_side(found)]
    if whole:
        parts += ["## The whole path", rows_table(whole, "others")]
    if answered:
        parts += ["## The whole path, side by side", comparison_table(answered)]
    parts += [f"Left out: {reason}." for reason in left_out]
    return {
        "machine": machine,
        "rows": [asdict(row) for row in (*rows, *whole)],
        "samples": [
            {"server": job.server, "load": job.scenario, "placement": job.placement.name, **asdict(sample)}
            for job, sample in taken
        ],
        "side_by_side": answered,
        "left_out": [*left_out],
        "markdown": "\n\n".join(parts),
    }


def _described(machine: Mapping[str, str]) -> str:
    return "Measured on: " + ", ".join(f"{key} {value}" for key, value in machine.items()) + "."


def _side_by_side(found: Mapping[Job, Medians]) -> str:
    lines = [
        [
            job.scenario,
            job.placement.name,
            SERVERS[job.server],
            number(median.rate),
            number(median.cpu_us),
            number(median.p50_ms),
            number(median.p99_ms),
            f"{median.of(lambda sample: sample.generator_cores):.2f}",
            f"{median.of(lambda sample: sample.others):.2f}",
        ]
        for job, median in found.items()
        if job.scenario in SIDE_BY_SIDE
    ]
    head = ["load", "placement", "server", "per second", "server CPU, us", "p50, ms", "p99, ms"]
    return markdown([*head, "generator, cores", "others, cores"], lines)


def _allow_many_files() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # for the servers, which inherit it


if __name__ == "__main__":
    sys.exit(main())
