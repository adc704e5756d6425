"""What an agent reports and what an editor shows, without any IO."""

from __future__ import annotations

import pytest

from loopal_cluster import Address
from loopal_cluster.acp.rpc import Refused
from loopal_cluster.editor.updates import Spoken, Tools, decision_of, prompt_text, tool_call_of, update_of
from loopal_cluster.errors import ProtocolError
from loopal_cluster.messages import Decision, Opaque, Permission
from loopal_cluster.payloads import AwaitingInput, TokenUsage, ToolCall, ToolProgress, ToolResult
from loopal_cluster.wire.contents import dumps


@pytest.mark.parametrize(
    "events",
    [
        ["reply"],
        ["reply", "all"],
        ["all", "reply"],
        ["all ", "reply"],
        ["al", "l", "reply"],
        ["al", "reply", "l"],
        ["reply", "al", "l"],
    ],
)
def test_a_result_is_said_once_whatever_comes_first(events):
    spoken, said = Spoken(), ""
    spoken.begin()
    for event in events:
        said += spoken.end("all") if event == "reply" else spoken.stream(event)

    assert said.rstrip() == "all"


def test_the_next_turn_may_say_the_same():
    spoken = Spoken()
    spoken.begin()
    assert spoken.end("yes") == "yes"
    spoken.begin()
    assert spoken.stream("yes") == ""  # of the turn before
    assert spoken.end("yes") == "yes"
    assert spoken.stream("yes") == ""
    assert spoken.stream("and more") == "and more"


def test_the_end_of_a_longer_text_is_not_said_again():
    spoken = Spoken()
    spoken.begin()
    assert spoken.stream("I look. ") + spoken.stream("Two.") + spoken.end("Two.") == "I look. Two."


@pytest.mark.parametrize(
    ("tool", "kind"),
    [
        ("Bash", "execute"), ("exec_command", "execute"), ("Read", "read"), ("Edit", "edit"), ("Grep", "search"),
        ("mcp__files__write_file", "edit"), ("WebFetch", "fetch"), ("ListHubs", "search"), ("Dance", "other"),
    ],
)  # fmt: skip
def test_the_name_of_a_tool_tells_its_kind(tool, kind):
    update = update_of(ToolCall("1", tool, dumps({"a": 1})))

    assert update is not None
    assert (update["kind"], update["title"], update["rawInput"]) == (kind, tool, {"a": 1})


def test_a_use_of_a_tool_is_new_once():
    tools = Tools()
    reported = [
        ToolCall("1", "Bash", dumps({})),
        ToolCall("1", "Bash", dumps({"command": "ls"})),
        ToolProgress("1", "Bash", "half", 10),
        ToolResult("1", "Bash", "no", is_error=True),
        ToolProgress("plan", "plan", "[x] think", 10),
        ToolProgress("plan", "plan", "[x] act", 20),
    ]
    shown = [tools.show(update) for payload in reported if (update := update_of(payload))]

    assert [(update["sessionUpdate"], update["toolCallId"], update["status"]) for update in shown] == [
        ("tool_call", "1", "in_progress"),
        ("tool_call_update", "1", "in_progress"),
        ("tool_call_update", "1", "in_progress"),
        ("tool_call_update", "1", "failed"),
        ("tool_call", "plan", "in_progress"),
        ("tool_call_update", "plan", "in_progress"),
    ]
    assert shown[1]["rawInput"] == {"command": "ls"}
    assert shown[2]["content"] == [{"type": "content", "content": {"type": "text", "text": "half"}}]
    assert shown[3]["rawOutput"] == "no"
    tools.begin()
    assert tools.show(shown[0])["sessionUpdate"] == "tool_call"


def test_the_use_of_the_context_is_shown():
    assert update_of(TokenUsage(10, 5, 100, 0, 0, 0)) == {
        "sessionUpdate": "usage_update",
        "used": 15,
        "size": 100,
    }


@pytest.mark.parametrize("payload", [AwaitingInput(), Opaque(b'{"Dance":{}}'), object()])
def test_what_an_editor_has_no_place_for_is_left_out(payload):
    assert update_of(payload) is None


def test_a_question_of_another_agent_says_whose_it_is():
    ann = Address("ann", "hub-a")
    other = tool_call_of(Permission("Bash", Opaque(b"1e999"), "1", agent_name="hub-b/bob"), ann)

    for name in ("ann", "hub-a/ann"):
        own = tool_call_of(Permission("Bash", dumps({}), "1", agent_name=name), ann)
        assert (own["title"], own["rawInput"]) == ("Bash", {})
    assert (other["title"], other["rawInput"]) == ("hub-b/bob: Bash", None)


def test_answers_are_read_by_what_was_offered():
    def selected(option):
        return {"outcome": {"outcome": "selected", "optionId": option}}

    assert decision_of(selected("allow")) == Decision(allow=True)
    assert decision_of(selected("reject")) == Decision(allow=False)
    assert decision_of({"outcome": {"outcome": "cancelled"}}) is None
    for wrong in (selected("dance"), {}, None, {"outcome": "allow"}):
        with pytest.raises(ProtocolError, match="answered a permission with"):
            decision_of(wrong)


def test_a_prompt_brings_its_files():
    text = prompt_text(
        [
            {"type": "text", "text": "Look at"},
            {"type": "resource_link", "uri": "file:///a.py", "name": "a.py"},
            {"type": "resource", "resource": {"uri": "file:///b.py", "text": "b = 1"}},
        ]
    )

    assert text == 'Look at\n\n[a.py](file:///a.py)\n\n<file uri="file:///b.py">\nb = 1\n</file>'


@pytest.mark.parametrize(
    ("blocks", "words"),
    [
        ("text", "list of content blocks"),
        ([], "list of content blocks"),
        ([{"type": "audio"}], "cannot take audio"),
        ([{"type": "text"}], "cannot take text"),
        ([{}], "without a type"),
        (["x"], "without a type"),
    ],
)
def test_a_prompt_that_is_none_is_refused_in_words(blocks, words):
    with pytest.raises(Refused, match=words):
        prompt_text(blocks)
