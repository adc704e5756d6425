"""What we write is what the published schema of the protocol says, and we read what it says as well."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from loopal_cluster.acp.schema import read_update
from loopal_cluster.payloads import Stream

from .test_agent import Door, WithDoor, scene, scripted

jsonschema = pytest.importorskip("jsonschema", reason="needs the package jsonschema, of the extra dev")

SCHEMA: dict[str, Any] = json.loads((Path(__file__).parent / "schema" / "acp-v1.json").read_text())
DEFINITIONS = SCHEMA["$defs"]
PARAMETERS = {
    of["x-method"]: name
    for name, of in DEFINITIONS.items()
    if "x-method" in of and not name.endswith("Response")
}
"""The definition of each method's parameters."""


def check(value: Any, definition: str) -> None:
    """Fail if a value is not what a definition says."""
    schema = {"$ref": f"#/$defs/{definition}", "$defs": DEFINITIONS}
    jsonschema.Draft202012Validator(schema).validate(value)


async def test_every_message_that_we_write_is_as_the_schema_says(tmp_path):
    """With all that we can be brought to write: a turn, an answer to a permission, a cancel, settings."""
    log = tmp_path / "log"
    env = {"ACP_LOG": str(log), "ACP_KEY": "right"}
    coder = scripted("resume", env=env, resume=True, mode="plan", model="small", auth="key")
    async with scene(WithDoor(coder, Door()), decision=True) as on:
        agent = await on.client.spawn("coder", "ask Bash\nrequest no/such", name="c", persistent=True)
        assert await agent.ask("die once\nsay back") == "back"
        await agent.send("ask Bash\nwait")
        for _ in range(2):
            await on.until(Stream("Bash: opt-1\n"))
        await on.client.interrupt("c")
        assert await agent.ask("say over") == "over"

    seen = set()
    for line in log.read_text().splitlines():
        message = json.loads(line)
        assert message.pop("jsonrpc") == "2.0"
        if "method" in message:
            seen.add(message["method"])
            check(message["params"], PARAMETERS[message["method"]])
            assert message.keys() == {"method", "params"} | ({"id"} & message.keys())
        elif "result" in message:
            seen.add("answer")
            check(message["result"], "RequestPermissionResponse")
        else:
            seen.add("refusal")
            check(message["error"], "Error")
    assert seen == {
        "answer",
        "authenticate",
        "initialize",
        "refusal",
        "session/cancel",
        "session/new",
        "session/prompt",
        "session/resume",
        "session/set_config_option",
        "session/set_mode",
    }


UPDATES: dict[str, dict[str, Any]] = {
    "user_message_chunk": {"content": {"type": "text", "text": "t"}},
    "agent_message_chunk": {"content": {"type": "text", "text": "t"}, "messageId": "m"},
    "agent_thought_chunk": {"content": {"type": "text", "text": "t"}},
    "tool_call": {"toolCallId": "t", "title": "T", "kind": "edit", "status": "pending", "rawInput": {}},
    "tool_call_update": {"toolCallId": "t", "status": None, "content": None},
    "plan": {"entries": [{"content": "c", "priority": "low", "status": "pending"}]},
    "current_mode_update": {"currentModeId": "plan"},
    "config_option_update": {
        "configOptions": [
            {
                "id": "mode",
                "name": "Mode",
                "category": "mode",
                "type": "select",
                "currentValue": "plan",
                "options": [],
            }
        ]
    },
    "usage_update": {"used": 1, "size": 2, "cost": {"amount": 0.1, "currency": "USD"}},
}


@pytest.mark.parametrize("kind", UPDATES)
def test_every_kind_of_update_that_we_use_is_read_as_the_schema_says(kind):
    update = {"sessionUpdate": kind, **UPDATES[kind]}
    check(update, "SessionUpdate")

    assert read_update(update) is not None


def test_every_kind_of_update_of_the_schema_is_read_or_passed_over():
    kinds = {of["properties"]["sessionUpdate"]["const"] for of in DEFINITIONS["SessionUpdate"]["oneOf"]}

    assert set(UPDATES) <= kinds
    for kind in kinds - set(UPDATES):
        assert read_update({"sessionUpdate": kind}) is None


def test_a_wrong_message_would_be_noticed():
    with pytest.raises(jsonschema.ValidationError):
        check({"cwd": "/work"}, "NewSessionRequest")
