"""Messages and asks arrive once, are answered once, by who they are for, and in time. One class, one promise (``checkers``)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from loopal_cluster.address import Address
from loopal_cluster.errors import ErrorCode
from loopal_cluster.frames import Failure
from loopal_cluster.messages import (
    AgentSource,
    Ask,
    HumanSource,
    Route,
)
from loopal_cluster.outcomes import Done
from tests.simulation import base_promises
from tests.simulation.bounds import DRIFT, GONE, RECOVERY, SLACK, TIMEOUTS
from tests.simulation.history import (
    META,
    AgentLife,
    Deviation,
    History,
    Op,
    Receipt,
    is_target,
    reply_of,
    target_of,
)

__all__ = [
    "DeliveredOnce",
    "NoCirclesOfAsks",
    "NoIdleWork",
    "OneOutcome",
    "TimeIsLimited",
    "TrueReplies",
    "TrueSender",
]

CIRCLE_TIME = 1.0
"""Seconds within which an ask that closes a circle is refused, through two hubs and a MetaHub."""


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
