"""How an agent of a hub comes up: from the request of its spawner until it works, here or on another hub.

A spawn is checked, and has a record, before anything is started; so its outcome can never arrive before its place. An
agent of this hub is started by the runtime (``StartAgent``), greeted (``Initialize``) and begun (``AgentStart``), all
within ``start_timeout``. What becomes of it then, and of one that fails to come up, is for the ``Supervisor``.
"""

from __future__ import annotations

from collections.abc import Callable

from loopal_cluster.address import Address, check_name
from loopal_cluster.config import is_supervised
from loopal_cluster.core.agent_states import Connected
from loopal_cluster.core.agents import AgentRecord, AgentTree
from loopal_cluster.core.calls import Origin
from loopal_cluster.core.context import HubPart
from loopal_cluster.core.effects import StartAgent, StopAgent
from loopal_cluster.core.events import Peer
from loopal_cluster.core.exchange import HOP_MARGIN, Refused
from loopal_cluster.core.kept import check_prompt
from loopal_cluster.core.owners import Owner, parent_of
from loopal_cluster.core.receipts import UNCERTAIN
from loopal_cluster.core.reports import Reports
from loopal_cluster.core.results import Results
from loopal_cluster.core.steps import (
    AgentDue,
    Initializing,
    SpawningRemotely,
    StartDue,
    Starting,
)
from loopal_cluster.core.supervisor import EXTERNAL, Supervisor
from loopal_cluster.core.timeline import Timeline
from loopal_cluster.core.uplink import Uplink
from loopal_cluster.errors import ErrorCode
from loopal_cluster.frames import Failure, Response
from loopal_cluster.messages import AgentStart, Initialize, MetaSpawn, Spawned, SpawnSpec
from loopal_cluster.outcomes import reason_of
from loopal_cluster.payloads import SubAgentSpawned
from loopal_cluster.records import define, evolve

__all__ = ["Spawner"]


