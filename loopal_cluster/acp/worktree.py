"""A git worktree of its own for an agent: its changes are on a branch, and in nobody's way.

It is beside the repository, in ``NAME.worktrees``, and removed at the end unless there is something in it:
changes, new files or commits. Git itself decides that, so that nothing is lost to a race.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from loopal_cluster.agents.command import CommandFailed, run_command
from loopal_cluster.errors import ClusterError
from loopal_cluster.records import record
from loopal_cluster.runtime.logs import get_logger

__all__ = ["Worktree", "open_worktree"]

GIT_TIMEOUT = 60.0
"""Seconds for git to make or remove one; a large repository on a slow disk takes some."""

_ELSEWHERE = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_PREFIX")

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
    _env: Mapping[str, str]

    async def has_changes(self) -> bool:
        """Whether there is something in it that is nowhere else: changes, new files, commits.

        Raises:
            CommandFailed: git cannot say.
        """
        if await self._git(self.path, "rev-parse", "HEAD") != self.base:
            return True
        return bool(await self._git(self.path, "status", "--porcelain"))

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
    except CommandFailed as error:
        raise CommandFailed(f"no worktree for {cwd!r}: {error}") from error
    # "--show-prefix" is the directory in the repository. One that is in no commit is not in the worktree.
    below = trio.Path(path, await _git(env, cwd, "rev-parse", "--show-prefix"))
    return Worktree(path, branch, str(below) if await below.is_dir() else path, base, top, env)


async def _git(env: Mapping[str, str], directory: str, *arguments: str) -> str:
    # In a git hook they are set, and mean another repository, whatever the directory.
    env = {key: value for key, value in env.items() if key not in _ELSEWHERE}
    return (await run_command(["git", *arguments], "", env=env, cwd=directory, grace=5.0)).strip()
