"""The real programs, from npm, in a folder of their own.

The versions are pinned: these are what the tests have been written against, and the newest that node 20 runs. The
folder is kept below the system's directory for temporary files, so that only the first run fetches anything.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

__all__ = ["installed"]

PACKAGES = ("@agentclientprotocol/claude-agent-acp@0.49.0", "@zed-industries/codex-acp@0.16.0")
INSTALL_TIMEOUT = 300
"""Seconds. It takes 30 where the registry is near."""


def installed() -> Path:
    """The directory with the programs. The test is skipped, in words, where they cannot be had."""
    if shutil.which("node") is None or (npm := shutil.which("npm")) is None:
        pytest.skip("node and npm are not installed")
    home = Path(tempfile.gettempdir(), f"loopal-cluster-npm-{os.getuid()}")
    home.mkdir(mode=0o700, exist_ok=True)
    assert home.stat().st_uid == os.getuid(), f"{home} is somebody else's, who could put any program there"
    done = home / " ".join(PACKAGES).replace("/", "_")
    with open(home / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests run in several processes
        if not done.exists():
            _install(npm, home)
            done.touch()
    return home / "node_modules" / ".bin"


def _install(npm: str, home: Path) -> None:
    command = [
        npm,
        "install",
        "--prefix",
        str(home),
        "--no-audit",
        "--no-fund",
        "--loglevel=error",
        *PACKAGES,
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_TIMEOUT, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip(f"npm has not installed the agents within {INSTALL_TIMEOUT} s")
    if done.returncode != 0:
        pytest.skip(f"npm cannot install the agents: {done.stderr.strip()[-500:]}")
