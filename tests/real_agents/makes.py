"""The makes of coding agents that are tried, and how each is told to use the stand-in for its model.

Each has a home of its own, so that nothing of whoever runs the tests is read or changed.
"""

from __future__ import annotations

from pathlib import Path

from attrs import evolve, frozen

from loopal_cluster import AcpAgent
from tests.stand_in.providers import environment

from . import npm
from .npm import AGENTS

__all__ = ["ALL_MAKES", "CLAUDE", "CODEX", "MAKES", "NEWER_CLAUDE", "Make"]


@frozen
class Make:
    """A make of coding agent."""

    name: str
    """Of its type of agent."""
    preset: str
    program: str
    """What its processes are called."""
    touch: str
    """A move of the script that makes the file ``made``, for which it asks."""
    packages: tuple[str, ...] = AGENTS
    """What has to be installed for it."""

    def agent(self, programs: Path, home: Path, url: str, *, path: str) -> AcpAgent:
        """The agent type, found on PATH as its preset says, with the stand-in as its model's provider."""
        home.mkdir(parents=True, exist_ok=True)
        (home / "work").mkdir(exist_ok=True)
        env = {"PATH": f"{programs}:{path}", "HOME": str(home), **environment(home, url)}
        return AcpAgent(preset=self.preset, env=env, cwd=str(home / "work"), allow_cluster_tools=True)


CLAUDE = Make("claude", "claude", "claude-agent-acp", '>> use Bash {"command": "touch made"}')
NEWER_CLAUDE = evolve(CLAUDE, name="newer-claude", packages=npm.NEWER_CLAUDE)
CODEX = Make(
    "codex",
    "codex",
    "codex-acp",
    '>> use exec_command {"cmd": "touch made", "sandbox_permissions": "require_escalated", '
    '"justification": "a test"}',
)
MAKES = (CLAUDE, CODEX)
ALL_MAKES = (*MAKES, NEWER_CLAUDE)
