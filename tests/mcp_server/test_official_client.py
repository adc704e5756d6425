"""The official MCP client against ours: both transports, with and without its probe for a later version."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import mcp
import mcp_types
import pytest
import trio
from attrs import frozen
from mcp.client.streamable_http import streamable_http_client

from loopal_cluster import AgentContext, Client, FunctionAgent, Policy, open_hub
from loopal_cluster.agents.types import Place, RunningAgent
from loopal_cluster.mcp_server.session import LONGEST_CALL
from loopal_cluster.testing import open_test_cluster

from .clients import AGENTS

MODES = ["auto", "legacy"]
TIMEOUT = 10.0


@frozen
class Hosted:
    """An agent whose program is a test: it gets what the program of a real agent is told."""

    program: Callable[[AgentContext, Mapping[str, Any]], Awaitable[object]]
    http: bool

    @asynccontextmanager
    async def open(self, place: Place) -> AsyncIterator[RunningAgent]:
        """Run it in a task."""

        async def run(context: AgentContext, prompt: str) -> object:
            assert place.mcp is not None
            with place.mcp.open_entry(context, http=self.http) as entry:
                return await self.program(context, entry)

        async with FunctionAgent(run).open(place) as running:
            yield running


@asynccontextmanager
async def open_official(entry: Mapping[str, Any], mode: str) -> AsyncIterator[mcp.Client]:
    """The client, connected as the entry says."""
    if entry.get("type") == "http":
        headers = {header["name"]: header["value"] for header in entry["headers"]}
        async with httpx2.AsyncClient(headers=headers, timeout=TIMEOUT, trust_env=False) as http:
            async with mcp.Client(
                streamable_http_client(entry["url"], http_client=http), mode=mode
            ) as client:
                yield client
    else:
        env = {variable["name"]: variable["value"] for variable in entry["env"]}
        server = mcp.StdioServerParameters(command=entry["command"], args=entry["args"], env=env)
        async with mcp.Client(server, mode=mode) as client:
            yield client


def text_of(result: mcp_types.CallToolResult) -> str:
    """What a model reads."""
    (content,) = result.content
    assert isinstance(content, mcp_types.TextContent)
    return content.text


async def use_everything(client: mcp.Client) -> None:
    """What an agent named ``lead`` does with its tools."""
    tools = (await client.list_tools()).tools
    assert [tool.name for tool in tools][:3] == ["ListHubs", "ListAgents", "Agent"]
    assert all(tool.meta == {"anthropic/alwaysLoad": True} for tool in tools)

    hubs = await client.call_tool("ListHubs", {})
    assert hubs.structured_content is not None
    assert [hub["name"] for hub in hubs.structured_content["hubs"]] == ["hub-a", "hub-b"]

    done = await client.call_tool("Agent", {"prompt": "hi", "target_hub": "hub-b", "subagent_type": "shout"})
    assert (text_of(done), done.is_error) == ("HI on hub-b", False)

    wrong = await client.call_tool("SendMessage", {"to": "ear", "text": "x"})
    assert wrong.is_error
    assert "unknown argument 'text' (known: to, message, summary, reply_to) @ $" in text_of(wrong)

    with pytest.raises(mcp.MCPError, match="unknown tool 'Bash'; the tools are"):
        await client.call_tool("Bash", {})

    await client.call_tool(
        "Agent", {"prompt": "", "subagent_type": "listen", "name": "ear", "run_in_background": True}
    )
    await client.call_tool("SendMessage", {"to": "ear", "message": "hello"})
    heard = await client.call_tool("WaitAgent", {"name": "ear"})
    assert text_of(heard) == "'hello' from lead"


async def cancel_a_call(client: mcp.Client, local_agents: Callable[[], Awaitable[list[str]]]) -> None:
    """A call that is withdrawn takes its agent along."""
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:

            async def wait() -> None:
                await client.call_tool("Agent", {"prompt": "", "subagent_type": "linger", "name": "slow"})

            nursery.start_soon(wait)
            while "slow" not in await local_agents():
                await trio.lowlevel.checkpoint()
            scope.cancel()
    while "slow" in await local_agents():
        await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("http", [True, False])
async def test_a_hosted_agent_has_its_own_tools_in_its_program(http):
    """One program for both eras, over each transport."""

    async def program(context: AgentContext, entry: Mapping[str, Any]) -> str:
        async def names() -> list[str]:
            return [agent.name for agent in await context.local_agents()]

        assert (entry.get("type") == "http") is http
        for mode in MODES:
            async with open_official(entry, mode) as client:
                assert client.protocol_version == "2025-11-25"
                assert client.server_info is not None
                assert client.server_info.name == "loopal"
                await use_everything(client)
                await cancel_a_call(client, names)
        return "all of it"

    agents: dict[str, Any] = {**AGENTS, "hosted": Hosted(program, http)}
    async with (
        open_test_cluster(2, agents=agents, policy=Policy.BYPASS) as both,
        both["hub-a"].open_client() as client,
    ):
        agent = await client.spawn("hosted", name="lead")

        assert await agent.result() == "all of it"


async def test_the_official_client_is_refused_without_the_token():
    async def program(context: AgentContext, entry: Mapping[str, Any]) -> str:
        stranger = {**entry, "headers": [{"name": "Authorization", "value": "Bearer guessed"}]}
        with pytest.RaisesGroup(mcp.MCPError, flatten_subgroups=True):
            async with open_official(stranger, "legacy"):
                pass
        return "refused"

    async with (
        open_hub("solo", policy=Policy.BYPASS, agents={"hosted": Hosted(program, http=True)}) as hub,
        hub.open_client() as client,
    ):
        assert await (await client.spawn("hosted")).result() == "refused"


async def test_a_client_that_nobody_hosts_becomes_a_member(tmp_path: Path):
    token = tmp_path / "token"
    token.write_text("sesame")
    address = f"unix:{tmp_path / 'hub.sock'}"
    async with open_hub("solo", policy=Policy.BYPASS, agents=AGENTS, token="sesame", listen=[address]) as hub:
        async with hub.open_client() as client:
            await be_a_member(client, ["--connect", address, "--token-file", str(token)])


async def be_a_member(hub: Client, options: list[str]) -> None:
    async def names() -> list[str]:
        return [agent.name for agent in await hub.local_agents()]

    arguments = ["-m", "loopal_cluster", "mcp", *options]
    server = mcp.StdioServerParameters(command=sys.executable, args=arguments, env=dict(os.environ))
    info = mcp_types.Implementation(name="Claude Code", version="1.0")
    async with mcp.Client(server, client_info=info, mode="auto") as client:
        hubs = await client.call_tool("ListHubs", {})
        assert "You are the agent 'solo/claude-code'" in text_of(hubs)
        assert await names() == ["claude-code"]

        await hub.send("claude-code", "good morning")
        await client.call_tool("Agent", {"prompt": "hi", "subagent_type": "shout", "run_in_background": True})
        letters: list[dict[str, Any]] = []
        while len(letters) < 2:
            inbox = await client.call_tool("Inbox", {"wait": LONGEST_CALL})
            assert inbox.structured_content is not None
            letters += inbox.structured_content["messages"]
        assert {letter["text"] for letter in letters} == {"good morning", "HI on solo"}

        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer, client, "42")
            assert await hub.ask("solo/claude-code", "how many?") == "42"
        await cancel_a_call(client, names)
        for name, detached in (("ours", False), ("free", True)):
            arguments_: dict[str, Any] = {"prompt": "", "subagent_type": "linger", "run_in_background": True}
            await client.call_tool("Agent", arguments_ | {"name": name, "detached": detached})
        assert await names() == ["claude-code", "ours", "free"]
    while await names() != ["free"]:
        await trio.lowlevel.checkpoint()


async def answer(client: mcp.Client, text: str) -> None:
    """Wait for a question, and answer it."""
    inbox = await client.call_tool("Inbox", {"wait": LONGEST_CALL})
    assert inbox.structured_content is not None
    (letter,) = inbox.structured_content["messages"]
    await client.call_tool(
        "SendMessage", {"to": letter["from"], "message": text, "reply_to": letter["ask_id"]}
    )
