"""Whom a command talks to: the options that all of them share, and the connection these lead to."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from getpass import getuser
from pathlib import Path
from typing import Annotated

import typer

from loopal_cluster.address import sanitize_name
from loopal_cluster.cli.discovery import find_hub, local_hubs
from loopal_cluster.errors import ConfigError, Unauthorized
from loopal_cluster.messages import Decided, Role
from loopal_cluster.runtime.client import Adviser, Client, Judge, connect

__all__ = ["AsJson", "Connect", "TokenFile", "default_name", "hub_of", "open_session"]

Connect = Annotated[
    str | None,
    typer.Option("--connect", metavar="ADDRESS", help="A MetaHub or hub: HOST:PORT or unix:PATH."),
]
TokenFile = Annotated[
    Path | None,
    typer.Option("--token-file", help="Holds its token, if LOOPAL_META_HUB_TOKEN does not."),
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on stdout: one document, or one a line.")]


@asynccontextmanager
async def open_session(
    address: str | None,
    token_file: Path | None,
    role: Role,
    *,
    name: str | None = None,
    on_permission: Judge | None = None,
    on_question: Adviser | None = None,
    on_decided: Callable[[Decided], None] = lambda decided: None,
) -> AsyncIterator[Client]:
    """Be connected to the hub or MetaHub that the options mean, for the block.

    Raises:
        ConfigError: the address is none, or the token file cannot be read, or no local hub is meant.
        ConnectionLost: nobody is there.
        Unauthorized: the token is wrong, or there is none.
    """
    address, token = _address_and_token(address, token_file)
    try:
        async with connect(
            address,
            token=token,
            name=name or default_name(),
            role=role,
            on_permission=on_permission,
            on_question=on_question,
            on_decided=on_decided,
        ) as client:
            yield client
    except Unauthorized as error:
        if token:
            raise
        hint = "no token was given: set LOOPAL_META_HUB_TOKEN, or use --token-file"
        raise Unauthorized(f"{error.detail} ({hint})") from None


def hub_of(client: Client) -> str | None:
    """The name of the hub a client is connected to; None for a MetaHub."""
    return client.welcome.hub


def default_name() -> str:
    """Who acts: the name of the user."""
    try:
        return sanitize_name(getuser())
    except (KeyError, OSError):
        return "somebody"  # a user id without an entry, as in some containers


def _address_and_token(address: str | None, token_file: Path | None) -> tuple[str, str]:
    given = None if token_file is None else _read_token(token_file)
    if address is None:
        hub = find_hub()
        return hub.address, given or hub.token
    # A local hub's own file comes before the environment, whose token is most often the MetaHub's.
    return address, given or _known_token(address) or os.environ.get("LOOPAL_META_HUB_TOKEN", "")


def _known_token(address: str) -> str | None:
    try:
        hubs = local_hubs()
    except ConfigError:
        return None  # a runtime directory that cannot be used does not concern an address that is given
    return next((hub.token for hub in hubs if address in (hub.address, hub.tcp)), None)


def _read_token(path: Path) -> str:
    try:
        token = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise ConfigError(f"token file {path}: {reason}") from None
    if not token:
        raise ConfigError(f"token file {path} is empty")
    return token
