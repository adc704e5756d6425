"""What really happened in a run: the operations and what came of them, and the truth beside it.

The actors write this as they act; the checkers read it when the run is over. Nothing here comes from
a core's own books, so a core that errs cannot hide it.
"""

from __future__ import annotations

from typing import Any

from attrs import define, field, frozen

from loopal_cluster.address import Address
from loopal_cluster.errors import ErrorCode
from loopal_cluster.frames import Failure, Response
from loopal_cluster.messages import (
    Addressed,
    Ask,
    Completed,
    Envelope,
    Message,
    Reply,
    Route,
    Source,
    SpawnAgent,
)
from loopal_cluster.outcomes import Cancelled, Done, Failed, Outcome

__all__ = [
    "INTERRUPTED",
    "NO_OUTPUT",
    "AgentLife",
    "Deviation",
    "History",
    "Op",
    "Presence",
    "Receipt",
    "Trouble",
    "Verdict",
    "bare",
    "is_target",
    "reply_of",
    "target_of",
]

NO_OUTPUT = "(no output)"
"""What a base hub takes for the result of an agent that ended without a word."""

META = "meta"
"""The MetaHub, where operations name a hub."""
INTERRUPTED = "interrupted"
"""The last word of a scripted agent that was asked to shut down."""

UNKNOWN = {ErrorCode.CONNECTION_LOST, ErrorCode.DEADLINE_EXCEEDED, ErrorCode.CANCELLED}
"""Refusals after which the caller cannot know whether the work was done."""

Verdict = str
"""Of an operation: ``ok``, ``refused`` (nothing was done), ``unknown``, or ``open``."""


@define(eq=False)
class Op:
    """One request of an actor, and every answer it got."""

    number: int
    at: float
    actor: str
    hub: str
    """The hub or MetaHub the actor is connected to."""
    message: Message[Any]
    patience: float
    """Seconds after which there must be an outcome."""
    life: AgentLife | None = None
    """The agent that acts; None for a client."""
    answers: list[tuple[float, Response | Failure]] = field(factory=list)
    for_ask: str | None = None
    """Of an ask of an agent that serves: the id of the one that it is made for."""
    progress_at: float | None = None
    """When its caller last heard that it is worked on, if that gives it its time anew."""
    caller_gone_at: float | None = None
    """When the caller ended or lost its connection: then there need not be an answer."""

    @property
    def verdict(self) -> Verdict:
        """What the caller may believe."""
        if not self.answers:
            return "unknown" if self.caller_gone_at is not None else "open"
        answer = self.answers[0][1]
        if isinstance(answer, Response):
            stopped = isinstance(answer.result, Reply) and not isinstance(
                answer.result.outcome, Done | Failed
            )
            return "unknown" if stopped else "ok"
        return "unknown" if answer.code in UNKNOWN else "refused"

    @property
    def result(self) -> Any:
        """The result, if the answer says yes."""
        return self.answers[0][1].result if self.verdict == "ok" else None  # type: ignore[union-attr]

    @property
    def code(self) -> ErrorCode | None:
        """The refusal, if the answer says no."""
        answer = self.answers[0][1] if self.answers else None
        return answer.code if isinstance(answer, Failure) else None

    @property
    def ended_at(self) -> float | None:
        """When it had its outcome, or its caller was gone."""
        return self.answers[0][0] if self.answers else self.caller_gone_at

    def __str__(self) -> str:
        return f"op {self.number} ({self.actor}, {self.message.method})"


@define(eq=False)
class Receipt:
    """A message, or an ask, that an agent has processed."""

    at: float
    envelope: Envelope
    accepted: bool
    """False: the agent has refused it."""
    done_at: float | None = None
    """Of an ask: when the agent has replied, or was told that nobody waits any more."""

    @property
    def source(self) -> Source:
        """Who the agent believes it is from."""
        return self.envelope.source


