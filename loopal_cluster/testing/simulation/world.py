"""A simulated cluster: the processes, the network and the actors, and how a script moves them."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from attrs import evolve

from loopal_cluster.address import Address
from loopal_cluster.config import HubSettings, MetaHubSettings
from loopal_cluster.core.events import Link
from loopal_cluster.core.hub import HubCore
from loopal_cluster.core.meta_hub import MetaHubCore
from loopal_cluster.messages import (
    AgentInfo,
    CancelAgent,
    ControlAgent,
    InterruptAgent,
    ListAgents,
    ListHubs,
    Message,
    MetaTopology,
    Opaque,
    Permission,
    Question,
    Resolve,
    Role,
    ShutdownAgent,
    SpawnAgent,
    SpawnSpec,
    Status,
    Topology,
    WaitAgent,
)
from loopal_cluster.runtime.runtime import Core
from loopal_cluster.testing.simulation.actors import (
    Caller,
    Client,
    Observer,
    Operator,
    Rogue,
    ScriptedAgent,
    letter,
)
from loopal_cluster.testing.simulation.base_process import BaseHubProcess, BaseMetaHubProcess
from loopal_cluster.testing.simulation.bounds import GONE, LOST, ORPHAN, SLACK, TIMEOUTS
from loopal_cluster.testing.simulation.history import AgentLife, Deviation, History, Trouble
from loopal_cluster.testing.simulation.network import Connection, Line, Owner, connect
from loopal_cluster.testing.simulation.process import HubProcess, MetaHubProcess, Process, Stopped
from loopal_cluster.testing.simulation.schedule import Schedule
from loopal_cluster.testing.simulation.script import (
    META,
    Action,
    AgentDies,
    AgentFreezes,
    Ask,
    Attach,
    Cancel,
    Crash,
    Cut,
    Forge,
    Freeze,
    HalfClose,
    Look,
    Nudge,
    Partition,
    Script,
    Send,
    Slow,
    Spawn,
    Step,
    Wait,
    Withdraw,
)
from loopal_cluster.testing.simulation.tables import left_in

__all__ = ["World"]

STEPS_LIMIT = 200_000
"""Far more than any script needs: a core that answers itself for ever is found by this."""

MakeHub = Callable[[HubSettings, Callable[[], str]], Core]
MakeMetaHub = Callable[[MetaHubSettings, Callable[[], str]], Core]


class World:
    """One run. What a script needs to come true, and the history of what did."""

    def __init__(
        self,
        seed: int,
        script: Script,
        *,
        make_hub: MakeHub = HubCore,
        make_meta_hub: MakeMetaHub = MetaHubCore,
        tracing: bool = False,
    ) -> None:
        self.seed = seed
        self.script = script
        self.make_hub, self.make_meta_hub = make_hub, make_meta_hub
        self.tracing = tracing
        self.transcript: list[str] = []
        self.schedule = Schedule()
        self.history = History(base=frozenset(script.base))
        meta = BaseMetaHubProcess if self.is_base(META) else MetaHubProcess
        self.meta: MetaHubProcess = meta(self, META, script.drift)
        self.hubs: dict[str, HubProcess] = {
            name: (BaseHubProcess if self.is_base(name) else HubProcess)(self, name, script.drift)
            for name in script.hubs
        }
        self.clients = {name: Client(self, f"client@{name}", name) for name in (*script.hubs, META)}
        self._agents: dict[str, list[ScriptedAgent]] = {}
        self._connections = 0
        self._operators = 0

    # From beginning to end.

    def run(self) -> History:
        """Carry out the script, heal everything, let everything end; return what happened."""
        with suppress(Stopped):  # the deviation says why
            self._run()
        self.history.ended_at = self.schedule.now
        return self.history

    def _run(self) -> None:
        self._start()
        for step in self.script.steps:
            self._advance(step.at)
            self._carry_out(step)
        self._advance(self.script.horizon)
        # By now every fault has been healed or is about to be: see ``Trouble.ends``.
        healed = max([self.script.horizon, *(trouble.ends for trouble in self.history.troubles)])
        self._advance(healed + ORPHAN + max(TIMEOUTS.wait_timeout, GONE) + SLACK)
        self._end_agents()
        self._advance(self.schedule.now + TIMEOUTS.result_ttl + TIMEOUTS.spawn_timeout + 2 * GONE)
        self._look_for_absent_hubs()
        if self.script.base:
            self._part_from_base_peers()
        self._look_for_leftovers()

    def _advance(self, until: float) -> None:
        while self.schedule.now < until:
            self.schedule.run_until(min(until, self.schedule.now + 1.0))
            if self.schedule.done > STEPS_LIMIT:
                self.deviate("the run ends", f"more than {STEPS_LIMIT} things have happened")
                raise Stopped

    def _start(self) -> None:
        self.meta.start()
        for hub in self.hubs.values():
            hub.start()
        for client in self.clients.values():
            self.attach(client, Role.CLIENT)
        for watched in (META, self.script.hubs[0]):
            if not self.is_base(watched):
                self.attach(Observer(self, f"observer@{watched}", watched), Role.OBSERVER)

    def _end_agents(self) -> None:
        for agents in list(self._agents.values()):
            for agent in agents:
                agent.die("the run is over")

    def _part_from_base_peers(self) -> None:
        """Let base hubs go for good, and people stop what a base peer has left unsaid of."""
        for hub in self.hubs.values():
            if self.is_base(hub.name):
                hub.crash()
        self._advance(self.schedule.now + LOST + SLACK)
        for hub in self.hubs.values():
            client = self.clients[hub.name]
            if isinstance(hub.core, HubCore) and client.here:
                for record in hub.core.agents:
                    client.ask(CancelAgent(record.address, agent_id=record.id, reason="forgotten"))
        self._advance(self.schedule.now + TIMEOUTS.spawn_timeout + TIMEOUTS.result_ttl + 2 * GONE)

    def _look_for_leftovers(self) -> None:
        for process in (self.meta, *self.hubs.values()):
            if not self.is_base(process.name):
                for name, left in self._left_in(process):
                    self.deviate("tables empty when quiet", f"{process.name} still has {name}: {left}")

    def _look_for_absent_hubs(self) -> None:
        for hub in self.hubs.values():
            if not hub.joined:
                self.deviate("hubs come back", f"{hub.name} is not joined long after everything was healed")

    def _left_in(self, process: Process) -> list[tuple[str, str]]:
        """What a process still remembers; the announcement of a heartbeat may just be on its way."""
        for _ in range(8):
            left = left_in(process.core, peers=process.peers, hubs=len(self.hubs))
            if not left:
                break
            self._advance(self.schedule.now + TIMEOUTS.heartbeat_interval / 8)
        return left

    # For the parts of the world.

    def trace(self, who: str, *what: object) -> None:
        """Write a line of the transcript, if anybody wants it."""
        if self.tracing:
            self.transcript.append(f"{self.schedule.now:9.4f} {who:14} {' '.join(map(str, what))}")

    def deviate(self, checker: str, text: str, traceback: str = "") -> None:
        """Note a promise that was seen not to be kept."""
        self.trace("!!", checker, text)
        self.history.deviations.append(Deviation(checker, self.schedule.now, text, traceback))

    def process(self, name: str) -> Process:
        """A hub, or the MetaHub."""
        return self.meta if name == META else self.hubs[name]

    def is_base(self, process: str) -> bool:
        """Whether it speaks the base dialect only."""
        return process in self.script.base

    def trusts(self, hub: str) -> bool:
        """Whether clients of this hub are part of its program and need no token."""
        return hub != META and int(hub.rpartition("-")[2]) % 2 == 0

    def connect(
        self, dialler: Owner, listener: Owner, *, line: Line | None = None, slowest: float = 0.05
    ) -> Connection:
        """Make a connection with delays of its own."""
        self._connections += 1
        who = tuple(getattr(owner, "name", "?") for owner in (dialler, listener))
        return connect(
            self.schedule,
            dialler,
            listener,
            names=(who[0], who[1]),
            seed=f"{who[0]}-{who[1]}-{self.seed}",
            line=line,
            slowest=slowest,
            codec=self.script.codec,
        )

    def attach(self, caller: Caller, role: Role) -> None:
        """Connect a client to its hub, now or as soon as that is there."""
        process = self.process(caller.hub)
        if caller.end is not None or (caller.hub == META and self.is_base(META)):
            return  # a base MetaHub has hubs and nobody else
        if not process.alive:
            self.schedule.after(0.5, self.attach, caller, role)
            return
        connection = self.connect(caller, process, slowest=0.02)
        link = Link.TRUSTED if self.trusts(caller.hub) else Link.ACCEPTED
        connection.open(partial(process.welcome, link=link))
        caller.register(connection.dialler, role)

    def add_agent(self, life: AgentLife, on_gone: Callable[[str], None]) -> ScriptedAgent:
        """Let an agent process be there."""
        agent = ScriptedAgent(self, life, on_gone)
        self._agents.setdefault(life.address, []).append(agent)
        return agent

    def on_refused(self, hub: HubProcess, reason: str) -> None:
        """The MetaHub will not have this hub: its service manager starts it again, as another instance."""
        if hub.has_joined:
            self.deviate("hubs come back", f"{hub.name} was in the cluster and is refused now: {reason}")
        self.schedule.after(0.0, self._restart_refused, hub, hub.run)

    def on_left(self, hub: HubProcess, after: float) -> None:
        """A base hub has lost its MetaHub: some time later somebody notices and starts it anew."""
        self._note("left", hub.name, after)
        self.schedule.after(after, self._restart_refused, hub, hub.run)

    def _restart_refused(self, hub: HubProcess, run: int) -> None:
        if hub.run == run and hub.alive:
            self._crash(hub, 0.5, kind="refused")

    # The script.

    def _carry_out(self, step: Step) -> None:
        action = step.action
        match action:
            case Attach(hub, manner, stays):
                self._attach_operator(hub, manner, stays)
            case Forge(name):
                if self.meta.alive and not self.is_base(META):  # that one believes everybody
                    rogue = Rogue(self, name, META)
                    connection = self.connect(rogue, self.meta)
                    connection.open(self.meta.welcome)
                    rogue.join(connection.dialler)
            case AgentDies() | AgentFreezes():
                self._trouble_agent(action)
            case Crash() | Freeze() | Cut() | HalfClose() | Partition() | Slow():
                self._trouble(action)
            case _:
                actor = self._actor(action.actor)
                if actor is None or not actor.here:
                    self.trace("script", "skips", action)
                elif isinstance(action, Withdraw):
                    actor.withdraw_newest()
                else:
                    actor.ask(self._message(actor, action))

    def _actor(self, name: str) -> Caller | None:
        if name.startswith("client@"):
            return self.clients[name.removeprefix("client@")]
        return next((agent for agent in self._agents.get(name, ()) if agent.here), None)

    def _message(self, actor: Caller, action: Action) -> Message[Any]:
        match action:
            case Spawn():
                if self.is_base(actor.hub):
                    there = None if action.target_hub == actor.hub else action.target_hub
                    return SpawnAgent(SpawnSpec(action.name, action.plan.prompt(0), target_hub=there))
                spec = SpawnSpec(
                    name=action.name,
                    prompt=action.plan.prompt(0),
                    target_hub=action.target_hub,
                    agent_type=action.agent_type,
                    detached=action.detached,
                    notify_parent=action.notify,
                    parent="forged",
                )
                return SpawnAgent(spec)
            case Send(target=target):
                return letter(actor, target)
            case Wait(target=target, timeout=timeout, by_id=by_id):
                agent_id = actor.known_ids.get(target) if by_id else None
                timeout_ms = None if timeout is None else int(timeout * 1000)
                return WaitAgent(Address.parse(target), agent_id=agent_id, timeout_ms=timeout_ms)
            case Cancel(target=target, shutdown=shutdown) if shutdown or self.is_base(actor.hub):
                return ShutdownAgent(Address.parse(target))
            case Cancel(target=target):
                return CancelAgent(Address.parse(target), reason=f"{actor.name} wants it")
            case Nudge(target=target, control=True):
                return ControlAgent(Address.parse(target), Opaque(b'{"ModeSwitch":"Plan"}'))
            case Nudge(target=target):
                return InterruptAgent(Address.parse(target))
            case Ask(question=True):
                return Question()
            case Ask():
                return Permission(tool_name="rm")
            case Look(what=what, target=target):
                return _look(what, target)
            case _:
                raise AssertionError(action)

    def _attach_operator(self, hub: str, manner: str, stays: float) -> None:
        self._operators += 1
        name = f"operator-{self._operators}@{hub}"
        habits = random.Random(f"{name}-{self.seed}")
        operator = Operator(self, name, hub, manner, habits)
        if self.process(hub).alive:
            self.attach(operator, Role.OPERATOR)
            self.schedule.after(stays, operator.leave)

    # Trouble.

    def _trouble_agent(self, action: AgentDies | AgentFreezes) -> None:
        for agent in self._agents.get(action.agent, ()):
            if agent.life.ended_at is None:
                self.trace("script", action)
                if isinstance(action, AgentDies):
                    agent.die("killed by the script")
                else:
                    agent.freeze(action.lasts)

    def _trouble(self, action: Crash | Freeze | Cut | HalfClose | Partition | Slow) -> None:
        now = self.schedule.now
        self.trace("script", action)
        match action:
            case Crash(name, down):
                self._crash(self.process(name), down)
            case Freeze(name, lasts):
                process = self.process(name)
                if process.alive and not process.frozen:
                    self._note("freeze", name, lasts)
                    process.freeze(lasts)
            case Cut(hub):
                self._note("cut", hub, 0.3)
                if (uplink := self.hubs[hub].uplink) is not None:
                    uplink.cut()
            case HalfClose(hub, by_hub):
                self._note("half close", hub, 0.3)
                if (uplink := self.hubs[hub].uplink) is not None:
                    (uplink.dialler if by_hub else uplink.listener).half_close()
            case Partition(hub, up, down, lasts):
                self._note("partition", hub, lasts)
                line = self.hubs[hub].line
                line.block(up=up, down=down)
                self.schedule.at(now + lasts, line.heal)
            case Slow(hub, extra, lasts):
                self._note("slow", hub, lasts + extra)
                line = self.hubs[hub].line
                line.extra_delay = extra
                self.schedule.at(now + lasts, setattr, line, "extra_delay", 0.0)

    def _note(self, kind: str, process: str, lasts: float) -> None:
        now = self.schedule.now
        self.history.troubles.append(Trouble(kind, process, now, now + lasts))

    def _crash(self, process: Process, down: float, *, kind: str = "crash") -> None:
        if process.alive:
            # Whatever else was wrong with this process is over with it.
            self.history.troubles[:] = [
                evolve(trouble, ends=min(trouble.ends, self.schedule.now))
                if trouble.process == process.name and trouble.kind == "freeze"
                else trouble
                for trouble in self.history.troubles
            ]
            self._note(kind, process.name, down)
            process.crash()
            self.schedule.after(down, process.start)


def _look(what: str, target: str) -> Message[Any]:
    match what:
        case "status":
            return Status()
        case "agents":
            return ListAgents()
        case "topology":
            return Topology()
        case "hubs":
            return ListHubs()
        case "cluster":
            return MetaTopology()
        case "where":
            return Resolve(target)
        case _:
            return AgentInfo(Address.parse(target))
