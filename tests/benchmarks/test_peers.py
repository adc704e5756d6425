"""Peers in environments of their own: what is measured of them, and what is said of those that cannot be."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from benchmarks.errors import BenchmarkError
from benchmarks.peers import environments
from benchmarks.peers.asking import ask_many
from benchmarks.peers.environments import Peer
from benchmarks.peers.side_by_side import comparison_table


@pytest.fixture
def peer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A peer that is installed already: its Python is ours, and its program does not exist."""
    home = tmp_path / "loopal-cluster-benchmarks" / "somebody"
    (home / "bin").mkdir(parents=True)
    (home / "complete").touch()
    (home / "bin" / "python").symlink_to(sys.executable)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    peers = {"somebody": Peer("Somebody", ["./nothing"], "benchmarks.peers.nothing")}
    monkeypatch.setattr(environments, "PEERS", peers)
    return "somebody"


def test_a_peer_that_does_not_work_is_a_line(peer: str) -> None:
    with pytest.raises(BenchmarkError, match=r"^Somebody: .*No module named benchmarks.peers.nothing$"):
        environments.ask_many(peer, 1, 0.1)


@pytest.mark.slow  # it makes an environment
def test_a_peer_that_cannot_be_installed_is_a_line(peer: str, tmp_path: Path) -> None:
    (tmp_path / "loopal-cluster-benchmarks" / "somebody" / "complete").unlink()

    with pytest.raises(BenchmarkError, match=r"^Somebody cannot be installed: ERROR[^\n]+nothing[^\n]+$"):
        environments.installed(peer)
    assert not (tmp_path / "loopal-cluster-benchmarks" / "somebody" / "complete").exists()


def test_the_loop_keeps_as_many_asks_in_flight_as_it_is_told() -> None:
    open_now, most = 0, 0

    async def ask(text: str) -> str:
        nonlocal open_now, most
        open_now += 1
        most = max(most, open_now)
        await asyncio.sleep(0)
        open_now -= 1
        return text

    found = asyncio.run(ask_many(ask, 16, 0.05))

    assert most == 16
    assert found["per_second"] > 0


def test_a_table_has_a_line_for_each_and_a_dash_where_nothing_was_measured() -> None:
    found = {"ours": {1: [(1000.0, 1.0), (3000.0, 3.0), (2000.0, 2.0)], 16: [(5000.0, 4.0)]}, "Somebody": {}}

    lines = comparison_table(found).splitlines()

    assert "2,000/s, p50 2 ms" in lines[2]
    assert lines[3] == "| Somebody | - | - | - |"
