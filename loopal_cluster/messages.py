"""The vocabulary: one frozen record per method, with its wire name, its result and its nature.

A request's class says which result answers it, so ``await client.call(Status())`` is a
``StatusInfo`` to the type checker. What else there is to know of a method is said at its class and nowhere else: who
may send it, whether it is repeated, only looks, is all about its answer, and how long that may take (``Message``).
Fields made with ``extension`` are ours: a base peer ignores
them, and they are left out when they have their default. ``Opaque`` is JSON that nobody on the
way reads. ``wire/codec.py`` turns these records into lines; ``docs/protocol.md`` has the prose.

In this order: how a method is described (``Direction``, ``Patience``, ``Message``); values (``Envelope``,
``SpawnSpec``, ...); results (``Ok``, ``Welcome``, ...); methods to a hub from its agents and clients (``hub/...``);
between a hub and an agent (``agent/...``); between a hub and its MetaHub (``meta/...``); ``METHODS``, by wire name.

One message on its way from an agent to an agent of another hub, and what else goes that way; each leg is a request of
its own, with an id of its own::

    from, to           a message         an ask       a spawn      an outcome     a comparison
    agent, its hub     Route             Ask          SpawnAgent   Completed
    hub, MetaHub       MetaRoute         MetaAsk      MetaSpawn    MetaComplete   MetaReconcile
    MetaHub, hub       DeliverEnvelope   DeliverAsk   SpawnAgent   HubComplete    HubReconcile
    hub, its agent     DeliverEnvelope   DeliverAsk   AgentStart   (a message)

The names on the wire are the records' ``method``: ``hub/route``, ``meta/route``, ``agent/message``, ``agent/message``.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any, ClassVar, Generic, TypeVar

from attrs import Factory, field

from loopal_cluster import labels as text
from loopal_cluster.address import Address
from loopal_cluster.outcomes import Outcome
from loopal_cluster.records import record

__all__ = [
    "METHODS",
    "Addressed",
    "AgentDetails",
    "AgentEvent",
    "AgentInfo",
    "AgentNames",
    "AgentNode",
    "AgentSource",
    "AgentStart",
    "Announce",
    "Announced",
    "Answers",
    "Ask",
    "Attended",
    "CancelAgent",
    "CancelRequest",
    "ChannelSource",
    "ClusterEvent",
    "ClusterTopology",
    "Completed",
    "Completion",
    "Control",
    "ControlAgent",
    "Decision",
    "Decided",
    "DeliverAsk",
    "DeliverEnvelope",
    "Direction",
    "Envelope",
    "Found",
    "Heartbeat",
    "HubComplete",
    "HubInfo",
    "HubList",
    "HubLost",
    "HubReconcile",
    "HubTopology",
    "HumanSource",
    "Image",
    "Initialize",
    "Initialized",
    "Interrupt",
    "InterruptAgent",
    "ListAgents",
    "ListHubs",
    "Message",
    "MetaAsk",
    "MetaComplete",
    "MetaReconcile",
    "MetaRoute",
    "MetaSpawn",
    "MetaTopology",
    "Ok",
    "Opaque",
    "Patience",
    "Permission",
    "Progress",
    "Protocol",
    "Question",
    "Reconciled",
    "Register",
    "RegisterHub",
    "Reply",
    "Resolve",
    "Role",
    "Route",
    "ScheduledSource",
    "Shutdown",
    "Shown",
    "ShutdownAgent",
    "Source",
    "SpawnAgent",
    "SpawnSpec",
    "Spawned",
    "Started",
    "Status",
    "StatusInfo",
    "Subscribe",
    "Subscribed",
    "SystemSource",
    "Topology",
    "TopologyOf",
    "UplinkInfo",
    "UserContent",
    "WaitAgent",
    "Waited",
    "Welcome",
]

R = TypeVar("R")


class Direction(enum.Enum):
    """Who sends a method, and to whom. A core has a handler for each method that is sent to it, by who sends it."""

    STRANGER_TO_HUB = "anybody, to a hub"
    """Before it has registered."""
    AGENT_TO_HUB = "agent, to its hub"
    CLIENT_TO_HUB = "client, to a hub"
    """Or operator; an observer may send what is ``read_only``."""
    META_HUB_TO_HUB = "MetaHub, to a hub"
    STRANGER_TO_META_HUB = "anybody, to a MetaHub"
    CLIENT_TO_META_HUB = "client, to a MetaHub"
    HUB_TO_META_HUB = "hub, to its MetaHub"
    HUB_TO_AGENT = "hub, to its agent"
    TO_CLIENT = "hub or MetaHub, to a client"


PRINCIPALS = (Direction.AGENT_TO_HUB, Direction.CLIENT_TO_HUB)
"""Whoever has registered with a hub: agents may do what clients may."""
ABOUT_AN_AGENT = (
    *PRINCIPALS,
    Direction.HUB_TO_META_HUB,
    Direction.CLIENT_TO_META_HUB,
    Direction.META_HUB_TO_HUB,
)
"""From whoever asks to the hub that runs the agent, all the way under one name."""
ANYBODY = tuple(Direction)


class Patience(enum.Enum):
    """Which time a request may take, if it does not say one itself (``core/patience.py``)."""

    CALL = "call_timeout"
    LOOK = "call_timeout, or until a MetaHub that is away should be back"
    ASK = "ask_timeout"
    WAIT = "wait_timeout"
    SPAWN = "spawn_timeout"
    APPROVAL = "permission_timeout"


class Message(Generic[R]):
    """One method. ``R`` is the record that answers it (None for notifications).

    What else there is to know of a method is said here, once, and nowhere else: no list of methods is kept elsewhere.
    """

    __slots__ = ()
    method: ClassVar[str]
    result: ClassVar[Any]
    audience: ClassVar[tuple[Direction, ...]]
    """Who may send it, and to whom."""
    inline: ClassVar[str] = ""
    """The field that is the whole of ``params``, where one is."""
    repeatable: ClassVar[bool] = False
    """Between hub and MetaHub: sent again on the next connection if it was not answered on the last, and kept for it
    meanwhile. It only looks, or its receiver remembers its id."""
    read_only: ClassVar[bool] = False
    """An observer may send it: it changes nothing."""
    answer_only: ClassVar[bool] = False
    """All about its answer: if nobody waits for that any more, whoever works on it may stop, and is told so."""
    patience: ClassVar[Patience] = Patience.CALL
    """How long its answer may take."""


def wire(name: str, **kwargs: Any) -> Any:
    """A field that has another name on the wire."""
    return field(metadata={"wire": name}, **kwargs)


def extension(default: Any = None, *, name: str | None = None, **kwargs: Any) -> Any:
    """A field that is ours, not the base dialect's; left out when it has its default."""
    metadata = {"extension": True} | ({"wire": name} if name else {})
    return field(default=default, metadata=metadata, **kwargs)


