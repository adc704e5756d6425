"""The drills about the network: a hub is cut off for 30 seconds without a FIN, while messages go both ways.

``hub-b`` reaches the MetaHub through a proxy, which stops. Half of the messages are for it, half from it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial

import trio
from attrs import frozen

from benchmarks.drills.findings import Drill, Findings, Time
from benchmarks.drills.hubs import FAST, FAST_SETTINGS, LOST_TIMEOUT, seen
from benchmarks.drills.ledger import DONE, Ledger, answer_to
from benchmarks.drills.processes import Site, until
from benchmarks.drills.proxy import Proxy, open_proxy
from loopal_cluster import Client
from loopal_cluster.payloads import HubGone

__all__ = ["DRILLS"]

MESSAGES = 1000
CUT_AT, HEALED_AT, LAST_AT = 1.0, 31.0, 32.0
"""Seconds after the first message: of the cut, its end, and the last message."""
ANSWER_TIMEOUT = 40.0
"""For the last answer: the product's ``call_timeout``, and ample time."""
WORKS_TIMEOUT = 15.0
"""For a direction to work again after the healing."""
SETTLE_TIMEOUT = 5.0
"""For what was answered to be in the journal."""


@frozen
class _Link:
    """Messages in one direction."""

    client: Client
    target: str

    async def send(self, key: str) -> None:
        await self.client.send(self.target, key)

    async def works(self) -> None:
        """Return when a message has been accepted again."""
        with trio.fail_after(WORKS_TIMEOUT):
            while await answer_to(partial(self.send, "probe")) != DONE:  # noqa: ASYNC110
                await trio.sleep(0.02)


async def patient(site: Site) -> Findings:
    """With the defaults a hub may be silent for so long: nobody is given up."""
    async with _cut_cluster(site) as (proxy, links, _):
        ledger, recovery, _ = await _send_all(site, proxy, links)
    return _findings(site, ledger, recovery)


async def impatient(site: Site) -> Findings:
    """With short times the hub is given up after two seconds, and comes back."""
    async with _cut_cluster(site, *FAST) as (proxy, links, observer):
        events = await observer.subscribe()
        gone_at = 0.0

        async def watch() -> None:
            nonlocal gone_at
            gone_at = await seen(events, HubGone)
            site.say("the MetaHub has given up hub-b")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            ledger, recovery, cut_at = await _send_all(site, proxy, links)
            nursery.cancel_scope.cancel()
    meaning = "from the cut until the MetaHub says that the hub is lost"
    return _findings(site, ledger, recovery, Time(meaning, gone_at - cut_at, LOST_TIMEOUT + 0.6))


def _findings(site: Site, ledger: Ledger, recovery: Time, detection: Time | None = None) -> Findings:
    balance = ledger.balance(site.journal())
    return Findings(detection, recovery, lost=balance.lost, doubled=balance.doubled, counts=ledger.counts())


@asynccontextmanager
async def _cut_cluster(site: Site, *options: str) -> AsyncIterator[tuple[Proxy, Sequence[_Link], Client]]:
    """Two hubs, one of them behind a proxy; a link in each direction, and a client of the MetaHub."""
    await site.start_meta_hub(*options)
    async with open_proxy(site.address) as proxy:
        await site.start_hub("hub-a")
        await site.start_hub("hub-b", join=proxy.address)
        site.say("a MetaHub and 2 hubs are up, hub-b behind a proxy")
        async with (
            site.connect("hub-a") as near,
            site.connect("hub-b") as far,
            site.connect("metahub") as observer,
        ):
            await near.spawn("desk", name="desk")
            await far.spawn("desk", name="desk")
            yield proxy, (_Link(near, "hub-b/desk"), _Link(far, "hub-a/desk")), observer


async def _send_all(site: Site, proxy: Proxy, links: Sequence[_Link]) -> tuple[Ledger, Time, float]:
    """Send the messages evenly, cut and heal; return the answers, the recovery, and the time of the cut."""
    ledger, began_at = Ledger(), trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_send_evenly, nursery, ledger, links, began_at)
        await trio.sleep_until(began_at + CUT_AT)
        proxy.cut()
        cut_at = trio.current_time()
        site.say("hub-b is cut off")
        await trio.sleep_until(began_at + HEALED_AT)
        site.say(f"the network heals; {ledger.open} messages are in flight, so far {ledger.counts()}")
        proxy.heal()
        healed_at = trio.current_time()
        nursery.cancel_scope.deadline = healed_at + ANSWER_TIMEOUT
        for link in links:
            await link.works()
        works = trio.current_time() - healed_at
    site.say(f"all are answered: {ledger.counts()}")
    with trio.move_on_after(SETTLE_TIMEOUT):
        await until(lambda: not ledger.missing(site.journal()))
    meaning = "from the healing until messages are accepted in both directions"
    return ledger, Time(meaning, works, 1.0), cut_at


async def _send_evenly(
    nursery: trio.Nursery, ledger: Ledger, links: Sequence[_Link], began_at: float
) -> None:
    for number in range(MESSAGES):
        key, link = f"message-{number}", links[number % len(links)]
        nursery.start_soon(ledger.ask, key, partial(link.send, key))
        await trio.sleep_until(began_at + LAST_AT * number / MESSAGES)


DRILLS = (
    Drill("partition", "a hub is cut off for 30 s without a FIN, during 1,000 messages both ways", patient),
    Drill("partition-given-up", "the same, with a MetaHub that gives the hub up", impatient, FAST_SETTINGS),
)
