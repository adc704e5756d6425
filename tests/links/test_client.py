"""A client's block: what it starts, what comes out of it, and that each of its streams has every event."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from loopal_cluster import (
    AgentContext,
    AgentFailed,
    Client,
    Hub,
    MetaHub,
    Protocol,
    Received,
    Role,
    connect,
    open_hub,
    open_meta_hub,
)
from loopal_cluster.events import ClusterEvent, Ended, EventStream, Stream
from loopal_cluster.links.caller import Caller, open_caller
from loopal_cluster.messages import Register, SpawnAgent, SpawnSpec
from loopal_cluster.testing import open_test_cluster, record_pair


async def say(ctx: AgentContext, prompt: str) -> None:
    for word in prompt.split():
        ctx.stream(word)


async def fail(ctx: AgentContext, prompt: str) -> None:
    raise ValueError(prompt)


AGENTS: Any = {"say": say, "fail": fail}


async def said(events: EventStream, agents: int = 1) -> list[str]:
    """What agents have said, until so many have ended."""
    words = []
    async for event in events:
        match event.payload:
            case Stream(text):
                words.append(text)
            case Ended():
                agents -= 1
                if not agents:
                    return words
    raise AssertionError("the stream has ended")


async def run(client: Client, prompt: str) -> None:
    await (await client.spawn("say", prompt)).outcome()


# Streams.


async def test_two_streams_of_a_client_both_have_every_event(autojump_clock):
    async with open_test_cluster(1, agents=AGENTS) as cluster, cluster["hub-a"].open_client() as client:
        first, second = await client.subscribe(), await client.subscribe()
        await run(client, "one two three")

        assert await said(first) == ["one", "two", "three"]
        assert await said(second) == ["one", "two", "three"]
        assert (first.missed, second.missed) == (0, 0)


async def test_what_is_sent_again_to_one_stream_comes_to_no_other_twice(autojump_clock):
    async with open_test_cluster(1, agents=AGENTS) as cluster, cluster["hub-a"].open_client() as client:
        first = await client.subscribe()
        await run(client, "one two")
        second = await client.subscribe(since=0)
        await run(client, "three")

        assert await said(first, agents=2) == ["one", "two", "three"]
        assert await said(second, agents=2) == ["one", "two", "three"]
        assert first.last_seq == second.last_seq
        assert (first.missed, second.missed) == (0, 0)


async def test_a_stream_from_now_on_has_nothing_of_what_another_one_is_sent_again(autojump_clock):
    async with open_test_cluster(1, agents=AGENTS) as cluster, cluster["hub-a"].open_client() as client:
        await run(client, "old")
        streams: dict[str, EventStream] = {}

        async def subscribe(name: str, since: int | None) -> None:
            streams[name] = await client.subscribe(since)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(subscribe, "all", 0)
            nursery.start_soon(subscribe, "new", None)
        await run(client, "new")

        assert await said(streams["all"], agents=2) == ["old", "new"]
        assert await said(streams["new"]) == ["new"]


async def test_a_stream_that_nobody_reads_takes_nothing_from_the_others(autojump_clock):
    async with open_test_cluster(1, agents=AGENTS) as cluster:
        async with cluster["hub-a"].open_client(event_buffer=5) as client:
            unread, read = await client.subscribe(), await client.subscribe()
            async with trio.open_nursery() as nursery:
                seen: list[ClusterEvent] = []

                @nursery.start_soon
                async def reading() -> None:
                    async for event in read:
                        seen.append(event)

                for _ in range(5):
                    await run(client, "word")
                    await trio.testing.wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()

            assert [event.seq for event in seen] == [*range(seen[0].seq, read.last_seq + 1)]
            assert sum(isinstance(event.payload, Ended) for event in seen) == 5
            assert len([*unread.arrived()]) == 5


async def test_every_stream_ends_with_the_connection(autojump_clock):
    async with open_test_cluster(1) as cluster, cluster["hub-a"].open_client() as client:
        first, second = await client.subscribe(), await client.subscribe(since=0)

    assert (first.ended, second.ended) == ("closed on this side", "closed on this side")
    assert [event async for event in first] == []


# Blocks.


async def test_a_client_that_is_made_and_not_opened_starts_no_task(autojump_clock):
    async with open_test_cluster(1) as cluster:
        await trio.testing.wait_all_tasks_blocked()
        before = trio.lowlevel.current_statistics().tasks_living
        for place in (cluster["hub-a"], cluster.meta_hub):
            place.open_client()
            await trio.testing.wait_all_tasks_blocked()

        assert trio.lowlevel.current_statistics().tasks_living == before


async def test_an_exception_comes_out_of_all_our_blocks_as_it_was_raised(autojump_clock):
    problem = ValueError("mine")

    async def main() -> None:
        async with open_meta_hub(None) as meta_hub:
            async with open_hub("laptop", agents=AGENTS) as hub:
                async with hub.open_client(), meta_hub.open_client():
                    raise problem

    with pytest.raises(ValueError, match="mine") as caught:
        await main()

    assert caught.value is problem


async def test_a_group_comes_out_of_all_our_blocks_in_no_other_group(autojump_clock):
    async def main() -> None:
        async with open_test_cluster(2, agents=AGENTS) as cluster, cluster["hub-a"].open_client() as client:
            async with client.open_agents() as agents:
                await agents.spawn("fail", "boom")

    with pytest.raises(ExceptionGroup) as caught:
        await main()

    [failure] = caught.value.exceptions
    assert isinstance(failure, AgentFailed)
    assert "ValueError: boom" in str(failure)


async def test_a_failed_handler_comes_out_of_the_client_in_no_group(autojump_clock):
    problem = RuntimeError("the screen is broken")

    async def ask(ctx: AgentContext, prompt: str) -> None:
        await ctx.ask_permission("Bash")

    async def on_permission(permission: object) -> Any:
        raise problem

    async def main() -> None:
        async with open_test_cluster(1, agents={"ask": ask}) as cluster:
            async with cluster["hub-a"].open_client(on_permission=on_permission) as client:
                await client.spawn("ask")
                await trio.sleep_forever()

    with pytest.raises(RuntimeError, match="the screen is broken") as caught:
        await main()

    assert caught.value is problem


@pytest.mark.parametrize("block", [connect("localhost:1"), open_hub("laptop"), open_meta_hub()])
def test_a_program_that_does_not_run_trio_is_told_how_to(block):
    async def main() -> None:
        async with block:
            pass

    with pytest.raises(RuntimeError, match=r"start the program with trio\.run\(main\)"):
        asyncio.run(main())


# Agents.


async def test_a_stream_that_is_awaited_fails_with_words(autojump_clock):
    async def awaits(ctx: AgentContext, prompt: str) -> None:
        await ctx.stream("text")  # type: ignore[func-returns-value, misc]

    async with open_test_cluster(1, agents={"awaits": awaits}) as cluster:
        async with cluster["hub-a"].open_client() as client:
            agent = await client.spawn("awaits")
            with pytest.raises(AgentFailed, match="call them without await"):
                await agent.result()


async def test_an_agent_that_serves_fails_with_what_was_raised_in_no_group(autojump_clock):
    problem = ValueError("mine")
    caught: list[BaseException] = []

    async def serve(ctx: AgentContext, prompt: str) -> None:
        async def answerer(received: Received) -> None:
            raise problem

        try:
            await ctx.serve(answerer)
        except ValueError as error:
            caught.append(error)

    async with open_test_cluster(1, agents={"serve": serve}) as cluster:
        async with cluster["hub-a"].open_client() as client:
            agent = await client.spawn("serve", name="server")
            await client.send("server", "hello")
            assert await agent.result() == ""

    assert caught == [problem]


@pytest.mark.parametrize("where", ["hub", "MetaHub"])
@pytest.mark.parametrize("on", ["hub-a", "hub-b"])
async def test_a_client_named_like_an_agent_is_the_parent_of_nothing(where, on, autojump_clock):
    """Whatever it says of itself; so what it starts does not end with that agent, and nobody is told of it."""

    async def sleep(ctx: AgentContext, prompt: str) -> None:
        await trio.sleep_forever()

    async with open_test_cluster(2, agents={"sleep": sleep}) as cluster:
        place = cluster["hub-a"] if where == "hub" else cluster.meta_hub
        async with cluster["hub-a"].open_client() as client, boss_at(place) as forger:
            await client.spawn("sleep", name="boss")
            for name, parent in (("quiet", None), ("bare", "boss"), ("qualified", "hub-a/boss")):
                await forger.call(
                    SpawnAgent(SpawnSpec(name, "", agent_type="sleep", target_hub=on, parent=parent))
                )
            names = [f"{on}/{name}" for name in ("quiet", "bare", "qualified")]
            before = [await client.agent_info(name) for name in names]
            boss = await client.agent_info("hub-a/boss")
            await client.cancel("hub-a/boss")
            after = [await client.agent_info(name) for name in names]

    assert boss.children == ()
    assert [details.parent for details in before] == [None] * 3
    assert [details.outcome for details in after] == [None] * 3


@asynccontextmanager
async def boss_at(place: Hub | MetaHub) -> AsyncIterator[Caller]:
    """A client by the name ``boss``, which may say whatever it likes."""
    ours, theirs = record_pair()
    place.attach(theirs)
    async with open_caller(ours, lambda message, request: None, lambda message: None) as caller:
        await caller.call(Register(name="boss", token=place.token, role=Role.CLIENT, protocol=Protocol(1)))
        yield caller
