"""The drills about the MetaHub: it is killed with requests in flight, and is back on its port after 2 s.

Callers are clients of ``hub-a``; the work is done on ``hub-b``, and the journal says how often.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from itertools import cycle

import trio

from benchmarks.drills.family import agents_left
from benchmarks.drills.findings import Drill, DrillFailed, Findings, Time
from benchmarks.drills.ledger import Ledger
from benchmarks.drills.processes import Site, until
from loopal_cluster import Client
from loopal_cluster.outcomes import unwrap

__all__ = ["DRILLS"]

AWAY = 2.0
"""Seconds between the kill and the restart."""
ANSWER_TIMEOUT = 40.0
"""For all answers: the product's own ``call_timeout``, and ample time."""
SETTLE_TIMEOUT = 5.0
"""For what was answered to be in the journal."""


async def message(client: Client, key: str) -> None:
    """A message with a receipt."""
    await client.send("hub-b/desk", key)


async def spawn(client: Client, key: str) -> None:
    """A spawn and its result."""
    await (await client.spawn("note", key, hub="hub-b")).result()


async def wait(client: Client, key: str) -> None:
    """A wait for an agent that ends before, while or after the MetaHub is away."""
    unwrap(key, await client.wait(f"hub-b/{key}"))


async def ask(client: Client, key: str) -> None:
    """An ask whose reply is due at once, or in one to four seconds."""
    seconds = int(key.rpartition("-")[2]) % 5
    if (reply := await client.ask("hub-b/desk", f"{seconds} {key}")) != key:
        raise DrillFailed(f"{key} got the reply to {reply}")


Work = Callable[[Client, str], Awaitable[None]]
KINDS: tuple[Work, ...] = (message, ask, spawn, wait)


async def meta_hub_killed(site: Site, count: int, *, kinds: Sequence[Work] = KINDS) -> Findings:
    """Make requests of these kinds in turn, kill the MetaHub when some are answered, and start it again."""
    work = {f"{kind.__name__}-{number}": kind for number, kind in zip(range(count), cycle(kinds))}
    meta_hub = await site.start_cluster("hub-a", "hub-b")
    ledger = Ledger()
    async with site.connect("hub-a") as client, site.connect("hub-b") as there:
        await there.spawn("desk", name="desk")
        await _start_nappers(there, [key for key, kind in work.items() if kind is wait])
        async with trio.open_nursery() as nursery:
            for key, request in work.items():
                nursery.start_soon(ledger.ask, key, partial(request, client, key))
            await until(lambda: ledger.answered >= count / 10)
            await meta_hub.kill()
            in_flight = ledger.open
            site.say(f"the MetaHub is killed, {in_flight} of {count} requests are in flight")
            await trio.sleep(AWAY)
            await site.start_meta_hub()
            back_at = trio.current_time()
            nursery.cancel_scope.deadline = back_at + ANSWER_TIMEOUT
            works = await _works(client) - back_at
            site.say(f"the MetaHub is back; a spawn over it had its result after {works:.3f} s")
        answered = trio.current_time() - back_at
        with trio.move_on_after(SETTLE_TIMEOUT):
            await until(lambda: not ledger.missing(site.journal()))
        left = await agents_left(there, wanted=1)
    balance = ledger.balance(site.journal())
    return Findings(
        recovery=Time("from the MetaHub's being back to the result of a new spawn over it", works, 1.0),
        times=(Time("to the last answer", answered, ANSWER_TIMEOUT),),
        lost=balance.lost,
        doubled=balance.doubled,
        left=left,
        counts={"in flight at the kill": in_flight} | ledger.counts(),
    )


async def _works(client: Client) -> float:
    """When something new has come to its end."""
    with trio.fail_after(ANSWER_TIMEOUT / 2):
        await spawn(client, "probe")
    return trio.current_time()


async def _start_nappers(there: Client, keys: Sequence[str]) -> None:
    """Start the agents that will be waited for; they end one after the other, for five seconds."""
    for number, key in enumerate(keys):
        await there.spawn("nap", f"{0.5 + 5 * number / len(keys)} {key}", name=key)


DRILLS = (
    Drill(
        "coordinator-killed",
        "the MetaHub is killed with 30 requests in flight, and is back 2 s later",
        partial(meta_hub_killed, count=30),
    ),
    Drill(
        "coordinator-killed-1000",
        "the same with 1,000 messages, asks, spawns and waits",
        partial(meta_hub_killed, count=1000),
    ),
    Drill(
        "coordinator-killed-asks",
        "the same with 1,000 asks",
        partial(meta_hub_killed, count=1000, kinds=(ask,)),
    ),
)
