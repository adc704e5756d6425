"""The real programs, from npm, in folders of their own.

The versions are pinned: these are what the tests have been written against. Of Claude there are two, because its
newer ones begin their sessions in a mode in which nobody is asked; they also want a newer node, which npm has as a
package. The folders are kept below the system's directory for temporary files, so that only the first run fetches
anything, and each is only fetched for a test that needs it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

__all__ = ["AGENTS", "NEWER_CLAUDE", "installed"]

AGENTS = ("@agentclientprotocol/claude-agent-acp@0.49.0", "@zed-industries/codex-acp@0.16.0")
NEWER_CLAUDE = ("@agentclientprotocol/claude-agent-acp@0.101.0", "node@22")
INSTALL_TIMEOUT = 300
"""Seconds. It takes 20 where the registry is near."""


def installed(packages: tuple[str, ...] = AGENTS) -> Path:
    """The directory with these programs. The test is skipped, in words, where they cannot be had."""
    if shutil.which("node") is None or (npm := shutil.which("npm")) is None:
        pytest.skip("node and npm are not installed")
    top = Path(tempfile.gettempdir(), f"loopal-cluster-npm-{os.getuid()}")
    top.mkdir(mode=0o700, exist_ok=True)
    assert top.stat().st_uid == os.getuid(), f"{top} is somebody else's, who could put any program there"
    home = top / " ".join(packages).replace("/", "_")
    home.mkdir(exist_ok=True)
    with open(home / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests run in several processes
        if not (home / "done").exists():
            _install(npm, home, packages)
            (home / "done").touch()
    return home / "node_modules" / ".bin"


def _install(npm: str, home: Path, packages: tuple[str, ...]) -> None:
    quiet = ["--no-audit", "--no-fund", "--loglevel=error"]
    command = [npm, "install", "--prefix", str(home), *quiet, *packages]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_TIMEOUT, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip(f"npm has not installed {', '.join(packages)} within {INSTALL_TIMEOUT} s")
    if done.returncode != 0:
        pytest.skip(f"npm cannot install {', '.join(packages)}: {done.stderr.strip()[-500:]}")
