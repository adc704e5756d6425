"""``loopal-cluster acp`` as an editor runs it: the real program, and the protocol's own SDK in front of it."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
import trio

from loopal_cluster import Cancelled

from .program import META_TOKEN, open_site, run

pytestmark = pytest.mark.limit(60)

SDK_EDITOR = Path(__file__).parents[1] / "editor" / "sdk_editor.py"


@pytest.fixture
async def site(tmp_path, monkeypatch):
    async with open_site(tmp_path, monkeypatch) as site:
        yield site


async def play(site, script, *options):
    """Let the SDK's editor play a script; return what it saw."""
    program = [sys.executable, "-m", "loopal_cluster", "acp", *options]
    # The SDK hands its agents a few variables only: the program finds the rest as an editor would be told.
    wanted = {k: v for k, v in site.env.items() if k in ("XDG_RUNTIME_DIR", "PYTHONUTF8", "PYTHONPATH")}
    env = [f"{key}={value}" for key, value in (wanted | {"LOOPAL_META_HUB_TOKEN": META_TOKEN}).items()]
    done = await trio.run_process(
        [sys.executable, str(SDK_EDITOR), json.dumps(script), "/usr/bin/env", *env, *program],
        capture_stdout=True, capture_stderr=True, check=False, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


async def test_the_protocols_own_client_talks_to_an_agent_of_the_local_hub(site):
    saw = await play(site, [{"prompt": "one two"}, {"prompt": "three"}], "--agent", "count")

    assert saw["title"] == "count on hub-a"
    assert saw["session"].startswith("hub-a/count-")
    assert saw["stops"] == ["end_turn", "end_turn"]
    assert [seen["text"] for seen in saw["seen"]] == ["2 words on hub-a", "1 words on hub-a"]
    assert saw["status"] == 0


@pytest.mark.parametrize("where", ["meta hub", "local hub"])
async def test_an_agent_on_another_hub_asks_in_the_editor(where, site):
    script = [{"prompt": "ls", "allow": True}, {"prompt": "rm", "allow": False}]
    connect = ("--connect", site.meta_hub.address) if where == "meta hub" else ()
    saw = await play(site, script, "--agent", "ask", "--hub", "hub-b", *connect)

    assert saw["stops"] == ["end_turn", "end_turn"]
    assert [seen["asked"] for seen in saw["seen"] if "asked" in seen] == ["Bash", "Bash"]
    said = "".join(seen["text"] for seen in saw["seen"] if seen.get("text"))
    assert "allowed by" in said
    assert "denied by" in said


async def test_the_protocols_own_client_cancels_a_turn(site):
    script = [{"prompt": "sleep", "cancel_at": "dozing"}]
    saw = await play(site, script, "--agent", "doze")

    assert saw["stops"] == ["cancelled"]
    assert saw["status"] == 0


async def test_the_end_of_input_ends_the_program_and_its_agents(site):
    async with site.start("acp", "--agent", "nap") as editor:
        await editor.type('{"id": 1, "method": "session/new", "params": {"cwd": "/tmp", "mcpServers": []}}\n')
        await editor.until("sessionId")
        await editor.type('{"id": 2, "method": "nonsense"}\n')
        await editor.until("unknown method 'nonsense'")
        assert editor.process.stdin is not None
        await editor.process.stdin.aclose()

        assert await editor.process.wait() == 0
    session = json.loads(editor.text.splitlines()[0])["result"]["sessionId"]
    async with site.meta_hub.open_client() as client:
        assert (await client.agent_info(session)).outcome == Cancelled("its editor has closed the session")


@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        (("--hub", "not a name"), 2, "hub name"),
        (("--connect", "127.0.0.1:1"), 4, "127.0.0.1:1"),
    ],
)
async def test_what_cannot_be_used_is_one_line_and_a_status(options, status, words, tmp_path):
    ran = await run("acp", *options, env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)})

    assert (ran.status, ran.out) == (status, "")
    [line] = ran.err.splitlines()
    assert words in line


async def test_a_meta_hub_without_a_hub_is_wrong_usage(site):
    ran = await site.run("acp", "--connect", site.meta_hub.address)

    assert ran.status == 2
    assert "say where with --hub" in ran.err


async def test_who_will_not_be_asked_is_told(site):
    ran = await site.run("acp", "--hub", "hub-b")

    assert ran.status == 0
    assert "--connect to the MetaHub" in ran.err
