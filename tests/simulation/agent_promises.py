"""What becomes of agents is told truly, once, and to whom it concerns; nobody is left behind. One class, one promise (``checkers``)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from loopal_cluster.address import Address
from loopal_cluster.completions import unwrap_result
from loopal_cluster.errors import ErrorCode
from loopal_cluster.messages import (
    Addressed,
    CancelAgent,
    ShutdownAgent,
    SpawnAgent,
    SystemSource,
    WaitAgent,
)
from loopal_cluster.outcomes import Cancelled, Failed, Lost, Outcome, TimedOut
from loopal_cluster.wire.contents import user_content
from tests.simulation import base_promises
from tests.simulation.bounds import DRIFT, GONE, ORPHAN, RECOVERY, SLACK, TIMEOUTS
from tests.simulation.history import (
    META,
    AgentLife,
    Deviation,
    History,
    Op,
    bare,
    is_target,
    target_of,
)

__all__ = [
    "Findable",
    "GivenUpMeansEnded",
    "NamesAreUnique",
    "NoOrphans",
    "NoStopWithoutCause",
    "ParentIsTold",
    "SpawnedMeansRan",
    "TrueOutcomes",
]


class TrueOutcomes:
    """What is told of an agent's end is how it ended, of the right agent, and always the same; or ``Lost``."""

    name = "true outcomes"

    def check(self, history: History) -> Iterator[Deviation]:
        lives = history.lives_by_id()
        told: dict[str, Outcome] = {}
        for op in history.ops:
            if not isinstance(op.message, WaitAgent | CancelAgent) or op.verdict != "ok":
                continue
            waited = op.result
            if waited.outcome is None:
                continue
            assert op.ended_at is not None
            life = lives.get(waited.agent_id)
            if (
                fault := self._fault(op, waited.agent, waited.agent_id, waited.outcome, life, history)
            ) is not None:
                yield Deviation(
                    self.name, op.ended_at, f"{op} got {waited.outcome} of {waited.agent}: {fault}"
                )
            if not isinstance(waited.outcome, Lost):
                first = told.setdefault(waited.agent_id, waited.outcome)
                if first != waited.outcome and not base_promises.may_differ(first, waited, history):
                    yield Deviation(self.name, op.ended_at, f"{op} got {waited.outcome}, others got {first}")

    def _fault(
        self, op: Op, agent: str, agent_id: str, outcome: Outcome, life: AgentLife | None, history: History
    ) -> str | None:
        assert isinstance(op.message, WaitAgent | CancelAgent)
        assert op.ended_at is not None
        message = op.message
        if message.agent_id not in (None, agent_id):
            return f"it asked for {message.agent_id}"
        name = Address.parse(agent)
        if name.agent != message.agent.agent or (life is not None and life.name != name.agent):
            return f"it asked for {message.agent}"
        if life is not None and message.agent.hub not in (None, life.hub):
            return f"it asked for {message.agent}, and this one ran on {life.hub}"
        far = life.hub if life is not None else name.hub or op.hub
        if history.weak(op.hub, far):
            return base_promises.outcome_fault(op, name.agent, far, outcome, life, history)
        if isinstance(outcome, Lost):
            since = 0.0 if life is None else life.created_at
            hubs = {op.hub, META} | ({life.hub} if life is not None else {name.hub or op.hub})
            return None if history.troubled(since - 30, op.ended_at, *hubs) else "nothing was lost"
        # A bare name means first what the asked hub itself has spawned.
        exact = message.agent_id is not None or message.agent.hub is None
        if not exact and life is not None and self._successor(life, op, history):
            return "another has the name since"
        if life is None:
            return None if isinstance(outcome, Cancelled | Failed | TimedOut) else "no such agent ever ran"
        if outcome in [bare(truth) for truth in life.truths()] or bare(outcome) in life.truths():
            return None
        if isinstance(outcome, Cancelled) and life.stop_wanted_at is not None:
            return None
        if isinstance(outcome, TimedOut) and life.began_at is None:
            return None  # whose limit it was would have been in its prompt
        if isinstance(outcome, TimedOut) and (limit := life.time_limit(history)) is not None:
            over = op.ended_at >= history.spawns[life.spawned_by or 0].at + limit / DRIFT
            return None if over else "its time was not over"
        if isinstance(outcome, Cancelled) and history.troubled(life.ended_at or 0.0, op.ended_at, life.hub):
            return None  # a frozen hub was told to stop it before it could see that it had ended
        if isinstance(outcome, Failed) and life.said is None and life.ended_at is not None:
            return None
        return f"it said {life.said} and ended at {life.ended_at}"

    def _successor(self, life: AgentLife, op: Op, history: History) -> bool:
        """Whether the address meant somebody else when it was asked for, and the asked hub could know."""
        if history.troubled((life.ended_at or 0.0) - RECOVERY, op.at, op.hub, life.hub, META):
            return False  # the report of the first's end may still be on its way to the hub that spawned it
        return life.ended_at is not None and any(
            other.address == life.address
            and other.began_at is not None
            and life.ended_at < other.began_at < op.at - SLACK
            and (other.ended_at or history.ended_at) > op.at + SLACK
            for other in history.lives
        )


