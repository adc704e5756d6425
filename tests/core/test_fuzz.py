"""Any peer may say anything at any time: a core never raises, answers once, and leaves nothing behind.

Each step of a random scenario picks a peer and something it does. Answers to the core's own calls are
of the right type, as the codec sees to that; all else is arbitrary. A monitor watches both directions
and knows what must be true of every frame.
"""

from __future__ import annotations

from typing import Any

from attrs import define, evolve, field
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loopal_cluster import messages as m
from loopal_cluster.address import Address
from loopal_cluster.completions import wrap_result
from loopal_cluster.config import HubSettings, Limits, MetaHubSettings, Timeouts
from loopal_cluster.core.effects import Disconnect, Effect, Send, StartAgent, StopAgent
from loopal_cluster.core.events import AgentEnded, AgentNotStarted, AgentStarted, Link, Peer
from loopal_cluster.core.hub import HubCore
from loopal_cluster.core.meta_hub import MetaHubCore
from loopal_cluster.core.parties import PROTOCOL
from loopal_cluster.errors import ErrorCode
from loopal_cluster.frames import Failure, Request, Response
from loopal_cluster.outcomes import Cancelled, Done, Failed
from loopal_cluster.payloads import Finished
from loopal_cluster.testing import CoreDriver, sent

from .builders import TOKEN, ids

TIMES = Timeouts(permission_timeout=50.0, wait_timeout=40.0, result_ttl=100.0)
TIGHT = Limits(
    calls_per_peer=3,
    requests_per_peer=4,
    hubs=3,
    agents=6,
    agent_depth=2,
    results=3,
    asks=3,
    asks_shown_per_agent=1,
    asks_shown_per_hub=2,
    inbox=2,
)

# What peers say.

