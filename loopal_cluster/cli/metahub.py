"""``loopal-cluster metahub``: the coordinator, in the foreground until it is told to stop."""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import Annotated

import trio
import typer

from loopal_cluster.cli.logs import Verbose, show_logs
from loopal_cluster.cli.run import async_command
from loopal_cluster.cli.signals import open_stopper, settle_down
from loopal_cluster.cli.tokens import TOKEN_VARIABLE, given_token, kept_token, state_directory
from loopal_cluster.config import Timeouts
from loopal_cluster.errors import ConfigError
from loopal_cluster.links.descriptors import raise_descriptor_limit
from loopal_cluster.runtime.meta_hub import MetaHub, open_meta_hub
from loopal_cluster.runtime.tokens import Tokens

__all__ = ["register"]

DEFAULTS = Timeouts()


def register(app: typer.Typer) -> None:
    """Add the command."""
    async_command(app, "metahub")(metahub)


async def metahub(
    bind: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Where to listen; port 0 is any.")
    ] = "127.0.0.1:9900",
    token_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help=f"A file with the cluster's tokens, one a line, instead of {TOKEN_VARIABLE}; read again when it changes.",
        ),
    ] = None,
    state_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Where a token that is made here is kept. Default: in $XDG_STATE_HOME."
        ),
    ] = None,
    heartbeat_interval: Annotated[
        float, typer.Option(metavar="SECONDS", help="Between two heartbeats of a hub.")
    ] = DEFAULTS.heartbeat_interval,
    suspect_timeout: Annotated[
        float, typer.Option(metavar="SECONDS", help="A hub that was silent for so long is suspect.")
    ] = DEFAULTS.suspect_timeout,
    lost_timeout: Annotated[
        float, typer.Option(metavar="SECONDS", help="A hub that was silent for so long is lost.")
    ] = DEFAULTS.lost_timeout,
    verbose: Verbose = 0,
) -> None:
    """Run a MetaHub, which makes hubs one cluster. Ctrl-C ends it."""
    show_logs(verbose)
    raise_descriptor_limit()
    token, where = _token(token_file, state_dir)
    try:
        timeouts = Timeouts(
            heartbeat_interval=heartbeat_interval,
            suspect_timeout=suspect_timeout,
            lost_timeout=lost_timeout,
        )
    except ValueError as error:
        raise ConfigError(f"impossible timeouts: {error}") from error
    async with open_stopper() as stopper, open_meta_hub(bind, token=token, timeouts=timeouts) as meta_hub:
        announce(meta_hub, where)
        settle_down()
        with stopper.work():
            await trio.sleep_forever()


def _token(token_file: Path | None, state_dir: Path | None) -> tuple[Tokens | None, str | None]:
    """The token that was given, or the one that is kept here; and what to say of the latter.

    Raises:
        ConfigError: a file that was named cannot be used.
    """
    if (given := given_token(token_file)) is not None:
        return given, None
    try:
        kept = kept_token(state_directory(state_dir))
    except ConfigError as error:
        if state_dir is not None:
            raise
        return None, f"new at every start, for {error}; one of your own in {TOKEN_VARIABLE} stays"
    return kept, f"kept in {kept.path} for the next start"


def announce(meta_hub: MetaHub, made: str | None) -> None:
    """Say where the MetaHub is, and how a hub joins it. A token is shown only if it was ``made`` here."""
    lines = [f"MetaHub listening on {address}" for address in meta_hub.addresses]
    if made is not None:
        lines += [f"Token: {meta_hub.token}", f"({made})"]
    token = "..." if made is None else meta_hub.token
    command = f"  {TOKEN_VARIABLE}={token} loopal-cluster hub --join-hub {_from_elsewhere(meta_hub.address)}"
    lines += ["", "Connect a hub with:", command]
    # One write, so that whoever waits for the last line has it whole.
    sys.stderr.write("\n".join(lines) + "\n")
    sys.stderr.flush()


_ANY = {
    "0.0.0.0": (socket.AF_INET, "192.0.2.1", "{}"),
    "[::]": (socket.AF_INET6, "2001:db8::1", "[{}]"),
}
"""Hosts that mean every address of this machine; where somebody else could be; how an address is written."""


def _from_elsewhere(address: str) -> str:
    """An address that other machines can dial, too: to them, 0.0.0.0 is their own."""
    host, _, port = address.rpartition(":")
    if host not in _ANY:
        return address
    family, elsewhere, form = _ANY[host]
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((elsewhere, 9))  # sends nothing: it asks for the address we would send from
            return f"{form.format(probe.getsockname()[0])}:{port}"
    except OSError:
        return f"{socket.gethostname()}:{port}"  # without a network
