"""How an agent's outcome reaches a parent that only understands messages.

That is every parent of the base dialect, and every agent that did not wait. The base dialect knows
only results, so the other outcomes are marked in words: ``[failed] ...``.
"""

from __future__ import annotations

from datetime import UTC, datetime

from loopal_cluster.address import Address
from loopal_cluster.completions import wrap_result
from loopal_cluster.messages import Envelope, SystemSource, UserContent
from loopal_cluster.outcomes import Cancelled, Done, Failed, Lost, Outcome, TimedOut, reason_of

__all__ = ["base_outcome", "completion_envelope"]


def completion_envelope(
    envelope_id: str, name: str, outcome: Outcome, target: Address, seconds: float
) -> Envelope:
    """The message that tells ``target`` how ``name`` ended. ``seconds`` is since the Unix epoch."""
    text = reason_of(outcome)
    if not isinstance(outcome, Done):
        text = f"[{outcome.kind}] {text}"
    return Envelope(
        id=envelope_id,
        source=SystemSource("agent-completed"),
        target=target,
        content=UserContent(wrap_result(name, text)),
        timestamp=datetime.fromtimestamp(seconds, UTC).isoformat(),
    )


def base_outcome(output: str) -> Outcome:
    """What the text of such a message says.

    A Loopal hub reports every ending as a result, so text without a mark is one.
    """
    for outcome in (Failed, Cancelled, TimedOut, Lost):
        if output.startswith(f"[{outcome.kind}] "):
            return outcome(output.removeprefix(f"[{outcome.kind}] "))
    return Done(output)
