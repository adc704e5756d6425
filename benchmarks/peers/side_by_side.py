"""The whole path of ours and of peers, in turns, in one run."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence

import trio

from benchmarks.errors import BenchmarkError
from benchmarks.peers.environments import PEERS, ask_many
from benchmarks.table import markdown, number
from benchmarks.whole_path import ASKS, open_site
from loopal_cluster import ClusterError

__all__ = ["Answered", "compare", "comparison_table"]

OURS = "ours, processes"

Answered = dict[str, dict[int, list[tuple[float, float]]]]
"""By who, then by how many are in flight: the rates and medians in ms that were measured."""


def compare(peers: Sequence[str], seconds: float, repeats: int) -> tuple[Answered, list[str]]:
    """Measure ours and the peers; what was measured, and a line for each peer that could not be."""
    found: Answered = {OURS: {}}
    missing: dict[str, str] = {}
    for _ in range(repeats):
        for window in ASKS:
            found[OURS].setdefault(window, []).append(_ours(window, seconds))
            for peer in peers:
                if peer in missing:
                    continue
                try:
                    sample = ask_many(peer, window, seconds)
                except BenchmarkError as error:
                    missing[peer] = str(error)
                    print(f"left out: {error}", file=sys.stderr, flush=True)
                    continue
                found.setdefault(PEERS[peer].title, {}).setdefault(window, []).append(sample)
                print(
                    f"{PEERS[peer].title}, {window} in flight: {sample[0]:,.0f} asks/s",
                    file=sys.stderr,
                    flush=True,
                )
    return found, [*missing.values()]


def comparison_table(found: Answered) -> str:
    """Rates and medians, as Markdown."""
    head = ["asks, agent process to agent process", *(f"{window} in flight" for window in ASKS)]
    lines = [[who, *(_cell(of.get(window, [])) for window in ASKS)] for who, of in found.items()]
    return markdown(head, lines)


def _cell(samples: Sequence[tuple[float, float]]) -> str:
    if not samples:
        return "-"
    rate, p50 = (statistics.median(figures) for figures in zip(*samples, strict=True))
    return f"{number(rate)}/s, p50 {number(p50)} ms"


def _ours(window: int, seconds: float) -> tuple[float, float]:
    async def ask() -> tuple[float, float]:
        async with open_site() as site:
            return await site.ask("-process", window, seconds)

    try:
        return trio.run(ask)
    except ClusterError as error:
        raise BenchmarkError(f"the whole path: {error}") from error
