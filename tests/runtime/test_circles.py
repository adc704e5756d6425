"""Asks in a circle end at once; agents that serve may ask each other, and a persistent one may serve."""

from __future__ import annotations

import pytest
import trio

from loopal_cluster import AgentContext, AgentFailed, AskCircle, Received
from loopal_cluster.testing import byte_pair, open_test_cluster


async def chain(ctx: AgentContext, prompt: str) -> str:
    """Ask the first of some agents to ask the next, and so on; ``!`` is the end."""
    if prompt == "!":
        return f"{ctx.address}!"
    target, _, rest = prompt.partition(" ")
    return f"{ctx.name} {await ctx.ask(target, rest or '!')}"


async def serve(ctx: AgentContext, prompt: str) -> str:
    """The same, many at a time."""

    async def answer(received: Received) -> str:
        return await chain(ctx, received.text)

    await ctx.serve(answer)


async def by_hand(ctx: AgentContext, prompt: str) -> str:
    """The same without ``serve``: a task takes, others work."""

    async def work(received: Received) -> None:
        received.reply(await chain(ctx, received.text))

    async with trio.open_nursery() as nursery:
        while True:
            nursery.start_soon(work, await ctx.receive())


AGENTS = {"chain": chain, "serve": serve, "by_hand": by_hand}

CIRCLES = {
    "itself": ("a", "hub-a/a", "hub-a/a -> hub-a/a"),
    "itself, by its bare name": ("a", "a", "hub-a/a -> hub-a/a"),
    "two of one hub": ("a", "a2 a", "hub-a/a -> hub-a/a2 -> hub-a/a"),
    "two hubs": ("a", "hub-b/b hub-a/a", "hub-a/a -> hub-b/b -> hub-a/a"),
    "two hubs, by bare names": ("a", "b a", "hub-a/a -> hub-b/b -> hub-a/a"),
    "three hubs": ("a", "b c a", "hub-a/a -> hub-b/b -> hub-c/c -> hub-a/a"),
    "not the first": ("a", "b c b", "hub-b/b -> hub-c/c -> hub-b/b"),
    "through one that serves": ("a", "s a", "hub-a/a -> hub-b/s -> hub-a/a"),
    "through two that serve": ("a", "s s2 s a", "hub-a/a -> hub-b/s -> hub-a/a"),
}


@pytest.mark.parametrize("pair", [None, byte_pair], ids=["records", "lines"])
@pytest.mark.parametrize("which", CIRCLES)
async def test_a_circle_is_refused_at_once_and_named(which, pair, autojump_clock):
    first, prompt, named = CIRCLES[which]
    async with open_test_cluster(3, agents=AGENTS, **({"pair": pair} if pair else {})) as cluster:
        async with cluster["hub-a"].open_client() as client:
            for name, hub, type_ in (
                ("a", "hub-a", "chain"),
                ("a2", "hub-a", "chain"),
                ("b", "hub-b", "chain"),
                ("c", "hub-c", "chain"),
                ("s", "hub-b", "serve"),
                ("s2", "hub-c", "serve"),
            ):
                await client.spawn(type_, name=name, hub=hub, persistent=True)
            began = trio.current_time()
            with pytest.raises(AgentFailed) as raised:
                await client.ask(f"hub-a/{first}", prompt)

            assert raised.value.reason.endswith(f"to reply: {named}")
            assert trio.current_time() - began < 1
            assert await client.ask("hub-a/a", "b c") == "a b hub-c/c!"  # and everybody goes on


@pytest.mark.parametrize("kind", ["serve", "by_hand"])
async def test_agents_that_answer_many_at_a_time_may_ask_each_other_and_themselves(kind, autojump_clock):
    async with open_test_cluster(2, agents=AGENTS, pair=byte_pair) as cluster:
        async with cluster["hub-a"].open_client() as client:
            await client.spawn(kind, name="s", hub="hub-a")
            await client.spawn(kind, name="t", hub="hub-b")

            assert await client.ask("s", "t s t s") == "s t s t hub-a/s!"
            assert await client.ask("s", "s s") == "s s hub-a/s!"


