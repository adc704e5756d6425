"""``loopal-cluster hub``: a hub in the foreground, in any of eight ways.

With a human in front of it or as a ``--server``; until it is told to stop or ``--ephemeral``, until its
root agent has ended; alone or joined to a cluster. The three have nothing to do with each other.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Annotated

import trio
import typer
from attrs import evolve

from loopal_cluster.address import check_name, sanitize_name
from loopal_cluster.agents.profiles import HubTable, Profile, load_profile
from loopal_cluster.agents.types import AgentType
from loopal_cluster.cli.discovery import Claim, claim_name, file_of
from loopal_cluster.cli.logs import Verbose, show_logs
from loopal_cluster.cli.run import DONE, INTERRUPTED, REFUSED, async_command, exit_status
from loopal_cluster.cli.show import note, one_line
from loopal_cluster.cli.signals import open_stopper, settle_down
from loopal_cluster.cli.terminal import Root, converse, show_outcome
from loopal_cluster.cli.tokens import NO_TOKEN, TOKEN_VARIABLE, given_token
from loopal_cluster.config import Timeouts
from loopal_cluster.errors import ConfigError, ErrorCode, NameTaken, RemoteError
from loopal_cluster.links.descriptors import raise_descriptor_limit
from loopal_cluster.outcomes import Outcome
from loopal_cluster.records import record
from loopal_cluster.runtime.hub import Hub, open_hub
from loopal_cluster.runtime.tokens import Tokens

__all__ = ["register"]

NAMES_TRIED = 1000
"""So many hubs of one machine can go by its name, with a number."""
ANSWER_TIMEOUT = 8.0
"""Seconds that a hub waits, before it says that it is ready, for what its MetaHub says. A MetaHub takes five
to find out whether a name that is taken still has a living hub."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    async_command(app, "hub")(hub)


async def hub(
    prompt: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PROMPT",
            help="What the root agent is to do. Without it, the first line typed is it.",
        ),
    ] = None,
    join_hub: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help=f"The MetaHub to join; its token is in {TOKEN_VARIABLE}."),
    ] = None,
    hub_name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Default: the machine's name, made unique.")
    ] = None,
    server: Annotated[
        bool, typer.Option("--server", help="No front end: nothing is read, nothing is asked here.")
    ] = False,
    ephemeral: Annotated[
        bool, typer.Option("--ephemeral", help="End when the root agent has ended; print its result.")
    ] = False,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Agent types and settings, TOML.")
    ] = None,
    agent: Annotated[
        str | None,
        typer.Option(metavar="TYPE", help="The type of the root agent, and of spawns without one."),
    ] = None,
    listen: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Also listen there for clients.")
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help=f"A file with the MetaHub's token, instead of {TOKEN_VARIABLE}; read again at each dial.",
        ),
    ] = None,
    join_timeout: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            min=0,
            help="End if it has not joined by then, with 3 if refused, 4 if not reached. Default: dial on.",
        ),
    ] = None,
    verbose: Verbose = 0,
) -> int:
    """Run a hub, which hosts agents. Ctrl-C ends it, and all its agents. Nothing that a MetaHub says does."""
    show_logs(verbose)
    raise_descriptor_limit()
    profile = load_profile(config) if config else Profile()
    options = HubTable(
        name=hub_name, join=join_hub, listen=listen, default_agent=agent, token_file=_text(token_file)
    )
    plan = make_plan(profile, options, server=server, ephemeral=ephemeral, words=prompt or [])
    return await run_plan(evolve(plan, join_timeout=join_timeout))


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


@record
class Plan:
    """What is asked for: the config file and the options, put together and checked."""

    table: HubTable
    agents: Mapping[str, AgentType]
    meta_token: Tokens
    server: bool
    root: Root
    join_timeout: float | None = None


def make_plan(
    profile: Profile, options: HubTable, *, server: bool, ephemeral: bool, words: list[str]
) -> Plan:
    """Let the options override the config file.

    Raises:
        ConfigError, InvalidAddress: together they cannot be carried out.
    """
    given = {name: value for name in _OVERRIDABLE if (value := getattr(options, name)) is not None}
    table = evolve(profile.hub, **given)
    prompt = " ".join(words) or None
    agent_type, known = table.default_agent, ", ".join(profile.agents) or "none"
    if agent_type is not None and agent_type not in profile.agents:
        raise ConfigError(f"no agent type {agent_type!r} (there are: {known})")
    if agent_type is None and (prompt is not None or ephemeral):
        raise ConfigError(f"no agent for the prompt: name one with --agent (there are: {known})")
    if server and ephemeral and prompt is None:
        raise ConfigError("--server --ephemeral needs a PROMPT: there is nobody to type one")
    root = Root(agent_type, prompt, persistent=not ephemeral)
    return Plan(table, profile.agents, given_token(table.token_file) or "", server, root)


_OVERRIDABLE = ("name", "join", "listen", "default_agent", "token_file")


