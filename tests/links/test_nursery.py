"""Agents on other hubs as children of a nursery."""

from __future__ import annotations

import pytest
import trio

from loopal_cluster import AgentContext, AgentFailed, AgentTimedOut
from loopal_cluster.testing import open_test_cluster


class Seen:
    """What the idle agents of a test have been through."""

    up: trio.Event
    started: list[str]
    ended: list[str]


async def count(ctx: AgentContext, prompt: str) -> str:
    return f"{ctx.hub}: {len(prompt.split())}"


async def fail(ctx: AgentContext, prompt: str) -> str:
    raise ValueError(prompt)


async def idle(ctx: AgentContext, prompt: str) -> str:
    Seen.started.append(ctx.address)
    Seen.up.set()
    try:
        await trio.sleep_forever()
    finally:
        Seen.ended.append(ctx.address)


async def delegate(ctx: AgentContext, prompt: str) -> str:
    """Spawn an idle agent on the hub that the prompt names, and wait for it."""
    async with ctx.open_agents() as agents:
        await agents.spawn("idle", hub=prompt, name="grandchild")
    return "never"


AGENTS = {"count": count, "fail": fail, "idle": idle, "delegate": delegate}


@pytest.fixture(autouse=True)
def _forget() -> None:
    Seen.up, Seen.started, Seen.ended = trio.Event(), [], []


async def test_the_block_ends_when_every_child_has(autojump_clock):
    async with open_test_cluster(3, agents=AGENTS) as cluster, cluster["hub-a"].open_client() as client:
        handles = []
        async with client.open_agents() as agents:
            for hub in await client.list_hubs():
                handles.append(await agents.spawn("count", "one two", hub=hub.name))

        assert [await handle.result() for handle in handles] == ["hub-a: 2", "hub-b: 2", "hub-c: 2"]


async def test_a_failing_child_cancels_the_others_and_their_descendants(autojump_clock):
    async with open_test_cluster(3, agents=AGENTS) as cluster, cluster["hub-a"].open_client() as client:
        with pytest.RaisesGroup(
            pytest.RaisesExc(AgentFailed, match="hub-c/broken: ValueError: no")
        ) as caught:
            async with client.open_agents() as agents:
                await agents.spawn("delegate", "hub-c", hub="hub-b", name="middle")
                await Seen.up.wait()
                await agents.spawn("fail", "no", hub="hub-c", name="broken")

        assert Seen.ended == ["hub-c/grandchild"]
        assert "Remote traceback of hub-c/broken" in caught.value.exceptions[0].__notes__[0]
        assert all(not hub.core.agents for hub in cluster.hubs.values())


async def test_the_callers_deadline_stops_what_runs_elsewhere(autojump_clock):
    async with open_test_cluster(2, agents=AGENTS) as cluster, cluster["hub-a"].open_client() as client:
        with trio.move_on_after(5) as scope:
            async with client.open_agents() as agents:
                await agents.spawn("idle", hub="hub-b")

        assert scope.cancelled_caught
        assert Seen.ended == Seen.started
        assert not cluster["hub-b"].core.agents


async def test_cancelling_while_a_child_comes_up_leaves_no_child(autojump_clock):
    async with open_test_cluster(2, agents=AGENTS) as cluster, cluster["hub-a"].open_client() as client:
        with trio.CancelScope() as scope:
            async with client.open_agents() as agents:
                scope.cancel()
                await agents.spawn("idle", hub="hub-b")

        assert not cluster["hub-a"].core.agents
        assert not cluster["hub-b"].core.agents


async def test_a_cancelled_connection_still_stops_what_it_was_starting(autojump_clock):
    async with open_test_cluster(2, agents=AGENTS) as cluster:
        with trio.move_on_after(5) as scope:
            async with cluster["hub-a"].open_client() as client, client.open_agents() as agents:
                await agents.spawn("idle", hub="hub-b")
                await trio.sleep_forever()

        assert scope.cancelled_caught
        assert trio.current_time() - scope.deadline < 1.0
        assert not cluster["hub-b"].core.agents


async def test_a_child_ends_when_its_own_time_is_over(autojump_clock):
    began = trio.current_time()
    async with open_test_cluster(2, agents=AGENTS) as cluster, cluster["hub-a"].open_client() as client:
        with pytest.raises(ExceptionGroup) as raised:
            async with client.open_agents() as agents:
                await agents.spawn("idle", hub="hub-b", time_limit=3)

    assert [type(error) for error in raised.value.exceptions] == [AgentTimedOut]
    assert 3 <= trio.current_time() - began < 4


async def test_the_time_of_the_block_is_over_for_a_child_with_more_of_its_own(autojump_clock):
    async with open_test_cluster(2, agents=AGENTS) as cluster, cluster["hub-a"].open_client() as client:
        with trio.move_on_after(3) as scope:
            async with client.open_agents() as agents:
                await agents.spawn("idle", hub="hub-b", time_limit=300)

    assert scope.cancelled_caught
    assert len(Seen.ended) == 1


async def test_an_option_that_there_is_not_is_refused_and_starts_nothing(autojump_clock):
    async with open_test_cluster(1, agents=AGENTS) as cluster, cluster["hub-a"].open_client() as client:
        with pytest.raises(ExceptionGroup) as raised:
            async with client.open_agents() as agents:
                await agents.spawn("idle", timeout=3)  # type: ignore[call-arg]

    assert [type(error) for error in raised.value.exceptions] == [TypeError]
    assert Seen.started == []
