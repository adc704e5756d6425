"""How coding agents are told that the stand-in is their model's provider: what goes into their environment."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

__all__ = ["environment"]

CODEX_CONFIG = """
model = "gpt-5.3-codex"
model_provider = "stand-in"

[model_providers.stand-in]
name = "stand-in"
base_url = "{url}/v1"
env_key = "STAND_IN_KEY"
wire_api = "responses"
"""
"""The model is one that Codex knows: of any other it warns, as if the model had said so."""


def environment(home: Path, url: str) -> Mapping[str, str]:
    """The variables for Claude Code and Codex, which keep what they keep in this directory."""
    (home / "codex").mkdir(parents=True, exist_ok=True)
    (home / "codex" / "config.toml").write_text(CODEX_CONFIG.format(url=url))
    return {
        "ANTHROPIC_BASE_URL": url,
        "ANTHROPIC_API_KEY": "none",
        "CLAUDE_CONFIG_DIR": str(home / "claude"),
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "IS_SANDBOX": "1",  # Claude Code does not want to run as root otherwise, which CI often does
        "CODEX_HOME": str(home / "codex"),
        "STAND_IN_KEY": "none",
    }
