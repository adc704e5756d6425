"""Rate and latency against one quantity at a time, as plots."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from benchmarks.errors import BenchmarkError
from benchmarks.load import Load
from benchmarks.peers.side_by_side import Answered
from benchmarks.plots import by_series, plot
from benchmarks.sampling import BOTH, Job, Medians, medians, sample_all
from benchmarks.servers import SERVERS

__all__ = ["SWEEPS", "write_plots", "write_whole_path_plots"]

SWEEPS: dict[str, tuple[str, dict[int, Load]]] = {
    "window": ("requests in flight", {n: {"window": n} for n in (1, 4, 16, 64, 256, 1024)}),
    "hubs": (
        "hubs, of which 16 are busy",
        {n: {"window": 16, "hubs": n, "warm_up": 1} for n in (16, 64, 256, 1024, 4096)},
    ),
    "bytes": ("bytes in a message", {n: {"window": 16, "bytes": n} for n in (20, 200, 2000, 16384, 65536)}),
}
"""By name: what the quantity is, and the load for each value of it."""


def write_plots(
    programs: Path, directory: Path, servers: Sequence[str], *, seconds: float, repeats: int, retries: int
) -> list[Path]:
    """Measure all ``SWEEPS``, with server and generator on two cores, and write an SVG for each figure."""
    jobs = [
        Job(server, f"{sweep}-{value}", BOTH[0], {"seconds": seconds, **load})
        for sweep, (_, loads) in SWEEPS.items()
        for value, load in loads.items()
        for server in servers
    ]
    found = medians(sample_all(programs, jobs, repeats=repeats, retries=retries))
    directory.mkdir(parents=True, exist_ok=True)
    written = []
    for sweep, (quantity, _) in SWEEPS.items():
        of_sweep = [
            (SERVERS[job.server], float(job.scenario.removeprefix(f"{sweep}-")), median)
            for job, median in found.items()
            if job.scenario.startswith(f"{sweep}-")
        ]
        for figure, name in (("rate", "requests per second"), ("p50", "p50, ms"), ("p99", "p99, ms")):
            points = [(server, value, _figure(figure, median)) for server, value, median in of_sweep]
            path = directory / f"{figure}-by-{sweep}.svg"
            written.append(_write(path, f"{name}, by {quantity}", quantity, name, points))
    return written


def write_whole_path_plots(directory: Path, found: Answered) -> list[Path]:
    """An SVG for the rate and one for the latency of asks, by how many are in flight."""
    directory.mkdir(parents=True, exist_ok=True)
    written = []
    for index, (figure, name) in enumerate((("rate", "asks per second"), ("p50", "p50, ms"))):
        points = [
            (who, float(window), statistics.median(sample[index] for sample in samples))
            for who, of in found.items()
            for window, samples in of.items()
        ]
        path = directory / f"asks-{figure}-by-window.svg"
        title = f"{name}, agent process to agent process, by asks in flight"
        written.append(_write(path, title, "asks in flight", name, points))
    return written


def _write(
    path: Path, title: str, x_name: str, y_name: str, points: Sequence[tuple[str, float, float]]
) -> Path:
    curves = by_series(points)
    if not curves:
        raise BenchmarkError(f"no plot of {title}: nothing was answered in so short a time")
    path.write_text(plot(title, x_name, y_name, curves))
    return path


def _figure(name: str, of: Medians) -> float:
    return {"rate": of.rate, "p50": of.p50_ms, "p99": of.p99_ms}[name]
