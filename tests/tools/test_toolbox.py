"""The tools on a cluster: what a model gets to read, and that nothing it does raises."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
import trio.testing

from loopal_cluster import AgentContext, Decision, Policy, Role, Timeouts, open_hub
from loopal_cluster.agents.inbox import Inbox
from loopal_cluster.messages import Permission
from loopal_cluster.testing import open_test_cluster
from loopal_cluster.tools import TOOLS, Mailbox, Toolbox, ToolResult

from .agents import fail, linger, shout


async def listen(ctx: AgentContext, prompt: str) -> dict[str, Any]:
    received = await ctx.receive()
    return {"from": received.sender, "text": received.text}


async def use(ctx: AgentContext, prompt: str) -> dict[str, Any]:
    """Use tools as a model would: ``[[name, arguments], ...]`` in, the last result out."""
    for name, arguments in json.loads(prompt):
        result = await ctx.tools.call(name, arguments)
    return {"text": result.text, "data": result.data, "is_error": result.is_error}


AGENTS = {"shout": shout, "fail": fail, "linger": linger, "listen": listen, "use": use}


def cluster(hubs: int = 2):
    return open_test_cluster(hubs, agents=AGENTS, default_agent="shout", policy=Policy.BYPASS)


async def as_agent(hub, *calls: tuple[str, Any], **options: Any) -> ToolResult:
    """Have an agent of ``hub``, called ``model``, use tools; the last result."""
    async with hub.open_client() as client:
        agent = await client.spawn("use", json.dumps(calls), name="model", **options)
        return ToolResult(**json.loads(await agent.result()))


async def names_on(client) -> set[str]:
    return {node.name for node in await client.local_agents()}


# Whom and what there is.


async def test_list_hubs_shows_the_hubs_and_what_they_run(autojump_clock):
    async with cluster() as both:
        result = await as_agent(both["hub-b"], ("ListHubs", {}))

        assert not result.is_error
        assert result.data["own_hub"] == "hub-b"
        assert [hub["name"] for hub in result.data["hubs"]] == ["hub-a", "hub-b"]
        assert result.text.splitlines()[0] == "Connected to MetaHub as 'hub-b'"
        assert "runs shout, fail, linger, listen, use) <- your hub" in result.text.splitlines()[-1]


async def test_list_hubs_of_a_hub_alone_says_so(autojump_clock):
    async with open_hub("solo", policy=Policy.BYPASS, agents=AGENTS, capabilities=["gpu"]) as hub:
        result = await as_agent(hub, ("ListHubs", ""))

        assert not result.is_error
        assert result.text.startswith("Not in a cluster")
        assert "capable of gpu" in result.text
        assert result.data["in_cluster"] is False
        assert [hub["name"] for hub in result.data["hubs"]] == ["solo"]


async def test_list_agents_shows_each_agent_once_where_it_runs(autojump_clock):
    async with cluster() as both:
        spawn = {"prompt": "9", "subagent_type": "linger", "target_hub": "hub-b", "name": "slow"}
        result = await as_agent(
            both["hub-a"], ("Agent", spawn | {"run_in_background": True}), ("ListAgents", {})
        )

        agents = {agent["agent"]: agent for agent in result.data["agents"]}
        assert set(agents) == {"hub-a/model", "hub-b/slow"}
        assert agents["hub-b/slow"]["parent"] == "hub-a/model"
        assert "  - hub-b/slow (linger; Running; started by hub-a/model)" in result.text.splitlines()


async def test_list_agents_of_one_hub(autojump_clock):
    async with cluster() as both:
        own, other, unknown = [
            await as_agent(both["hub-a"], ("ListAgents", {"hub": hub})) for hub in ("hub-a", "hub-b", "hub-z")
        ]

        assert [agent["agent"] for agent in own.data["agents"]] == ["hub-a/model"]
        assert other.text == "Agents:\n  (none)"
        assert unknown.is_error
        assert "hub 'hub-z' not connected (ListHubs shows the hubs there are)" in unknown.text


async def test_list_agents_of_a_hub_alone(autojump_clock):
    async with open_hub("solo", policy=Policy.BYPASS, agents=AGENTS) as hub:
        result = await as_agent(hub, ("ListAgents", {}))

        assert [agent["agent"] for agent in result.data["agents"]] == ["solo/model"]


# Starting agents.


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"prompt": "hi"}, "HI on hub-a"),
        ({"prompt": "hi", "target_hub": "hub-b"}, "HI on hub-b"),
        ({"prompt": "hi", "target_hub": "hub-a", "name": "loud"}, "HI on hub-a"),
        ('{"action":"spawn","prompt":"hi","subagent_type":"shout","model":null}', "HI on hub-a"),
    ],
)
async def test_a_foreground_agent_returns_its_result(arguments, text, autojump_clock):
    async with cluster() as both:
        result = await as_agent(both["hub-a"], ("Agent", arguments))

        assert (result.text, result.is_error) == (text, False)
        assert result.data["status"] == "done"


@pytest.mark.parametrize("hub", [None, "hub-b"])
async def test_a_failed_foreground_agent_is_an_error_with_its_text(hub, autojump_clock):
    async with cluster() as both:
        result = await as_agent(
            both["hub-a"],
            ("Agent", {"prompt": "no paint", "subagent_type": "fail", "name": "x", "target_hub": hub}),
        )

        agent = "x" if hub is None else "hub-b/x"
        assert result.is_error
        assert result.text == f"Tool error: agent '{agent}' failed: ValueError: no paint"
        assert result.data["error"] == "ValueError: no paint"


async def test_a_background_agent_reports_to_the_agent_that_started_it(autojump_clock):
    async def lead(ctx: AgentContext, prompt: str) -> str:
        started = await ctx.tools.call(
            "Agent", {"prompt": "hi", "target_hub": "hub-b", "name": "loud", "run_in_background": True}
        )
        assert started.data["status"] == "running"
        assert "hub-b/loud" in started.text
        return (await ctx.receive()).text

    async with open_test_cluster(
        2, agents=AGENTS | {"lead": lead}, default_agent="shout", policy=Policy.BYPASS
    ) as both:
        async with both["hub-a"].open_client() as client:
            agent = await client.spawn("lead")

            assert "HI on hub-b" in await agent.result()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"prompt": "x", "subagent_type": "paint"}, ["'paint'", "it runs: shout, fail"]),
        ({"prompt": "x", "target_hub": "hub-z"}, ["hub 'hub-z' not connected", "ListHubs"]),
        ({"prompt": "x", "name": "model"}, ["'model' is taken", "choose another name"]),
        ({"prompt": "x", "name": "no spaces"}, ["'no spaces'", "1 to 64 of A-Z a-z 0-9"]),
        ({"prompt": "x", "target_hub": ""}, ["1 to 64 of A-Z a-z 0-9"]),
        ({"action": "status", "name": "nobody"}, ["'nobody'", "ListAgents shows"]),
        ({"action": "result", "name": "a/b/c"}, ["'b/c'", "1 to 64 of A-Z a-z 0-9"]),
        ({"prompt": 7}, ["expected str, got int @ $.prompt"]),
        ({"prompt": "x", "isolation": "worktree"}, ["unknown argument 'isolation'"]),
    ],
)
async def test_what_the_hub_refuses_is_an_error_that_says_what_is_allowed(arguments, words, autojump_clock):
    async with cluster() as both:
        result = await as_agent(both["hub-a"], ("Agent", arguments))

        assert result.is_error
        assert result.text.startswith("Tool error: ")
        assert all(word in result.text for word in words), result.text


async def test_another_hub_without_a_cluster_is_an_error_that_says_so(autojump_clock):
    async with open_hub("solo", policy=Policy.BYPASS, agents=AGENTS) as hub:
        result = await as_agent(hub, ("Agent", {"prompt": "x", "target_hub": "hub-b"}))

        assert result.is_error
        assert "no MetaHub uplink (leave out the hub to work on this one)" in result.text


@pytest.mark.parametrize("hub", [None, "hub-b"])
async def test_cancelling_the_call_cancels_a_foreground_agent(hub, autojump_clock):
    async with cluster() as both, both["hub-a"].open_client() as client:
        box = Toolbox(client)
        arguments = {"prompt": "", "subagent_type": "linger", "name": "slow", "target_hub": hub}

        with trio.move_on_after(5) as scope:
            await box.call("Agent", arguments)

        assert scope.cancelled_caught
        status = await box.call("Agent", {"action": "status", "name": f"{hub or 'hub-a'}/slow"})
        assert status.data["status"] == "cancelled"
        assert "the call that waited for it was cancelled" in status.text


async def test_cancelling_the_call_while_the_agent_comes_up_leaves_no_agent(autojump_clock):
    async with cluster(1) as one, one["hub-a"].open_client() as client:
        arguments = {"prompt": "", "subagent_type": "linger", "name": "slow"}

        with trio.CancelScope() as scope:
            scope.cancel()
            await Toolbox(client).call("Agent", arguments)

        assert scope.cancelled_caught
        assert await client.local_agents() == ()


async def test_a_background_agent_outlives_the_call(autojump_clock):
    async with cluster(1) as one, one["hub-a"].open_client() as client:
        box = Toolbox(client)
        arguments = {"prompt": "3", "subagent_type": "linger", "name": "slow", "run_in_background": True}

        await box.call("Agent", arguments)

        assert (await box.call("Agent", {"action": "result", "name": "slow"})).text == "lingered"


async def test_status_tells_a_running_from_a_finished_and_from_a_failed_agent(autojump_clock):
    async with cluster(1) as one, one["hub-a"].open_client() as client:
        box = Toolbox(client)
        await client.spawn("linger", "3", name="slow")
        await (await client.spawn("fail", "no paint", name="broken")).outcome()

        running = await box.call("Agent", {"action": "status", "name": "slow"})
        await client.wait("slow")
        finished = await box.call("Agent", {"action": "status", "name": "slow"})
        broken = await box.call("Agent", {"action": "status", "name": "broken"})

        assert (running.text, running.data["status"]) == ("Agent 'slow': Running", "running")
        assert finished.data["status"] == "done"
        assert finished.data["result"] == "lingered"
        assert broken.data["status"] == "failed"
        assert "ValueError" in broken.data["traceback"]
        assert not broken.is_error


# Waiting and talking.


@pytest.mark.parametrize("hub", ["hub-a", "hub-b", "hub-c"])
async def test_a_wait_that_ends_first_says_how_to_go_on(hub, autojump_clock):
    async with cluster(3) as three, three["hub-a"].open_client() as client:
        box = Toolbox(client)
        async with three["hub-b"].open_client() as spawner:
            await spawner.spawn("linger", "3", name="slow", hub=hub, detached=True)

        first = await box.call("WaitAgent", {"name": f"{hub}/slow", "timeout": 1})
        second = await box.call("WaitAgent", {"name": f"{hub}/slow", "timeout": 10.5})

        assert first.data["status"] == "running"
        assert not first.is_error
        assert f"Call WaitAgent again with name '{hub}/slow'" in first.text
        assert (second.text, second.data["status"]) == ("lingered", "done")


async def test_waiting_for_a_failed_agent_is_an_error(autojump_clock):
    async with cluster(1) as one, one["hub-a"].open_client() as client:
        await client.spawn("fail", "no paint", name="broken")

        result = await Toolbox(client).call("WaitAgent", {"name": "broken"})

        assert result.is_error
        assert result.data["status"] == "failed"


@pytest.mark.parametrize("name", ["ear", "hub-b/ear"])
async def test_a_message_reaches_its_agent_and_names_its_sender(name, autojump_clock):
    async with cluster() as both:
        async with both["hub-b"].open_client() as client:
            ear = await client.spawn("listen", name="ear")

            result = await as_agent(
                both["hub-a"], ("SendMessage", {"to": name, "message": "hello", "summary": "greets"})
            )

            assert result.text == f"Message sent to '{name}': greets"
            assert json.loads(await ear.result()) == {"from": "hub-a/model", "text": "hello"}


async def test_a_message_to_nobody_is_an_error(autojump_clock):
    async with cluster() as both:
        result = await as_agent(both["hub-a"], ("SendMessage", {"to": "nobody", "message": "hello"}))

        assert result.is_error
        assert "ListAgents shows the agents" in result.text


# The toolbox itself.


async def test_an_unknown_tool_names_the_tools(autojump_clock):
    async with cluster(1) as one:
        result = await as_agent(one["hub-a"], ("Bash", {"command": "ls"}))

        assert result.is_error
        assert result.text == (
            "Tool error: unknown tool 'Bash'; the tools are: "
            "ListHubs, ListAgents, Agent, SendMessage, WaitAgent, CancelAgent, Inbox"
        )


async def test_a_lost_connection_is_an_error_result(autojump_clock):
    async with open_hub("solo", policy=Policy.BYPASS, agents=AGENTS) as hub:
        async with hub.open_client() as client:
            box = Toolbox(client)

    for tool in ("ListHubs", "ListAgents"):
        result = await box.call(tool)
        assert result.is_error
        assert "connection lost" in result.text


def test_the_definitions_are_what_a_model_is_told():
    definitions = Toolbox(None, mailbox=Mailbox(Inbox(1))).definitions()  # type: ignore[arg-type]

    assert [definition["name"] for definition in definitions] == [tool.tool_name for tool in TOOLS]
    assert all(set(definition) == {"name", "description", "input_schema"} for definition in definitions)


async def supervised(hub, decide, calls: list[tuple[str, Any]], mode: str | None = None) -> ToolResult:
    """The same agent, with an operator who decides, spawned in this permission mode."""
    async with hub.open_client(role=Role.OPERATOR, on_permission=decide) as client:
        agent = await client.spawn("use", json.dumps(calls), name="model", permission_mode=mode)
        return ToolResult(**json.loads(await agent.result()))


class Allower:
    """A human who allows everything, and remembers what."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def __call__(self, ask: Permission) -> Decision:
        self.asked.append(ask.tool_name)
        return Decision(allow=True)


