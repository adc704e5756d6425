"""The makes of coding agents that are tried, and how each is told to use the stand-in for its model.

Each has a home of its own, so that nothing of whoever runs the tests is read or changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from attrs import frozen

from loopal_cluster.acp.agent import AcpAgent

__all__ = ["CLAUDE", "CODEX", "MAKES", "Make"]

CODEX_CONFIG = """
model = "gpt-5.3-codex"
model_provider = "stand-in"

[model_providers.stand-in]
name = "stand-in"
base_url = "{url}/v1"
env_key = "STAND_IN_KEY"
wire_api = "responses"
"""
"""The model is one that it knows: of any other it warns, as if the model had said so."""


@frozen
class Make:
    """A make of coding agent."""

    name: str
    """Also its preset's."""
    program: str
    """What its processes are called."""
    touch: str
    """A move of the script that makes the file ``made``, for which it asks."""

    def agent(self, programs: Path, home: Path, url: str, *, path: str) -> AcpAgent:
        """The agent type, found on PATH as its preset says, with the stand-in as its model's provider."""
        home.mkdir(parents=True, exist_ok=True)
        (home / "work").mkdir(exist_ok=True)
        env = {"PATH": f"{programs}:{path}", "HOME": str(home)} | self._provider(home, url)
        return AcpAgent(preset=self.name, env=env, cwd=str(home / "work"), allow_cluster_tools=True)

    def _provider(self, home: Path, url: str) -> Mapping[str, str]:
        if self.name == "codex":
            (home / "config.toml").write_text(CODEX_CONFIG.format(url=url))
            return {"CODEX_HOME": str(home), "STAND_IN_KEY": "none"}
        return {
            "ANTHROPIC_BASE_URL": url,
            "ANTHROPIC_API_KEY": "none",
            "CLAUDE_CONFIG_DIR": str(home / ".claude"),
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "IS_SANDBOX": "1",  # it does not want to run as root otherwise, which CI often does
        }


CLAUDE = Make("claude", "claude-agent-acp", '>> use Bash {"command": "touch made"}')
CODEX = Make(
    "codex",
    "codex-acp",
    '>> use exec_command {"cmd": "touch made", "sandbox_permissions": "require_escalated", '
    '"justification": "a test"}',
)
MAKES = (CLAUDE, CODEX)
