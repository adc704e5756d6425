"""``loopal-cluster demo``: a whole cluster of real processes, doing real work, in a few seconds."""

from __future__ import annotations

import os
import secrets
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Annotated

import trio
import typer
from attrs import field

import loopal_cluster
from loopal_cluster.agents.children import Child, open_child
from loopal_cluster.cli.look import tree_lines
from loopal_cluster.cli.run import async_command, exit_status
from loopal_cluster.cli.show import as_plain, out
from loopal_cluster.errors import ClusterError, ConfigError
from loopal_cluster.links.client import Client, EventStream, connect
from loopal_cluster.messages import ClusterEvent, Decision, Permission
from loopal_cluster.outcomes import Outcome, reason_of
from loopal_cluster.payloads import Ended, HubJoined, MessageRouted, Stream, SubAgentSpawned
from loopal_cluster.records import define
from loopal_cluster.wire.contents import loads

__all__ = ["register"]

START_TIMEOUT = 20.0
"""Seconds for a process of ours to be up; a loaded machine may need several."""

AGENTS = "loopal_cluster.demo.agents"

HUBS = {
    "laptop": f"""
        [agents.lead]
        protocol = "python"
        target = "{AGENTS}:lead"
    """,
    "gpu-box": f"""
        [hub]
        capabilities = ["gpu"]
        [agents.surveyor]
        protocol = "python"
        target = "{AGENTS}:surveyor"
        process = true
    """,
    "ci-runner": f"""
        [agents.checker]
        protocol = "python"
        target = "{AGENTS}:checker"
        [agents.wc]
        protocol = "command"
        command = ["sh", "-c", "tr '\\\\n' '\\\\0' | xargs -0 wc -l | tail -n 1"]
    """,
}


def register(app: typer.Typer) -> None:
    """Add ``demo``."""

    @async_command(app, "demo")
    async def demo(
        path: Annotated[
            Path | None,
            typer.Argument(metavar="PATH", help="Files to work on. [default: the installed package]"),
        ] = None,
        verbose: Annotated[
            bool, typer.Option("--verbose", "-v", help="Show what the processes log.")
        ] = False,
    ) -> int:
        """Run a MetaHub and three hubs, whose agents work together.

        An agent on the hub 'laptop' finds the others, spawns agents on them, waits for their results, and
        asks a permission, which an operator at the MetaHub grants. Everything runs on this machine and is
        gone afterwards.
        """
        root = Path(loopal_cluster.__file__).parent if path is None else path
        if not root.exists():
            raise ConfigError(f"there is no file or directory {str(root)!r}")
        with tempfile.TemporaryDirectory(prefix="loopal-demo-") as directory:
            return await Demo(root.resolve(), Path(directory), verbose=verbose).run()


