"""The base dialect's ways to say that an agent has ended: ``agent/completed``, and a wrapped text.

The cores, the codec and agents use it. The wrapper's shape is fixed: a Loopal hub recognises a completion
by it and by nothing else.
"""

from __future__ import annotations

from typing import Final

from loopal_cluster.messages import Completed, SystemSource
from loopal_cluster.outcomes import Cancelled, Done, Failed, Outcome, reason_of

__all__ = ["AGENT_COMPLETED", "completed_outcome", "outcome_text", "unwrap_result", "wrap_result"]

AGENT_COMPLETED: Final = SystemSource("agent-completed")
"""Who such a message is from."""

_OPEN = '<agent-result name="'
_CLOSE = "</agent-result>"


def wrap_result(name: str, output: str) -> str:
    """The text that tells a parent that ``name`` has ended with ``output``."""
    # The output is not escaped, as in Loopal: the text is for a model to read.
    return f'{_OPEN}{name}">\n{output}\n{_CLOSE}'


def unwrap_result(text: str) -> tuple[str, str] | None:
    """The agent's name and its output, or None if the text is not a completion.

    As lenient as Loopal: the first opening tag counts, wherever it is. The output ends at the
    last closing tag, because it may quote one, or at the end of the text.
    """
    _, opened, after = text.partition(_OPEN)
    name, quoted, body = after.partition('">')
    if not (opened and quoted):
        return None
    output, closed, _ = body.rpartition(_CLOSE)
    return name, (output if closed else body).removeprefix("\n").removesuffix("\n")


def outcome_text(outcome: Outcome) -> str:
    """How an agent has ended, in words: the base dialect knows only results, so the other outcomes are marked."""
    text = reason_of(outcome)
    return text if isinstance(outcome, Done) else f"[{outcome.kind}] {text}"


def completed_outcome(message: Completed, error: str | None = None) -> Outcome:
    """What ``agent/completed`` says, of an agent that has reported this ``error`` before.

    A base agent's reason is always ``goal`` or ``shutdown``. If its model fails, it reports an error and then ends
    with an empty text.
    """
    text = message.result_text or ""
    match message.reason:
        case "error":
            return Failed(text or "the agent failed and did not say why", message.traceback)
        case "aborted":
            return Cancelled(text or "the agent was interrupted")
        case "goal" if error is not None and not text:
            return Failed(error or "the agent failed and did not say why")
        case _:
            return Done(text)
