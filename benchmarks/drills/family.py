"""A parent in a process of its own, and its children on other hubs, whose processes are known by their ids."""

from __future__ import annotations

from collections.abc import Set as AbstractSet

import trio

from benchmarks.drills.agents import UP
from benchmarks.drills.processes import START_TIMEOUT, Site, is_alive, until
from loopal_cluster import Client

__all__ = ["agents_left", "await_end", "start_family"]

END_TIMEOUT = 10.0
"""What runs on for longer is left running. A sleeper ends at SIGTERM; one that does not is killed in 7.5 s."""


async def start_family(site: Site, client: Client, count: int, *hubs: str) -> frozenset[int]:
    """Start the agent ``boss`` with so many children on each hub; return the children's processes."""
    await client.spawn("boss", f"{count} {' '.join(hubs)}", name="boss")
    with trio.fail_after(START_TIMEOUT):
        await until(lambda: UP in site.journal())
        await until(lambda: len(site.processes("sleep 600")) == 2 * count * len(hubs))
    site.say(f"a parent and {count} children on each of {', '.join(hubs)} are up")
    return frozenset(site.processes("sleep 600"))


async def await_end(pids: AbstractSet[int]) -> int:
    """Wait until processes have ended; return how many have not."""
    with trio.move_on_after(END_TIMEOUT):
        await until(lambda: not any(is_alive(pid) for pid in pids))
    return sum(is_alive(pid) for pid in pids)


async def agents_left(client: Client, *, wanted: int = 0) -> int:
    """Wait until a hub has no more agents than it should; return how many more it has."""
    count = 0
    with trio.move_on_after(END_TIMEOUT):
        while (count := len(await client.local_agents())) > wanted:  # noqa: ASYNC110
            await trio.sleep(0.05)
    return count - wanted
