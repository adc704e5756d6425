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
    asking_modes: tuple[str, ...] = ()
    """Its modes in which nothing is changed unasked, over all its versions; the first that a session has is taken."""
    asking_env: Mapping[str, str] = Factory(dict)
    """Environment variables that make it ask, if that is no matter of modes."""
    asking_options: Mapping[str, str] = Factory(dict)
    """Settings of a session that it must not have otherwise while it is to ask."""


PRESETS: Mapping[str, Preset] = {
    "claude": Preset(
        command=("claude-agent-acp",),
        install="npm install -g @agentclientprotocol/claude-agent-acp",
        login="set ANTHROPIC_API_KEY, or log in with `claude` once",
        needs=("node",),
        # Up to 0.49 its sessions begin in it; those of 0.101 begin in "auto", where a model decides.
        asking_modes=("default",),
    ),
    "codex": Preset(
        command=("codex-acp",),
        install="npm install -g @zed-industries/codex-acp",
        login="set OPENAI_API_KEY or CODEX_API_KEY, or run `codex login`",
        needs=("node",),
        # Sessions begin in it if Codex does not trust the folder; otherwise in one that changes files unasked.
        asking_modes=("read-only",),
    ),
    "gemini": Preset(
        command=("gemini", "--acp"),
        install="npm install -g @google/gemini-cli",
        login="set GEMINI_API_KEY, or log in with `gemini` once",
        needs=("node",),
        auth={"GEMINI_API_KEY": "gemini-api-key"},
        asking_modes=("default",),
    ),
    "opencode": Preset(
        command=("opencode", "acp"),
        install="npm install -g opencode-ai",
        login="run `opencode auth login`",
        # Its modes are agents, none of which asks: that is said by a setting, which a repository could undo for one.
        asking_env={"OPENCODE_PERMISSION": '{"*":"ask"}', "OPENCODE_DISABLE_PROJECT_CONFIG": "1"},
    ),
    "goose": Preset(
        command=("goose", "acp"),
        install="see https://block.github.io/goose/docs/getting-started/installation",
        login="run `goose configure`",
        asking_modes=("approve",),
        asking_env={"GOOSE_MODE": "approve"},
    ),
    "copilot": Preset(
        command=("copilot", "--acp"),
        install="npm install -g @github/copilot",
        login="run `copilot login`",
        needs=("node",),
        asking_modes=("https://agentclientprotocol.com/protocol/session-modes#agent",),
        asking_options={"allow_all": "off"},
    ),
    "qwen": Preset(
        command=("qwen", "--acp"),
        install="npm install -g @qwen-code/qwen-code",
        login="set OPENAI_API_KEY, or log in with `qwen` once",
        needs=("node",),
        # Its sessions begin in "auto", where a model decides.
        asking_modes=("default",),
    ),
}
