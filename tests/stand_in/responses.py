"""OpenAI's Responses API, as far as Codex needs it: what is asked, and the answer streamed.

Source: OpenAI's API reference, "Responses" and "Streaming events". A tool of an MCP server is offered inside a
namespace of that server's, and is called with both names.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from .script import Asked, Hang, Move, Use, prompt_of

__all__ = ["read", "stream", "whole"]

USAGE = {
    "input_tokens": 1000, "input_tokens_details": {"cached_tokens": 0},
    "output_tokens": 20, "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 1020,
}  # fmt: skip


def read(body: dict[str, Any]) -> Asked:
    """What is asked. A tool result is an item of its own."""
    prompt, results = "", list[str]()
    for item in body["input"]:
        match item:
            case {"type": "function_call_output" | "custom_tool_call_output", "output": output}:
                results.append("".join(_texts(output)))
            case {"role": "user", "content": content} if said := prompt_of(_texts(content)):
                prompt, results = said, []
    return Asked(prompt, tuple(results), tuple(_tools(body.get("tools") or [])))


def whole(move: Move, number: int) -> dict[str, Any]:
    """The answer as one document."""
    item: dict[str, Any]
    match move:
        case Use(tool, arguments):
            space, _, name = tool.rpartition(SEPARATOR)
            item = {"type": "function_call", "id": f"fc_{number}", "call_id": f"call_{number}", "name": name}
            item |= {"arguments": json.dumps(arguments), "status": "completed"}
            item |= {"namespace": space} if space else {}
        case _:
            part = {"type": "output_text", "text": move.text, "annotations": []}
            item = {"type": "message", "id": f"msg_{number}", "role": "assistant", "content": [part]}
            item |= {"status": "completed"}
    return {"id": f"resp_{number}", "object": "response", "created_at": 0, "model": "stand-in",
            "status": "completed", "output": [item], "usage": USAGE}  # fmt: skip


def stream(move: Move, number: int) -> Iterator[bytes]:
    """The answer as events; one that hangs breaks off in the middle of its text."""
    response = whole(move, number)
    [item] = response["output"]
    empty: dict[str, Any] = {"arguments": ""} if isinstance(move, Use) else {"content": []}
    begun = item | empty
    yield _event("response.created", response=response | {"status": "in_progress", "output": []})
    yield _event("response.output_item.added", output_index=0, item=begun | {"status": "in_progress"})
    if not isinstance(move, Use):
        where = {"item_id": item["id"], "output_index": 0, "content_index": 0}
        yield _event("response.output_text.delta", **where, delta=move.text)
    if isinstance(move, Hang):
        return
    yield _event("response.output_item.done", output_index=0, item=item)
    yield _event("response.completed", response=response)


SEPARATOR = "/"
"""Between a namespace and a tool in it; ours, for no name has one."""


def _tools(tools: list[dict[str, Any]]) -> Iterator[str]:
    for tool in tools:
        if tool["type"] == "namespace":
            yield from (f"{tool['name']}{SEPARATOR}{inner['name']}" for inner in tool["tools"])
        elif "name" in tool:
            yield tool["name"]


def _event(kind: str, **fields: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind} | fields)}\n\n".encode()


def _texts(content: str | list[dict[str, Any]]) -> list[str]:
    return [content] if isinstance(content, str) else [part.get("text", "") for part in content]