async def run_plan(plan: Plan) -> int:
    """Run the hub to its end; return the exit status."""
    outcome = None
    async with open_stopper() as stopper, _open_hub(plan) as hub:
        with stopper.work():
            if plan.table.join and plan.join_timeout is not None:
                try:
                    await hub.until_joined(plan.join_timeout)
                except RemoteError as error:
                    note(f"error: {one_line(str(error))}{_remedy(hub, plan)}")
                    return REFUSED
            _announce(hub, plan)
            settle_down()
            outcome = await (_serve(hub, plan.root) if plan.server else converse(hub, plan.root))
    if outcome is not None:
        return exit_status(outcome)
    # SIGTERM is the proper end of a hub that stays up, but not of a job.
    return DONE if plan.root.persistent else INTERRUPTED


def _remedy(hub: Hub, plan: Plan) -> str:
    """What to do about a MetaHub that does not have this hub, to be put behind what it says."""
    match hub.absence and hub.absence.refusal:
        case ErrorCode.UNAUTHORIZED if not plan.meta_token:
            return f" ({NO_TOKEN})"
        case ErrorCode.NAME_TAKEN if plan.table.name:
            return " (--hub-name gives it another)"
        case _:
            return ""


async def _serve(hub: Hub, root: Root) -> Outcome | None:
    """Be a hub without a front end: nobody is asked here, so nothing is ever approved here."""
    if root.prompt is None:
        await trio.sleep_forever()
        return None
    async with hub.open_client(name="command-line") as client:
        agent = await root.spawn(client, root.prompt)
        outcome = await agent.outcome()
    if root.persistent:
        await trio.sleep_forever()
    show_outcome(outcome)
    return outcome


# The hub and its name.


@asynccontextmanager
async def _open_hub(plan: Plan) -> AsyncIterator[Hub]:
    """Open the hub under its own name, or under the first that is free here and in the cluster."""
    names = iter([plan.table.name]) if plan.table.name else _default_names()
    for name in names:
        async with AsyncExitStack() as stack:
            try:
                hub, claim = await _try_open(stack, name, plan)
            except NameTaken:
                if plan.table.name:
                    raise
                continue
            if plan.table.name:
                claim.publish(hub.addresses, hub.token)  # whatever the MetaHub says, or does not say
            if plan.table.join:
                with trio.move_on_after(ANSWER_TIMEOUT):
                    await hub.until_answered()
            if not plan.table.name:
                if hub.absence is not None and hub.absence.refusal is ErrorCode.NAME_TAKEN:
                    continue
                claim.publish(hub.addresses, hub.token)
            yield hub
            return
    raise NameTaken(f"{NAMES_TRIED} hubs have the name of this machine; use --hub-name")


def _default_names() -> Iterator[str]:
    base = sanitize_name(socket.gethostname().partition(".")[0])[:59]  # leaves room for a number
    yield base
    for number in range(2, NAMES_TRIED + 1):
        yield f"{base}-{number}"


async def _try_open(stack: AsyncExitStack, name: str, plan: Plan) -> tuple[Hub, Claim]:
    table = plan.table
    claim = stack.enter_context(claim_name(check_name(name, "hub name")))
    timeouts = Timeouts()
    if table.permission_timeout is not None:
        timeouts = evolve(timeouts, permission_timeout=table.permission_timeout)
    hub = await stack.enter_async_context(
        open_hub(
            name,
            agents=plan.agents,
            default_agent=table.default_agent,
            join=table.join,
            meta_token=plan.meta_token,
            join_timeout=None,
            listen=[claim.socket, *([table.listen] if table.listen else [])],
            policy=table.permission,
            capabilities=table.capabilities,
            labels=table.labels,
            timeouts=timeouts,
        )
    )
    return hub, claim


def _why_not(hub: Hub, plan: Plan) -> str:
    if hub.absence is None:
        return f"{plan.table.join} has not answered yet"
    return f"{one_line(hub.absence.reason)}{_remedy(hub, plan)}"


def _announce(hub: Hub, plan: Plan) -> None:
    where = "alone"
    if plan.table.join:
        where = f"joined {plan.table.join}" if hub.joined else f"not joined: {_why_not(hub, plan)}"
    note(f"Hub '{hub.name}' ready ({where}), listening on {', '.join(hub.addresses)}")
    if plan.table.listen:
        note(f"Clients on other machines need the token in {file_of(hub.name)}")
    if not plan.agents:
        note("It runs no agents: --config FILE gives it some.")
    elif not plan.server and plan.root.agent_type is None:
        note(f"There is nobody to talk to: --agent names who it is (there are: {', '.join(plan.agents)}).")
    elif not plan.server and plan.root.prompt is None:
        note(f"The first line you type is the prompt for an agent of type {plan.root.agent_type!r}.")
    if not plan.server and plan.root.persistent and sys.stdin.isatty():
        note("Ctrl-D ends.")
