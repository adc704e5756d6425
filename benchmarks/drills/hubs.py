"""The drills about a hub that others wait for: it is killed, or frozen for longer than it may be silent.

The agents on ``hub-b`` are children of an agent on ``hub-a``; the waiters are anywhere.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial

import trio

from benchmarks.drills.family import await_end, start_family
from benchmarks.drills.findings import Drill, DrillFailed, Findings, Time
from benchmarks.drills.ledger import NO_ANSWER, Ledger
from benchmarks.drills.processes import Site
from loopal_cluster import Client
from loopal_cluster.links.client import EventStream
from loopal_cluster.outcomes import unwrap
from loopal_cluster.payloads import HubGone, HubJoined

__all__ = ["DRILLS", "FAST", "FAST_SETTINGS", "LOST_TIMEOUT", "seen"]

WAITERS = 200
AGENTS = 20
ANSWER_TIMEOUT = 20.0
"""For every waiter to be told."""
UNDER_WAY = 0.5
"""For the waits to have reached the hub that is going to die."""
TRUE = {"AgentLost", NO_ANSWER}
"""What a waiter may be told. No answer is counted."""

LOST_TIMEOUT = 2.0
FAST = ("--heartbeat-interval", "0.5", "--suspect-timeout", "1", "--lost-timeout", f"{LOST_TIMEOUT:g}")
FAST_SETTINGS = f"a silent hub is lost after {LOST_TIMEOUT:g} s"
"""Options of a MetaHub that gives up a silent hub soon, and what they mean."""


async def hub_killed(site: Site) -> Findings:
    """Kill the hub, see who is told what, and give its name to a new one."""
    await site.start_cluster("hub-a", "hub-b", "hub-c")
    async with (
        site.connect("metahub") as observer,
        site.connect("hub-a") as near,
        site.connect("hub-c") as far,
    ):
        children = await start_family(site, near, AGENTS, "hub-b")
        events = await observer.subscribe()
        async with _waiters([near, far, observer]) as ledger:
            killed_at = await site.programs["hub-b"].kill()
            gone = await seen(events, HubGone) - killed_at
        told = trio.current_time() - killed_at
        site.say(f"hub-b is killed; lost after {gone:.3f} s, and all know after {told:.3f} s")
        started_at = trio.current_time()
        await site.start_hub("hub-b")
        works = await _works(near) - started_at
        left = await await_end(children)
    return Findings(
        detection=Time("from the kill until the MetaHub says that the hub is lost", gone, 1.0),
        recovery=Time("a new hub of the same name: from its start to a result", works, 5.0),
        times=(Time("from then until the last waiter knows", told - gone, 1.0),),
        lost=ledger.open,
        left=left,
        counts=ledger.counts(),
    )


async def hub_frozen(site: Site) -> Findings:
    """Freeze the hub until it has been given up, thaw it, and see that it ends what nobody wants."""
    await site.start_cluster("hub-a", "hub-b", "hub-c", options=FAST)
    async with (
        site.connect("metahub") as observer,
        site.connect("hub-a") as near,
        site.connect("hub-c") as far,
    ):
        children = await start_family(site, near, AGENTS, "hub-b")
        events = await observer.subscribe()
        hub = site.programs["hub-b"]
        async with _waiters([near, far, observer]) as ledger:
            hub.freeze()
            frozen_at = trio.current_time()
            gone = await seen(events, HubGone) - frozen_at
        told = trio.current_time() - frozen_at
        site.say(f"hub-b is frozen; lost after {gone:.3f} s, and all know after {told:.3f} s")
        hub.thaw()
        thawed_at = trio.current_time()
        back = await seen(events, HubJoined) - thawed_at
        left = await await_end(children)
        ended = trio.current_time() - thawed_at
        await _works(near)
        site.say(f"it goes on; joined after {back:.3f} s, {left} processes left after {ended:.3f} s")
    return Findings(
        detection=Time(
            "from the freeze until the MetaHub says that the hub is lost", gone, LOST_TIMEOUT + 0.6
        ),
        recovery=Time("from the thaw until the agents that were given up are gone", ended, 3.0),
        times=(
            Time("from its being lost until the last waiter knows", told - gone, 1.0),
            Time("from the thaw until it has joined again", back, 1.0),
        ),
        lost=ledger.open,
        left=left,
        counts=ledger.counts(),
    )


@asynccontextmanager
async def _waiters(clients: Sequence[Client]) -> AsyncIterator[Ledger]:
    """Let 200 requests wait for the agents; the block ends when all are answered, or too late."""
    ledger = Ledger()
    async with trio.open_nursery() as nursery:
        for number in range(WAITERS):
            client = clients[number % len(clients)]
            wait = partial(_result, client, f"hub-b/sleeper-{number % AGENTS}")
            nursery.start_soon(ledger.ask, f"wait-{number}", wait)
        await trio.sleep(UNDER_WAY)
        if ledger.answered:
            raise DrillFailed(f"waiters were answered before anything happened: {ledger.counts()}")
        yield ledger
        nursery.cancel_scope.deadline = trio.current_time() + ANSWER_TIMEOUT
    if false := ledger.counts().keys() - TRUE:
        raise DrillFailed(f"waiters were told {', '.join(false)}")


async def _result(client: Client, agent: str) -> None:
    unwrap(agent, await client.wait(agent))


async def seen(events: EventStream, what: type[HubGone | HubJoined]) -> float:
    """When the MetaHub says this of a hub."""
    with trio.fail_after(ANSWER_TIMEOUT):
        async for event in events:
            if isinstance(event.payload, what):
                return trio.current_time()
    raise AssertionError("the connection to the MetaHub has ended")


async def _works(client: Client) -> float:
    """When the hub has run an agent to its end."""
    await (await client.spawn("note", "works", hub="hub-b")).result()
    return trio.current_time()


DRILLS = (
    Drill(
        "hub-killed",
        "a hub is killed with 200 waiters on its agents, on two other hubs and the MetaHub",
        hub_killed,
    ),
    Drill(
        "hub-frozen",
        "a hub is frozen until it is given up, and goes on",
        hub_frozen,
        FAST_SETTINGS,
    ),
)
