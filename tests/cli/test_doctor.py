"""``doctor``: what is found on a PATH that the test has made, and what becomes of it."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from loopal_cluster.acp.presets import PRESETS

from .program import META_TOKEN, Ran, environment, open_site, run

pytestmark = pytest.mark.limit(30)


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A directory that is the whole PATH."""
    (tmp_path / "bin").mkdir()
    return tmp_path


def install(machine: Path, program: str, script: str = "exit 1", **package: object) -> None:
    """Put a program there, or the link to one that npm would make."""
    target = machine / "bin" / program
    if package:
        home = machine / "lib" / program / "dist"
        home.mkdir(parents=True)
        (home.parent / "package.json").write_text(json.dumps(package))
        target.symlink_to(home / "index.js")
    target.write_text(f"#!/bin/sh\n{script}\n")
    target.chmod(0o755)


async def doctor(machine: Path, *arguments: str, **env: str) -> Ran:
    return await run(
        "doctor",
        *arguments,
        env=environment(machine, PATH=str(machine / "bin"), PYTHONPATH=os.getcwd(), **env),
    )


def found(ran: Ran) -> dict[str, tuple[bool, str]]:
    return {one["check"]: (one["ok"], one["detail"]) for one in ran.document}


async def test_on_a_bare_machine_everything_is_missing_and_nothing_is_wrong(machine):
    ran = await doctor(machine, "--json")

    assert ran.status == 0
    assert list(found(ran)) == ["python", "trio", "git", *PRESETS]
    assert found(ran)["python"] == (True, sys.version.split()[0])
    for name, preset in PRESETS.items():
        assert found(ran)[name] == (False, f"'{preset.command[0]}' is not on PATH")
    assert {one["check"]: one["remedy"] for one in ran.document}["codex"] == PRESETS["codex"].install


async def test_a_program_of_npm_has_its_version_without_being_run(machine):
    install(machine, "node", "echo v22.1.0")
    install(machine, "codex-acp", "touch $0.was-run", name="codex-acp", version="0.16.0")

    ran = await doctor(machine, "--json")

    assert found(ran)["codex"] == (True, f"0.16.0  {machine}/bin/codex-acp")
    assert list(machine.rglob("*.was-run")) == []


async def test_another_program_says_its_version_itself(machine):
    install(machine, "goose", 'test "$1" = --version && echo " goose 1.9.2"')

    assert found(await doctor(machine, "--json"))["goose"] == (True, f"1.9.2  {machine}/bin/goose")


async def test_a_program_that_says_no_version_is_there_all_the_same(machine):
    install(machine, "goose", "exit 1")

    assert found(await doctor(machine, "--json"))["goose"] == (
        True,
        f"of an unknown version  {machine}/bin/goose",
    )


@pytest.mark.parametrize(
    ("node", "fault"),
    [(None, "needs 'node', which is not on PATH"), ("v20.2.0", "needs node >=22, and this is 20.2.0")],
)
async def test_a_program_whose_node_is_missing_or_too_old_cannot_be_used(machine, node, fault):
    if node:
        install(machine, "node", f"echo {node}")
    install(machine, "claude-agent-acp", name="c", version="0.100.0", engines={"node": ">=22"})

    ran = await doctor(machine, "--json", "claude")

    ok, detail = found(ran)["claude"]
    assert not ok
    assert fault in detail
    assert ran.status == 1


async def test_what_is_asked_for_by_name_must_be_there(machine):
    install(machine, "goose", "echo 1.0")

    assert (await doctor(machine, "goose")).status == 0
    assert (await doctor(machine, "goose", "codex")).status == 1


async def test_people_see_a_table_and_what_to_do(machine):
    ran = await doctor(machine)

    assert "codex     missing  'codex-acp' is not on PATH" in ran.out.splitlines()
    assert "codex: npm install -g @zed-industries/codex-acp" in ran.err.splitlines()


async def test_an_unknown_name_is_refused_with_those_that_are_known(machine):
    ran = await doctor(machine, "cursor")

    assert (ran.status, ran.out) == (2, "")
    assert ran.err == (
        "error: no coding agent 'cursor' is known (there are: claude, codex, gemini, opencode, goose, copilot, qwen)\n"
    )


async def test_a_meta_hub_is_tried_if_one_is_named(machine, monkeypatch):
    async with open_site(machine, monkeypatch) as site:
        address = site.meta_hub.address
        good = await doctor(machine, "--json", "--join", address, LOOPAL_META_HUB_TOKEN=META_TOKEN)
        bad = await doctor(machine, "--join", address, LOOPAL_META_HUB_TOKEN="wrong")
    gone = await doctor(machine, "--json", "--join", address, LOOPAL_META_HUB_TOKEN=META_TOKEN)

    assert (good.status, found(good)["metahub"]) == (0, (True, f"{address}, 2 hubs"))
    assert bad.status == 3
    assert [line.split()[:2] for line in bad.out.splitlines()][-1] == ["metahub", "refused"]
    assert (gone.status, found(gone)["metahub"]) == (
        4,
        (False, f"cannot reach {address}: Connection refused"),
    )
