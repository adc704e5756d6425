"""From an exception to an exit status."""

from __future__ import annotations

import subprocess
import sys

import pytest
import trio
import typer

from loopal_cluster import (
    AgentCancelled,
    AgentFailed,
    AgentLost,
    AgentNotFound,
    AgentTimedOut,
    Cancelled,
    ConfigError,
    ConnectionLost,
    DeadlineExceeded,
    Done,
    Failed,
    HubNotConnected,
    InvalidAddress,
    Lost,
    NameTaken,
    TimedOut,
    Unauthorized,
    __version__,
)
from loopal_cluster.cli.run import exit_status, run_async


@pytest.mark.parametrize(
    ("status", "ends"),
    [
        (0, [Done("")]),
        (
            1,
            [
                Failed("x"),
                Cancelled("x"),
                AgentFailed("a", "x"),
                AgentCancelled("a", "x"),
                AgentNotFound("x"),
            ],
        ),
        (2, [ConfigError("x"), InvalidAddress("x")]),
        (3, [Unauthorized("x"), NameTaken("x")]),
        (4, [ConnectionLost("x"), HubNotConnected("x"), Lost("x"), AgentLost("a", "x")]),
        (5, [TimedOut("x"), AgentTimedOut("a", "x"), DeadlineExceeded("x"), trio.TooSlowError()]),
        (130, [KeyboardInterrupt()]),
    ],
)
def test_each_way_to_end_has_its_exit_status(status, ends):
    assert [exit_status(end) for end in ends] == [status] * len(ends)


def run(error):
    """Run a command that ends with this; return its exit status."""

    async def command():
        async with trio.open_nursery():
            raise error

    with pytest.raises(typer.Exit) as caught:
        run_async(command)
    return caught.value.exit_code


def test_an_error_is_one_line_however_deep_it_is_wrapped(capsys):
    assert run(ExceptionGroup("", [Unauthorized("wrong\n  token")])) == 3
    assert capsys.readouterr() == ("", "error: wrong token\n")


def test_an_interrupt_says_nothing(capsys):
    assert run(BaseExceptionGroup("", [KeyboardInterrupt(), ConnectionLost("x")])) == 130
    assert capsys.readouterr() == ("", "")


def test_a_bug_is_not_dressed_up():
    async def command():
        await trio.lowlevel.checkpoint()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_async(command)


@pytest.mark.parametrize("status", [None, 0])
def test_nothing_to_say_is_done(status):
    async def command():
        await trio.lowlevel.checkpoint()
        return status

    run_async(command)


def test_a_reader_that_has_gone_away_is_no_error():
    code = """
from loopal_cluster.cli.run import run_async
async def command():
    while True:
        print("x" * 1000)
run_async(command)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with process:
        process.stdout.readline()
        process.stdout.close()

        assert process.stderr.read() == ""
    assert process.returncode == 0


async def test_it_says_its_version(program):
    done = await program.run("--version")

    assert (done.returncode, done.stdout, done.stderr) == (0, f"loopal-cluster {__version__}\n", "")
