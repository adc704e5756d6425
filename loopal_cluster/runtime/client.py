"""What one can ask of a cluster, as methods: for programs, and (``AgentContext``) for agents.

``open_client`` connects to a hub or to a MetaHub; both answer the same requests, a hub for its own
agents and, through its MetaHub, for everybody else's.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any

import trio
from attrs import field

from loopal_cluster.address import Address
from loopal_cluster.config import Limits
from loopal_cluster.errors import (
    AgentCancelled,
    AgentLost,
    ClusterError,
    ConnectionLost,
    DeadlineExceeded,
    ErrorCode,
    MethodNotFound,
    RemoteError,
)
from loopal_cluster.messages import (
    AgentDetails,
    AgentInfo,
    AgentNode,
    Answers,
    Ask,
    CancelAgent,
    ClusterEvent,
    ControlAgent,
    Decided,
    Decision,
    Envelope,
    HubInfo,
    HumanSource,
    InterruptAgent,
    ListHubs,
    Message,
    MetaTopology,
    Permission,
    Protocol,
    Question,
    Register,
    Role,
    Route,
    ShutdownAgent,
    SpawnAgent,
    SpawnSpec,
    Status,
    StatusInfo,
    Subscribe,
    Topology,
    TopologyOf,
    UserContent,
    WaitAgent,
    Waited,
    Welcome,
)
from loopal_cluster.outcomes import Outcome, unwrap
from loopal_cluster.records import define, evolve
from loopal_cluster.runtime.ambient import Ambient
from loopal_cluster.runtime.background import open_background
from loopal_cluster.runtime.caller import Caller, open_caller
from loopal_cluster.runtime.channels import FrameChannel
from loopal_cluster.runtime.listeners import dial
from loopal_cluster.runtime.nursery import CANCEL_TIMEOUT, AgentNursery, open_agent_nursery
from loopal_cluster.wire.contents import dumps, payload

__all__ = ["AgentHandle", "Client", "ClusterClient", "EventStream", "connect", "open_client"]

ASK_PATIENCE = 3.0
"""Seconds that we wait longer for an answer than the hubs do, which are to say themselves what happened."""

LONGEST = 1e9
"""Seconds, 30 years: the longest time that we ask for. A float can have one that no integer on the wire can."""

WAIT_STEP = 300.0
"""Seconds after which an unbounded wait is asked anew, so that no hub has to keep it for ever."""


class ClusterClient:
    """What both programs and agents can ask."""

    def __init__(self, caller: Caller, ambient: Ambient | None = None) -> None:
        self._caller = caller
        self._ambient = ambient or Ambient()

    async def status(self) -> StatusInfo:
        """The hub this is connected to, in one line."""
        return await self._caller.call(Status())

    async def list_hubs(self) -> tuple[HubInfo, ...]:
        """The hubs of the cluster.

        Raises:
            NotInCluster: the hub is alone.
        """
        return (await self._caller.call(ListHubs())).hubs

    async def topology(self) -> tuple[TopologyOf, ...]:
        """Every hub's agents; a hub that does not answer has an ``error`` instead.

        Raises:
            NotInCluster: the hub is alone; ``local_agents`` works there.
        """
        return (await self._caller.call(MetaTopology())).hubs

    async def local_agents(self) -> tuple[AgentNode, ...]:
        """The agents of the hub this is connected to, shadows included."""
        return (await self._caller.call(Topology())).agents

    async def agent_info(self, agent: str) -> AgentDetails:
        """One agent, live or finished."""
        return await self._caller.call(AgentInfo(Address.parse(agent)))

    async def send(self, target: str, text: str) -> None:
        """Send a message to an agent, by bare or qualified name; return when it was accepted.

        Raises:
            AgentNotFound, AmbiguousName, HubNotConnected, DeliveryFailed, Overloaded: it was not.
        """
        await self._caller.call(Route(self._envelope(target, text)))

    async def ask(
        self, target: str, text: str, *, time_limit: float | None = None, extend: bool = False
    ) -> str:
        """Send a message to an agent, by bare or qualified name, and return its reply.

        The time that is left travels with it, be it ``time_limit`` seconds or that of a cancel scope around
        us: when it is over, or we are cancelled, the other agent's work on it is cancelled, too. Without
        either it has 600 seconds (``ask_timeout``). With ``extend``, ``time_limit`` begins anew each time that
        the other agent reports progress.

        Raises:
            trio.TooSlowError: there was no reply in time. One that comes later is dropped.
            AgentFailed: the agent replied with an error, which carries the remote traceback.
            AgentCancelled: it was interrupted.
            AgentLost: it ended without a reply, or its program, its hub or the way there broke down; whether
                it did the work is unknown.
            AgentNotFound, AmbiguousName, HubNotConnected, Overloaded, MethodNotFound: it was not asked.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        deadline = trio.current_effective_deadline()
        seconds = min(deadline - trio.current_time(), math.inf if time_limit is None else time_limit)
        envelope = evolve(self._envelope(target, text), timeout_ms=_milliseconds(seconds), extend=extend)
        message = Ask(envelope)
        patience = math.inf if time_limit is None else time_limit + ASK_PATIENCE
        try:
            with trio.fail_after(patience) as scope:  # in case that our own hub falls silent
                reply = await self._caller.call(message, partial(_renew, scope, patience))
            return unwrap(target, reply.outcome)
        except DeadlineExceeded as error:
            too_slow = error
        except ConnectionLost as error:
            raise AgentLost(target, str(error)) from error
        except RemoteError as error:
            if error.code is ErrorCode.CANCELLED:
                raise AgentCancelled(target, error.detail) from error
            raise
        if deadline < math.inf and (time_limit is None or seconds < time_limit):
            await trio.sleep_until(deadline)  # of a scope around us, which ends it without an error
        raise trio.TooSlowError(f"no reply from {target} in time") from too_slow

    async def spawn(
        self,
        agent_type: str | None = None,
        prompt: str = "",
        *,
        hub: str | None = None,
        name: str | None = None,
        persistent: bool = False,
        detached: bool = False,
        notify_parent: bool = False,
        model: str | None = None,
        permission_mode: str | None = None,
        cwd: str | None = None,
        time_limit: float | None = None,
        idle_limit: float | None = None,
    ) -> AgentHandle:
        """Start an agent, here or on another hub, and return when it is up.

        A ``persistent`` one goes on after its prompt, with a turn for each message; without a prompt, the
        first message begins its first turn.

        With ``notify_parent`` its outcome comes as a message; otherwise ask the handle for it. An agent
        that is not ``detached`` is cancelled when the agent that spawned it ends, or when this connection
        does. After ``time_limit`` seconds, or ``idle_limit`` seconds without any report of its own, it is
        stopped, and its outcome is ``TimedOut``. If we are cancelled while it is coming up, it is stopped.

        Raises:
            UnknownAgentType, NameTaken, HubNotConnected, SpawnFailed, BudgetExceeded, Overloaded.
        """
        spec = SpawnSpec(
            name=name or f"{agent_type or 'agent'}-{self._ambient.new_id()[:8]}",
            prompt=None if persistent and not prompt else prompt,  # a turn of nothing would only cost
            cwd=cwd,
            model=model,
            permission_mode=permission_mode,
            target_hub=hub,
            agent_type=agent_type,
            lifecycle="persistent" if persistent else "ephemeral",
            detached=detached,
            notify_parent=notify_parent,
            spawn_id=self._ambient.new_id(),
            timeout_ms=_milliseconds(time_limit),
            idle_timeout_ms=_milliseconds(idle_limit),
        )
        address = Address(spec.name, hub)
        try:
            spawned = await self._caller.call(SpawnAgent(spec))
        except trio.Cancelled:
            # By its identity: the name may be somebody else's, which was going to be the answer.
            with trio.move_on_after(CANCEL_TIMEOUT, shield=True), suppress(ClusterError):
                await self.cancel(str(address), "its spawn was cancelled", agent_id=spec.spawn_id)
            raise
        return AgentHandle(self, address, spawned.agent_id)

    def _envelope(self, target: str, text: str) -> Envelope:
        """A message. Its source is set by the hub, which knows who we are."""
        return Envelope(
            id=self._ambient.new_id(),
            source=HumanSource(),
            target=Address.parse(target),
            content=UserContent(text),
            timestamp=datetime.fromtimestamp(self._ambient.time(), UTC).isoformat(),
        )

    def open_agents(self) -> AbstractAsyncContextManager[AgentNursery]:
        """Open a nursery whose children are agents, on any hub::

            async with client.open_agents() as agents:
                for hub in await client.list_hubs():
                    await agents.spawn("count", text, hub=hub.name)

        The block ends when every child has. If one fails, or the block raises or is cancelled, all are
        cancelled, with all that they spawned, and confirmed gone; failures come as an ``ExceptionGroup``
        of ``AgentFailed``, ``AgentLost``, ... that name hub and agent and carry the remote traceback.
        """
        return open_agent_nursery(self)

    async def wait(self, agent: str, *, agent_id: str | None = None) -> Outcome:
        """Wait until an agent has ended. Use ``trio.fail_after`` to bound it.

        Raises:
            AgentNotFound: there is no such agent, or its outcome is no longer kept.
        """
        while True:
            left = trio.current_effective_deadline() - trio.current_time()
            step = max(0.0, min(left, WAIT_STEP))
            waited = await self.wait_once(agent, agent_id=agent_id, seconds=step + 1.0)
            if waited.outcome is not None:
                return waited.outcome

    async def wait_once(self, agent: str, *, agent_id: str | None = None, seconds: float) -> Waited:
        """Wait for at most so many seconds; ``timed_out`` is set if the agent goes on."""
        message = WaitAgent(Address.parse(agent), agent_id=agent_id, timeout_ms=int(seconds * 1000))
        return await self._caller.call(message)

    async def cancel(
        self, agent: str, reason: str = "cancelled", *, agent_id: str | None = None
    ) -> Outcome | None:
        """Stop an agent and all it spawned; return its outcome when it is gone.

        None: it was told, and was not gone when its hub gave up waiting.
        """
        message = CancelAgent(Address.parse(agent), agent_id=agent_id, reason=reason)
        return (await self._caller.call(message)).outcome

    async def interrupt(self, agent: str) -> None:
        """End an agent's current turn."""
        await self._caller.call(InterruptAgent(Address.parse(agent)))

    async def shutdown(self, agent: str) -> None:
        """Stop an agent; return when it is gone."""
        await self._caller.call(ShutdownAgent(Address.parse(agent)))

    async def control(self, agent: str, command: Any) -> None:
        """Hand an agent a control command, such as ``{"ModeSwitch": "Plan"}``."""
        await self._caller.call(ControlAgent(Address.parse(agent), dumps(command)))


