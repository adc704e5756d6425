"""The drills about owners: a parent dies, or its hub does, and its children on other hubs must not run on."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import trio

from benchmarks.drills.family import agents_left, await_end, start_family
from benchmarks.drills.findings import Drill, Findings, Time
from benchmarks.drills.processes import Site

__all__ = ["DRILLS"]

CHILDREN = 25
"""On each of two hubs; a child is a process group of two."""


async def parent_killed(site: Site) -> Findings:
    """Kill the process of the parent."""

    def kill() -> None:
        (pid,) = site.processes("agents:boss")
        os.kill(pid, signal.SIGKILL)

    return await _orphaned(site, kill)


async def parents_hub_killed(site: Site) -> Findings:
    """Kill the hub of the parent."""

    def kill() -> None:
        site.programs["hub-a"].process.kill()

    return await _orphaned(site, kill)


async def _orphaned(site: Site, kill: Callable[[], None]) -> Findings:
    await site.start_cluster("hub-a", "hub-b", "hub-c")
    async with site.connect("hub-a") as client:
        children = await start_family(site, client, CHILDREN, "hub-b", "hub-c")
        killed_at = trio.current_time()
        kill()
        left = await await_end(children)
        took = trio.current_time() - killed_at
        site.say(f"killed; after {took:.3f} s, {left} of {len(children)} processes are left")
    for hub in ("hub-b", "hub-c"):
        async with site.connect(hub) as client:
            left += await agents_left(client)
    return Findings(
        recovery=Time("from the kill until no child's process group is left", took, 3.0),
        left=left,
        counts={"children": 2 * CHILDREN, "processes": len(children)},
    )


DRILLS = (
    Drill("parent-killed", "an agent with 50 children on two other hubs is killed", parent_killed),
    Drill("parents-hub-killed", "its hub is killed", parents_hub_killed),
)
