"""What must be true of every run, whatever went wrong in it. One class, one promise.

Each reads only the ``History``: what actors asked, were told and did. What can only be seen while it
happens (a core that raises, a missing event, a table that is not empty) the world notes itself.
Each is proved by ``tests/simulation/test_sabotage.py``: it finds a core that was broken on purpose.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Protocol

from loopal_cluster.address import Address
from loopal_cluster.completions import unwrap_result
from loopal_cluster.core.approvals import POLICY
from loopal_cluster.errors import ErrorCode
from loopal_cluster.frames import Failure
from loopal_cluster.messages import (
    Addressed,
    AgentSource,
    Ask,
    CancelAgent,
    HumanSource,
    ListHubs,
    Permission,
    Question,
    Route,
    ShutdownAgent,
    SpawnAgent,
    SystemSource,
    WaitAgent,
)
from loopal_cluster.outcomes import Cancelled, Done, Failed, Lost, Outcome, TimedOut
from loopal_cluster.wire.contents import user_content
from tests.simulation import base_promises
from tests.simulation.bounds import DRIFT, GONE, LOST, ORPHAN, RECOVERY, SLACK, TIMEOUTS
from tests.simulation.history import (
    AgentLife,
    Deviation,
    History,
    Op,
    Presence,
    Receipt,
    Trouble,
    bare,
    is_target,
    reply_of,
    target_of,
)

__all__ = ["CHECKERS", "Checker"]

META = "meta"
CIRCLE_TIME = 1.0
"""Seconds within which an ask that closes a circle is refused, through two hubs and a MetaHub."""


class Checker(Protocol):
    """One promise."""

    name: str

    def check(self, history: History) -> Iterator[Deviation]:
        """Where it was not kept."""


class OneOutcome:
    """Every operation of a living caller has exactly one outcome, and not after its time."""

    name = "one outcome"

    def check(self, history: History) -> Iterator[Deviation]:
        for op in history.ops:
            if len(op.answers) > 1:
                yield Deviation(
                    self.name, op.answers[1][0], f"{op} has {len(op.answers)} outcomes: {op.answers}"
                )
            elif op.hub in history.base:
                continue  # it has no deadlines
            elif op.ended_at is None:
                yield Deviation(self.name, history.ended_at, f"{op} has no outcome: {op.message}")
            elif self._waited_until(op) > self._deadline(op, history):
                late = self._waited_until(op) - op.at
                yield Deviation(
                    self.name, op.ended_at, f"{op} waited {late:.2f} s, not {op.patience:g}, for {op.answers}"
                )

    def _waited_until(self, op: Op) -> float:
        """When it had its outcome, or its caller was ended or began to end."""
        assert op.ended_at is not None
        if op.answers or op.life is None:
            return op.ended_at
        return min(at for at in (op.ended_at, op.life.said_at, op.life.stop_wanted_at) if at is not None)

    def _deadline(self, op: Op, history: History) -> float:
        assert op.ended_at is not None
        halted = history.frozen_time(op.hub, op.at, op.ended_at)
        if op.life is not None:
            halted += op.life.frozen_time(op.at, op.ended_at)
        return (op.progress_at or op.at) + op.patience * DRIFT + SLACK + halted


class DeliveredOnce:
    """An acknowledged message was processed once, a refused one never, any other at most once; by its target."""

    name = "delivered once"

    def check(self, history: History) -> Iterator[Deviation]:
        processed: dict[str, list[AgentLife]] = defaultdict(list)
        for life in history.lives:
            for receipt in life.received:
                if receipt.accepted:
                    processed[receipt.envelope.id].append(life)
        for envelope_id, op in history.envelopes.items():
            by = processed.get(envelope_id, [])
            wanted = base_promises.deliveries(op, by, history)
            if wanted is None:
                wanted = {"ok": (1, 1), "refused": (0, 0)}.get(op.verdict, (0, 1))
            at = op.ended_at or history.ended_at
            if not wanted[0] <= len(by) <= wanted[1]:
                yield Deviation(
                    self.name, at, f"{op} is {op.verdict} and was processed {len(by)} times: {op.answers}"
                )
            elif by and not is_target(by[0], op):
                assert isinstance(op.message, Route | Ask)
                target = op.message.envelope.target
                yield Deviation(self.name, at, f"{op} to {target} was processed by {by[0]}")


class TrueReplies:
    """The reply to an ask is what the asked agent made of just that ask."""

    name = "true replies"

    def check(self, history: History) -> Iterator[Deviation]:
        for op in history.ops:
            if isinstance(op.message, Ask) and op.verdict == "ok":
                ask_id = op.message.envelope.id
                asked = [life for life in history.lives for r in life.received if r.envelope.id == ask_id]
                if op.result.outcome not in [Done(reply_of(life, ask_id)) for life in asked]:
                    yield Deviation(self.name, op.at, f"{op} got {op.result.outcome}, and asked was {asked}")


class NoIdleWork:
    """An agent does not go on with an ask whose time is over, or, unless cut off, for which nobody waits."""

    name = "no idle work"

    def check(self, history: History) -> Iterator[Deviation]:
        for life in history.lives:
            for receipt in life.received:
                op = history.envelopes.get(receipt.envelope.id)
                if op is not None and isinstance(op.message, Ask) and receipt.accepted:
                    yield from self._check(life, receipt, op, history)

    def _check(self, life: AgentLife, receipt: Receipt, op: Op, history: History) -> Iterator[Deviation]:
        ends = (receipt.done_at, life.said_at, life.stop_wanted_at, life.ended_at, history.ended_at)
        done_at = min(at for at in ends if at is not None)
        halted = life.frozen_time(op.at, done_at) + history.frozen_time(life.hub, op.at, done_at)
        timeout = (receipt.envelope.timeout_ms or 0) / 1000
        bound = receipt.at + timeout * DRIFT + SLACK + halted
        if done_at > bound and not receipt.envelope.extend:
            yield Deviation(
                self.name, bound, f"{life} went on with {op} until {done_at:.2f}: {timeout:g} s over"
            )
        gone = 0.0 if op.life is None else GONE  # of an agent that is stopped, when it is gone
        bound = (op.ended_at or history.ended_at) + gone + SLACK + halted
        if done_at > bound and not history.troubled(op.at - RECOVERY, done_at, op.hub, life.hub, META):
            yield Deviation(self.name, bound, f"{life} went on with {op} until {done_at:.2f}, for nobody")


class NoCirclesOfAsks:
    """An ask that closes a circle is refused at once, and no other is: only of an agent that waits itself."""

    name = "no circles of asks"

    def check(self, history: History) -> Iterator[Deviation]:
        for op in history.ops:
            if not isinstance(op.message, Ask) or op.life is None:
                continue
            if op.code is ErrorCode.ASK_CIRCLE and not self._waits(op, history):
                yield Deviation(self.name, op.at, f"{op} was refused, and nobody waits: {op.answers}")
            end = op.ended_at
            late = end is None or end - op.at > CIRCLE_TIME
            if late and (them := self._closes(op, history)) is not None:
                yield Deviation(self.name, op.at, f"{op} is asked of {them}, which waits for it, and goes on")

    def _waits(self, op: Op, history: History) -> bool:
        """Whether an agent of the name that is asked, which does one thing at a time, had asked the next one named."""
        refusal = op.answers[0][1]
        assert isinstance(refusal, Failure)
        following = Address.parse(refusal.detail.rpartition(": ")[2].split(" -> ")[1])
        return any(
            is_target(other.life, op)
            and target_of(other) in (following, following.on(None))
            and not other.life.serves
            and other.at <= (op.ended_at or op.at)
            and (other.ended_at is None or other.ended_at > op.at - SLACK)
            for other in history.ops
            if isinstance(other.message, Ask) and other.life is not None
        )

    def _closes(self, op: Op, history: History) -> AgentLife | None:
        """The agent that is asked, if it surely waits for this ask, and goes on waiting."""
        until = op.at + CIRCLE_TIME
        if history.base or any(
            trouble.begins < until and trouble.ends > op.at - TIMEOUTS.lost_timeout
            for trouble in history.troubles
        ):
            return None
        assert isinstance(op.message, Ask)
        seen, new = {op.number}, [op]
        while new:
            waiting = new.pop()
            life = waiting.life
            if (waiting.ended_at or until) < until or (
                life is not None and life.frozen_time(op.at - 5, until)
            ):
                return None
            if life is None:
                continue
            if not life.serves and str(op.message.envelope.target) == life.address:
                return life if life.ended_at is None or life.ended_at > until else None
            for ask_id in [waiting.for_ask] if life.serves else self._held(life, waiting.at):
                behind = history.envelopes.get(ask_id or "")
                if behind is not None and behind.number not in seen:
                    seen.add(behind.number)
                    new.append(behind)
        return None

    def _held(self, life: AgentLife, at: float) -> list[str]:
        """The asks that an agent has been handed and not replied to."""
        return [
            receipt.envelope.id
            for receipt in life.received
            if receipt.accepted and receipt.at <= at and (receipt.done_at is None or receipt.done_at > at)
        ]


class TimeIsLimited:
    """An agent with a time limit does not run on beyond it."""

    name = "time is limited"

    def check(self, history: History) -> Iterator[Deviation]:
        for life in history.lives:
            if life.base or (limit := life.time_limit(history)) is None:
                continue  # a base hub knows no limits
            ended_at = life.ended_at or history.ended_at
            halted = history.frozen_time(life.hub, life.created_at, ended_at)
            bound = life.created_at + limit * DRIFT + GONE + SLACK + halted
            if ended_at > bound:
                yield Deviation(self.name, bound, f"{life} ran until {ended_at:.2f}: it had {limit:g} s")


class TrueSender:
    """Whoever receives a message is told who really sent it, so that it can be answered."""

    name = "true sender"

    def check(self, history: History) -> Iterator[Deviation]:
        for life in history.lives:
            for receipt in life.received:
                op = history.envelopes.get(receipt.envelope.id)
                if op is None:
                    continue
                expected: object = HumanSource()
                if op.life is not None:
                    local = op.life.hub == life.hub
                    expected = AgentSource(op.life.name if local else op.life.address)
                known = base_promises.sender_is_known(op, life, receipt, history)
                if not (receipt.source == expected if known is None else known):
                    yield Deviation(
                        self.name, receipt.at, f"{life} got {op} from {receipt.source}, not {expected}"
                    )


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


def unseen(trouble: Trouble, history: History) -> bool:
    """Whether the network may still have brought old words, or not brought the end of the connections."""
    return any(
        other.process == trouble.process
        and other.kind in ("partition", "slow")
        and other.ends >= trouble.begins
        for other in history.troubles
    )


def call_id(op: Op) -> str:
    """What an operator's decision on this operation is noted under."""
    return op.message.tool_call_id if isinstance(op.message, Permission) else ""


def name_for(operator: str, hub: str) -> str:
    """An operator, as an agent of this hub is told who has decided."""
    name, _, at = operator.partition("@")
    return name if at in (hub, META) else f"{name} at {at}"


def completions(parent: AgentLife) -> list[tuple[str, str]]:
    """The names and texts of the completions an agent has got as messages."""
    found = []
    for receipt in parent.received:
        if receipt.source == SystemSource("agent-completed") and receipt.accepted:
            told = unwrap_result(user_content(receipt.envelope.content).text)
            if told is not None:
                found.append(told)
    return found
