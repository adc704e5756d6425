"""``python -m benchmarks.soak``: millions of routes through one MetaHub, and whether its memory stays what it is.

The load generator keeps 256 messages in flight until so many were routed, and checks each of them. Meanwhile the
resident memory of the MetaHub is sampled. After a first quarter, in which caches and heaps fill, a line is laid
through the samples: flat is a MetaHub that gains no more than ``ALLOWED`` MB from its beginning to its end.

Exit status 0: flat; 1: not flat, or not measured; 2: wrong usage; 130: interrupted.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

from attrs import asdict, frozen

from benchmarks.arguments import Parser, positive
from benchmarks.errors import BenchmarkError
from benchmarks.load import compiled, measure
from benchmarks.processes import resident_mb
from benchmarks.sampling import BOTH
from benchmarks.servers import open_server

__all__ = ["Soaked", "main", "soak"]

ALLOWED = 1.0
"""MB, of some 50: what an allocator may still find out after millions of routes. A leak of one byte a
route is ten times as much in the ten million of a real run."""
WARM = 0.25
"""The share of the time in which memory may still grow."""
PATIENCE = 4 * 3600.0
"""Seconds for all of it."""


@frozen
class Soaked:
    """What became of the memory."""

    routes: int
    per_second: float
    samples: Sequence[tuple[float, float]]
    """Seconds since the beginning, and MB."""

    @property
    def growth(self) -> float:
        """MB that the line through the samples gains from the first one that counts to the last."""
        seconds, megabytes = zip(*self._counted(), strict=True)
        slope, _ = statistics.linear_regression(seconds, megabytes)
        return float(slope * (seconds[-1] - seconds[0]))

    @property
    def flat(self) -> bool:
        """Whether it stayed what it was."""
        return self.growth <= ALLOWED

    def _counted(self) -> Sequence[tuple[float, float]]:
        begin = WARM * self.samples[-1][0]
        return [sample for sample in self.samples if sample[0] >= begin]


def soak(programs: Path, routes: int, *, window: int = 256, interval: float = 1.0) -> Soaked:
    """Route so many messages, and look at the memory every ``interval`` seconds.

    Raises:
        BenchmarkError: it could not be done, something was lost, or it was over before there was much to see.
    """
    placement, load = BOTH[0], {"window": window, "requests": routes}
    samples: list[tuple[float, float]] = []
    # The server is inside: if we are interrupted it is gone first, and with it the generator's work.
    with ThreadPoolExecutor(1) as pool, open_server("metahub", programs, core=placement.server) as server:
        running = pool.submit(measure, programs, server, load, core=placement.generator, patience=PATIENCE)
        began = time.monotonic()
        while not running.done():
            samples.append((time.monotonic() - began, resident_mb(server.pid)))
            wait([running], timeout=interval)
        measured = running.result()
    if len(samples) < 8:
        raise BenchmarkError(
            f"{routes:,} routes are too few: there were {len(samples)} samples of the memory"
        )
    return Soaked(measured.load.routes, measured.load.per_second, samples)


def main(arguments: Sequence[str] | None = None) -> int:
    """Soak, show, and return the exit status."""
    parser = Parser(prog="python -m benchmarks.soak")
    parser.add_argument(
        "--routes", type=positive, default=10_000_000, metavar="N", help="default: 10 million"
    )
    parser.add_argument("--window", type=int, default=256, metavar="N", help="in flight (default: 256)")
    parser.add_argument(
        "--interval", type=positive, default=1.0, metavar="S", help="between samples (default: 1)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON document, with all samples")
    options = parser.parse_args(arguments)
    try:
        with compiled() as programs:
            soaked = soak(programs, int(options.routes), window=options.window, interval=options.interval)
    except BenchmarkError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    if options.json:
        print(json.dumps(asdict(soaked) | {"growth_mb": soaked.growth, "flat": soaked.flat}))
    else:
        print(described(soaked))
    return 0 if soaked.flat else 1


def described(soaked: Soaked) -> str:
    """All of it in a few lines."""
    at = [soaked.samples[len(soaked.samples) * tenth // 10] for tenth in range(10)] + [soaked.samples[-1]]
    return "\n".join(
        [
            f"{soaked.routes:,} routes, {soaked.per_second:,.0f} a second",
            "MB after each tenth of the time: " + ", ".join(f"{megabytes:.1f}" for _, megabytes in at),
            f"{soaked.growth:+.2f} MB after the first quarter, {ALLOWED:g} allowed: "
            + ("flat" if soaked.flat else "not flat"),
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
