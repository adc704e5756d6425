"""A git worktree of its own for an agent: its changes are on a branch, and in nobody's way.

It is beside the repository, in ``NAME.worktrees``, and removed at the end unless there is something in it:
changes, new files or commits. Git itself decides that, so that nothing is lost to a race.

An agent writes in its worktree, and may write in the repository's own settings, and git runs here, in the hub. So it
runs none of the commands that a repository can name: hooks, fsmonitor, filters, what a transport needs. Which
directory has the settings is kept from the beginning, and not believed from what the agent has left.
"""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from loopal_cluster.agents.command import CommandFailed, run_command
from loopal_cluster.errors import ClusterError
from loopal_cluster.links.logs import get_logger
from loopal_cluster.records import record

__all__ = ["Worktree", "open_worktree"]

GIT_TIMEOUT = 60.0
"""Seconds for git to make or remove one; a large repository on a slow disk takes some."""

_ELSEWHERE = (
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_COMMON_DIR",
    "GIT_PREFIX",
    "GIT_CONFIG_PARAMETERS",
)
"""What git sets in its hooks. They mean another repository, whatever the directory."""
_NO_COMMANDS = {
    "core.hooksPath": os.devnull,
    "core.fsmonitor": "false",
    "core.pager": "cat",
    "core.editor": "false",
    "core.sshCommand": "false",
    "core.askPass": "",
    "core.alternateRefsCommand": "",
    "credential.helper": "",
    "diff.external": "",
    "protocol.allow": "never",  # nothing that we do needs another repository
    "safe.bareRepository": "explicit",  # one among the files of another is somebody's trap
    "submodule.recurse": "false",
    "gc.auto": "0",
    "maintenance.auto": "false",
}
"""Settings in place of a repository's own."""
_QUIET = {"GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0", "GIT_NO_LAZY_FETCH": "1"}
_NAMED = re.compile(r"(filter|hook)\.(.+)\.[^.]+", re.DOTALL)
"""Settings of commands that have names of their own, by which attributes and events call them."""
_NAMED_COMMANDS = {
    "filter": {"clean": "", "smudge": "", "process": "", "required": "false"},
    "hook": {"command": "true", "enabled": "false"},
}

log = get_logger(__name__)


@record
class Worktree:
    """A checkout of its own, for one agent."""

    path: str
    branch: str
    cwd: str
    """Where to work in it: what the directory asked for is in the repository."""
    base: str
    """The commit it was made from."""
    _repository: str
    _git_directory: str
    _env: Mapping[str, str]

    async def has_changes(self) -> bool:
        """Whether there is something in it that is nowhere else: changes, new files, commits.

        Raises:
            CommandFailed: git cannot say.
        """
        here = f"--git-dir={self._git_directory}", f"--work-tree={self.path}"
        if await self._git(self.path, *here, "rev-parse", "HEAD") != self.base:
            return True
        # A submodule is another repository, with settings of its own: git would run in it. "dirty" does not look.
        status = "status", "--porcelain", "--ignore-submodules=dirty"
        return bool(await self._git(self.path, *here, *status))

    async def remove(self) -> bool:
        """Remove it, unless there is something in it."""
        try:
            if await self.has_changes():
                log.info("worktree %s is kept, with the changes in it", self.path)
                return False
            # Without --force, git refuses if something was changed since we looked.
            await self._git(self._repository, "worktree", "remove", self.path)
            # Deleted only while it still is what it was.
            await self._git(self._repository, "update-ref", "-d", f"refs/heads/{self.branch}", self.base)
        except ClusterError as error:
            log.warning("worktree %s is kept: %s", self.path, error)
            return False
        return True

    async def _git(self, directory: str, *arguments: str) -> str:
        return await _git(self._env, directory, *arguments)


@asynccontextmanager
async def open_worktree(cwd: str, name: str, env: Mapping[str, str]) -> AsyncIterator[Worktree]:
    """Make a worktree of the repository that ``cwd`` is in, from its current commit, for the block.

    ``name`` makes its directory and its branch, and must be new.

    Raises:
        ClusterError: ``cwd`` is in no repository, or in one without a commit; or git failed, or is missing.
    """
    worktree = await _make(cwd, name, env)
    try:
        yield worktree
    finally:
        with trio.move_on_after(GIT_TIMEOUT, shield=True):
            await worktree.remove()


async def _make(cwd: str, name: str, env: Mapping[str, str]) -> Worktree:
    try:
        top = await _git(env, cwd, "rev-parse", "--show-toplevel")
        base = await _git(env, cwd, "rev-parse", "HEAD")
        path = str(Path(f"{top}.worktrees", name))
        branch = f"loopal/{name}"
        await _git(env, top, "worktree", "add", "--quiet", "-b", branch, path, base)
        git_directory = await _git(env, path, "rev-parse", "--absolute-git-dir")
    except CommandFailed as error:
        raise CommandFailed(f"no worktree for {cwd!r}: {error}") from error
    # "--show-prefix" is the directory in the repository. One that is in no commit is not in the worktree.
    below = trio.Path(path, await _git(env, cwd, "rev-parse", "--show-prefix"))
    return Worktree(path, branch, str(below) if await below.is_dir() else path, base, top, git_directory, env)


async def _git(env: Mapping[str, str], directory: str, *arguments: str) -> str:
    env = {key: value for key, value in env.items() if key not in _ELSEWHERE} | _QUIET
    listed = await _run(env, directory, *arguments, command=("config", "--list", "--show-scope", "-z"))
    env = _with_settings(env, _NO_COMMANDS | _without_named(listed))
    return (await _run(env, directory, *arguments)).strip()


async def _run(
    env: Mapping[str, str], directory: str, *arguments: str, command: Sequence[str] | None = None
) -> str:
    """Run git; with another ``command``, if one is given, but on the same repository."""
    if command is not None:
        where = [one for one in arguments if one.startswith("--git-dir=")]
        arguments = (*where, *command)
    return await run_command(["git", *arguments], "", env=env, cwd=directory, grace=5.0)


def _without_named(listed: str) -> dict[str, str]:
    """Settings that make nothing of the named commands which the repository itself has; a user's own stay."""
    items = listed.split("\0")
    off: dict[str, str] = {}
    for scope, setting in zip(items[::2], items[1::2], strict=False):
        named = _NAMED.fullmatch(setting.partition("\n")[0])
        if named is not None and scope not in ("system", "global"):
            kind, name = named.groups()
            off |= {f"{kind}.{name}.{key}": value for key, value in _NAMED_COMMANDS[kind].items()}
    return off


def _with_settings(env: Mapping[str, str], settings: Mapping[str, str]) -> dict[str, str]:
    # In the environment, because a name may have a "=" in it, at which "-c" would end it.
    first = int(env.get("GIT_CONFIG_COUNT") or 0)
    added: dict[str, str] = {}
    for number, (key, value) in enumerate(settings.items(), first):
        added |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    return {**env, **added, "GIT_CONFIG_COUNT": str(first + len(settings))}