# Values.


@record
class Opaque:
    """A JSON value that is passed on unread."""

    json: bytes
    """Valid JSON in UTF-8, without a line feed."""


NULL = Opaque(b"null")
EMPTY = Opaque(b"{}")


class Role(enum.Enum):
    """What a party that connects to a hub or a MetaHub is."""

    AGENT = "agent"
    """An agent that runs elsewhere; the base dialect's only kind."""
    CLIENT = "client"
    """A program that acts for a human: it may spawn, send, wait and stop."""
    OPERATOR = "operator"
    """A client that is also asked for permissions and answers questions."""
    OBSERVER = "observer"
    """Somebody who only looks."""


@record
class Protocol:
    """What a peer speaks beyond the base dialect."""

    version: int
    features: tuple[str, ...] = ()


@record
class HumanSource:
    """A human wrote it."""


@record
class AgentSource:
    """An agent wrote it; ``name`` is an address that can be answered."""

    name: str


@record
class ChannelSource:
    """A chat channel brought it."""

    channel: str = field(converter=text.label)
    sender: str = wire("from", converter=text.label)


@record
class ScheduledSource:
    """A timer sent it."""


@record
class SystemSource:
    """A hub made it; ``kind`` says why."""

    kind: str = field(converter=text.label)


Source = HumanSource | AgentSource | ChannelSource | ScheduledSource | SystemSource


@record
class Image:
    """A picture beside a text."""

    media_type: str
    data: str
    """Base64."""


@record
class UserContent:
    """What a message says."""

    text: str
    images: tuple[Image, ...] = extension(())


@record
class Envelope:
    """A message on its way to an agent."""

    id: str
    """A uuid chosen by the origin."""
    source: Source
    target: Address
    content: UserContent | Opaque
    """Read only by the agent it is for; opaque to every hub on the way."""
    timestamp: str
    """RFC 3339, UTC."""
    origin_hub: str | None = extension()
    """The hub the message comes from, stamped by the MetaHub."""
    timeout_ms: int | None = extension()
    """Of an ask: the time left for the answer. The hub it starts from fills it in."""
    extend: bool = extension(False)
    """Of an ask: with each ``Progress`` that time begins anew."""
    asked_ms: int | None = extension()
    """In a repetition: how long before the hub on this connection joined (again) the message was first sent to the
    MetaHub. Less than zero if it was sent later, by another hub."""
    for_ask: int | None = extension()
    """Of an ask, to the asker's hub: the id of the ``agent/ask`` that the asker, which serves, works on; 0: of none."""
    waits: tuple[str, ...] = extension(())
    """Of an ask: who waits for its reply, and last its asker; stamped by hubs (``core/circles.py``)."""