NAMES = st.sampled_from(["a", "b", "here", "x", "y"])
IDS = st.none() | st.sampled_from([f"id-{n}" for n in range(1, 9)] + ["s-1", ""])
ADDRESSES = st.builds(Address, NAMES, st.none() | NAMES)
OUTCOMES = st.sampled_from([Done("yes"), Failed("boom"), Cancelled("enough")])
SOURCES = st.sampled_from(
    [m.AgentSource("x"), m.HumanSource(), m.SystemSource("agent-completed"), m.ChannelSource("c", "ann")]
)
CONTENTS = st.sampled_from([m.UserContent("hi"), m.EMPTY]) | st.builds(
    lambda name: m.UserContent(wrap_result(name, "done")), NAMES
)
ENVELOPES = st.builds(
    m.Envelope, st.just("m"), SOURCES, ADDRESSES, CONTENTS, st.just(""), origin_hub=st.none() | NAMES
)
SPECS = st.builds(
    m.SpawnSpec,
    name=NAMES | st.just("no/name"),
    parent=st.none() | NAMES | ADDRESSES.map(str) | st.just("//"),
    target_hub=st.none() | NAMES,
    agent_type=st.sampled_from([None, "t", "z"]),
    spawn_id=IDS,
    depth=st.integers(0, 3),
    notify_parent=st.sampled_from([None, True, False]),
    detached=st.booleans(),
)
PROTOCOLS = st.sampled_from([None, PROTOCOL, m.Protocol(0), m.Protocol(9, ("complete",))])
TOKENS = st.sampled_from([TOKEN, TOKEN, TOKEN, "wrong"])
COMPLETIONS = st.builds(m.Completion, IDS.map(str), ADDRESSES, ADDRESSES, OUTCOMES)
REQUESTS = st.one_of(
    st.builds(m.Register, NAMES, TOKENS, st.sampled_from(m.Role), PROTOCOLS),
    st.builds(m.RegisterHub, NAMES, TOKENS, protocol=PROTOCOLS, instance=st.sampled_from([None, "1", "2"])),
    st.builds(m.Route, ENVELOPES),
    st.builds(m.MetaRoute, ENVELOPES),
    st.builds(m.DeliverEnvelope, ENVELOPES),
    st.builds(m.SpawnAgent, SPECS),
    st.builds(m.MetaSpawn, SPECS),
    st.builds(m.WaitAgent, ADDRESSES, IDS, st.none() | st.integers(-1, 60_000)),
    st.builds(m.AgentInfo, ADDRESSES, IDS),
    st.builds(m.ControlAgent, ADDRESSES),
    st.builds(m.InterruptAgent, ADDRESSES),
    st.builds(m.ShutdownAgent, ADDRESSES),
    st.builds(m.CancelAgent, ADDRESSES, IDS),
    st.builds(m.Resolve, NAMES | st.just("no/such/name")),
    st.builds(m.MetaComplete, COMPLETIONS),
    st.builds(m.HubComplete, COMPLETIONS),
    st.builds(m.HubLost, NAMES, st.just("gone")),
    st.builds(m.Permission, timeout_ms=st.none() | st.integers(-1, 60_000)),
    st.builds(m.Question, timeout_ms=st.none() | st.integers(-1, 60_000)),
    st.builds(
        m.Announce,
        st.lists(st.builds(m.Announced, NAMES, st.just("id")), max_size=2).map(tuple),
        st.lists(NAMES, max_size=2).map(tuple),
        st.booleans(),
    ),
    st.builds(m.Subscribe, st.none() | st.integers(-1, 5)),
    st.sampled_from([m.ListAgents(), m.ListHubs(), m.Status(), m.Topology(), m.MetaTopology(), m.Leave()]),
)
NOTICES = st.one_of(
    st.builds(m.Heartbeat, NAMES, st.integers(0, 5)),
    st.builds(m.AgentEvent, st.none() | NAMES, st.just(Finished())),
    st.builds(m.Completed, st.sampled_from(["goal", "error", "aborted"]), st.none() | st.just("text")),
    st.builds(m.CancelRequest, st.integers(1, 8)),
    st.builds(m.DeliverEnvelope, ENVELOPES),
    st.builds(m.Decided, st.just("id-1"), st.none()),
)
RESULTS: dict[Any, st.SearchStrategy[Any]] = {
    m.Ok: st.builds(m.Ok, st.booleans()),
    m.Welcome: st.sampled_from(
        [m.Welcome(protocol=PROTOCOL), m.Welcome(protocol=PROTOCOL), m.Welcome(), m.Welcome(ok=False)]
    ),
    m.Found: st.builds(m.Found, st.booleans()),
    m.HubList: st.sampled_from([m.HubList(()), m.HubList((m.HubInfo("here", "Connected"),))]),
    m.HubTopology: st.just(m.HubTopology(())),
    m.ClusterTopology: st.just(m.ClusterTopology(())),
    m.Initialized: st.just(m.Initialized()),
    m.Started: st.just(m.Started("s")),
    m.Spawned: st.just(m.Spawned("id", "x")),
    m.Waited: st.builds(m.Waited, st.just("text"), st.booleans(), outcome=st.none() | OUTCOMES),
    m.Decision: st.builds(m.Decision, st.booleans()),
    m.Answers: st.just(m.Answers(("yes",))),
    m.AgentDetails: st.just(m.AgentDetails("x", "Running")),
}
FAILURES = st.sampled_from(
    [ErrorCode.REFUSED, ErrorCode.HUB_NOT_CONNECTED, ErrorCode.OVERLOADED, ErrorCode.NAME_TAKEN]
)


# What must be true.


