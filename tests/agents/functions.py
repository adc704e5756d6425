"""Agent functions for tests, in a module that a child process can import."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any

import trio

from loopal_cluster import AgentContext


async def echo(ctx: AgentContext, prompt: str) -> str:
    return f"echo {prompt}"


async def facts(ctx: AgentContext, prompt: str) -> dict[str, Any]:
    return {"address": ctx.address, "parent": ctx.parent, "type": ctx.agent_type, "pid": os.getpid()}


async def fail(ctx: AgentContext, prompt: str) -> None:
    raise ValueError(prompt)


async def leave(ctx: AgentContext, prompt: str) -> None:
    sys.exit(prompt)


async def chatter(ctx: AgentContext, prompt: str) -> str:
    print("this is not the protocol")
    os.system("echo nor is this")  # noqa: ASYNC221
    return sys.stdin.read() + "done"


async def stay(ctx: AgentContext, prompt: str) -> None:
    await trio.sleep_forever()


async def listen(ctx: AgentContext, prompt: str) -> str:
    """Collect messages up to ``stop``."""
    texts = []
    while (received := await ctx.receive()).text != "stop":
        texts.append(received.text)
    return f"{','.join(texts)} in mode {ctx.mode} with {ctx.model}"


async def lead(ctx: AgentContext, prompt: str) -> str:
    """Spawn one of each kind: prompt is the type of the child."""
    child = await ctx.spawn(prompt, "hi")
    return f"{ctx.name} got {await child.result()}"


async def parent(ctx: AgentContext, prompt: str) -> None:
    """Have children, say so, and stay."""
    for number, agent_type in enumerate(prompt.split()):
        await ctx.spawn(agent_type, "", name=f"child-{number}")
    ctx.stream("ready")
    await trio.sleep_forever()


async def ask(ctx: AgentContext, prompt: str) -> list[Any]:
    decision = await ctx.ask_permission("Paint", {"wall": prompt})
    return [decision.allow, decision.reason]


async def tools(ctx: AgentContext, prompt: str) -> str:
    return (await ctx.tools.call("ListAgents")).text


async def block(ctx: AgentContext, prompt: str) -> None:
    """Never give control back, which no cancellation can change."""
    ctx.stream("blocking")
    await trio.sleep(0.05)
    while True:
        time.sleep(1)  # noqa: ASYNC251


async def dies_when_asked(ctx: AgentContext, prompt: str) -> None:
    await ctx.receive()
    os.kill(os.getpid(), signal.SIGKILL)


async def spins(ctx: AgentContext, prompt: str) -> None:
    while prompt:
        pass