@record
class SpawnSpec:
    """The agent to start. Durations travel as milliseconds, so that clocks need not agree."""

    name: str
    prompt: str | None = None
    cwd: str | None = field(default=None, validator=text.path)
    """A directory on the hub that spawns; refused across hubs by whoever receives it."""
    model: str | None = field(default=None, converter=text.label)
    permission_mode: str | None = field(default=None, converter=text.label)
    parent: str | None = field(default=None, converter=text.sender_name)
    """Set by hubs only; a caller's value is overwritten."""
    target_hub: str | None = extension(validator=text.hub_name)
    agent_type: str | None = extension(converter=text.label)
    """A type the hub runs; None is its default type."""
    lifecycle: str | None = extension(converter=text.label)
    """``ephemeral`` or ``persistent``; None is ephemeral."""
    spawn_id: str | None = extension(validator=text.identity)
    """Chosen by the origin; the agent's identity and the spawn's idempotency key."""
    depth: int = extension(0)
    """Generations above this agent, set by hubs."""
    notify_parent: bool | None = extension()
    """False: the parent never gets the outcome as a message. Otherwise it does, unless it is waiting."""
    detached: bool = extension(False)
    """True: it outlives its parent, or the client that spawned it."""
    timeout_ms: int | None = extension()
    """The time it may take. Then it is stopped, and its outcome is ``timed_out``."""
    idle_timeout_ms: int | None = extension()
    """The time it may report nothing, to the hub that runs it; with the same consequence."""
    asked_ms: int | None = extension()
    """In a repetition: how long before its hub joined (again) the spawn was first sent to the MetaHub."""
    extra: Mapping[str, Opaque] = Factory(dict)
    """Keys this version does not know, passed on."""


@record
class AgentNode:
    """An agent in a topology."""

    name: str = field(converter=text.label)
    parent: str | None = field(default=None, converter=text.label)
    children: tuple[str, ...] = ()
    lifecycle: str = "Running"
    """``Spawning``, ``Running``, ``Finished`` or ``Failed("...")``."""
    model: str | None = field(default=None, converter=text.label)
    id: str | None = extension(validator=text.identity)
    type: str | None = extension(converter=text.label)
    hub: str | None = extension(validator=text.hub_name)
    """Where it runs, if not on the hub that answers (a shadow)."""
    persistent: bool = extension(False)


@record
class HubInfo:
    """A hub as its MetaHub sees it."""

    name: str
    status: str
    """``Connected``, ``Degraded`` (suspect) or ``Disconnected`` (its place is kept for it)."""
    agent_count: int = 0
    capabilities: tuple[str, ...] = ()
    labels: Mapping[str, str] = extension(Factory(dict))
    agent_types: tuple[str, ...] = extension(())
    protocol: int | None = extension()
    """The version of our protocol it speaks; None for a base peer."""


@record
class UplinkInfo:
    """A hub's connection to its MetaHub."""

    connected: bool
    hub_name: str
    since: float | None = extension()
    """If it is away: since when, in seconds since the Unix epoch."""
    reason: str | None = extension()
    """If it is away: why, in words."""


@record
class Completion:
    """The outcome of an agent, on its way to a parent on another hub."""

    spawn_id: str = field(validator=text.identity)
    agent: Address
    """The agent, qualified."""
    parent: Address
    """The parent, qualified."""
    outcome: Outcome


# Results.


@record
class Ok:
    """Done."""

    ok: bool = True


OK = Ok()


@record
class Welcome:
    """The answer to a registration. A base peer sends and reads ``ok`` only."""

    ok: bool = True
    name: str | None = extension(converter=text.label)
    """The name registered."""
    kind: str | None = extension(converter=text.label)
    """``hub`` or ``meta_hub``."""
    hub: str | None = extension(converter=text.label)
    """The name of the hub that answers."""
    protocol: Protocol | None = extension()
    """What both sides speak."""
    cluster: str | None = extension(converter=text.label)
    """The id of the MetaHub's cluster."""
    heartbeat_interval: float | None = extension()
    """Seconds."""
    line_bytes: int | None = extension()
    """The longest line the answering side reads."""


@record
class Spawned:
    """The agent is up."""

    agent_id: str = field(validator=text.identity)
    name: str = field(converter=text.label)


@record
class Waited:
    """How an agent ended, or that it has not yet."""

    output: str
    """The base dialect's text: the result, or the reason there is none."""
    timed_out: bool = extension(False)
    """True: the wait ended first; the agent goes on."""
    agent: str | None = extension(converter=text.label)
    agent_id: str | None = extension(validator=text.identity)
    outcome: Outcome | None = extension()


@record
class Reply:
    """What an agent made of an ask: ``done`` with its answer, ``failed`` or ``cancelled``."""

    outcome: Outcome


@record
class AgentNames:
    """The names of a hub's agents; those that run elsewhere are qualified."""

    agents: tuple[str, ...]


