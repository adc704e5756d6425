"""What a drill found: times against what is wanted of them, and counts that must be zero."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any

from attrs import Factory, frozen

from benchmarks.drills.processes import Site

__all__ = ["Drill", "DrillFailed", "DrillSkipped", "Findings", "Result", "Time"]


class DrillFailed(Exception):
    """Something was not as the drill needs it, or as the product promises it; one line."""


class DrillSkipped(Exception):
    """This machine cannot do what the drill needs; one line."""


@frozen
class Time:
    """How long something took."""

    meaning: str
    """From what to what."""
    seconds: float
    wanted: float
    """More is a miss."""

    @property
    def missed(self) -> bool:
        """Whether it took too long."""
        return self.seconds > self.wanted


@frozen
class Findings:
    """What one run of a drill has measured and counted."""

    detection: Time | None = None
    """From the fault until whoever waited was told."""
    recovery: Time | None = None
    """From the end of the fault until everything works, or until nothing is left of what should end."""
    times: tuple[Time, ...] = ()
    """What else was measured."""
    lost: int = 0
    """Requests without an answer, or answered with yes and not carried out."""
    doubled: int = 0
    """Requests carried out twice, or answered with no and carried out all the same."""
    left: int = 0
    """Agents and processes that run on although nobody wants them."""
    counts: Mapping[str, int] = Factory(dict)
    """What became of the requests, by answer."""


@frozen
class Drill:
    """A drill that can be run."""

    name: str
    story: str
    """What happens, in one line."""
    run: Callable[[Site], Awaitable[Findings]]
    settings: str = "defaults"
    """Of the MetaHub, where they are not the defaults."""


@frozen
class Result:
    """A drill that was run."""

    drill: Drill
    seconds: float
    """It took, with starting and stopping."""
    findings: Findings = Findings()
    error: str | None = None
    """Why it could not be finished."""
    skipped: str | None = None
    """Why it was not run."""

    @property
    def faults(self) -> list[str]:
        """Why it has not passed; empty if it has."""
        return list(self._faults())

    def _faults(self) -> Iterator[str]:
        found = self.findings
        if self.error is not None:
            yield self.error
        for time in (found.detection, found.recovery, *found.times):
            if time is not None and time.missed:
                yield f"{time.meaning}: {time.seconds:.3f} s, wanted {time.wanted:g} s"
        for name in ("lost", "doubled", "left"):
            if count := getattr(found, name):
                yield f"{count} {name}"

    def document(self) -> dict[str, Any]:
        """The result as JSON."""
        found = self.findings
        return {
            "name": self.drill.name,
            "story": self.drill.story,
            "settings": self.drill.settings,
            "passed": not self.faults,
            "faults": self.faults,
            "skipped": self.skipped,
            "seconds": round(self.seconds, 3),
            "detection": _time(found.detection),
            "recovery": _time(found.recovery),
            "times": [_time(time) for time in found.times],
            "lost": found.lost,
            "doubled": found.doubled,
            "left": found.left,
            "counts": dict(sorted(found.counts.items())),
        }


def _time(time: Time | None) -> dict[str, Any] | None:
    if time is None:
        return None
    return {"meaning": time.meaning, "seconds": round(time.seconds, 4), "wanted": time.wanted}
