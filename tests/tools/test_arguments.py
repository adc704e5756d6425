"""One record is the schema a model is shown and the check of what it sends."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import ClassVar, Literal

import pytest
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st

from loopal_cluster.tools import (
    TOOLS,
    Agent,
    PermissionLevel,
    SendMessage,
    Tool,
    ToolContext,
    ToolResult,
    WaitAgent,
    argument,
)
from loopal_cluster.tools.arguments import InvalidArguments, json_schema, read_arguments


@frozen
class Paint(Tool):
    """One argument of each kind."""

    tool_name: ClassVar = "Paint"
    permission: ClassVar = PermissionLevel.SUPERVISED
    description: ClassVar = "Paint a wall."
    what: str = argument("The wall.")
    colour: Literal["red", "blue"] = argument("The colour.", default="red")
    coats: int = argument("How many.", default=1, minimum=1, maximum=5)
    width: float | None = argument("In metres.", default=None)
    dry: bool = argument("Wait until it is dry.", default=False)

    async def run(self, context: ToolContext) -> ToolResult:
        return ToolResult(f"{self.what} is {self.colour}")


def test_the_schema_says_what_the_record_says():
    assert json_schema(Paint) == {
        "type": "object",
        "properties": {
            "what": {"type": "string", "description": "The wall."},
            "colour": {
                "type": "string",
                "enum": ["red", "blue"],
                "description": "The colour.",
                "default": "red",
            },
            "coats": {
                "type": "integer",
                "description": "How many.",
                "minimum": 1,
                "maximum": 5,
                "default": 1,
            },
            "width": {"type": ["number", "null"], "description": "In metres."},
            "dry": {"type": "boolean", "description": "Wait until it is dry.", "default": False},
        },
        "additionalProperties": False,
        "required": ["what"],
    }


@pytest.mark.parametrize("tool", TOOLS)
def test_every_argument_of_every_tool_is_described(tool):
    schema = json_schema(tool)

    assert len(tool.description) > 100
    assert "hub" in tool.description
    assert all(len(field["description"]) > 8 for field in schema["properties"].values())
    assert json.loads(json.dumps(schema)) == schema


@pytest.mark.parametrize(
    "arguments",
    [
        {"what": "north", "width": 2, "dry": True},
        '{"what": "north", "width": 2.0, "dry": true}',
        ' {"what":"north","dry":true,"width":2e0}\n',
    ],
)
def test_arguments_are_a_mapping_or_json(arguments):
    assert read_arguments(Paint, arguments) == Paint("north", width=2.0, dry=True)


def test_null_is_an_argument_left_out_where_it_may_be():
    assert read_arguments(Paint, {"what": "north", "width": None}) == Paint("north")


@pytest.mark.parametrize("arguments", ["", "  \n", "{}", {}])
def test_a_tool_without_arguments_takes_nothing_at_all(arguments):
    assert read_arguments(TOOLS[0], arguments) == TOOLS[0]()


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ({}, "required, but missing @ $.what"),
        ({"what": 1}, "expected str, got int @ $.what"),
        ({"what": None}, "expected str, got null @ $.what"),
        ({"what": ["north"]}, "expected str, got array @ $.what"),
        ({"what": "n", "colour": "grey"}, "expected one of red, blue, got 'grey' @ $.colour"),
        ({"what": "n", "colour": 3}, "expected str, got int @ $.colour"),
        ({"what": "n", "coats": 1.5}, "expected int, got float @ $.coats"),
        ({"what": "n", "coats": True}, "expected int, got bool @ $.coats"),
        ({"what": "n", "coats": 6}, "expected a number from 1 to 5, got 6 @ $.coats"),
        ({"what": "n", "coats": 0}, "expected a number from 1 to 5, got 0 @ $.coats"),
        ({"what": "n", "dry": "yes"}, "expected bool, got str @ $.dry"),
        (
            {"what": "n", "color": "red"},
            "unknown argument 'color' (known: what, colour, coats, width, dry) @ $",
        ),
        ("[]", "expected object, got array @ $"),
        ("null", "expected object, got null @ $"),
        ('"north"', "expected object, got str @ $"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_path(arguments, fault):
    with pytest.raises(InvalidArguments) as caught:
        read_arguments(Paint, arguments)

    assert str(caught.value) == fault


@pytest.mark.parametrize("text", ["{", "what=north", '{"what": "n",}', '{"what": "\\ud800"}', "[" * 100_000])
def test_text_that_is_not_json_is_refused(text):
    with pytest.raises(InvalidArguments):
        read_arguments(Paint, text)


@pytest.mark.parametrize("value", [object(), {1: object()}, 1j, 10**400])
def test_values_that_json_cannot_express_are_refused(value):
    with pytest.raises(InvalidArguments):
        read_arguments(Paint, {"what": value})


def test_a_mapping_that_contains_itself_is_refused():
    endless: dict[str, object] = {}
    endless["what"] = endless

    with pytest.raises(InvalidArguments, match="not expressible as JSON"):
        read_arguments(Paint, endless)


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ({}, "expected str, which action 'spawn' needs, got nothing @ $.prompt"),
        ({"action": "result"}, "expected str, which action 'result' needs, got nothing @ $.name"),
        (
            {"action": "status", "prompt": "x"},
            "expected str, which action 'status' needs, got nothing @ $.name",
        ),
        ({"action": "explode"}, "expected one of spawn, result, status, got 'explode' @ $.action"),
    ],
)
def test_each_action_of_agent_needs_its_own_arguments(arguments, fault):
    with pytest.raises(InvalidArguments) as caught:
        read_arguments(Agent, arguments)

    assert str(caught.value) == fault


@pytest.mark.parametrize("seconds", ["-1", "601", "1e300"])
def test_a_wait_is_bounded(seconds):
    with pytest.raises(InvalidArguments, match=r"expected a number from 0.0 to 600.0, got .* @ \$.timeout"):
        read_arguments(WaitAgent, f'{{"name": "a", "timeout": {seconds}}}')


def test_messages_need_a_receiver_and_a_text():
    with pytest.raises(InvalidArguments, match=r"required, but missing @ \$.message"):
        read_arguments(SendMessage, {"to": "a"})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
names = (
    st.sampled_from(sorted({key for tool in TOOLS for key in json_schema(tool)["properties"]})) | st.text()
)


@pytest.mark.parametrize("tool", TOOLS)
@given(arguments=st.dictionaries(names, json_values, max_size=5) | st.text())
def test_any_arguments_are_read_or_refused(tool, arguments):
    with suppress(InvalidArguments):
        assert isinstance(read_arguments(tool, arguments), tool)