@record
class AgentDetails:
    """One agent, live or finished."""

    name: str = field(converter=text.label)
    lifecycle: str
    output: str | None = None
    parent: str | None = extension(converter=text.label)
    children: tuple[str, ...] = extension(())
    model: str | None = extension(converter=text.label)
    id: str | None = extension(validator=text.identity)
    type: str | None = extension(converter=text.label)
    hub: str | None = extension(validator=text.hub_name)
    outcome: Outcome | None = extension()


@record
class HubTopology:
    """A hub's agents."""

    agents: tuple[AgentNode, ...]


@record
class StatusInfo:
    """A hub in one line."""

    agent_count: int
    uplink: UplinkInfo | None
    hub: str | None = extension()
    agent_types: tuple[str, ...] = extension(())
    capabilities: tuple[str, ...] = extension(())
    late_answers: int = extension(0)
    """Answers that came when nobody waited any more, and were dropped."""
    waiting: Mapping[str, int] = extension(Factory(dict))
    """So many of each kind of thing wait here: approvals, requests, reports, ...; only what does."""


@record
class Found:
    """Where an agent is."""

    found: bool
    hub: str | None = extension(validator=text.hub_name)


@record
class HubList:
    """The hubs of a cluster."""

    hubs: tuple[HubInfo, ...]


@record
class TopologyOf:
    """One hub's part of the cluster's topology, or why it is missing."""

    hub: str = field(converter=text.label)
    topology: HubTopology | None = None
    error: str | None = field(default=None, converter=text.reason)
    """``timeout``, ``unreachable``, or the hub's own words."""


@record
class ClusterTopology:
    """Every hub's agents."""

    hubs: tuple[TopologyOf, ...]


@record
class Decision:
    """The answer to a permission."""

    allow: bool
    reason: str | None = extension(converter=text.reason)
    by: str | None = extension(converter=text.label)
    """Who decided: ``ann``, or ``ann at hub-b`` if that is neither the agent's hub nor the MetaHub, or ``policy``."""
    unanswered: bool = extension(False)
    """Nobody has decided: it is denied because nobody was there to answer, or answered in time. ``reason`` says more."""


@record
class Answers:
    """The answers to a question, one per question asked."""

    answers: tuple[str, ...]
    by: str | None = extension(converter=text.label)


@record
class Subscribed:
    """The start of an event stream."""

    seq: int
    """The number of the newest event when the subscription began."""
    missed: int = 0
    """Events after ``since`` that are no longer kept."""


@record
class Initialized:
    """An agent process is there."""

    agent_info: Opaque = Opaque(b'{"name":"loopal-cluster","version":"0"}')
    protocol_version: int = 1


@record
class Started:
    """An agent has begun."""

    session_id: str = field(converter=text.label)


# To a hub, from its agents and clients. The address of an agent on another hub is passed on.


@record
class Register(Message[Welcome]):
    """The first request on a connection to a hub's listener, or of an operator to a MetaHub."""

    method: ClassVar = "hub/register"
    result: ClassVar = Welcome
    audience: ClassVar = (Direction.STRANGER_TO_HUB, Direction.STRANGER_TO_META_HUB)
    name: str
    token: str = field(default="", repr=False)
    role: Role = extension(Role.AGENT)
    protocol: Protocol | None = extension()


@record
class Route(Message[Ok]):
    """Deliver a message to an agent, wherever it is."""

    method: ClassVar = "hub/route"
    result: ClassVar = Ok
    inline: ClassVar = "envelope"
    audience: ClassVar = (*PRINCIPALS, Direction.CLIENT_TO_META_HUB)
    envelope: Envelope


@record
class Ask(Message[Reply]):
    """Deliver a message to an agent, wherever it is, and wait for what it replies."""

    method: ClassVar = "hub/ask"
    result: ClassVar = Reply
    inline: ClassVar = "envelope"
    audience: ClassVar = (*PRINCIPALS, Direction.CLIENT_TO_META_HUB)
    answer_only: ClassVar = True
    patience: ClassVar = Patience.ASK
    envelope: Envelope


@record
class SpawnAgent(Message[Spawned]):
    """Start an agent here, or, with ``target_hub``, there."""

    method: ClassVar = "hub/spawn_agent"
    result: ClassVar = Spawned
    inline: ClassVar = "spec"
    audience: ClassVar = (*PRINCIPALS, Direction.META_HUB_TO_HUB, Direction.CLIENT_TO_META_HUB)
    repeatable: ClassVar = True
    patience: ClassVar = Patience.SPAWN
    spec: SpawnSpec


