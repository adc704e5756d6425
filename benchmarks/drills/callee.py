"""The drills about one caller and one callee: it is not there, it freezes and dies, it comes back.

The caller is a client of ``hub-a``, the callee an agent on ``hub-b``, and the MetaHub is between them.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Awaitable, Callable

import trio
from attrs import evolve

from benchmarks.drills.findings import Drill, DrillFailed, Findings, Time
from benchmarks.drills.ledger import TOO_SLOW, Ledger, answer_to
from benchmarks.drills.processes import Site
from loopal_cluster import AgentHandle, Client

__all__ = ["DRILLS"]

ROUNDS = 20
DEADLINE = 0.5
"""The deadline of a caller, in seconds."""
SLACK = 0.1
"""A deadline that is kept to so many seconds is kept."""


# Nobody there.


async def nobody_there(site: Site) -> Findings:
    """Ask for agents, types and hubs that do not exist."""
    await site.start_cluster("hub-a", "hub-b")
    async with site.connect("hub-a") as client:
        requests: dict[str, tuple[Callable[[], Awaitable[object]], str]] = {
            "message": (lambda: client.send("hub-b/nobody", "hello"), "agent_not_found"),
            "message to a bare name": (lambda: client.send("nobody", "hello"), "agent_not_found"),
            "ask": (lambda: client.ask("hub-b/nobody", "hello"), "agent_not_found"),
            "wait": (lambda: client.wait("hub-b/nobody"), "agent_not_found"),
            "cancel": (lambda: client.cancel("hub-b/nobody"), "agent_not_found"),
            "message to no hub": (lambda: client.send("nowhere/nobody", "hello"), "hub_not_connected"),
            "spawn on no hub": (lambda: client.spawn("note", hub="nowhere"), "hub_not_connected"),
            "spawn of no type": (lambda: client.spawn("nothing", hub="hub-b"), "unknown_agent_type"),
        }
        times = []
        for what, (request, wanted) in requests.items():
            times.append(await _slowest(what, request, wanted))
        site.say(f"{len(requests) * ROUNDS} requests for what does not exist, all refused")
    slowest = max(time.seconds for time in times)
    return Findings(Time("the slowest typed error", slowest, 0.05), times=tuple(times))


async def _slowest(what: str, request: Callable[[], Awaitable[object]], wanted: str) -> Time:
    seconds = 0.0
    for _ in range(ROUNDS):
        asked_at = trio.current_time()
        answer = await answer_to(request)
        seconds = max(seconds, trio.current_time() - asked_at)
        if answer != wanted:
            raise DrillFailed(f"{what}: answered {answer}, wanted {wanted}")
    return Time(what, seconds, 0.05)


# Frozen, then killed.


async def callee_killed(site: Site) -> Findings:
    """Freeze the callee's process, then kill it."""
    await site.start_cluster("hub-a", "hub-b")
    async with site.connect("hub-a") as client:
        callee = await client.spawn("process-desk", hub="hub-b")
        (pid,) = site.processes("agents:desk")

        def kill() -> None:
            os.kill(pid, signal.SIGKILL)

        os.kill(pid, signal.SIGSTOP)
        site.say("the callee is frozen")
        meanwhile = await _neighbour(client)
        # Its hub has seen it end: it knows that there is no result, hence it has failed and is not lost.
        findings = await _frozen_then_killed(site, client, callee, kill, outcome="AgentFailed")
        return evolve(findings, times=(*findings.times, meanwhile))


async def callees_hub_killed(site: Site) -> Findings:
    """Freeze the callee's hub, then kill it."""
    await site.start_cluster("hub-a", "hub-b")
    async with site.connect("hub-a") as client:
        callee = await client.spawn("process-desk", hub="hub-b")
        hub = site.programs["hub-b"]
        hub.freeze()
        site.say("the callee's hub is frozen")
        return await _frozen_then_killed(site, client, callee, hub.process.kill, outcome="AgentLost")


async def _frozen_then_killed(
    site: Site, client: Client, callee: AgentHandle, kill: Callable[[], None], *, outcome: str
) -> Findings:
    """See that deadlines work and nobody else notices; kill, and see who is told what."""
    ledger = Ledger()
    deadlines = [
        await _deadline("a message", lambda: callee.send("hello")),
        await _deadline("an ask", lambda: callee.ask("hello")),
        await _deadline("a wait", callee.result),
    ]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ledger.ask, "wait", callee.result)
        nursery.start_soon(ledger.ask, "ask", lambda: callee.ask("hello"))
        nursery.start_soon(ledger.ask, "message", lambda: callee.send("hello"))
        await trio.sleep(0.2)  # all are on their way
        kill()
        killed_at = trio.current_time()
        nursery.cancel_scope.deadline = killed_at + 10
    told = trio.current_time() - killed_at
    site.say(f"killed; its callers know after {told:.3f} s: {ledger.answers}")
    for what, wanted in (("wait", outcome), ("ask", "AgentLost")):
        if ledger.answers[what] not in (wanted, None):
            raise DrillFailed(f"the {what} ended with {ledger.answers[what]}, wanted {wanted}")
    return Findings(
        Time(f"from the kill to {outcome}", told, 1.0),
        times=tuple(deadlines),
        lost=ledger.open,
        counts=ledger.counts(),
    )


async def _neighbour(client: Client) -> Time:
    """See that another agent of the same hub is none the worse for it."""
    asked_at = trio.current_time()
    await (await client.spawn("note", "meanwhile", hub="hub-b")).result()
    return Time("another agent of the same hub, meanwhile", trio.current_time() - asked_at, 0.5)


async def _deadline(what: str, request: Callable[[], Awaitable[object]]) -> Time:
    """See that a caller's deadline holds although nobody answers."""
    asked_at = trio.current_time()
    with trio.move_on_after(DEADLINE):
        answer = await answer_to(request)
        if answer != TOO_SLOW:  # an ask's own, if its hub is a little earlier than we are
            raise DrillFailed(f"{what} to somebody frozen was answered: {answer}")
    return Time(f"a deadline of {DEADLINE:g} s for {what}", trio.current_time() - asked_at, DEADLINE + SLACK)


# Restarted.


async def callee_restarted(site: Site) -> Findings:
    """Kill the callee's hub, start it again, and go on with the same client and the same address."""
    await site.start_cluster("hub-a", "hub-b")
    async with site.connect("hub-a") as client:
        await client.spawn("desk", hub="hub-b", name="callee")
        await client.ask("hub-b/callee", "before")
        await site.programs["hub-b"].kill()
        await site.start_hub("hub-b")
        ready_at = trio.current_time()
        site.say("the callee's hub was killed and is back")
        callee = await client.spawn("desk", hub="hub-b", name="callee")
        await client.ask("hub-b/callee", "after")
        works = trio.current_time() - ready_at
        await callee.cancel()
        journal = site.journal()
    return Findings(
        recovery=Time("from the hub's being back to the reply of the new callee", works, 1.0),
        lost=2 - len(set(journal)),
        doubled=len(journal) - len(set(journal)),
    )


DRILLS = (
    Drill("nobody-there", "messages, waits and spawns for what does not exist", nobody_there),
    Drill("callee-killed", "an agent's process is frozen, then killed", callee_killed),
    Drill("callees-hub-killed", "an agent's hub is frozen, then killed", callees_hub_killed),
    Drill("callee-restarted", "an agent's hub is killed and started again", callee_restarted),
)
