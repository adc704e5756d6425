"""Permissions and questions on their way to a human, wherever that human is."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from loopal_cluster import (
    AgentContext,
    Answers,
    Decision,
    NoOperator,
    Policy,
    Role,
    Timeouts,
)
from loopal_cluster.links.caller import open_caller
from loopal_cluster.links.client import open_client
from loopal_cluster.messages import Register
from loopal_cluster.testing import byte_pair, open_test_cluster, record_pair


async def careful(ctx: AgentContext, prompt: str) -> list[object]:
    """Ask once, and tell the answer and when it came."""
    began = trio.current_time()
    decision = await ctx.ask_permission("Bash", {"command": prompt})
    return [decision.allow, decision.by, decision.reason, trio.current_time() - began]


async def curious(ctx: AgentContext, prompt: str) -> str:
    try:
        return ",".join(await ctx.ask_human(prompt, ["tea", "coffee"]))
    except NoOperator as error:
        return f"nobody: {error}"


AGENTS = {"careful": careful, "curious": curious}


class Operator:
    """A human: what they were asked, what they were told, and what they answer and when."""

    def __init__(self, answer: bool | None = True, after: float = 0.0) -> None:
        self.answer = answer
        self.after = after
        self.asked: list[tuple[str | None, str]] = []
        self.told: list[tuple[str | None, bool | None]] = []
        self.interrupted = 0

    async def judge(self, permission) -> Decision:
        self.asked.append((permission.agent_name, permission.tool_input.json.decode()))
        try:
            await trio.sleep(self.after if self.answer is not None else 1e6)
        except trio.Cancelled:
            self.interrupted += 1
            raise
        return Decision(allow=bool(self.answer))

    async def advise(self, question) -> Answers:
        self.asked.append((question.agent_name, "question"))
        await trio.sleep(self.after if self.answer is not None else 1e6)
        return Answers(("tea",))

    def decided(self, decided) -> None:
        self.told.append((decided.by, decided.allow))


@asynccontextmanager
async def attached(place, operator: Operator, name: str = "olga", pair=byte_pair, acknowledge: bool = True):
    """An operator at a hub or a MetaHub, over bytes."""
    ours, theirs = pair()
    place.attach(theirs)
    async with open_client(
        ours,
        name=name,
        token=place.token,
        role=Role.OPERATOR,
        on_permission=operator.judge,
        on_question=operator.advise,
        on_decided=operator.decided,
        acknowledge=acknowledge,
    ) as client:
        yield client


@asynccontextmanager
async def cluster_with_client(hubs: int = 1, **settings):
    async with open_test_cluster(hubs, agents=AGENTS, pair=byte_pair, **settings) as cluster:
        async with cluster["hub-a"].open_client() as client:
            yield cluster, client


async def ask(client, command: str = "ls") -> list[object]:
    agent = await client.spawn("careful", command, name="asker")
    return json.loads(await agent.result())


def place_of(cluster, where: str):
    return cluster.meta_hub if where == "meta_hub" else cluster["hub-a"]


everywhere = pytest.mark.parametrize("where", ["hub", "meta_hub"])


@everywhere
@pytest.mark.parametrize("answer", [True, False])
async def test_an_operator_decides_at_the_hub_or_at_the_meta_hub(where, answer, autojump_clock):
    operator = Operator(answer)
    async with cluster_with_client() as (cluster, client):
        async with attached(place_of(cluster, where), operator):
            allow, by, _, _ = await ask(client)

    assert (allow, by) == (answer, "olga")
    name = "asker" if where == "hub" else "hub-a/asker"
    assert operator.asked == [(name, '{"command":"ls"}')]


@everywhere
async def test_of_several_operators_the_first_decides_and_the_others_are_told(where, autojump_clock):
    slow, fast = Operator(answer=True, after=5.0), Operator(answer=False, after=1.0)
    async with cluster_with_client() as (cluster, client):
        place = place_of(cluster, where)
        async with attached(place, slow, "slow"), attached(place, fast, "fast"):
            allow, by, _, took = await ask(client)
            await trio.sleep(10.0)

    assert (allow, by, took) == (False, "fast", 1.0)
    assert (slow.interrupted, slow.told) == (1, [("fast", False)])
    assert (fast.interrupted, fast.told) == (0, [])


async def test_operators_of_the_hub_come_before_those_of_the_meta_hub(autojump_clock):
    near, far = Operator(answer=True, after=5.0), Operator(answer=False)
    async with cluster_with_client() as (cluster, client):
        async with attached(cluster.meta_hub, far, "far"), attached(cluster["hub-a"], near, "near"):
            allow, by, _, _ = await ask(client)

    assert (allow, by, far.asked) == (True, "near", [])


@pytest.mark.parametrize(("acknowledge", "far_asked"), [(True, 0), (False, 1)])
async def test_what_no_operator_of_the_hub_acknowledges_is_asked_at_the_meta_hub_too(
    acknowledge, far_asked, autojump_clock
):
    near, far = Operator(answer=True, after=20.0), Operator(answer=False)
    async with cluster_with_client() as (cluster, client):
        async with (
            attached(cluster["hub-a"], near, acknowledge=acknowledge),
            attached(cluster.meta_hub, far, "far"),
        ):
            allow, by, _, took = await ask(client)

    assert len(far.asked) == far_asked
    assert (allow, by, took) == ((True, "olga", 20.0) if acknowledge else (False, "far", 5.0))


@pytest.mark.limit(1000)
@pytest.mark.parametrize("joined", [True, False])
async def test_without_operators_it_is_denied_in_words_at_the_deadline(joined, autojump_clock):
    async with cluster_with_client() as (cluster, client):
        if not joined:
            cluster.isolate()
            await cluster.cut("hub-a")
        allow, by, reason, took = await ask(client)

    assert allow is False
    assert by == "policy"
    assert reason == "nobody was there to answer within 300 s: no operator was attached"
    assert took == pytest.approx(300.0)


@pytest.mark.limit(1000)
@everywhere
async def test_an_operator_who_never_answers_is_no_answer(where, autojump_clock):
    operator = Operator(answer=None)
    async with cluster_with_client() as (cluster, client):
        async with attached(place_of(cluster, where), operator):
            allow, _, reason, took = await ask(client)

    assert (allow, reason) == (False, "no operator answered within 300 s")
    assert took == pytest.approx(300.0)
    assert operator.interrupted == 1


@everywhere
async def test_an_operator_who_leaves_has_not_answered_and_the_next_one_is_asked(where, autojump_clock):
    first, second = Operator(answer=None), Operator()
    async with cluster_with_client() as (cluster, client), trio.open_nursery() as nursery:
        place, results = place_of(cluster, where), []

        @nursery.start_soon
        async def asking() -> None:
            results.append(await ask(client))

        async with attached(place, first, "first"):
            await trio.sleep(1.0)
        await trio.sleep(1.0)
        assert results == []
        async with attached(place, second, "second"):
            await trio.sleep(1.0)

    assert results[0][:2] == [True, "second"]
    assert len(first.asked) == len(second.asked) == 1


async def test_when_the_last_operator_of_a_hub_leaves_those_of_the_meta_hub_are_asked(autojump_clock):
    near, far = Operator(answer=None), Operator()
    async with cluster_with_client() as (cluster, client), trio.open_nursery() as nursery:
        results: list[Any] = []

        async def asking() -> None:
            results.append(await ask(client))

        async with attached(cluster.meta_hub, far, "far"):
            async with attached(cluster["hub-a"], near, "near"):
                nursery.start_soon(asking)
                await trio.sleep(1.0)
                assert far.asked == []
            await trio.sleep(1.0)

    assert results[0][:2] == [True, "far"]


@everywhere
async def test_an_operator_who_fails_has_not_answered(where, autojump_clock):
    good = Operator(after=2.0)
    async with cluster_with_client() as (cluster, client):
        place = place_of(cluster, where)
        ours, theirs = byte_pair()
        place.attach(theirs)
        # An operator without a judge refuses what it is asked.
        bad = open_client(ours, name="bad", token=place.token, role=Role.OPERATOR)
        async with bad, attached(place, good, "good"):
            allow, by, _, took = await ask(client)

    assert (allow, by, took) == (True, "good", 2.0)


@pytest.mark.parametrize("who", ["observer", "client"])
async def test_only_operators_are_asked(who, autojump_clock):
    timeouts = Timeouts(permission_timeout=5.0)
    asked = []
    async with cluster_with_client(timeouts=timeouts) as (cluster, client):
        ours, theirs = record_pair()
        cluster["hub-a"].attach(theirs)
        async with open_caller(ours, lambda message, _: asked.append(message), lambda _: None) as caller:
            await caller.call(Register(name=who, token=cluster["hub-a"].token, role=Role(who)))
            allow, by, _, _ = await ask(client)

    assert (allow, by, asked) == (False, "policy", [])


async def test_who_has_a_handler_is_an_operator(autojump_clock):
    operator = Operator()
    async with cluster_with_client() as (cluster, client):
        async with cluster["hub-a"].open_client(name="ann", on_permission=operator.judge):
            allow, by, _, _ = await ask(client)

    assert (allow, by) == (True, "ann")


@pytest.mark.parametrize("who", ["observer", "client"])
@everywhere
async def test_a_handler_that_would_never_be_called_is_refused(where, who, autojump_clock):
    async with cluster_with_client() as (cluster, _):
        with pytest.raises(ValueError, match="are for operators"):
            async with place_of(cluster, where).open_client(role=Role(who), on_permission=Operator().judge):
                pass


async def test_an_ask_survives_the_reconnect_of_its_hub(autojump_clock):
    operator = Operator(after=3.0)
    async with cluster_with_client() as (cluster, client), trio.open_nursery() as nursery:
        results: list[Any] = []

        @nursery.start_soon
        async def asking() -> None:
            results.append(await ask(client))

        async with attached(cluster.meta_hub, operator):
            await trio.sleep(1.0)
            assert len(operator.asked) == 1
            await cluster.cut("hub-a")
            await trio.sleep(10.0)

    assert results[0][:2] == [True, "olga"]
    assert len(operator.asked) == 2
    assert operator.interrupted == 1


async def test_an_ask_made_while_the_uplink_is_down_is_shown_when_it_is_back(autojump_clock):
    operator = Operator()
    async with cluster_with_client() as (cluster, client), trio.open_nursery() as nursery:
        results: list[Any] = []

        async with attached(cluster.meta_hub, operator):
            cluster.isolate()
            await cluster.cut("hub-a")
            nursery.start_soon(lambda: append(results, ask(client)))
            await trio.sleep(5.0)
            assert operator.asked == []
            cluster.isolate(reachable=True)
            await trio.sleep(15.0)

    assert results[0][:2] == [True, "olga"]


async def append(results: list, awaitable) -> None:
    results.append(await awaitable)


@everywhere
async def test_an_ask_whose_agent_is_gone_is_taken_back(where, autojump_clock):
    operator = Operator(answer=None)
    async with cluster_with_client() as (cluster, client):
        async with attached(place_of(cluster, where), operator):
            agent = await client.spawn("careful", "ls")
            await trio.sleep(1.0)
            await agent.cancel()
            await trio.sleep(1.0)

    assert operator.interrupted == 1
    assert operator.told == [(None, None)]


# Operators at other hubs.


@pytest.mark.parametrize("answer", [True, False])
async def test_an_operator_at_another_hub_decides_and_one_at_a_third_is_told(answer, autojump_clock):
    fast, slow = Operator(answer, after=1.0), Operator(not answer, after=5.0)
    async with cluster_with_client(3) as (cluster, client):
        async with attached(cluster["hub-b"], fast, "olga"), attached(cluster["hub-c"], slow, "otto"):
            allow, by, _, took = await ask(client)
            await trio.sleep(10.0)

    assert (allow, by, took) == (answer, "olga at hub-b", 1.0)
    assert fast.asked == slow.asked == [("hub-a/asker", '{"command":"ls"}')]
    assert (slow.interrupted, slow.told) == (1, [("olga at hub-b", answer)])
    assert (fast.interrupted, fast.told) == (0, [])


async def test_operators_of_the_own_hub_come_before_those_of_another(autojump_clock):
    near, far = Operator(answer=True, after=5.0), Operator(answer=False)
    async with cluster_with_client(2) as (cluster, client):
        async with attached(cluster["hub-b"], far, "far"), attached(cluster["hub-a"], near, "near"):
            allow, by, _, _ = await ask(client)

    assert (allow, by, far.asked) == (True, "near", [])


async def test_an_operator_who_comes_to_the_own_hub_later_may_be_the_first_to_answer(autojump_clock):
    near, far, central = Operator(), Operator(answer=None), Operator(answer=None)
    async with cluster_with_client(2) as (cluster, client), trio.open_nursery() as nursery:
        results: list[Any] = []
        async with attached(cluster["hub-b"], far), attached(cluster.meta_hub, central):
            nursery.start_soon(lambda: append(results, ask(client)))
            await trio.sleep(1.0)
            async with attached(cluster["hub-a"], near, "near"):
                await trio.sleep(1.0)

    assert results[0][:2] == [True, "near"]
    assert far.told == central.told == [("near at hub-a", True)]


async def test_an_operator_who_comes_to_another_hub_later_is_asked(autojump_clock):
    operator = Operator()
    async with cluster_with_client(3) as (cluster, client), trio.open_nursery() as nursery:
        results: list[Any] = []
        nursery.start_soon(lambda: append(results, ask(client)))
        await trio.sleep(10.0)
        async with attached(cluster["hub-c"], operator):
            await trio.sleep(1.0)

    assert results[0][:2] == [True, "olga at hub-c"]


@pytest.mark.parametrize("cut", ["hub-a", "hub-b"])
async def test_an_ask_survives_the_reconnect_of_the_hub_that_asks_or_judges(cut, autojump_clock):
    operator = Operator(after=3.0)
    async with cluster_with_client(2) as (cluster, client), trio.open_nursery() as nursery:
        results: list[Any] = []
        async with attached(cluster["hub-b"], operator):
            nursery.start_soon(lambda: append(results, ask(client)))
            await trio.sleep(1.0)
            assert len(operator.asked) == 1
            await cluster.cut(cut)
            await trio.sleep(10.0)

    assert results[0][:2] == [True, "olga at hub-b"]
    assert (len(operator.asked), operator.interrupted) == (2, 1)


async def test_a_question_is_answered_at_another_hub(autojump_clock):
    operator = Operator()
    async with cluster_with_client(2) as (cluster, client), attached(cluster["hub-b"], operator):
        agent = await client.spawn("curious", "tea or coffee?", name="asker")

        assert await agent.result() == "tea"
    assert operator.asked == [("hub-a/asker", "question")]


@pytest.mark.limit(1000)
async def test_if_nobody_answers_anywhere_it_is_denied_at_the_deadline(autojump_clock):
    operators = [Operator(answer=None) for _ in range(2)]
    async with cluster_with_client(3) as (cluster, client):
        async with attached(cluster["hub-b"], operators[0]), attached(cluster["hub-c"], operators[1]):
            allow, by, reason, took = await ask(client)
            await trio.sleep(1.0)

    assert (allow, by, reason) == (False, "policy", "no operator answered within 300 s")
    assert took == pytest.approx(300.0)
    assert [operator.told for operator in operators] == [[("policy", False)]] * 2


@everywhere
async def test_a_question_is_answered_by_an_operator(where, autojump_clock):
    operator = Operator()
    async with cluster_with_client() as (cluster, client):
        async with attached(place_of(cluster, where), operator):
            agent = await client.spawn("curious", "tea or coffee?", name="asker")

            assert await agent.result() == "tea"


async def test_a_question_that_nobody_answers_is_refused_in_words(autojump_clock):
    async with cluster_with_client(timeouts=Timeouts(permission_timeout=5.0)) as (_, client):
        agent = await client.spawn("curious", "tea or coffee?")

        assert await agent.result() == (
            "nobody: nobody was there to answer within 5 s: no operator was attached"
        )


@pytest.mark.parametrize(("policy", "allow"), [(Policy.BYPASS, True), (Policy.DENY, False)])
async def test_a_policy_decides_without_asking_anybody(policy, allow, autojump_clock):
    operator = Operator()
    async with cluster_with_client(policy=policy) as (cluster, client):
        async with attached(cluster["hub-a"], operator), attached(cluster.meta_hub, operator):
            decision = await ask(client)

    assert decision[:3] == [allow, "policy", f"the policy of hub 'hub-a' is {policy.value}"]
    assert operator.asked == []


@pytest.mark.limit(200)
async def test_many_asks_at_once_are_each_answered_to_the_one_who_asked(autojump_clock):
    class Picky(Operator):
        async def judge(self, permission) -> Decision:
            number = int("".join(filter(str.isdigit, permission.tool_input.json.decode())))
            await trio.sleep((number * 37) % 100)
            return Decision(allow=number % 2 == 0)

    async with open_test_cluster(2, agents=AGENTS, pair=record_pair) as cluster:
        async with attached(cluster.meta_hub, Picky()), cluster["hub-a"].open_client() as client:
            agents = [await client.spawn("careful", str(n), hub=f"hub-{'ab'[n % 3 % 2]}") for n in range(50)]
            allowed = [(await agent.result()).startswith("[true") for agent in agents]

    assert allowed == [n % 2 == 0 for n in range(50)]
