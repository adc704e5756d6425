"""Whom a command talks to: the options that all of them share, and the connection these lead to."""

from __future__ import annotations

import math
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from getpass import getuser
from pathlib import Path
from typing import Annotated, Unpack

import trio
import typer

from loopal_cluster.address import sanitize_name
from loopal_cluster.cli.discovery import find_hub, known_token
from loopal_cluster.cli.tokens import NO_TOKEN, TOKEN_VARIABLE, read_token
from loopal_cluster.errors import ConfigError, Unauthorized
from loopal_cluster.links.client import Client, ClientOptions, connect

__all__ = [
    "LOOK_TIMEOUT",
    "AsJson",
    "Connect",
    "Timeout",
    "TokenFile",
    "address_and_token",
    "default_name",
    "hub_of",
    "open_session",
    "within",
]

LOOK_TIMEOUT = 10.0
"""Seconds that a command has which only looks, or acts at once: more than a MetaHub gives any of its hubs."""

Connect = Annotated[
    str | None,
    typer.Option("--connect", metavar="ADDRESS", help="A MetaHub or hub: HOST:PORT or unix:PATH."),
]
TokenFile = Annotated[
    Path | None,
    typer.Option("--token-file", metavar="FILE", help=f"A file with its token, instead of {TOKEN_VARIABLE}."),
]


def _seconds(value: float | None) -> float | None:
    if value is not None and not value >= 0:  # some typers let nan through, which is not below any minimum
        raise typer.BadParameter(f"{value} is not a number of seconds")
    return value


Timeout = Annotated[
    float | None,
    typer.Option(
        "--timeout",
        callback=_seconds,
        metavar="SECONDS",
        help="For the whole command, from the dial on; status 5 when they are over.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on stdout: one document, or one a line.")]


@asynccontextmanager
async def open_session(
    address: str | None,
    token_file: Path | None,
    *,
    timeout: float | None = None,
    name: str | None = None,
    **options: Unpack[ClientOptions],
) -> AsyncIterator[Client]:
    """Be connected to the hub or MetaHub that the options mean, for the block.

    ``timeout`` is for all of it, block included.

    Raises:
        trio.TooSlowError: it was not done within ``timeout`` seconds.
        ConfigError: the address is none, or the token file cannot be read, or no local hub is meant.
        ConnectionLost: nobody is there.
        Unauthorized: the token is wrong, or there is none.
    """
    address, token = address_and_token(address, token_file)
    try:
        with within(timeout):
            async with connect(address, token=token, name=name or default_name(), **options) as client:
                yield client
    except Unauthorized as error:
        if token:
            raise
        raise Unauthorized(f"{error.detail} ({NO_TOKEN})") from None


@contextmanager
def within(seconds: float | None) -> Iterator[trio.CancelScope]:
    """Let the block have so many seconds; None: as many as it likes.

    Raises:
        trio.TooSlowError: they are over.
    """
    with trio.move_on_after(math.inf if seconds is None else seconds) as scope:
        yield scope
    if scope.cancelled_caught:
        raise trio.TooSlowError(f"not done within {seconds:g} s; --timeout SECONDS gives it another time")


def hub_of(client: Client) -> str | None:
    """The name of the hub a client is connected to; None for a MetaHub."""
    return client.welcome.hub


def default_name() -> str:
    """Who acts: the name of the user."""
    try:
        return sanitize_name(getuser())
    except (KeyError, OSError):
        return "somebody"  # a user id without an entry, as in some containers


def address_and_token(address: str | None, token_file: Path | None) -> tuple[str, str]:
    """Where to connect, and what to bring.

    Raises:
        ConfigError: the token file cannot be read, or several local hubs may be meant.
        ConnectionLost: no local hub is there.
    """
    given = None if token_file is None else read_token(token_file)
    if address is None:
        hub = find_hub()
        return hub.address, given or hub.token
    # A local hub's own file comes before the environment, whose token is most often the MetaHub's.
    return address, given or _known_token(address) or os.environ.get(TOKEN_VARIABLE, "")


def _known_token(address: str) -> str | None:
    try:
        return known_token(address)
    except ConfigError:
        return None  # a runtime directory that cannot be used does not concern an address that is given
