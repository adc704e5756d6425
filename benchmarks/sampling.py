"""Runs every job a few times, in turns, and takes medians.

In turns, because a machine is faster now and slower then: what is compared must have had the same
weather. A sample during which others used much of the processor is taken again, and the cleanest kept.
"""

from __future__ import annotations

import os
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from attrs import field, frozen

from benchmarks.load import Load, Sample, measure
from benchmarks.servers import open_server

__all__ = ["BOTH", "Job", "Medians", "Placement", "medians", "sample_all"]

QUIET = 0.1
"""Cores that others may use without a sample being taken again."""


@frozen
class Placement:
    """On which core the server is, and on which the generator."""

    name: str
    server: int | None
    generator: int | None


def _placements() -> tuple[Placement, Placement]:
    first, *others = sorted(os.sched_getaffinity(0))
    last = others[-1] if others else first
    return Placement("two cores", last, first), Placement("one core", last, last)


BOTH = _placements()
"""Apart and together. A wake-up costs more across cores; together, they share one."""


@frozen
class Job:
    """Something to measure."""

    server: str
    scenario: str
    placement: Placement
    load: Load = field(eq=False)

    def __str__(self) -> str:
        return f"{self.scenario}, {self.server}, {self.placement.name}"


@frozen
class Medians:
    """The samples of one job."""

    samples: Sequence[Sample]

    def of(self, value: Callable[[Sample], float]) -> float:
        """The median of a value."""
        return statistics.median(map(value, self.samples))

    @property
    def rate(self) -> float:
        """Requests per second."""
        return self.of(lambda sample: sample.load.per_second)

    @property
    def cpu_us(self) -> float:
        """Of the server, for each request."""
        return self.of(lambda sample: sample.server_cpu_us)

    @property
    def p50_ms(self) -> float:
        return self.of(lambda sample: sample.load.p50_us) / 1000

    @property
    def p99_ms(self) -> float:
        return self.of(lambda sample: sample.load.p99_us) / 1000


def sample_all(
    programs: Path, jobs: Sequence[Job], *, repeats: int, retries: int
) -> list[tuple[Job, Sample]]:
    """Take ``repeats`` samples of each job, each with a server that was started for it."""
    taken = []
    for turn in range(repeats):
        for job in jobs:
            tries = [_sample(programs, job)]
            while tries[-1].others > QUIET and len(tries) <= retries:
                tries.append(_sample(programs, job))
            best = min(tries, key=lambda sample: sample.others)
            taken.append((job, best))
            print(f"{turn + 1}/{repeats} {job}: {brief(best)}", file=sys.stderr, flush=True)
    return taken


def medians(taken: Iterable[tuple[Job, Sample]]) -> dict[Job, Medians]:
    """The samples of each job, together."""
    samples: dict[Job, list[Sample]] = {}
    for job, sample in taken:
        samples.setdefault(job, []).append(sample)
    return {job: Medians(tuple(several)) for job, several in samples.items()}


def brief(sample: Sample) -> str:
    """A sample in one line."""
    load = sample.load
    return (
        f"{load.per_second:,.0f}/s, p50 {load.p50_us / 1000:.3f} ms, p99 {load.p99_us / 1000:.3f} ms, "
        f"{sample.server_cpu_us:.1f} us of the server each, generator {sample.generator_cores:.2f} cores, "
        f"others {sample.others:.2f}"
    )


def _sample(programs: Path, job: Job) -> Sample:
    placement = job.placement
    with open_server(job.server, programs, core=placement.server) as server:
        return measure(programs, server, job.load, core=placement.generator)
