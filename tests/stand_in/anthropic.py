"""Anthropic's Messages API, as far as coding agents need it: what is asked, and the answer streamed.

Source: the streaming section of Anthropic's API reference. Thinking, images and caching are left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from .script import Asked, Hang, Move, Use, prompt_of

__all__ = ["read", "stream", "whole"]

USAGE = {"input_tokens": 1000, "output_tokens": 20}


def read(body: dict[str, Any]) -> Asked:
    """What is asked. Tool results are blocks of a message of the user's, beside texts of the agent's own."""
    prompt, results = "", list[str]()
    for message in body["messages"]:
        for block in _blocks(message["content"]) if message["role"] == "user" else ():
            if block["type"] == "tool_result":
                results.append(_text(block.get("content", "")))
            elif block["type"] == "text" and (said := prompt_of([block["text"]])):
                prompt, results = said, []
    return Asked(prompt, tuple(results), tuple(tool["name"] for tool in body.get("tools") or ()))


def whole(move: Move, number: int) -> dict[str, Any]:
    """The answer as one document."""
    match move:
        case Use(tool, arguments):
            block = {"type": "tool_use", "id": f"toolu_{number}", "name": tool, "input": dict(arguments)}
        case _:
            block = {"type": "text", "text": move.text}
    return {
        "id": f"msg_{number}", "type": "message", "role": "assistant", "model": "stand-in",
        "content": [block], "stop_reason": "tool_use" if isinstance(move, Use) else "end_turn",
        "stop_sequence": None, "usage": USAGE,
    }  # fmt: skip


def stream(move: Move, number: int) -> Iterator[bytes]:
    """The answer as events; one that hangs breaks off in the middle of its text."""
    message = whole(move, number)
    [block] = message["content"]
    if isinstance(move, Use):
        empty = block | {"input": {}}
        delta = {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
    else:
        empty = block | {"text": ""}
        delta = {"type": "text_delta", "text": block["text"]}
    yield _event("message_start", message=message | {"content": [], "stop_reason": None})
    yield _event("content_block_start", index=0, content_block=empty)
    yield _event("content_block_delta", index=0, delta=delta)
    if isinstance(move, Hang):
        return
    yield _event("content_block_stop", index=0)
    ending = {"stop_reason": message["stop_reason"], "stop_sequence": None}
    yield _event("message_delta", delta=ending, usage=USAGE)
    yield _event("message_stop")


def _event(kind: str, **fields: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind} | fields)}\n\n".encode()


def _blocks(content: str | list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _text(content: str | list[dict[str, Any]]) -> str:
    return "".join(block.get("text", "") for block in _blocks(content))
