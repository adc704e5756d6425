"""The whole path, with everything in processes of its own: agents, two hubs, and their MetaHub.

Nothing is pinned: five processes share what the machine has.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path

import trio
from attrs import evolve, frozen

from benchmarks.errors import BenchmarkError
from benchmarks.processes import ROOT, TOKEN, environment, python, resident_mb, running, said
from benchmarks.table import Row
from loopal_cluster import Client, ClusterError, connect

__all__ = ["WHOLE_PATH", "whole_path_rows"]

CONFIG = """
[hub]
permission = "bypass"

[agents.answer]
protocol = "python"
target = "benchmarks.agents:answer"

[agents.ask]
protocol = "python"
target = "benchmarks.agents:ask_many"

[agents.answer-process]
protocol = "python"
target = "benchmarks.agents:answer"
process = true

[agents.ask-process]
protocol = "python"
target = "benchmarks.agents:ask_many"
process = true
"""

ASKS = {
    1: (1500.0, "AutoGen 1,128, Ray 687"),
    16: (10_000.0, "1,736, 1,675"),
    256: (15_000.0, "2,591, 2,257"),
}
"""By how many are in flight: how many a second are wanted, and what others do."""

SPAWNS = 20
"""Of which the median counts."""
PLACEMENT = "not pinned"


@frozen
class Site:
    """A MetaHub and two hubs, and a client of the MetaHub."""

    client: Client
    meta_hub: int
    """Its process."""
    hub: int

    async def ask(self, suffix: str, window: int, seconds: float) -> tuple[float, float]:
        """Let an agent of hub-a ask one of hub-b; how many a second, and the median in ms."""
        answerer = await self.client.spawn(f"answer{suffix}", hub="hub-b")
        order = {"target": str(answerer.address), "window": window, "bytes": 200, "seconds": seconds}
        asker = await self.client.spawn(f"ask{suffix}", json.dumps(order), hub="hub-a")
        found = json.loads(await asker.result())
        await answerer.cancel()
        return found["per_second"], found["p50"] * 1000

    async def spawn(self, agent_type: str) -> float:
        """The median milliseconds until an agent on a hub is up, for a client of the MetaHub."""
        times = []
        for _ in range(SPAWNS):
            began = time.perf_counter()
            agent = await self.client.spawn(agent_type, hub="hub-b")
            times.append(time.perf_counter() - began)
            await agent.cancel()
        return statistics.median(times) * 1000


@contextmanager
def started(directory: Path, hubs: Sequence[str]) -> Iterator[tuple[str, list[int]]]:
    """Run a MetaHub and hubs; the MetaHub's address, and the processes."""
    config = directory / "hub.toml"
    config.write_text(CONFIG)
    extra = {"XDG_RUNTIME_DIR": str(directory)}
    with ExitStack() as stack:
        command = python("-m", "loopal_cluster", "metahub", "--bind", "127.0.0.1:0")
        meta_hub, output = stack.enter_context(running(command, extra))
        address = said(meta_hub, output, "listening on ")
        pids = [meta_hub.pid]
        for name in hubs:
            command = python("-m", "loopal_cluster", "hub", "--server", "--config", str(config))
            command += ["--hub-name", name, "--join-hub", address]
            hub, output = stack.enter_context(running(command, extra))
            said(hub, output, "ready (")
            pids.append(hub.pid)
        yield address, pids


@asynccontextmanager
async def open_site() -> AsyncIterator[Site]:
    """Run everything for the length of the block."""
    with tempfile.TemporaryDirectory(prefix="loopal-benchmarks-") as directory:
        with started(Path(directory), ["hub-a", "hub-b"]) as (address, (meta_hub, hub, _)):
            async with connect(address, token=TOKEN) as client:
                yield Site(client, meta_hub, hub)


async def asks(window: int, suffix: str, seconds: float) -> list[Row]:
    """Agent to agent, over two hubs and the MetaHub."""
    async with open_site() as site:
        rate, p50 = await site.ask(suffix, window, seconds)
    wanted, others = ASKS[window]
    kind = "processes" if suffix else "function agents"
    rows = [
        _row(
            f"asks, {kind}, {window} in flight",
            wanted if suffix else 2 * wanted,
            "asks/s",
            rate,
            others=others,
        )
    ]
    if window == 16 and suffix:
        rows.append(_row(f"asks, {kind}, {window} in flight: p50", 2.0, "ms", p50, at_most=True))
    return rows


