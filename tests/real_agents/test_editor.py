"""The whole way: an editor of another make, our program, a MetaHub, a hub, a coding agent of another make."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import trio

from .makes import MAKES
from .site import open_site

pytestmark = [pytest.mark.npm, pytest.mark.limit(120)]

SDK_EDITOR = Path(__file__).parents[1] / "editor" / "sdk_editor.py"


@pytest.mark.parametrize("make", MAKES, ids=lambda make: make.name)
async def test_an_editor_works_with_a_coding_agent_on_another_machine(make, tmp_path):
    async with open_site(tmp_path) as site:
        site.allow = None
        script = [
            {"prompt": f"{make.touch}\n>> say done", "allow": True},
            {"prompt": ">> hang half a sentence", "cancel_at": "half a sentence"},
            {"prompt": ">> say I am back"},
        ]
        program = [
            "/usr/bin/env", f"LOOPAL_META_HUB_TOKEN={site.meta_hub.token}",
            sys.executable, "-m", "loopal_cluster", "acp",
            "--agent", make.name, "--hub", "gpu-box", "--connect", site.meta_hub.address,
        ]  # fmt: skip
        done = await trio.run_process(
            [sys.executable, str(SDK_EDITOR), json.dumps(script), *program],
            capture_stdout=True, capture_stderr=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr.decode()
        saw = json.loads(done.stdout)

        assert saw["session"].startswith(f"gpu-box/{make.name}-")
        assert saw["stops"] == ["end_turn", "cancelled", "end_turn"]
        [asked] = [seen for seen in saw["seen"] if "asked" in seen]
        assert asked["options"] == ["allow_once", "reject_once"]
        assert site.made("gpu-box", make).exists()
        said = "".join(
            seen["text"] or "" for seen in saw["seen"] if seen.get("shown") == "agent_message_chunk"
        )
        assert said == "donehalf a sentenceI am back"
        tools = [(seen["shown"], seen["status"]) for seen in saw["seen"] if seen.get("status")]
        assert tools[0] == ("tool_call", "in_progress")
        assert tools[-1] == ("tool_call_update", "completed")
        assert (await site.ann.agent_info(saw["session"])).outcome is not None
