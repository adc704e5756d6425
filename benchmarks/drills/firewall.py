"""The drill about a client's flow that a firewall drops: nobody is told, and both sides are to know it all the same.

The client's commands run in a network namespace of their own, and the MetaHub listens on the other end of its
cable. Then the namespace drops every packet, in and out. Nothing of the rest of the machine is touched.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import trio
from attrs import frozen

from benchmarks.drills.findings import Drill, DrillFailed, DrillSkipped, Findings, Time
from benchmarks.drills.processes import Site, until
from loopal_cluster import Client
from loopal_cluster.outcomes import Cancelled

__all__ = ["DRILLS"]

KNOWN_WITHIN = 60.0
"""For both sides to know that the flow is gone."""
UP_WITHIN = 20.0
"""For the commands to start, on a loaded machine."""
UNREACHABLE = 4
"""The exit status of a command whose connection was lost."""


async def dropped(site: Site) -> Findings:
    """Three commands over one cable: a spawn that waits, a wait, and a follower."""
    async with _open_namespace() as network:
        site.address = f"{network.here}:0"
        await site.start_meta_hub()
        await site.start_hub("hub-a")
        async with site.connect("metahub") as near, trio.open_nursery() as nursery:
            await near.spawn("nap", "600", hub="hub-a", name="watched", detached=True)
            ended: dict[str, tuple[int, float]] = {}

            async def run(*words: str) -> None:
                status = await network.run(site, *words)
                ended[words[0]] = status, trio.current_time()
                site.say(f"{words[0]} has ended with status {status}")

            nursery.start_soon(run, "spawn", "--wait", "--hub", "hub-a", "--name", "owned", "nap", "600")
            nursery.start_soon(run, "wait", "hub-a/watched")
            nursery.start_soon(run, "events", "--follow")
            with trio.fail_after(UP_WITHIN):
                while "owned" not in await _agents(near):  # noqa: ASYNC110
                    await trio.sleep(0.1)
            await trio.sleep(3.0)  # for the other two to be connected
            site.say("the firewall drops everything from now on")
            await network.drop()
            dropped_at = trio.current_time()
            outcome = await near.wait("hub-a/owned")
            owned = trio.current_time() - dropped_at
            site.say(f"the agent of the vanished client has ended: {outcome}")
            nursery.cancel_scope.deadline = dropped_at + KNOWN_WITHIN + 10
            await until(lambda: len(ended) == 3)
    if not isinstance(outcome, Cancelled):
        raise DrillFailed(f"the agent that the client owned: {outcome}")
    if {status for status, _ in ended.values()} != {UNREACHABLE}:
        raise DrillFailed(f"the commands ended with {ended}")
    told = max(at for _, at in ended.values()) - dropped_at
    return Findings(
        Time("from the drop until all three commands have ended, saying so", told, KNOWN_WITHIN),
        Time("from the drop until what the client owned has ended", owned, KNOWN_WITHIN),
    )


async def _agents(client: Client) -> set[str]:
    parts = [part.topology for part in await client.topology() if part.topology is not None]
    return {node.name for topology in parts for node in topology.agents}


@frozen
class _Network:
    """A namespace at the other end of a cable."""

    name: str
    here: str
    """Our address on the cable."""

    async def run(self, site: Site, *words: str) -> int:
        """Run a command in there; return its exit status."""
        done = await trio.run_process(
            [*self._within, sys.executable, "-m", "loopal_cluster", *words, "--connect", site.address],
            env=site.environment(),
            stdin=b"",
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )
        site.say(f"{words[0]}: {done.stderr.decode(errors='replace').strip()[-200:]}")
        return done.returncode

    async def drop(self) -> None:
        """Let no packet in or out any more, and tell nobody."""
        for chain in ("INPUT", "OUTPUT"):
            await _do(*self._within, "iptables", "-A", chain, "-j", "DROP")

    @property
    def _within(self) -> tuple[str, ...]:
        return ("ip", "netns", "exec", self.name)


@asynccontextmanager
async def _open_namespace() -> AsyncIterator[_Network]:
    """A namespace with a cable to here, for the block.

    Raises:
        DrillSkipped: this system, or our rights, do not allow that.
    """
    number = os.getpid() % 250
    name, here, there = f"drill-{os.getpid()}", f"10.213.{number}.1", f"10.213.{number}.2"
    cable = (f"dr{os.getpid()}a", f"dr{os.getpid()}b")
    within = ("ip", "netns", "exec", name)
    try:
        try:
            await _do("ip", "netns", "add", name)
            await _do(*within, "iptables", "-L")
            await _do("ip", "link", "add", cable[0], "type", "veth", "peer", "name", cable[1])
            await _do("ip", "link", "set", cable[1], "netns", name)
            await _do("ip", "addr", "add", f"{here}/24", "dev", cable[0])
            await _do("ip", "link", "set", cable[0], "up")
            await _do(*within, "ip", "addr", "add", f"{there}/24", "dev", cable[1])
            await _do(*within, "ip", "link", "set", cable[1], "up")
        except (OSError, subprocess.CalledProcessError) as error:
            raise DrillSkipped(f"no network namespace with a firewall can be made here: {error}") from error
        yield _Network(name, here)
    finally:
        with trio.CancelScope(shield=True):
            await _try("ip", "link", "del", cable[0])
            await _try("ip", "netns", "del", name)


async def _do(*command: str) -> None:
    await trio.run_process(command, capture_stdout=True, capture_stderr=True)


async def _try(*command: str) -> None:
    with suppress(OSError):  # there is no such program, and so nothing to undo
        await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False)


DRILLS = (Drill("flow-dropped", "a firewall drops a client's flow, without a FIN or a RST", dropped),)
