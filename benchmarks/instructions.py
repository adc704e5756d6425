"""``python -m benchmarks.instructions``: the gate that keeps the MetaHub from becoming slower unnoticed.

It counts the instructions of fixed work (``benchmarks.work``) with callgrind, which gives the same figure on
a busy machine as on a quiet one, and compares them with those in ``instructions.json``. ``--update``
writes these. They are of one version of Python; with another there is nothing to compare.

Exit status 0: no more than ``TOLERANCE`` above, or not compared; 1: more; 2: wrong usage.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.arguments import Parser
from benchmarks.errors import BenchmarkError
from benchmarks.machine import PACKAGES
from benchmarks.processes import ROOT, python
from benchmarks.work import MARK, ROUTES, WORK

__all__ = ["compare", "main"]

TOLERANCE = 0.05
ALIKE = {"turned": "runtime"}
"""What is the same work but for how a peer writes its JSON."""
SHARE = 0.9
"""So much of the speed it must have."""
COMMITTED = Path(__file__).with_name("instructions.json")
TOTALS = re.compile(r"^(?:totals|summary): (\d+)", re.MULTILINE)


def main(arguments: Sequence[str] | None = None) -> int:
    """Count, compare, and return the exit status."""
    parser = Parser(prog="python -m benchmarks.instructions")
    parser.add_argument("--update", action="store_true", help="write the figures instead of comparing them")
    options = parser.parse_args(arguments)
    if shutil.which("valgrind") is None:
        print("instructions: not counted, valgrind is not installed")
        return 0
    try:
        counted = count()
    except BenchmarkError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if options.update:
        COMMITTED.write_text(json.dumps(_surroundings() | {"per_route": counted}, indent=2) + "\n")
        return 0
    lines, passed = compare(counted, json.loads(COMMITTED.read_text()), _surroundings())
    print("\n".join(lines))
    return 0 if passed else 1


def compare(
    counted: Mapping[str, int], committed: Mapping[str, Any], surroundings: Mapping[str, str]
) -> tuple[list[str], bool]:
    """What there is to say about the figures, and whether they may stay."""
    if committed["python"] != surroundings["python"]:
        return [
            f"instructions: {committed['python']} was counted, not {surroundings['python']}: not compared"
        ], True
    lines, passed = [], True
    for name, count_now in counted.items():
        before = committed["per_route"][name]
        change = round(count_now / before - 1, 6)
        verdict = "more than allowed" if change > TOLERANCE else "ok"
        if change < -TOLERANCE:
            verdict = "ok; --update, to keep it so"
        lines.append(f"{name}: {count_now:,} instructions each, {before:,} before, {change:+.1%}: {verdict}")
        passed = passed and change <= TOLERANCE
    for name, other in ALIKE.items():
        if name in counted and counted[name] * SHARE > counted[other]:
            lines.append(f"{name}: has less than {SHARE:.0%} of the speed of {other}")
            passed = False
    changed = [name for name in PACKAGES if committed[name] != surroundings[name]]
    if changed and not passed:
        lines.append(f"of another version than before: {', '.join(changed)}")
    return lines, passed


def count() -> dict[str, int]:
    """Instructions of each kind of work, for each route, ask or event.

    Raises:
        BenchmarkError: callgrind could not count.
    """
    with tempfile.TemporaryDirectory(prefix="loopal-benchmarks-") as directory:
        command = ["valgrind", "--tool=callgrind", f"--dump-before={MARK.__name__}"]
        command += [f"--callgrind-out-file={directory}/counts", *python("-m", "benchmarks.work")]
        environment = os.environ | {"PYTHONHASHSEED": "0", "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise BenchmarkError(f"callgrind: {done.stderr.strip().splitlines()[-1]}")
        # The first file has what came before the first mark; the last, without a number, what came after all.
        parts = [Path(directory, f"counts.{number + 2}") for number in range(len(WORK))]
        if not all(part.exists() for part in parts):
            raise BenchmarkError(f"callgrind has not seen the calls of {MARK.__name__}")
        return {name: _total(part) // ROUTES for name, part in zip(WORK, parts, strict=True)}


def _total(part: Path) -> int:
    found = TOTALS.search(part.read_text())
    if found is None:
        raise BenchmarkError("callgrind has written no total")
    return int(found[1])


def _surroundings() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


if __name__ == "__main__":
    sys.exit(main())
