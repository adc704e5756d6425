"""What is too large is refused where it is said, or kept in a file that its outcome names: with every kind of agent."""

from __future__ import annotations

import json
import os
import re
import stat
import sys
from pathlib import Path

import pytest

from loopal_cluster import (
    AgentContext,
    AgentFailed,
    CommandAgent,
    Done,
    ErrorCode,
    Limits,
    ProcessAgent,
    SpawnFailed,
    TextTooLong,
    python_agent,
)
from loopal_cluster.links.kept import FILES, keep_text, kept_directory
from loopal_cluster.runtime.hub import open_hub
from loopal_cluster.testing import byte_pair, open_test_cluster
from loopal_cluster.texts import TEXT_BYTES, json_bytes

FULL = (TEXT_BYTES - 2) // 6
"""So many NUL characters are as long as a text may be."""


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state directory of this test's own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path / "loopal-cluster" / "kept"


async def repeat(ctx: AgentContext, prompt: str) -> str:
    """``count character``: the character so many times."""
    count, _, character = prompt.partition(" ")
    return eval(character) * int(count)


def kept_file(error: AgentFailed | str) -> Path:
    """The file that an outcome names."""
    found = re.search(r"(?:look for it on hub '[^']*'|it was kept on its hub): (\S+)$", str(error))
    assert found is not None, str(error)[:500]
    return Path(found[1])


REPEAT = python_agent("tests.runtime.test_texts:repeat", directory=os.getcwd())
PRINT = CommandAgent(
    (
        sys.executable,
        "-c",
        "n, c = input().split(' ', 1); import sys; sys.stdout.write(eval(c) * int(n) + '.')",
    )
)


@pytest.mark.parametrize(
    ("kind", "character"),
    [(repeat, "\0"), (PRINT, "\0"), (REPEAT, "\0"), (repeat, "x"), (PRINT, "é"), (REPEAT, '"')],
    ids=["function-NUL", "command-NUL", "process-NUL", "function-x", "command-é", "process-quote"],
)
async def test_a_result_of_any_characters_arrives_if_its_json_is_not_too_large(kind, character):
    count = (TEXT_BYTES - 8) // (json_bytes(character) - 2)
    async with open_test_cluster(2, agents={"large": kind}, pair=byte_pair) as cluster:
        async with cluster["hub-a"].open_client() as client:
            agent = await client.spawn("large", f"{count} {character!r}", hub="hub-b")
            result = await agent.result()

            assert result.rstrip(".") == character * count
            for _ in range(2):  # for each later wait, too
                assert await agent.outcome() == Done(result)
            details = await client.agent_info(str(agent.address))
            assert (details.output, details.outcome) == (result, Done(result))


@pytest.mark.parametrize("kind", [repeat, PRINT, REPEAT], ids=["function", "command", "process"])
async def test_a_result_that_is_too_large_has_failed_and_is_kept(kind):
    async with open_test_cluster(2, agents={"large": kind}, pair=byte_pair) as cluster:
        async with cluster["hub-a"].open_client() as client:
            agent = await client.spawn("large", f"{FULL + 1} '\\0'", hub="hub-b", name="big")
            with pytest.raises(AgentFailed, match="more than the 8388608 that a text may have") as raised:
                await agent.result()

            assert "look for it on hub 'hub-b'" in str(raised.value)
            path = kept_file(raised.value)
            assert path.read_text().rstrip(".") == "\0" * (FULL + 1)
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("kind", [repeat, REPEAT], ids=["function", "process"])
async def test_a_reply_is_measured_as_a_result_is(kind):
    async with open_test_cluster(2, agents={"large": kind}, pair=byte_pair) as cluster:
        async with cluster["hub-a"].open_client() as client:
            agent = await client.spawn("large", hub="hub-b", persistent=True)

            assert await agent.ask(f"{FULL} '\\0'") == "\0" * FULL
            with pytest.raises(AgentFailed, match="its reply has") as raised:
                await agent.ask(f"{FULL + 1} '\\0'")
            assert kept_file(raised.value).stat().st_size > FULL
            assert await agent.ask("3 'x'") == "xxx"


async def test_a_line_that_is_too_long_is_kept_and_what_it_was_is_known():
    long = "a line of more than 16"
    async with open_test_cluster(2, agents={"large": REPEAT}, pair=byte_pair) as cluster:
        async with cluster["hub-a"].open_client() as client:
            agent = await client.spawn("large", f"{20_000_000} 'x'", hub="hub-b")
            with pytest.raises(AgentFailed, match=f"its result is too large: {long}") as raised:
                await agent.result()
            line = json.loads(kept_file(raised.value).read_bytes())
            assert line["params"]["result"] == "x" * 20_000_000

            agent = await client.spawn("large", hub="hub-b", persistent=True)
            with pytest.raises(AgentFailed, match=f"its reply is too large: {long}") as raised:
                await agent.ask(f"{20_000_000} 'x'")
            line = json.loads(kept_file(raised.value).read_bytes())
            assert line["result"]["outcome"]["result"] == "x" * 20_000_000
            assert await agent.ask("3 'x'") == "xxx"


async def test_what_is_no_result_is_not_kept(state):
    noise = "import sys; sys.stdout.write('x' * 20_000_000 + chr(10)); sys.exit(3)"
    async with open_hub("alone", agents={"noise": ProcessAgent((sys.executable, "-c", noise))}) as hub:
        async with hub.open_client() as client:
            with pytest.raises(SpawnFailed):
                await client.spawn("noise", "go")

    assert not state.exists()


