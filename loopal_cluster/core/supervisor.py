"""The agents of a hub, from spawn to outcome.

Every spawn has an owner and ends in exactly one outcome; ``settle`` is the one place where that
happens. An agent of this hub is started by the runtime (``StartAgent``), initialised, begun, and
settled when it says ``agent/completed`` or is gone. An agent on another hub is a shadow here, settled
when that hub reports its outcome. Stopping asks first (interrupt, shutdown), then has the runtime
terminate and kill; it is reported only when the agent is gone.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from attrs import field

from loopal_cluster.address import Address, check_name
from loopal_cluster.completions import completed_outcome
from loopal_cluster.config import HubSettings, is_supervised
from loopal_cluster.core.agents import AgentRecord, AgentTree, Lifecycle
from loopal_cluster.core.calls import Origin
from loopal_cluster.core.deadlines import DeadlineQueue
from loopal_cluster.core.deliveries import Deliveries
from loopal_cluster.core.effects import StartAgent, StopAgent
from loopal_cluster.core.events import Peer
from loopal_cluster.core.exchange import LEG, Exchange, Refused
from loopal_cluster.core.kept import KeptTexts, check_prompt
from loopal_cluster.core.receipts import UNCERTAIN
from loopal_cluster.core.reports import Reports, base_outcome, completion_envelope
from loopal_cluster.core.results import FinishedAgent, Results
from loopal_cluster.core.steps import (
    AgentDue,
    HubThen,
    IdleDue,
    Initializing,
    Revoking,
    SpawningRemotely,
    StartDue,
    Starting,
    Stopping,
    StoppingRemotely,
    Timer,
)
from loopal_cluster.core.timeline import Timeline
from loopal_cluster.core.uplink import Uplink
from loopal_cluster.core.waits import Waits
from loopal_cluster.errors import ErrorCode
from loopal_cluster.frames import Failure, Response
from loopal_cluster.messages import (
    OK,
    AgentStart,
    CancelAgent,
    Completed,
    Completion,
    DeliverEnvelope,
    Initialize,
    Interrupt,
    MetaSpawn,
    Reply,
    Shutdown,
    Spawned,
    SpawnSpec,
)
from loopal_cluster.outcomes import Cancelled, Failed, Lost, Outcome, TimedOut, reason_of
from loopal_cluster.payloads import Ended, SubAgentSpawned
from loopal_cluster.records import define, evolve

__all__ = ["Supervisor"]

EXTERNAL = "external"
"""The type of an agent that connected to us; we neither started it nor can we kill it."""


@define
class Supervisor:
    """Starts agents, stops them, and gives each its one outcome."""

    _settings: HubSettings
    _exchange: Exchange[HubThen]
    _timers: DeadlineQueue[Timer]
    _timeline: Timeline
    _uplink: Uplink
    _new_id: Callable[[], str]
    _epoch: float
    _retire: Callable[[Peer, str, float], None]
    """Stops talking with the peer of an agent that could not be started."""
    agents: AgentTree
    results: Results
    _deliveries: Deliveries
    _waits: Waits
    _reports: Reports
    _kept: KeptTexts
    closing: bool = field(default=False, init=False)

    # Spawning.

    def spawn_here(
        self,
        spec: SpawnSpec,
        origin: Origin,
        *,
        parent: Address | None,
        depth: int,
        now: float,
        owner: Peer | str | None = None,
    ) -> None:
        """Start an agent on this hub; ``origin`` is answered when it is up.

        Raises:
            Refused: its name is invalid or taken, its type unknown, or a limit reached.
        """
        if spec.spawn_id is not None and self._spawned_before(spec, parent, origin, now):
            return
        check_name(spec.name, "agent name")
        check_prompt(spec.prompt, self._settings.limits.text_bytes)
        agent_type = self._type_of(spec)
        self._check_budget(depth)
        record = AgentRecord(
            id=spec.spawn_id or self._new_id(),
            spec=spec,
            type=agent_type,
            parent=parent,
            depth=depth,
            spawner=origin,
            owner=None if spec.detached else owner,
        )
        self.agents.add(record)
        self._timers.set(StartDue(record.id), now + self._settings.timeouts.start_timeout)
        self._limit_time(record, now)
        cwd = spec.cwd or self._settings.cwd
        supervised = is_supervised(self.mode_of(record))
        self._exchange.perform(StartAgent(record.id, record.name, agent_type, cwd, supervised))

    def mode_of(self, record: AgentRecord) -> str:
        """An agent's permission mode: whoever spawns it may make it stricter than the hub, never less strict."""
        return self._settings.policy.mode_for(record.spec.permission_mode)

    def _spawned_before(self, spec: SpawnSpec, parent: Address | None, origin: Origin, now: float) -> bool:
        """Whether its owner repeats a spawn that was done already; it is answered as the first was.

        Raises:
            Refused: the id is that of somebody else's agent, or it ended before it was up.
        """
        agent_id = spec.spawn_id or ""
        record, finished = self.agents.get(agent_id), self.results.get(agent_id)
        if self.results.is_spent(agent_id):
            detail = f"agent '{spec.name}' ({agent_id}) has run and ended, and how is not known any more"
            raise Refused(ErrorCode.CONNECTION_LOST, detail)
        if record is None and finished is None:
            if self.results.full:  # rather than that the same spawn is done twice
                raise Refused(ErrorCode.OVERLOADED, "this hub has had too many agents in too short a time")
            return False
        known = record or finished
        assert known is not None
        if (known.parent, known.address) != (parent, Address(spec.name)) or (record and record.spec != spec):
            raise Refused(ErrorCode.NAME_TAKEN, f"agent id '{agent_id}' is taken")
        if finished is not None and not finished.was_up:
            raise Refused(ErrorCode.SPAWN_FAILED, f"spawn failed: {reason_of(finished.outcome)}")
        if record is not None and record.lifecycle is Lifecycle.SPAWNING:
            self._refuse(record.spawner, ErrorCode.CANCELLED, "its spawner has asked again")
            record.spawner = origin
        else:
            self._exchange.answer(origin, Spawned(agent_id=agent_id, name=spec.name))
            if finished is not None:
                self._reports.report(finished, now)
        return True

    def spawn_there(
        self,
        spec: SpawnSpec,
        origin: Origin,
        *,
        parent: Address | None,
        caller: Address,
        depth: int,
        now: float,
        owner: Peer | str | None = None,
    ) -> None:
        """Start an agent on another hub: its shadow exists before the request leaves.

        The outcome comes back to ``caller``: the parent, or a client, which nothing is below.

        Raises:
            Refused: there is no MetaHub, or the name is invalid or taken, or a limit reached.
        """
        check_name(spec.name, "agent name")
        check_name(spec.target_hub or "", "hub name")
        check_prompt(spec.prompt, self._settings.limits.text_bytes)
        self._check_budget(depth)
        record = AgentRecord(
            id=spec.spawn_id or self._new_id(),
            spec=spec,
            type=spec.agent_type,
            parent=parent,
            hub=spec.target_hub,
            depth=depth,
            spawner=origin,
            owner=None if spec.detached else owner,
        )
        self.agents.add(record)
        owner = str(caller.on(self._settings.name))
        outgoing = evolve(spec, parent=owner, depth=depth, spawn_id=record.id, asked_ms=None)
        deadline = now + self._settings.timeouts.spawn_timeout
        # Its own hub ends it in time. We see to it only if we cannot hear of that.
        self._limit_time(record, now, patience=self._settings.timeouts.stop_grace + 2 * LEG)
        try:
            self._uplink.call(MetaSpawn(outgoing), SpawningRemotely(record.id), deadline, now=now)
        except Refused as refused:
            self._forget_times(record)
            self.agents.remove(record)
            if refused.code is ErrorCode.NOT_IN_CLUSTER and not self._uplink.expected:
                detail = "target_hub specified but no MetaHub uplink"
                raise Refused(ErrorCode.NOT_IN_CLUSTER, detail) from None
            raise

    def _limit_time(self, record: AgentRecord, now: float, patience: float = 0.0) -> None:
        if (timeout := record.spec.timeout_ms) is not None:
            self._timers.set(AgentDue(record.id), now + max(0, timeout) / 1000 + patience)

    def _forget_times(self, record: AgentRecord) -> None:
        for timer in (StartDue(record.id), AgentDue(record.id), IdleDue(record.id)):
            self._timers.discard(timer)

    def register_external(self, name: str, peer: Peer, now: float) -> AgentRecord:
        """Add an agent that runs elsewhere and has connected to us.

        Raises:
            Refused: its name is taken, or a limit reached.
        """
        self._check_budget(depth=0)
        spec = SpawnSpec(name=check_name(name, "agent name"), lifecycle="persistent")
        record = AgentRecord(id=self._new_id(), spec=spec, type=EXTERNAL, parent=None, peer=peer)
        self.agents.add(record)
        self._begin(record, now)
        return record

    def _type_of(self, spec: SpawnSpec) -> str:
        agent_type = spec.agent_type or self._settings.default_type
        if agent_type in self._settings.agent_types:
            return agent_type
        runs = ", ".join(self._settings.agent_types) or "none"
        hub = self._settings.name
        if agent_type is None:
            detail = f"no agent type given, and hub '{hub}' has no default (it runs: {runs})"
        else:
            detail = f"hub '{hub}' does not run agent type '{agent_type}' (it runs: {runs})"
        raise Refused(ErrorCode.UNKNOWN_AGENT_TYPE, detail)

    def _check_budget(self, depth: int) -> None:
        limits = self._settings.limits
        if self.closing:
            raise Refused(ErrorCode.SPAWN_FAILED, f"hub '{self._settings.name}' is closing")
        if depth > limits.agent_depth:
            raise Refused(ErrorCode.BUDGET_EXCEEDED, f"agents nest at most {limits.agent_depth} deep")
        if len(self.agents) >= limits.agents:
            raise Refused(ErrorCode.OVERLOADED, f"this hub has {limits.agents} agents already")
        if self.agents.spawn_bytes >= limits.spawn_bytes:
            detail = f"the prompts of this hub's agents have {self.agents.spawn_bytes} bytes already"
            raise Refused(ErrorCode.OVERLOADED, detail)

    # Coming up.

    def on_started(self, agent_id: str, peer: Peer, now: float) -> AgentRecord | None:
        """Its program or task runs; greet it. None if it is no longer wanted."""
        record = self.agents.get(agent_id)
        if record is None:
            return None
        record.peer = peer
        if record.ending is not None:
            return record
        deadline = now + self._settings.timeouts.start_timeout
        self._exchange.call(peer, Initialize(), Initializing(agent_id), deadline)
        return record

    def on_initialized(self, agent_id: str, answer: Response | Failure, now: float) -> None:
        """It has answered the greeting; let it begin."""
        record = self.agents.get(agent_id)
        if record is None or record.peer is None:
            return
        if isinstance(answer, Failure):
            self._start_failed(record, f"agent initialize failed: {answer.detail}", now)
            return
        if record.ending is not None:
            return
        spec = record.spec
        start = AgentStart(
            cwd=spec.cwd or self._settings.cwd,
            lifecycle=spec.lifecycle or "ephemeral",
            model=spec.model,
            permission_mode=self.mode_of(record),
            prompt=spec.prompt,
            name=record.name,
            hub=self._settings.name,
            parent=None if record.parent is None else str(record.parent),
            agent_id=record.id,
            agent_type=record.type,
            depth=record.depth,
        )
        deadline = now + self._settings.timeouts.start_timeout
        self._exchange.call(record.peer, start, Starting(agent_id), deadline)

    def on_begun(self, agent_id: str, answer: Response | Failure, now: float) -> None:
        """It has begun, or cannot."""
        record = self.agents.get(agent_id)
        if record is None or record.lifecycle is Lifecycle.RUNNING:
            return
        if isinstance(answer, Failure):
            self._start_failed(record, f"agent/start failed: {answer.detail}", now)
            return
        self._begin(record, now)
        session = answer.result.session_id
        spawned = SubAgentSpawned(
            agent_id=record.id,
            name=record.name,
            parent=None if record.parent is None else str(record.parent),
            model=record.spec.model,
            session_id=session,
        )
        self._timeline.publish(self._settings.name, record.name, spawned, now)

    def _begin(self, record: AgentRecord, now: float) -> None:
        self._timers.discard(StartDue(record.id))
        record.heard_at = now
        if (idle := record.spec.idle_timeout_ms) is not None:
            self._timers.set(IdleDue(record.id), now + max(0, idle) / 1000)
        self._up(record)
        record.begun_at = now
        self._uplink.agent_started(record, now)
        self._deliveries.flush(record, now)

    def on_not_started(self, agent_id: str, reason: str, now: float) -> None:
        """Its program or task could not be started."""
        record = self.agents.get(agent_id)
        if record is None:
            return
        if record.ending is not None:
            self.settle(record, record.ending, now)
        else:
            self._start_failed(record, reason, now)

    def on_start_due(self, agent_id: str, now: float) -> None:
        """It has taken too long to come up."""
        if (record := self.agents.get(agent_id)) is not None:
            timeout = self._settings.timeouts.start_timeout
            self._start_failed(record, f"it was not up after {timeout:g} s", now)

    def on_spawned_there(self, agent_id: str, answer: Response | Failure, now: float) -> None:
        """The other hub has started it, or our shadow goes."""
        record = self.agents.get(agent_id)
        if record is None:
            return
        if isinstance(answer, Response):
            self._up(record)
        elif record.ending is not None:
            # How it ended says the answer to the stop, and to all alike. Its spawner need not wait for that.
            self._refuse(record.spawner, ErrorCode.SPAWN_FAILED, f"spawn failed: {record.ending.reason}")
        else:
            if answer.code in UNCERTAIN:
                self._revoke(record, now)
            self._roll_back(record, answer.code, answer.detail, now)

    def _up(self, record: AgentRecord) -> None:
        """It is up, or has been: its spawner learns so, once."""
        if record.lifecycle is Lifecycle.SPAWNING:
            record.lifecycle = Lifecycle.RUNNING
            if record.spawner is not None:
                self._exchange.answer(record.spawner, Spawned(agent_id=record.id, name=record.name))

    def _start_failed(self, record: AgentRecord, reason: str, now: float) -> None:
        self._exchange.perform(StopAgent(record.id))
        if record.ending is not None:
            return  # it is settled when it is gone
        self._never_up(record, reason, now)
        if record.peer is not None:
            self._retire(record.peer, f"spawn failed: {reason}", now)

    def _revoke(self, record: AgentRecord, now: float) -> None:
        """We do not know whether the other hub has started it, and nobody waits any more: it must not."""
        message = CancelAgent(record.address, agent_id=record.id, reason="its spawn was given up")
        timeouts = self._settings.timeouts
        # Its lease ends what the other hub runs for one it hears nothing of, but not what is detached.
        patience = timeouts.result_ttl if record.spec.detached else timeouts.lease_timeout
        with suppress(Refused):
            self._uplink.call(message, Revoking(record.id, record.hub or ""), now + patience)

    def _never_up(self, record: AgentRecord, reason: str, now: float) -> None:
        """An agent of this hub could not start. Once its program ran, a repeated spawn must not run it again."""
        if record.peer is not None and record.spec.spawn_id is not None:
            self._keep(record, Failed(reason), now, was_up=False, by_name=False)
        self._roll_back(record, ErrorCode.SPAWN_FAILED, f"spawn failed: {reason}", now)

    def _roll_back(self, record: AgentRecord, code: ErrorCode, detail: str, now: float) -> None:
        """Remove an agent that never was and that nobody stops; nobody has its outcome, everybody its refusal."""
        self._remove(record, now)
        if record.spawner is not None:
            self._exchange.refuse(record.spawner, code, detail)
        for origin in self._waits.take(record):
            self._exchange.refuse(origin, code, detail)
        for origin in record.stoppers:
            self._exchange.answer(origin, OK)

    # Stopping.

    def stop(self, record: AgentRecord, reason: str, now: float, *, timed_out: bool = False) -> None:
        """Have an agent, and all it spawned, end. Asking twice changes nothing."""
        self._stop(record, TimedOut(reason) if timed_out else Cancelled(reason), now)

    def _stop(self, record: AgentRecord, ending: Cancelled | TimedOut, now: float) -> None:
        if record.ending is not None:
            return
        record.ending = ending
        if record.hub is not None:
            self._stop_there(record, ending, now)
        elif record.peer is None:
            self._exchange.perform(StopAgent(record.id))
        else:
            self._exchange.notify(record.peer, Interrupt())
            deadline = now + self._settings.timeouts.answer_grace
            try:
                self._exchange.call(record.peer, Shutdown(), Stopping(record.id), deadline)
            except Refused:  # it does not answer anything: nothing to wait for
                self.on_stop_asked(record.id, now)
        self._stop_children(record, f"its parent '{record.name}' was stopped", now)

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

    def on_owner_lost(self, owner: Peer | str, reason: str, now: float) -> None:
        """The client is gone for which we have spawned agents."""
        for record in self.agents:
            if record.owner == owner:
                self.stop(record, reason, now)

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
            if record.spawner == origin and record.lifecycle is Lifecycle.SPAWNING:
                self.stop(record, "its spawner no longer waits for it", now)

    def close(self, now: float) -> None:
        """The hub is closing: stop everything, start nothing."""
        self.closing = True
        for record in self.agents:
            self.stop(record, f"hub '{self._settings.name}' is closing", now)

    def _stop_there(self, record: AgentRecord, ending: Cancelled | TimedOut, now: float) -> None:
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

    def _stop_children(self, record: AgentRecord, reason: str, now: float) -> None:
        for child in list(record.children.values()):
            if not child.spec.detached:
                self.stop(child, reason, now)

    # Ending.

    def on_completed(self, record: AgentRecord, message: Completed, now: float) -> None:
        """It says it has ended. One that is being stopped is settled only when it is gone."""
        if record.lifecycle is Lifecycle.SPAWNING:
            self._begin(record, now)
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
        elif record.lifecycle is Lifecycle.SPAWNING:
            self._never_up(record, reason, now)
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
            self._up(record)
            self.settle(record, completion.outcome, now)

    def on_base_report(self, hub: str | None, name: str, output: str, now: float) -> bool:
        """The same in the base dialect, by name; False if we have no such agent there."""
        for record in self.agents:
            if record.hub is not None and record.name == name and hub in (None, record.hub):
                self._up(record)
                self.settle(record, base_outcome(output), now)
                return True
        return False

    def on_hub_lost(self, hub: str, reason: str, now: float) -> None:
        """A hub is gone: so are our agents there, and the owners of its agents here."""
        self._reports.forget_hub(hub)
        for record in self.agents:
            if record.hub == hub:
                self.settle(record, Lost(f"hub '{hub}' was lost: {reason}"), now)
            elif record.parent is not None and record.parent.hub == hub and not record.spec.detached:
                self.stop(record, f"hub '{hub}' of its parent was lost", now)

    def on_lease_due(self, now: float) -> None:
        """Without a MetaHub nobody elsewhere can stop our agents, or tell us of theirs."""
        reason = f"no MetaHub for {self._settings.timeouts.lease_timeout:g} s"
        for record in self.agents:
            if record.spec.detached or (record.hub is not None and record.lifecycle is Lifecycle.SPAWNING):
                continue  # it may go on; or its spawn has a deadline of its own
            if record.hub is not None:
                self.settle(record, Lost(reason), now)
            elif (record.parent is not None and record.parent.hub is not None) or isinstance(
                record.owner, str
            ):
                self.stop(record, reason, now)

    def settle(self, record: AgentRecord, outcome: Outcome, now: float) -> None:
        """Give an agent its one outcome, and tell everybody it concerns."""
        if self.agents.get(record.id) is not record:
            return
        outcome = self._kept.outcome(record.name, outcome)
        parent = self.agents.parent_of(record)
        was_up = record.lifecycle is Lifecycle.RUNNING
        self._remove(record, now)
        self._timers.discard(StartDue(record.id))
        if not was_up:
            detail = f"spawn failed: {reason_of(outcome)}"
            self._refuse(record.spawner, ErrorCode.SPAWN_FAILED, detail)
            if record.hub is not None:
                self._revoke(record, now)
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
            self._uplink.agent_ended(record, now)
            self._reports.report(finished, now)
        if (
            was_up
            and parent is not None
            and parent.hub is None
            and not any(origin.peer == parent.peer for origin in waiters)
        ):
            self._tell_parent(parent, record, outcome, now)
        self._stop_children(record, f"its parent '{record.name}' ended", now)

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
        self._forget_times(record)
        self._deliveries.drop(record, now)

    def _refuse(self, origin: Origin | None, code: ErrorCode, detail: str) -> None:
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
    was_up = record.lifecycle is Lifecycle.RUNNING
    if isinstance(answer, Failure) and (was_up or answer.code is not ErrorCode.AGENT_NOT_FOUND):
        return Lost(f"hub '{record.hub}' did not stop it: {answer.detail}")
    outcome: Outcome | None = None if isinstance(answer, Failure) else answer.result.outcome
    if outcome is None and not was_up:
        return record.ending or Cancelled("")  # it has never come up, and will not
    return outcome
