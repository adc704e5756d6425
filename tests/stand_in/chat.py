"""OpenAI's chat completions, the API that most local model servers speak, as far as coding agents need it.

``responses.py`` is OpenAI's newer API. Source: OpenAI's API reference, "Chat Completions" and its streaming.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from .script import Asked, Hang, Move, Use, prompt_of

__all__ = ["read", "stream", "whole"]

USAGE = {"prompt_tokens": 1000, "completion_tokens": 20, "total_tokens": 1020}


def read(body: dict[str, Any]) -> Asked:
    """What is asked. A tool result is a message of its own."""
    prompt, results = "", list[str]()
    for message in body["messages"]:
        if message["role"] == "tool":
            results.append("".join(_texts(message["content"])))
        elif message["role"] == "user" and (said := prompt_of(_texts(message["content"]))):
            prompt, results = said, []
    return Asked(prompt, tuple(results), tuple(tool["function"]["name"] for tool in body.get("tools") or ()))


def whole(move: Move, number: int) -> dict[str, Any]:
    """The answer as one document."""
    message: dict[str, Any] = {"role": "assistant", "content": None}
    match move:
        case Use(tool, arguments):
            function = {"name": tool, "arguments": json.dumps(arguments)}
            message["tool_calls"] = [{"id": f"call_{number}", "type": "function", "function": function}]
        case _:
            message["content"] = move.text
    ending = "tool_calls" if isinstance(move, Use) else "stop"
    choice = {"index": 0, "message": message, "finish_reason": ending}
    return _completion("chat.completion", number) | {"choices": [choice], "usage": USAGE}


def stream(move: Move, number: int) -> Iterator[bytes]:
    """The answer as chunks; one that hangs breaks off after its text."""
    [choice] = whole(move, number)["choices"]
    delta = choice["message"]
    if isinstance(move, Use):
        delta = delta | {"tool_calls": [{"index": 0} | call for call in delta["tool_calls"]]}
    chunk = _completion("chat.completion.chunk", number)
    yield _data(chunk | {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
    if isinstance(move, Hang):
        return
    last = {"index": 0, "delta": {}, "finish_reason": choice["finish_reason"]}
    yield _data(chunk | {"choices": [last], "usage": USAGE})
    yield b"data: [DONE]\n\n"


def _completion(kind: str, number: int) -> dict[str, Any]:
    return {"id": f"chatcmpl-{number}", "object": kind, "created": 0, "model": "stand-in"}


def _data(document: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(document)}\n\n".encode()


def _texts(content: str | list[dict[str, Any]]) -> list[str]:
    return [content] if isinstance(content, str) else [part.get("text", "") for part in content]