CALLS = [
    ("ListHubs", {}),
    ("ListAgents", {}),
    ("Inbox", {}),
    ("Agent", {"action": "status", "name": "model"}),
    ("WaitAgent", {"name": "model", "timeout": 0}),
    ("SendMessage", {"to": "model", "message": "hi"}),
    ("CancelAgent", {"name": "nobody"}),
    ("Agent", {"prompt": "hi"}),
]
ASKED = ["SendMessage", "CancelAgent", "Agent"]
"""What of that only reads is not asked for."""


@pytest.mark.parametrize(
    ("policy", "mode", "asked"),
    [
        (Policy.SUPERVISED, None, ASKED),
        (Policy.SUPERVISED, "supervised", ASKED),
        (Policy.SUPERVISED, "auto", ASKED),
        (Policy.SUPERVISED, "bypass", ASKED),
        (Policy.SUPERVISED, "yolo", ASKED),
        (Policy.BYPASS, None, []),
        (Policy.BYPASS, "bypass", []),
        (Policy.BYPASS, "supervised", ASKED),
    ],
)
async def test_the_stricter_of_the_hub_and_the_spawner_says_whether_a_tool_is_asked_for(
    policy, mode, asked, autojump_clock
):
    async with open_test_cluster(1, agents=AGENTS, default_agent="shout", policy=policy) as one:
        human = Allower()
        result = await supervised(one["hub-a"], human, CALLS, mode)

        assert result.text == "HI on hub-a"
        assert human.asked == asked


