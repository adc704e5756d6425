"""Each kind of agent in a hub: functions in the hub and in processes, foreign programs, commands.

The same behaviours are checked in one process and with real children.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from attrs import define

from loopal_cluster import (
    AgentNotFound,
    Cancelled,
    Client,
    CommandAgent,
    Decision,
    Done,
    Failed,
    FunctionAgent,
    Hub,
    Policy,
    ProcessAgent,
    RemoteError,
    Role,
    SpawnFailed,
    Timeouts,
    open_hub,
    python_agent,
)
from loopal_cluster.links.client import EventStream
from loopal_cluster.messages import Permission
from loopal_cluster.payloads import AwaitingInput, Ended, Stream

from ..processes import children_of_ours
from . import functions

HERE = str(Path(__file__).parent)
NAMES = (
    "ask",
    "block",
    "chatter",
    "echo",
    "facts",
    "fail",
    "lead",
    "leave",
    "listen",
    "parent",
    "stay",
    "tools",
)
QUICK = Timeouts(stop_grace=0.3, start_timeout=20)


IN_HUB = {name: FunctionAgent(getattr(functions, name)) for name in NAMES}
IN_PROCESS = {name: python_agent(f"functions:{name}", directory=HERE) for name in NAMES}
KINDS = {"in the hub": IN_HUB, "in a process": IN_PROCESS}


def base(mode: str) -> ProcessAgent:
    return ProcessAgent([sys.executable, "-I", "-S", f"{HERE}/base_agent.py", mode])


@define
class Scene:
    """A hub, a client of it, and what happens on it."""

    hub: Hub
    client: Client
    events: EventStream

    async def until(self, payload: Any, agent: str | None = None) -> None:
        """Wait for an event."""
        async for event in self.events:
            if event.payload == payload and agent in (None, event.agent):
                return

    async def until_one(self, kind: type) -> None:
        """Wait for any event of a kind."""
        async for event in self.events:
            if isinstance(event.payload, kind):
                return


@asynccontextmanager
async def scene(agents: Any, **options: Any) -> AsyncIterator[Scene]:
    async with open_hub("solo", agents=agents, **({"timeouts": QUICK} | options)) as hub:
        async with hub.open_client() as client:
            yield Scene(hub, client, await client.subscribe())


@pytest.fixture(params=list(KINDS))
def agents(request: pytest.FixtureRequest) -> Any:
    return KINDS[request.param]


# Functions, in the hub and in a process.


async def test_an_agent_knows_who_it_is_and_its_result_may_be_any_json(agents):
    async with scene(agents) as on:
        agent = await on.client.spawn("facts", name="worker")
        facts = json.loads(await agent.result())

        assert facts.pop("pid") == os.getpid() or agents is IN_PROCESS
        assert facts == {"address": "solo/worker", "parent": None, "type": "facts"}


async def test_a_failed_agent_has_its_error_and_its_traceback(agents):
    async with scene(agents) as on:
        outcome = await (await on.client.spawn("fail", "no paint")).outcome()

        assert isinstance(outcome, Failed)
        assert outcome.error == "ValueError: no paint"
        assert outcome.traceback is not None
        assert "raise ValueError(prompt)" in outcome.traceback


async def test_an_agent_that_exits_has_failed_and_its_hub_goes_on(agents):
    async with scene(agents) as on:
        outcome = await (await on.client.spawn("leave", "enough")).outcome()

        assert isinstance(outcome, Failed)
        assert outcome.error == "SystemExit: enough"
        assert await (await on.client.spawn("echo", "on")).result() == "echo on"


async def test_messages_to_a_busy_agent_queue_and_block_nobody(agents):
    async with scene(agents) as on:
        agent = await on.client.spawn("listen", name="ear")
        for text in ("a", "b", "c"):
            await agent.send(text)
        await on.client.control("ear", {"ModeSwitch": "Plan"})
        await on.client.control("ear", {"ModelSwitch": "small"})
        await agent.send("stop")

        assert await agent.result() == "a,b,c in mode plan with small"


async def test_an_unknown_control_is_refused_by_the_agent(agents):
    async with scene(agents) as on:
        await on.client.spawn("stay", name="worker")

        with pytest.raises(RemoteError, match="not 'Clear'"):
            await on.client.control("worker", "Clear")


async def test_a_persistent_agent_streams_its_turns_and_survives_an_interrupt_while_idle(agents):
    async with scene(agents) as on:
        agent = await on.client.spawn("echo", "one", name="worker", persistent=True)
        await on.until(Stream("echo one"), "worker")
        await on.until(AwaitingInput(), "worker")
        await on.client.interrupt("worker")
        await agent.send("two")
        await on.until(Stream("echo two"), "worker")

        await on.client.cancel("worker")

        assert await agent.outcome() == Cancelled("cancelled")


async def test_an_interrupt_ends_the_turn_of_a_busy_agent(agents):
    async with scene(agents) as on:
        agent = await on.client.spawn("stay", name="worker")

        await on.client.interrupt("worker")

        assert await agent.outcome() == Cancelled("interrupted")


async def test_an_agent_spawns_another(agents):
    async with scene(agents) as on:
        agent = await on.client.spawn("lead", "echo", name="chief")

        assert await agent.result() == "chief got echo hi"


async def test_a_permission_is_decided_by_an_operator(agents):
    async def decide(ask: Permission) -> Decision:
        return Decision(allow=ask.tool_input.json == b'{"wall":"north"}', reason=ask.agent_name)

    async with scene(agents) as on:
        async with on.hub.open_client(name="anna", role=Role.OPERATOR, on_permission=decide):
            agent = await on.client.spawn("ask", "north", name="painter")

            assert await agent.result() == '[true,"painter"]'


async def test_an_agent_has_tools(agents):
    async with scene(agents) as on:
        agent = await on.client.spawn("tools", name="worker")

        assert await agent.result() == "Agents:\n  - solo/worker (tools; Running)"


async def test_a_cancelled_agent_takes_its_children_along(agents):
    async with scene(agents) as on:
        agent = await on.client.spawn("parent", "stay stay", name="chief")
        await on.until(Stream("ready"), "chief")
        assert (await on.client.agent_info("child-0")).outcome is None

        await agent.cancel("enough")

        assert await on.client.wait("child-0") == Cancelled("its parent 'chief' was stopped")
        assert await on.client.wait("child-1") == Cancelled("its parent 'chief' was stopped")
        assert await on.client.local_agents() == ()


async def test_what_a_child_prints_does_not_disturb_the_protocol():
    async with scene(IN_PROCESS) as on:
        assert await (await on.client.spawn("chatter")).result() == "done"


async def test_a_child_that_blocks_is_killed():
    async with scene(IN_PROCESS) as on:
        agent = await on.client.spawn("block")
        await on.until(Stream("blocking"))

        with trio.fail_after(10):
            assert await agent.cancel("enough") == Cancelled("enough")
        assert children_of_ours() == set()


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("functions:nothing", "module 'functions' has no function 'nothing'"),
        ("no_such_module:f", "cannot import module 'no_such_module'"),
        ("functions", "is not of the form module:name"),
    ],
)
async def test_a_function_that_does_not_exist_is_named(target, words):
    async with scene({"broken": python_agent(target, directory=HERE)}) as on:
        with pytest.raises(SpawnFailed) as caught:
            await on.client.spawn("broken")

        assert words in str(caught.value)
        assert "Traceback" not in str(caught.value)


async def test_a_child_does_not_get_the_token_of_the_cluster(monkeypatch):
    monkeypatch.setenv("LOOPAL_META_HUB_TOKEN", "secret")
    monkeypatch.setenv("COLOUR", "blue")
    types = {"env": CommandAgent(["env"], env={"SHADE": "dark"})}
    async with scene(types) as on:
        environment = await (await on.client.spawn("env")).result()

        assert "COLOUR=blue\n" in environment
        assert "SHADE=dark" in environment
        assert "secret" not in environment


# Programs of the base dialect.


async def test_an_agent_of_the_base_dialect_runs_to_its_result():
    async with scene({"base": base("plain")}) as on:
        agent = await on.client.spawn("base", "it", name="worker")
        await on.until(Stream("Hello"), "worker")

        assert await agent.outcome() == Done("did it")


async def test_an_agent_of_the_base_dialect_stays_and_listens():
    async with scene({"base": base("plain")}) as on:
        agent = await on.client.spawn("base", name="worker", persistent=True)
        await on.until(AwaitingInput(), "worker")
        await agent.send("hi")
        await on.until(Stream("heard hi"), "worker")
        await on.client.interrupt("worker")
        await on.client.control("worker", "Clear")

        await on.client.cancel("worker")

        assert await agent.outcome() == Cancelled("cancelled")


async def test_an_agent_of_the_base_dialect_uses_its_hub():
    types = {"base": base("calls"), "echo": IN_HUB["echo"]}
    async with scene(types, default_agent="echo", policy=Policy.BYPASS) as on:
        agent = await on.client.spawn("base", "", name="main")
        status, spawned, waited, routed, permitted = json.loads(await agent.result())

        assert (status["agent_count"], status["uplink"]) == (1, None)
        assert spawned["name"] == "kid"
        assert waited["output"] == "echo hi"
        assert "not found" in routed["message"]
        assert permitted["allow"] is True


async def test_rubbish_on_stdout_does_no_harm():
    async with scene({"base": base("rubbish")}) as on:
        assert await (await on.client.spawn("base", "it")).result() == "did it"


@pytest.mark.parametrize("mode", ["mute", "only-rubbish"])
async def test_an_agent_that_never_answers_is_not_waited_for(mode):
    timeouts = Timeouts(start_timeout=0.3, stop_grace=0.2)
    async with scene({"base": base(mode)}, timeouts=timeouts) as on:
        with (
            trio.fail_after(5),
            pytest.raises(SpawnFailed, match=r"not up after 0\.3 s|no answer to initialize"),
        ):
            await on.client.spawn("base", "it", name="worker")

        with pytest.raises(AgentNotFound):
            await on.client.agent_info("worker")
    assert children_of_ours() == set()


async def test_an_agent_that_exits_at_once_is_told_with_its_last_words():
    async with scene({"base": base("quits")}) as on:
        with pytest.raises(SpawnFailed, match="exited with status 1: no licence key"):
            await on.client.spawn("base", "it")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["no-such-program"], "program 'no-such-program' was not found on PATH"),
        (["/no/such/program"], "program '/no/such/program' does not exist"),
        ([], "no program was given"),
    ],
)
async def test_an_agent_without_a_program_is_told_at_once(argv, words):
    async with scene({"base": ProcessAgent(argv)}) as on:
        with pytest.raises(SpawnFailed) as caught:
            await on.client.spawn("base", "it")

        assert str(caught.value) == f"spawn failed: {words}"


async def test_an_agent_that_dies_has_failed_and_says_how():
    async with scene({"base": base("dies")}) as on:
        outcome = await (await on.client.spawn("base", "it")).outcome()

        assert outcome == Failed("it ended without a result: killed by SIGKILL: out of memory")


async def test_an_agent_that_ignores_everything_is_killed():
    async with scene({"base": base("deaf")}) as on:
        agent = await on.client.spawn("base", name="worker", persistent=True)
        await on.until(AwaitingInput(), "worker")

        with trio.fail_after(5):
            await on.client.cancel("worker")

        assert await agent.outcome() == Cancelled("cancelled")
        assert children_of_ours() == set()


async def test_cancelling_an_agent_that_is_not_up_refuses_its_spawn():
    async with scene({"base": base("mute")}) as on:
        refused: list[SpawnFailed] = []

        async def spawn() -> None:
            with pytest.raises(SpawnFailed) as caught:
                await on.client.spawn("base", "it", name="worker")
            refused.append(caught.value)

        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(spawn)
                await on.client.status()  # the spawn is before it in line
                assert await on.client.cancel("worker", "enough") == Cancelled("enough")

        assert "enough" in str(refused[0])


# Commands.


async def test_a_command_streams_what_it_says_and_that_is_its_result():
    async with scene({"count": CommandAgent(["sh", "-c", "tr a-z A-Z; echo end"])}) as on:
        agent = await on.client.spawn("count", "hi\n", name="worker")
        await on.until_one(Stream)

        assert await agent.outcome() == Done("HI\nend")


async def test_a_command_with_another_status_has_failed():
    async with scene({"bad": CommandAgent(["sh", "-c", "echo half; echo no key >&2; exit 7"])}) as on:
        outcome = await (await on.client.spawn("bad")).outcome()

        assert isinstance(outcome, Failed)
        assert outcome.error == "CommandFailed: exited with status 7: no key"


async def test_a_command_without_a_program_has_failed_at_once():
    async with scene({"bad": CommandAgent(["no-such-program"])}) as on:
        outcome = await (await on.client.spawn("bad")).outcome()

        assert isinstance(outcome, Failed)
        assert "'no-such-program' was not found" in outcome.error


async def test_a_persistent_command_runs_for_every_message():
    async with scene({"upper": CommandAgent(["tr", "a-z", "A-Z"])}) as on:
        agent = await on.client.spawn("upper", "one", name="worker", persistent=True)
        await on.until(Stream("ONE"), "worker")
        await agent.send("two")
        await on.until(Stream("TWO"), "worker")


async def test_a_cancelled_command_is_gone_with_all_it_started():
    async with scene({"slow": CommandAgent(["sh", "-c", "sleep 1000 & sleep 1000"])}) as on:
        agent = await on.client.spawn("slow", name="worker")

        with trio.fail_after(5):
            assert await agent.cancel("enough") == Cancelled("enough")
        await on.until(Ended("cancelled", "enough"), "worker")
    assert children_of_ours() == set()


# A module is where it was meant to be.

STRANGE = "raise SystemExit('a stranger has run')"


@pytest.fixture
def repository(tmp_path):
    """A directory to work in, where somebody has put modules that an agent might import."""
    (tmp_path / "loopal_cluster").mkdir()
    for name in ("functions", "attrs", "trio", "json", "sitecustomize", "loopal_cluster/__init__"):
        (tmp_path / f"{name}.py").write_text(STRANGE)
    return str(tmp_path)


@pytest.mark.parametrize("path", ["", os.pathsep, f"{os.pathsep}/nowhere", f"/nowhere{os.pathsep}"])
async def test_nothing_is_imported_from_where_an_agent_works(path, repository, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", path)
    async with scene({"echo": IN_PROCESS["echo"]}) as on:
        agent = await on.client.spawn("echo", "hi", cwd=repository)

        assert await agent.result() == "echo hi"


@pytest.mark.parametrize("entry", ["", ".", os.curdir + os.sep])
async def test_a_type_may_not_have_it_imported_from_there_either(entry, repository):
    target = python_agent("functions:echo", directory=HERE, env={"PYTHONPATH": entry}, cwd=repository)
    async with scene({"echo": target}) as on:
        assert await (await on.client.spawn("echo", "hi")).result() == "echo hi"


async def test_a_module_that_is_only_where_the_agent_works_is_not_found(repository):
    async with scene({"echo": python_agent("functions:echo", cwd=repository)}) as on:
        with pytest.raises(SpawnFailed, match="cannot import module 'functions'"):
            await on.client.spawn("echo", "hi")


@pytest.mark.parametrize(
    "arguments",
    [
        ("-m", "loopal_cluster.agents", "functions:echo"),
        ("-P", "-m", "loopal_cluster.agents", "functions:echo"),
        ("-m", "loopal_cluster", "hub", "--config", "hub.toml"),
    ],
)
def test_a_program_of_ours_takes_nothing_from_where_it_is_started(arguments, tmp_path):
    """Except what ``-m`` itself has found there before we run."""
    for name in ("functions", "attrs", "trio", "msgspec"):
        (tmp_path / f"{name}.py").write_text(STRANGE)
    config = Path(tmp_path, "beside", "hub.toml")
    config.parent.mkdir()
    config.write_text('[agents.echo]\nprotocol = "python"\ntarget = "functions:echo"')
    arguments = [str(config) if one == "hub.toml" else one for one in arguments]
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=60, check=False)

    said = (done.stdout + done.stderr).decode()
    assert done.returncode != 0
    assert "cannot import module 'functions'" in said
    assert "a stranger has run" not in said
