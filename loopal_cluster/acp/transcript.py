"""What a coding agent reports during a turn, as our events; and what of it is the answer.

The answer is its last message: what it says between two uses of tools is streamed like everything else, but
only the last of it is the result.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import trio

from loopal_cluster.acp.schema import Chunk, ModeUpdate, Plan, Update, UsageUpdate, text_of_block
from loopal_cluster.acp.schema import ToolCall as AcpToolCall
from loopal_cluster.payloads import (
    ModeChanged,
    Payload,
    Stream,
    ThinkingStream,
    TokenUsage,
    ToolCall,
    ToolProgress,
    ToolResult,
)
from loopal_cluster.records import define
from loopal_cluster.texts import TEXT_BYTES
from loopal_cluster.wire.contents import dumps

__all__ = ["ANSWER_CHARACTERS", "Transcript"]

ANSWER_CHARACTERS = 2 * TEXT_BYTES
"""So much of an answer is collected, which is more than a result may have: the rest is streamed all the same."""
TOOLS = 256
"""So many tool calls of a turn are remembered; what comes of older ones is reported without their names."""
RESULT_CHARACTERS = 100_000
"""So much of a tool's result is reported."""
TAIL_CHARACTERS = 4000
"""And so much of what it has said so far."""

_MARKS = {"completed": "x", "in_progress": "~"}
_MOST = 2**32 - 1


@define
class _Tool:
    name: str
    begun_at: float
    own_name: str | None
    """What the program itself calls it, apart from what its model says of this use."""
    reported: Any = None
    """Its input, as far as it was reported."""
    has_ended: bool = False


