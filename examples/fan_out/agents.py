"""An agent that asks every hub of the cluster at once, and the agents that it asks."""

from __future__ import annotations

import platform
import shutil

import trio

from loopal_cluster import AgentContext


async def survey(ctx: AgentContext, prompt: str) -> str:
    """Where in the cluster is this program? One line a hub."""
    with trio.fail_after(30):
        async with ctx.open_agents() as agents:
            lookers = {
                hub.name: await agents.spawn("look", prompt, hub=hub.name)
                for hub in await ctx.list_hubs()
                if "look" in hub.agent_types
            }
    return "\n".join([f"{hub:10} {await agent.result()}" for hub, agent in sorted(lookers.items())])


async def look(ctx: AgentContext, prompt: str) -> str:
    """Where on this machine is it?"""
    where = await trio.to_thread.run_sync(shutil.which, prompt.strip())
    return f"{where or 'not here'} ({platform.system()}, Python {platform.python_version()})"
