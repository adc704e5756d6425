"""``loopal-cluster doctor``: what of this machine a hub can use, and what is missing.

Which coding agents are on PATH, in which versions, and how to get the others; what we run on; and, if an
address is given, whether the MetaHub there takes us. Nothing is started that costs more than ``--version``.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import trio
import typer
from attrs import asdict

from loopal_cluster.acp.presets import PRESETS, Preset
from loopal_cluster.cli import show
from loopal_cluster.cli.connect import LOOK_TIMEOUT, AsJson, Timeout, TokenFile, open_session
from loopal_cluster.cli.run import DONE, FAILED, async_command, exit_status
from loopal_cluster.errors import ClusterError, ConfigError, RemoteError
from loopal_cluster.messages import Role
from loopal_cluster.records import record

__all__ = ["register"]

VERSION_TIMEOUT = 5.0
"""Seconds for a program to say its version."""
REQUIRED = {"python": (3, 11), "trio": (0, 30)}

_NUMBER = re.compile(r"\d+(?:\.\d+)+\S*")
_AT_LEAST = re.compile(r">=\s*v?(\d+)")


@record
class Finding:
    """What became of one check."""

    check: str
    ok: bool
    detail: str
    """The version, the place; or what is wrong."""
    remedy: str = ""
    """What to do about it."""
    status: int = DONE
    """The exit status that it asks for."""
    fault: str = "missing"
    """What it is called if it is not ok."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    async_command(app, "doctor")(doctor)


async def doctor(
    agents: Annotated[
        list[str] | None,
        typer.Argument(metavar="AGENT", help=f"Those that must be there, of {', '.join(PRESETS)}."),
    ] = None,
    join: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Also try this MetaHub.")] = None,
    timeout: Timeout = LOOK_TIMEOUT,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> int:
    """Say what of this machine a hub can use, and what is missing.

    The exit status is not 0 if something is missing that is needed: without AGENT, no coding agent is.
    """
    for name in agents or ():
        if name not in PRESETS:
            raise ConfigError(f"no coding agent {name!r} is known (there are: {', '.join(PRESETS)})")
    findings = [*_basis(), await _git(), *await _agents(agents or [])]
    if join is not None:
        findings.append(await _meta_hub(join, token_file, timeout))
    if as_json:
        show.document([_document(finding) for finding in findings])
    else:
        show.table(("CHECK", "", "WHAT"), [_row(finding) for finding in findings])
        for finding in findings:
            if finding.remedy:
                show.note(f"{finding.check}: {finding.remedy}")
    return max(finding.status for finding in findings)


def _document(finding: Finding) -> dict[str, Any]:
    return {key: value for key, value in asdict(finding).items() if key not in ("status", "fault")}


def _row(finding: Finding) -> tuple[str, ...]:
    return finding.check, "ok" if finding.ok else finding.fault, finding.detail


# What we run on.


def _basis() -> list[Finding]:
    versions = {"python": platform.python_version(), "trio": metadata.version("trio")}
    return [_at_least(name, versions[name], least) for name, least in REQUIRED.items()]


def _at_least(name: str, version: str, least: tuple[int, ...]) -> Finding:
    found = tuple(int(number) for number in re.findall(r"\d+", version)[: len(least)])
    if found >= least:
        return Finding(name, True, version)
    return Finding(name, False, version, f"needs {'.'.join(map(str, least))} or later", FAILED)


async def _git() -> Finding:
    if (path := await trio.to_thread.run_sync(shutil.which, "git")) is None:
        return Finding("git", False, "not on PATH", "agents cannot have worktrees of their own without it")
    return Finding("git", True, f"{await _said_version(path)}  {path}")


async def _meta_hub(address: str, token_file: Path | None, timeout: float | None) -> Finding:
    try:
        async with open_session(address, token_file, role=Role.OBSERVER, timeout=timeout) as client:
            hubs = await client.list_hubs()
    except (ClusterError, trio.TooSlowError) as error:
        detail = str(error)
        fault = "refused" if isinstance(error, RemoteError) else "unreachable"
        return Finding("metahub", False, detail, status=exit_status(error), fault=fault)
    return Finding("metahub", True, f"{address}, {len(hubs)} hubs")


# Coding agents.


async def _agents(needed: Sequence[str]) -> list[Finding]:
    findings: dict[str, Finding] = {}

    async def look(name: str, preset: Preset) -> None:
        findings[name] = await _agent(name, preset, FAILED if name in needed else DONE)

    async with trio.open_nursery() as nursery:
        for name, preset in PRESETS.items():
            nursery.start_soon(look, name, preset)
    return [findings[name] for name in PRESETS]


async def _agent(name: str, preset: Preset, status: int) -> Finding:
    program = preset.command[0]
    path = await trio.to_thread.run_sync(shutil.which, program)
    if path is None:
        return Finding(name, False, f"{program!r} is not on PATH", preset.install, status)
    for need in preset.needs:
        if await trio.to_thread.run_sync(shutil.which, need) is None:
            return Finding(name, False, f"{path} needs {need!r}, which is not on PATH", status=status)
    package = await trio.to_thread.run_sync(_package_of, path)
    fault = await _unmet(package)
    if fault:
        return Finding(name, False, f"{path}: {fault}", status=status)
    version = package.get("version") or await _said_version(path)
    return Finding(name, True, f"{version}  {path}")


def _package_of(path: str) -> dict[str, Any]:
    """The ``package.json`` of a program that npm has installed: to ask it costs no start of node."""
    for directory in list(Path(path).resolve().parents)[:4]:
        try:
            found = json.loads((directory / "package.json").read_text())
        except (OSError, ValueError):
            continue
        if isinstance(found, dict) and isinstance(found.get("version"), str):
            return found
    return {}


async def _unmet(package: dict[str, Any]) -> str:
    """What an npm package says that it needs, if this machine has less. npm itself only warns."""
    match package:
        case {"engines": {"node": str(wanted)}} if least := _AT_LEAST.search(wanted):
            node = await trio.to_thread.run_sync(shutil.which, "node")
            node = await _said_version(node or "node")
            if node.partition(".")[0].isdigit() and int(node.partition(".")[0]) < int(least[1]):
                return f"needs node {wanted}, and this is {node}"
    return ""


async def _said_version(path: str) -> str:
    """What a program says of its version."""
    with trio.move_on_after(VERSION_TIMEOUT):
        try:
            done = await trio.run_process(
                [path, "--version"],
                capture_stdout=True,
                stderr=subprocess.DEVNULL,
                check=False,
                env={**os.environ, "NO_COLOR": "1"},
            )
        except OSError as error:
            return f"does not start: {error.strerror}"
        found = _NUMBER.search(done.stdout.decode("utf-8", "replace"))
        return found[0] if found else "of an unknown version"
    return "of an unknown version"
