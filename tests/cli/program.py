"""The real program as a child process, and a cluster in this one for it to talk to."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import trio
from attrs import define, field, frozen

from loopal_cluster import AgentContext, Hub, MetaHub, Overloaded, Policy, open_hub, open_meta_hub
from loopal_cluster.cli.discovery import claim_name
from loopal_cluster.payloads import Started, Stream

from ..warm import WarmProcess, open_program, run_program

META_TOKEN = "token-of-the-meta-hub"
HUB_TOKEN = "token-of-hub-a"
EVIL = "\x1b]0;owned\x07\x9b31m\u202e"


async def count(ctx: AgentContext, prompt: str) -> str:
    return f"{len(prompt.split())} words on {ctx.hub}"


async def fail(ctx: AgentContext, prompt: str) -> str:
    raise ValueError(prompt or "no reason")


async def nap(ctx: AgentContext, prompt: str) -> str:
    await trio.sleep_forever()
    raise AssertionError


async def doze(ctx: AgentContext, prompt: str) -> str:
    ctx.stream("dozing")
    return await nap(ctx, prompt)


async def listen(ctx: AgentContext, prompt: str) -> str:
    received = await ctx.receive()
    return f"heard {received.text}"


async def ask(ctx: AgentContext, prompt: str) -> str:
    decision = await ctx.ask_permission("Bash", {"command": prompt})
    return f"{'allowed' if decision.allow else 'denied'} by {decision.by}: {decision.reason}"


async def flood(ctx: AgentContext, prompt: str) -> str:
    refused: list[str] = []

    async def ask_once(number: int) -> None:
        try:
            await ctx.ask_permission("Bash", {"command": f"flood {number}"})
        except Overloaded as error:
            refused.append(error.detail)

    async with trio.open_nursery() as nursery:
        for number in range(int(prompt)):
            nursery.start_soon(ask_once, number)
    return f"{len(refused)} refused"


async def question(ctx: AgentContext, prompt: str) -> str:
    answers = await ctx.ask_human(prompt, {"red": "like blood", "green": "like grass"})
    return f"answered {answers}"


async def evil(ctx: AgentContext, prompt: str) -> str:
    ctx.emit(Stream(EVIL))
    await ctx.ask_permission(f"Bash{EVIL}", {"command": EVIL})
    return EVIL


async def boss(ctx: AgentContext, prompt: str) -> str:
    await ctx.spawn("nap", hub=prompt, name="worker")
    await trio.sleep_forever()
    raise AssertionError


AGENTS = {
    "boss": boss, "count": count, "evil": evil, "fail": fail, "listen": listen, "nap": nap, "ask": ask,
    "question": question, "doze": doze, "flood": flood,
}  # fmt: skip


@frozen
class Ran:
    """What a run of the program left."""

    status: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """Its one JSON document."""
        return json.loads(self.out)


def environment(runtime_dir: Any, **more: str) -> dict[str, str]:
    """The environment of a run: no token, no hub to discover but those of this test."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("LOOPAL_")}
    return (
        kept
        | {"XDG_RUNTIME_DIR": str(runtime_dir), "PYTHONUTF8": "1", "USER": "ann", "LOGNAME": "ann"}
        | more
    )


@define
class Site:
    """A MetaHub with ``hub-a`` and ``hub-b``; ``hub-a`` listens for local clients and can be discovered."""

    meta_hub: MetaHub
    a: Hub
    b: Hub
    env: dict[str, str]

    async def run(self, *args: str, stdin: bytes = b"") -> Ran:
        """Run a command with the token of the MetaHub, or of the hub if that is what it connects to."""
        token = HUB_TOKEN if self.a.addresses[1] in args else META_TOKEN
        return await run(*args, stdin=stdin, env=self.env | {"LOOPAL_META_HUB_TOKEN": token})

    @asynccontextmanager
    async def start(self, *args: str) -> AsyncIterator[Running]:
        """Run a command beside the block, to be talked with; it is killed at the end."""
        async with start(*args, env=self.env | {"LOOPAL_META_HUB_TOKEN": META_TOKEN}) as running:
            yield running

    async def started(self, agent: str) -> None:
        """Wait until an agent of this name is up, on whatever hub."""
        async with self.meta_hub.open_client() as client:
            async for event in await client.subscribe(0):
                if event.agent == agent and isinstance(event.payload, Started):
                    return

    @property
    def places(self) -> dict[str, tuple[str, ...]]:
        """How one can connect, and what options that takes."""
        return {
            "local": (),
            "hub": ("--connect", self.a.addresses[1]),
            "meta hub": ("--connect", self.meta_hub.address),
        }


@asynccontextmanager
async def open_site(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, **hub_options: Any
) -> AsyncIterator[Site]:
    """Run the cluster for the length of the block."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    shared: dict[str, Any] = {
        "agents": AGENTS,
        "meta_token": META_TOKEN,
        "policy": Policy.SUPERVISED,
    } | hub_options
    with claim_name("hub-a") as claim:
        async with open_meta_hub(token=META_TOKEN) as meta_hub:
            join = meta_hub.address
            listen_on = [claim.socket, "127.0.0.1:0"]
            async with (
                open_hub("hub-a", join=join, listen=listen_on, token=HUB_TOKEN, **shared) as a,
                open_hub("hub-b", join=join, capabilities=["gpu"], **shared) as b,
            ):
                claim.publish(a.addresses, a.token)
                yield Site(meta_hub, a, b, environment(tmp_path))


async def run(*args: str, env: dict[str, str], stdin: bytes = b"") -> Ran:
    """Run the program to its end."""
    ran = Ran(*await run_program(*args, env=env, stdin=stdin))
    assert "Traceback" not in ran.err, ran.err
    return ran


@define(eq=False)
class Running:
    """A run that is still going on, and what it has printed: both streams, as they came."""

    process: WarmProcess
    text: str = ""
    changed: trio.lowlevel.ParkingLot = field(factory=trio.lowlevel.ParkingLot)

    async def until(self, wanted: str) -> None:
        """Wait until it has printed something."""
        while wanted not in self.text:
            await self.changed.park()

    async def type(self, text: str) -> None:
        """Write to its standard input."""
        await self.process.stdin.send_all(text.encode())

    async def read(self, stream: trio.abc.ReceiveStream) -> None:
        """Take in what it prints."""
        with suppress(trio.ClosedResourceError):  # a test may stop reading
            async for chunk in stream:
                self.text += chunk.decode(errors="replace")
                self.changed.unpark_all()


@asynccontextmanager
async def start(*args: str, env: dict[str, str]) -> AsyncIterator[Running]:
    """Run the program beside the block, and kill it at the end if it still runs."""
    process = open_program(*args, env=env, merged=True)
    running = Running(process)
    async with process.stdin, process.stdout, trio.open_nursery() as nursery:
        nursery.start_soon(running.read, process.stdout)
        try:
            yield running
            assert "Traceback" not in running.text
        finally:
            if process.returncode is None:
                process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()
            nursery.cancel_scope.cancel()
