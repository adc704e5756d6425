"""How long things take in a simulated cluster, and how long they may take at most.

The durations are short and unequal, so that an hour of waiting costs no events and a mix-up of two of
them shows. Every bound is derived from them; a checker has no numbers of its own.
"""

from __future__ import annotations

from typing import Any

from loopal_cluster.config import Timeouts
from loopal_cluster.core.exchange import HOP_MARGIN
from loopal_cluster.messages import (
    Ask,
    CancelAgent,
    Message,
    Permission,
    Question,
    Route,
    ShutdownAgent,
    SpawnAgent,
    WaitAgent,
)

__all__ = ["DRIFT", "GONE", "LOST", "ORPHAN", "RECOVERY", "SLACK", "TIMEOUTS", "patience"]

TIMEOUTS = Timeouts(
    handshake_timeout=3.0,
    heartbeat_interval=2.0,
    suspect_timeout=5.0,
    lost_timeout=10.0,
    rejoin_timeout=0.75,
    call_timeout=4.0,
    spawn_timeout=8.0,
    start_timeout=3.5,
    topology_timeout=2.5,
    resolve_timeout=1.5,
    route_cache_ttl=6.0,
    wait_timeout=12.0,
    permission_timeout=5.5,
    shown_timeout=1.2,
    stop_grace=1.0,
    result_ttl=40.0,
    report_interval=0.5,
    redial_delay=0.1,
    redial_delay_max=2.0,
    settle_timeout=2.5,
    retry_interval=0.3,
    lease_timeout=9.0,
)

SLACK = 0.75
"""For frames to travel and tasks to be scheduled, on top of any bound."""

GONE = TIMEOUTS.stop_grace + 1.5 * TIMEOUTS.stop_grace + SLACK
"""From the decision to stop an agent until its process is gone: asked, terminated, killed."""

LOST = TIMEOUTS.rejoin_timeout + 1.0
"""From the end of a hub's connection until all who wait on its agents know (issue: 1 s after detection)."""

SILENCE = TIMEOUTS.heartbeat_interval + TIMEOUTS.call_timeout
"""From the beginning of a partition until a hub has noticed that its MetaHub does not answer."""

ORPHAN = max(TIMEOUTS.lost_timeout + TIMEOUTS.rejoin_timeout, SILENCE + TIMEOUTS.lease_timeout) + GONE + SLACK
"""From the end of an agent's owner until the agent is gone, whatever is cut meanwhile."""


DRIFT = 1.03
"""Clocks differ by at most 1 %, each from the true time and so 2 % from each other."""

RECOVERY = TIMEOUTS.redial_delay_max + TIMEOUTS.handshake_timeout + LOST + SLACK
"""After this time without trouble a cluster is whole again."""


def patience(message: Message[Any]) -> float:
    """Seconds after which a caller on a hub, or on the MetaHub, must have its outcome."""
    times = TIMEOUTS
    match message:
        case Route():
            # It may have to wait until the agent is up.
            return times.start_timeout + times.call_timeout + 2 * HOP_MARGIN
        case Ask(envelope):
            return (envelope.timeout_ms or 0) / 1000 + 2 * HOP_MARGIN
        case SpawnAgent():
            return max(times.start_timeout + GONE, times.spawn_timeout)
        case WaitAgent(timeout_ms=timeout):
            return (times.wait_timeout if timeout is None else timeout / 1000) + 2 * HOP_MARGIN
        case CancelAgent() | ShutdownAgent():
            return times.spawn_timeout + 2 * HOP_MARGIN
        case Permission() | Question():
            return times.permission_timeout
        case _:
            return times.call_timeout + 2 * HOP_MARGIN
