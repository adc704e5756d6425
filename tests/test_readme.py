"""The README's programs run as they stand there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from trio.testing import MockClock

README = Path(__file__).parent.parent / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
PROGRAMS = [block for block in BLOCKS if "trio.run(main)" in block]
TESTS = [block for block in BLOCKS if "async def test_" in block]


@pytest.mark.parametrize(
    ("number", "lines"),
    [
        (0, [r"5 words, counted by laptop/count-\w+"]),
        (1, [rf"5 words, counted by {hub}/count-\w+" for hub in ("laptop", "gpu-box", "ci")]),
    ],
)
def test_a_program_of_the_readme_prints_what_it_promises(number: int, lines: list[str]) -> None:
    program = [sys.executable, "-W", "error", "-c", PROGRAMS[number]]
    ran = subprocess.run(program, capture_output=True, text=True, timeout=60)

    assert ran.returncode == 0, ran.stderr
    assert re.fullmatch("\n".join(lines) + "\n", ran.stdout)
    assert ran.stderr == ""


@pytest.mark.parametrize("block", TESTS, ids=lambda block: re.findall(r"def (test_\w+)", block)[0])
async def test_a_test_of_the_readme_passes(block: str, autojump_clock: MockClock) -> None:
    names: dict[str, Any] = {}
    exec(PROGRAMS[1].replace("trio.run(main)", ""), names)  # whose agents it speaks of
    exec(block, names)
    (test,) = [function for name, function in names.items() if name.startswith("test_")]

    await test(autojump_clock)