@define
class Monitor:
    """A core under attack, and what is known of its peers and its agents."""

    driver: CoreDriver
    peers: list[Peer] = field(factory=list)
    """Connected, agents' connections not included."""
    hung_up: set[Peer] = field(factory=set)
    open: dict[Peer, dict[int, m.Message[Any]]] = field(factory=dict)
    """The requests of each peer that are not answered."""
    calls: dict[Peer, dict[int, m.Message[Any]]] = field(factory=dict)
    """The requests to each peer that it has not answered."""
    starting: list[str] = field(factory=list)
    agents: dict[str, Peer] = field(factory=dict)
    last_id: int = 0

    def see(self, effects: list[Effect]) -> None:
        """Check what a core has decided, and remember it."""
        for effect in effects:
            match effect:
                case Send(peer, Response(request_id) | Failure(request_id)):
                    assert self.open[peer].pop(request_id, None) is not None, f"answered twice: {effect}"
                    assert peer not in self.hung_up, f"answered after hanging up: {effect}"
                case Send(peer, Request(request_id, message)):
                    assert request_id not in self.calls.get(peer, {}), f"an id is used twice: {effect}"
                    self.calls.setdefault(peer, {})[request_id] = message
                case Disconnect(peer):
                    assert peer not in self.hung_up, f"hung up twice: {effect}"
                    assert peer in self.peers, f"hung up on nobody: {effect}"
                    self.hung_up.add(peer)
                case StartAgent(agent_id):
                    assert agent_id not in self.starting + list(self.agents), f"started twice: {effect}"
                    self.starting.append(agent_id)
                case StopAgent(agent_id):
                    assert agent_id in self.starting + list(self.agents), f"stopped what is not: {effect}"

    def connect(self, link: Link) -> None:
        """Somebody connects."""
        before = len(self.driver.transcript)
        peer = self.driver.connect(link)
        self.peers.append(peer)
        if any("RegisterHub" in line for line in self.driver.transcript[before:]):
            self.calls[peer] = {1: m.RegisterHub("here")}

    def ask(self, peer: Peer, message: m.Message[Any]) -> None:
        """A peer asks."""
        self.last_id += 1
        self.open.setdefault(peer, {})[self.last_id] = message
        self.see(self.driver.receive(peer, Request(self.last_id, message)))

    def lose(self, peer: Peer) -> None:
        """A connection ends."""
        self.peers.remove(peer)
        self.hung_up.discard(peer)
        effects = self.driver.lose(peer)
        assert sent(effects, peer) == []
        self.see(effects)

    def ended(self, agent_id: str) -> None:
        """An agent is gone."""
        peer = self.agents.pop(agent_id, None)
        self.starting = [other for other in self.starting if other != agent_id]
        effects = self.driver.handle(AgentEnded(agent_id, "killed"))
        assert sent(effects, peer) == [] if peer is not None else True
        self.see(effects)

    def voices(self) -> list[Peer]:
        """All who can say something."""
        return [*self.peers, *self.agents.values()]

    def act(self, data: st.DataObject) -> None:
        """Let something happen."""
        actions = ["time", "connect"]
        actions += ["ask"] * 4 + ["notify", "answer", "answer", "answer", "lose"] if self.voices() else []
        actions += ["up"] * 3 + ["down"] if self.starting else []
        actions += ["end"] if self.agents else []
        match data.draw(st.sampled_from(actions)):
            case "time":
                self.see(self.driver.advance(data.draw(st.sampled_from([0.0, 0.5, 1.0, 10.0, 31.0, 95.0]))))
            case "connect":
                self.join(data)
            case "ask":
                self.ask(data.draw(st.sampled_from(self.voices())), data.draw(REQUESTS))
            case "notify":
                peer, message = data.draw(st.sampled_from(self.voices())), data.draw(NOTICES)
                self.see(self.driver.notify(peer, message))
            case "answer":
                self.answer(data)
            case "lose":
                if self.peers:
                    self.lose(data.draw(st.sampled_from(self.peers)))
            case "up":
                agent_id, peer = self.starting.pop(0), self.driver.new_peer()
                self.agents[agent_id] = peer
                self.see(self.driver.handle(AgentStarted(agent_id, peer)))
            case "down":
                self.see(self.driver.handle(AgentNotStarted(self.starting[0], "no such file")))
                self.ended(self.starting[0])
            case "end":
                self.ended(data.draw(st.sampled_from(list(self.agents))))

    def join(self, data: st.DataObject) -> None:
        """Somebody connects and mostly registers properly: else most scenarios were of strangers."""
        is_hub = isinstance(self.driver.core, HubCore)
        uplinks = [Link.UPLINK] if is_hub and self.driver.core.uplink.peer is None else []
        link = data.draw(st.sampled_from([Link.ACCEPTED, Link.ACCEPTED, *uplinks]))
        self.connect(link)
        peer, name = self.peers[-1], data.draw(NAMES)
        if link is Link.UPLINK:
            if data.draw(st.booleans()):
                self.calls[peer].pop(1)
                self.see(self.driver.receive(peer, Response(1, m.Welcome(protocol=PROTOCOL))))
        elif is_hub or data.draw(st.integers(0, 3)) == 0:
            self.ask(peer, m.Register(name, TOKEN, data.draw(st.sampled_from(m.Role))))
        else:
            base = data.draw(st.booleans())
            register = m.RegisterHub(name, TOKEN, protocol=PROTOCOL, instance="1")
            self.ask(peer, evolve(register, protocol=None, instance=None) if base else register)

    def answer(self, data: st.DataObject) -> None:
        """A peer answers a call, or something that nobody has asked it."""
        voices = [peer for peer in self.voices() if self.calls.get(peer)]
        if not voices:
            peer = data.draw(st.sampled_from(self.voices()))
            self.see(self.driver.receive(peer, Response(data.draw(st.integers(0, 99)), m.OK)))
            return
        peer = data.draw(st.sampled_from(voices))
        call_id = data.draw(st.sampled_from(list(self.calls[peer])))
        message = self.calls[peer].pop(call_id)
        result = data.draw(RESULTS[message.result])
        refusal = Failure(call_id, data.draw(FAILURES), "no")
        says_yes = data.draw(st.integers(0, 3)) > 0
        self.see(self.driver.receive(peer, Response(call_id, result) if says_yes else refusal))

    def end(self) -> None:
        """Everybody goes and time passes: nothing must be left."""
        while self.starting or self.agents or self.peers:
            for agent_id in [*self.starting, *self.agents]:
                self.ended(agent_id)
            for peer in list(self.peers):
                self.lose(peer)
        self.see(self.driver.advance(10_000.0))


