"""Worktrees, made and removed by the real git."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from loopal_cluster import ClusterError
from loopal_cluster.acp.worktree import open_worktree

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")

ENV = {
    **{key: value for key, value in os.environ.items() if not key.startswith("GIT_")},
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    **{f"GIT_{who}_{what}": "t@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
}


def git(directory: Path | str, *arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=directory, env=ENV, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    top = tmp_path / "project"
    (top / "src").mkdir(parents=True)
    (top / "src" / "a.py").write_text("1\n")
    (top / ".gitignore").write_text("build\n")
    git(top, "init", "--quiet")
    git(top, "add", ".")
    git(top, "commit", "--quiet", "-m", "one")
    return top


def exists(path: Path | str) -> bool:
    return os.path.exists(path)


def branches(repository: Path) -> list[str]:
    return git(repository, "branch", "--list", "loopal/*", "--format=%(refname:short)").splitlines()


async def test_an_untouched_worktree_is_gone_with_its_branch(repository):
    async with open_worktree(str(repository), "coder-1", ENV) as worktree:
        assert worktree.path == str(repository.parent / "project.worktrees" / "coder-1")
        assert (Path(worktree.path) / "src" / "a.py").read_text() == "1\n"
        assert git(worktree.path, "branch", "--show-current") == "loopal/coder-1"
        assert not await worktree.has_changes()

    assert not exists(worktree.path)
    assert branches(repository) == []
    assert git(repository, "worktree", "list").count("\n") == 0


async def test_a_directory_in_the_repository_is_the_same_directory_in_the_worktree(repository):
    (repository / "new").mkdir()
    async with open_worktree(str(repository / "src"), "coder-1", ENV) as worktree:
        assert worktree.cwd == os.path.join(worktree.path, "src")
    async with open_worktree(str(repository / "new"), "coder-1", ENV) as worktree:
        assert worktree.cwd == worktree.path


@pytest.mark.parametrize("change", ["edit", "new file", "commit", "other branch"])
async def test_a_worktree_with_something_in_it_is_kept(repository, change):
    async with open_worktree(str(repository), "coder-1", ENV) as worktree:
        path = Path(worktree.path)
        (path / ("b.py" if change == "new file" else "src/a.py")).write_text("2\n")
        if change in ("commit", "other branch"):
            if change == "other branch":
                git(path, "checkout", "--quiet", "-b", "elsewhere")
            git(path, "commit", "--quiet", "-am", "two")
        assert await worktree.has_changes()

    assert exists(path)
    assert branches(repository) == ["loopal/coder-1"]


async def test_what_git_ignores_does_not_keep_a_worktree(repository):
    async with open_worktree(str(repository), "coder-1", ENV) as worktree:
        (Path(worktree.path) / "build").mkdir()
        (Path(worktree.path) / "build" / "x.o").write_text("")

    assert not exists(worktree.path)


async def test_a_worktree_is_removed_also_when_the_block_fails(repository):
    with pytest.raises(ZeroDivisionError):
        async with open_worktree(str(repository), "coder-1", ENV) as worktree:
            raise ZeroDivisionError

    assert not exists(worktree.path)


async def test_a_worktree_that_was_removed_already_is_no_fault(repository):
    async with open_worktree(str(repository), "coder-1", ENV) as worktree:
        shutil.rmtree(worktree.path)


async def test_two_have_one_each(repository):
    async with (
        open_worktree(str(repository), "one", ENV) as one,
        open_worktree(str(repository), "two", ENV) as two,
    ):
        assert one.path != two.path
        assert branches(repository) == ["loopal/one", "loopal/two"]


async def test_outside_of_a_repository_there_is_none(tmp_path):
    with pytest.raises(ClusterError, match=r"no worktree for .*not a git repository"):
        async with open_worktree(
            str(tmp_path), "coder-1", ENV | {"GIT_CEILING_DIRECTORIES": str(tmp_path.parent)}
        ):
            pass


async def test_a_repository_without_a_commit_has_none(tmp_path):
    git(tmp_path, "init", "--quiet")

    with pytest.raises(ClusterError, match="no worktree for"):
        async with open_worktree(str(tmp_path), "coder-1", ENV):
            pass


async def test_what_a_git_hook_sets_does_not_lead_elsewhere(repository, tmp_path):
    env = ENV | {"GIT_DIR": str(tmp_path / "nowhere"), "GIT_INDEX_FILE": "/nowhere"}

    async with open_worktree(str(repository), "coder-1", env) as worktree:
        assert exists(worktree.path)


# What a repository says is to be run.


@pytest.fixture
def trap(tmp_path: Path) -> Path:
    """A program that leaves a mark when it is run, and passes on what it is given."""
    program = tmp_path / "trap"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/sprung\ncat\n")
    program.chmod(0o755)
    return program


def set_hooks(repository: Path, trap: Path) -> None:
    for hook in ("post-checkout", "post-index-change", "reference-transaction", "pre-auto-gc"):
        shutil.copy(trap, repository / ".git" / "hooks" / hook)


def set_hooks_path(repository: Path, trap: Path) -> None:
    (repository / "hooks").mkdir()
    shutil.copy(trap, repository / "hooks" / "post-checkout")
    git(repository, "config", "core.hooksPath", str(repository / "hooks"))


def set_fsmonitor(repository: Path, trap: Path) -> None:
    git(repository, "config", "core.fsmonitor", str(trap))


def set_filters(repository: Path, trap: Path) -> None:
    for name in ("odd", "o=d.d"):
        git(repository, "config", f"filter.{name}.clean", str(trap))
        git(repository, "config", f"filter.{name}.smudge", str(trap))
        git(repository, "config", f"filter.{name}.required", "true")
    (repository / ".git" / "info" / "attributes").write_text("*.py filter=odd\n*.txt filter=o=d.d\n")
    (repository / "b.txt").write_text("b\n")
    git(repository, "-c", "filter.o=d.d.required=false", "add", "b.txt")
    git(repository, "commit", "--quiet", "-m", "two")


def set_process_filter(repository: Path, trap: Path) -> None:
    git(repository, "config", "filter.odd.process", str(trap))
    git(repository, "config", "filter.odd.required", "true")
    (repository / ".git" / "info" / "attributes").write_text("*.py filter=odd\n")


TRAPS = [set_hooks, set_hooks_path, set_fsmonitor, set_filters, set_process_filter]


def is_sprung(trap: Path) -> bool:
    """Whether it was, since this was last asked."""
    mark = trap.parent / "sprung"
    was = mark.exists()
    mark.unlink(missing_ok=True)
    return was


def use_git_untold(repository: Path) -> None:
    """Do the same as a worktree is made and looked at, with a git that was told nothing."""
    add = ["git", "worktree", "add", "--quiet", f"{repository}.other"]
    subprocess.run(add, cwd=repository, env=ENV, capture_output=True, check=False)
    subprocess.run(["git", "status"], cwd=repository, env=ENV, capture_output=True, check=False)


@pytest.mark.parametrize("set_trap", TRAPS)
async def test_nothing_that_a_repository_names_is_run(set_trap, repository, trap):
    set_trap(repository, trap)
    is_sprung(trap)

    async with open_worktree(str(repository), "coder-1", ENV) as worktree:
        (Path(worktree.path) / "src" / "a.py").touch()
        assert not await worktree.has_changes()
    assert not exists(worktree.path)
    assert not is_sprung(trap)

    use_git_untold(repository)
    assert is_sprung(trap)


@pytest.mark.parametrize("set_trap", TRAPS)
async def test_nothing_that_an_agent_has_written_there_is_run(set_trap, repository, trap):
    async with open_worktree(str(repository), "coder-1", ENV) as worktree:
        set_trap(repository, trap)
        is_sprung(trap)
        (Path(worktree.path) / "src" / "a.py").touch()
        await worktree.has_changes()

    assert not is_sprung(trap)


async def test_a_repository_that_an_agent_has_put_in_place_of_its_own_is_not_believed(
    repository, trap, tmp_path
):
    async with open_worktree(str(repository), "coder-1", ENV) as worktree:
        git(repository, "clone", "--quiet", str(repository), str(tmp_path / "false"))
        set_fsmonitor(tmp_path / "false", trap)
        (Path(worktree.path) / ".git").write_text(f"gitdir: {tmp_path}/false/.git\n")
        (Path(worktree.path) / "new").touch()
        is_sprung(trap)

        assert await worktree.has_changes()

    assert exists(worktree.path)
    assert not is_sprung(trap)


async def test_nothing_is_run_in_a_submodule(repository, trap, tmp_path):
    git(repository, "clone", "--quiet", str(repository), str(tmp_path / "inner"))
    git(
        repository, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(tmp_path / "inner")
    )
    git(repository, "commit", "--quiet", "-m", "two")
    async with open_worktree(str(repository), "coder-1", ENV) as worktree:
        git(worktree.path, "clone", "--quiet", str(tmp_path / "inner"), "inner")
        set_fsmonitor(Path(worktree.path) / "inner", trap)
        is_sprung(trap)

        assert not await worktree.has_changes()

    assert exists(worktree.path)  # git does not remove one with submodules
    assert not is_sprung(trap)


async def test_the_filters_of_the_user_stay(repository, trap, tmp_path):
    (tmp_path / "config").write_text(f'[filter "odd"]\n smudge = {trap}\n clean = cat\n')
    (repository / ".git" / "info" / "attributes").write_text("*.py filter=odd\n")

    async with open_worktree(
        str(repository), "coder-1", {**ENV, "GIT_CONFIG_GLOBAL": str(tmp_path / "config")}
    ) as worktree:
        assert (Path(worktree.path) / "src" / "a.py").read_text() == "1\n"

    assert is_sprung(trap)
