"""A hub that speaks the base dialect only, as Loopal's does.

It knows agents by name, and the newest of a name only; runs one type; believes senders and parents; takes
an agent's last word, whatever it is, for a result; reports it once, in a message; believes every such
message, from wherever it comes; stops an agent by asking it, once; and does not dial again.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from attrs import define, evolve, field

from loopal_cluster.address import Address
from loopal_cluster.completions import AGENT_COMPLETED, unwrap_result, wrap_result
from loopal_cluster.config import HubSettings
from loopal_cluster.core.calls import Origin
from loopal_cluster.core.effects import Joined, StartAgent
from loopal_cluster.core.events import Link, Peer
from loopal_cluster.errors import InvalidAddress
from loopal_cluster.frames import Failure, Response
from loopal_cluster.messages import (
    OK,
    Addressed,
    AgentDetails,
    AgentInfo,
    AgentNames,
    AgentNode,
    AgentStart,
    Completed,
    Control,
    ControlAgent,
    DeliverEnvelope,
    Envelope,
    Found,
    Heartbeat,
    HubTopology,
    Initialize,
    Interrupt,
    InterruptAgent,
    ListAgents,
    ListHubs,
    Message,
    MetaRoute,
    MetaSpawn,
    MetaTopology,
    Permission,
    Question,
    Register,
    RegisterHub,
    Resolve,
    Role,
    Route,
    Shutdown,
    ShutdownAgent,
    SpawnAgent,
    Spawned,
    SpawnSpec,
    Status,
    StatusInfo,
    Topology,
    UplinkInfo,
    UserContent,
    WaitAgent,
    Waited,
    Welcome,
)
from loopal_cluster.wire.contents import user_content
from tests.simulation.base_meta_hub import DENIED
from tests.simulation.base_peer import DROPPED, BasePeer
from tests.simulation.history import NO_OUTPUT

__all__ = ["AGENT_TYPE", "BaseHub"]

AGENT_TYPE = "quick"
"""What it starts, whatever it is asked for."""


@define(eq=False)
class _Agent:
    """An agent here, or (no peer) the shadow of one elsewhere."""

    name: str
    parent: str
    peer: Peer | None = None
    waiter: Origin | None = None
    children: list[str] = field(factory=list)


@define(eq=False)
class _Start:
    """An agent that is coming up."""

    spec: SpawnSpec
    then: Callable[[Spawned | None], None]


class BaseHub(BasePeer):
    """Hosts agents."""

    def __init__(self, settings: HubSettings, new_id: Callable[[], str]) -> None:
        super().__init__(new_id)
        self._settings = settings
        self._uplink: Peer | None = None
        self._joined = False
        self._beat_at: float | None = None
        self._agents: dict[str, _Agent] = {}
        self._outputs: dict[str, str] = {}
        self._starts: dict[str, _Start] = {}
        self._names: dict[Peer, str] = {}
        """Of agents and windows."""
        self._peers: dict[str, Peer] = {}
        """Of agents, by their id."""
        self._windows: list[Peer] = []
        """Where a human can be asked."""

    # The MetaHub.

    def on_connected(self, peer: Peer, link: Link) -> None:
        if link is Link.UPLINK:
            self._uplink = peer
            message = RegisterHub(name=self._settings.name, token=self._settings.meta_token)
            self.ask(peer, message, partial(self._on_registered, peer))

    def _on_registered(self, peer: Peer, answer: Response | Failure) -> None:
        if isinstance(answer, Response) and answer.result.ok:
            self._joined = True
            self.exchange.perform(Joined())
            self._beat()
        elif self._uplink is not None:
            self._uplink = None
            self.exchange.hang_up(peer, "MetaHub rejected registration")

    def _beat(self) -> None:
        if self._uplink is not None:
            count = len(self._agents)
            self.exchange.notify(self._uplink, Heartbeat(self._settings.name, count))
            self._beat_at = self.now + self._settings.timeouts.heartbeat_interval

    def next_deadline(self) -> float | None:
        due = (super().next_deadline(), self._beat_at)
        return min((at for at in due if at is not None), default=None)

    def on_time(self) -> None:
        if self._beat_at is not None and self._beat_at <= self.now:
            self._beat_at = None
            self._beat()

    def on_lost(self, peer: Peer) -> None:
        if peer == self._uplink:
            self._uplink, self._joined, self._beat_at = None, False, None
        if peer in self._windows:
            self._windows.remove(peer)
        self._names.pop(peer, None)

    def _ask_meta_hub(self, origin: Origin, message: Message[Any]) -> None:
        if self._uplink is None or not self._joined:
            self.refuse(origin, "not connected to MetaHub cluster")
        else:
            failed = f"{message.method} error: "
            self.ask(self._uplink, message, lambda answer: self.pass_on(origin, answer, failed))

    # Requests.

    def on_request(self, origin: Origin, message: Message[Any]) -> None:
        if origin.peer == self._uplink:
            self._on_meta_hub_request(origin, message)
        elif isinstance(message, Register):
            self._register(origin, message)
        elif origin.peer in self._names:
            self._serve(origin, message, self._names[origin.peer])
        # An agent whose name was taken when it came up is not listened to.

    def _register(self, origin: Origin, message: Register) -> None:
        """A human's window, or a program that acts for one; Loopal has both in its own process."""
        self._names[origin.peer] = message.name
        if message.role is Role.OPERATOR:
            self._windows.append(origin.peer)
        self.answer(origin, Welcome())

    def _on_meta_hub_request(self, origin: Origin, message: Message[Any]) -> None:
        match message:
            case Resolve(name):
                self.answer(origin, Found(found=self._running(name) is not None))
            case DeliverEnvelope(envelope):
                self._take_report(envelope)
                self._deliver(origin, envelope)
            case Permission() | Question():
                self.refuse(origin, f"unknown: {message.method}")
            case _:
                self._serve(origin, message, f"meta:{self._settings.name}")

    def _serve(self, origin: Origin, message: Message[Any], caller: str) -> None:
        match message:
            case Route(envelope):
                self._route(origin, envelope)
            case SpawnAgent(spec):
                self._spawn(origin, spec, caller)
            case WaitAgent(address):
                self._wait(origin, address.agent)
            case ListAgents():
                self.answer(origin, AgentNames(tuple(self._agents)))
            case Topology():
                self.answer(origin, HubTopology(tuple(map(self._node, self._agents.values()))))
            case Status():
                uplink = UplinkInfo(True, self._settings.name) if self._joined else None
                self.answer(origin, StatusInfo(len(self._agents), uplink))
            case AgentInfo() | ControlAgent() | InterruptAgent() | ShutdownAgent():
                self._addressed(origin, message)
            case Permission() | Question():
                self._ask_human(origin, evolve(message, agent_name=caller))
            case MetaRoute() | MetaSpawn() | ListHubs() | MetaTopology() | Resolve():
                self._ask_meta_hub(origin, message)
            case _:
                self.refuse(origin, f"unknown hub method: {message.method}")

    def _node(self, agent: _Agent) -> AgentNode:
        return AgentNode(agent.name, agent.parent, tuple(agent.children))

    def _running(self, name: str) -> Peer | None:
        agent = self._agents.get(name)
        return None if agent is None else agent.peer

    # Messages.

    def _route(self, origin: Origin, envelope: Envelope) -> None:
        peer = self._running(envelope.target.agent)
        if envelope.target.hub is not None or peer is None:
            self._ask_meta_hub(origin, MetaRoute(envelope))
        else:
            failed = f"delivery to '{envelope.target}' failed: {DROPPED}"
            self._hand_over(
                peer, envelope, lambda ok: self.answer(origin, OK) if ok else self.refuse(origin, failed)
            )

    def _deliver(self, origin: Origin, envelope: Envelope) -> None:
        """Bring a message from another hub; nothing else of the MetaHub is looked at meanwhile."""
        if (peer := self._running(envelope.target.agent)) is None:
            self.answer(origin, evolve(OK, ok=False))
        else:
            self._hand_over(peer, envelope, lambda ok: self.answer(origin, evolve(OK, ok=ok)))

    def _hand_over(self, peer: Peer, envelope: Envelope, then: Callable[[bool], None]) -> None:
        """Ask an agent to take a message; its refusal counts as an acceptance."""

        def on_answer(answer: Response | Failure) -> None:
            then(isinstance(answer, Response) or answer.detail != DROPPED)

        self.ask(peer, DeliverEnvelope(envelope), on_answer)

    def _take_report(self, envelope: Envelope) -> None:
        """Whoever such a message names has ended, whoever says so."""
        if envelope.source == AGENT_COMPLETED:
            text = user_content(envelope.content).text
            if (report := unwrap_result(text)) is not None and report[0] in self._agents:
                self._agents[report[0]].parent = ""  # it gets the message itself
                self._finish(report[0], text)

    # Agents.

    def _spawn(self, origin: Origin, spec: SpawnSpec, caller: str) -> None:
        if spec.target_hub is not None:
            self._spawn_there(origin, spec, caller)
            return
        spec = evolve(spec, parent=spec.parent or caller)

        def then(spawned: Spawned | None) -> None:
            if spawned is None:
                self.refuse(origin, f"spawn failed: agent/start failed: {DROPPED}")
            else:
                self.answer(origin, spawned)

        agent_id = self._new_id()
        self._starts[agent_id] = _Start(spec, then)
        self.exchange.perform(StartAgent(agent_id, spec.name, AGENT_TYPE, spec.cwd or "."))

    def _spawn_there(self, origin: Origin, spec: SpawnSpec, caller: str) -> None:
        if self._uplink is None or not self._joined:
            self.refuse(origin, "target_hub specified but no MetaHub uplink")
            return

        def on_answer(answer: Response | Failure) -> None:
            if isinstance(answer, Response):  # whatever had the name is replaced
                self._add(_Agent(spec.name, caller))
            self.pass_on(origin, answer, "meta/spawn error: ")

        parent = f"{self._settings.name}/{caller}"
        self.ask(self._uplink, MetaSpawn(evolve(spec, parent=parent)), on_answer)

    def _add(self, agent: _Agent) -> None:
        self._agents[agent.name] = agent
        if (parent := self._agents.get(agent.parent)) is not None:
            parent.children.append(agent.name)

    def on_agent_started(self, agent_id: str, peer: Peer) -> None:
        self._peers[agent_id] = peer
        self.ask(peer, Initialize(), partial(self._on_initialized, agent_id))

    def _on_initialized(self, agent_id: str, answer: Response | Failure) -> None:
        start, peer = self._starts.get(agent_id), self._peers.get(agent_id)
        if start is None or peer is None or not self.exchange.knows(peer):
            return
        spec = start.spec
        message = AgentStart(spec.cwd, "ephemeral", model=spec.model, prompt=spec.prompt)
        self.ask(peer, message, partial(self._on_begun, agent_id))

    def _on_begun(self, agent_id: str, answer: Response | Failure) -> None:
        start = self._starts.pop(agent_id, None)
        if start is None:
            return
        if isinstance(answer, Failure):
            start.then(None)
            return
        peer, name = self._peers[agent_id], start.spec.name
        if name not in self._agents:  # else its process is left to itself
            self._names[peer] = name
            self._add(_Agent(name, start.spec.parent or "", peer))
        start.then(Spawned(agent_id, name))

    def on_agent_ended(self, agent_id: str) -> None:
        peer = self._peers.pop(agent_id, None)
        if (start := self._starts.pop(agent_id, None)) is not None:
            start.then(None)
        if peer is not None:
            self._leave(peer, NO_OUTPUT)

    def on_notification(self, peer: Peer, message: Message[Any]) -> None:
        if isinstance(message, Completed) and peer in self._names:
            text = message.result_text
            self._leave(peer, NO_OUTPUT if text is None else text)

    def _leave(self, peer: Peer, output: str) -> None:
        """An agent has said its last word, or is gone."""
        name = self._names.pop(peer, None)
        if name is not None and self._running(name) == peer:
            self._finish(name, output)
        self.forget(peer)

    def _finish(self, name: str, output: str) -> None:
        agent = self._agents.pop(name)
        self._outputs[name] = output
        if agent.waiter is not None:
            self.exchange.answer(agent.waiter, Waited(output))
        for child in agent.children:
            if (peer := self._running(child)) is not None:
                self.exchange.notify(peer, Interrupt())
        if self._uplink is not None and self._running(agent.parent) is None:
            with suppress(InvalidAddress):  # "meta:hub-1", for one that a client of the MetaHub wanted
                self._report(self._uplink, agent, output)

    def _report(self, uplink: Peer, agent: _Agent, output: str) -> None:
        """Send the result to a parent elsewhere, once; if that fails, it fails."""
        envelope = Envelope(
            id=self._new_id(),
            source=AGENT_COMPLETED,
            target=Address.parse(agent.parent),
            content=UserContent(wrap_result(agent.name, output)),
            timestamp="2026-01-01T00:00:00Z",
        )
        self.ask(uplink, MetaRoute(envelope), lambda _: None)

    # Anything about one agent.

    def _wait(self, origin: Origin, name: str) -> None:
        """Wait in the background; a second who waits takes the place of the first."""
        agent = self._agents.get(name)
        if name in self._outputs:
            self.answer(origin, Waited(self._outputs[name]))
        elif agent is None:
            self.answer(origin, Waited("agent not found or already finished"))
        else:
            if agent.waiter is not None:
                self.exchange.answer(agent.waiter, Waited("agent terminated"))
            agent.waiter = origin
            self.read_on(origin)

    def _addressed(self, origin: Origin, message: Addressed) -> None:
        name = message.agent.agent
        agent, peer = self._agents.get(name), self._running(name)
        match message:
            case AgentInfo() if agent is not None:
                details = AgentDetails(name, "Running", parent=agent.parent, children=tuple(agent.children))
                self.answer(origin, details)
            case AgentInfo() if name in self._outputs:
                self.answer(origin, AgentDetails(name, "Finished", self._outputs[name]))
            case AgentInfo():
                self.refuse(origin, f"agent '{name}' not found")
            case _ if peer is None:
                self.refuse(origin, f"no agent: '{name}'")
            case InterruptAgent():
                self.exchange.notify(peer, Interrupt())
                self.answer(origin, OK)
            case ControlAgent(command=command):
                self.ask(peer, Control(command), lambda _: self.answer(origin, OK))
            case _:
                self.ask(peer, Shutdown(), lambda _: self.answer(origin, OK))

    # Humans.

    def _ask_human(self, origin: Origin, message: Permission | Question) -> None:
        """Ask every window: the first that answers, fails or takes too long decides. Else the MetaHub."""

        def on_answer(answer: Response | Failure) -> None:
            self.answer(origin, answer.result if isinstance(answer, Response) else DENIED)

        judges = list(self._windows)
        timeout = self._settings.timeouts.permission_timeout
        for judge in judges:
            self.ask(judge, message, on_answer, timeout)
        if not judges and self._uplink is not None and self._joined:
            self.ask(self._uplink, message, on_answer)
        elif not judges:
            self.answer(origin, DENIED)
