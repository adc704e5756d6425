"""From an async function to a process that ends: what is printed, and with which status.

``async_command`` registers an async function as a command. An error of ours becomes one line on stderr
and an exit status; an interrupt and a reader that has gone away (``| head``) are not errors at all. What
is left is a bug, and shows its traceback.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, ParamSpec

import trio
import typer

from loopal_cluster.cli.show import one_line
from loopal_cluster.cli.unread import finish_output
from loopal_cluster.errors import (
    AgentLost,
    AgentTimedOut,
    ClusterError,
    ConfigError,
    ConnectionLost,
    DeadlineExceeded,
    HubNotConnected,
    InvalidAddress,
    NameTaken,
    Unauthorized,
)
from loopal_cluster.outcomes import Done, Lost, Outcome, TimedOut

__all__ = ["async_command", "exit_status", "run_async"]

P = ParamSpec("P")

DONE, FAILED, WRONG_USAGE, REFUSED, UNREACHABLE, TIMED_OUT, INTERRUPTED = 0, 1, 2, 3, 4, 5, 130

_STATUS: tuple[tuple[tuple[type, ...], int], ...] = (
    ((Done,), DONE),
    ((ConfigError, InvalidAddress), WRONG_USAGE),
    ((Unauthorized, NameTaken), REFUSED),
    ((ConnectionLost, HubNotConnected, AgentLost, Lost), UNREACHABLE),
    ((DeadlineExceeded, AgentTimedOut, TimedOut, trio.TooSlowError), TIMED_OUT),
    ((KeyboardInterrupt,), INTERRUPTED),
)


def exit_status(error_or_outcome: BaseException | Outcome) -> int:
    """0 done, 1 failed, 2 wrong usage, 3 refused, 4 not reachable or lost, 5 timed out, 130 interrupted."""
    for classes, status in _STATUS:
        if isinstance(error_or_outcome, classes):
            return status
    return FAILED


def async_command(
    app: typer.Typer, name: str, **options: Any
) -> Callable[[Callable[P, Awaitable[int | None]]], Callable[P, None]]:
    """Decorate an async function that is a command; it returns its exit status, or None for 0."""

    def decorate(function: Callable[P, Awaitable[int | None]]) -> Callable[P, None]:
        @functools.wraps(function)
        def command(*args: P.args, **kwargs: P.kwargs) -> None:
            run_async(functools.partial(function, *args, **kwargs))

        app.command(name, **options)(command)
        return command

    return decorate


def run_async(function: Callable[..., Awaitable[int | None]], *args: Any) -> None:
    """Run an async function to its end, as the whole of what this process does.

    Raises:
        typer.Exit: it did not return 0 or None; the line that says why has been printed.
    """
    status = _run(function, *args)
    if status:
        raise typer.Exit(status)


def _run(function: Callable[..., Awaitable[int | None]], *args: Any) -> int:
    try:
        try:
            status = trio.run(function, *args)
        finally:
            finish_output()
        sys.stdout.flush()
    except (Exception, KeyboardInterrupt, BaseExceptionGroup) as error:
        leaves = list(_leaves(error))
        if any(isinstance(leaf, KeyboardInterrupt) for leaf in leaves):
            return INTERRUPTED
        if all(isinstance(leaf, BrokenPipeError) for leaf in leaves):
            _silence_stdout()
            return DONE
        if len(leaves) == 1 and isinstance(leaves[0], typer.Exit | typer.BadParameter):
            raise leaves[0] from None
        if all(isinstance(leaf, ClusterError | trio.TooSlowError) for leaf in leaves):
            print(f"error: {_one_line(leaves[0])}", file=sys.stderr)
            return exit_status(leaves[0])
        raise
    return status or DONE


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _one_line(error: BaseException) -> str:
    if isinstance(error, trio.TooSlowError):
        return one_line(str(error)) or "timed out"
    return one_line(" ".join(str(error).split())) or type(error).__name__


def _silence_stdout() -> None:
    # Python flushes stdout once more at exit, and would complain there (docs.python.org, "Note on SIGPIPE").
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
