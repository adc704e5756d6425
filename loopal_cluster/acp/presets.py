"""The coding agents that need no more than a name in the config: ``preset = "claude"``."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import Factory

from loopal_cluster.records import record

__all__ = ["PRESETS", "Preset"]


@record
class Preset:
    """A program that speaks ACP, and what there is to know of it."""

    command: tuple[str, ...]
    """How it is started; the program is looked up on PATH."""
    install: str = ""
    """How to get it."""
    login: str = ""
    """How to log in."""
    needs: tuple[str, ...] = ()
    """Programs that it cannot do without."""
    auth: Mapping[str, str] = Factory(dict)
    """The login method to choose, by the environment variable that makes it work."""


PRESETS: Mapping[str, Preset] = {
    "claude": Preset(
        command=("claude-agent-acp",),
        install="npm install -g @agentclientprotocol/claude-agent-acp",
        login="set ANTHROPIC_API_KEY, or log in with `claude` once",
        needs=("node",),
    ),
    "codex": Preset(
        command=("codex-acp",),
        install="npm install -g @zed-industries/codex-acp",
        login="set OPENAI_API_KEY or CODEX_API_KEY, or run `codex login`",
        needs=("node",),
    ),
    "gemini": Preset(
        command=("gemini", "--acp"),
        install="npm install -g @google/gemini-cli",
        login="set GEMINI_API_KEY, or log in with `gemini` once",
        needs=("node",),
        auth={"GEMINI_API_KEY": "gemini-api-key"},
    ),
    "opencode": Preset(
        command=("opencode", "acp"),
        install="npm install -g opencode-ai",
        login="run `opencode auth login`",
    ),
    "goose": Preset(
        command=("goose", "acp"),
        install="see https://block.github.io/goose/docs/getting-started/installation",
        login="run `goose configure`",
    ),
}