async def test_one_that_serves_may_ask_who_waits_for_another_of_its_answers(autojump_clock):
    """It asks ``y`` for the sake of ``x``, while ``y`` waits for it: no circle, for ``y`` has its reply soon."""

    async def server(ctx: AgentContext, prompt: str) -> str:
        async def answer(received: Received) -> str:
            if received.text == "slow":
                await trio.sleep(2)
                return "slow"
            return await ctx.ask("hub-b/y", "!")

        await ctx.serve(answer)

    async with open_test_cluster(2, agents=AGENTS | {"server": server}) as cluster:
        async with cluster["hub-a"].open_client() as client, trio.open_nursery() as nursery:
            await client.spawn("server", name="s")
            await client.spawn("chain", name="x", hub="hub-b", persistent=True)
            await client.spawn("chain", name="y", hub="hub-b", persistent=True)
            nursery.start_soon(client.ask, "hub-b/y", "hub-a/s slow")
            await trio.sleep(1)

            assert await client.ask("hub-b/x", "hub-a/s now") == "x hub-b/y!"


async def test_the_circle_is_an_error_of_its_own_to_who_asks(autojump_clock):
    async def lonely(ctx: AgentContext, prompt: str) -> str:
        with pytest.raises(AskCircle):
            await ctx.ask(ctx.address, "?")
        with pytest.raises(AskCircle):
            await ctx.ask(ctx.name, "?")
        return "so be it"

    async with open_test_cluster(1, agents={"lonely": lonely}) as cluster:
        async with cluster["hub-a"].open_client() as client:
            assert await (await client.spawn("lonely", "go")).result() == "so be it"


# Serving, for as long as it lives.


@pytest.mark.parametrize("prompt", ["", "begin"])
async def test_a_persistent_agent_serves(prompt, autojump_clock):
    async with open_test_cluster(2, agents=AGENTS, pair=byte_pair) as cluster:
        async with cluster["hub-a"].open_client() as client:
            agent = await client.spawn("serve", prompt, name="s", hub="hub-b", persistent=True)
            began = trio.current_time()

            for _ in range(3):
                assert await agent.ask("!", time_limit=5) == "hub-b/s!"
            assert trio.current_time() - began < 1
            await trio.sleep(20)  # the time of the first ask is long over
            assert await agent.ask("!") == "hub-b/s!"


async def test_it_serves_many_at_a_time_from_the_first(autojump_clock):
    async def server(ctx: AgentContext, prompt: str) -> str:
        async def answer(received: Received) -> str:
            await trio.sleep(float(received.text))
            return received.text

        await ctx.serve(answer)

    async with open_test_cluster(1, agents={"server": server}) as cluster:
        async with cluster["hub-a"].open_client() as client:
            agent = await client.spawn("server", persistent=True)
            replies = []

            async def ask(text: str) -> None:
                replies.append(await agent.ask(text))

            async with trio.open_nursery() as nursery:
                for text in ("3", "2", "1"):
                    nursery.start_soon(ask, text)
                    await trio.sleep(0.01)
            assert replies == ["1", "2", "3"]


async def test_a_message_that_begins_its_turn_is_served_too(autojump_clock):
    async def server(ctx: AgentContext, prompt: str) -> str:
        heard = []

        async def answer(received: Received) -> str:
            heard.append(received.text)
            return " ".join(heard)

        await ctx.serve(answer)

    async with open_test_cluster(1, agents={"server": server}) as cluster:
        async with cluster["hub-a"].open_client() as client:
            agent = await client.spawn("server", persistent=True)
            await agent.send("one")
            await agent.send("two")

            assert await agent.ask("three") == "one two three"


async def test_a_first_ask_that_is_withdrawn_ends_its_own_answer_and_nothing_else(autojump_clock):
    ended = []

    async def server(ctx: AgentContext, prompt: str) -> str:
        async def answer(received: Received) -> str:
            try:
                await trio.sleep(float(received.text))
            finally:
                ended.append(received.text)
            return received.text

        await ctx.serve(answer)

    async with open_test_cluster(1, agents={"server": server}) as cluster:
        async with cluster["hub-a"].open_client() as client:
            agent = await client.spawn("server", persistent=True)
            with trio.move_on_after(1):
                await agent.ask("100")
            await trio.sleep(0.1)
            assert ended == ["100"]
            with pytest.raises(trio.TooSlowError):
                await agent.ask("50", time_limit=1)
            assert await agent.ask("2") == "2"
            await client.interrupt(str(agent.address))  # ends the turn, and the next message begins another
            assert await agent.ask("3") == "3"
            assert (await agent.cancel()).kind == "cancelled"