@define
class Demo:
    """One performance."""

    root: Path
    directory: Path
    verbose: bool
    token: str = field(factory=lambda: secrets.token_hex(16), repr=False)
    began_at: float = field(factory=time.monotonic)
    children: list[tuple[str, Child]] = field(factory=list)

    async def run(self) -> int:
        """The whole story; returns the exit status."""
        self.title("Processes")
        async with AsyncExitStack() as stack:
            address = await self.start_meta_hub(stack)
            client = await stack.enter_async_context(
                connect(
                    address,
                    token=self.token,
                    name="demo",
                    on_permission=self.allow,
                )
            )
            events = await client.subscribe(since=0)
            for name in HUBS:
                await self.start_hub(stack, name, address)
            await self.await_hubs(events)
            self.title("Timeline")
            outcome = await self.perform(client, events)
            await self.stop_all()
        self.title(f"Result of laptop/lead: {outcome.kind}")
        self.say(reason_of(outcome))
        return exit_status(outcome)

    # Processes.

    async def start_meta_hub(self, stack: AsyncExitStack) -> str:
        """Start the MetaHub; return its address."""
        listening, said = "MetaHub listening on ", trio.Event()
        address = ""

        def on_line(line: str) -> None:
            nonlocal address
            if line.startswith(listening):
                address = line.removeprefix(listening)
                said.set()

        await self.start(stack, "MetaHub", ["metahub", "--bind", "127.0.0.1:0"], on_line)
        with trio.move_on_after(START_TIMEOUT):
            await said.wait()
            return address
        raise ClusterError(f"the MetaHub was not up after {START_TIMEOUT:g} s")

    async def start_hub(self, stack: AsyncExitStack, name: str, address: str) -> None:
        """Start a hub that joins."""
        config = self.directory / f"{name}.toml"
        config.write_text("\n".join(line.strip() for line in HUBS[name].splitlines()), encoding="utf-8")
        arguments = ["hub", "--server", "--join-hub", address, "--hub-name", name, "--config", str(config)]
        await self.start(stack, f"hub {name}", arguments, lambda line: None)

    async def start(
        self, stack: AsyncExitStack, what: str, arguments: list[str], on_line: Callable[[str], None]
    ) -> None:
        """Run our own program."""

        def on_stderr(line: str) -> None:
            on_line(line)
            if self.verbose:
                print(f"[{what}] {line}", file=sys.stderr)

        child = await stack.enter_async_context(
            open_child(
                [sys.executable, "-P", "-m", "loopal_cluster", *arguments],
                env={
                    **os.environ,
                    "LOOPAL_META_HUB_TOKEN": self.token,
                    "XDG_RUNTIME_DIR": str(self.directory),
                },
                on_stderr=on_stderr,
            )
        )
        stack.callback(child.terminate)
        self.children.append((what, child))
        self.say(f"{what:<16} pid {child.pid}")

    async def await_hubs(self, events: EventStream) -> None:
        """Wait until every hub has joined; one that ends instead ends the demo."""
        missing = set(HUBS)
        with trio.move_on_after(START_TIMEOUT):
            async with trio.open_nursery() as nursery:
                for what, child in self.children:
                    nursery.start_soon(refuse_to_end, what, child)
                while missing:
                    payload = (await events.__anext__()).payload
                    if isinstance(payload, HubJoined):
                        missing.discard(payload.name)
                nursery.cancel_scope.cancel()
        if missing:
            raise ClusterError(f"not joined within {START_TIMEOUT:g} s: {', '.join(sorted(missing))}")

    async def stop_all(self) -> None:
        """End the processes in good order, hubs first, and say how each ended."""
        self.title("Shutdown")
        for what, child in reversed(self.children):
            child.terminate()
            with trio.move_on_after(START_TIMEOUT):
                self.say(f"{what:<16} exited with status {await child.wait()}")

    # The play.

    async def perform(self, client: Client, events: EventStream) -> Outcome:
        """Let the lead agent work, showing what happens meanwhile."""
        report = self.directory / "report.txt"
        async with self.shown(client, events):
            lead = await client.spawn("lead", f"{self.root}\n{report}", hub="laptop", name="lead")
            outcome = await lead.outcome()
        if report.exists():
            self.title("report.txt, as laptop/lead wrote it")
            self.say(report.read_text(encoding="utf-8").rstrip())
        return outcome

    @asynccontextmanager
    async def shown(self, client: Client, events: EventStream) -> AsyncIterator[None]:
        """Print the events of the block, and the few that follow it."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.show, client, events)
            yield
            await trio.sleep(0.2)
            nursery.cancel_scope.cancel()

    async def show(self, client: Client, events: EventStream) -> None:
        """Print events as they come, and the topology once the agents are up."""
        async for event in events:
            if (text := sentence(event)) is not None:
                self.say(text)
            if isinstance(event.payload, SubAgentSpawned) and event.payload.name == "surveyor":
                await self.show_topology(client)

    async def show_topology(self, client: Client) -> None:
        """Print who runs where, and for whom."""
        lines = [line for part in await client.topology() for line in tree_lines(part)]
        self.say("Topology now:\n" + "\n".join(lines))

    async def allow(self, permission: Permission) -> Decision:
        """Be the human at the MetaHub."""
        tool_input = loads(permission.tool_input)
        self.say(f"{permission.agent_name} asks for permission: {permission.tool_name} {tool_input}")
        self.say("The question has come to the MetaHub, where the operator 'demo' allows it.")
        return Decision(allow=True)

    # The stage.

    def title(self, text: str) -> None:
        """Begin a part."""
        typer.secho(f"\n{text}", bold=True)

    def say(self, text: str) -> None:
        """Print with the time since the beginning."""
        stamp = f"{time.monotonic() - self.began_at:6.2f}  "
        for line in text.splitlines():
            out(stamp + as_plain(line))
            stamp = " " * len(stamp)


def sentence(event: ClusterEvent) -> str | None:
    """An event as somebody would tell it who had never heard of us; None if it is not worth telling."""
    who = f"{event.hub}/{event.agent}"
    match event.payload:
        case SubAgentSpawned(name=name, parent=parent):
            return f"{parent or 'demo'} spawned {event.hub}/{name}"
        case Stream(text):
            first, *more = text.strip().splitlines() or [""]
            return f"{who}: {first.strip()}" + (f" ... and {len(more)} more lines" if more else "")
        case MessageRouted(source, target, text):
            return f"{source} -> {event.hub}/{target}: {text!r}"
        case Ended(outcome, text):
            return f"{who} is {outcome}: {text.strip().splitlines()[-1][:100] if text.strip() else ''}"
        case _:
            return None


async def refuse_to_end(what: str, child: Child) -> None:
    """Raise when a process ends that should not."""
    await child.wait()
    raise ClusterError(f"{what} ended: {child.ending}")
