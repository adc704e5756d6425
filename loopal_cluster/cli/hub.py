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
from loopal_cluster.cli.discovery import claim_name, file_of
from loopal_cluster.cli.logs import Verbose, show_logs
from loopal_cluster.cli.run import DONE, INTERRUPTED, async_command, exit_status
from loopal_cluster.cli.show import note
from loopal_cluster.cli.signals import open_stopper, settle_down
from loopal_cluster.cli.terminal import Root, converse, show_outcome
from loopal_cluster.cli.tokens import NO_TOKEN, TOKEN_VARIABLE, given_token
from loopal_cluster.config import Timeouts
from loopal_cluster.errors import ClusterError, ConfigError, NameTaken, Unauthorized
from loopal_cluster.outcomes import Outcome
from loopal_cluster.records import record
from loopal_cluster.runtime.descriptors import raise_descriptor_limit
from loopal_cluster.runtime.hub import Hub, open_hub

__all__ = ["register"]

NAMES_TRIED = 1000
"""So many hubs of one machine can go by its name, with a number."""


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
        typer.Option(metavar="FILE", help=f"A file with the MetaHub's token, instead of {TOKEN_VARIABLE}."),
    ] = None,
    verbose: Verbose = 0,
) -> int:
    """Run a hub, which hosts agents. Ctrl-C ends it, and all its agents."""
    show_logs(verbose)
    raise_descriptor_limit()
    profile = load_profile(config) if config else Profile()
    options = HubTable(
        name=hub_name, join=join_hub, listen=listen, default_agent=agent, token_file=_text(token_file)
    )
    plan = make_plan(profile, options, server=server, ephemeral=ephemeral, words=prompt or [])
    return await run_plan(plan)


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


@record
class Plan:
    """What is asked for: the config file and the options, put together and checked."""

    table: HubTable
    agents: Mapping[str, AgentType]
    meta_token: str
    server: bool
    root: Root


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
            outcome = await _work(hub, plan)
    if outcome is not None:
        return exit_status(outcome)
    # SIGTERM is the proper end of a hub that stays up, but not of a job.
    return DONE if plan.root.persistent else INTERRUPTED


async def _work(hub: Hub, plan: Plan) -> Outcome | None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_fail_when_refused, hub)
        outcome = await (_serve(hub, plan.root) if plan.server else converse(hub, plan.root))
        nursery.cancel_scope.cancel()
    return outcome


async def _fail_when_refused(hub: Hub) -> None:
    await hub.left.wait()
    assert hub.refusal is not None
    remedy = _REMEDIES.get(type(hub.refusal))
    if remedy is None:
        raise hub.refusal
    raise type(hub.refusal)(f"{hub.refusal}; {remedy}")


_REMEDIES: dict[type[ClusterError], str] = {
    Unauthorized: f"its token has changed: start this hub again, with the new one in {TOKEN_VARIABLE}",
    NameTaken: "another hub has come with this name: start this one again, with another --hub-name",
}
"""What to do about a MetaHub that does not take its hub back."""


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
    """Open the hub under its own name, or under the first that is free."""
    names = iter([plan.table.name]) if plan.table.name else _default_names()
    for name in names:
        async with AsyncExitStack() as stack:
            try:
                hub = await _try_open(stack, name, plan)
            except NameTaken:
                if plan.table.name:
                    raise
                continue
            except Unauthorized as error:
                if plan.meta_token:
                    raise
                raise Unauthorized(f"{error.detail} ({NO_TOKEN})") from None
            _announce(hub, plan)
            settle_down()
            yield hub
            return
    raise NameTaken(f"{NAMES_TRIED} hubs have the name of this machine; use --hub-name")


def _default_names() -> Iterator[str]:
    base = sanitize_name(socket.gethostname().partition(".")[0])[:59]  # leaves room for a number
    yield base
    for number in range(2, NAMES_TRIED + 1):
        yield f"{base}-{number}"


async def _try_open(stack: AsyncExitStack, name: str, plan: Plan) -> Hub:
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
            listen=[claim.socket, *([table.listen] if table.listen else [])],
            policy=table.permission,
            capabilities=table.capabilities,
            labels=table.labels,
            timeouts=timeouts,
        )
    )
    claim.publish(hub.addresses, hub.token)
    return hub


def _announce(hub: Hub, plan: Plan) -> None:
    where = f"joined {plan.table.join}" if plan.table.join else "alone"
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
