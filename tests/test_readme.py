"""The README's programs run as they stand there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"
PROGRAMS = [
    block
    for block in re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    if "trio.run(main)" in block
]


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