@record
class WaitAgent(Message[Waited]):
    """Wait until an agent has ended. Any number may wait."""

    method: ClassVar = "hub/wait_agent"
    result: ClassVar = Waited
    audience: ClassVar = ABOUT_AN_AGENT
    repeatable: ClassVar = True
    read_only: ClassVar = True
    answer_only: ClassVar = True
    patience: ClassVar = Patience.WAIT
    agent: Address = wire("name")
    agent_id: str | None = extension(validator=text.identity)
    """Which of several agents that had the name."""
    timeout_ms: int | None = extension()
    brief: bool = extension(False)
    """True: the answer's text is wanted once, in its ``outcome``, and its ``output`` is left empty."""


@record
class ListAgents(Message[AgentNames]):
    """The names of a hub's agents."""

    method: ClassVar = "hub/list_agents"
    result: ClassVar = AgentNames
    audience: ClassVar = (*PRINCIPALS, Direction.META_HUB_TO_HUB)
    read_only: ClassVar = True


@record
class AgentInfo(Message[AgentDetails]):
    """One agent, live or finished."""

    method: ClassVar = "hub/agent_info"
    result: ClassVar = AgentDetails
    audience: ClassVar = ABOUT_AN_AGENT
    repeatable: ClassVar = True
    read_only: ClassVar = True
    agent: Address = wire("name")
    agent_id: str | None = extension(validator=text.identity)
    brief: bool = extension(False)
    """As of ``hub/wait_agent``."""


@record
class Topology(Message[HubTopology]):
    """A hub's agents, with parents and children."""

    method: ClassVar = "hub/topology"
    result: ClassVar = HubTopology
    audience: ClassVar = (*PRINCIPALS, Direction.META_HUB_TO_HUB)
    read_only: ClassVar = True


@record
class Status(Message[StatusInfo]):
    """A hub in one line."""

    method: ClassVar = "hub/status"
    result: ClassVar = StatusInfo
    audience: ClassVar = (*PRINCIPALS, Direction.META_HUB_TO_HUB, Direction.CLIENT_TO_META_HUB)
    read_only: ClassVar = True


@record
class Ping(Message[Ok]):
    """I am here; are you?"""

    method: ClassVar = "hub/ping"
    result: ClassVar = Ok
    audience: ClassVar = (*PRINCIPALS, Direction.HUB_TO_META_HUB, Direction.CLIENT_TO_META_HUB)
    read_only: ClassVar = True


@record
class ControlAgent(Message[Ok]):
    """Hand an agent a control command."""

    method: ClassVar = "hub/control"
    result: ClassVar = Ok
    audience: ClassVar = ABOUT_AN_AGENT
    agent: Address = wire("target")
    command: Opaque = NULL


@record
class InterruptAgent(Message[Ok]):
    """End an agent's current turn."""

    method: ClassVar = "hub/interrupt"
    result: ClassVar = Ok
    audience: ClassVar = ABOUT_AN_AGENT
    agent: Address = wire("target")


@record
class ShutdownAgent(Message[Ok]):
    """Stop an agent: ask, then terminate its process group, then kill. Answered when it is gone."""

    method: ClassVar = "hub/shutdown_agent"
    result: ClassVar = Ok
    audience: ClassVar = ABOUT_AN_AGENT
    repeatable: ClassVar = True
    patience: ClassVar = Patience.SPAWN
    agent: Address = wire("target")


@record
class CancelAgent(Message[Waited]):
    """Stop an agent and all it spawned. Answered with its outcome when it is gone."""

    method: ClassVar = "hub/cancel_agent"
    result: ClassVar = Waited
    audience: ClassVar = ABOUT_AN_AGENT
    repeatable: ClassVar = True
    patience: ClassVar = Patience.SPAWN
    agent: Address = wire("target")
    agent_id: str | None = extension(validator=text.identity)
    reason: str = extension("cancelled", converter=text.reason)
    timed_out: bool = extension(False)
    """True: its time is over, by its owner's clock; so it ends as ``timed_out``."""
    brief: bool = extension(False)
    """As of ``hub/wait_agent``."""


@record
class Subscribe(Message[Subscribed]):
    """Send me every event from now on, and those kept after ``since``."""

    method: ClassVar = "hub/subscribe"
    result: ClassVar = Subscribed
    audience: ClassVar = (*PRINCIPALS, Direction.CLIENT_TO_META_HUB)
    read_only: ClassVar = True
    since: int | None = extension()


@record
class ClusterEvent(Message[None]):
    """A sequenced event, to subscribers. A jump of ``seq`` is a gap."""

    method: ClassVar = "hub/event"
    result: ClassVar = None
    audience: ClassVar = (Direction.HUB_TO_AGENT, Direction.TO_CLIENT)
    seq: int
    at: float
    """Seconds since the Unix epoch, by the clock of the hub that sequenced it."""
    hub: str | None
    agent: str | None
    payload: Any
    """A record of ``payloads``, or ``Opaque``."""


Addressed = WaitAgent | AgentInfo | ControlAgent | InterruptAgent | ShutdownAgent | CancelAgent


# Between a hub and an agent.


