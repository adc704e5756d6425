"""Two hubs and a MetaHub: the thinnest slice through the whole house, on every transport."""

from __future__ import annotations

from typing import Any

import pytest

from loopal_cluster import AgentContext, open_hub, open_meta_hub
from loopal_cluster.testing import byte_pair, open_test_cluster, record_pair


async def count(ctx: AgentContext, prompt: str) -> str:
    return f"{len(prompt.split())} words on {ctx.hub}"


async def listen(ctx: AgentContext, prompt: str) -> str:
    received = await ctx.receive()
    return f"{received.sender} said {received.text}"


async def lead(ctx: AgentContext, prompt: str) -> str:
    counter = await ctx.spawn("count", prompt, hub="hub-b")
    listener = await ctx.spawn("listen", hub="hub-b", name="ear")
    await ctx.send("hub-b/ear", "hello")
    return f"{await counter.result()}; {await listener.result()}"


AGENTS = {"count": count, "listen": listen, "lead": lead}
EXPECTED = "3 words on hub-b; hub-a/chief said hello"


@pytest.mark.parametrize("pair", [record_pair, byte_pair])
async def test_an_agent_spawns_and_messages_agents_of_another_hub_over_memory(pair, autojump_clock):
    async with open_test_cluster(2, agents=AGENTS, pair=pair) as cluster:
        async with cluster["hub-a"].open_client() as client:
            chief = await client.spawn("lead", "one two three", name="chief")

            assert await chief.result() == EXPECTED


async def test_an_agent_spawns_and_messages_agents_of_another_hub_over_tcp():
    async with open_meta_hub() as meta_hub:
        join: dict[str, Any] = {"join": meta_hub.address, "meta_token": meta_hub.token}
        async with open_hub("hub-a", agents=AGENTS, **join) as hub, open_hub("hub-b", agents=AGENTS, **join):
            async with hub.open_client() as client:
                chief = await client.spawn("lead", "one two three", name="chief")

                assert await chief.result() == EXPECTED
