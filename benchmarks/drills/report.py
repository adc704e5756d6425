"""How results are shown: a table for people, a document for programs."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks.drills.findings import Result, Time

__all__ = ["document", "table"]

HEADINGS = ("drill", "detection", "recovery", "lost", "doubled", "left", "verdict")


def table(results: Sequence[Result]) -> str:
    """One line for each drill; below it what was measured, and why a drill has not passed."""
    rows = [HEADINGS, *(_row(result) for result in results)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(line.rstrip() for line in [*lines, "", *_details(results)])


def _row(result: Result) -> tuple[str, ...]:
    found = result.findings
    counts = (str(found.lost), str(found.doubled), str(found.left))
    if result.error is not None:
        counts = ("?", "?", "?")
    verdict = "FAILED" if result.faults else "passed" if result.skipped is None else "skipped"
    return (result.drill.name, _seconds(found.detection), _seconds(found.recovery), *counts, verdict)


def _seconds(time: Time | None) -> str:
    return "" if time is None else f"{time.seconds:.3f} s"


def _details(results: Sequence[Result]) -> Iterable[str]:
    for result in results:
        found = result.findings
        yield f"{result.drill.name}: {result.drill.story} (MetaHub: {result.drill.settings})"
        for time in (found.detection, found.recovery, *found.times):
            if time is not None:
                yield f"    {time.seconds:7.3f} s  {time.meaning} (wanted: {time.wanted:g} s)"
        if found.counts:
            yield "    " + ", ".join(f"{count} {answer}" for answer, count in sorted(found.counts.items()))
        if result.skipped is not None:
            yield f"    skipped: {result.skipped}"
        for fault in result.faults:
            yield f"    FAILED: {fault}"


def document(results: Sequence[Result]) -> dict[str, Any]:
    """All results, and what they were measured on."""
    return {
        "passed": not any(result.faults for result in results),
        "machine": {
            "cpus": os.cpu_count(),
            "python": platform.python_version(),
            "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        },
        "drills": [result.document() for result in results],
    }
