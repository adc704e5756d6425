"""A program that is a member of the cluster whenever it can be."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import trio
import trio.testing
from attrs import define, field

from loopal_cluster import Client, ConnectionLost, Hub, Overloaded, open_hub
from loopal_cluster.links.channels import FrameChannel, record_pair
from loopal_cluster.mcp_server.joining import Joining
from loopal_cluster.tools import ToolResult

from .clients import AGENTS


@define
class Machine:
    """Where a hub runs, at times."""

    hub: Hub | None = None
    token: str | None = None
    links: list[FrameChannel] = field(factory=list)

    async def dial(self) -> tuple[FrameChannel, str]:
        """What a joining program uses."""
        if self.hub is None:
            raise ConnectionLost("no hub runs here")
        here, there = record_pair()
        self.links.append(here)
        self.hub.attach(there)
        return here, self.token or self.hub.token

    @asynccontextmanager
    async def run_hub(self) -> AsyncIterator[Client]:
        """Run it for the block."""
        async with open_hub("solo", agents=AGENTS) as self.hub, self.hub.open_client() as client:
            yield client
            self.hub = None


@asynccontextmanager
async def joining(
    machine: Machine, client: str = "Claude Code", name: str | None = None
) -> AsyncIterator[Joining]:
    """A program that joins."""
    async with trio.open_nursery() as nursery:
        joining = Joining(machine.dial, name)
        nursery.start_soon(joining.run)
        joining.introduce(client)
        yield joining
        nursery.cancel_scope.cancel()


async def use(joining: Joining, tool: str, /, **arguments: Any) -> ToolResult:
    return await joining.call(tool, arguments, time_limit=45)


async def names(client: Client) -> list[str]:
    return [agent.name for agent in await client.local_agents()]


async def test_it_is_known_by_what_the_client_calls_itself(autojump_clock):
    machine = Machine()
    async with machine.run_hub() as hub, joining(machine) as program:
        result = await use(program, "ListHubs")

        assert "You are the agent 'solo/claude-code'" in result.text
        assert await names(hub) == ["claude-code"]


async def test_several_of_a_kind_have_a_number(autojump_clock):
    machine = Machine()
    async with machine.run_hub() as hub:
        async with joining(machine) as first, joining(machine) as second, joining(machine) as third:
            for program in (first, second, third):
                await use(program, "ListHubs")

            assert sorted(await names(hub)) == ["claude-code", "claude-code-2", "claude-code-3"]


async def test_a_name_that_was_chosen_is_never_another(autojump_clock):
    machine = Machine()
    async with machine.run_hub() as hub:
        async with joining(machine, name="ann") as first:
            await use(first, "ListHubs")
            async with joining(machine, name="ann") as second:
                refused = await use(second, "ListHubs")

        assert refused.is_error
        assert "no connection to the hub: agent name 'ann' is taken; trying again" in refused.text
        assert await names(hub) == []


@pytest.mark.parametrize("client", ["", "/", "é", "x" * 200])
async def test_any_client_gets_a_valid_name(client, autojump_clock):
    machine = Machine()
    async with machine.run_hub() as hub, joining(machine, client) as program:
        assert not (await use(program, "ListHubs")).is_error
        assert len(await names(hub)) == 1


async def test_without_a_hub_a_tool_says_so_and_works_when_one_has_come(autojump_clock):
    machine = Machine()
    async with joining(machine) as program:
        before = await use(program, "ListAgents")
        async with machine.run_hub():
            with_hub = await use(program, "ListAgents")

    assert before.is_error
    assert "ListAgents: no connection to the hub: no hub runs here" in before.text
    assert not with_hub.is_error


async def test_a_wrong_token_is_said(autojump_clock):
    machine = Machine(token="guessed")
    async with machine.run_hub(), joining(machine) as program:
        assert "invalid token" in (await use(program, "ListHubs")).text

        machine.token = None

        assert not (await use(program, "ListHubs")).is_error


async def test_after_a_lost_connection_it_is_back_under_its_name_and_has_its_messages(autojump_clock):
    machine = Machine()
    async with machine.run_hub() as hub, joining(machine) as program:
        await use(program, "ListHubs")
        await hub.send("claude-code", "before")
        await trio.aclose_forcefully(machine.links[0])
        await trio.testing.wait_all_tasks_blocked()
        assert await names(hub) == []

        await use(program, "ListHubs")
        await hub.send("claude-code", "after")
        inbox = await use(program, "Inbox")

        assert [message["text"] for message in inbox.data["messages"]] == ["before", "after"]


async def test_it_joins_a_hub_that_was_started_again(autojump_clock):
    machine = Machine()
    async with joining(machine) as program:
        for _ in range(2):
            async with machine.run_hub() as hub:
                assert not (await use(program, "ListHubs")).is_error
                assert await names(hub) == ["claude-code"]


async def test_what_it_has_spawned_ends_with_it_unless_it_is_detached(autojump_clock):
    machine = Machine()
    async with machine.run_hub() as hub:
        async with joining(machine) as program:
            for name, detached in (("ours", False), ("free", True)):
                await use(
                    program,
                    "Agent",
                    prompt="",
                    subagent_type="linger",
                    name=name,
                    run_in_background=True,
                    detached=detached,
                )
            assert await names(hub) == ["claude-code", "ours", "free"]

        await trio.testing.wait_all_tasks_blocked()
        assert await names(hub) == ["free"]


async def test_an_ask_reaches_it_and_has_its_reply(autojump_clock):
    machine = Machine()
    async with machine.run_hub() as hub, joining(machine) as program, trio.open_nursery() as nursery:

        async def reply() -> None:
            (message,) = (await use(program, "Inbox", wait=10)).data["messages"]
            assert (message["from"], message["text"]) == ("human", "how many?")
            await use(program, "SendMessage", to="human", message="42", reply_to=message["ask_id"])
            again = await use(program, "SendMessage", to="x", message="43", reply_to=message["ask_id"])
            assert again.is_error
            assert "no message 'ask-1' waits for a reply" in again.text

        nursery.start_soon(reply)
        await use(program, "ListHubs")
        assert await hub.ask("claude-code", "how many?") == "42"


async def test_an_ask_that_is_withdrawn_is_not_read(autojump_clock):
    machine = Machine()
    async with machine.run_hub() as hub, joining(machine) as program:
        await use(program, "ListHubs")
        with pytest.raises(trio.TooSlowError):
            await hub.ask("claude-code", "how many?", time_limit=1)
        await trio.testing.wait_all_tasks_blocked()

        assert (await use(program, "Inbox")).data["messages"] == []


async def test_an_ask_that_is_withdrawn_after_it_was_read_wants_no_reply(autojump_clock):
    machine = Machine()
    async with machine.run_hub() as hub, joining(machine) as program, trio.open_nursery() as nursery:
        await use(program, "ListHubs")

        async def ask() -> None:
            with trio.move_on_after(1):
                await hub.ask("claude-code", "how many?")

        nursery.start_soon(ask)
        (message,) = (await use(program, "Inbox", wait=10)).data["messages"]
        await trio.sleep(2)
        late = await use(program, "SendMessage", to="human", message="42", reply_to=message["ask_id"])

        assert "its sender no longer waits" in late.text


async def test_a_full_inbox_refuses_and_loses_nothing(autojump_clock):
    machine = Machine()
    async with machine.run_hub() as hub, joining(machine) as program:
        await use(program, "ListHubs")
        sent = 0
        with suppress(Overloaded):
            while True:
                await hub.send("claude-code", str(sent))
                sent += 1

        read: list[str] = []
        while letters := (await use(program, "Inbox")).data["messages"]:
            read += [letter["text"] for letter in letters]
        assert read == [str(number) for number in range(sent)]


async def test_when_it_is_stopped_its_calls_and_children_end_and_it_comes_back(autojump_clock):
    machine = Machine()
    async with machine.run_hub() as hub, joining(machine) as program, trio.open_nursery() as nursery:
        results: list[ToolResult] = []

        async def wait() -> None:
            results.append(await use(program, "Agent", prompt="", subagent_type="linger", name="slow"))

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        assert await names(hub) == ["claude-code", "slow"]
        await hub.cancel("claude-code")
        await trio.testing.wait_all_tasks_blocked()

        assert await names(hub) == []
        assert results[0].is_error
        assert not (await use(program, "ListHubs")).is_error
