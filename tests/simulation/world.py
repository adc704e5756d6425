"""A simulated cluster: the processes, the network and the actors, and how a script moves them.

What runs in the processes is another matter: ``cores.py`` puts the pure cores there, ``live/`` the real
runtime.
"""

from __future__ import annotations

import abc
import math
import random
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Protocol

from attrs import evolve

from loopal_cluster.address import Address
from loopal_cluster.config import Limits
from loopal_cluster.core.hub import HubCore
from loopal_cluster.messages import (
    AgentInfo,
    Ask,
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
    Route,
    ShutdownAgent,
    SpawnAgent,
    SpawnSpec,
    Status,
    Topology,
    WaitAgent,
)
from loopal_cluster.runtime.runtime import Core
from tests.simulation.actors import (
    Agent,
    Caller,
    Client,
    Observer,
    Operator,
    Rogue,
    letter,
)
from tests.simulation.bounds import DRIFT, GONE, LOST, ORPHAN, SLACK, TIMEOUTS
from tests.simulation.history import Deviation, History, Trouble
from tests.simulation.network import Connection, End, Line, Owner
from tests.simulation.schedule import Schedule
from tests.simulation.script import (
    META,
    Action,
    AgentDies,
    AgentFreezes,
    AskAgent,
    AskHuman,
    Attach,
    Cancel,
    Crash,
    Cut,
    Flood,
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
from tests.simulation.tables import left_in

__all__ = ["HubNode", "Node", "World"]


class Node(Protocol):
    """A hub or the MetaHub, as far as the world moves it."""

    @property
    def name(self) -> str:
        """How scripts call it."""

    @property
    def run(self) -> int:
        """Counts the starts."""

    @property
    def alive(self) -> bool:
        """Whether its process is there."""

    @property
    def frozen(self) -> int:
        """How many freezes hold it."""

    @property
    def core(self) -> Core | None:
        """What decides in it, if it is up."""

    @property
    def peers(self) -> int:
        """How many connections it has."""

    def start(self) -> None:
        """Begin with an empty memory."""

    def crash(self) -> None:
        """Be gone: no word to anybody but what the system says on the connections."""

    def freeze(self, lasts: float) -> None:
        """Do nothing for a while."""


class HubNode(Node, Protocol):
    """A hub, as far as the world moves it."""

    @property
    def line(self) -> Line:
        """The cable to the MetaHub."""

    @property
    def uplink(self) -> Connection | None:
        """The connection to the MetaHub, if there is one."""

    @property
    def joined(self) -> bool:
        """Whether it is in the cluster."""

    @property
    def has_joined(self) -> bool:
        """Whether it was ever in the cluster as the instance it is now."""


class World(abc.ABC):
    """One run. What a script needs to come true, and the history of what did."""

    client: ClassVar[type[Client]] = Client
    observer: ClassVar[type[Observer]] = Observer
    operator: ClassVar[type[Operator]] = Operator

    meta: Node
    hubs: Mapping[str, HubNode]

    def __init__(self, seed: int, script: Script, *, tracing: bool = False) -> None:
        self.seed = seed
        self.script = script
        self.tracing = tracing
        self.transcript: list[str] = []
        self.schedule = Schedule()
        self.history = History(base=frozenset(script.base))
        self.clients = {name: self.client(self, f"client@{name}", name) for name in (*script.hubs, META)}
        self._agents: list[Agent] = []
        self._connections = 0
        self._operators = 0

    # From beginning to end.

    @abc.abstractmethod
    def run(self) -> History:
        """Carry out the script, heal everything, let everything end; return what happened."""

    @abc.abstractmethod
    def attach(self, caller: Caller, role: Role) -> None:
        """Connect a client to its hub, now or as soon as that is there."""

    @abc.abstractmethod
    def dial(self, owner: Owner, name: str) -> End:
        """Connect whoever speaks in frames to a hub or the MetaHub."""

    def plot(self) -> Iterator[float]:
        """Carry out the script, then heal and end everything; yields when to go on."""
        self._start()
        for step in self.script.steps:
            yield step.at
            self._carry_out(step)
        yield self.script.horizon
        # By now every fault has been healed or is about to be: see ``Trouble.ends``.
        healed = max([self.script.horizon, *(trouble.ends for trouble in self.history.troubles)])
        yield healed + ORPHAN + max(TIMEOUTS.wait_timeout, GONE) + SLACK
        self._end_agents()
        yield self.schedule.now + max(
            self._remembered(), TIMEOUTS.result_ttl + TIMEOUTS.spawn_timeout + 2 * GONE
        )
        self._look_for_absent_hubs()
        if self.script.base:
            yield from self._part_from_base_peers()
        yield from self._look_for_leftovers()

    def _remembered(self) -> float:
        """For how long, at most, hubs remember what agents were asked: up to twice the time that it may be repeated."""
        actions = (step.action for step in self.script.steps)
        longest = max((action.timeout for action in actions if isinstance(action, AskAgent)), default=0.0)
        return DRIFT * 2 * TIMEOUTS.memory(max(longest, TIMEOUTS.call_timeout))

    def _start(self) -> None:
        self.meta.start()
        for hub in self.hubs.values():
            hub.start()
        for client in self.clients.values():
            self.attach(client, Role.CLIENT)
        for name in (META, self.script.hubs[0]):
            if not self.is_base(name):
                self.attach(self.observer(self, f"observer@{name}", name), Role.OBSERVER)

    def _end_agents(self) -> None:
        for agent in list(self._agents):
            agent.die("the run is over")

    def _part_from_base_peers(self) -> Iterator[float]:
        """Let base hubs go for good, and people stop what a base peer has left unsaid of."""
        for hub in self.hubs.values():
            if self.is_base(hub.name):
                hub.crash()
        yield self.schedule.now + LOST + SLACK
        for hub in self.hubs.values():
            client = self.clients[hub.name]
            if isinstance(hub.core, HubCore) and client.here:
                for record in hub.core.agents:
                    client.ask(CancelAgent(record.address, agent_id=record.id, reason="forgotten"))
        yield self.schedule.now + TIMEOUTS.spawn_timeout + TIMEOUTS.result_ttl + 2 * GONE

    def _look_for_leftovers(self) -> Iterator[float]:
        for process in (self.meta, *self.hubs.values()):
            if self.is_base(process.name):
                continue
            # The announcement of a heartbeat may just be on its way.
            for _ in range(8):
                left = left_in(process.core, peers=process.peers, hubs=len(self.hubs))
                if not left:
                    break
                yield self.schedule.now + TIMEOUTS.heartbeat_interval / 8
            for name, what in left:
                self.deviate("tables empty when quiet", f"{process.name} still has {name}: {what}")

    def _look_for_absent_hubs(self) -> None:
        for hub in self.hubs.values():
            if not hub.joined:
                self.deviate("hubs come back", f"{hub.name} is not joined long after everything was healed")

    # For the parts of the world.

    def trace(self, who: str, *what: object) -> None:
        """Write a line of the transcript, if anybody wants it."""
        if self.tracing:
            self.transcript.append(f"{self.schedule.now:9.4f} {who:14} {' '.join(map(str, what))}")

    def deviate(self, checker: str, text: str, traceback: str = "") -> None:
        """Note a promise that was seen not to be kept."""
        self.trace("!!", checker, text)
        self.history.deviations.append(Deviation(checker, self.schedule.now, text, traceback))

    def process(self, name: str) -> Node:
        """A hub, or the MetaHub."""
        return self.meta if name == META else self.hubs[name]

    def is_base(self, process: str) -> bool:
        """Whether it speaks the base dialect only."""
        return process in self.script.base

    def trusts(self, hub: str) -> bool:
        """Whether clients of this hub are part of its program and need no token."""
        return hub != META and int(hub.rpartition("-")[2]) % 2 == 0

    def add_agent(self, agent: Agent) -> None:
        """Let an agent be there."""
        self._agents.append(agent)

    def on_refused(self, hub: HubNode, reason: str) -> None:
        """The MetaHub will not have this hub, which dials on."""
        self.trace(hub.name, "was refused by the MetaHub:", reason)
        if hub.has_joined:
            self.deviate("hubs come back", f"{hub.name} was in the cluster and is refused now: {reason}")

    def on_left(self, hub: HubNode, after: float) -> None:
        """A base hub has lost its MetaHub: some time later somebody notices and starts it anew."""
        self._note("left", hub.name, after)
        self.schedule.after(after, self._restart_refused, hub, hub.run)

    def _restart_refused(self, hub: HubNode, run: int) -> None:
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
                    rogue.join(self.dial(rogue, META))
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
                elif isinstance(action, Flood):
                    self._flood(actor, action.count)
                else:
                    actor.ask(self._message(actor, action))

    def _actor(self, name: str) -> Caller | None:
        if name.startswith("client@"):
            return self.clients[name.removeprefix("client@")]
        return next((agent for agent in self._agents if agent.life.address == name and agent.here), None)

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
                    timeout_ms=None if action.time_limit is None else int(action.time_limit * 1000),
                    parent="forged",
                )
                return SpawnAgent(spec)
            case Send(target=target):
                return Route(letter(actor, target))
            case AskAgent(target=target, timeout=timeout, extend=extend, through=through):
                envelope = letter(actor, target, through)
                return Ask(evolve(envelope, timeout_ms=int(timeout * 1000), extend=extend))
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
            case AskHuman(question=True):
                return Question()
            case AskHuman():
                return Permission(tool_name="rm")
            case Look(what=what, target=target):
                return _look(what, target)
            case _:
                raise AssertionError(action)

    def _flood(self, actor: Caller, count: int) -> None:
        if actor.life is None or self.is_base(actor.hub):  # that one shows everything
            return
        # Each has its time when it is its turn; while nobody is attached all have theirs at once.
        turns = math.ceil(count / Limits().asks_shown_per_agent)
        actor.life.floods = (turns + 2) * TIMEOUTS.permission_timeout
        for _ in range(count):
            actor.ask(Permission(tool_name="rm"))

    def _attach_operator(self, hub: str, manner: str, stays: float) -> None:
        self._operators += 1
        name = f"operator-{self._operators}@{hub}"
        habits = random.Random(f"{name}-{self.seed}")
        operator = self.operator(self, name, hub, manner, habits)
        if self.process(hub).alive:
            self.attach(operator, Role.OPERATOR)
            self.schedule.after(stays, operator.leave)

    # Trouble.

    def _trouble_agent(self, action: AgentDies | AgentFreezes) -> None:
        for agent in self._agents:
            if agent.life.address == action.agent and agent.life.ended_at is None:
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

    def _crash(self, process: Node, down: float, *, kind: str = "crash") -> None:
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
