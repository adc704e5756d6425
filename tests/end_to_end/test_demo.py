"""The main job, as a user runs it: real processes over TCP."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def run_demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "loopal_cluster", "demo", *arguments],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


def test_the_demo_surveys_real_files_with_agents_on_three_hubs(tmp_path: Path):
    (tmp_path / "one.py").write_text("def f():\n    pass\n")
    (tmp_path / "two words.txt").write_text("a\nb\nc\n")

    demo = run_demo(str(tmp_path))

    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert "gpu-box/surveyor found 2 files, 5 lines, 1 functions, 0 classes" in demo.stdout
    assert "the checker says: I count the same" in demo.stdout
    assert "5 total" in demo.stdout
    assert "The report was written, as demo allowed." in demo.stdout
    assert demo.stdout.count("exited with status 0") == 4


def test_the_demo_says_in_one_line_that_there_is_no_such_path(tmp_path: Path):
    demo = run_demo(str(tmp_path / "absent"))

    assert demo.returncode == 2
    assert demo.stderr.startswith("error: there is no file or directory")
    assert demo.stderr.count("\n") == 1