@pytest.mark.parametrize("mode", [None, "bypass", "supervised"])
async def test_where_the_hub_denies_it_is_denied_whatever_the_spawner_says(mode, autojump_clock):
    async with open_test_cluster(1, agents=AGENTS, default_agent="shout", policy=Policy.DENY) as one:
        human = Allower()
        result = await supervised(one["hub-a"], human, [("Agent", {"prompt": "hi"})], mode)

        assert result.text == "Tool error: Agent: permission denied: the policy of hub 'hub-a' is deny"
        assert human.asked == []


async def test_what_a_function_itself_starts_is_code_and_not_asked_for(autojump_clock):
    async def lead(ctx: AgentContext, prompt: str) -> str:
        return await (await ctx.spawn("shout", prompt)).result()

    agents = AGENTS | {"lead": lead}
    async with open_test_cluster(1, agents=agents, policy=Policy.DENY) as one:
        async with one["hub-a"].open_client() as client:
            assert await (await client.spawn("lead", "hi")).result() == "HI on hub-a"


async def test_a_denied_tool_is_an_error_with_the_reason_and_does_nothing(autojump_clock):
    async def deny(ask: Permission) -> Decision:
        return Decision(allow=False, reason="not today")

    async with cluster(1) as one:
        call = ("Agent", {"prompt": "hi", "name": "x"})
        result = await supervised(one["hub-a"], deny, [call], "supervised")

        assert result.text == "Tool error: Agent: permission denied: not today"
        async with one["hub-a"].open_client() as client:
            assert (await Toolbox(client).call("WaitAgent", {"name": "x"})).is_error


