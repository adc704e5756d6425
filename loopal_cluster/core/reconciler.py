"""Finding each other again: hubs compare what they run for one another.

After each joining a hub asks every hub that it shares agents with. What neither of the two would otherwise
ever hear of is settled then: an agent whose owner has given it up, and a shadow whose agent is gone.
"""

from __future__ import annotations

from contextlib import suppress

from loopal_cluster.core.agents import AgentTree
from loopal_cluster.core.context import HubPart
from loopal_cluster.core.exchange import Refused
from loopal_cluster.core.reports import Reports
from loopal_cluster.core.results import Results
from loopal_cluster.core.steps import Reconciling
from loopal_cluster.core.supervisor import Supervisor
from loopal_cluster.core.uplink import Uplink
from loopal_cluster.errors import ErrorCode
from loopal_cluster.frames import Failure, Response
from loopal_cluster.messages import HubReconcile, MetaReconcile, Reconciled
from loopal_cluster.outcomes import Lost
from loopal_cluster.records import define

__all__ = ["Reconciler"]


@define
class Reconciler(HubPart):
    """Compares notes with the other hubs."""

    _uplink: Uplink
    _agents: AgentTree
    _results: Results
    _reports: Reports
    _supervisor: Supervisor

    def begin(self, now: float) -> None:
        """We have joined (again): compare with every hub that runs agents for us, or we for it."""
        self._compare(None, now)

    def _compare(self, only: str | None, now: float) -> None:
        """Ask all hubs with which we share agents, or one of them."""
        if not self._uplink.speaks("reconcile"):
            return
        runs: dict[str, list[str]] = {}
        owns: dict[str, list[str]] = {}
        for record in self._agents:
            if record.hub is not None:
                if record.is_up:  # else its spawn is asked again, and answered
                    owns.setdefault(record.hub, []).append(record.id)
            elif record.parent is not None and record.parent.hub is not None and not record.spec.detached:
                runs.setdefault(record.parent.hub, []).append(record.id)
        deadline = now + self._settings.timeouts.lease_timeout
        for hub in sorted(runs.keys() | owns.keys()):
            if only not in (None, hub):
                continue
            message = MetaReconcile(hub, tuple(runs.get(hub, ())), tuple(owns.get(hub, ())))
            with suppress(Refused):
                self._uplink.call(message, Reconciling(message, self._uplink.anew), deadline)

    def answer(self, message: HubReconcile, now: float) -> Reconciled:
        """Another hub has joined (again), and wants to know what has changed meanwhile."""
        owned = {record.id for record in self._agents if record.hub == message.hub}
        run = {record.id for record in self._agents if record.hub is None}
        gone = []
        for agent_id in message.owns:
            if (finished := self._results.get(agent_id)) is not None:
                self._reports.report(finished, now)  # it has missed the report
            elif agent_id not in run:
                gone.append(agent_id)
        given_up = (agent_id for agent_id in message.runs if agent_id not in owned)
        return Reconciled(given_up=tuple(given_up), gone=tuple(gone))

    def on_answer(self, then: Reconciling, answer: Response | Failure, now: float) -> None:
        """It has answered, or is not in the cluster any more."""
        if isinstance(answer, Response):
            self._settle(then.message.hub, answer.result, now)
        elif answer.code is ErrorCode.DEADLINE_EXCEEDED:
            # It is silent, and how long that may last the MetaHub decides: that we have joined is none of its faults.
            self._compare(then.message.hub, now)
        elif answer.code is ErrorCode.HUB_NOT_CONNECTED:
            self._supervisor.on_hub_lost(then.message.hub, answer.detail, now)
        elif answer.code is ErrorCode.METHOD_NOT_FOUND and then.anew:
            # A base hub, and it has joined since: it does not come back as the hub that it was.
            self._settle(then.message.hub, Reconciled(then.message.runs, then.message.owns), now)

    def _settle(self, hub: str, result: Reconciled, now: float) -> None:
        for agent_id in result.given_up:
            record = self._agents.get(agent_id)
            if record is not None and record.parent is not None and record.parent.hub == hub:
                self._supervisor.stop(record, f"its owner on hub '{hub}' has given it up", now)
        for agent_id in result.gone:
            record = self._agents.get(agent_id)
            if record is not None and record.hub == hub:
                self._supervisor.settle(record, Lost(f"hub '{hub}' does not run it any more"), now)