@define
class AgentHandle:
    """An agent that was spawned. Dropping the handle does not stop it."""

    _client: ClusterClient = field(repr=False)
    address: Address
    id: str

    @property
    def name(self) -> str:
        """Its name on its hub."""
        return self.address.agent

    async def outcome(self) -> Outcome:
        """Wait until it has ended."""
        return await self._client.wait(str(self.address), agent_id=self.id)

    async def result(self) -> str:
        """Wait until it has ended, and return its result.

        Raises:
            AgentFailed, AgentCancelled, AgentTimedOut, AgentLost: it has none.
        """
        return unwrap(str(self.address), await self.outcome())

    async def send(self, text: str) -> None:
        """Send it a message."""
        await self._client.send(str(self.address), text)

    async def ask(self, text: str, *, time_limit: float | None = None, extend: bool = False) -> str:
        """Ask it, as ``ClusterClient.ask`` does."""
        return await self._client.ask(str(self.address), text, time_limit=time_limit, extend=extend)

    async def cancel(self, reason: str = "cancelled") -> Outcome | None:
        """Stop it and all it spawned; return its outcome when it is gone."""
        return await self._client.cancel(str(self.address), reason, agent_id=self.id)


def _milliseconds(seconds: float | None) -> int | None:
    if seconds is None or seconds == math.inf:
        return None
    return math.ceil(min(max(seconds, 0.001), LONGEST) * 1000)


