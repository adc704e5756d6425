"""Agents for the tools to work with."""

from __future__ import annotations

import trio

from loopal_cluster import AgentContext


async def shout(ctx: AgentContext, prompt: str) -> str:
    return f"{prompt.upper()} on {ctx.hub}"


async def fail(ctx: AgentContext, prompt: str) -> str:
    raise ValueError(prompt)


async def linger(ctx: AgentContext, prompt: str) -> str:
    await trio.sleep(float(prompt or 1000))
    return "lingered"
