"""Ctrl-C ends the program in silence and with status 130, whenever it comes and however often."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from .program import environment

INTERRUPTED = 130


def run_until(said: str, *args: str, env: dict[str, str], options: tuple[str, ...] = ()) -> subprocess.Popen:
    """The program, when it has said this on stderr."""
    process = subprocess.Popen(
        [sys.executable, *options, "-m", "loopal_cluster", *args],
        env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    for line in process.stderr:
        if said in line:
            return process
    raise AssertionError(f"it has never said {said!r}")


@pytest.mark.parametrize(
    "imported", ["attr._make", "trio", "loopal_cluster.messages", "typer", "loopal_cluster.links.client"]
)
def test_an_interrupt_while_it_is_imported_is_no_error(imported, tmp_path):
    environ = environment(tmp_path)
    with run_until(f" {imported}\n", "hubs", env=environ, options=("-X", "importtime")) as process:
        process.send_signal(signal.SIGINT)
        _, err = process.communicate()

    assert process.returncode == INTERRUPTED
    assert [line for line in err.splitlines() if not line.startswith("import time:")] == []


@pytest.mark.parametrize("pause", [0.002, 0.1])
def test_further_interrupts_while_it_ends_change_nothing(pause, tmp_path):
    environ = environment(tmp_path)
    with run_until("ready", "hub", "--server", "--hub-name", "box", env=environ) as process:
        while process.poll() is None:
            os.kill(process.pid, signal.SIGINT)
            time.sleep(pause)
        _, err = process.communicate()

    assert (process.returncode, err) == (INTERRUPTED, "It runs no agents: --config FILE gives it some.\n")


def test_the_package_alone_is_imported_without_what_is_in_it():
    code = "import sys, loopal_cluster; print([name for name in sys.modules if name.startswith('loopal_cluster.')])"

    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