class Transcript:
    """One turn. ``take`` is called with each update, ``emit`` with the events that come of them."""

    def __init__(self, emit: Callable[[Payload], None]) -> None:
        self._emit = emit
        self._begun_at = trio.current_time()
        self._tools: dict[str, _Tool] = {}
        self._plan = "act"
        self._used = self._window = 0
        self._message: list[str] = []
        self._message_id: str | None = None
        self._characters = 0
        self._answer = ""
        self.is_cut = False
        """Whether the answer was longer than ``ANSWER_CHARACTERS``."""

    @property
    def answer(self) -> str:
        """The last message that was more than white space."""
        text = "".join(self._message)
        return text if text.strip() else self._answer

    def take(self, update: Update) -> None:
        """The agent has reported something."""
        match update:
            case Chunk(kind="agent_message_chunk"):
                self._on_message(update)
            case Chunk(kind="agent_thought_chunk"):
                self._emit(ThinkingStream(text_of_block(update.content)))
            case AcpToolCall():
                self._on_tool(update)
            case Plan():
                self._on_plan(update)
            case UsageUpdate(used=used, size=size):
                self._on_context(_u32(used), _u32(size))
            case ModeUpdate(current_mode_id=mode):
                self._on_mode(mode)

    def on_usage(self, usage: Mapping[str, Any]) -> None:
        """What the turn has cost, as its end has said."""
        if usage:
            self._emit(
                _usage(
                    input_tokens=_u32(usage.get("inputTokens")),
                    output_tokens=_u32(usage.get("outputTokens")),
                    context_window=self._window,
                    cache_creation_input_tokens=_u32(usage.get("cachedWriteTokens")),
                    cache_read_input_tokens=_u32(usage.get("cachedReadTokens")),
                    thinking_tokens=_u32(usage.get("thoughtTokens")),
                )
            )

    def end_message(self) -> None:
        """What it says next is another message."""
        self._answer = self.answer
        self._message.clear()
        self._characters, self.is_cut = 0, False

    def name_of(self, call: AcpToolCall) -> str:
        """What to call a tool, for people: an id that was never mentioned is no fault."""
        known = self._tools.get(call.tool_call_id)
        kind = None if call.kind == "other" else call.kind
        return _own_name(call) or (known.name if known else None) or kind or call.title or "tool"

    def own_name_of(self, call: AcpToolCall) -> str | None:
        """What the program itself calls a tool, here or when it announced its use; None if it has not said."""
        known = self._tools.get(call.tool_call_id)
        return _own_name(call) or (known.own_name if known else None)

    def _on_message(self, chunk: Chunk) -> None:
        text = text_of_block(chunk.content)
        if chunk.message_id != self._message_id:
            self.end_message()
            self._message_id = chunk.message_id
        room = ANSWER_CHARACTERS - self._characters
        self.is_cut = self.is_cut or len(text) > room
        if room > 0 and text:
            self._message.append(text[:room])
            self._characters += len(text[:room])
        if text:
            self._emit(Stream(text))

    def _on_tool(self, call: AcpToolCall) -> None:
        self.end_message()
        tool = self._tools.get(call.tool_call_id)
        if tool is None:
            tool = self._begin_tool(call)
        elif tool.has_ended:
            return
        elif call.raw_input not in (None, {}, tool.reported):
            # Some programs announce a tool before its input is known.
            self._report_tool(call, tool)
        match call.status:
            case "completed" | "failed":
                self._end_tool(call, tool)
            case "in_progress" if call.content:
                self._emit(
                    ToolProgress(
                        id=call.tool_call_id,
                        name=tool.name,
                        output_tail=_text_of(call.content)[-TAIL_CHARACTERS:],
                        elapsed_ms=_since(tool.begun_at),
                    )
                )

    def _begin_tool(self, call: AcpToolCall) -> _Tool:
        if len(self._tools) >= TOOLS:
            del self._tools[next(iter(self._tools))]
        tool = self._tools[call.tool_call_id] = _Tool(
            self.name_of(call), trio.current_time(), _own_name(call)
        )
        self._report_tool(call, tool)
        return tool

    def _report_tool(self, call: AcpToolCall, tool: _Tool) -> None:
        tool.reported = call.raw_input
        given = {"title": call.title} if call.raw_input in (None, {}) else call.raw_input
        self._emit(ToolCall(id=call.tool_call_id, name=tool.name, input=dumps(given)))

    def _end_tool(self, call: AcpToolCall, tool: _Tool) -> None:
        tool.has_ended = True
        text = _text_of(call.content) or _plain(call.raw_output)
        result = ToolResult(
            id=call.tool_call_id,
            name=tool.name,
            result=text[:RESULT_CHARACTERS],
            is_error=call.status == "failed",
            duration_ms=_since(tool.begun_at),
        )
        self._emit(result)

    def _on_context(self, used: int, window: int) -> None:
        if (used, window) != (self._used, self._window):
            self._used, self._window = used, window
            self._emit(_usage(input_tokens=used, context_window=window))

    def _on_plan(self, plan: Plan) -> None:
        # There is no event for a plan. To a human it is what a tool says that is still at work.
        steps = "\n".join(f"[{_MARKS.get(entry.status, ' ')}] {entry.content}" for entry in plan.entries)
        elapsed = _since(self._begun_at)
        self._emit(
            ToolProgress(id="plan", name="plan", output_tail=steps[:TAIL_CHARACTERS], elapsed_ms=elapsed)
        )

    def _on_mode(self, mode: str) -> None:
        # Programs have modes of many names; to us there are two.
        plan = "plan" if mode == "plan" else "act"
        if plan != self._plan:
            self._plan = plan
            self._emit(ModeChanged(plan))


def _own_name(call: AcpToolCall) -> str | None:
    match call.meta:
        case {"claudeCode": {"toolName": str(name)}}:
            return call.name or name
        case _:
            return call.name


def _text_of(content: Any) -> str:
    """The content of a tool call; of an edit, which file."""
    return "\n".join(filter(None, map(_text_of_item, content if isinstance(content, list) else [])))


def _text_of_item(item: Any) -> str:
    match item:
        case {"type": "content", "content": block}:
            return text_of_block(block)
        case {"type": "diff", "path": str(path)}:
            return f"changed {path}"
        case _:
            return ""


def _plain(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return json.dumps(value, ensure_ascii=False)


def _since(begun_at: float) -> int:
    return int((trio.current_time() - begun_at) * 1000)


def _u32(value: Any) -> int:
    return min(max(value, 0), _MOST) if isinstance(value, int) else 0


def _usage(
    *,
    input_tokens: int = 0,
    output_tokens: int = 0,
    context_window: int = 0,
    cache_creation_input_tokens: int = 0,
    cache_read_input_tokens: int = 0,
    thinking_tokens: int = 0,
) -> TokenUsage:
    return TokenUsage(
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        context_window=context_window,
        cache_creation_input_tokens=cache_creation_input_tokens,
        cache_read_input_tokens=cache_read_input_tokens,
        thinking_tokens=thinking_tokens,
    )