@define(eq=False)
class AgentLife:
    """One agent process, from its start to its end."""

    agent_id: str
    name: str
    hub: str
    hub_run: int
    """Which incarnation of the hub."""
    agent_type: str
    created_at: float
    began_at: float | None = None
    """When it took ``agent/start``."""
    spawned_by: int | None = None
    """The number of the operation, known from the prompt."""
    ended_at: float | None = None
    """When its process was gone."""
    said: Completed | None = None
    said_at: float | None = None
    stop_wanted_at: float | None = None
    """When its hub first told it, or the system, to end it."""
    frozen: list[list[float]] = field(factory=list)
    received: list[Receipt] = field(factory=list)
    parent: AgentLife | None = None
    detached: bool = False
    serves: bool = True
    """It works on many asks at a time; otherwise on none while one of its own is open."""
    floods: float = 0.0
    """It asks people more than its share, and so each of that may wait so long for its turn."""
    deaf: bool = False
    """It refuses messages, or does not answer them."""
    base: bool = False
    """Its hub speaks the base dialect."""

    @property
    def address(self) -> str:
        """Qualified."""
        return f"{self.hub}/{self.name}"

    def running_at(self, at: float) -> bool:
        """Whether its process was there."""
        return self.created_at <= at and (self.ended_at is None or at < self.ended_at)

    def time_limit(self, history: History) -> float | None:
        """The seconds that it may take, if its spawn said so."""
        op = history.spawns.get(self.spawned_by or 0)
        if op is None or not isinstance(op.message, SpawnAgent):
            return None
        timeout = op.message.spec.timeout_ms
        return None if timeout is None else timeout / 1000

    def frozen_time(self, begin: float, end: float) -> float:
        """For how long its process could not do anything in this time."""
        return sum(max(0.0, min(end, until) - max(begin, since)) for since, until in self.frozen)

    def truths(self) -> list[Outcome]:
        """The outcomes that may be told of it; ``Lost`` is judged elsewhere."""
        truths: list[Outcome] = []
        if self.base:  # whatever it said is a result
            text = None if self.said is None else self.said.result_text
            return [Done(NO_OUTPUT if text is None else text)]
        if self.said is not None:
            text = self.said.result_text or ""
            match self.said.reason:
                case "error":
                    truths.append(Failed(text))
                case "aborted":
                    truths.append(Cancelled(text))
                case _:
                    truths.append(Done(text))
        return truths

    def __str__(self) -> str:
        return f"{self.address} ({self.agent_id})"


@frozen
class Trouble:
    """A fault, from its beginning until it was healed."""

    kind: str
    process: str
    begins: float
    ends: float


@define(eq=False)
class Presence:
    """An operator, while attached."""

    name: str
    hub: str
    since: float
    until: float | None = None
    acknowledges: bool = True
    """Their program says what they see."""

    def overlap(self, begin: float, end: float) -> float:
        """For how long they were there in this time."""
        return max(0.0, min(end, end if self.until is None else self.until) - max(begin, self.since))


@frozen
class Deviation:
    """A promise that was not kept."""

    checker: str
    at: float
    text: str
    traceback: str = field(default="", eq=False)

    def __str__(self) -> str:
        return f"[{self.checker}] at {self.at:.3f}: {self.text}{self.traceback}"


@define(eq=False)
class History:
    """All of it."""

    ops: list[Op] = field(factory=list)
    lives: list[AgentLife] = field(factory=list)
    troubles: list[Trouble] = field(factory=list)
    decisions: list[tuple[float, str, str, bool | None]] = field(factory=list)
    """When, which operator, of which tool call, allow (None: answered a question)."""
    operators: list[Presence] = field(factory=list)
    """Who could answer permissions and questions, and when."""
    shown: set[tuple[str, str]] = field(factory=set)
    """Which operator was asked about which tool call."""
    deviations: list[Deviation] = field(factory=list)
    """What was seen to be wrong while it happened."""
    envelopes: dict[str, Op] = field(factory=dict)
    """Which operation sent which message."""
    asks: dict[str, Op] = field(factory=dict)
    """Which operation asked with which tool call id."""
    spawns: dict[int, Op] = field(factory=dict)
    ended_at: float = 0.0
    base: frozenset[str] = frozenset()
    """The processes that speak the base dialect only."""

    def weak(self, *processes: str) -> bool:
        """Whether a base peer is among these, or between them."""
        between = {"meta"} if len(set(processes)) > 1 else set()
        return not self.base.isdisjoint({*processes, *between})

    def lives_by_id(self) -> dict[str, AgentLife]:
        """Agents by identity. One on a base hub has another for the hub that asked for it."""
        lives = {life.agent_id: life for life in self.lives}
        for life in self.lives:
            if life.base and (spawn := self.spawns.get(life.spawned_by or 0)) is not None and spawn.result:
                lives.setdefault(spawn.result.agent_id, life)
        return lives

    def troubled(self, begin: float, end: float, *processes: str) -> bool:
        """Whether anything was wrong with one of these processes, or (none given) at all, in this time."""
        return any(
            trouble.begins <= end and trouble.ends >= begin
            for trouble in self.troubles
            if not processes or trouble.process in processes
        )

    def frozen_time(self, process: str, begin: float, end: float) -> float:
        """For how long a process could not do anything in this time."""
        spans = [t for t in self.troubles if t.process == process and t.kind == "freeze"]
        return sum(max(0.0, min(end, t.ends) - max(begin, t.begins)) for t in spans)


def target_of(op: Op) -> Address | None:
    """Whom an operation is about."""
    if isinstance(op.message, Route | Ask):
        return op.message.envelope.target
    return op.message.agent if isinstance(op.message, Addressed) else None


def is_target(life: AgentLife, op: Op) -> bool:
    """Whether an operation may be about this agent."""
    target = target_of(op)
    return target is not None and life.name == target.agent and target.hub in (None, life.hub)


def reply_of(life: AgentLife, envelope_id: str) -> str:
    """What an agent replies to an ask: which agent, and to which ask, can be seen."""
    return f"{life.agent_id} answers {envelope_id}"


def bare(outcome: Outcome) -> Outcome:
    """Without a traceback."""
    return Failed(outcome.error) if isinstance(outcome, Failed) else outcome