class SpawnedMeansRan:
    """An acknowledged spawn started exactly one agent, the one it names; any other left none running."""

    name = "spawned means ran"

    def check(self, history: History) -> Iterator[Deviation]:
        by_op: dict[int, list[AgentLife]] = defaultdict(list)
        for life in history.lives:
            if life.spawned_by is not None:
                by_op[life.spawned_by].append(life)
        for op in history.ops:
            if isinstance(op.message, SpawnAgent):
                yield from self._check(op, op.message, by_op.get(op.number, []), history)

    def _check(
        self, op: Op, message: SpawnAgent, lives: list[AgentLife], history: History
    ) -> Iterator[Deviation]:
        at = op.ended_at or history.ended_at
        hub = message.spec.target_hub or op.hub
        if len(lives) > base_promises.most_starts(op, hub, history):
            yield Deviation(self.name, at, f"{op} started {len(lives)} agents: {', '.join(map(str, lives))}")
        elif op.verdict == "ok":
            wanted = (op.result.agent_id, message.spec.name, hub)
            # A base hub has an identity of its own for each.
            ran = {(wanted[0] if life.base else life.agent_id, life.name, life.hub) for life in lives}
            if ran != {wanted} and not base_promises.may_be_confused(message.spec.name, history):
                yield Deviation(self.name, at, f"{op} was told {wanted}, and there ran {ran}")
        elif op.answers and lives and not history.base & {hub, META}:
            life = lives[0]
            bound = (GONE if life.hub == op.hub else ORPHAN) + history.frozen_time(life.hub, at, at + ORPHAN)
            if life.detached:  # no lease ends it: its hub has to hear that it was given up
                at = max([at, *(t.ends for t in history.troubles if t.process in (life.hub, op.hub, META))])
            if (life.ended_at or history.ended_at) > max(at, life.created_at) + bound + SLACK:
                yield Deviation(
                    self.name, at, f"{op} was told {op.code}, but {life} ran until {life.ended_at}"
                )


class NamesAreUnique:
    """A spawn is acknowledged only if no other agent of its name is surely there, or one that ends as it begins."""

    name = "names are unique"

    def check(self, history: History) -> Iterator[Deviation]:
        for op in history.ops:
            if not isinstance(op.message, SpawnAgent) or op.verdict != "ok" or history.base & {op.hub, META}:
                continue
            assert op.ended_at is not None
            name, hub = op.message.spec.name, op.message.spec.target_hub or op.hub
            for life in history.lives:
                if (life.name, life.hub) != (name, hub) or life.spawned_by == op.number:
                    continue
                if life.began_at is None or history.troubled(life.began_at, op.ended_at, hub):
                    continue
                ends = (life.said_at, life.ended_at, life.stop_wanted_at, history.ended_at)
                until = min(at for at in ends if at is not None)
                if (
                    life.began_at + SLACK < op.at
                    and until > op.ended_at
                    and self._has_the_name(life, op, history)
                ):
                    yield Deviation(self.name, op.ended_at, f"{op} was acknowledged, and {life} has the name")

    def _has_the_name(self, life: AgentLife, op: Op, history: History) -> bool:
        """A base hub leaves its second agent of a name to itself, and takes another's word that one has ended."""
        return not life.base or base_promises.has_the_name(life, op, history)


