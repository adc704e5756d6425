"""The MetaHub alone: what is sent through it, and which figures are made of that."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from attrs import frozen

from benchmarks.load import Load
from benchmarks.sampling import Medians
from benchmarks.table import Row

__all__ = ["LOADS", "SIDE_BY_SIDE", "routing_rows"]

LOADS: dict[str, Load] = {
    "window-1": {"window": 1},
    "window-16": {"window": 16},
    "window-256": {"window": 256},
    "ask-16": {"window": 16, "ask": 1},
    "patient-agents": {"window": 256, "delay_ms": 10},
    "large-16": {"window": 16, "bytes": 16384},
    "large-256": {"window": 256, "bytes": 16384},
    "slow-hub": {"window": 16, "hubs": 17, "slow_window": 16, "slow_ms": 500, "warm_up": 0.6},
    "events-10k": {"window": 16, "hubs": 17, "events": 10_000, "observer": "reads"},
    "events-50k": {"window": 16, "hubs": 17, "events": 50_000, "observer": "reads"},
    "deaf-observer": {"window": 16, "hubs": 17, "events": 10_000, "observer": "deaf"},
    "two-hubs": {"hubs": 2, "senders": 2, "mutual": 1, "window": 20_000, "requests": 40_000, "warm_up": 0},
    "idle-10": {"window": 1, "hubs": 26},
    "idle-1000": {"window": 1, "hubs": 1016},
    "bare-10": {"window": 1, "hubs": 26, "agents": 1000, "bare": 1},
    "bare-1000": {"window": 1, "hubs": 1016, "agents": 100, "bare": 1},
    "announce-1000": {"window": 1, "hubs": 1016, "agents": 10},
    "idle-10000": {"window": 1, "hubs": 10_016, "agents": 10},
}
"""By name: 16 hubs, 8 of which send 200 bytes to the 8 others, unless it says something else."""

SIDE_BY_SIDE = ("window-1", "window-16", "window-256", "large-16")
"""The loads that the floors and peers are measured with, too."""

Measured = Mapping[str, Medians]


@frozen
class Line:
    """A line of the table, before it is measured."""

    work: str
    rust: str
    target: float
    unit: str
    needs: tuple[str, ...]
    value: Callable[[Measured], float]
    at_most: bool = False
    """The target is a bound from above."""


def _rate(name: str) -> Callable[[Measured], float]:
    return lambda of: of[name].rate


def _cpu(name: str) -> Callable[[Measured], float]:
    return lambda of: of[name].cpu_us


def _p50(name: str) -> Callable[[Measured], float]:
    return lambda of: of[name].p50_ms


def _keeps(name: str) -> Callable[[Measured], float]:
    return lambda of: 100 * of[name].rate / of["window-16"].rate


def _unseen(of: Medians) -> float:
    return of.of(lambda sample: sample.events.sent - sample.events.seen)


LINES = (
    Line("16 in flight", "17,800", 40_000, "routes/s", ("window-16",), _rate("window-16")),
    Line("256 in flight", "18,400", 100_000, "routes/s", ("window-256",), _rate("window-256")),
    Line("server CPU per route, 16 in flight", "36", 25, "us", ("window-16",), _cpu("window-16"), at_most=True),
    Line("server CPU per route, 256 in flight", "31", 10, "us", ("window-256",), _cpu("window-256"), at_most=True),
    Line("1 in flight: p50", "0.04 to 0.08", 0.18, "ms", ("window-1",), _p50("window-1"), at_most=True),
    Line("agents that take 10 ms, 256 in flight", "97", 20_000, "routes/s", ("patient-agents",), _rate("patient-agents")),
    Line("16 KiB messages, 16 in flight", "22", 20_000, "routes/s", ("large-16",), _rate("large-16")),
    Line("16 KiB messages, 256 in flight", "22", 22_000, "routes/s", ("large-256",), _rate("large-256")),
    Line("one hub answers after 500 ms: others keep of their rate", "0.02", 95, "%", ("slow-hub", "window-16"), _keeps("slow-hub")),
    Line("one hub answers after 500 ms: p99 of the others", "", 1.2, "x", ("slow-hub", "window-16"), lambda of: of["slow-hub"].p99_ms / of["window-16"].p99_ms, at_most=True),
    Line("10,000 events/s: routing keeps of its rate", "90", 90, "%", ("events-10k", "window-16"), _keeps("events-10k")),
    Line("50,000 events/s: routing keeps of its rate", "90, or deadlock", 60, "%", ("events-50k", "window-16"), _keeps("events-50k")),
    Line("10,000 events/s: events that the reader did not see", "", 0, "", ("events-10k",), lambda of: _unseen(of["events-10k"]), at_most=True),
    Line("50,000 events/s: events that the reader did not see", "", 0, "", ("events-50k",), lambda of: _unseen(of["events-50k"]), at_most=True),
    Line("10,000 events/s and a deaf observer: routing keeps", "", 90, "%", ("deaf-observer", "window-16"), _keeps("deaf-observer")),
    Line("two hubs, 10,000 in flight to each other: 40,000 take", "deadlock at 257", 60, "s", ("two-hubs",), lambda of: of["two-hubs"].of(lambda sample: sample.seconds), at_most=True),
    Line("1,000 idle hubs: memory", "22.6", 60, "MB", ("idle-1000",), lambda of: of["idle-1000"].of(lambda sample: sample.idle_mb), at_most=True),
    Line("1,000 idle hubs: p50 against 10", "3", 1.3, "x", ("idle-1000", "idle-10"), lambda of: of["idle-1000"].p50_ms / of["idle-10"].p50_ms, at_most=True),
    Line("bare name, 10 hubs: p50", "0.15", 0.15, "ms", ("bare-10",), _p50("bare-10"), at_most=True),
    Line("bare name, 1,000 hubs: p50", "43", 0.15, "ms", ("bare-1000",), _p50("bare-1000"), at_most=True),
    Line("10,000 idle hubs, 100,000 agents: memory", "", 400, "MB", ("idle-10000",), lambda of: of["idle-10000"].of(lambda sample: sample.idle_mb), at_most=True),
    Line("10,000 idle hubs, 100,000 agents: connecting one, against 1,000 with as many each", "", 1.3, "x", ("idle-10000", "announce-1000"), lambda of: _connect_ms(of["idle-10000"], 10_016) / _connect_ms(of["announce-1000"], 1016), at_most=True),
    Line("10,000 idle hubs, 100,000 agents: p50 against 10", "", 1.5, "x", ("idle-10000", "idle-10"), lambda of: of["idle-10000"].p50_ms / of["idle-10"].p50_ms, at_most=True),
)  # fmt: skip


def _connect_ms(of: Medians, hubs: int) -> float:
    return of.of(lambda sample: sample.connect_seconds) / hubs * 1000


def routing_rows(measured: Mapping[str, Measured]) -> list[Row]:
    """The lines of which everything was measured. ``measured`` is by placement, then by load."""
    return [
        Row(
            line.work,
            line.rust,
            line.target,
            line.unit,
            line.at_most,
            {
                place: line.value(of) if all(name in of for name in line.needs) else None
                for place, of in measured.items()
            },
        )
        for line in LINES
        if any(all(name in of for name in line.needs) for of in measured.values())
    ]