def check_exchange(driver: CoreDriver) -> None:
    """Nobody is talked with, and nothing is waited for."""
    exchange = driver.core.exchange
    assert exchange._requests == {}
    assert exchange.calls._legs == {}
    assert exchange.drain() == []
    assert driver.core.next_deadline() is None
    assert exchange.calls._deadlines._calls == {}


FUZZ = settings(suppress_health_check=list(HealthCheck))
LIMITS = st.sampled_from([Limits(), TIGHT])


@FUZZ
@given(st.data(), LIMITS, st.integers(1, 60))
def test_a_meta_hub_survives_anything_and_forgets_everybody(data, limits, steps):
    core = MetaHubCore(MetaHubSettings("c", TOKEN, TIMES, limits), ids())
    monitor = Monitor(CoreDriver(core))

    for _ in range(steps):
        monitor.act(data)
    monitor.end()

    check_exchange(monitor.driver)
    assert list(core.hubs) == []
    assert core.directory == type(core.directory)()
    assert (core._routing._lookups, core._lookup._gathers, len(core._approvals.pending)) == ({}, {}, 0)
    assert (len(core._timers), core._parties, core._timeline._subscribers) == (0, {}, {})


@FUZZ
@given(st.data(), LIMITS, st.integers(1, 60))
def test_a_hub_survives_anything_and_forgets_everybody(data, limits, steps):
    known = HubSettings(
        "here", "1", TOKEN, agent_types=("t",), default_type="t", timeouts=TIMES, limits=limits
    )
    core = HubCore(known, ids())
    monitor = Monitor(CoreDriver(core))

    for _ in range(steps):
        monitor.act(data)
    monitor.end()

    check_exchange(monitor.driver)
    shadows = [record for record in core.agents if record.hub is not None]
    assert list(core.agents) == shadows, "an agent that runs here outlived its end"
    assert (len(core._waits), core._deliveries._backlog, len(core._reports)) == (0, {}, 0)
    assert (len(core._approvals.pending), len(core._results)) == (0, 0)
    assert (len(core._timers), core._parties, core._timeline._subscribers) == (0, {}, {})
