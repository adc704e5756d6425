"""MCP as lines over streams: order, ends, floods; and that nothing is left of a client that has gone."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from loopal_cluster.config import Limits
from loopal_cluster.mcp_server.lines import serve_lines
from loopal_cluster.mcp_server.session import CALLS
from loopal_cluster.testing import open_test_cluster
from loopal_cluster.tools import Toolbox

from .clients import AGENTS, LineClient, open_line_client, text_of


def cluster(hubs: int = 2):
    return open_test_cluster(hubs, agents=AGENTS, default_agent="shout")


async def test_a_client_finds_the_tools_and_uses_them(autojump_clock):
    async with (
        cluster() as both,
        both["hub-a"].open_client() as hub,
        open_line_client(Toolbox(hub)) as client,
    ):
        told = await client.initialize()
        await client.request("tools/list")
        tools = (await client.read())["result"]["tools"]
        result = await client.result("Agent", prompt="hi", target_hub="hub-b")

        assert told["serverInfo"]["name"] == "loopal"
        assert "Agent" in [tool["name"] for tool in tools]
        assert text_of(result) == "HI on hub-b"
        assert result["structuredContent"]["status"] == "done"
        assert result["isError"] is False


async def test_wrong_arguments_say_which_and_what_is_allowed(autojump_clock):
    async with cluster(1) as one, one["hub-a"].open_client() as hub, open_line_client(Toolbox(hub)) as client:
        result = await client.result("Agent", action="destroy")

        assert result["isError"] is True
        assert "expected one of spawn, result, status, got 'destroy' @ $.action" in text_of(result)
        assert "structuredContent" not in result


async def test_a_slow_call_does_not_delay_a_quick_one(autojump_clock):
    async with cluster(1) as one, one["hub-a"].open_client() as hub, open_line_client(Toolbox(hub)) as client:
        slow = await client.use("Agent", prompt="10", subagent_type="linger")
        quick = await client.use("ListHubs")

        assert [(await client.read())["id"], (await client.read())["id"]] == [quick, slow]


@pytest.mark.limit(600)
async def test_a_call_returns_in_time_and_says_how_to_go_on(autojump_clock):
    async with (
        cluster() as both,
        both["hub-a"].open_client() as hub,
        open_line_client(Toolbox(hub)) as client,
    ):
        began = trio.current_time()
        spawned = await client.result(
            "Agent", prompt="100", subagent_type="linger", name="slow", target_hub="hub-b"
        )
        waits = []
        while (waited := await client.result("WaitAgent", name="hub-b/slow", timeout=600))[
            "structuredContent"
        ]["status"] == "running":
            waits.append(trio.current_time() - began)

        assert 43 < waits[0] / 2 <= 45
        assert "Call WaitAgent again with name 'hub-b/slow'" in text_of(spawned)
        assert text_of(waited) == "lingered"
        assert 100 <= trio.current_time() - began < 101


async def test_a_cancelled_call_is_withdrawn_and_not_answered(autojump_clock):
    async with cluster(1) as one, one["hub-a"].open_client() as hub, open_line_client(Toolbox(hub)) as client:
        slow = await client.use("Agent", prompt="", subagent_type="linger", name="slow")
        await client.send(method="notifications/cancelled", params={"requestId": slow, "reason": "enough"})
        ping = await client.request("ping")

        assert (await client.read())["id"] == ping
        await trio.testing.wait_all_tasks_blocked()
        assert await hub.local_agents() == ()


async def test_a_client_that_vanishes_in_a_wait_leaves_nothing(autojump_clock):
    async with cluster() as both, both["hub-a"].open_client() as hub, both["hub-b"].open_client() as there:
        async with open_line_client(Toolbox(hub)) as client:
            await client.use("Agent", prompt="", subagent_type="linger", target_hub="hub-b", name="slow")
            await client.use("WaitAgent", name="hub-b/slow")
            await trio.testing.wait_all_tasks_blocked()
            assert [agent.name for agent in await there.local_agents()] == ["slow"]

        await trio.testing.wait_all_tasks_blocked()
        assert await there.local_agents() == ()
        assert await hub.local_agents() == ()


async def test_what_cannot_be_read_changes_nothing_but_its_answer(autojump_clock):
    async with cluster(1) as one, one["hub-a"].open_client() as hub, open_line_client(Toolbox(hub)) as client:
        for text in ("nonsense", "", "[]", "7", "x" * (Limits().line_bytes + 1)):
            await client.send_text(text)
        ping = await client.request("ping")

        errors = [await client.read() for _ in range(4)]
        assert [error["error"]["code"] for error in errors] == [-32700, -32600, -32600, -32600]
        assert f"more than {Limits().line_bytes} bytes" in errors[-1]["error"]["message"]
        assert await client.read() == {"jsonrpc": "2.0", "id": ping, "result": {}}


async def test_a_flood_of_calls_is_answered_each(autojump_clock):
    async with cluster(1) as one, one["hub-a"].open_client() as hub, open_line_client(Toolbox(hub)) as client:
        slow = [await client.use("WaitAgent", name=f"hub-a/{n}", timeout=5) for n in range(2000)]

        answers = [await client.read() for _ in slow]

        assert sorted(answer["id"] for answer in answers) == slow
        assert all(answer["result"]["isError"] for answer in answers)
        assert any("ListAgents shows the agents" in text_of(answer["result"]) for answer in answers)


async def test_a_client_that_does_not_read_is_not_read_from(autojump_clock):
    async with cluster(1) as one, one["hub-a"].open_client() as hub:
        ours, theirs = trio.testing.lockstep_stream_pair()
        sent = 0

        async def flood() -> None:
            nonlocal sent
            while True:
                await ours.send_all(b'{"jsonrpc":"2.0","id":1,"method":"ping"}\n')
                sent += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve_lines, theirs, theirs, Toolbox(hub))
            nursery.start_soon(flood)
            await trio.testing.wait_all_tasks_blocked()

            assert CALLS <= sent < 200
            nursery.cancel_scope.cancel()


async def test_answers_that_are_there_are_written_before_the_end():
    ours, theirs = trio.testing.memory_stream_pair()
    client = LineClient(ours)
    await client.request("ping")
    await client.request("tools/list")
    await ours.send_stream.aclose()

    await serve_lines(theirs, theirs, Toolbox(None))  # type: ignore[arg-type]
    await theirs.aclose()

    assert [(await client.read())["id"] for _ in range(2)] == [1, 2]
    assert await client.read() is None


async def test_a_client_that_closes_both_ends_at_once_ends_the_server(autojump_clock):
    async with cluster(1) as one, one["hub-a"].open_client() as hub:
        ours, theirs = trio.testing.memory_stream_pair()
        client = LineClient(ours)
        for _ in range(10):
            await client.use("WaitAgent", name="nobody")
        await trio.aclose_forcefully(ours)

        await serve_lines(theirs, theirs, Toolbox(hub))


async def test_a_call_reports_progress_if_asked(autojump_clock):
    async with cluster(1) as one, one["hub-a"].open_client() as hub, open_line_client(Toolbox(hub)) as client:
        await client.request(
            "tools/call",
            name="Agent",
            arguments={"prompt": "11", "subagent_type": "linger"},
            _meta={"progressToken": 7},
        )

        told = [await client.read() for _ in range(3)]
        assert [message.get("params", {}).get("progress") for message in told] == [5, 10, None]
        assert text_of(told[2]["result"]) == "lingered"