@record
class Initialize(Message[Initialized]):
    """The first request to an agent process."""

    method: ClassVar = "initialize"
    result: ClassVar = Initialized
    audience: ClassVar = (Direction.HUB_TO_AGENT,)
    protocol_version: int = 1


@record
class AgentStart(Message[Started]):
    """Begin."""

    method: ClassVar = "agent/start"
    result: ClassVar = Started
    audience: ClassVar = (Direction.HUB_TO_AGENT,)
    cwd: str | None = None
    lifecycle: str | None = None
    mode: str | None = "act"
    model: str | None = None
    no_sandbox: bool = False
    permission_mode: str | None = None
    prompt: str | None = None
    resume: str | None = None
    name: str | None = extension()
    """The agent's own name."""
    hub: str | None = extension()
    """The name of the hub that hosts it."""
    parent: str | None = extension()
    agent_id: str | None = extension()
    agent_type: str | None = extension()
    depth: int = extension(0)


@record
class DeliverEnvelope(Message[Ok]):
    """A message for the receiver, or for an agent of the receiving hub."""

    method: ClassVar = "agent/message"
    result: ClassVar = Ok
    inline: ClassVar = "envelope"
    audience: ClassVar = (Direction.META_HUB_TO_HUB, Direction.HUB_TO_AGENT)
    repeatable: ClassVar = True
    envelope: Envelope


@record
class DeliverAsk(Message[Reply]):
    """An ask for the receiver, or for an agent of the receiving hub."""

    method: ClassVar = "agent/ask"
    result: ClassVar = Reply
    inline: ClassVar = "envelope"
    audience: ClassVar = (Direction.META_HUB_TO_HUB, Direction.HUB_TO_AGENT)
    repeatable: ClassVar = True
    answer_only: ClassVar = True
    patience: ClassVar = Patience.ASK
    envelope: Envelope


@record
class Control(Message[Ok]):
    """A control command for the receiving agent."""

    method: ClassVar = "agent/control"
    result: ClassVar = Ok
    inline: ClassVar = "command"
    audience: ClassVar = (Direction.HUB_TO_AGENT,)
    command: Opaque


@record
class Interrupt(Message[None]):
    """End your current turn."""

    method: ClassVar = "agent/interrupt"
    result: ClassVar = None
    audience: ClassVar = (Direction.HUB_TO_AGENT,)


@record
class Shutdown(Message[Ok]):
    """End."""

    method: ClassVar = "agent/shutdown"
    result: ClassVar = Ok
    audience: ClassVar = (Direction.HUB_TO_AGENT,)


@record
class AgentEvent(Message[None]):
    """Something an agent did. Hubs fill in the name; the MetaHub qualifies it."""

    method: ClassVar = "agent/event"
    result: ClassVar = None
    audience: ClassVar = (Direction.AGENT_TO_HUB, Direction.HUB_TO_META_HUB)
    agent_name: str | None
    payload: Any
    """A record of ``payloads``, or ``Opaque``."""


@record
class Completed(Message[None]):
    """An agent has ended. The last thing it says."""

    method: ClassVar = "agent/completed"
    result: ClassVar = None
    audience: ClassVar = (Direction.AGENT_TO_HUB,)
    reason: str = field(default="goal", converter=text.label)
    """``goal``, ``shutdown``, ``error`` or ``aborted``."""
    result_text: str | None = wire("result", default=None)
    traceback: str | None = extension()


@record
class Permission(Message[Decision]):
    """May this tool be used? Asked by an agent; passed on to operators."""

    method: ClassVar = "agent/permission"
    result: ClassVar = Decision
    audience: ClassVar = (
        Direction.AGENT_TO_HUB,
        Direction.HUB_TO_META_HUB,
        Direction.META_HUB_TO_HUB,
        Direction.TO_CLIENT,
    )
    patience: ClassVar = Patience.APPROVAL
    tool_name: str = field(default="", converter=text.label)
    tool_input: Opaque = NULL
    tool_call_id: str = field(default="", validator=text.identity)
    agent_name: str | None = extension(converter=text.sender_name)
    """Who asks; set by hubs."""
    ask_id: str | None = extension(validator=text.identity)
    timeout_ms: int | None = extension()
    """The time the asking hub gives, if it is bounded."""
    extra: Mapping[str, Opaque] = Factory(dict)


@record
class Question(Message[Answers]):
    """What should I do? Asked by an agent; passed on to operators."""

    method: ClassVar = "agent/question"
    result: ClassVar = Answers
    audience: ClassVar = (
        Direction.AGENT_TO_HUB,
        Direction.HUB_TO_META_HUB,
        Direction.META_HUB_TO_HUB,
        Direction.TO_CLIENT,
    )
    patience: ClassVar = Patience.APPROVAL
    questions: Opaque = Opaque(b"[]")
    """A list of ``{question, options: [{label, description}], allow_multiple}``."""
    agent_name: str | None = extension(converter=text.sender_name)
    ask_id: str | None = extension(validator=text.identity)
    timeout_ms: int | None = extension()
    extra: Mapping[str, Opaque] = Factory(dict)


