"""What stays true when a base peer is on the way: "Weaker with base peers" in ``docs/protocol.md``.

``History.weak`` says whether one is. The checkers then ask here what they may still expect; everything
else they expect as always. An agent, or an operation, of a base hub itself is promised nothing that Loopal
does not do.
"""

from __future__ import annotations

import math

from loopal_cluster.address import Address
from loopal_cluster.errors import ErrorCode
from loopal_cluster.messages import AgentSource, CancelAgent, Completed, ShutdownAgent, Waited
from loopal_cluster.outcomes import Cancelled, Done, Failed, Lost, Outcome, TimedOut
from tests.simulation.bounds import DRIFT, ORPHAN, RECOVERY
from tests.simulation.history import (
    INTERRUPTED,
    AgentLife,
    History,
    Op,
    Receipt,
    bare,
    is_target,
    target_of,
)
from tests.simulation.script import META

__all__ = [
    "deliveries",
    "has_the_name",
    "is_told",
    "knows_the_name",
    "may_be_confused",
    "may_be_stopped",
    "may_differ",
    "most_starts",
    "outcome_fault",
    "ownerless_since",
    "sender_is_known",
    "was_cancelled",
]


def deliveries(op: Op, by: list[AgentLife], history: History) -> tuple[int, int] | None:
    """How often, at least and at most, a message is processed; None if no base peer has a part in it."""
    target = target_of(op)
    assert target is not None
    hubs = {target.hub or META, *(life.hub for life in (by or history.lives) if is_target(life, op))}
    if not any(history.weak(op.hub, hub) for hub in hubs):
        return None
    if history.base & {op.hub, META}:
        return 0, 1  # yes and no may both be wrong, but nothing is repeated
    may_refuse = any(life.deaf and is_target(life, op) for life in history.lives)
    least = 1 if op.verdict == "ok" and not may_refuse else 0
    most = 0 if op.verdict == "refused" and op.code is not ErrorCode.DELIVERY_FAILED else 1
    return least, most + _repetitions(op, history)


def most_starts(op: Op, hub: str, history: History) -> int:
    """How many agents a spawn on this hub starts: one, and one for each time that it may be repeated."""
    if hub in history.base and not history.base & {op.hub, META}:
        return 1 + _repetitions(op, history)
    return 1


def _repetitions(op: Op, history: History) -> int:
    """How often a connection on the sender's side may have been lost while its hub was asking."""
    until = op.at + op.patience  # also for a caller that has withdrawn
    return sum(
        trouble.process in (op.hub, META) and trouble.begins <= until and trouble.ends >= op.at
        for trouble in history.troubles
    )


def sender_is_known(op: Op, life: AgentLife, receipt: Receipt, history: History) -> bool | None:
    """Whether the sender is as true as it can be; None if it must be quite true.

    A base hub lets everybody say who they are, and our MetaHub sees to it that the hub is right. A base
    MetaHub brings a message by bare name even to the hub that it is from.
    """
    source = receipt.source
    if op.hub in history.base:
        if life.hub == op.hub or META in history.base or not isinstance(source, AgentSource):
            return True
        return source.name.startswith(f"{op.hub}/")
    if META in history.base and op.life is not None and op.life.hub == life.hub:
        return source in (AgentSource(op.life.name), AgentSource(op.life.address))
    return None


def outcome_fault(
    op: Op, name: str, hub: str, outcome: Outcome, life: AgentLife | None, history: History
) -> str | None:
    """Why an outcome cannot be one of an agent of that name there (behind a base MetaHub: anywhere)."""
    if isinstance(outcome, Lost):
        return None if _may_be_lost(op, hub, life, history) else "nothing was lost"
    if life is None and isinstance(outcome, Cancelled | Failed | TimedOut):
        return None  # it never came up
    namesakes = [
        other for other in history.lives if other.name == name and (other.hub == hub or META in history.base)
    ]
    said_so = [other for other in namesakes if bare(outcome) in map(bare, other.truths())]
    if said_so and isinstance(outcome, Done) and all(was_cancelled(other, history) for other in said_so):
        return "it was asked to stop"
    if said_so:
        return None
    ours = [other for other in namesakes if not other.base and other.ended_at is not None]
    if isinstance(outcome, Cancelled) and any(
        (other.stop_wanted_at is not None and (META not in history.base or not other.base))
        or _crossed_a_stop(other, history)
        for other in namesakes
    ):
        return None
    if isinstance(outcome, TimedOut) and any(other.time_limit(history) is not None for other in namesakes):
        return None
    if isinstance(outcome, Failed) and any(other.said is None for other in ours):
        return None
    return f"those of its name said {[str(other.said) for other in namesakes]}"


def _crossed_a_stop(life: AgentLife, history: History) -> bool:
    """Whether a base hub's report of an end may have met a stop of ours on its way, which then has the last word."""
    return (
        life.base
        and META not in history.base
        and life.said_at is not None
        and any(
            isinstance(stop.message, CancelAgent)
            and stop.message.agent.agent == life.name
            and stop.at <= life.said_at <= (stop.ended_at or math.inf)
            for stop in history.ops
        )
    )