class ParentIsTold:
    """A parent that is there is told of each child's end, once: by its wait, or by a message."""

    name = "parent is told"

    def check(self, history: History) -> Iterator[Deviation]:
        children: dict[tuple[int, str], list[AgentLife]] = defaultdict(list)
        for life in history.lives:
            if life.parent is not None:
                children[(id(life.parent), life.name)].append(life)
        for same_name in children.values():
            parent, name = same_name[0].parent, same_name[0].name
            assert parent is not None
            yield from self._check(parent, name, same_name, history)

    def _check(
        self, parent: AgentLife, name: str, children: list[AgentLife], history: History
    ) -> Iterator[Deviation]:
        texts = [text for told, text in completions(parent) if told == name]
        lives = history.lives_by_id()
        by_wait = {
            lives[op.result.agent_id].agent_id if op.result.agent_id in lives else op.result.agent_id: op
            for op in history.ops
            if op.life is parent
            and isinstance(op.message, WaitAgent | CancelAgent)
            and op.verdict == "ok"
            and op.result.outcome is not None
        }
        if len(texts) > len(children) and not (parent.base or base_promises.may_be_confused(name, history)):
            yield Deviation(
                self.name,
                history.ended_at,
                f"{parent} got {len(texts)} completions of {len(children)} '{name}'",
            )
        for child in children:
            by_message = sum(child.agent_id in text for text in texts)
            wait = by_wait.get(child.agent_id)
            waited = wait is not None and wait.at + 0.1 < (child.said_at or child.ended_at or 0.0)
            if by_message + waited > 1 and not history.weak(parent.hub, child.hub):
                yield Deviation(self.name, history.ended_at, f"{parent} was told twice of the end of {child}")
        missing = [child for child in children if self._must_be_told(parent, child, history)]
        if len(missing) > len(texts) + sum(child.agent_id in by_wait for child in missing):
            names = ", ".join(map(str, missing))
            yield Deviation(
                self.name, history.ended_at, f"{parent} was not told of the end of one of: {names}"
            )

    def _must_be_told(self, parent: AgentLife, child: AgentLife, history: History) -> bool:
        op = history.spawns[child.spawned_by or 0]
        assert isinstance(op.message, SpawnAgent)
        if op.verdict != "ok" or child.ended_at is None or op.message.spec.notify_parent is False:
            return False
        until = child.ended_at + ORPHAN + TIMEOUTS.call_timeout
        if history.weak(parent.hub, child.hub):
            until = child.ended_at + TIMEOUTS.call_timeout
            if not base_promises.is_told(parent, child, until, history):
                return False
        parent_until = min(
            at
            for at in (parent.said_at, parent.ended_at, parent.stop_wanted_at, history.ended_at)
            if at is not None
        )
        return (
            until < parent_until
            and not parent.deaf
            and not any(since < until and end > child.ended_at for since, end in parent.frozen)
            and history.frozen_time(parent.hub, child.ended_at, until) == 0
        )


class NoOrphans:
    """No agent runs on when its parent, or its parent's hub, is gone; cascades included."""

    name = "no orphans"

    def check(self, history: History) -> Iterator[Deviation]:
        for life in history.lives:
            parent = life.parent
            if parent is None or life.detached or parent.ended_at is None or life.ended_at is None:
                continue
            ended_at: float | None = parent.ended_at
            if history.weak(life.hub, parent.hub):
                ended_at = base_promises.ownerless_since(life, parent, history)
            if ended_at is None:
                continue
            since = max(ended_at, life.created_at)
            local = life.hub == parent.hub and life.hub_run == parent.hub_run
            bound = (GONE + SLACK if local else ORPHAN) * DRIFT
            bound += history.frozen_time(life.hub, since, life.ended_at)
            if life.ended_at > since + bound:
                ran = life.ended_at - parent.ended_at
                yield Deviation(
                    self.name, since + bound, f"{life} ran {ran:.1f} s after the end of its parent {parent}"
                )


class NoStopWithoutCause:
    """An agent is stopped only if somebody asked for it, or its owner is gone."""

    name = "no stop without cause"

    def check(self, history: History) -> Iterator[Deviation]:
        stops = [op for op in history.ops if isinstance(op.message, CancelAgent | ShutdownAgent)]
        for life in history.lives:
            if life.stop_wanted_at is None:
                continue
            # A base hub stops whoever has the name.
            meant = (
                [other for other in history.lives if other.address == life.address] if life.base else [life]
            )
            if base_promises.may_be_stopped(life, life.stop_wanted_at, history):
                continue
            if not any(self._cause(other, life.stop_wanted_at, stops, history) for other in meant):
                yield Deviation(self.name, life.stop_wanted_at, f"{life} was stopped, and nobody wanted it")

    def _cause(self, life: AgentLife, at: float, stops: list[Op], history: History) -> bool:
        if life.began_at is None or life.spawned_by is None or (life.ended_at or at + 1) <= at:
            return True
        op, parent = history.spawns[life.spawned_by], life.parent
        if op.verdict != "ok" or self._is_over(life, at, history):
            return True
        family = {life.name}
        ancestor = parent
        while ancestor is not None:
            family.add(ancestor.name)
            ancestor = ancestor.parent
        if any(
            stop.at <= at and isinstance(stop.message, Addressed) and stop.message.agent.agent in family
            for stop in stops
        ):
            return True
        while parent is not None:  # a grandchild may learn of it before the child does
            ends = (parent.ended_at, parent.said_at, parent.stop_wanted_at)
            if any(end is not None and end <= at for end in ends) or self._is_over(parent, at, history):
                return True
            parent = parent.parent
        return op.hub != life.hub and history.troubled(0.0, at, op.hub, life.hub, META)

    def _is_over(self, life: AgentLife, at: float, history: History) -> bool:
        """Whether it has had all its time; its owner's hub may know that before itself."""
        limit = life.time_limit(history)
        return limit is not None and at >= history.spawns[life.spawned_by or 0].at + limit / DRIFT


