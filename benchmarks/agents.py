"""The agents of the whole-path benchmark: one answers, one asks it as fast as it can."""

from __future__ import annotations

import json

import trio

from loopal_cluster import AgentContext
from loopal_cluster.agents.inbox import Received

__all__ = ["answer", "ask_many"]


async def answer(ctx: AgentContext, prompt: str) -> None:
    """Answer every ask with what it says."""

    async def reply(received: Received) -> str:
        await trio.lowlevel.checkpoint()  # as if it had something to do
        return received.text

    await ctx.serve(reply)


async def ask_many(ctx: AgentContext, prompt: str) -> dict[str, float]:
    """Keep ``window`` asks of ``bytes`` characters to ``target`` in flight for ``seconds``."""
    order = json.loads(prompt)
    text, times = "x" * order["bytes"], []
    begin = trio.current_time() + order["seconds"] / 4  # by then, all of them are on their way
    end = begin + order["seconds"]

    async def ask_again_and_again() -> None:
        while (asked := trio.current_time()) < end:
            if await ctx.ask(order["target"], text) != text:
                raise AssertionError("the answer is not what was asked")
            if begin < trio.current_time() < end:
                times.append(trio.current_time() - asked)

    async with trio.open_nursery() as nursery:
        for _ in range(order["window"]):
            nursery.start_soon(ask_again_and_again)
    if not times:
        raise ValueError(f"no ask was answered within {order['seconds']:g} s")
    times.sort()
    return {"per_second": len(times) / order["seconds"], "p50": times[len(times) // 2]}
