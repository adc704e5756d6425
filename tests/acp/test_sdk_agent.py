"""An agent of the protocol's own SDK on a hub, and on the other hub of a cluster."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from loopal_cluster import AcpAgent, Decision, Done, Role
from loopal_cluster.links.client import open_client
from loopal_cluster.payloads import Interrupted, Stream, ThinkingStream, ToolCall, ToolProgress, ToolResult
from loopal_cluster.testing import byte_pair, open_test_cluster

from .test_agent import scene

pytest.importorskip("acp", reason="needs the package agent-client-protocol, of the extra dev")

SDK = AcpAgent([sys.executable, str(Path(__file__).parent / "sdk_agent.py")], asks=True)
"""Without the warnings of ours: what it warns of is its own affair."""


async def test_it_is_used_with_permission_and_everything_is_reported():
    async with scene(SDK, decision=True) as on:
        assert await on.outcome("echo hi") == Done("I said HI")
        assert on.asked == [("execute", {"text": "hi"})]

        kinds = (ThinkingStream, ToolCall, ToolProgress, ToolResult, Stream)
        reported = [event.payload for event in on.events.arrived()]
        told = [(type(one), getattr(one, "name", None)) for one in reported if isinstance(one, kinds)]
        assert told == [
            (ThinkingStream, None),
            (ToolProgress, "plan"),
            (ToolCall, "execute"),
            (ToolResult, "execute"),
            (Stream, None),
        ]


async def test_it_is_refused_and_says_what_it_makes_of_that():
    async with scene(SDK, decision=False) as on:
        assert await on.outcome("echo hi") == Done("I may not: selected")


async def test_it_is_interrupted_and_goes_on_with_the_next_message():
    async with scene(SDK, decision=True) as on:
        agent = await on.client.spawn("coder", "wait", name="c", persistent=True)
        await on.until(Stream("waiting"))
        await on.client.interrupt("c")
        await on.until(Interrupted)

        assert await agent.ask("echo again") == "I said AGAIN"


async def test_its_request_for_a_file_is_refused_as_an_unknown_method():
    async with scene(SDK) as on:
        assert await on.outcome("read /etc/passwd") == Done("no: -32601")


async def test_on_another_hub_it_is_spawned_asked_for_and_answered_through_the_cluster():
    asked = []

    async def judge(permission) -> Decision:
        asked.append((permission.agent_name, json.loads(permission.tool_input.json)))
        return Decision(allow=True)

    async with open_test_cluster(2, agents={"coder": SDK}, pair=byte_pair) as cluster:
        ours, theirs = byte_pair()
        cluster.meta_hub.attach(theirs)
        token = cluster.meta_hub.token
        async with (
            cluster["hub-a"].open_client() as client,
            open_client(ours, name="olga", token=token, role=Role.OPERATOR, on_permission=judge),
        ):
            agent = await client.spawn("coder", "echo far away", hub="hub-b", name="c")

            assert await agent.result() == "I said FAR AWAY"

    assert asked == [("hub-b/c", {"text": "far away"})]
