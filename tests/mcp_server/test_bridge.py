"""The way between a program's standard streams and its hub, and whom the door lets in there."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
import trio.testing
from attrs import define

from loopal_cluster import Client, ConnectionLost, open_hub
from loopal_cluster.mcp_server.bridge import SOCKET_VARIABLE, TOKEN_VARIABLE, bridge
from loopal_cluster.mcp_server.door import Door, open_door
from loopal_cluster.tools import Toolbox

from .clients import AGENTS, LineClient, text_of


@define
class Program:
    """As much of an agent as the door needs."""

    tools: Toolbox


@define
class House:
    """A hub and its door."""

    client: Client
    door: Door

    def entry(self) -> Any:
        """What the program of an agent is told, good for a block."""
        return self.door.open_entry(Program(Toolbox(self.client)), http=False)  # type: ignore[arg-type]

    async def names(self) -> list[str]:
        """The agents there are."""
        return [agent.name for agent in await self.client.local_agents()]


@pytest.fixture
async def house() -> AsyncIterator[House]:
    """A hub and its door."""
    async with open_hub("solo", agents=AGENTS) as hub, hub.open_client() as client, open_door() as door:
        yield House(client, door)


def environment(entry: Any) -> tuple[str, str]:
    """Where to go, and with which token."""
    env = {variable["name"]: variable["value"] for variable in entry["env"]}
    return env[SOCKET_VARIABLE], env[TOKEN_VARIABLE]


async def test_a_program_uses_its_agents_tools_until_it_ends(house: House):
    with house.entry() as entry:
        ours, theirs = trio.testing.memory_stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bridge, *environment(entry), theirs, theirs)
            client = LineClient(ours)
            await client.initialize()
            assert text_of(await client.result("Agent", prompt="hi", subagent_type="shout")) == "HI on solo"
            await client.use("Agent", prompt="", subagent_type="linger", name="slow")
            while "slow" not in await house.names():
                await trio.lowlevel.checkpoint()

            await ours.aclose()

        while "slow" in await house.names():
            await trio.lowlevel.checkpoint()


async def test_the_end_of_its_agent_ends_the_bridge(house: House):
    ours, theirs = trio.testing.memory_stream_pair()
    with pytest.RaisesGroup(ConnectionLost, flatten_subgroups=True):
        async with trio.open_nursery() as nursery:
            with house.entry() as entry:
                nursery.start_soon(bridge, *environment(entry), theirs, theirs)
                await LineClient(ours).initialize()
            await trio.sleep_forever()


@pytest.mark.parametrize("token", ["guessed", "", "x" * 10_000])
async def test_a_foreign_token_is_not_let_in(token: str, house: House):
    with house.entry() as entry:
        path, _ = environment(entry)
        ours, theirs = trio.testing.memory_stream_pair()

        with pytest.RaisesGroup(ConnectionLost, flatten_subgroups=True):
            await bridge(path, token, theirs, theirs)

        await theirs.aclose()
        assert await ours.receive_some() == b""


async def test_the_door_is_this_users_alone(house: House):
    with house.entry() as entry:
        path, _ = environment(entry)
        directory = trio.Path(path).parent

        assert (await directory.stat()).st_mode & 0o077 == 0


async def test_nothing_is_left_of_the_door():
    async with open_hub("solo") as hub, hub.open_client() as client:
        async with open_door() as door:
            with House(client, door).entry() as entry:
                directory = trio.Path(environment(entry)[0]).parent
                assert await directory.exists()

        assert not await directory.exists()


async def test_what_is_sent_with_the_token_is_not_lost(house: House):
    with house.entry() as entry:
        path, token = environment(entry)
        async with await trio.open_unix_socket(path) as stream:
            ping = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "ping"})
            await stream.send_all(f"{token}\n{ping}\n".encode())

            assert await LineClient(stream).read() == {"jsonrpc": "2.0", "id": 1, "result": {}}