async def test_a_tool_that_nobody_was_there_to_allow_is_not_said_to_be_refused(autojump_clock):
    async def nobody(ask: Permission) -> Decision:
        return Decision(allow=False, reason="nobody was there", by="policy", unanswered=True)

    async with cluster(1) as one:
        call = ("Agent", {"prompt": "hi", "name": "x"})
        result = await supervised(one["hub-a"], nobody, [call], "supervised")

        assert result.text == (
            "Tool error: Agent: it is not allowed, but nobody has refused it: nobody was there"
        )


async def test_an_agent_that_is_stopped_in_a_foreground_call_takes_its_child_along(autojump_clock):
    timeouts = Timeouts(stop_grace=1)
    async with open_test_cluster(2, agents=AGENTS, timeouts=timeouts, policy=Policy.BYPASS) as both:
        async with both["hub-a"].open_client() as client, both["hub-b"].open_client() as there:
            call = ("Agent", {"prompt": "", "subagent_type": "linger", "name": "slow", "target_hub": "hub-b"})
            model = await client.spawn("use", json.dumps([call]), name="model")
            await trio.testing.wait_all_tasks_blocked()
            assert await names_on(there) == {"slow"}

            await model.cancel("enough")

            await trio.testing.wait_all_tasks_blocked()
            assert await names_on(there) == await names_on(client) == set()


async def test_the_tools_work_from_the_meta_hub_too(autojump_clock):
    async with cluster() as both, both.meta_hub.open_client() as client:
        box = Toolbox(client)
        hubs = await box.call("ListHubs")
        spawned = await box.call("Agent", {"prompt": "hi", "target_hub": "hub-b"})
        nowhere = await box.call("Agent", {"prompt": "hi"})
        agents = await box.call("ListAgents")

        assert [hub["name"] for hub in hubs.data["hubs"]] == ["hub-a", "hub-b"]
        assert (spawned.text, spawned.is_error) == ("HI on hub-b", False)
        assert nowhere.is_error
        assert "target_hub" in nowhere.text
        assert agents.data["agents"] == []