@define
class Spawner(HubPart):
    """Has agents started, here and on other hubs, and brings up those that are started here."""

    _timeline: Timeline
    _uplink: Uplink
    _retire: Callable[[Peer, str, float], None]
    """Stops talking with the peer of an agent that could not be started."""
    _agents: AgentTree
    _results: Results
    _reports: Reports
    _supervisor: Supervisor

    # Spawning.

    def spawn_here(
        self,
        spec: SpawnSpec,
        origin: Origin,
        *,
        owner: Owner | None,
        depth: int,
        now: float,
    ) -> None:
        """Start an agent on this hub; ``origin`` is answered when it is up.

        Raises:
            Refused: its name is invalid or taken, its type unknown, or a limit reached.
        """
        if spec.spawn_id is not None and self._spawned_before(spec, parent_of(owner), origin, now):
            return
        check_name(spec.name, "agent name")
        check_prompt(spec.prompt, self._settings.limits.text_bytes)
        agent_type = self._type_of(spec)
        self._check_budget(depth)
        record = AgentRecord(
            id=spec.spawn_id or self._new_id(),
            spec=spec,
            type=agent_type,
            owner=owner,
            depth=depth,
            spawner=origin,
        )
        self._agents.add(record)
        self._timers.set(StartDue(record.id), now + self._settings.timeouts.start_timeout)
        self._limit_time(record, now)
        cwd = spec.cwd or self._settings.cwd
        supervised = is_supervised(self.mode_of(record))
        self._exchange.perform(StartAgent(record.id, record.name, agent_type, cwd, supervised))

    def _spawned_before(self, spec: SpawnSpec, parent: Address | None, origin: Origin, now: float) -> bool:
        """Whether its owner repeats a spawn that was done already; it is answered as the first was.

        Raises:
            Refused: the id is that of somebody else's agent, or it ended before it was up.
        """
        agent_id = spec.spawn_id or ""
        record, finished = self._agents.get(agent_id), self._results.get(agent_id)
        if self._results.is_spent(agent_id):
            detail = f"agent '{spec.name}' ({agent_id}) has run and ended, and how is not known any more"
            raise Refused(ErrorCode.CONNECTION_LOST, detail)
        if record is None and finished is None:
            if self._results.full:  # rather than that the same spawn is done twice
                raise Refused(ErrorCode.OVERLOADED, "this hub has had too many agents in too short a time")
            return False
        known = record or finished
        assert known is not None
        if (known.parent, known.address) != (parent, Address(spec.name)) or (record and record.spec != spec):
            raise Refused(ErrorCode.NAME_TAKEN, f"agent id '{agent_id}' is taken")
        if finished is not None and not finished.was_up:
            raise Refused(ErrorCode.SPAWN_FAILED, f"spawn failed: {reason_of(finished.outcome)}")
        if record is not None and not record.is_up:
            self._supervisor.refuse(record.spawner, ErrorCode.CANCELLED, "its spawner has asked again")
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
        owner: Owner,
        caller: Address,
        depth: int,
        now: float,
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
            owner=owner,
            hub=spec.target_hub,
            depth=depth,
            spawner=origin,
        )
        self._agents.add(record)
        outgoing = evolve(
            spec, parent=str(caller.on(self._settings.name)), depth=depth, spawn_id=record.id, asked_ms=None
        )
        deadline = now + self._settings.timeouts.spawn_timeout
        # Its own hub ends it in time. We see to it only if we cannot hear of that.
        self._limit_time(record, now, patience=self._settings.timeouts.stop_grace + 2 * HOP_MARGIN)
        try:
            self._uplink.call(MetaSpawn(outgoing), SpawningRemotely(record.id), deadline, now=now)
        except Refused as refused:
            self._timers.discard(AgentDue(record.id))
            self._agents.remove(record)
            if refused.code is ErrorCode.NOT_IN_CLUSTER and not self._uplink.expected:
                detail = "target_hub specified but no MetaHub uplink"
                raise Refused(ErrorCode.NOT_IN_CLUSTER, detail) from None
            raise

    def _limit_time(self, record: AgentRecord, now: float, patience: float = 0.0) -> None:
        if (timeout := record.spec.timeout_ms) is not None:
            self._timers.set(AgentDue(record.id), now + max(0, timeout) / 1000 + patience)

    def register_external(self, name: str, peer: Peer, now: float) -> AgentRecord:
        """Add an agent that runs elsewhere and has connected to us.

        Raises:
            Refused: its name is taken, or a limit reached.
        """
        self._check_budget(depth=0)
        spec = SpawnSpec(name=check_name(name, "agent name"), lifecycle="persistent")
        record = AgentRecord(id=self._new_id(), spec=spec, type=EXTERNAL, owner=None, state=Connected(peer))
        self._agents.add(record)
        self._supervisor.begin(record, now)
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

    def mode_of(self, record: AgentRecord) -> str:
        """An agent's permission mode: whoever spawns it may make it stricter than the hub, never less strict."""
        return self._settings.policy.mode_for(record.spec.permission_mode)

    def _check_budget(self, depth: int) -> None:
        limits = self._settings.limits
        if self._supervisor.closing:
            raise Refused(ErrorCode.SPAWN_FAILED, f"hub '{self._settings.name}' is closing")
        if depth > limits.agent_depth:
            raise Refused(ErrorCode.BUDGET_EXCEEDED, f"agents nest at most {limits.agent_depth} deep")
        if len(self._agents) >= limits.agents:
            raise Refused(ErrorCode.OVERLOADED, f"this hub has {limits.agents} agents already")
        if self._agents.spawn_bytes >= limits.spawn_bytes:
            detail = f"the prompts of this hub's agents have {self._agents.spawn_bytes} bytes already"
            raise Refused(ErrorCode.OVERLOADED, detail)

    # Coming up.

    def on_started(self, agent_id: str, peer: Peer, now: float) -> AgentRecord | None:
        """Its program or task runs; greet it. None if it is no longer wanted."""
        record = self._agents.get(agent_id)
        if record is None:
            return None
        record.connect(peer)
        if record.ending is not None:
            return record
        deadline = now + self._settings.timeouts.start_timeout
        self._exchange.call(peer, Initialize(), Initializing(agent_id), deadline)
        return record

    def on_initialized(self, agent_id: str, answer: Response | Failure, now: float) -> None:
        """It has answered the greeting; let it begin."""
        record = self._agents.get(agent_id)
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
        record = self._agents.get(agent_id)
        if record is None or record.is_up:
            return
        if isinstance(answer, Failure):
            self._start_failed(record, f"agent/start failed: {answer.detail}", now)
            return
        self._supervisor.begin(record, now)
        session = answer.result.session_id
        spawned = SubAgentSpawned(
            agent_id=record.id,
            name=record.name,
            parent=None if record.parent is None else str(record.parent),
            model=record.spec.model,
            session_id=session,
        )
        self._timeline.publish(self._settings.name, record.name, spawned, now)

    def on_not_started(self, agent_id: str, reason: str, now: float) -> None:
        """Its program or task could not be started."""
        record = self._agents.get(agent_id)
        if record is None:
            return
        if record.ending is not None:
            self._supervisor.settle(record, record.ending, now)
        else:
            self._start_failed(record, reason, now)

    def on_start_due(self, agent_id: str, now: float) -> None:
        """It has taken too long to come up."""
        if (record := self._agents.get(agent_id)) is not None:
            timeout = self._settings.timeouts.start_timeout
            self._start_failed(record, f"it was not up after {timeout:g} s", now)

    def on_spawned_there(self, agent_id: str, answer: Response | Failure, now: float) -> None:
        """The other hub has started it, or our shadow goes."""
        record = self._agents.get(agent_id)
        if record is None:
            return
        if isinstance(answer, Response):
            self._supervisor.come_up(record)
        elif record.ending is not None:
            # How it ended says the answer to the stop, and to all alike. Its spawner need not wait for that.
            self._supervisor.refuse(
                record.spawner, ErrorCode.SPAWN_FAILED, f"spawn failed: {record.ending.reason}"
            )
        else:
            if answer.code in UNCERTAIN:
                self._supervisor.revoke(record, now)
            self._supervisor.roll_back(record, answer.code, answer.detail, now)

    def _start_failed(self, record: AgentRecord, reason: str, now: float) -> None:
        self._exchange.perform(StopAgent(record.id))
        if record.ending is not None:
            return  # it is settled when it is gone
        self._supervisor.never_up(record, reason, now)
        if record.peer is not None:
            self._retire(record.peer, f"spawn failed: {reason}", now)