def _renew(scope: trio.CancelScope, seconds: float) -> None:
    scope.deadline = trio.current_time() + seconds


Judge = Callable[[Permission], Awaitable[Decision]]
Adviser = Callable[[Question], Awaitable[Answers]]


class Client(ClusterClient):
    """A program's connection to a hub or a MetaHub. Made by ``open_client``."""

    def __init__(
        self,
        caller: Caller,
        welcome: Welcome,
        arrivals: _Arrivals,
        ambient: Ambient | None = None,
    ) -> None:
        super().__init__(caller, ambient)
        self.welcome = welcome
        """What the other side is: ``kind``, ``hub``, ``cluster``."""
        self.closed = caller.closed
        """Set when the connection has ended."""
        self._arrivals = arrivals

    async def subscribe(self, since: int | None = None) -> EventStream:
        """Watch what happens from now on, and what is still kept of what came after ``since``."""
        subscribed = await self._caller.call(Subscribe(since))
        next_seq = subscribed.seq if since is None else since
        return EventStream(self._arrivals, next_seq, subscribed.seq)


@define(eq=False)
class _Arrivals:
    """Events that have come and were not read. None of them is ever in the hand of a task that waits."""

    limit: int
    events: deque[ClusterEvent] = field(factory=deque)
    ended: bool = False
    arrived: trio.lowlevel.ParkingLot = field(factory=trio.lowlevel.ParkingLot)

    def put(self, event: ClusterEvent) -> None:
        if len(self.events) < self.limit and not self.ended:
            self.events.append(event)
            self.arrived.unpark()

    def end(self) -> None:
        self.ended = True
        self.arrived.unpark_all()


