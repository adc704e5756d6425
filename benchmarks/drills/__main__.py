"""``python -m benchmarks.drills [--json] [--only NAME]...``

Exit status 0: all passed; 1: one has not; 2: wrong usage; 130: interrupted.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from typing import NoReturn

import trio
from attrs import evolve

from benchmarks.drills import callee, firewall, hubs, meta_hub, parents, partition, refusals
from benchmarks.drills.findings import Drill, DrillSkipped, Findings, Result
from benchmarks.drills.processes import open_site
from benchmarks.drills.report import document, table

DRILLS: dict[str, Drill] = {
    drill.name: drill
    for drill in (
        *callee.DRILLS,
        *meta_hub.DRILLS,
        *refusals.DRILLS,
        *hubs.DRILLS,
        *parents.DRILLS,
        *partition.DRILLS,
        *firewall.DRILLS,
    )
}
TIMEOUT = 90.0
"""For one drill; the longest, a partition of 30 seconds, takes half of it."""
INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run drills, show what they found, and return the exit status."""
    options = _parser().parse_args(arguments)
    if not os.path.exists("/proc/self/environ"):
        print(
            "error: the drills find their processes in /proc, which this system does not have",
            file=sys.stderr,
        )
        return 2
    results = trio.run(_run_all, [DRILLS[name] for name in options.only or DRILLS])
    if results is None:
        return INTERRUPTED
    print(json.dumps(document(results), indent=2) if options.json else table(results))
    return 1 if any(result.faults for result in results) else 0


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}\n")  # without the usage: one line


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m benchmarks.drills",
        description="Kill, freeze and cut real processes of a cluster, and count what comes of it.",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of a table")
    parser.add_argument(
        "--only",
        action="append",
        metavar="NAME",
        choices=tuple(DRILLS),
        help=f"run this drill; may be repeated ({', '.join(DRILLS)})",
    )
    return parser


async def _run_all(drills: Sequence[Drill]) -> list[Result] | None:
    """All results, one drill after the other; None if we were told to stop."""
    results: list[Result] = []
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                async for _ in signals:
                    nursery.cancel_scope.cancel()

            nursery.start_soon(watch)
            for drill in drills:
                results.append(await _run(drill))
            nursery.cancel_scope.cancel()
    return results if len(results) == len(drills) else None


async def _run(drill: Drill) -> Result:
    began_at = time.monotonic()

    def say(text: str) -> None:
        print(f"{drill.name} {time.monotonic() - began_at:6.2f}  {text}", file=sys.stderr, flush=True)

    findings, error, skipped = Findings(), None, None
    say(drill.story)
    try:
        with trio.fail_after(TIMEOUT):
            async with open_site(say) as site:
                findings = await drill.run(site)
                left = await site.stop()
                if left:
                    findings = evolve(findings, left=findings.left + left)
    except DrillSkipped as reason:
        skipped = str(reason)
        say(f"skipped: {skipped}")
    except Exception as failure:  # whatever it is, the drill has not passed, and the others go on
        traceback.print_exception(failure)
        error = _why(failure)
    return Result(drill, time.monotonic() - began_at, findings, error, skipped)


def _why(error: BaseException) -> str:
    """An exception in one line: what is in its groups, if it is one."""
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(_why(inner) for inner in error.exceptions)
    return f"{type(error).__name__}: {error}".removesuffix(": ")


if __name__ == "__main__":
    sys.exit(main())
