"""How an agent of a hub ends, and whose end ends it; how it comes up is ``Spawner``'s.

Every agent has exactly one outcome; ``settle`` is the one place where it gets it. An agent of this hub is settled when
it says ``agent/completed`` or is gone. An agent on another hub is a shadow here, settled when that hub reports its
outcome. Stopping asks first (interrupt, shutdown), then has the runtime terminate and kill; it is reported only when
the agent is gone.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from attrs import field

from loopal_cluster.address import Address
from loopal_cluster.completions import completed_outcome
from loopal_cluster.core.agent_states import StopOutcome
from loopal_cluster.core.agents import AgentRecord, AgentTree
from loopal_cluster.core.calls import Origin
from loopal_cluster.core.context import HubPart
from loopal_cluster.core.deliveries import Deliveries
from loopal_cluster.core.effects import StopAgent
from loopal_cluster.core.exchange import Refused
from loopal_cluster.core.kept import KeptTexts
from loopal_cluster.core.owners import Owner, hub_of, is_elsewhere
from loopal_cluster.core.reports import Reports, base_outcome, completion_envelope
from loopal_cluster.core.results import FinishedAgent, Results
from loopal_cluster.core.steps import (
    AgentDue,
    IdleDue,
    Revoking,
    ShuttingDown,
    StartDue,
    StoppingRemotely,
)
from loopal_cluster.core.timeline import Timeline
from loopal_cluster.core.uplink import Uplink
from loopal_cluster.core.waits import Waits
from loopal_cluster.errors import ErrorCode
from loopal_cluster.frames import Failure, Response
from loopal_cluster.messages import (
    OK,
    CancelAgent,
    Completed,
    Completion,
    DeliverEnvelope,
    Interrupt,
    Reply,
    Shutdown,
    Spawned,
)
from loopal_cluster.outcomes import Cancelled, Failed, Lost, Outcome, TimedOut, reason_of
from loopal_cluster.payloads import Ended
from loopal_cluster.records import define

__all__ = ["Supervisor"]

EXTERNAL = "external"
"""The type of an agent that connected to us; we neither started it nor can we kill it."""


@define
class Supervisor(HubPart):
    """Stops agents, and gives each its one outcome."""

    _timeline: Timeline
    _uplink: Uplink
    agents: AgentTree
    results: Results
    _deliveries: Deliveries
    _waits: Waits
    _reports: Reports
    _kept: KeptTexts
    closing: bool = field(default=False, init=False)

    # Coming up.

    def begin(self, record: AgentRecord, now: float) -> None:
        """Let everybody know that an agent of this hub works, and hand it what has waited."""
        self._timers.discard(StartDue(record.id))
        record.heard_at = now
        if (idle := record.spec.idle_timeout_ms) is not None:
            self._timers.set(IdleDue(record.id), now + max(0, idle) / 1000)
        self.come_up(record)
        record.begun_at = now
        self._uplink.announcements.agent_started(record, now)
        self._deliveries.flush(record, now)

    def come_up(self, record: AgentRecord) -> None:
        """It is up, or has been: its spawner learns so, once."""
        if record.come_up() and record.spawner is not None:
            self._exchange.answer(record.spawner, Spawned(agent_id=record.id, name=record.name))

    # Stopping.

    def stop(self, record: AgentRecord, reason: str, now: float, *, timed_out: bool = False) -> None:
        """Have an agent, and all it spawned, end. Asking twice changes nothing."""
        self._stop(record, TimedOut(reason) if timed_out else Cancelled(reason), now)

    def _stop(self, record: AgentRecord, ending: StopOutcome, now: float) -> None:
        if not record.stop(ending):
            return
        if record.hub is not None:
            self._stop_there(record, ending, now)
        elif record.peer is None:
            self._exchange.perform(StopAgent(record.id))
        else:
            self._exchange.notify(record.peer, Interrupt())
            deadline = now + self._settings.timeouts.answer_grace
            try:
                self._exchange.call(record.peer, Shutdown(), ShuttingDown(record.id), deadline)
            except Refused:  # it does not answer anything: nothing to wait for
                self.on_stop_asked(record.id, now)
        self.end_owned(record.children.values(), f"its parent '{record.name}' was stopped", now)

    def on_due(self, agent_id: str, now: float) -> None:
        """It has had all its time."""
        record = self.agents.get(agent_id)
        if record is not None:
            timeout = max(0, record.spec.timeout_ms or 0) / 1000
            self._stop(record, TimedOut(f"it had {timeout:g} s and has not ended"), now)

    def on_idle_due(self, agent_id: str, now: float) -> None:
        """It has reported nothing for as long as it may, or has since."""
        record = self.agents.get(agent_id)
        if record is None:
            return
        timeout = max(0, record.spec.idle_timeout_ms or 0) / 1000
        if now < record.heard_at + timeout:
            self._timers.set(IdleDue(agent_id), record.heard_at + timeout)
        else:
            self._stop(record, TimedOut(f"it has reported nothing for {timeout:g} s"), now)

    def end_owned(self, owned: Iterable[AgentRecord], reason: str, now: float) -> None:
        """The owners of these are gone: an agent ends with its owner, unless it is detached."""
        for record in [*owned]:
            if not record.spec.detached:
                self.stop(record, reason, now)

    def on_owner_lost(self, owner: Owner, reason: str, now: float) -> None:
        """The client is gone for which we have spawned agents."""
        self.end_owned((record for record in self.agents if record.owner == owner), reason, now)

    def on_stop_asked(self, agent_id: str, now: float) -> None:
        """It has answered the shutdown, or has had its time to: now see to it, and hear it no more."""
        record = self.agents.get(agent_id)
        if record is None:
            return
        # What it has asked is for nobody from now on, however long it takes to go.
        asked = [] if record.peer is None else self._exchange.calls_for(record.peer)
        if record.type == EXTERNAL and record.peer is not None:
            self._exchange.hang_up(record.peer, "stopped")
        else:
            self._exchange.perform(StopAgent(agent_id))
        for call in asked:
            if call.message.result is Reply:  # an ask
                self._deliveries.give_up(call, now)

    def on_spawn_cancelled(self, origin: Origin, now: float) -> None:
        """Whoever asked for an agent no longer waits for it to come up, and will not learn of it."""
        for record in self.agents:
            if record.spawner == origin and not record.is_up:
                self.stop(record, "its spawner no longer waits for it", now)

    def close(self, now: float) -> None:
        """The hub is closing: stop everything, start nothing."""
        self.closing = True
        for record in self.agents:
            self.stop(record, f"hub '{self._settings.name}' is closing", now)

    def _stop_there(self, record: AgentRecord, ending: StopOutcome, now: float) -> None:
        timed_out = isinstance(ending, TimedOut)
        message = CancelAgent(record.address, record.id, ending.reason, timed_out=timed_out, brief=True)
        deadline = now + self._settings.timeouts.spawn_timeout
        try:
            self._uplink.call(message, StoppingRemotely(record.id), deadline)
        except Refused as refused:
            self.settle(record, Lost(f"hub '{record.hub}' cannot be told to stop it: {refused.detail}"), now)

    def on_stopped_there(self, agent_id: str, answer: Response | Failure, now: float) -> None:
        """The other hub has stopped it; its report may have come first."""
        record = self.agents.get(agent_id)
        if record is None:
            return
        outcome = stopped_outcome(record, answer)
        if outcome is not None:
            self.settle(record, outcome, now)

    # Ending.

    def on_completed(self, record: AgentRecord, message: Completed, now: float) -> None:
        """It says it has ended. One that is being stopped is settled only when it is gone."""
        if not record.is_up:
            self.begin(record, now)
        self.on_stop_asked(record.id, now)
        if record.ending is None:
            self.settle(record, completed_outcome(message, record.error), now)
        elif record.type == EXTERNAL:
            self.settle(record, record.ending, now)

    def on_ended(self, agent_id: str, reason: str, now: float) -> None:
        """It is gone."""
        record = self.agents.get(agent_id)
        if record is None:
            return
        if record.ending is not None:
            self.settle(record, record.ending, now)
        elif not record.is_up:
            self.never_up(record, reason, now)
        else:
            self.settle(record, Failed(f"it ended without a result: {reason}"), now)

    def on_external_lost(self, record: AgentRecord, reason: str, now: float) -> None:
        """An agent that had connected to us has gone."""
        if self.agents.get(record.id) is record:
            outcome = record.ending or Lost(reason)
            self.settle(record, outcome, now)

    def on_report(self, completion: Completion, now: float) -> None:
        """Another hub reports the outcome of our agent there. A repeated report changes nothing."""
        record = self.agents.get(completion.spawn_id)
        if record is not None and record.hub is not None and record.hub == completion.agent.hub:
            self.come_up(record)
            self.settle(record, completion.outcome, now)

    def on_base_report(self, hub: str | None, name: str, output: str, now: float) -> bool:
        """The same in the base dialect, by name; False if we have no such agent there."""
        for record in self.agents:
            if record.hub is not None and record.name == name and hub in (None, record.hub):
                self.come_up(record)
                self.settle(record, base_outcome(output), now)
                return True
        return False

    def on_hub_lost(self, hub: str, reason: str, now: float) -> None:
        """A hub is gone: so are our agents there, and the owners of its agents here."""
        self._reports.forget_hub(hub)
        for record in self.agents:
            if record.hub == hub:
                self.settle(record, Lost(f"hub '{hub}' was lost: {reason}"), now)
        children = (record for record in self.agents if hub_of(record.owner) == hub)
        self.end_owned(children, f"hub '{hub}' of its parent was lost", now)

    def on_lease_due(self, now: float) -> None:
        """Without a MetaHub nobody elsewhere can stop our agents, or tell us of theirs."""
        reason = f"no MetaHub for {self._settings.timeouts.lease_timeout:g} s"
        for record in self.agents:
            # One that comes up has a deadline of its own, and one that is detached may go on.
            if record.hub is not None and record.is_up and not record.spec.detached:
                self.settle(record, Lost(reason), now)
        here = (record for record in self.agents if record.hub is None and is_elsewhere(record.owner))
        self.end_owned(here, reason, now)

    def settle(self, record: AgentRecord, outcome: Outcome, now: float) -> None:
        """Give an agent its one outcome, and tell everybody it concerns."""
        if self.agents.get(record.id) is not record:
            return
        outcome = self._kept.outcome(record.name, outcome)
        parent = self.agents.parent_of(record)
        was_up = record.is_up
        self._remove(record, now)
        if not was_up:
            detail = f"spawn failed: {reason_of(outcome)}"
            self.refuse(record.spawner, ErrorCode.SPAWN_FAILED, detail)
            if record.hub is not None:
                self.revoke(record, now)
        finished = self._keep(record, outcome, now, was_up=was_up)
        waiters = self._waits.take(record)
        for origin, brief in waiters.items():
            self._exchange.answer(origin, finished.waited(brief=brief))
        for origin in record.stoppers:
            self._exchange.answer(origin, OK)
        ended = Ended(outcome=outcome.kind, text=reason_of(outcome)[:200])
        self._timeline.publish(record.hub or self._settings.name, record.name, ended, now)
        # The refusal of a spawn has told whoever wanted it; only what was up is reported.
        if was_up and record.hub is None:
            self._uplink.announcements.agent_ended(record, now)
            self._reports.report(finished, now)
        if (
            was_up
            and parent is not None
            and parent.hub is None
            and not any(origin.peer == parent.peer for origin in waiters)
        ):
            self._tell_parent(parent, record, outcome, now)
        self.end_owned(record.children.values(), f"its parent '{record.name}' ended", now)

    def never_up(self, record: AgentRecord, reason: str, now: float) -> None:
        """An agent of this hub could not start. Once its program ran, a repeated spawn must not run it again."""
        if record.peer is not None and record.spec.spawn_id is not None:
            self._keep(record, Failed(reason), now, was_up=False, by_name=False)
        self.roll_back(record, ErrorCode.SPAWN_FAILED, f"spawn failed: {reason}", now)

    def roll_back(self, record: AgentRecord, code: ErrorCode, detail: str, now: float) -> None:
        """Remove an agent that never was and that nobody stops; nobody has its outcome, everybody its refusal."""
        self._remove(record, now)
        if record.spawner is not None:
            self._exchange.refuse(record.spawner, code, detail)
        for origin in self._waits.take(record):
            self._exchange.refuse(origin, code, detail)
        for origin in record.stoppers:
            self._exchange.answer(origin, OK)

    def revoke(self, record: AgentRecord, now: float) -> None:
        """We do not know whether the other hub has started it, and nobody waits any more: it must not."""
        message = CancelAgent(record.address, agent_id=record.id, reason="its spawn was given up")
        timeouts = self._settings.timeouts
        # Its lease ends what the other hub runs for one it hears nothing of, but not what is detached.
        patience = timeouts.result_ttl if record.spec.detached else timeouts.lease_timeout
        with suppress(Refused):
            self._uplink.call(message, Revoking(record.id, record.hub or ""), now + patience)

    def _keep(
        self, record: AgentRecord, outcome: Outcome, now: float, *, was_up: bool, by_name: bool = True
    ) -> FinishedAgent:
        """Remember how an agent ended, for those who ask later."""
        timeouts = self._settings.timeouts
        kept = timeouts.result_ttl
        if record.spec.spawn_id is not None:
            kept = max(kept, timeouts.spawn_memory)  # its spawn may be repeated
        finished = FinishedAgent(
            id=record.id,
            address=record.address,
            type=record.type,
            parent=record.parent,
            outcome=outcome,
            expires_at=now + kept,
            was_up=was_up,
            repeated_until=None if record.spec.spawn_id is None else now + timeouts.spawn_memory,
        )
        self.results.add(finished, by_name=by_name)
        return finished

    def _remove(self, record: AgentRecord, now: float) -> None:
        self.agents.remove(record)
        for timer in (StartDue(record.id), AgentDue(record.id), IdleDue(record.id)):
            self._timers.discard(timer)
        self._deliveries.drop(record, now)

    def refuse(self, origin: Origin | None, code: ErrorCode, detail: str) -> None:
        """Answer no, if anybody waits for the answer."""
        if origin is not None:
            self._exchange.refuse(origin, code, detail)

    def _tell_parent(self, parent: AgentRecord, record: AgentRecord, outcome: Outcome, now: float) -> None:
        """Bring the outcome to a parent that is not waiting for it."""
        if record.spec.notify_parent is False or parent.ending is not None:
            return
        envelope = completion_envelope(
            self._new_id(), record.name, outcome, Address(parent.name), self._epoch + now
        )
        try:
            self._deliveries.deliver(parent, DeliverEnvelope(envelope), None, now)
        except Refused as refused:
            self._exchange.log("WARNING", f"result of '{record.name}' for '{parent.name}': {refused.detail}")


def stopped_outcome(record: AgentRecord, answer: Response | Failure) -> Outcome | None:
    """What another hub's answer to a stop says of our agent there; None: only that it was asked to stop."""
    was_up = record.is_up
    if isinstance(answer, Failure) and (was_up or answer.code is not ErrorCode.AGENT_NOT_FOUND):
        return Lost(f"hub '{record.hub}' did not stop it: {answer.detail}")
    outcome: Outcome | None = None if isinstance(answer, Failure) else answer.result.outcome
    if outcome is None and not was_up:
        return record.ending or Cancelled("")  # it has never come up, and will not
    return outcome
