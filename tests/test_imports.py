"""What is imported when: a start is as quick as what it imports is little."""

from __future__ import annotations

import subprocess
import sys

import pytest


def imported_by(code: str) -> set[str]:
    """The modules that a fresh interpreter has after this."""
    code += "\nimport sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("code", "not_imported"),
    [
        ("import loopal_cluster", {"trio", "attrs", "cattrs", "msgspec"}),
        (
            "from loopal_cluster import open_hub",
            {"typer", "loopal_cluster.core.meta_hub", "loopal_cluster.cli"},
        ),
        ("from loopal_cluster import open_meta_hub", {"typer", "loopal_cluster.core.hub"}),
        ("from loopal_cluster import serve_agent", {"typer", "loopal_cluster.core.meta_hub"}),
        ("import loopal_cluster.cli.app", {"rich", "pydantic", "loopal_cluster.testing"}),
    ],
)
def test_nobody_imports_what_only_others_need(code: str, not_imported: set[str]) -> None:
    imported = imported_by(code)

    assert "loopal_cluster" in imported
    assert imported & not_imported == set()


def test_the_program_does_not_bring_pydantic_into_a_process_that_runs() -> None:
    """The newest typers do; 10 MB in every hub. See ``pyproject.toml``."""
    code = "from loopal_cluster.__main__ import main; import sys; sys.argv = ['x', 'hubs', '--connect', '127.0.0.1:1']"

    assert "pydantic" not in imported_by(f"{code}\ntry: main()\nexcept SystemExit: pass")
