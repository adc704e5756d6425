"""From what a program reports to our events, and to the answer."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest

from loopal_cluster.acp.schema import read_update
from loopal_cluster.acp.transcript import ANSWER_CHARACTERS, Transcript
from loopal_cluster.messages import Opaque
from loopal_cluster.payloads import (
    ModeChanged,
    Stream,
    ThinkingStream,
    TokenUsage,
    ToolCall,
    ToolProgress,
    ToolResult,
)

from .talk import chunk


class Heard:
    """A transcript and the events that come of it."""

    def __init__(self) -> None:
        self.events: list[Any] = []
        self.transcript = Transcript(self.events.append)

    def take(self, *updates: dict[str, Any]) -> list[Any]:
        """What comes of these."""
        before = len(self.events)
        for update in updates:
            read = read_update(update)
            assert read is not None
            self.transcript.take(read)
        return self.events[before:]


@pytest.fixture
async def heard():
    return Heard()


def tool(update: str = "tool_call", tool_id: str = "t1", **more: Any) -> dict[str, Any]:
    return {"sessionUpdate": update, "toolCallId": tool_id, **more}


def done(tool_id: str = "t1", status: str = "completed", **more: Any) -> dict[str, Any]:
    return tool("tool_call_update", tool_id, status=status, **more)


def text(what: str) -> dict[str, Any]:
    return {"type": "content", "content": {"type": "text", "text": what}}


async def test_text_and_thoughts_are_streamed_and_the_text_is_the_answer(heard, autojump_clock):
    events = heard.take(chunk("hm", "agent_thought_chunk"), chunk("He"), chunk("llo"), chunk(""))

    assert events == [ThinkingStream("hm"), Stream("He"), Stream("llo")]
    assert heard.transcript.answer == "Hello"


async def test_the_answer_is_what_is_said_after_the_last_tool(heard, autojump_clock):
    heard.take(chunk("Let me look."), tool(title="ls"), done(), chunk("Two "), chunk("files."))

    assert heard.transcript.answer == "Two files."


async def test_if_nothing_is_said_after_the_last_tool_the_answer_is_what_was_said_before_it(
    heard, autojump_clock
):
    heard.take(chunk("All done."), tool(title="ls"), done(), chunk("\n"))

    assert heard.transcript.answer == "All done."


async def test_another_message_id_is_another_message(heard, autojump_clock):
    heard.take(
        chunk("A warning.", messageId="1"), chunk("The ", messageId="2"), chunk("answer.", messageId="2")
    )

    assert heard.transcript.answer == "The answer."


async def test_what_the_user_said_is_no_answer(heard, autojump_clock):
    assert heard.take(chunk("hi", "user_message_chunk")) == []
    assert heard.transcript.answer == ""


async def test_what_is_no_text_is_named(heard, autojump_clock):
    heard.take(
        {"sessionUpdate": "agent_message_chunk", "content": {"type": "image", "data": "", "mimeType": "i/p"}},
        {"sessionUpdate": "agent_message_chunk", "content": {"type": "resource_link", "uri": "file:///a"}},
        {"sessionUpdate": "agent_message_chunk", "content": {"type": "resource", "resource": {"text": "t"}}},
        {"sessionUpdate": "agent_message_chunk", "content": {}},
    )

    assert heard.transcript.answer == "[image]file:///at"


async def test_a_tool_is_reported_with_its_input_and_its_result(heard, autojump_clock):
    events = heard.take(
        tool(title="List files", kind="execute", status="pending", rawInput={"command": "ls"}),
        tool("tool_call_update", status="in_progress", content=[text("a.py")]),
        done(content=[text("a.py"), text("b.py")]),
        done(content=[text("once more")]),
    )

    assert events == [
        ToolCall(id="t1", name="execute", input=Opaque(b'{"command":"ls"}')),
        ToolProgress(id="t1", name="execute", output_tail="a.py", elapsed_ms=0),
        ToolResult(id="t1", name="execute", result="a.py\nb.py", is_error=False, duration_ms=0),
    ]


async def test_an_input_that_comes_later_is_reported_when_it_comes(heard, autojump_clock):
    meta = {"claudeCode": {"toolName": "Bash"}}
    events = heard.take(
        tool(title="Terminal", rawInput={}, _meta=meta),
        tool("tool_call_update", rawInput={"command": "ls"}),
        tool("tool_call_update", rawInput={"command": "ls"}),
    )

    assert events == [
        ToolCall(id="t1", name="Bash", input=Opaque(b'{"title":"Terminal"}')),
        ToolCall(id="t1", name="Bash", input=Opaque(b'{"command":"ls"}')),
    ]


async def test_a_tool_that_was_announced_is_known_by_its_name_later(heard, autojump_clock):
    heard.take(
        tool(title="ls -l", kind="execute", _meta={"claudeCode": {"toolName": "Bash"}}), tool(tool_id="t2")
    )
    asked = [read_update(tool(tool_id=which, title="ls -l")) for which in ("t1", "t2", "t3")]

    assert [heard.transcript.name_of(one) for one in asked] == ["Bash", "tool", "ls -l"]
    assert [heard.transcript.own_name_of(one) for one in asked] == ["Bash", None, None]


async def test_a_result_of_a_tool_that_was_never_announced_is_reported_all_the_same(heard, autojump_clock):
    events = heard.take(done("unknown", "failed", rawOutput={"exit": 1}, title="odd"))

    assert events == [
        ToolCall(id="unknown", name="odd", input=Opaque(b'{"title":"odd"}')),
        ToolResult(id="unknown", name="odd", result='{"exit": 1}', is_error=True, duration_ms=0),
    ]


async def test_an_edit_names_its_file(heard, autojump_clock):
    diff = {"type": "diff", "path": "/work/a.py", "oldText": None, "newText": "x"}

    assert heard.take(tool(kind="edit"), done(content=[diff]))[-1].result == "changed /work/a.py"


async def test_a_plan_is_shown_as_progress(heard, autojump_clock):
    entries = [
        {"content": "look", "status": "completed", "priority": "high"},
        {"content": "think", "status": "in_progress"},
        {"content": "do"},
    ]

    assert heard.take({"sessionUpdate": "plan", "entries": entries}) == [
        ToolProgress(id="plan", name="plan", output_tail="[x] look\n[~] think\n[ ] do", elapsed_ms=0)
    ]


async def test_modes_of_any_name_are_two_to_us(heard, autojump_clock):
    events = heard.take(
        *({"sessionUpdate": "current_mode_update", "currentModeId": mode} for mode in ("ask", "plan", "yolo"))
    )

    assert events == [ModeChanged("plan"), ModeChanged("act")]


async def test_usage_is_reported_within_what_the_wire_can_carry(heard, autojump_clock):
    usage = {"sessionUpdate": "usage_update", "used": 2**40, "size": 200_000}
    (event,) = heard.take(usage, usage)
    heard.transcript.on_usage(
        {"inputTokens": 7, "outputTokens": 5, "cachedReadTokens": -1, "thoughtTokens": None}
    )
    heard.transcript.on_usage({})

    nothing = {"cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, "thinking_tokens": 0}
    assert event == TokenUsage(input_tokens=2**32 - 1, output_tokens=0, context_window=200_000, **nothing)
    assert heard.events[1:] == [
        TokenUsage(input_tokens=7, output_tokens=5, context_window=200_000, **nothing)
    ]


async def test_a_flood_of_every_kind_leaves_no_more_than_the_longest_answer(autojump_clock):
    transcript = Transcript(lambda event: None)
    thought: Any = read_update(chunk("x" * 1000, "agent_thought_chunk"))
    said: Any = read_update(chunk("y" * 1000))
    tracemalloc.start()
    try:
        for number in range(20_000):
            transcript.take(thought)
            update: Any = read_update(tool(tool_id=f"tool-{number}", rawInput={"n": number}))
            transcript.take(update)
        for _ in range(20_000):
            transcript.take(said)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert transcript.is_cut
    assert len(transcript.answer) == ANSWER_CHARACTERS
    assert kept < 4 * ANSWER_CHARACTERS
