"""What an editor is told is what the published schema says, and our own client of the protocol takes it as well."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import trio
from trio.testing import memory_stream_pair

from loopal_cluster import Role
from loopal_cluster.acp.client import AcpError, open_client
from loopal_cluster.acp.schema import Chunk, PermissionRequest, ToolCall
from loopal_cluster.editor.service import Editor
from loopal_cluster.testing import open_test_cluster

from .desk import AGENTS, open_desk

SCHEMA = Path(__file__).parents[1] / "acp" / "schema" / "acp-v1.json"
DEFINITIONS: dict[str, Any] = json.loads(SCHEMA.read_text())["$defs"]


def check(value: Any, definition: str) -> None:
    """Fail if a value is not what a definition says."""
    schema = {"$ref": f"#/$defs/{definition}", "$defs": DEFINITIONS}
    jsonschema.Draft202012Validator(schema).validate(value)


@pytest.fixture
async def cluster(autojump_clock):
    async with open_test_cluster(hubs=2, agents=AGENTS) as cluster:
        yield cluster


async def test_every_message_is_as_the_schema_says(cluster):
    async with open_desk(cluster, "coder") as desk:
        check(await desk.peer.call("initialize", {"protocolVersion": 1}), "InitializeResponse")
        new = await desk.peer.call("session/new", {"cwd": "/", "mcpServers": []})
        check(new, "NewSessionResponse")
        prompt = {"sessionId": new["sessionId"], "prompt": [{"type": "text", "text": "ls"}]}
        check(await desk.peer.call("session/prompt", prompt), "PromptResponse")
        check(await desk.peer.call("session/close", {"sessionId": new["sessionId"]}), "CloseSessionResponse")

    for asked in desk.asked:
        check(asked, "RequestPermissionRequest")
    for update in desk.updates:
        check({"sessionId": new["sessionId"], "update": update}, "SessionNotification")
    assert len(desk.asked) == 1
    assert {update["sessionUpdate"] for update in desk.updates} == {
        "agent_message_chunk", "agent_thought_chunk", "tool_call", "tool_call_update",
    }  # fmt: skip


def test_the_schema_refuses_what_is_wrong():
    with pytest.raises(jsonschema.ValidationError):
        check({"sessionId": "s", "update": {"sessionUpdate": "tool_call"}}, "SessionNotification")


async def test_our_own_client_works_with_it(cluster):
    here, there = memory_stream_pair()
    editor = Editor("coder", None)
    seen: list[str] = []

    def on_update(update: object) -> None:
        match update:
            case Chunk(kind=kind):
                seen.append(kind)
            case ToolCall(status=status):
                seen.append(str(status))

    async def on_permission(request: PermissionRequest) -> str:
        [option] = [option.option_id for option in request.options if option.kind == "allow_once"]
        return option

    async with (
        there,
        cluster["hub-a"].open_client(role=Role.OPERATOR, on_permission=editor.on_permission) as operator,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(editor.serve, operator, there, there)
        async with here, open_client(here, here) as client:
            await client.initialize(name="ours", version="1")
            session = await client.new_session("/", [])
            end = await session.prompt(
                "ls", on_update=on_update, on_permission=on_permission, cancel_timeout=1.0
            )
            with pytest.raises(AcpError, match="no mode 'plan'"):
                await session.set_mode("plan")

    assert end.stop_reason == "end_turn"
    assert seen == [
        "agent_thought_chunk",
        "agent_message_chunk",
        "in_progress",
        "completed",
        "agent_message_chunk",
    ]
