"""Where a live agent stands: one state of five, each with just what is known in it.

    Spawning ----> Connected ----> Running ----+
        |  |           |              |        |   settled: its one outcome is kept,
        |  +-----> RunningThere -----+|        +-> and there is no record of it any more
        |              |             ||        |
        +--------------+--> Stopping <+--------+

An agent of this hub has a connection from the moment that its program is there; a shadow, which runs on another hub,
never has one. Whoever stops an agent fixes its outcome, whatever it says meanwhile; it may still come up, or be
connected, before it is gone, and stays in ``Stopping`` then.
"""

from __future__ import annotations

from typing import ClassVar

from loopal_cluster.core.events import Peer
from loopal_cluster.outcomes import Cancelled, TimedOut
from loopal_cluster.records import record

__all__ = ["AgentState", "Connected", "Running", "RunningThere", "Spawning", "Stopping", "StopOutcome"]

StopOutcome = Cancelled | TimedOut
"""The outcome of an agent that somebody, or a deadline, has stopped."""


@record
class Spawning:
    """It is being started, here or by another hub that was asked to."""

    peer: ClassVar[None] = None
    ending: ClassVar[None] = None
    is_up: ClassVar[bool] = False


@record
class Connected:
    """Its program is there and is greeted."""

    peer: Peer
    ending: ClassVar[None] = None
    is_up: ClassVar[bool] = False


@record
class Running:
    """It works on this hub."""

    peer: Peer
    ending: ClassVar[None] = None
    is_up: ClassVar[bool] = True


@record
class RunningThere:
    """It works on another hub."""

    peer: ClassVar[None] = None
    ending: ClassVar[None] = None
    is_up: ClassVar[bool] = True


@record
class Stopping:
    """It is to end, and is not gone yet."""

    ending: StopOutcome
    """Its outcome as soon as it is gone."""
    peer: Peer | None
    is_up: bool
    """Whether it was up, so that its end is reported; else its spawn is refused."""


AgentState = Spawning | Connected | Running | RunningThere | Stopping
