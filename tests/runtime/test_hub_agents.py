"""Agents of a hub, together: routing, spawning, waiting, ending; and that nothing is left of real ones."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from attrs import frozen

from loopal_cluster import (
    AgentContext,
    AgentFailed,
    AgentNotFound,
    AgentType,
    Cancelled,
    Client,
    CommandAgent,
    Decision,
    Done,
    Failed,
    FunctionAgent,
    Limits,
    NameTaken,
    Overloaded,
    ProcessAgent,
    Role,
    SpawnFailed,
    Timeouts,
    open_hub,
)
from loopal_cluster.completions import AGENT_COMPLETED
from loopal_cluster.links.ambient import Ambient
from loopal_cluster.links.channels import record_pair
from loopal_cluster.links.client import open_client
from loopal_cluster.messages import Permission
from loopal_cluster.outcomes import reason_of
from loopal_cluster.payloads import AwaitingInput, Stream
from loopal_cluster.testing import open_test_cluster

from ..processes import children_of_ours, open_fds, until

BASE_AGENT = str(Path(__file__).parents[1] / "agents" / "base_agent.py")


async def echo(ctx: AgentContext, prompt: str) -> str:
    return f"echo {prompt}"


async def work(ctx: AgentContext, prompt: str) -> str:
    """``work 5`` takes five seconds."""
    await trio.sleep(float(prompt))
    return f"{ctx.name} took {prompt}"


async def fail(ctx: AgentContext, prompt: str) -> None:
    raise ValueError(prompt)


async def silent(ctx: AgentContext, prompt: str) -> None:
    """Has no result."""


async def stay(ctx: AgentContext, prompt: str) -> None:
    await trio.sleep_forever()


async def relay(ctx: AgentContext, prompt: str) -> str:
    """Pass one message on to the agent that the prompt names, with our own name added."""
    received = await ctx.receive()
    if prompt:
        await ctx.send(prompt, f"{received.text} > {ctx.name}")
    return f"{received.text}, from {received.sender}"


async def descend(ctx: AgentContext, prompt: str) -> str:
    """Have descendants on the hubs that the prompt names; the last one writes to the first agent."""
    hub, _, rest = prompt.partition(" ")
    if hub:
        child = await ctx.spawn("descend", rest, hub=hub, name=f"{ctx.name}-child")
        if ctx.parent is None:
            received = await ctx.receive()
            return f"{received.sender} wrote {received.text}"
        return await child.result()
    await ctx.send("hub-a/root", f"from {ctx.address}, child of {ctx.parent}")
    return "written"


async def nest(ctx: AgentContext, prompt: str) -> str:
    """Have a child on the first hub that the prompt names, which does the same with the rest of it."""
    hub, _, rest = prompt.partition(" ")
    if hub == "stay":
        await trio.sleep_forever()
    if hub:
        child = await ctx.spawn("nest", rest, hub=hub)
        return await child.result()
    return f"the bottom is on {ctx.hub}"


async def gather(ctx: AgentContext, prompt: str) -> list[str]:
    """Have children that take as long as the prompt says; collect their results as they come."""
    hubs = ("hub-a", "hub-b")
    for number, seconds in enumerate(prompt.split()):
        await ctx.spawn("work", seconds, name=f"w{number}", hub=hubs[number % 2], notify_parent=True)
    received = [await ctx.receive() for _ in prompt.split()]
    assert {r.source for r in received} == {AGENT_COMPLETED}
    return [r.text.splitlines()[1] for r in received]


async def parent(ctx: AgentContext, prompt: str) -> None:
    """Have children ``[[type, hub, detached], ...]``, say so, and stay until told how to end."""
    for number, (agent_type, hub, detached) in enumerate(json.loads(prompt)):
        await ctx.spawn(agent_type, "", hub=hub, name=f"child-{number}", detached=detached)
    ctx.stream("ready")
    if (await ctx.receive()).text == "fail":
        raise ValueError("as I was told")


AGENTS = {
    "echo": echo,
    "work": work,
    "fail": fail,
    "silent": silent,
    "stay": stay,
    "relay": relay,
    "descend": descend,
    "gather": gather,
    "nest": nest,
    "parent": parent,
}


def cluster(hubs: int = 2, **options: Any):
    return open_test_cluster(hubs, agents=AGENTS, **options)


async def until_ready(client: Client, agent: str, *args: Any) -> None:
    """Spawn a ``parent`` and wait until it has its children."""
    events = await client.subscribe()
    await client.spawn("parent", json.dumps(args), name=agent)
    async for event in events:
        if event.payload == Stream("ready"):
            return


async def names(client: Client) -> set[str]:
    return {node.name for node in await client.local_agents()}


# Messages.


@pytest.mark.parametrize("hubs", [("hub-a", "hub-a", "hub-a"), ("hub-a", "hub-b", "hub-c")])
async def test_a_message_goes_along_a_chain(hubs: Sequence[str], autojump_clock):
    async with cluster(3) as three, three["hub-a"].open_client() as client:
        chain = {"a": "b", "b": "c", "c": ""}
        handles = [
            await client.spawn("relay", next_one, name=name, hub=hub)
            for (name, next_one), hub in zip(chain.items(), hubs, strict=True)
        ]
        await client.send(f"{hubs[0]}/a", "go")

        results = [await handle.result() for handle in handles]

        b = "a" if hubs[0] == hubs[1] else "hub-a/a"
        c = "b" if hubs[1] == hubs[2] else "hub-b/b"
        assert results == ["go, from None", f"go > a, from {b}", f"go > a > b, from {c}"]


@pytest.mark.parametrize("hubs", ["hub-a hub-a", "hub-b hub-c", "hub-b hub-a", "hub-b hub-b hub-b"])
async def test_a_descendant_writes_to_the_first_agent(hubs, autojump_clock):
    async with cluster(3) as three, three["hub-a"].open_client() as client:
        *_, hub = hubs.split()
        last = "root" + "-child" * len(hubs.split())
        sender = last if hub == "hub-a" else f"{hub}/{last}"

        result = await (await client.spawn("descend", hubs, name="root")).result()

        assert result.startswith(f"{sender} wrote from {hub}/{last}, child of ")


async def test_a_message_to_an_agent_that_has_ended_is_refused(autojump_clock):
    async with cluster() as both, both["hub-a"].open_client() as client:
        agent = await client.spawn("echo", "x", name="worker", hub="hub-b")
        await agent.result()

        with pytest.raises(AgentNotFound):
            await agent.send("hello?")


async def test_the_inbox_is_as_long_as_the_hub_of_the_agent_says(autojump_clock):
    async with cluster(limits=Limits(inbox=2)) as both, both["hub-a"].open_client() as client:
        await client.spawn("stay", name="worker", hub="hub-b")
        for _ in range(2):
            await client.send("worker", "hello")

        with pytest.raises(Overloaded, match=r"the inbox is full \(2 messages\)"):
            await client.send("worker", "one too many")


@frozen
class SlowStart:
    """An agent that takes five seconds to come up."""

    agent: AgentType

    @asynccontextmanager
    async def open(self, place: Any) -> AsyncIterator[Any]:
        await trio.sleep(5)
        async with self.agent.open(place) as running:
            yield running


class _Mute:
    """An agent that says nothing, and takes its time to go."""

    def __init__(self) -> None:
        self.channel, self._other = record_pair()

    async def stop(self) -> str:
        await trio.sleep(3)
        return "gone at last"


class MuteAtFirst:
    """An agent type that opens a mute agent, then good ones."""

    def __init__(self, agent: AgentType) -> None:
        self._agent = agent
        self._opened = 0

    @asynccontextmanager
    async def open(self, place: Any) -> AsyncIterator[Any]:
        self._opened += 1
        if self._opened == 1:
            yield _Mute()
        else:
            async with self._agent.open(place) as running:
                yield running


async def test_an_agent_that_failed_to_come_up_is_not_started_again_when_its_spawn_is_repeated(
    autojump_clock,
):
    agents = {"stay": MuteAtFirst(FunctionAgent(stay))}
    same = Ambient(new_id=lambda: "a-1")
    async with open_hub("h", agents=agents, timeouts=Timeouts(start_timeout=1)) as hub:
        ours, theirs = record_pair()
        hub.attach(theirs)
        async with open_client(ours, name="program", token=hub.token, ambient=same) as client:
            with pytest.raises(SpawnFailed, match="in time"):
                await client.spawn("stay", name="a")
            with pytest.raises(SpawnFailed, match="in time"):
                await client.spawn("stay", name="a")
            await trio.sleep(10)

            assert await client.local_agents() == ()


async def test_a_message_to_an_agent_that_comes_up_waits_for_it(autojump_clock):
    agents = {"relay": SlowStart(FunctionAgent(relay))}
    async with open_test_cluster(1, agents=agents) as one, one["hub-a"].open_client() as client:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(client.spawn, name="early"), "relay")
            await trio.testing.wait_all_tasks_blocked()
            await client.send("early", "hello")

        assert await client.wait("early") == Done("hello, from None")


@pytest.mark.parametrize("hub", [None, "hub-b"])
async def test_an_agent_that_is_cancelled_while_it_comes_up_never_was_up(hub, autojump_clock):
    agents = {"relay": SlowStart(FunctionAgent(relay))}
    async with open_test_cluster(2, agents=agents) as both, both["hub-a"].open_client() as client:
        async with trio.open_nursery() as nursery:

            async def spawn() -> None:
                with pytest.raises(SpawnFailed, match="enough"):
                    await client.spawn("relay", name="early", hub=hub)

            nursery.start_soon(spawn)
            await trio.testing.wait_all_tasks_blocked()

            await client.cancel("early", "enough")

        assert await names(client) == set()


# Events and permissions, at the same time.


async def test_events_of_many_agents_at_once_all_arrive_in_the_order_of_each(autojump_clock):
    async def talk(ctx: AgentContext, prompt: str) -> None:
        for number in range(20):
            ctx.stream(f"{ctx.name} {number}")
            await trio.lowlevel.checkpoint()

    async with open_test_cluster(1, agents={"talk": talk}) as one, one["hub-a"].open_client() as client:
        events = await client.subscribe()
        handles = [await client.spawn("talk", name=f"t{number}") for number in range(10)]
        for handle in handles:
            await handle.outcome()

        heard: dict[str | None, list[str]] = {}
        while sum(map(len, heard.values())) < 200:
            event = await anext(events)
            if isinstance(event.payload, Stream):
                heard.setdefault(event.agent, []).append(event.payload.text)
        assert heard == {f"t{n}": [f"t{n} {number}" for number in range(20)] for n in range(10)}
        assert events.missed == 0


async def test_permissions_asked_at_the_same_time_are_each_answered_for_themselves(autojump_clock):
    async def ask(ctx: AgentContext, prompt: str) -> list[Any]:
        decision = await ctx.ask_permission("Paint", prompt)
        return [decision.allow, decision.reason]

    async def decide(permission: Permission) -> Decision:
        number = int(json.loads(permission.tool_input.json))
        await trio.sleep(10 - number)  # the last asked is answered first
        return Decision(allow=number % 2 == 0, reason=f"{permission.agent_name} asked {number}")

    async with open_test_cluster(1, agents={"ask": ask}) as one:
        async with (
            one["hub-a"].open_client(role=Role.OPERATOR, on_permission=decide),
            one["hub-a"].open_client() as client,
        ):
            handles = [await client.spawn("ask", str(n), name=f"a{n}") for n in range(10)]

            answers = [json.loads(await handle.result()) for handle in handles]

            assert answers == [[n % 2 == 0, f"a{n} asked {n}"] for n in range(10)]


# Waiting.


@pytest.mark.parametrize("prompt", ["1 2 3 4", "4 3 2 1", "2 4 1 3", "1 1 1 1"])
async def test_children_finish_in_any_order_and_each_is_told_of_once(prompt, autojump_clock):
    async with cluster() as both, both["hub-a"].open_client() as client:
        results = json.loads(await (await client.spawn("gather", prompt)).result())

        expected = sorted((float(s), f"w{n} took {s}") for n, s in enumerate(prompt.split()))
        assert sorted(results) == sorted(text for _, text in expected)
        assert [float(text.split()[-1]) for text in results] == [seconds for seconds, _ in expected]


@pytest.mark.parametrize("hub", ["hub-a", "hub-b"])
async def test_any_number_may_wait_and_all_get_the_same(hub, autojump_clock):
    async with cluster(3) as three, three["hub-a"].open_client() as client:
        await client.spawn("work", "5", name="worker", hub=hub)
        outcomes = []

        async def wait(waiter: Client) -> None:
            outcomes.append(await waiter.wait(f"{hub}/worker"))

        async with three["hub-b"].open_client() as second, three["hub-c"].open_client() as third:
            async with trio.open_nursery() as nursery:
                for waiter in (client, client, second, second, third):
                    nursery.start_soon(wait, waiter)
            await wait(third)  # late

        assert outcomes == [Done("worker took 5")] * 6


async def test_a_wait_blocks_nothing(autojump_clock):
    async with cluster() as both, both["hub-a"].open_client() as client:
        await client.spawn("work", "30", name="slow", hub="hub-b")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.wait, "hub-b/slow")
            await trio.testing.wait_all_tasks_blocked()
            before = trio.current_time()

            assert (await client.status()).agent_count == 1
            assert await (await client.spawn("echo", "x")).result() == "echo x"
            assert await (await client.spawn("echo", "x", hub="hub-b")).result() == "echo x"

            assert trio.current_time() == before


@pytest.mark.parametrize("hub", [None, "hub-b"])
@pytest.mark.parametrize(
    ("agent_type", "prompt", "outcome"),
    [("echo", "x", Done("echo x")), ("silent", "", Done("")), ("fail", "no", Failed("ValueError: no"))],
)
async def test_an_outcome_is_with_a_result_without_or_with_an_error(
    hub, agent_type, prompt, outcome, autojump_clock
):
    async with cluster() as both, both["hub-a"].open_client() as client:
        ended = await (await client.spawn(agent_type, prompt, hub=hub)).outcome()

        assert type(ended) is type(outcome)
        assert reason_of(ended) == reason_of(outcome)  # a traceback may come with it


async def test_waiting_for_nobody_fails_at_once(autojump_clock):
    async with cluster() as both, both["hub-a"].open_client() as client:
        with pytest.raises(AgentNotFound):
            await client.wait("nobody")
        with pytest.raises(AgentNotFound):
            await client.wait("hub-b/nobody")


# Names and budgets.


@pytest.mark.parametrize("hub", [None, "hub-b"])
async def test_a_name_is_taken_until_its_agent_has_ended_and_results_go_by_identity(hub, autojump_clock):
    async with cluster() as both, both["hub-a"].open_client() as client:
        first = await client.spawn("work", "1", name="worker", hub=hub)
        with pytest.raises(NameTaken, match="worker"):
            await client.spawn("work", "2", name="worker", hub=hub)
        assert await first.result() == "worker took 1"

        second = await client.spawn("work", "2", name="worker", hub=hub)

        assert await second.result() == "worker took 2"
        assert await first.result() == "worker took 1"


async def test_the_same_name_on_another_hub_is_another_agent(autojump_clock):
    async with cluster() as both, both["hub-a"].open_client() as client:
        here = await client.spawn("work", "1", name="worker")
        there = await client.spawn("work", "2", name="worker", hub="hub-b")

        assert (await here.result(), await there.result()) == ("worker took 1", "worker took 2")


async def test_agents_nest_only_so_deep_across_hubs(autojump_clock):
    async with cluster(limits=Limits(agent_depth=4)) as both, both["hub-a"].open_client() as client:
        deep = await client.spawn("nest", "hub-b hub-a hub-b hub-a")
        too_deep = await client.spawn("nest", "hub-b hub-a hub-b hub-a hub-b")

        assert await deep.result() == "the bottom is on hub-a"
        with pytest.raises(AgentFailed, match="agents nest at most 4 deep"):
            await too_deep.result()


# Ending.


@pytest.mark.parametrize("how", ["cancel", "fail", "end"])
async def test_whatever_ends_a_parent_ends_its_children_here_and_there_but_not_the_detached(
    how, autojump_clock
):
    async with cluster() as both:
        async with both["hub-a"].open_client() as client, both["hub-b"].open_client() as there:
            children = (["stay", None, False], ["stay", "hub-b", False], ["stay", "hub-b", True])
            await until_ready(client, "chief", *children)
            assert await names(there) == {"child-1", "child-2"}

            if how == "cancel":
                await client.cancel("chief", "enough")
            else:
                await client.send("chief", how)
            await trio.testing.wait_all_tasks_blocked()

            for child in ("child-0", "hub-b/child-1"):
                outcome = await client.wait(child)
                assert isinstance(outcome, Cancelled)
                assert "its parent 'chief'" in outcome.reason
            assert await names(there) == {"child-2"}
            assert await there.cancel("child-2") == Cancelled("cancelled")


async def test_grandchildren_on_other_hubs_end_with_their_root(autojump_clock):
    async with cluster(3) as three:
        async with three["hub-a"].open_client() as client, three["hub-c"].open_client() as far:
            root = await client.spawn("nest", "hub-b hub-a hub-c stay")
            await trio.testing.wait_all_tasks_blocked()
            assert len(await names(far)) == 1

            await root.cancel()
            await trio.testing.wait_all_tasks_blocked()

            assert await names(far) == await names(client) == set()


async def test_a_child_that_takes_its_time_to_end_is_waited_for(autojump_clock):
    async def stubborn(ctx: AgentContext, prompt: str) -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(7)

    async with open_test_cluster(1, agents={"stubborn": stubborn}) as one:
        async with one["hub-a"].open_client() as client:
            agent = await client.spawn("stubborn", name="mule")
            before = trio.current_time()

            assert await agent.cancel("enough") == Cancelled("enough")
            assert trio.current_time() - before == pytest.approx(7)


async def test_leaving_a_hub_ends_its_agents_and_tells_their_parents(autojump_clock):
    async with cluster(1) as one:
        hub_a = one["hub-a"]
        async with hub_a.open_client() as client:
            async with open_hub(
                "hub-z", agents=AGENTS, join=lambda: one.dial("hub-z"), meta_token=one.meta_hub.token
            ):
                agent = await client.spawn("stay", name="worker", hub="hub-z")

            assert await agent.outcome() == Cancelled("hub 'hub-z' is closing")


# Real processes.


REAL: dict[str, Any] = {
    "base": ProcessAgent([sys.executable, "-I", "-S", BASE_AGENT, "plain"]),
    "sleep": CommandAgent(["sleep", "1000"]),
    "parent": parent,
    "stay": stay,
}


@pytest.mark.parametrize("mode", ["stone", "deaf"])
async def test_a_real_agent_that_ignores_everything_is_killed_when_its_grace_is_over(mode):
    agent = ProcessAgent([sys.executable, "-I", "-S", BASE_AGENT, mode])
    async with open_hub("solo", agents={"it": agent}, timeouts=Timeouts(stop_grace=1.0)) as hub:
        async with hub.open_client() as client:
            handle = await client.spawn("it", persistent=True)
            events = await client.subscribe(since=0)
            async for event in events:
                if isinstance(event.payload, AwaitingInput):
                    break
            began = trio.current_time()

            assert await handle.cancel("enough") == Cancelled("enough")

            took = trio.current_time() - began
            # The one that answers is not waited for so long.
            assert (1.0 if mode == "stone" else 0.75) <= took < 2.0
            assert children_of_ours() == set()


async def test_the_real_children_of_a_cancelled_parent_are_gone_on_every_hub():
    timeouts = Timeouts(stop_grace=0.5)
    async with open_test_cluster(2, agents=REAL, timeouts=timeouts) as both:
        async with both["hub-a"].open_client() as client:
            await until_ready(client, "chief", ["sleep", None, False], ["sleep", "hub-b", False])
            await until(lambda: len(children_of_ours()) == 2)

            with trio.fail_after(10):
                await client.cancel("chief", "enough")
                await client.wait("child-0")
                await client.wait("hub-b/child-1")

            assert children_of_ours() == set()


@pytest.mark.limit(120)
async def test_a_hundred_spawns_and_fifty_kills_leave_nothing():
    fds = open_fds()
    async with open_hub("solo", agents=REAL, timeouts=Timeouts(stop_grace=1.0)) as hub:
        async with hub.open_client() as client:
            await (await client.spawn("base", "warm up")).outcome()  # with the first child comes the guard
            await until(lambda: not children_of_ours())
            fds_of_hub = open_fds()
            outcomes: list[Any] = []

            async def run(number: int) -> None:
                agent = await client.spawn("base", str(number))
                outcomes.append(await agent.outcome())

            async def kill(number: int) -> None:
                agent = await client.spawn("base" if number % 2 else "sleep", persistent=bool(number % 2))
                await agent.cancel("enough")
                outcomes.append(await agent.outcome())

            async with trio.open_nursery() as nursery:
                for number in range(50):
                    nursery.start_soon(run, number)
                    nursery.start_soon(kill, number)

            assert sorted(o.result for o in outcomes if isinstance(o, Done)) == sorted(
                f"did {number}" for number in range(50)
            )
            assert outcomes.count(Cancelled("enough")) == 50
            assert await client.local_agents() == ()
            # An outcome is known when the agent has said it; its process is reaped a moment later.
            await until(lambda: not children_of_ours() and open_fds() <= fds_of_hub)
    assert open_fds() == fds


async def test_real_children_that_are_killed_from_outside_have_failed():
    async with open_hub("solo", agents=REAL, timeouts=Timeouts(stop_grace=1.0)) as hub:
        async with hub.open_client() as client:
            agents = [await client.spawn("base", persistent=True) for _ in range(5)]

            for pid in children_of_ours():
                os.kill(pid, signal.SIGKILL)

            for agent in agents:
                assert await agent.outcome() == Failed("it ended without a result: killed by SIGKILL")
            assert children_of_ours() == set()
