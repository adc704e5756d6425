"""Asks through whole clusters: one outcome each, in time, whatever breaks; and nothing works on for nobody."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from attrs import Factory, define

from loopal_cluster import (
    AgentCancelled,
    AgentContext,
    AgentFailed,
    AgentHandle,
    AgentLost,
    AgentNotFound,
    AmbiguousName,
    AskCircle,
    Client,
    CommandAgent,
    HubNotConnected,
    Limits,
    MethodNotFound,
    Overloaded,
    ProcessAgent,
    Received,
    Timeouts,
    open_hub,
    open_meta_hub,
    python_agent,
)
from loopal_cluster.payloads import Stream
from loopal_cluster.testing import TestCluster, byte_pair, open_test_cluster, record_pair

AGENTS = str(Path(__file__).parent.parent / "agents")
BASE_AGENT = f"{AGENTS}/base_agent.py"


@define
class Bench:
    """Agents that are asked, and what became of it."""

    begun: list[str] = Factory(list)
    cancelled: list[str] = Factory(list)
    may_reply: trio.Event = Factory(trio.Event)

    async def work(self, text: str) -> str:
        """Reply when the test says so, or fail, or report progress each second, or take so many seconds."""
        self.begun.append(text)
        try:
            match text.split():
                case ["fail"]:
                    raise ValueError("no")
                case ["group"]:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(self.work, "fail")
                        nursery.start_soon(self.work, "fail")
                case ["sleep", seconds]:
                    await trio.sleep(float(seconds))
                case ["wait"]:
                    await self.may_reply.wait()
        except trio.Cancelled:
            self.cancelled.append(text)
            raise
        return text.upper()

    async def turn(self, ctx: AgentContext, prompt: str) -> str:
        """Each ask is a turn."""
        return await self.work(prompt)

    async def serve(self, ctx: AgentContext, prompt: str) -> str:
        """Any number of asks at a time."""

        async def answer(received: Received) -> str:
            if received.text.startswith("progress"):
                return await self.work_on(received)
            return await self.work(received.text)

        await ctx.serve(answer)

    async def work_on(self, received: Received) -> str:
        """Take six seconds, and say so after each."""
        for _ in range(6):
            await self.work("sleep 1")
            received.progress()
        return "at last"

    async def ask(self, ctx: AgentContext, prompt: str) -> str:
        """Ask ``hub-b/x`` what the prompt says."""
        return await ctx.ask("hub-b/x", prompt)

    @property
    def agents(self):
        return {"turn": self.turn, "serve": self.serve, "ask": self.ask}


@pytest.fixture
def bench() -> Bench:
    return Bench()


@asynccontextmanager
async def asking(
    bench: Bench, kind: str = "serve", **options
) -> AsyncIterator[tuple[TestCluster, Client, AgentHandle]]:
    """A cluster of two hubs, a client of ``hub-a``, and the agent ``hub-b/x``, which nobody owns."""
    async with open_test_cluster(2, agents=bench.agents, **options) as cluster:
        async with cluster["hub-a"].open_client() as client:
            x = await client.spawn(kind, hub="hub-b", name="x", persistent=kind == "turn", detached=True)
            # A hub that came in the same millisecond as an ask may not be whom it was for.
            await trio.sleep(1)
            yield cluster, client, x


async def settled() -> None:
    """Until nothing more happens by itself at this instant."""
    await trio.testing.wait_all_tasks_blocked()


def open_calls(cluster: TestCluster) -> list[object]:
    """What somebody in the cluster still waits for, but announcements and such."""
    cores: list[Any] = [cluster.meta_hub.core, *(hub.core for hub in cluster.hubs.values())]
    return [call.message for core in cores for call in core.exchange.calls if "ask" in call.message.method]


# Replies.


@pytest.mark.parametrize("pair", [record_pair, byte_pair])
@pytest.mark.parametrize("kind", ["serve", "turn"])
async def test_an_ask_is_answered_from_another_hub(kind, pair, bench, autojump_clock):
    async with asking(bench, kind, pair=pair) as (cluster, client, x):
        assert await x.ask("hello") == "HELLO"
        assert await client.ask("x", "by its bare name") == "BY ITS BARE NAME"
        assert open_calls(cluster) == []


@pytest.mark.parametrize("kind", ["serve", "turn"])
@pytest.mark.parametrize("text", ["fail", "group"])
async def test_a_failure_is_an_error_with_the_remote_traceback_and_the_agent_goes_on(
    text, kind, bench, autojump_clock
):
    async with asking(bench, kind) as (_, _, x):
        with pytest.raises(AgentFailed, match="hub-b/x: ValueError: no") as caught:
            await x.ask(text)

        assert "Remote traceback of hub-b/x" in caught.value.__notes__[0]
        assert await x.ask("again") == "AGAIN"


@pytest.mark.parametrize("kind", ["serve", "turn"])
async def test_an_agent_asks_another_hub_as_a_program_does(kind, bench, autojump_clock):
    async with asking(bench, kind) as (_, client, _):
        asker = await client.spawn("ask", "hello")

        assert await asker.result() == "HELLO"


async def test_a_client_of_the_meta_hub_asks(bench, autojump_clock):
    async with asking(bench) as (cluster, _, _):
        async with cluster.meta_hub.open_client() as client:
            assert await client.ask("hub-b/x", "hello") == "HELLO"
            with pytest.raises(trio.TooSlowError):
                await client.ask("hub-b/x", "wait", time_limit=2)
            assert bench.cancelled == ["wait"]


async def test_a_thousand_asks_at_a_time_get_each_its_own_reply(bench, autojump_clock):
    async with asking(bench) as (cluster, _, x):
        replies: dict[int, str] = {}

        async def one(n: int) -> None:
            replies[n] = await x.ask(f"number {n}")

        async with trio.open_nursery() as nursery:
            for n in range(1000):
                nursery.start_soon(one, n)

        assert replies == {n: f"NUMBER {n}" for n in range(1000)}
        assert open_calls(cluster) == []


async def test_a_persistent_agent_without_a_prompt_has_no_turn_before_it_is_asked(bench, autojump_clock):
    async with open_test_cluster(1, agents=bench.agents) as cluster, cluster["hub-a"].open_client() as client:
        x = await client.spawn("turn", persistent=True)
        await settled()
        await x.ask("hello")

        assert bench.begun == ["hello"]


async def test_a_persistent_agent_takes_asks_one_after_the_other(bench, autojump_clock):
    async with asking(bench, "turn") as (_, _, x):
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(x.ask, "sleep 2")

        assert trio.current_time() - began == pytest.approx(6)


async def test_an_interrupted_turn_is_cancelled_for_whoever_asked(bench, autojump_clock):
    async with asking(bench, "turn") as (_, client, x), trio.open_nursery() as nursery:

        @nursery.start_soon
        async def ask() -> None:
            with pytest.raises(AgentCancelled, match="interrupted"):
                await x.ask("wait")

        await settled()
        await client.interrupt("hub-b/x")


# Those who are not asked.


@pytest.mark.parametrize(
    ("target", "error"),
    [
        ("nobody", AgentNotFound),
        ("hub-b/y", AgentNotFound),
        ("twin", AmbiguousName),
        ("hub-z/x", HubNotConnected),
    ],
)
@pytest.mark.parametrize("place", ["hub", "meta hub"])
async def test_who_cannot_be_asked_is_a_typed_error_at_once(place, target, error, bench, autojump_clock):
    async with open_test_cluster(3, agents=bench.agents) as cluster:
        here = cluster["hub-a"] if place == "hub" else cluster.meta_hub
        async with here.open_client() as client:
            for hub in ("hub-b", "hub-c"):
                await client.spawn("serve", hub=hub, name="twin")
            await settled()
            began = trio.current_time()

            with pytest.raises(error):
                await client.ask(target, "hello")

            assert trio.current_time() == began


async def test_a_hub_without_a_cluster_asks_its_own_agents_and_knows_no_others(bench, autojump_clock):
    async with open_hub("alone", agents=bench.agents) as hub, hub.open_client() as client:
        x = await client.spawn("serve", name="x")

        assert await x.ask("hello") == "HELLO"
        with pytest.raises(AgentNotFound):
            await client.ask("elsewhere/x", "hello")


async def test_a_full_inbox_is_overloaded_at_once_and_loses_nothing(bench, autojump_clock):
    async with asking(bench, "turn", limits=Limits(inbox=2)) as (_, _, x):
        async with trio.open_nursery() as nursery:
            for text in ("wait", "two", "three"):
                nursery.start_soon(x.ask, text)
                await settled()
            with pytest.raises(Overloaded):
                await x.ask("four")
            bench.may_reply.set()

        assert bench.begun == ["wait", "two", "three"]


# Time.


@pytest.mark.parametrize("kind", ["serve", "turn"])
async def test_an_ask_that_takes_too_long_is_too_slow_and_its_work_cancelled(kind, bench, autojump_clock):
    async with asking(bench, kind) as (cluster, _, x):
        began = trio.current_time()

        with pytest.raises(trio.TooSlowError, match="no reply from hub-b/x in time"):
            await x.ask("wait", time_limit=2)

        assert trio.current_time() - began == pytest.approx(2)
        await settled()
        assert bench.cancelled == ["wait"]
        assert await x.ask("again") == "AGAIN"
        assert open_calls(cluster) == []


@pytest.mark.parametrize("kind", ["serve", "turn"])
async def test_the_deadline_of_a_scope_around_an_ask_ends_it_quietly_and_the_work_elsewhere(
    kind, bench, autojump_clock
):
    async with asking(bench, kind) as (_, _, x):
        for _ in range(10):  # whoever is the first at that instant
            with trio.move_on_after(2) as scope:
                await x.ask("wait")

            assert scope.cancelled_caught
        await settled()
        assert bench.cancelled == ["wait"] * 10


async def test_the_time_of_a_scope_travels_with_the_ask(bench, autojump_clock):
    async with asking(bench) as (cluster, _, x):
        with trio.move_on_after(2):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(x.ask, "wait")
                await settled()
                [call] = [
                    call for call in cluster["hub-b"].core.exchange.calls if "ask" in call.message.method
                ]

        assert call.message.envelope.timeout_ms == pytest.approx(2000, abs=1)  # type: ignore[attr-defined]


async def test_the_shorter_of_timeout_and_scope_counts(bench, autojump_clock):
    async with asking(bench) as (_, _, x):
        began = trio.current_time()
        with pytest.raises(trio.TooSlowError), trio.move_on_after(5):
            await x.ask("wait", time_limit=1)
        with trio.move_on_after(1):
            await x.ask("wait", time_limit=5)

        assert trio.current_time() - began == pytest.approx(2)


@pytest.mark.parametrize("timeout", [0, -1, 1e-9])
async def test_no_time_is_too_slow_at_once(timeout, bench, autojump_clock):
    async with asking(bench) as (_, _, x):
        began = trio.current_time()

        with pytest.raises(trio.TooSlowError):
            await x.ask("wait", time_limit=timeout)

        assert trio.current_time() - began < 0.01


@pytest.mark.parametrize("timeout", [1e300, float("inf")])
async def test_all_the_time_in_the_world_fits_the_wire(timeout, bench, autojump_clock):
    async with asking(bench, pair=byte_pair) as (_, client, x):
        assert await x.ask("hello", time_limit=timeout) == "HELLO"
        y = await client.spawn("turn", "hello", hub="hub-b", time_limit=timeout, idle_limit=timeout)
        assert await y.result() == "HELLO"


async def test_a_late_reply_is_dropped_and_counted(bench, autojump_clock):
    async def stubborn(ctx: AgentContext, prompt: str) -> str:
        with trio.CancelScope(shield=True):
            await trio.sleep(3)
        return "too late"

    bench_agents = bench.agents | {"stubborn": stubborn}
    async with open_test_cluster(2, agents=bench_agents) as cluster, cluster["hub-a"].open_client() as client:
        x = await client.spawn("stubborn", hub="hub-b", persistent=True)

        with pytest.raises(trio.TooSlowError):
            await x.ask("hello", time_limit=1)
        await trio.sleep(5)

        assert open_calls(cluster) == []
        with trio.fail_after(4):
            assert await x.ask("hello") == "too late"  # the reply to this one, and not to the first


async def test_progress_extends_an_ask_that_may_be_extended(bench, autojump_clock):
    async with asking(bench) as (_, _, x):
        assert await x.ask("progress", time_limit=2, extend=True) == "at last"
        with pytest.raises(trio.TooSlowError):
            await x.ask("progress", time_limit=2)


async def test_an_ask_is_extended_after_a_reconnect_as_long_as_before(bench, autojump_clock):
    async with asking(bench) as (cluster, _, x), trio.open_nursery() as nursery:

        @nursery.start_soon
        async def ask() -> None:
            assert await x.ask("progress", time_limit=1.5, extend=True) == "at last"

        for _ in range(5):
            await trio.sleep(0.9)
            await cluster.cut("hub-a")


# Nobody waits any more.


@pytest.mark.parametrize("kind", ["serve", "turn"])
async def test_cancelling_an_ask_cancels_the_work_on_the_other_hub(kind, bench, autojump_clock):
    async with asking(bench, kind) as (cluster, _, x):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(x.ask, "wait")
            await settled()
            assert bench.cancelled == []
            nursery.cancel_scope.cancel()

        await settled()
        assert bench.cancelled == ["wait"]
        assert open_calls(cluster) == []


async def test_an_ask_that_is_withdrawn_before_its_turn_never_has_one(bench, autojump_clock):
    async with asking(bench, "turn") as (_, _, x), trio.open_nursery() as nursery:
        nursery.start_soon(x.ask, "sleep 5")
        await settled()
        with trio.move_on_after(1):
            await x.ask("never")
        await x.ask("next")

        assert bench.begun == ["sleep 5", "next"]


async def test_an_asker_that_is_cancelled_cancels_what_it_has_asked(bench, autojump_clock):
    async with asking(bench) as (_, client, _):
        asker = await client.spawn("ask", "wait")
        await settled()
        await asker.cancel()

        await settled()
        assert bench.cancelled == ["wait"]


async def test_the_end_of_a_client_cancels_what_it_has_asked(bench, autojump_clock):
    async with asking(bench) as (cluster, _, _):
        with trio.move_on_after(1):
            async with cluster["hub-a"].open_client() as client, trio.open_nursery() as nursery:
                nursery.start_soon(client.ask, "hub-b/x", "wait")
                await trio.sleep_forever()

        await settled()
        assert bench.cancelled == ["wait"]


async def test_the_loss_of_the_askers_hub_cancels_what_its_agents_have_asked(bench, autojump_clock):
    async with asking(bench) as (cluster, client, _x):
        await client.spawn("ask", "wait")
        await settled()

        cluster.isolate()
        await cluster.cut("hub-a")
        await trio.sleep(1)

        assert bench.cancelled == ["wait"]


@pytest.mark.parametrize("away", ["hub-a", "hub-b"])
async def test_an_ask_that_is_cancelled_while_a_link_is_down_is_cancelled_when_it_is_back(
    away, bench, autojump_clock
):
    async with asking(bench) as (cluster, _, x):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(x.ask, "wait")
            await settled()
            cluster.isolate()
            await cluster.cut(away)
            await settled()
            nursery.cancel_scope.cancel()
        assert bench.cancelled == []

        cluster.isolate(reachable=True)
        await trio.sleep(1)

        assert bench.cancelled == ["wait"]
        assert bench.begun == ["wait"]
        assert open_calls(cluster) == []


# Links break, hubs and agents end.


@pytest.mark.parametrize("away", ["hub-a", "hub-b"])
@pytest.mark.parametrize("kind", ["serve", "turn"])
async def test_an_ask_is_worked_on_once_whichever_link_breaks_meanwhile(kind, away, bench, autojump_clock):
    async with asking(bench, kind) as (cluster, _, x), trio.open_nursery() as nursery:

        @nursery.start_soon
        async def ask() -> None:
            assert await x.ask("wait") == "WAIT"

        for _ in range(3):
            await settled()
            await cluster.cut(away)
            await trio.sleep(1)
        bench.may_reply.set()
        await settled()

        assert bench.begun == ["wait"]


@pytest.mark.parametrize("away", ["hub-a", "hub-b"])
async def test_a_reply_while_a_link_is_down_arrives_when_it_is_back(away, bench, autojump_clock):
    async with asking(bench) as (cluster, _, x), trio.open_nursery() as nursery:

        @nursery.start_soon
        async def ask() -> None:
            assert await x.ask("wait") == "WAIT"

        await settled()
        cluster.isolate()
        await cluster.cut(away)
        bench.may_reply.set()
        await trio.sleep(0.3)
        cluster.isolate(reachable=True)
        await trio.sleep(1)

        assert bench.begun == ["wait"]


async def test_an_ask_that_is_made_while_the_meta_hub_is_away_waits_for_it(bench, autojump_clock):
    async with asking(bench) as (cluster, _, x), trio.open_nursery() as nursery:
        cluster.isolate()
        await cluster.cut("hub-a")
        await settled()

        @nursery.start_soon
        async def ask() -> None:
            assert await x.ask("hello", time_limit=10) == "HELLO"

        await settled()
        assert bench.begun == []
        cluster.isolate(reachable=True)


async def test_the_callers_time_counts_while_the_meta_hub_is_away(bench, autojump_clock):
    async with asking(bench) as (cluster, _, x):
        cluster.isolate()
        await cluster.cut("hub-a")
        await settled()
        began = trio.current_time()

        with pytest.raises(trio.TooSlowError):
            await x.ask("hello", time_limit=4)

        assert trio.current_time() - began <= 6.01


@asynccontextmanager
async def restarted(cluster: TestCluster) -> AsyncIterator[None]:
    """Let a MetaHub that knows nothing take the place of the one that was there, for the block."""
    async with open_meta_hub(None, token=cluster.meta_hub.token) as cluster.meta_hub:
        for hub in cluster.hubs:
            await cluster.cut(hub)
        await trio.sleep(1)
        yield
        cluster.isolate()


async def test_an_ask_is_worked_on_once_when_the_meta_hub_is_started_anew(bench, autojump_clock):
    async with asking(bench) as (cluster, _, x), trio.open_nursery() as nursery:

        @nursery.start_soon
        async def ask() -> None:
            assert await x.ask("wait") == "WAIT"

        await settled()
        async with restarted(cluster):
            bench.may_reply.set()
            await settled()

        assert bench.begun == ["wait"]


async def test_what_a_client_of_the_meta_hub_has_asked_ends_when_that_is_started_anew(bench, autojump_clock):
    async with (
        asking(bench) as (cluster, _, _),
        cluster.meta_hub.open_client() as client,
        trio.open_nursery() as nursery,
    ):

        @nursery.start_soon
        async def ask() -> None:
            with pytest.raises(AgentLost):  # the MetaHub that it knows has lost the hub
                await client.ask("hub-b/x", "wait")

        await settled()
        async with restarted(cluster):
            assert bench.cancelled == ["wait"]


async def test_an_ask_of_a_hub_that_is_lost_is_lost_within_a_second(bench, autojump_clock):
    async with asking(bench) as (cluster, _, x), trio.open_nursery() as nursery:

        @nursery.start_soon
        async def ask() -> None:
            with pytest.raises(AgentLost, match="hub 'hub-b' is gone"):
                await x.ask("wait")
            assert trio.current_time() - began <= 1.0

        await settled()
        began = trio.current_time()
        cluster.isolate()
        await cluster.cut("hub-b")


async def test_an_ask_of_an_agent_that_is_stopped_is_cancelled(bench, autojump_clock):
    async with asking(bench) as (_, _, x), trio.open_nursery() as nursery:

        @nursery.start_soon
        async def ask() -> None:
            with pytest.raises(AgentCancelled):
                await x.ask("wait")

        await settled()
        await x.cancel()


async def test_an_ask_of_a_hub_that_closes_is_cancelled(bench, autojump_clock):
    async with open_test_cluster(1, agents=bench.agents) as cluster, trio.open_nursery() as nursery:
        async with (
            cluster["hub-a"].open_client() as client,
            open_hub(
                "hub-b",
                agents=bench.agents,
                join=partial(cluster.dial, "hub-b"),
                meta_token=cluster.meta_hub.token,
            ),
        ):
            x = await client.spawn("serve", hub="hub-b", name="x")

            @nursery.start_soon
            async def ask() -> None:
                with pytest.raises(AgentCancelled):
                    await x.ask("wait")

            await settled()
            assert bench.begun == ["wait"]


async def test_an_agent_that_replies_and_then_ends_has_replied(bench, autojump_clock):
    async def once(ctx: AgentContext, prompt: str) -> str:
        received = await ctx.receive()
        received.reply(received.text.upper())
        return "ended"

    async with open_test_cluster(2, agents={"once": once}) as cluster:
        async with cluster["hub-a"].open_client() as client:
            x = await client.spawn("once", hub="hub-b")

            assert await x.ask("hello") == "HELLO"
            assert await x.result() == "ended"


async def test_an_agent_that_asks_itself_in_its_turn_is_refused_at_once(bench, autojump_clock):
    async def selfish(ctx: AgentContext, prompt: str) -> str:
        try:
            return await ctx.ask(ctx.address, "are you there", time_limit=2)
        except AskCircle:
            return "nobody there"

    async with open_test_cluster(1, agents={"selfish": selfish}) as cluster:
        async with cluster["hub-a"].open_client() as client:
            x = await client.spawn("selfish", persistent=True)

            began = trio.current_time()
            assert await x.ask("hello", time_limit=10) == "nobody there"
            assert trio.current_time() - began < 1


async def test_an_agent_that_serves_may_ask_itself(bench, autojump_clock):
    async def deep(ctx: AgentContext, prompt: str) -> None:
        async def answer(received: Received) -> str:
            level = int(received.text)
            return "done" if level == 0 else await ctx.ask(ctx.name, str(level - 1))

        await ctx.serve(answer)

    async with open_test_cluster(1, agents={"deep": deep}) as cluster:
        async with cluster["hub-a"].open_client() as client:
            x = await client.spawn("deep")

            assert await x.ask("20") == "done"


# What is too much.


async def test_a_reply_that_is_too_large_has_failed_and_the_hubs_go_on(autojump_clock):
    async def large(ctx: AgentContext, prompt: str) -> str:
        return "x" * int(prompt or 0)

    limits = Limits(line_bytes=100_000)
    async with open_test_cluster(2, agents={"large": large}, limits=limits, pair=byte_pair) as cluster:
        async with cluster["hub-a"].open_client() as client:
            x = await client.spawn("large", hub="hub-b", persistent=True)

            with pytest.raises(AgentFailed, match="its reply has 200002 bytes as JSON, more than the 50000"):
                await x.ask("200000")
            assert await x.ask("3") == "xxx"


async def test_a_result_that_is_too_large_has_failed_and_its_parent_learns_so(autojump_clock):
    async def large(ctx: AgentContext, prompt: str) -> str:
        return "x" * 200_000

    limits = Limits(line_bytes=100_000)
    async with open_test_cluster(2, agents={"large": large}, limits=limits, pair=byte_pair) as cluster:
        async with cluster["hub-a"].open_client() as client:
            x = await client.spawn("large", hub="hub-b")

            with pytest.raises(AgentFailed, match="its result has 200002 bytes as JSON, more than the 50000"):
                await x.result()


async def test_a_flood_of_progress_delays_nobody_and_is_bounded(bench, autojump_clock):
    async def flood(ctx: AgentContext, prompt: str) -> str:
        received = await ctx.receive()
        for _ in range(20_000):
            received.progress()
        received.reply("at last")
        return "ended"

    async with open_test_cluster(2, agents={"flood": flood}) as cluster:
        async with cluster["hub-a"].open_client() as client:
            x = await client.spawn("flood", hub="hub-b")

            assert await x.ask("hello", time_limit=5, extend=True) == "at last"


class Text(str):
    """What some libraries return."""


async def test_a_reply_of_a_class_of_its_own_is_text(autojump_clock):
    async def subclass(ctx: AgentContext, prompt: str) -> str:
        return Text(prompt)

    async with open_test_cluster(2, agents={"subclass": subclass}, pair=byte_pair) as cluster:
        async with cluster["hub-a"].open_client() as client:
            x = await client.spawn("subclass", hub="hub-b", persistent=True)

            assert await x.ask(Text("hello")) == "hello"


# Programs.


async def test_a_command_replies_with_its_output_and_streams_it_once():
    async with open_hub("here", agents={"cat": CommandAgent(["cat"])}) as hub, hub.open_client() as client:
        events = await client.subscribe()
        x = await client.spawn("cat", name="x", persistent=True)

        assert await x.ask("hello") == "hello"
        await x.cancel()
        await x.outcome()
        streamed = [event.payload.text for event in events.arrived() if isinstance(event.payload, Stream)]
        assert streamed == ["hello"]


async def test_an_ask_of_a_program_that_is_killed_is_lost():
    agents = {"dies": python_agent("functions:dies_when_asked", directory=AGENTS)}
    async with open_hub("here", agents=agents) as hub, hub.open_client() as client:
        x = await client.spawn("dies", name="x")

        with pytest.raises(AgentLost):
            await x.ask("now")


async def test_a_program_that_never_yields_is_too_slow_for_who_asks_and_stopped_all_the_same():
    agents = {"spins": python_agent("functions:spins", directory=AGENTS)}
    timeouts = Timeouts(stop_grace=0.1)
    async with open_hub("here", agents=agents, timeouts=timeouts) as hub, hub.open_client() as client:
        x = await client.spawn("spins", name="x", persistent=True)

        with pytest.raises(trio.TooSlowError):
            await x.ask("now", time_limit=0.2)
        assert (await x.cancel()).kind == "cancelled"


async def test_a_program_that_speaks_the_base_dialect_knows_no_asks():
    agents = {"base": ProcessAgent([sys.executable, BASE_AGENT, "stays"])}
    async with open_hub("here", agents=agents) as hub, hub.open_client() as client:
        x = await client.spawn("base", name="x", persistent=True)

        with pytest.raises(MethodNotFound, match="delivery to 'x' failed"):
            await x.ask("hello")


async def test_an_ask_in_a_scope_that_is_cancelled_already_is_cancelled_and_nothing_is_asked(autojump_clock):
    async with open_test_cluster(1) as one, one["hub-a"].open_client() as client:
        with trio.CancelScope() as scope:
            scope.cancel()
            await client.ask("nobody", "hi")

        assert scope.cancelled_caught