@record
class Decided(Message[None]):
    """To the judges who did not answer: somebody else did, or it is no longer asked."""

    method: ClassVar = "hub/decided"
    result: ClassVar = None
    audience: ClassVar = (Direction.HUB_TO_META_HUB, Direction.META_HUB_TO_HUB, Direction.TO_CLIENT)
    ask_id: str = field(validator=text.identity)
    by: str | None = field(converter=text.label)
    """Who answered; None if the asker went away."""
    allow: bool | None = None


@record
class Shown(Message[None]):
    """From an operator's program: a human sees this permission or question now."""

    method: ClassVar = "hub/shown"
    result: ClassVar = None
    audience: ClassVar = (Direction.CLIENT_TO_HUB, Direction.CLIENT_TO_META_HUB)
    ask_id: str = field(validator=text.identity)


# Between a hub and its MetaHub.


@record
class Attended(Message[None]):
    """Whether an operator is attached: to this hub, or, from a MetaHub, to it or to any other hub."""

    method: ClassVar = "hub/attended"
    result: ClassVar = None
    audience: ClassVar = (Direction.HUB_TO_META_HUB, Direction.META_HUB_TO_HUB)
    attended: bool


@record
class RegisterHub(Message[Welcome]):
    """The first request of a hub to its MetaHub."""

    method: ClassVar = "meta/register"
    result: ClassVar = Welcome
    audience: ClassVar = (Direction.STRANGER_TO_META_HUB,)
    name: str
    token: str = field(default="", repr=False)
    capabilities: tuple[str, ...] = ()
    protocol: Protocol | None = extension()
    instance: str | None = extension(validator=text.identity)
    """A uuid made at process start. The same instance returning is a reconnect."""
    labels: Mapping[str, str] = extension(Factory(dict))
    agent_types: tuple[str, ...] = extension(())
    up_ms: int = extension(0)
    """How long ago this instance first registered with a MetaHub; nobody can have asked it before."""


@record
class Heartbeat(Message[None]):
    """I am alive."""

    method: ClassVar = "meta/heartbeat"
    result: ClassVar = None
    audience: ClassVar = (Direction.HUB_TO_META_HUB,)
    hub_name: str = field(default="", converter=text.label)
    agent_count: int = 0


@record
class MetaRoute(Message[Ok]):
    """Deliver a message to an agent on another hub."""

    method: ClassVar = "meta/route"
    result: ClassVar = Ok
    inline: ClassVar = "envelope"
    audience: ClassVar = (*PRINCIPALS, Direction.HUB_TO_META_HUB, Direction.CLIENT_TO_META_HUB)
    repeatable: ClassVar = True
    envelope: Envelope


@record
class MetaAsk(Message[Reply]):
    """Ask an agent on another hub."""

    method: ClassVar = "meta/ask"
    result: ClassVar = Reply
    inline: ClassVar = "envelope"
    audience: ClassVar = (*PRINCIPALS, Direction.HUB_TO_META_HUB, Direction.CLIENT_TO_META_HUB)
    repeatable: ClassVar = True
    answer_only: ClassVar = True
    patience: ClassVar = Patience.ASK
    envelope: Envelope


@record
class Resolve(Message[Found]):
    """To a hub: do you have this agent? To a MetaHub: who has it?"""

    method: ClassVar = "meta/resolve"
    result: ClassVar = Found
    audience: ClassVar = (
        *PRINCIPALS,
        Direction.META_HUB_TO_HUB,
        Direction.HUB_TO_META_HUB,
        Direction.CLIENT_TO_META_HUB,
    )
    repeatable: ClassVar = True
    read_only: ClassVar = True
    patience: ClassVar = Patience.LOOK
    agent_name: str


@record
class MetaSpawn(Message[Spawned]):
    """Start an agent on ``target_hub``."""

    method: ClassVar = "meta/spawn"
    result: ClassVar = Spawned
    inline: ClassVar = "spec"
    audience: ClassVar = (*PRINCIPALS, Direction.HUB_TO_META_HUB, Direction.CLIENT_TO_META_HUB)
    repeatable: ClassVar = True
    patience: ClassVar = Patience.SPAWN
    spec: SpawnSpec


@record
class ListHubs(Message[HubList]):
    """The hubs of the cluster."""

    method: ClassVar = "meta/list_hubs"
    result: ClassVar = HubList
    audience: ClassVar = (*PRINCIPALS, Direction.HUB_TO_META_HUB, Direction.CLIENT_TO_META_HUB)
    repeatable: ClassVar = True
    read_only: ClassVar = True
    patience: ClassVar = Patience.LOOK


