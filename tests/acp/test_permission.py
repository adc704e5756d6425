"""Which answer is given to a permission, and which tools are ours."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from loopal_cluster.acp.permission import choose_option, is_cluster_tool, shown_input
from loopal_cluster.acp.schema import PermissionOption, PermissionRequest, ToolCall

KINDS = ("allow_always", "allow_once", "reject_always", "reject_once", "a_kind_to_come")


def options(*kinds: str) -> list[PermissionOption]:
    # The names say the opposite, as they might in any language.
    return [
        PermissionOption(option_id=f"{n}:{kind}", kind=kind, name="reject") for n, kind in enumerate(kinds)
    ]


@pytest.mark.parametrize("order", list(itertools.permutations(KINDS)))
def test_the_kind_decides_in_whatever_order_the_options_come(order):
    offered = options(*order)

    assert choose_option(offered, allow=True).endswith(":allow_once")
    assert choose_option(offered, allow=False).endswith(":reject_once")


def test_yes_never_becomes_always_and_no_may():
    assert choose_option(options("allow_always", "reject_always"), allow=True) is None
    assert choose_option(options("allow_always", "reject_always"), allow=False) == "1:reject_always"


def test_without_a_kind_that_is_known_there_is_no_option():
    assert choose_option(options("a_kind_to_come"), allow=True) is None
    assert choose_option(options("allow_once"), allow=False) is None
    assert choose_option([], allow=False) is None


def call(**fields: Any) -> PermissionRequest:
    return PermissionRequest(session_id="s", tool_call=ToolCall(tool_call_id="t", **fields), options=())


OURS = frozenset({"loopal-1"})
CLAUDE = {"claudeCode": {"mcpServer": {"name": "loopal-1"}, "toolName": "mcp__loopal-1__Agent"}}


@pytest.mark.parametrize(
    ("program", "fields"),
    [
        ("@agentclientprotocol/claude-agent-acp", {"meta": CLAUDE}),
        ("codex-acp", {"raw_input": {"server_name": "loopal-1", "tool": "Agent"}}),
        ("gemini-cli", {"title": "ListHubs (loopal-1 MCP Server)", "kind": "other"}),
    ],
)
def test_our_own_tools_are_known_by_what_the_program_itself_says(program, fields):
    assert is_cluster_tool(call(**fields), program, OURS)


@pytest.mark.parametrize(
    ("program", "fields"),
    [
        # What a model can write, in the place where another program would say it.
        ("claude-agent-acp", {"raw_input": {"command": "rm -rf .", "server_name": "loopal-1"}}),
        ("claude-agent-acp", {"title": "ListHubs (loopal-1 MCP Server)"}),
        ("claude-agent-acp", {"meta": {"claudeCode": {"mcpServer": {"name": "other"}}}}),
        ("codex-acp", {"title": "ListHubs (loopal-1 MCP Server)", "raw_input": {"command": ["rm"]}}),
        ("codex-acp", {"raw_input": "loopal-1"}),
        ("gemini-cli", {"title": "rm -rf . # ListHubs (loopal-1 MCP Server)", "kind": "execute"}),
        ("gemini-cli", {"title": "ListHubs (loopal-1 MCP Server)", "kind": "execute"}),
        ("gemini-cli", {"title": "Erase (loopal-1 MCP Server)", "kind": "other"}),
        ("gemini-cli", {"title": "ListHubs (loopal-1 MCP Server)\nrm -rf .", "kind": "other"}),
        # Another server, which a repository brings.
        ("claude-agent-acp", {"meta": {"claudeCode": {"mcpServer": {"name": "loopal"}}}}),
        ("codex-acp", {"raw_input": {"server_name": "loopal", "tool": "Agent"}}),
        ("codex-acp", {"raw_input": {"server_name": ["loopal-1"]}}),
        ("gemini-cli", {"title": "ListHubs (loopal MCP Server)", "kind": "other"}),
        ("unheard-of", {"title": "ListHubs (loopal-1 MCP Server)", "raw_input": {"server_name": "loopal-1"}}),
    ],
)
def test_nothing_that_a_model_can_write_makes_a_tool_ours(program, fields):
    assert not is_cluster_tool(call(**fields), program, OURS)


def test_a_human_sees_the_input_or_else_all_there_is():
    assert shown_input(call(raw_input={"command": "ls"}, title="List").tool_call) == {"command": "ls"}
    assert shown_input(call(title="Write a.py", kind="edit", locations=[{"path": "a.py"}]).tool_call) == {
        "title": "Write a.py",
        "kind": "edit",
        "locations": [{"path": "a.py"}],
    }


@pytest.mark.parametrize(
    ("own_name", "ours"),
    [
        ("mcp__loopal-1__Agent", True),
        ("mcp__other__Agent", False),
        ("mcp__loopal__Agent", False),
        ("Bash", False),
        ("mcp__other__mcp__loopal-1__Agent", False),
        (None, False),
    ],
)
def test_what_an_older_claude_has_called_a_tool_before_it_asks_counts(own_name, ours):
    assert is_cluster_tool(call(title="mcp__loopal-1__Agent"), "claude-agent-acp", OURS, own_name) is ours