@define
class EventStream:
    """Events in order, ``async for``; they end when the connection does.

    ``missed`` counts those that were dropped on the way to us.
    """

    _arrivals: _Arrivals = field(repr=False)
    last_seq: int
    newest_seq: int
    """The number of the newest event when the subscription began."""
    missed: int = 0

    def __aiter__(self) -> EventStream:
        return self

    async def __anext__(self) -> ClusterEvent:
        await trio.lowlevel.checkpoint()
        while not self._arrivals.events:
            if self._arrivals.ended:
                raise StopAsyncIteration
            await self._arrivals.arrived.park()
        return self._count(self._arrivals.events.popleft())

    def arrived(self) -> Iterator[ClusterEvent]:
        """The events that are here already; whatever was answered to us since came after them."""
        while self._arrivals.events:
            yield self._count(self._arrivals.events.popleft())

    def _count(self, event: ClusterEvent) -> ClusterEvent:
        self.missed += max(0, event.seq - self.last_seq - 1)
        self.last_seq = event.seq
        return event


@asynccontextmanager
async def open_client(
    channel: FrameChannel,
    *,
    name: str,
    token: str = "",
    role: Role = Role.CLIENT,
    on_permission: Judge | None = None,
    on_question: Adviser | None = None,
    on_decided: Callable[[Decided], None] = lambda decided: None,
    event_buffer: int = 10_000,
    ambient: Ambient | None = None,
) -> AsyncIterator[Client]:
    """Register over a connected channel and be a client of that hub or MetaHub for the block.

    An operator (``role``) is asked: ``on_permission`` and ``on_question`` run in a task of their own
    for each ask and are cancelled when somebody else has answered it first. Events beyond
    ``event_buffer`` that are not read are dropped, and counted by the stream.

    Raises:
        Unauthorized: the token is wrong.
        ConnectionLost: the link ended.
    """
    arrivals = _Arrivals(event_buffer)

    async def on_request(message: Message[Any], request_id: int) -> Any:
        match message:
            case Permission() if on_permission is not None:
                return await on_permission(message)
            case Question() if on_question is not None:
                return await on_question(message)
            case _:
                raise MethodNotFound(f"unknown: {message.method}")

    def on_notification(message: Message[Any]) -> None:
        match message:
            case ClusterEvent():
                # The reader is told of one that does not fit by the gap in the numbers.
                arrivals.put(evolve(message, payload=payload(message.payload)))
            case Decided():
                on_decided(message)
            case _:
                pass

    async with open_caller(channel, on_request, on_notification) as caller, open_background() as nursery:
        nursery.start_soon(_end_events, caller, arrivals)
        register = Register(name=name, token=token, role=role, protocol=Protocol(1))
        welcome = await caller.call(register)
        try:
            yield Client(caller, welcome, arrivals, ambient)
        finally:
            arrivals.end()


async def _end_events(caller: Caller, arrivals: _Arrivals) -> None:
    """Let whoever reads events know that the connection has ended: nothing else would."""
    await caller.closed.wait()
    arrivals.end()


@asynccontextmanager
async def connect(
    address: str,
    *,
    token: str = "",
    name: str = "program",
    role: Role = Role.CLIENT,
    on_permission: Judge | None = None,
    on_question: Adviser | None = None,
    on_decided: Callable[[Decided], None] = lambda decided: None,
) -> AsyncIterator[Client]:
    """Be a client of the hub or MetaHub at ``HOST:PORT`` or ``unix:PATH`` for the block.

    Raises:
        ConnectionLost: it cannot be reached.
        Unauthorized: the token is wrong.
    """
    channel = await dial(address, Limits().line_bytes)
    async with open_client(
        channel,
        name=name,
        token=token,
        role=role,
        on_permission=on_permission,
        on_question=on_question,
        on_decided=on_decided,
    ) as client:
        yield client
