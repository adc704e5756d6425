"""How an agent ends: in exactly one of five ways.

``Done`` carries the result; each of the others says why there is none. An outcome is data: it
travels between hubs, is kept for late waiters, and becomes a result or an exception only in the
caller's hands (``unwrap``).
"""

from __future__ import annotations

from attrs import field

from loopal_cluster import labels
from loopal_cluster.errors import (
    AgentCancelled,
    AgentError,
    AgentFailed,
    AgentLost,
    AgentTimedOut,
)
from loopal_cluster.records import record

__all__ = ["Cancelled", "Done", "Failed", "Lost", "Outcome", "TimedOut", "outcome_of", "reason_of", "unwrap"]


@record
class Done:
    """The agent finished its work."""

    result: str
    """The agent's final text; empty if it has none."""

    kind = "done"


@record
class Failed:
    """The agent ended with an error."""

    error: str
    """One line for people: the exception, or the exit status and the last words on stderr."""
    traceback: str | None = None
    """The remote traceback, where there is one."""

    kind = "failed"


@record
class Cancelled:
    """The agent was stopped: by its parent, an operator, or the end of its owner."""

    reason: str = field(converter=labels.reason)
    """Who stopped it, in words."""

    kind = "cancelled"


@record
class TimedOut:
    """The agent's deadline passed."""

    reason: str = field(converter=labels.reason)
    """Which deadline, in words."""

    kind = "timed_out"


@record
class Lost:
    """The agent's hub is gone, or cannot be reached; whether the work was done is unknown."""

    reason: str = field(converter=labels.reason)
    """What was lost, in words."""

    kind = "lost"


Outcome = Done | Failed | Cancelled | TimedOut | Lost

_ERRORS: dict[type[Outcome], type[AgentError]] = {
    Failed: AgentFailed,
    Cancelled: AgentCancelled,
    TimedOut: AgentTimedOut,
    Lost: AgentLost,
}


def reason_of(outcome: Outcome) -> str:
    """The outcome's text: its result, its error or its reason."""
    match outcome:
        case Done(result):
            return result
        case Failed(error):
            return error
        case Cancelled(reason) | TimedOut(reason) | Lost(reason):
            return reason


def unwrap(agent: str, outcome: Outcome) -> str:
    """The result of ``Done``.

    Raises:
        AgentFailed, AgentCancelled, AgentTimedOut, AgentLost: there is none. A remote traceback
            is attached as a note.
    """
    if isinstance(outcome, Done):
        return outcome.result
    error = _ERRORS[type(outcome)](agent, reason_of(outcome))
    if isinstance(outcome, Failed) and outcome.traceback:
        error.add_note(f"Remote traceback of {agent}:\n{outcome.traceback}")
    raise error


def outcome_of(error: AgentError) -> Outcome:
    """The outcome that ``unwrap`` has raised as this error, without its traceback."""
    kind = next(kind for kind, raised in _ERRORS.items() if raised is type(error))
    return kind(error.reason)
