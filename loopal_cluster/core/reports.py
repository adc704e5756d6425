"""How an agent's outcome reaches its parent's hub, and a parent that only understands messages.

The hub is told until it has answered. A parent that only understands messages is one of the base dialect,
or one that did not wait. The base dialect knows only results, so the other outcomes are marked in words:
``[failed] ...``.
"""

from __future__ import annotations

from datetime import UTC, datetime

from attrs import field

from loopal_cluster.address import Address
from loopal_cluster.completions import outcome_text, wrap_result
from loopal_cluster.core.context import HubPart
from loopal_cluster.core.exchange import Refused
from loopal_cluster.core.pending import Pending
from loopal_cluster.core.results import FinishedAgent, Results
from loopal_cluster.core.steps import ReportDue, Reporting
from loopal_cluster.core.uplink import Uplink
from loopal_cluster.errors import ErrorCode
from loopal_cluster.frames import Failure, Response
from loopal_cluster.messages import (
    Completion,
    Envelope,
    MetaComplete,
    MetaRoute,
    SystemSource,
    UserContent,
)
from loopal_cluster.outcomes import Cancelled, Done, Failed, Lost, Outcome, TimedOut, reason_of
from loopal_cluster.records import define, evolve

__all__ = ["Reports", "base_outcome", "completion_envelope"]

RETRYABLE = {
    ErrorCode.CONNECTION_LOST,
    ErrorCode.DEADLINE_EXCEEDED,
    ErrorCode.OVERLOADED,
    ErrorCode.HUB_NOT_CONNECTED,
}
"""Refusals of a report that may pass: the parent's hub may only be away."""


SHORT = 2000
"""Characters of an outcome that every line can carry: to say that one was too long."""


@define
class Reports(HubPart):
    """Outcomes that a parent's hub has not acknowledged yet."""

    _uplink: Uplink
    _results: Results
    _reports: Pending[str, Completion] = field(init=False)
    """By agent id; until when they are sent again."""

    def __attrs_post_init__(self) -> None:
        self._reports = Pending(self._timers, ReportDue)

    def report(self, finished: FinishedAgent, now: float) -> None:
        """Bring an outcome to the parent's hub, if it is another; repeated at every joining until answered."""
        parent = finished.parent
        if parent is None or parent.hub is None or finished.id in self._reports:
            return
        agent = finished.address.on(self._settings.name)
        self._reports.add(finished.id, Completion(finished.id, agent, parent, finished.outcome))
        self._send(finished.id, now)

    def send_all(self, now: float) -> None:
        """The MetaHub is there (again): repeat what has not been acknowledged."""
        for agent_id in list(self._reports):
            self._send(agent_id, now)

    def _send(self, agent_id: str, now: float) -> None:
        if not self._uplink.joined:
            # Sent when we join again. Should we never, it is forgotten with the result.
            self._reports.set_deadline(agent_id, now + self._settings.timeouts.result_ttl)
            return
        if (completion := self._reports.get(agent_id)) is None:
            return
        self._reports.set_deadline(agent_id, None)  # the call has one of its own
        message: MetaComplete | MetaRoute = MetaComplete(completion)
        if not self._uplink.speaks("complete"):
            # A real Loopal hub, or one of ours behind a real MetaHub, knows only this form.
            name, outcome, parent = completion.agent.agent, completion.outcome, completion.parent
            message = MetaRoute(completion_envelope(self._new_id(), name, outcome, parent, self._epoch + now))
        deadline = now + self._settings.timeouts.call_timeout
        try:
            self._uplink.call(message, Reporting(agent_id), deadline)
        except Refused as refused:
            self.on_answer(agent_id, Failure(0, refused.code, refused.detail), now)

    def on_answer(
        self, agent_id: str, answer: Response | Failure, now: float, *, closing: bool = False
    ) -> None:
        """The parent's hub knows, or there is nobody who would want to."""
        final = closing and isinstance(answer, Failure) and answer.code is ErrorCode.HUB_NOT_CONNECTED
        if isinstance(answer, Failure) and answer.code in RETRYABLE and not final:
            self._reports.set_deadline(agent_id, now + self._settings.timeouts.report_interval)
        elif isinstance(answer, Failure) and answer.code is ErrorCode.OVERSIZED:
            self._report_oversized(agent_id, answer.detail, now)
        else:
            self._reports.pop(agent_id)

    def _report_oversized(self, agent_id: str, detail: str, now: float) -> None:
        """An outcome that no line can carry: then at least that, or its parent would wait for ever."""
        report = self._reports.pop(agent_id)
        if report is not None and len(reason_of(report.outcome)) > SHORT:
            failed = Failed(f"its result is too long to be reported: {detail}")
            self._reports.add(agent_id, evolve(report, outcome=failed))
            self._send(agent_id, now)

    def on_due(self, agent_id: str, now: float) -> None:
        """Try once more, for as long as the outcome is kept at all."""
        report = self._reports.get(agent_id)
        if report is not None and self._results.find(report.agent, agent_id) is None:
            self._reports.pop(agent_id)
        elif report is not None:
            self._send(agent_id, now)

    def forget_hub(self, hub: str) -> None:
        """There is nobody left to tell."""
        for agent_id in [key for key, report in self._reports.items() if report.parent.hub == hub]:
            self._reports.pop(agent_id)

    def __len__(self) -> int:
        return len(self._reports)


def completion_envelope(
    envelope_id: str, name: str, outcome: Outcome, target: Address, seconds: float
) -> Envelope:
    """The message that tells ``target`` how ``name`` ended. ``seconds`` is since the Unix epoch."""
    return Envelope(
        id=envelope_id,
        source=SystemSource("agent-completed"),
        target=target,
        content=UserContent(wrap_result(name, outcome_text(outcome))),
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
