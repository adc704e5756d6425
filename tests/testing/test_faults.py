"""What goes wrong by name in a test cluster, and what is promised then."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio

from loopal_cluster import AgentContext, AgentLost, ConnectionLost
from loopal_cluster.outcomes import Done, Lost
from loopal_cluster.testing import META_HUB, TestCluster, byte_pair, open_test_cluster, record_pair


async def echo(ctx: AgentContext, prompt: str) -> str:
    return prompt


async def sleeper(ctx: AgentContext, prompt: str) -> str:
    await trio.sleep(float(prompt))
    return "slept"


async def lead(ctx: AgentContext, prompt: str) -> str:
    hub, task = prompt.split()
    agent = await ctx.spawn("sleeper", task, hub=hub)
    try:
        return await agent.result()
    except AgentLost:
        return "lost"


async def careful(ctx: AgentContext, prompt: str) -> str:
    decision = await ctx.ask_permission("shell", {"command": prompt})
    return "done" if decision.allow else f"not allowed: {decision.reason}"


AGENTS = {"echo": echo, "sleeper": sleeper, "lead": lead, "careful": careful}
both_pairs = pytest.mark.parametrize("pair", [record_pair, byte_pair], ids=["records", "bytes"])


def cluster_of(pair: Callable[..., Any] = record_pair, hubs: int = 2):
    return open_test_cluster(hubs, agents=AGENTS, pair=pair)


@both_pairs
async def test_what_a_killed_hub_ran_is_lost(autojump_clock, pair):
    async with cluster_of(pair) as cluster, cluster["hub-a"].open_client() as client:
        agent = await client.spawn("lead", "hub-b 1000")
        await trio.sleep(1)

        await cluster.kill("hub-b")

        with trio.fail_after(10):
            assert await agent.result() == "lost"
        assert "hub-b" not in {hub.name for hub in await client.list_hubs()}


async def test_the_program_that_is_attached_to_a_killed_hub_is_told(autojump_clock):
    async with cluster_of() as cluster, cluster["hub-b"].open_client() as client:
        agent = await client.spawn("sleeper", "1000")

        await cluster.kill("hub-b")

        with pytest.raises(ConnectionLost):
            await agent.result()


async def test_a_restarted_hub_is_another_with_an_empty_memory(autojump_clock):
    async with cluster_of() as cluster, cluster["hub-a"].open_client() as client:
        agent = await client.spawn("sleeper", "1000", name="old", hub="hub-b")
        before = cluster["hub-b"]

        await cluster.restart("hub-b")
        await cluster["hub-b"].until_joined()

        assert cluster["hub-b"] is not before
        assert isinstance(await agent.outcome(), Lost)
        again = await client.spawn("echo", "hello", name="old", hub="hub-b")
        assert await again.result() == "hello"


@both_pairs
async def test_agents_and_their_waiters_survive_that_the_meta_hub_is_restarted(autojump_clock, pair):
    async with cluster_of(pair) as cluster, cluster["hub-a"].open_client() as client:
        agent = await client.spawn("lead", "hub-b 5")
        await trio.sleep(1)

        await cluster.restart(META_HUB)

        assert await agent.result() == "slept"


@pytest.mark.limit(600)
async def test_a_hub_that_freezes_for_a_moment_loses_nothing(autojump_clock):
    async with cluster_of() as cluster, cluster["hub-a"].open_client() as client:
        agent = await client.spawn("lead", "hub-b 5")
        await trio.sleep(1)

        cluster.freeze("hub-b")
        await trio.sleep(40)
        assert [hub.status for hub in await client.list_hubs()] == ["Connected", "Degraded"]
        began = trio.current_time()
        cluster.thaw("hub-b")

        assert await agent.result() == "slept"
        assert trio.current_time() - began < 1


@pytest.mark.limit(600)
async def test_a_hub_that_stays_frozen_is_lost(autojump_clock):
    async with cluster_of() as cluster, cluster["hub-a"].open_client() as client:
        agent = await client.spawn("lead", "hub-b 5")
        await trio.sleep(1)

        cluster.freeze("hub-b")

        assert await agent.result() == "lost"


async def test_a_frozen_meta_hub_answers_when_it_goes_on(autojump_clock):
    async with cluster_of() as cluster, cluster["hub-a"].open_client() as client:
        cluster.freeze(META_HUB)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(thaw_after, cluster, META_HUB, 5)
            agent = await client.spawn("echo", "hello", hub="hub-b")
            assert await agent.result() == "hello"
        assert trio.current_time() >= 5


async def thaw_after(cluster: TestCluster, name: str, seconds: float) -> None:
    await trio.sleep(seconds)
    cluster.thaw(name)


@both_pairs
async def test_a_cut_loses_nothing(autojump_clock, pair):
    async with cluster_of(pair) as cluster, cluster["hub-a"].open_client() as client:
        agent = await client.spawn("lead", "hub-b 5")
        for name in ("hub-a", "hub-b", META_HUB):
            await trio.sleep(1)
            await cluster.cut(name)

        assert await agent.result() == "slept"


@both_pairs
async def test_a_partition_that_is_healed_in_time_loses_nothing_and_delivers_once(autojump_clock, pair):
    async with cluster_of(pair) as cluster, cluster["hub-a"].open_client() as client:
        agent = await client.spawn("lead", "hub-b 2")
        await trio.sleep(1)

        cluster.partition("hub-b")
        await trio.sleep(5)
        cluster.heal("hub-b")

        assert await agent.result() == "slept"
        assert trio.current_time() < 8


@pytest.mark.limit(600)
async def test_a_partition_that_lasts_loses_what_is_behind_it_and_ends_it_there_too(autojump_clock):
    async with cluster_of() as cluster, cluster["hub-a"].open_client() as client:
        agent = await client.spawn("lead", "hub-b 1000")
        await trio.sleep(1)

        cluster.partition("hub-b")

        assert await agent.result() == "lost"
        await trio.sleep(120)
        async with cluster["hub-b"].open_client() as behind:
            assert await behind.local_agents() == ()


async def test_the_human_of_a_test_allows_and_denies(autojump_clock):
    async with cluster_of() as cluster, cluster.open_operator() as human:
        async with cluster["hub-a"].open_client() as client:
            for allowed in (True, False):
                agent = await client.spawn("careful", "rm -r build", hub="hub-b")
                asked = await human.next()
                assert (asked.tool, asked.agent) == ("shell", f"hub-b/{agent.address.agent}")
                if allowed:
                    asked.allow()
                else:
                    asked.deny("too much")
                assert await agent.result() == ("done" if allowed else "not allowed: too much")


async def test_a_permission_of_a_hub_that_is_cut_off_meanwhile_is_answered(autojump_clock):
    async with cluster_of() as cluster, cluster.open_operator() as human:
        async with cluster["hub-a"].open_client() as client:
            agent = await client.spawn("careful", "make", hub="hub-b")
            asked = await human.next()
            await cluster.cut("hub-b")
            again = await human.next()
            for question in (asked, again):
                question.allow()

            assert await agent.result() == "done"


async def test_an_answer_of_the_wrong_kind_and_a_second_one_are_faults_of_the_test(autojump_clock):
    async with cluster_of() as cluster, cluster.open_operator("hub-a") as human:
        async with cluster["hub-a"].open_client() as client:
            agent = await client.spawn("careful", "make")
            asked = await human.next()
            with pytest.raises(TypeError, match="this is a permission"):
                asked.answer("yes")
            asked.allow()
            with pytest.raises(RuntimeError, match="has been answered"):
                asked.deny()
            assert await agent.outcome() == Done("done")


async def test_a_name_that_is_not_there_is_a_key_error_that_tells_the_names(autojump_clock):
    async with cluster_of() as cluster:
        with pytest.raises(KeyError, match="no 'hub-x' in this cluster; there are meta, hub-a, hub-b"):
            await cluster.kill("hub-x")
        await cluster.kill("hub-a")
        with pytest.raises(RuntimeError, match="'hub-a' was killed; restart it first"):
            cluster.freeze("hub-a")


async def test_no_hub_may_have_the_name_of_the_meta_hub(autojump_clock):
    with pytest.raises(ValueError, match="give the hub another one"):
        async with open_test_cluster(("meta",)):
            pass


@pytest.mark.parametrize("name", ["hub-b", META_HUB])
@pytest.mark.parametrize("fault", ["kill", "freeze", "partition", "cut"])
async def test_the_block_ends_whatever_state_it_is_in(autojump_clock, name, fault):
    with trio.fail_after(60):
        async with cluster_of() as cluster, cluster["hub-a"].open_client() as client:
            await client.spawn("sleeper", "1000", hub="hub-b")
            done = getattr(cluster, fault)(name)
            if done is not None:
                await done


async def test_an_error_of_the_test_comes_out_as_it_was_raised(autojump_clock):
    async def fail() -> None:
        async with cluster_of() as cluster:
            cluster.freeze("hub-a")
            raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        await fail()
