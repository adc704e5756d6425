"""Hubs come back, or are lost in time, and are said to be what they are. One class, one promise (``checkers``)."""

from __future__ import annotations

from collections.abc import Iterator

from loopal_cluster.errors import ErrorCode
from loopal_cluster.messages import (
    Ask,
    CancelAgent,
    ListHubs,
    Route,
    SpawnAgent,
    WaitAgent,
)
from tests.simulation.bounds import DRIFT, GONE, LOST, RECOVERY, SLACK, TIMEOUTS
from tests.simulation.history import (
    META,
    Deviation,
    History,
    Op,
    Trouble,
    is_target,
    target_of,
)

__all__ = ["CutsAreSurvived", "LostInTime", "TrueHealth"]


class CutsAreSurvived:
    """A connection to the MetaHub that breaks and comes back fails no operation: it is repeated."""

    name = "cuts are survived"
    HARMLESS = ("cut", "half close")

    def check(self, history: History) -> Iterator[Deviation]:
        for op in history.ops:
            if op.code is not ErrorCode.CONNECTION_LOST or op.caller_gone_at is not None:
                continue
            if META in history.base:
                continue
            if not isinstance(op.message, Route | Ask | SpawnAgent | WaitAgent | CancelAgent):
                continue
            assert op.ended_at is not None
            near = [t for t in history.troubles if t.begins <= op.ended_at and t.ends >= op.at - RECOVERY]
            near_base = any(t.process in history.base for t in near)
            harmless = not near_base and all(
                t.kind in self.HARMLESS or (t.kind == "crash" and t.process == META) for t in near
            )
            doomed = self._target_ended(op, history) or self._means_nobody(op, history)
            if near and harmless and op.hub != META and not doomed:
                kinds = ", ".join(f"{trouble.kind} of {trouble.process}" for trouble in near)
                yield Deviation(self.name, op.ended_at, f"{op} failed because of {kinds}: {op.answers[0][1]}")

    def _means_nobody(self, op: Op, history: History) -> bool:
        """A bare name that nobody has, or several: once asked again, nobody can say whose it was at first."""
        target = target_of(op)
        if target is None or target.hub is not None:
            return False
        return sum(is_target(life, op) and life.running_at(op.at) for life in history.lives) != 1

    def _target_ended(self, op: Op, history: History) -> bool:
        return any(
            is_target(life, op) and life.ended_at is not None and op.at < life.ended_at + GONE
            for life in history.lives
        )


class LostInTime:
    """Whoever waits on an agent of a hub that is gone is told, soon."""

    name = "lost in time"

    def check(self, history: History) -> Iterator[Deviation]:
        for trouble in history.troubles:
            detection = {"crash": 0.1, "freeze": TIMEOUTS.lost_timeout}.get(trouble.kind)
            if trouble.kind == "crash" and unseen(trouble, history):
                detection = TIMEOUTS.lost_timeout
            if detection is None or trouble.process == META or trouble.ends < trouble.begins + detection:
                continue
            if META in history.base:
                continue  # it tells nobody
            known_at = trouble.begins + detection
            for op in history.ops:
                if not isinstance(op.message, WaitAgent) or not self._waits_on(
                    op, trouble.process, trouble.begins, history
                ):
                    continue
                if history.troubled(op.at - RECOVERY, known_at + LOST + SLACK, op.hub, META):
                    continue
                bound = known_at * 1.0 + LOST + SLACK + detection * (DRIFT - 1)
                if (op.ended_at or history.ended_at) > bound:
                    yield Deviation(
                        self.name,
                        bound,
                        f"{op} was still open, {trouble.process} gone since {trouble.begins:.2f}",
                    )

    def _waits_on(self, op: Op, hub: str, at: float, history: History) -> bool:
        if op.hub in (hub, *history.base) or op.at > at - 0.5 or (op.ended_at or at + 1) <= at:
            return False
        assert isinstance(op.message, WaitAgent)
        targets = [
            life for life in history.lives if life.name == op.message.agent.agent and life.running_at(op.at)
        ]
        return len(targets) == 1 and targets[0].hub == hub and is_target(targets[0], op)


class TrueHealth:
    """The MetaHub lists a hub as connected while it is, as suspect or gone soon after it is not."""

    name = "true health"

    def check(self, history: History) -> Iterator[Deviation]:
        for op in history.ops:
            if isinstance(op.message, ListHubs) and op.verdict == "ok" and not history.base & {op.hub, META}:
                status = {info.name: info.status for info in op.result.hubs}
                for hub in sorted({life.hub for life in history.lives} | {op.hub} - {META}):
                    if (fault := self._fault(op, hub, status.get(hub), history)) is not None:
                        yield Deviation(self.name, op.at, f"{op}: {hub} is {status.get(hub)}: {fault}")

    def _fault(self, op: Op, hub: str, status: str | None, history: History) -> str | None:
        assert op.ended_at is not None
        if not history.troubled(op.at - 3 * RECOVERY, op.ended_at, hub, op.hub, META):
            return None if status == "Connected" or op.at < RECOVERY else "nothing ever happened to it"
        if history.troubled(op.at - RECOVERY, op.ended_at, op.hub, META) and op.hub != META:
            return None
        for trouble in history.troubles:
            if (
                trouble.process != hub
                or trouble.ends < op.ended_at
                or history.troubled(trouble.begins - 1, op.ended_at, META)
                or unseen(trouble, history)
            ):
                continue
            if trouble.kind == "crash" and op.at > trouble.begins + 0.3 + LOST and status == "Connected":
                return f"it was killed at {trouble.begins:.2f}"
            if trouble.kind == "freeze":
                silent = op.at - trouble.begins - SLACK
                if silent > TIMEOUTS.suspect_timeout * DRIFT and status == "Connected":
                    return f"it is frozen since {trouble.begins:.2f}"
                if silent > TIMEOUTS.lost_timeout * DRIFT and status == "Degraded":
                    return f"it is frozen since {trouble.begins:.2f}"
        return None


def unseen(trouble: Trouble, history: History) -> bool:
    """Whether the network may still have brought old words, or not brought the end of the connections."""
    return any(
        other.process == trouble.process
        and other.kind in ("partition", "slow")
        and other.ends >= trouble.begins
        for other in history.troubles
    )
