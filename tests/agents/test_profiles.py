"""Config files: what they say, and how they are refused."""

from __future__ import annotations

import sys

import pytest

from loopal_cluster import (
    AcpAgent,
    CommandAgent,
    ConfigError,
    FunctionAgent,
    Policy,
    ProcessAgent,
    open_hub,
    python_agent,
)
from loopal_cluster.agents.profiles import HubTable, Profile, load_profile

MODULE = """
import os

async def hello(ctx, prompt):
    return f"hello {prompt} from {os.environ.get('COLOUR')}"
"""


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Load a config file with this text."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    path = tmp_path / "hub.toml"

    def load(text):
        path.write_text(text)
        return load_profile(path)

    return load


def test_an_empty_file_says_nothing(load):
    assert load("") == Profile() == Profile(HubTable(), {})


def test_every_setting_of_a_hub_is_read(load, tmp_path):
    profile = load(
        """
        [hub]
        name = "gpu-box"
        join = "127.0.0.1:9900"
        token_file = "token"
        listen = "127.0.0.1:0"
        capabilities = ["gpu"]
        labels = {zone = "b"}
        default_agent = "count"
        permission = "deny"
        permission_timeout = 5

        [agents.count]
        protocol = "command"
        command = ["wc", "-w"]
        """
    )

    assert profile == Profile(
        HubTable(
            name="gpu-box",
            join="127.0.0.1:9900",
            token_file=str(tmp_path / "token"),
            listen="127.0.0.1:0",
            capabilities=("gpu",),
            labels={"zone": "b"},
            default_agent="count",
            permission=Policy.DENY,
            permission_timeout=5.0,
        ),
        {"count": CommandAgent(["wc", "-w"])},
    )


def test_programs_are_looked_up_like_a_shell_does_but_from_the_file(load, tmp_path):
    profile = load(
        """
        [agents.local]
        protocol = "process"
        command = ["./agent", "./data"]
        env = {COLOUR = "blue"}
        cwd = "work"

        [agents.installed]
        protocol = "command"
        command = ["wc"]
        """
    )

    assert profile.agents == {
        "local": ProcessAgent([f"{tmp_path}/agent", "./data"], {"COLOUR": "blue"}, f"{tmp_path}/work"),
        "installed": CommandAgent(["wc"]),
    }


async def test_python_functions_beside_the_file_run_in_the_hub_or_in_a_process(load, tmp_path):
    (tmp_path / "profile_agents.py").write_text(MODULE)
    profile = load(
        """
        [agents.inside]
        protocol = "python"
        target = "profile_agents:hello"

        [agents.outside]
        protocol = "python"
        target = "profile_agents:hello"
        process = true
        env = {COLOUR = "blue"}
        """
    )

    assert isinstance(profile.agents["inside"], FunctionAgent)
    async with open_hub("box", agents=profile.agents) as hub, hub.open_client() as client:
        assert await (await client.spawn("inside", "A")).result() == "hello A from None"
        assert await (await client.spawn("outside", "B")).result() == "hello B from blue"


def test_its_module_is_looked_for_beside_the_config_file(load, tmp_path):
    profile = load('[agents.a]\nprotocol = "python"\ntarget = "m:f"\nprocess = true')

    assert profile.agents["a"] == python_agent("m:f", directory=str(tmp_path))


