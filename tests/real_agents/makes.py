"""The makes of coding agents that are tried, and how each is told to use the stand-in for its model.

Each has a home of its own, so that nothing of whoever runs the tests is read or changed.
"""

from __future__ import annotations

from pathlib import Path

from attrs import frozen

from loopal_cluster import AcpAgent
from tests.stand_in.providers import environment

__all__ = ["CLAUDE", "CODEX", "MAKES", "Make"]


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
        env = {"PATH": f"{programs}:{path}", "HOME": str(home)} | environment(home, url)
        return AcpAgent(preset=self.name, env=env, cwd=str(home / "work"), allow_cluster_tools=True)


CLAUDE = Make("claude", "claude-agent-acp", '>> use Bash {"command": "touch made"}')
CODEX = Make(
    "codex",
    "codex-acp",
    '>> use exec_command {"cmd": "touch made", "sandbox_permissions": "require_escalated", '
    '"justification": "a test"}',
)
MAKES = (CLAUDE, CODEX)
