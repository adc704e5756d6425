"""``examples/delegation`` in two processes, as its page says, with a stand-in for the models."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from tests.stand_in.providers import environment
from tests.stand_in.server import open_stand_in

from .npm import installed

pytestmark = [pytest.mark.npm, pytest.mark.limit(120)]

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "delegation"
COMMAND = {
    "cmd": "echo on the gpu-box",
    "sandbox_permissions": "require_escalated",
    "justification": "a test",
}
WORK = {
    "subagent_type": "codex", "target_hub": "gpu-box",
    "prompt": f">> use exec_command {json.dumps(COMMAND)}\n>> say It works.",
}  # fmt: skip
TASK = f">> use loopal.Agent {json.dumps(WORK)}\n>> say Codex says: {{result}}"


@pytest.mark.parametrize("answer", ["y", "n"])
async def test_a_claude_here_delegates_to_a_codex_there_and_you_are_asked(answer, tmp_path):
    programs = await trio.to_thread.run_sync(installed)
    async with open_stand_in() as model:
        path = {"PATH": f"{programs}:{os.environ['PATH']}", "HOME": str(tmp_path)}
        env = (
            os.environ
            | path
            | dict(environment(tmp_path, model.url))
            | {"META_HUB": f"127.0.0.1:{free_port()}"}
        )
        gpu_box = await trio.lowlevel.open_process(
            [sys.executable, str(EXAMPLE / "gpu_box.py")], env=env, cwd=tmp_path, stdout=subprocess.PIPE
        )
        try:
            [_, token] = re.findall(
                r"(LOOPAL_META_HUB_TOKEN)=(\S+) python", await said(gpu_box, "laptop.py")
            )[0]
            laptop = await trio.run_process(
                [sys.executable, str(EXAMPLE / "laptop.py"), TASK],
                env=env | {"LOOPAL_META_HUB_TOKEN": token}, cwd=tmp_path, stdin=f"y\n{answer}\n".encode(),
                capture_stdout=True, check=False,
            )  # fmt: skip
        finally:
            gpu_box.send_signal(signal.SIGINT)
            with trio.move_on_after(20, shield=True):
                await gpu_box.wait()
            gpu_box.kill()  # if it has not ended, which the test then says

    shown = laptop.stdout.decode()
    assert laptop.returncode == 0, shown
    assert gpu_box.returncode == 0
    assert re.search(r"laptop/claude-\w+ wants to use Agent: ", shown)  # which the human lets it
    assert re.search(r"gpu-box/codex-\w+ wants to use \w+: .*echo on the gpu-box", shown)
    assert ("It works." in shown.partition("Result: ")[2]) == (answer == "y")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def said(process: trio.Process, words: str) -> str:
    """What a process has said when it has said this."""
    text = ""
    assert process.stdout is not None
    while words not in text:
        chunk = await process.stdout.receive_some()
        assert chunk, text
        text += chunk.decode()
    return text