COMMAND = '[agents.a]\nprotocol = "command"\n'
PYTHON = '[agents.a]\nprotocol = "python"\n'


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[hub", "Expected ']' at the end of a table declaration (at end of document)"),
        ("[hub]\nname =", "Invalid value (at end of document)"),
        ("colour = 1", "top level: unknown key 'colour' (known: hub, agents)"),
        ("[hub]\nnmae = 'x'", "hub: unknown key 'nmae' (known: name, join, "),
        ("[hub]\nname = 1", "hub.name: expected str, got int"),
        ("[hub]\nname = 'a b'", "hub: hub name 'a b' is not 1 to 64 of A-Z a-z 0-9 . _ -"),
        ("[hub]\ncapabilities = 'gpu'", "hub.capabilities: expected array, got str"),
        ("[hub]\ncapabilities = [1]", "hub.capabilities[0]: expected str, got int"),
        ("[hub]\nlabels = {zone = 1}", "hub.labels.zone: expected str, got int"),
        (
            "[hub]\npermission = 'allow'",
            "hub.permission: expected one of supervised, bypass, deny, got 'allow'",
        ),
        ("[hub]\npermission_timeout = 0", "hub: 'permission_timeout' must be > 0: 0"),
        ("[hub]\npermission_timeout = inf", "inf is not a number to count with"),
        ("[hub]\ndefault_agent = 'x'", "hub.default_agent: no agent type 'x' (there are: none)"),
        ("hub = 1", "hub: expected object, got int"),
        ("agents = []", "agents: expected object, got array"),
        ("[agents]\na = 1", "agents.a: expected object, got int"),
        (
            "[agents.'a b']\nprotocol = 'command'\ncommand = ['x']",
            "top level: agent type 'a b' is not 1 to 64",
        ),
        ("[agents.a]\ncommand = ['x']", "agents.a: protocol is required: one of command, python, process"),
        ("[agents.a]\nprotocol = 'mcp'", "agents.a: protocol 'mcp' is none of command, python, process"),
        ("[agents.a]\nprotocol = 1", "agents.a.protocol: expected str, got int"),
        (COMMAND, "agents.a.command: required, but missing"),
        (COMMAND + "command = []", "agents.a: command is empty"),
        (COMMAND + "command = 'wc -w'", "agents.a.command: expected array, got str"),
        (COMMAND + "command = ['wc', 1]", "agents.a.command[1]: expected str, got int"),
        (
            COMMAND + "command = ['wc']\ntarget = 'm:f'",
            "agents.a: unknown key 'target' (known: command, env, cwd)",
        ),
        (COMMAND + "command = ['wc']\nenv = {A = 1}", "agents.a.env.A: expected str, got int"),
        (
            COMMAND + "command = ['tool', '-p', '{prompt}']",
            'agents.a: a prompt that begins with "-" would be an option: put "--" before {prompt}, or leave',
        ),
        (PYTHON, "agents.a.target: required, but missing"),
        (PYTHON + "target = 'm:f'\nprocess = 1", "agents.a.process: expected bool, got int"),
        (PYTHON + "target = 'm:f'\ncwd = 'x'", "agents.a: env and cwd need process = true"),
        (PYTHON + "target = 'f'", "agents.a: 'f' is not of the form module:name"),
        (PYTHON + "target = 'f'\nprocess = true", "agents.a: 'f' is not of the form module:name"),
        (PYTHON + "target = 'no_such_module:f'", "agents.a: cannot import module 'no_such_module'"),
        (
            PYTHON + "target = 'os:no_such_function'",
            "agents.a: module 'os' has no function 'no_such_function'",
        ),
        (PYTHON + "target = 'broken_agents:f'", "agents.a: ZeroDivisionError: division by zero"),
    ],
)
def test_a_fault_is_one_line_with_the_file_and_the_key(load, tmp_path, text, fault):
    (tmp_path / "broken_agents.py").write_text("1 / 0")

    with pytest.raises(ConfigError) as caught:
        load(text)

    assert str(caught.value).startswith(f"{tmp_path}/hub.toml: {fault}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("content", "fault"), [(None, "No such file"), (b"\xff", "codec can't decode")])
def test_a_file_that_cannot_be_read_is_named(tmp_path, content, fault):
    path = tmp_path / "hub.toml"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(ConfigError, match=f"cannot read the config file {path}: .*{fault}"):
        load_profile(path)


def test_a_coding_agent_is_a_preset_or_a_command_with_settings(load, tmp_path):
    profile = load(
        """
        [agents.claude]
        protocol = "acp"
        preset = "claude"

        [agents.own]
        protocol = "acp"
        preset = "codex"
        command = ["./codex-acp", "-c", "x=1"]
        env = {CODEX_HOME = "/srv/codex"}
        cwd = "project"
        model = "small"
        mode = "read-only"
        options = {reasoning_effort = "high"}
        auth = "key"
        isolation = "worktree"
        resume = true
        allow_cluster_tools = true
        """
    )

    assert profile.agents == {
        "claude": AcpAgent(preset="claude"),
        "own": AcpAgent(
            [str(tmp_path / "codex-acp"), "-c", "x=1"],
            preset="codex",
            env={"CODEX_HOME": "/srv/codex"},
            cwd=str(tmp_path / "project"),
            model="small",
            mode="read-only",
            options={"reasoning_effort": "high"},
            auth="key",
            worktree=True,
            resume=True,
            allow_cluster_tools=True,
        ),
    }


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        ("", "agents.a: neither a command nor a preset is given"),
        (
            'preset = "cursor"',
            "agents.a: no preset 'cursor' (there are: claude, codex, gemini, opencode, goose, copilot, qwen)",
        ),
        (
            'preset = "claude"\nisolation = "docker"',
            "agents.a.isolation: expected one of none, worktree, got 'docker'",
        ),
        ('preset = "claude"\nresume = "yes"', "agents.a.resume: expected bool, got str"),
        ('preset = "claude"\nmodle = "x"', "agents.a: unknown key 'modle' (known: command, preset, "),
    ],
)
def test_a_wrong_table_of_a_coding_agent_is_refused_with_the_place(load, tmp_path, lines, fault):
    with pytest.raises(ConfigError) as caught:
        load(f'[agents.a]\nprotocol = "acp"\n{lines}')

    assert str(caught.value).startswith(f"{tmp_path / 'hub.toml'}: {fault}")