class GivenUpMeansEnded:
    """An agent that somebody was told is lost does not run on when its hub is back."""

    name = "given up means ended"

    def check(self, history: History) -> Iterator[Deviation]:
        lives = history.lives_by_id()
        for op in history.ops:
            if not isinstance(op.message, WaitAgent | CancelAgent) or op.verdict != "ok":
                continue
            life = lives.get(op.result.agent_id)
            if life is None or life.ended_at is None or not isinstance(op.result.outcome, Lost):
                continue
            if history.weak(op.hub, life.hub):
                continue  # a base hub goes on with it, and through a base MetaHub nobody can stop it
            if life.detached:
                continue  # it was meant to go on without whoever waits
            assert op.ended_at is not None
            healed = [t.ends for t in history.troubles if t.process in (life.hub, op.hub, META)]
            bound = max([op.ended_at, *healed]) + ORPHAN * DRIFT
            if life.ended_at > bound:
                yield Deviation(
                    self.name,
                    bound,
                    f"{op} was told that {life} is lost, but it ran until {life.ended_at:.2f}",
                )


class Findable:
    """An agent that is up is found, by its address or its bare name, from anywhere."""

    name = "findable"
    MISSING = (ErrorCode.AGENT_NOT_FOUND, ErrorCode.HUB_NOT_CONNECTED, ErrorCode.NOT_IN_CLUSTER)

    def check(self, history: History) -> Iterator[Deviation]:
        for op in history.ops:
            target = target_of(op)
            if target is None or op.code not in self.MISSING or history.base & {op.hub, META}:
                continue
            if isinstance(op.message, WaitAgent) and op.message.agent_id is not None:
                yield from self._check_run(op, op.message.agent_id, history)
                continue
            up = [life for life in history.lives if is_target(life, op) and self._surely_up(life, op)]
            if target.hub is None and self._namesake_on_the_way(up, target.agent, op, history):
                continue
            for life in up:
                if life.base and not base_promises.knows_the_name(life, history):
                    continue
                if not history.troubled(op.at - RECOVERY, op.at + op.patience, op.hub, life.hub, META):
                    yield Deviation(
                        self.name, op.at, f"{op} to {target} got {op.answers[0][1]}, but {life} is up"
                    )

    def _surely_up(self, life: AgentLife, op: Op) -> bool:
        assert op.ended_at is not None
        ends = [at for at in (life.said_at, life.ended_at, life.stop_wanted_at) if at is not None]
        return (
            life.began_at is not None
            and life.began_at + 1.0 < op.at
            and min(ends, default=op.ended_at + 1) > op.ended_at
        )

    def _namesake_on_the_way(self, up: list[AgentLife], name: str, op: Op, history: History) -> bool:
        """Another agent of that name may be starting or ending somewhere: then the answer may be about that."""
        mine = {life.spawned_by for life in up}
        return any(
            number not in mine and isinstance(spawn.message, SpawnAgent) and spawn.message.spec.name == name
            for number, spawn in history.spawns.items()
            if spawn.at <= (op.ended_at or op.at)
        )

    def _check_run(self, op: Op, agent_id: str, history: History) -> Iterator[Deviation]:
        """A run that has ended is known by its identity, for a while, to the hub that asked for it."""
        for life in history.lives:
            spawn = history.spawns.get(life.spawned_by or 0)
            if life.agent_id != agent_id or spawn is None or spawn.hub != op.hub or op.hub == META:
                continue
            if life.ended_at is not None and life.ended_at < op.at - 0.6 * TIMEOUTS.result_ttl:
                continue
            if not history.troubled(spawn.at, op.at + op.patience, op.hub):
                yield Deviation(self.name, op.at, f"{op} for {life} got {op.answers[0][1]}")


def completions(parent: AgentLife) -> list[tuple[str, str]]:
    """The names and texts of the completions an agent has got as messages."""
    found = []
    for receipt in parent.received:
        if receipt.source == SystemSource("agent-completed") and receipt.accepted:
            told = unwrap_result(user_content(receipt.envelope.content).text)
            if told is not None:
                found.append(told)
    return found