@record
class MetaTopology(Message[ClusterTopology]):
    """Every hub's agents."""

    method: ClassVar = "meta/topology"
    result: ClassVar = ClusterTopology
    audience: ClassVar = (*PRINCIPALS, Direction.HUB_TO_META_HUB, Direction.CLIENT_TO_META_HUB)
    repeatable: ClassVar = True
    read_only: ClassVar = True
    patience: ClassVar = Patience.LOOK


@record
class Announced:
    """An agent that a hub runs, for the MetaHub's directory."""

    name: str = field(validator=text.agent_name)
    id: str = field(validator=text.identity)
    type: str | None = field(default=None, converter=text.label)
    parent: str | None = field(default=None, converter=text.sender_name)
    up_ms: int = extension(0)
    """How long it has been up."""


@record
class Announce(Message[Ok]):
    """What a hub runs now. One at a time, so that the newest state always wins."""

    method: ClassVar = "meta/announce"
    result: ClassVar = Ok
    audience: ClassVar = (Direction.HUB_TO_META_HUB,)
    started: tuple[Announced, ...] = ()
    ended: tuple[str, ...] = ()
    """Names."""
    whole: bool = False
    """True: ``started`` is all there is; forget the rest."""


@record
class MetaComplete(Message[Ok]):
    """An agent with a parent on another hub has ended. Repeated until answered."""

    method: ClassVar = "meta/complete"
    result: ClassVar = Ok
    inline: ClassVar = "completion"
    audience: ClassVar = (Direction.HUB_TO_META_HUB,)
    completion: Completion


@record
class HubComplete(Message[Ok]):
    """To the parent's hub: a shadow's agent has ended."""

    method: ClassVar = "hub/complete"
    result: ClassVar = Ok
    inline: ClassVar = "completion"
    audience: ClassVar = (Direction.META_HUB_TO_HUB,)
    repeatable: ClassVar = True
    completion: Completion


@record
class Reconciled:
    """What has changed while two hubs could not hear of each other. Agent ids."""

    given_up: tuple[str, ...] = ()
    """Of those the asking hub runs: no longer owned here."""
    gone: tuple[str, ...] = ()
    """Of those the asking hub owns: not run here, and no outcome is on its way."""


@record
class MetaReconcile(Message[Reconciled]):
    """For another hub: compare what we run for each other. Asked of each such hub after joining."""

    method: ClassVar = "meta/reconcile"
    result: ClassVar = Reconciled
    audience: ClassVar = (Direction.HUB_TO_META_HUB,)
    repeatable: ClassVar = True
    hub: str = field(validator=text.hub_name)
    """The hub to compare with."""
    runs: tuple[str, ...] = ()
    """Ids of agents that run here for owners there."""
    owns: tuple[str, ...] = ()
    """Ids of agents that should run there for owners here."""


@record
class HubReconcile(Message[Reconciled]):
    """The same, as it reaches that hub."""

    method: ClassVar = "hub/reconcile"
    result: ClassVar = Reconciled
    audience: ClassVar = (Direction.META_HUB_TO_HUB,)
    repeatable: ClassVar = True
    hub: str = field(validator=text.hub_name)
    """The hub that asks, stamped by the MetaHub."""
    runs: tuple[str, ...] = ()
    owns: tuple[str, ...] = ()


@record
class Leave(Message[Ok]):
    """A hub closes: it runs nothing any more and has reported all. The MetaHub need not wait for it to return."""

    method: ClassVar = "meta/leave"
    result: ClassVar = Ok
    audience: ClassVar = (Direction.HUB_TO_META_HUB,)


@record
class HubLost(Message[Ok]):
    """To every hub: this one is gone, and so is all it ran."""

    method: ClassVar = "hub/hub_lost"
    result: ClassVar = Ok
    audience: ClassVar = (Direction.META_HUB_TO_HUB,)
    repeatable: ClassVar = True
    hub: str = field(validator=text.hub_name)
    reason: str = field(converter=text.reason)


@record
class CancelRequest(Message[None]):
    """I no longer wait for the answer to my request with this id."""

    method: ClassVar = "$/cancelRequest"
    result: ClassVar = None
    audience: ClassVar = ANYBODY
    id: int


@record
class Progress(Message[None]):
    """I am still working on your request with this id."""

    method: ClassVar = "$/progress"
    result: ClassVar = None
    audience: ClassVar = (
        Direction.AGENT_TO_HUB,
        Direction.HUB_TO_META_HUB,
        Direction.META_HUB_TO_HUB,
        Direction.HUB_TO_AGENT,
        Direction.TO_CLIENT,
    )
    id: int


METHODS: dict[str, type[Message[Any]]] = {
    cls.method: cls
    for cls in list(globals().values())
    if isinstance(cls, type) and issubclass(cls, Message) and cls is not Message
}
"""What each method is read as."""
