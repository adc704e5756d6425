"""Commands that act: ``send``, ``ask``, ``spawn``, ``wait``, ``interrupt``, ``cancel``."""

from __future__ import annotations

import math
from typing import Annotated, Any

import trio
import typer

from loopal_cluster.address import Address, check_name
from loopal_cluster.cli import show
from loopal_cluster.cli.connect import (
    LOOK_TIMEOUT,
    AsJson,
    Connect,
    Timeout,
    TokenFile,
    hub_of,
    open_session,
    within,
)
from loopal_cluster.cli.run import async_command, exit_status
from loopal_cluster.cli.signals import open_stopper
from loopal_cluster.errors import (
    AgentError,
    ConfigError,
)
from loopal_cluster.links.client import Client
from loopal_cluster.links.cluster_client import AgentHandle
from loopal_cluster.messages import Role
from loopal_cluster.outcomes import Cancelled, Done, Failed, Outcome, TimedOut, outcome_of, reason_of

__all__ = ["register"]

CANCEL_TIMEOUT = 20.0
"""Seconds that an agent which is given up has to be gone; its hub has killed it long before."""

Agent = Annotated[str, typer.Argument(metavar="AGENT", help="AGENT or HUB/AGENT.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""

    @async_command(app, "send")
    async def send(
        target: Agent,
        text: Annotated[str, typer.Argument(metavar="TEXT")],
        timeout: Timeout = LOOK_TIMEOUT,
        connect: Connect = None,
        token_file: TokenFile = None,
        as_json: AsJson = False,
    ) -> None:
        """Send a message to an agent; return when it was accepted."""
        async with open_session(connect, token_file, timeout=timeout) as client:
            await client.send(target, text)
        _report(as_json, {"sent": True, "target": target}, f"sent to {target}")

    @async_command(app, "ask")
    async def ask(
        target: Agent,
        text: Annotated[str, typer.Argument(metavar="TEXT")],
        timeout: Timeout = None,
        connect: Connect = None,
        token_file: TokenFile = None,
        as_json: AsJson = False,
    ) -> int:
        """Send a message to an agent and show its reply.

        If this command is interrupted, the agent need not go on with it.
        """
        address = Address.parse(target)
        connected = False
        try:
            async with open_session(connect, token_file, timeout=timeout) as client:
                connected = True
                outcome = await _reply_of(client, target, text)
        except trio.TooSlowError:
            if not connected:
                raise
            outcome = TimedOut(f"no reply from {target} in time")
        return _show_outcome(as_json, address.agent, address.hub, None, outcome)

    @async_command(app, "spawn")
    async def spawn(
        agent_type: Annotated[str, typer.Argument(metavar="TYPE", help="A type that the hub runs.")],
        prompt: Annotated[str, typer.Argument(metavar="PROMPT")] = "",
        hub: Annotated[
            str | None, typer.Option(metavar="HUB", help="Where. [default: the hub connected to]")
        ] = None,
        name: Annotated[str | None, typer.Option(metavar="NAME", help="[default: a new one]")] = None,
        wait: Annotated[
            bool, typer.Option("--wait", help="Wait for its outcome; if interrupted, cancel it.")
        ] = False,
        timeout: Timeout = None,
        persistent: Annotated[
            bool, typer.Option("--persistent", help="It goes on after its first turn.")
        ] = False,
        connect: Connect = None,
        token_file: TokenFile = None,
        as_json: AsJson = False,
    ) -> int:
        """Start an agent and show its address, or with --wait its result.

        With --wait the agent belongs to this command: an interrupt, its end or the end of --timeout
        cancels it. Without, the agent belongs to nobody, and goes on once it is up; it has 10 s for that,
        or as --timeout says.
        """
        _check_names(name, hub)
        if timeout is None and not wait:
            timeout = LOOK_TIMEOUT
        async with open_stopper() as stopper:
            with within(timeout) as coming_up:
                deadline = coming_up.deadline
                async with open_session(connect, token_file) as client:
                    if hub is None and hub_of(client) is None:
                        raise ConfigError("a MetaHub runs no agents itself: say where with --hub")
                    handle = await client.spawn(
                        agent_type, prompt, hub=hub, name=name, persistent=persistent, detached=not wait
                    )
                    where = hub or hub_of(client)
                    if not wait:
                        _show_spawned(as_json, handle, where)
                        return 0
                    coming_up.deadline = math.inf  # what its end means is said below
                    outcome: Outcome | None = None
                    with stopper.work(), trio.move_on_at(deadline):
                        outcome = await handle.outcome()
                    if outcome is None and stopper.signal is None:
                        outcome = await _end(handle, TimedOut(f"it had not ended after {timeout:g} s"))
                    elif outcome is None:
                        outcome = await _end(handle, Cancelled("interrupted"))
                    status = _show_outcome(as_json, handle.name, where, handle.id, outcome)
                    return status if stopper.signal is None else exit_status(KeyboardInterrupt())
        # A signal came before the agent was up: its spawn is given up.
        return exit_status(KeyboardInterrupt())

    @async_command(app, "wait")
    async def wait(
        agent: Agent,
        timeout: Timeout = None,
        connect: Connect = None,
        token_file: TokenFile = None,
        as_json: AsJson = False,
    ) -> int:
        """Wait until an agent has ended, and show its result. The agent is left alone."""
        address = None
        try:
            async with open_session(connect, token_file, role=Role.OBSERVER, timeout=timeout) as client:
                address = await _address(client, agent, as_json)
                outcome = await client.wait(str(address))
        except trio.TooSlowError:
            if address is None:
                raise
            outcome = TimedOut(f"it had not ended after {timeout:g} s; it goes on")
        return _show_outcome(as_json, address.agent, address.hub, None, outcome)

    @async_command(app, "interrupt")
    async def interrupt(
        agent: Agent,
        timeout: Timeout = LOOK_TIMEOUT,
        connect: Connect = None,
        token_file: TokenFile = None,
        as_json: AsJson = False,
    ) -> None:
        """End an agent's current turn."""
        async with open_session(connect, token_file, timeout=timeout) as client:
            await client.interrupt(agent)
        _report(as_json, {"interrupted": True, "agent": agent}, f"interrupted {agent}")

    @async_command(app, "cancel")
    async def cancel(
        agent: Agent,
        reason: Annotated[
            str, typer.Option(metavar="TEXT", help="What it and others are told.")
        ] = "cancelled",
        timeout: Timeout = LOOK_TIMEOUT,
        connect: Connect = None,
        token_file: TokenFile = None,
        as_json: AsJson = False,
    ) -> int:
        """Stop an agent and all it spawned; show how it ended."""
        async with open_session(connect, token_file, timeout=timeout) as client:
            address = await _address(client, agent, as_json)
            outcome = await client.cancel(str(address), reason)
        if outcome is None:
            outcome = TimedOut("it was told to stop, and was not gone when its hub gave up waiting")
        _show_outcome(as_json, address.agent, address.hub, None, outcome)
        return exit_status(outcome) if isinstance(outcome, TimedOut) else 0

    app.command("shutdown", hidden=True)(cancel)  # another name of it, in scripts that there are


async def _reply_of(client: Client, target: str, text: str) -> Outcome:
    """How an ask ended. One that could not be made is an error instead."""
    try:
        return Done(await client.ask(target, text))
    except trio.TooSlowError as error:
        return TimedOut(str(error))
    except AgentError as error:
        return outcome_of(error)


async def _address(client: Client, agent: str, as_json: bool) -> Address:
    """An agent's address as it was given; for a program, with the hub that it is on."""
    address = Address.parse(agent)
    if not as_json or address.hub is not None:
        return address
    details = await client.agent_info(agent)
    return Address(address.agent, details.hub or hub_of(client))


def _check_names(name: str | None, hub: str | None) -> None:
    """Refuse here, as wrong usage, what every hub would refuse."""
    if name is not None:
        check_name(name, "agent name")
    if hub is not None:
        check_name(hub, "hub name")


async def _end(handle: AgentHandle, why: TimedOut | Cancelled) -> Outcome:
    """End an agent that nobody waits for any more. It may have had its result by then."""
    outcome = None
    with trio.move_on_after(CANCEL_TIMEOUT):
        outcome = await handle.cancel(why.reason)
    return outcome if isinstance(outcome, Done | Failed) else why


def _show_spawned(as_json: bool, handle: AgentHandle, hub: str | None) -> None:
    if as_json:
        show.document({"agent": handle.name, "hub": hub, "agent_id": handle.id})
    else:
        show.out(show.one_line(str(Address(handle.name, hub))))


def _report(as_json: bool, document: dict[str, Any], words: str) -> None:
    if as_json:
        show.document(document)
    else:
        show.note(words)


def _show_outcome(as_json: bool, agent: str, hub: str | None, agent_id: str | None, outcome: Outcome) -> int:
    if as_json:
        show.document(show.outcome_document(agent, hub, agent_id, outcome))
    elif isinstance(outcome, Done):
        show.result(outcome.result)
    else:
        show.note(f"{Address(agent, hub)}: {outcome.kind.replace('_', ' ')}: {reason_of(outcome)}")
    return exit_status(outcome)
