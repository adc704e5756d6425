"""What is imported when: a start is as quick as what it imports is little."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

RUN = "from loopal_cluster.__main__ import main; import sys; "
RUN_ON = """
try: main()
except SystemExit: pass
"""


def imported_by(code: str) -> set[str]:
    """The modules that a fresh interpreter has after this."""
    code += "\nimport sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


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


@pytest.mark.parametrize(
    ("command", "not_imported"),
    [
        ("metahub", {"agents", "tools", "mcp_server", "core.hub", "cli.hub", "cli.connect"}),
        ("hub", {"acp", "core.meta_hub", "cli.metahub", "cli.connect"}),
        ("ask", {"agents", "tools", "mcp_server", "core"}),
    ],
)
def test_a_command_imports_what_it_needs_itself(command: str, not_imported: set[str]) -> None:
    others = {"cli.demo", "cli.doctor", "cli.acp", "cli.mcp", "demo", "editor"}

    imported = imported_by(f"{RUN}sys.argv = ['x', {command!r}, '--help']{RUN_ON}")

    assert "loopal_cluster.cli.run" in imported
    assert imported & {f"loopal_cluster.{name}" for name in not_imported | others} == set()
    assert imported & {"importlib.metadata", "email", "asyncio", "http.client"} == set()


def test_help_shows_all_commands_with_their_whole_first_sentence() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "loopal_cluster", "--help"],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"COLUMNS": "80"},
    )
    commands = done.stdout.partition("Commands:\n")[2].splitlines()

    assert len(commands) == 18
    assert [line for line in commands if not line.endswith(".") or line.endswith("..")] == []


def test_the_garbage_collector_rests_only_while_the_program_is_imported() -> None:
    code = f"{RUN}sys.argv = ['x', 'hub', '--help']{RUN_ON}import gc; assert gc.isenabled() and gc.get_freeze_count()"

    assert "loopal_cluster.cli.hub" in imported_by(code)


def test_attrs_finishes_few_classes_before_they_are_used() -> None:
    """Each takes it a million instructions or more, and there are 230 in a hub."""
    code = """
from loopal_cluster import open_hub
import sys
ours = [vars(module) for name, module in sys.modules.items() if name.startswith("loopal_cluster")]
classes = {cls for names in ours for cls in names.values() if isinstance(cls, type)}
fields = [vars(cls).get("__attrs_attrs__") for cls in classes if cls.__module__.startswith("loopal_cluster")]
finished = [each for each in fields if isinstance(each, tuple)]
assert len(fields) - fields.count(None) > 200, fields
assert len(finished) < 20, finished
"""

    assert "loopal_cluster.runtime.hub" in imported_by(code)


def test_the_program_does_not_bring_pydantic_into_a_process_that_runs() -> None:
    """The newest typers do; 10 MB in every hub. See ``pyproject.toml``."""
    code = f"{RUN}sys.argv = ['x', 'hubs', '--connect', '127.0.0.1:1']{RUN_ON}"

    assert "pydantic" not in imported_by(code)
