"""The agents of the drills. What they do is a line in the journal, which the drill counts."""

from __future__ import annotations

import os

import trio

from loopal_cluster import AgentContext, Received

JOURNAL = "LOOPAL_DRILL_JOURNAL"
"""The environment variable with the journal's path."""
UP = "boss: all are up"


async def desk(ctx: AgentContext, prompt: str) -> None:
    """Write down every message, and every ask as its reply: at once, or after the seconds it begins with."""
    await ctx.serve(answer)


async def answer(received: Received) -> str:
    """Do what a message or an ask says."""
    seconds, _, key = received.text.rpartition(" ")
    await trio.sleep(float(seconds or 0))
    write_down(key)
    return key


async def note(ctx: AgentContext, prompt: str) -> str:
    """Write the prompt down, and end."""
    write_down(prompt)
    await trio.lowlevel.checkpoint()
    return prompt


async def nap(ctx: AgentContext, prompt: str) -> str:
    """Sleep so many seconds, write down the rest of the prompt, and end."""
    seconds, _, key = prompt.partition(" ")
    await trio.sleep(float(seconds))
    write_down(key)
    return key


async def boss(ctx: AgentContext, prompt: str) -> None:
    """Spawn so many sleepers on each of the hubs, write down that they are up, and live on."""
    count, *hubs = prompt.split()
    for hub in hubs:
        for number in range(int(count)):
            await ctx.spawn("sleeper", hub=hub, name=f"sleeper-{number}")
    write_down(UP)
    await trio.sleep_forever()


def write_down(key: str) -> None:
    """Append a line to the journal: in one write, so that lines of many processes do not mix."""
    journal = os.open(os.environ[JOURNAL], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(journal, f"{key}\n".encode())
    finally:
        os.close(journal)
