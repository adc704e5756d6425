"""Test that your agents survive what happens to machines: copy this, and put your own agents in.

    pip install loopal-cluster pytest pytest-trio
    pytest -o trio_mode=true test_coordinator.py

``autojump_clock`` is pytest-trio's: the minutes that these tests wait for take no time.
"""

from __future__ import annotations

from typing import Any

import trio

from loopal_cluster import AgentContext, AgentLost
from loopal_cluster.testing import open_test_cluster


async def coordinator(ctx: AgentContext, task: str) -> str:
    """Give the task to a worker; to the next hub's, if the machine of that one is lost."""
    for hub in ("hub-b", "hub-c"):
        worker = await ctx.spawn("worker", task, hub=hub)
        try:
            return await worker.result()
        except AgentLost:
            continue
    return "nobody could do it"


async def worker(ctx: AgentContext, task: str) -> str:
    """Work for a while, if a human allows that."""
    decision = await ctx.ask_permission("train", {"task": task})
    if not decision.allow:
        return f"not done: {decision.reason}"
    await trio.sleep(20)
    return f"{task}, done on {ctx.address.partition('/')[0]}"


AGENTS = {"coordinator": coordinator, "worker": worker}


async def test_the_task_is_done_although_the_first_machine_dies(autojump_clock: Any) -> None:
    async with open_test_cluster(hubs=3, agents=AGENTS) as cluster, cluster.open_operator() as human:
        async with cluster["hub-a"].open_client() as client:
            task = await client.spawn("coordinator", "an epoch")
            (await human.next()).allow()
            await trio.sleep(10)

            await cluster.kill("hub-b")

            (await human.next()).allow()
            assert await task.result() == "an epoch, done on hub-c"


async def test_a_laptop_that_sleeps_for_half_a_minute_loses_nothing(autojump_clock: Any) -> None:
    async with open_test_cluster(hubs=3, agents=AGENTS) as cluster, cluster.open_operator() as human:
        async with cluster["hub-a"].open_client() as client:
            task = await client.spawn("coordinator", "an epoch")
            (await human.next()).allow()

            cluster.freeze("hub-b")
            await trio.sleep(30)
            cluster.thaw("hub-b")

            assert await task.result() == "an epoch, done on hub-b"


async def test_nothing_is_done_that_a_human_denies(autojump_clock: Any) -> None:
    async with open_test_cluster(hubs=3, agents=AGENTS) as cluster, cluster.open_operator() as human:
        async with cluster["hub-a"].open_client() as client:
            task = await client.spawn("coordinator", "an epoch")

            (await human.next()).deny("not at night")

            assert await task.result() == "not done: not at night"
