"""Approvals reach a human, and nobody else decides. One class, one promise (``checkers``)."""

from __future__ import annotations

from collections.abc import Iterator

from loopal_cluster.core.approvals import POLICY
from loopal_cluster.messages import (
    Permission,
    Question,
)
from tests.simulation.bounds import DRIFT, RECOVERY, SLACK, TIMEOUTS
from tests.simulation.history import (
    META,
    Deviation,
    History,
    Op,
    Presence,
)

__all__ = ["ApprovalsGoOn", "FloodsHideNobody", "HumansAreAsked", "HumansDecide"]


class HumansDecide:
    """A permission is granted, and a question answered, only by an operator who did, and who is named."""

    name = "humans decide"

    def check(self, history: History) -> Iterator[Deviation]:
        for op in history.ops:
            if op.verdict != "ok" or not isinstance(op.message, Permission | Question):
                continue
            assert op.ended_at is not None
            made = [
                decided
                for at, _, call, decided in history.decisions
                if at <= op.ended_at and call == call_id(op)
            ]
            if isinstance(op.message, Question):
                fault = None if None in made else "no operator has answered"
            elif op.result.allow:
                fault = None if True in made else "no operator has allowed it"
            elif op.hub in history.base or (META in history.base and op.result.by == "MetaHub"):
                fault = None  # a base peer denies whatever nobody has allowed
            else:
                fault = None if False in made or op.result.by == POLICY else "no operator has denied it"
            if fault is None and not history.weak(op.hub, META) and op.result.by != POLICY:
                fault = self._misnamed(op, history)
            if fault is not None:
                yield Deviation(self.name, op.ended_at, f"{op} got {op.result}: {fault}")

    def _misnamed(self, op: Op, history: History) -> str | None:
        decided = op.result.allow if isinstance(op.message, Permission) else None
        names = {
            name_for(name, op.hub)
            for _, name, call, made in history.decisions
            if call == call_id(op) and made == decided
        }
        return None if op.result.by in names else f"it was {' or '.join(sorted(names))}"


class HumansAreAsked:
    """A permission is shown to every operator of the agent's hub, or, if it has none, of the whole cluster.

    Not one of an agent that asks more than its share, of course.
    """

    name = "humans are asked"

    def check(self, history: History) -> Iterator[Deviation]:
        for op in history.ops:
            if not isinstance(op.message, Permission) or op.life is None or history.weak(op.hub, META):
                continue
            end = self._open_until(op, history)
            if op.life.floods or history.troubled(op.at - RECOVERY, end) or op.life.frozen_time(op.at, end):
                continue
            present = [they for they in history.operators if they.overlap(op.at, end) > 0]
            for they, since in self._who_must_be_asked(op, present, history):
                time = they.overlap(since, end)
                asked = (they.name, op.message.tool_call_id) in history.shown
                if time > SLACK and they.hub not in history.base and not asked:
                    yield Deviation(
                        self.name, end, f"{op}: {they.name} was there for {time:.2f} s and not asked"
                    )

    def _who_must_be_asked(
        self, op: Op, present: list[Presence], history: History
    ) -> Iterator[tuple[Presence, float]]:
        """Each with the time from which on they must be, if they are there."""
        near = [they for they in present if they.hub == op.hub]
        for they in near or present:
            yield they, op.at

    def _open_until(self, op: Op, history: History) -> float:
        """When it was surely still to be decided, and its agent waited."""
        assert op.life is not None
        decided = [at for at, _, call, _ in history.decisions if call == call_id(op)]
        ends = (op.ended_at, op.life.said_at, op.life.ended_at, op.life.stop_wanted_at)
        latest = op.at + TIMEOUTS.permission_timeout / DRIFT
        return min([latest, *decided, *(at for at in ends if at is not None)])


class FloodsHideNobody(HumansAreAsked):
    """However much an agent asks, what another one of its hub asks is shown to the operators there."""

    name = "floods hide nobody"

    def _who_must_be_asked(
        self, op: Op, present: list[Presence], history: History
    ) -> Iterator[tuple[Presence, float]]:
        if any(life.floods and life.hub == op.hub for life in history.lives):
            yield from ((they, op.at) for they in present if they.hub == op.hub)


class ApprovalsGoOn(HumansAreAsked):
    """A permission that no operator of the agent's hub acknowledges is shown to those of the whole cluster, too."""

    name = "approvals go on"

    def _who_must_be_asked(
        self, op: Op, present: list[Presence], history: History
    ) -> Iterator[tuple[Presence, float]]:
        near = [they for they in present if they.hub == op.hub]
        if near and not any(they.acknowledges for they in near):
            late = op.at + TIMEOUTS.acknowledge_timeout * DRIFT
            yield from ((they, late) for they in present if they.hub != op.hub)


def call_id(op: Op) -> str:
    """What an operator's decision on this operation is noted under."""
    return op.message.tool_call_id if isinstance(op.message, Permission) else ""


def name_for(operator: str, hub: str) -> str:
    """An operator, as an agent of this hub is told who has decided."""
    name, _, at = operator.partition("@")
    return name if at in (hub, META) else f"{name} at {at}"