def was_cancelled(life: AgentLife, history: History) -> bool:
    """Whether an agent of a base hub ended because somebody of ours had it stopped, through a MetaHub of ours."""
    if not life.base or META in history.base or life.said != Completed("aborted", INTERRUPTED):
        return False
    return not any(
        op.hub == life.hub and isinstance(op.message, ShutdownAgent) and op.message.agent.agent == life.name
        for op in history.ops
    )


def may_differ(first: Outcome, waited: Waited, history: History) -> bool:
    """Whether two hubs may tell the end of one agent differently: in words, or of a namesake."""
    assert waited.agent is not None
    if META not in history.base or waited.outcome is None:
        return False
    in_words = bare(first) == bare(waited.outcome)
    return in_words or may_be_confused(Address.parse(waited.agent).agent, history)


def may_be_confused(name: str, history: History) -> bool:
    """Whether the end of one agent may be told of another, because a base MetaHub does not say from where."""
    return META in history.base and sum(life.name == name for life in history.lives) > 1


def _may_be_lost(op: Op, hub: str, life: AgentLife | None, history: History) -> bool:
    """Something broke, or somebody wanted it to stop, and nobody could tell whether it has."""
    assert op.ended_at is not None
    if life is None or history.troubled(life.created_at - RECOVERY, op.ended_at, op.hub, hub, META):
        return True
    spawn = history.spawns.get(life.spawned_by or 0)
    if spawn is not None and spawn.verdict != "ok":
        return True  # whoever wanted it does not any more
    family = [life.name]
    if life.time_limit(history) is not None:
        return True  # its owner's hub stops it when its time is over
    ancestor = life.parent
    while ancestor is not None:
        family.append(ancestor.name)
        ends = (ancestor.ended_at, ancestor.said_at, ancestor.stop_wanted_at)
        if any(at is not None and at <= op.ended_at for at in ends):
            return True
        ancestor = ancestor.parent
    return any(
        isinstance(stop.message, CancelAgent | ShutdownAgent)
        and stop.at <= op.ended_at
        and stop.message.agent.agent in family
        for stop in history.ops
    )


def is_told(parent: AgentLife, child: AgentLife, until: float, history: History) -> bool:
    """Whether a parent is told of an end: there was no trouble, and names are enough to know who is meant."""
    if META in history.base or (parent.base and child.base):
        return False
    if history.troubled(child.created_at - RECOVERY, until, parent.hub, child.hub, META):
        return False
    return all(knows_the_name(life, history) for life in (parent, child) if life.base)


def has_the_name(life: AgentLife, op: Op, history: History) -> bool:
    """Whether a base hub surely had this agent by its name when another was spawned there."""
    for other in history.lives:
        if other is life or other.name != life.name or other.spawned_by == op.number:
            continue
        spawn = history.spawns.get(other.spawned_by or 0)
        if other.hub == life.hub and other.running_at(life.began_at or 0.0):
            return False
        if other.hub != life.hub and (spawn is None or spawn.hub == life.hub):
            return False  # it may have been replaced
    return True


def knows_the_name(life: AgentLife, history: History) -> bool:
    """Whether a hub knows this agent by its name: no other there has it, nor has one been spawned from there."""
    for other in history.lives:
        spawn = history.spawns.get(other.spawned_by or 0)
        asked_by = other.hub if spawn is None else spawn.hub
        if other is not life and other.name == life.name and life.hub in (other.hub, asked_by):
            return False
    return True


def may_be_stopped(life: AgentLife, at: float, history: History) -> bool:
    """Whether the end of another may have been taken for that of an owner, by name, behind a base MetaHub."""
    names, owner = set(), life.parent
    while owner is not None:
        names.add(owner.name)
        owner = owner.parent
    ends = (
        end
        for other in history.lives
        if other.name in names
        for end in (other.said_at, other.ended_at)
        if end is not None
    )
    return META in history.base and any(end <= at for end in ends)


def ownerless_since(life: AgentLife, parent: AgentLife, history: History) -> float | None:
    """Since when an agent must be known to have no owner; None if nobody promises to know."""
    assert parent.ended_at is not None
    if META in history.base or (life.base and parent.base):
        return None
    if parent.base:  # of its parent's end its hub is not told, but of the loss of its parent's hub
        losses = (
            trouble.begins
            for trouble in history.troubles
            if trouble.process == parent.hub and trouble.kind in ("crash", "refused")
        )
        lost_at = next((at for at in losses if at >= parent.created_at), None)
        if lost_at is None or history.troubled(lost_at - RECOVERY, lost_at + RECOVERY, life.hub):
            return None  # it may have been lost itself when the others were told
        return lost_at
    if life.said is not None or life.stop_wanted_at is not None:
        return None  # a base hub takes its word, or asks it to end; whether it does is its own affair
    until = parent.ended_at + ORPHAN * DRIFT
    troubled = history.troubled(life.created_at - RECOVERY, until, life.hub, parent.hub, META)
    return parent.ended_at if knows_the_name(life, history) and not troubled else None
