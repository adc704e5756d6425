"""Whatever breaks between hub and MetaHub, and at whatever moment: once in effect, and answered."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
from attrs import define, field

from loopal_cluster import AgentContext, Client, Done, Hub, MetaHub, Timeouts, open_hub, open_meta_hub
from loopal_cluster.links.channels import FrameChannel
from loopal_cluster.testing import byte_pair, record_pair

TOKEN = "the-token"

MOMENTS = range(12)
"""Scheduler ticks between asking and breaking; a question and its answer take about ten."""


@define
class Yard:
    """Two hubs, and a MetaHub that can be cut off and restarted."""

    meta_hub: MetaHub | None = None
    received: Counter[str] = field(factory=Counter)
    started: Counter[str] = field(factory=Counter)
    may_end: trio.Event = field(factory=trio.Event)
    hubs: dict[str, Hub] = field(factory=dict)
    links: dict[str, FrameChannel] = field(factory=dict)
    pair: Callable[[], tuple[FrameChannel, FrameChannel]] = record_pair

    async def listen(self, ctx: AgentContext, prompt: str) -> None:
        while True:
            self.received[(await ctx.receive()).text] += 1

    async def work(self, ctx: AgentContext, prompt: str) -> str:
        self.started[ctx.name] += 1
        await self.may_end.wait()
        return "done"

    async def dial(self, hub: str) -> FrameChannel:
        ours, theirs = self.pair()
        self.links[hub] = ours
        self.meta_hub.attach(theirs)
        return ours

    async def cut(self, hub: str) -> None:
        await trio.aclose_forcefully(self.links[hub])

    async def restart(self, another: MetaHub) -> None:
        """Let a MetaHub that knows nothing take the place of the one that was there."""
        self.meta_hub = another
        for link in list(self.links.values()):
            await trio.aclose_forcefully(link)


@asynccontextmanager
async def open_yard(**options) -> AsyncIterator[Yard]:
    async with open_meta_hub(None, token=TOKEN) as meta_hub:
        yard = Yard(meta_hub, **options)
        common: dict[str, Any] = {"agents": {"listen": yard.listen, "work": yard.work}, "meta_token": TOKEN}
        async with (
            open_hub("hub-a", join=partial(yard.dial, "hub-a"), **common) as near,
            open_hub("hub-b", join=partial(yard.dial, "hub-b"), **common) as far,
        ):
            yard.hubs = {"hub-a": near, "hub-b": far}
            await trio.sleep(0.01)  # a hub that comes in the millisecond of a request may have come after it
            yield yard


async def ticks(count: int) -> None:
    for _ in range(count):
        await trio.lowlevel.checkpoint()


async def break_as(how: str, yard: Yard, another: MetaHub) -> None:
    if how == "restart":
        await yard.restart(another)
    else:
        await yard.cut(how)


BREAKS = pytest.mark.parametrize("how", ["hub-a", "hub-b", "restart"])


@BREAKS
@pytest.mark.parametrize("pair", [record_pair, byte_pair])
async def test_a_message_in_flight_is_delivered_once_and_answered_whatever_breaks_and_when(
    how, pair, autojump_clock
):
    for moment in MOMENTS:
        async with (
            open_meta_hub(None, token=TOKEN) as another,
            open_yard(pair=pair) as yard,
            yard.hubs["hub-a"].open_client() as client,
            yard.hubs["hub-b"].open_client() as far,
        ):
            await far.spawn("listen", name="ear")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.send, "hub-b/ear", "hello")  # which raises, were it not accepted
                await ticks(moment)
                await break_as(how, yard, another)
            await client.send("hub-b/ear", "and again")

            assert yard.received == {"hello": 1, "and again": 1}, moment


@BREAKS
async def test_a_spawn_in_flight_happens_once_whatever_breaks_and_when(how, autojump_clock):
    for moment in MOMENTS:
        async with (
            open_meta_hub(None, token=TOKEN) as another,
            open_yard() as yard,
            yard.hubs["hub-a"].open_client() as client,
        ):
            results: list[str] = []
            async with trio.open_nursery() as nursery:
                nursery.start_soon(spawn_child, client, yard, results)
                await ticks(moment)
                await break_as(how, yard, another)

            assert (results, yard.started) == (["done"], {"child": 1}), moment
            assert len(yard.hubs["hub-a"].core.agents) == len(yard.hubs["hub-b"].core.agents) == 0


async def spawn_child(client: Client, yard: Yard, results: list[str]) -> None:
    child = await client.spawn("work", hub="hub-b", name="child")
    yard.may_end.set()
    results.append(await child.result())


@BREAKS
async def test_a_wait_for_an_agent_elsewhere_gets_its_outcome_whatever_breaks(how, autojump_clock):
    async with (
        open_meta_hub(None, token=TOKEN) as another,
        open_yard() as yard,
        yard.hubs["hub-a"].open_client() as client,
        yard.hubs["hub-b"].open_client() as far,
    ):
        await far.spawn("work", name="worker")
        outcomes = []
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def wait() -> None:
                outcomes.append(await client.wait("hub-b/worker"))

            await trio.sleep(0.1)
            await break_as(how, yard, another)
            yard.may_end.set()

        assert outcomes == [Done("done")]


@BREAKS
async def test_a_cancel_in_flight_is_answered_whatever_breaks_and_when(how, autojump_clock):
    for moment in MOMENTS:
        async with (
            open_meta_hub(None, token=TOKEN) as another,
            open_yard() as yard,
            yard.hubs["hub-a"].open_client() as client,
        ):
            child = await client.spawn("work", hub="hub-b", name="child")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(child.cancel, "enough")
                await ticks(moment)
                await break_as(how, yard, another)

            assert (await child.outcome()).kind == "cancelled", moment
            assert len(yard.hubs["hub-b"].core.agents) == 0


@pytest.mark.parametrize("seed", range(5))
async def test_of_200_messages_over_links_that_break_at_random_each_is_delivered_once(seed, autojump_clock):
    rng = random.Random(seed)
    async with (
        open_yard() as yard,
        yard.hubs["hub-a"].open_client() as client,
        yard.hubs["hub-b"].open_client() as far,
    ):
        await far.spawn("listen", name="ear")

        async def chat(who: int) -> None:
            for n in range(20):
                await client.send(rng.choice(["hub-b/ear", "ear"]), f"{who}-{n}")
                await trio.sleep(rng.uniform(0.0, 0.1))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(break_at_random, yard, rng)
            async with trio.open_nursery() as talkers:
                for who in range(10):
                    talkers.start_soon(chat, who)
            nursery.cancel_scope.cancel()

        assert yard.received == {f"{who}-{n}": 1 for who in range(10) for n in range(20)}
        assert sum(len(hub.core.exchange.calls) for hub in yard.hubs.values()) <= 2  # announcements


async def break_at_random(yard: Yard, rng: random.Random) -> None:
    while True:
        await trio.sleep(rng.uniform(0.0, 0.2))
        await ticks(rng.randrange(12))
        await yard.cut(rng.choice(["hub-a", "hub-b"]))


async def test_over_the_restart_of_a_real_meta_hub_nothing_is_lost_or_done_twice():
    hasty = Timeouts(redial_delay=0.02, redial_delay_max=0.05, stop_grace=0.2)
    async with trio.open_nursery() as nursery:
        address, stop = await nursery.start(serve, "127.0.0.1:0")
        yard = Yard()
        common: dict[str, Any] = {"agents": {"listen": yard.listen, "work": yard.work}, "meta_token": TOKEN}
        common |= {"join": address, "timeouts": hasty}
        async with (
            open_hub("hub-a", **common) as near,
            open_hub("hub-b", **common) as far,
            near.open_client() as client,
            far.open_client() as there,
        ):
            await there.spawn("listen", name="ear")
            worker = await there.spawn("work", name="worker")
            outcomes: list[object] = []
            async with trio.open_nursery() as talkers:
                for n in range(40):
                    talkers.start_soon(later, n * 0.005, partial(client.send, "hub-b/ear", str(n)))
                talkers.start_soon(later, 0.1, partial(client.spawn, "work", hub="hub-b", name="child"))

                @talkers.start_soon
                async def wait() -> None:
                    outcomes.append(await client.wait(f"hub-b/{worker.address}"))

                await trio.sleep(0.05)
                await stop()
                await trio.sleep(0.1)
                _, stop = await nursery.start(serve, address)
                await trio.sleep(0.1)
                yard.may_end.set()

            assert yard.received == {str(n): 1 for n in range(40)}
            assert yard.started == {"worker": 1, "child": 1}
            assert outcomes == [Done("done")]
        await stop()


async def later(seconds: float, act: Callable[[], Awaitable[object]]) -> None:
    await trio.sleep(seconds)
    await act()


async def serve(bind: str, task_status=trio.TASK_STATUS_IGNORED) -> None:
    """Run a MetaHub until it is stopped; report its address, and what stops it."""
    closed = trio.Event()
    with trio.CancelScope() as scope:

        async def stop() -> None:
            scope.cancel()
            await closed.wait()

        async with open_meta_hub(bind, token=TOKEN) as meta_hub:
            task_status.started((meta_hub.address, stop))
            await trio.sleep_forever()
    closed.set()