async def test_an_error_that_is_too_large_is_told_in_its_first_words_and_kept(autojump_clock):
    async def fail(ctx: AgentContext, prompt: str) -> str:
        raise ValueError("no! " * 3_000_000)

    async with open_test_cluster(2, agents={"fail": fail}, pair=byte_pair) as cluster:
        async with cluster["hub-a"].open_client() as client:
            agent = await client.spawn("fail", hub="hub-b")
            outcome = await agent.outcome()

            assert outcome.error.startswith("ValueError: no! no! ")
            assert len(outcome.error) < 1000
            assert "Traceback (most recent call last)" in kept_file(outcome.error).read_text()


async def test_what_is_said_is_measured_where_it_is_said(autojump_clock):
    async def say(ctx: AgentContext, prompt: str) -> str:
        refused = []
        for saying in (
            ctx.send("x", large),
            ctx.ask("x", large),
            ctx.spawn("say", large),
            ctx.ask_permission("tool", {"input": large}),
            ctx.ask_human(large),
            ctx.control("x", {"say": large}),
        ):
            try:
                await saying
            except TextTooLong as error:
                refused.append(error.detail.partition(" has ")[0])
        for emit in (ctx.stream,):
            with pytest.raises(TextTooLong):
                emit(large)
        return " ".join(refused)

    large = "x" * TEXT_BYTES
    async with open_test_cluster(1, agents={"say": say}) as cluster, cluster["hub-a"].open_client() as client:
        agent = await client.spawn("say", "go")

        assert await agent.result() == "text text prompt tool_input question command"
        with pytest.raises(TextTooLong, match="text has 8388610 bytes as JSON, more than the 8388608"):
            await client.send("x", large)


async def test_a_hub_with_a_smaller_limit_refuses_with_the_same_error(autojump_clock):
    limits = Limits(text_bytes=1000)
    async with open_test_cluster(2, agents={"repeat": repeat}, limits=limits, pair=byte_pair) as cluster:
        async with cluster["hub-a"].open_client() as client:
            agent = await client.spawn("repeat", hub="hub-b", persistent=True)
            for say in (agent.send, agent.ask):
                with pytest.raises(TextTooLong, match="the message has 1002 bytes"):
                    await say("x" * 1000)
            with pytest.raises(TextTooLong, match="the prompt has 1002 bytes"):
                await client.spawn("repeat", "x" * 1000, hub="hub-b")
            with pytest.raises(AgentFailed, match="its reply has 1002 bytes as JSON, more than the 1000"):
                await agent.ask("1000 'x'")
            assert await agent.ask("998 'x'") == "x" * 998


async def test_an_event_that_is_too_large_is_told_as_that():
    """A program of the base dialect writes what it likes."""
    script = (
        "import json, sys\n"
        "for line in sys.stdin:\n"
        "    line = json.loads(line)\n"
        "    if 'id' in line:\n"
        "        print(json.dumps({'jsonrpc': '2.0', 'id': line['id'], 'result': {'session_id': 's', 'ok': True}}))\n"
        "    if line['method'] == 'agent/start':\n"
        "        event = {'agent_name': None, 'payload': {'Stream': {'text': 'x' * 9_000_000}}}\n"
        "        print(json.dumps({'jsonrpc': '2.0', 'method': 'agent/event', 'params': event}))\n"
        "        done = {'reason': 'goal', 'result': 'x' * 9_000_000}\n"
        "        print(json.dumps({'jsonrpc': '2.0', 'method': 'agent/completed', 'params': done}), flush=True)\n"
    )
    agents = {"base": ProcessAgent((sys.executable, "-c", script))}
    async with open_hub("alone", agents=agents) as hub, hub.open_client() as client:
        events = await client.subscribe()
        agent = await client.spawn("base", "go")
        with pytest.raises(AgentFailed, match="its result has 9000002 bytes as JSON") as raised:
            await agent.result()

        assert kept_file(raised.value).read_text() == "x" * 9_000_000
        told = [repr(event.payload) for event in events.arrived() if event.agent is not None]
        assert any("an event has 90000" in one for one in told)


def test_few_files_are_kept_and_the_oldest_go(state):
    for number in range(FILES + 5):
        keep_text(f"{kept_directory()}/agent-{number}.txt", f"text {number}")

    names = {path.name for path in state.iterdir()}
    assert len(names) == FILES
    assert f"agent-{FILES + 4}.txt" in names
    assert "agent-0.txt" not in names


def test_nothing_is_written_through_a_link(state, tmp_path):
    state.mkdir(parents=True)
    (state / "agent-1.txt").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(FileExistsError):
        keep_text(f"{kept_directory()}/agent-1.txt", "text")
    assert not (tmp_path / "elsewhere").exists()


async def test_what_cannot_be_kept_is_told_all_the_same(state, caplog):
    state.parent.mkdir()
    state.write_text("a file, where the directory should be")
    async with open_hub("alone", agents={"large": repeat}) as hub, hub.open_client() as client:
        agent = await client.spawn("large", f"{TEXT_BYTES} 'x'")
        with pytest.raises(AgentFailed, match="more than the 8388608"):
            await agent.result()

    assert "cannot keep" in caplog.text


def test_too_large_has_a_code_of_its_own():
    assert TextTooLong("x").code is ErrorCode.OVERSIZED
