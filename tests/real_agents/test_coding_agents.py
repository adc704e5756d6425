"""Coding agents as people install them, on hubs of ours, with a stand-in for their models.

Needs node and npm: ``pytest -m npm``.
"""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
import trio

from loopal_cluster import AgentCancelled, AgentFailed, Cancelled
from loopal_cluster.payloads import ToolCall, ToolResult
from tests.processes import is_alive

from .makes import ALL_MAKES, CLAUDE, CODEX, MAKES
from .site import open_site

pytestmark = [pytest.mark.npm, pytest.mark.limit(120)]
each_make = pytest.mark.parametrize("make", ALL_MAKES, ids=lambda make: make.name)


@pytest.fixture
def make():
    """None, for a test that is about more than one."""


@pytest.fixture
async def site(tmp_path, make):
    async with open_site(tmp_path, MAKES if make is None else [make]) as site:
        yield site


@each_make
async def test_it_answers(make, site):
    agent = await site.ann.spawn(make.name, ">> say I am here", hub="laptop")

    assert await agent.result() == "I am here"


@each_make
async def test_a_persistent_one_has_a_turn_for_each_ask(make, site):
    agent = await site.ann.spawn(make.name, hub="gpu-box", persistent=True)

    assert await agent.ask(">> say one") == "one"
    first = len(site.model.bodies)  # Claude 0.101 may have asked for something of its own, too
    assert await agent.ask("two") == "You said: two"
    assert ">> say one" in json.dumps(site.model.bodies[first])  # the conversation goes on


@each_make
async def test_a_tool_that_is_allowed_is_used(make, site):
    events = await site.ann.subscribe()
    agent = await site.ann.spawn(make.name, f"{make.touch}\n>> say done", hub="laptop")

    assert await agent.result() == "done"
    assert site.made("laptop", make).exists()
    [asked] = site.asked
    assert asked.agent_name == f"laptop/{agent.name}"
    assert "touch made" in asked.tool_input.json.decode()
    payloads = [event.payload for event in events.arrived() if event.agent == agent.name]
    calls = [payload for payload in payloads if isinstance(payload, ToolCall)]
    [result] = [payload for payload in payloads if isinstance(payload, ToolResult)]
    assert {call.id for call in calls} == {result.id}  # Claude announces it before it knows the input
    assert not result.is_error


@each_make
async def test_a_tool_that_is_refused_is_not_used_and_that_is_told(make, site):
    site.allow = False
    agent = await site.ann.spawn(make.name, f"{make.touch}\n>> say It was: {{result}}", hub="laptop")

    if make is not CODEX:  # which goes on, and tells its model
        assert "It was: " in await agent.result()
    else:  # which gives up its turn
        with pytest.raises(AgentCancelled, match="not allowed to use"):
            await agent.result()
    assert len(site.asked) == 1
    assert not site.made("laptop", make).exists()


@each_make
async def test_it_finds_the_tools_of_the_cluster(make, site):
    agent = await site.ann.spawn(make.name, ">> use loopal.ListHubs {}\n>> say {result}", hub="laptop")
    result = await agent.result()

    assert "laptop" in result
    assert "gpu-box" in result
    assert site.asked == []


@each_make
async def test_a_turn_is_cancelled_in_the_middle_and_the_next_one_works(make, site):
    agent = await site.ann.spawn(make.name, hub="gpu-box", persistent=True)
    async with trio.open_nursery() as nursery:

        async def turn() -> None:
            with pytest.raises(AgentCancelled):
                await agent.ask(">> hang half a sentence")

        nursery.start_soon(turn)
        await site.model.until_hanging()
        await site.ann.interrupt(str(agent.address))

    assert await agent.ask(">> say I am back") == "I am back"


@each_make
async def test_one_that_is_killed_in_the_middle_of_a_turn_has_failed(make, site):
    agent = await site.ann.spawn(make.name, ">> hang half a sentence", hub="gpu-box")
    await site.model.until_hanging()
    family = processes_of(make.program)
    for pid in family:
        os.kill(pid, signal.SIGKILL)

    with pytest.raises(AgentFailed, match="ended in the middle of its turn: killed by SIGKILL"):
        await agent.result()
    assert family
    assert not any(map(is_alive, family))


@each_make
async def test_nothing_of_one_that_is_cancelled_is_left(make, site):
    agent = await site.ann.spawn(make.name, ">> hang half a sentence", hub="gpu-box")
    await site.model.until_hanging()
    family = processes_of(make.program)

    assert await agent.cancel("enough") == Cancelled("enough")
    assert family
    assert not any(map(is_alive, family))


@pytest.mark.parametrize(
    ("boss", "worker"), [(CLAUDE, CODEX), (CODEX, CLAUDE)], ids=["claude-codex", "codex-claude"]
)
async def test_one_make_delegates_to_another_on_another_hub(boss, worker, site):
    task = {
        "subagent_type": worker.name,
        "target_hub": "gpu-box",
        "prompt": f"{worker.touch}\n>> say made it",
    }
    script = f">> use loopal.Agent {json.dumps(task)}\n>> say The {worker.name} says: {{result}}"
    agent = await site.ann.spawn(boss.name, script, hub="laptop")

    result = await agent.result()
    assert result.startswith(f"The {worker.name} says: ")
    assert "made it" in result
    assert site.made("gpu-box", worker).exists()
    delegation, asked = site.asked  # what starts an agent is asked for, too
    assert (delegation.tool_name, delegation.agent_name) == ("Agent", f"laptop/{agent.name}")
    assert asked.agent_name is not None
    details = await site.ann.agent_info(asked.agent_name)
    assert (details.hub, details.type, details.parent) == ("gpu-box", worker.name, f"laptop/{agent.name}")


async def test_when_the_boss_is_cancelled_so_is_its_worker_of_another_make(site):
    task = {"subagent_type": "codex", "target_hub": "gpu-box", "prompt": ">> hang half a sentence"}
    boss = await site.ann.spawn("claude", f">> use loopal.Agent {json.dumps(task)}", hub="laptop")
    await site.model.until_hanging()
    family = processes_of(CODEX.program)

    await boss.cancel("enough")
    await site.model.until_hanging(0)

    assert family
    assert not any(map(is_alive, family))


def processes_of(program: str) -> list[int]:
    """The processes below this one that run a program of this name, or that such a process has started."""
    parents = {
        pid: parent
        for pid in map(int, filter(str.isdigit, os.listdir("/proc")))
        if (parent := parent_of(pid))
    }
    found = []
    for pid in parents:
        above = [pid]
        while above[-1] in parents:
            above.append(parents[above[-1]])
        if os.getpid() in above[1:] and any(
            program in command_of(one) for one in above if one != os.getpid()
        ):
            found.append(pid)
    return found


def parent_of(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""
