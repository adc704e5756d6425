"""What must be true of every run, whatever went wrong in it. One class, one promise.

Each reads only the ``History``: what actors asked, were told and did. What can only be seen while it
happens (a core that raises, a missing event, a table that is not empty) the world notes itself.
Each is proved by ``tests/simulation/test_sabotage.py``: it finds a core that was broken on purpose.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from tests.simulation.agent_promises import (
    Findable,
    GivenUpMeansEnded,
    NamesAreUnique,
    NoOrphans,
    NoStopWithoutCause,
    ParentIsTold,
    SpawnedMeansRan,
    TrueOutcomes,
)
from tests.simulation.history import Deviation, History
from tests.simulation.hub_promises import CutsAreSurvived, LostInTime, TrueHealth
from tests.simulation.human_promises import ApprovalsGoOn, FloodsHideNobody, HumansAreAsked, HumansDecide
from tests.simulation.message_promises import (
    DeliveredOnce,
    NoCirclesOfAsks,
    NoIdleWork,
    OneOutcome,
    TimeIsLimited,
    TrueReplies,
    TrueSender,
)

__all__ = ["CHECKERS", "Checker"]


class Checker(Protocol):
    """One promise."""

    name: str

    def check(self, history: History) -> Iterator[Deviation]:
        """Where it was not kept."""


CHECKERS: tuple[Checker, ...] = (
    OneOutcome(),
    DeliveredOnce(),
    TrueReplies(),
    NoIdleWork(),
    NoCirclesOfAsks(),
    TimeIsLimited(),
    TrueSender(),
    TrueOutcomes(),
    SpawnedMeansRan(),
    NamesAreUnique(),
    ParentIsTold(),
    NoOrphans(),
    NoStopWithoutCause(),
    HumansDecide(),
    HumansAreAsked(),
    FloodsHideNobody(),
    ApprovalsGoOn(),
    CutsAreSurvived(),
    LostInTime(),
    GivenUpMeansEnded(),
    TrueHealth(),
    Findable(),
)