async def idle(seconds: float) -> list[Row]:
    """What they take when nothing happens."""
    async with open_site() as site:
        meta_hub, hub = resident_mb(site.meta_hub), resident_mb(site.hub)
    return [
        _row("hub, idle: memory", 40, "MB", hub, at_most=True),
        _row("MetaHub, idle: memory", 40, "MB", meta_hub, at_most=True),
    ]


async def start(seconds: float) -> list[Row]:
    """From nothing to the first answer, and what of it is Python."""
    cold = await _cold_start()
    bare = _interpreter("pass")
    trio_and_more = "import trio, attrs, cattrs, msgspec"
    return [
        _row("MetaHub and a hub started, one after the other, until an agent there has answered", 0.8, "s", cold, at_most=True),
        _row("import loopal_cluster, beyond a bare interpreter", 0.15, "s", _interpreter("import loopal_cluster") - bare, at_most=True),
        _row("and its open_hub, which is imported when it is used, beyond an interpreter with trio, attrs, cattrs and msgspec", 0.15, "s", _interpreter("from loopal_cluster import open_hub") - _interpreter(trio_and_more), at_most=True),
        _row("the same, beyond a bare interpreter", 0.15, "s", _interpreter("from loopal_cluster import open_hub") - bare, at_most=True),
    ]  # fmt: skip


async def spawns(seconds: float) -> list[Row]:
    """Agents on another hub."""
    async with open_site() as site:
        function, process = await site.spawn("answer"), await site.spawn("answer-process")
    bare = _interpreter("pass") * 1000
    ready = _interpreter("import loopal_cluster.agents.child, benchmarks.agents") * 1000
    return [
        _row("spawn on another hub, function agent", 5, "ms", function, at_most=True),
        _row("spawn on another hub, Python process, against an interpreter that imports the same", 1.2, "x", process / ready, at_most=True),
        _row("spawn on another hub, Python process, against a bare interpreter", 1.2, "x", process / bare, at_most=True),
    ]  # fmt: skip


WHOLE_PATH: dict[str, Callable[[float], Awaitable[list[Row]]]] = {
    **{f"path-{window}": partial(asks, window, "-process") for window in ASKS},
    **{f"path-functions-{window}": partial(asks, window, "") for window in ASKS},
    "idle": idle,
    "start": start,
    "spawns": spawns,
}
"""By name; each is given the seconds that a sample takes."""


def whole_path_rows(names: Sequence[str], seconds: float, repeats: int) -> list[Row]:
    """Measure some of ``WHOLE_PATH``, in turns, and take medians.

    Raises:
        BenchmarkError: something could not be measured.
    """
    found: dict[str, list[Row]] = {}
    for _ in range(repeats):
        for name in names:
            for row in _measured(name, seconds):
                print(f"{row.work}: {row.ours[PLACEMENT]:.3g} {row.unit}", file=sys.stderr, flush=True)
                found.setdefault(row.work, []).append(row)
    return [evolve(rows[0], ours={PLACEMENT: _median(rows)}) for rows in found.values()]


def _measured(name: str, seconds: float) -> list[Row]:
    try:
        return trio.run(WHOLE_PATH[name], max(seconds, 1.0))
    except ClusterError as error:
        raise BenchmarkError(f"{name}: {error}") from error


def _median(rows: Sequence[Row]) -> float:
    return statistics.median(row.ours[PLACEMENT] or 0.0 for row in rows)


def _row(
    work: str, target: float, unit: str, value: float, *, others: str = "", at_most: bool = False
) -> Row:
    return Row(work, others, target, unit, at_most, {PLACEMENT: value})


async def _cold_start() -> float:
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="loopal-benchmarks-") as directory:
        with started(Path(directory), ["hub-b"]) as (address, _):
            async with connect(address, token=TOKEN) as client:
                agent = await client.spawn("answer", hub="hub-b")
                await agent.ask("hello")
                return time.perf_counter() - began


def _interpreter(code: str) -> float:
    """The seconds that an interpreter takes for this; the best of some."""
    times = []
    for _ in range(5):
        began = time.perf_counter()
        subprocess.run(python("-c", code), check=True, cwd=ROOT, env=environment())
        times.append(time.perf_counter() - began)
    return min(times)
