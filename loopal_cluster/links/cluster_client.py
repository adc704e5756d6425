"""What one can ask of a cluster, as methods: for programs (``Client``) and for agents (``AgentContext``).

A hub and a MetaHub answer the same requests, a hub for its own agents and, through its MetaHub, for everybody
else's.
"""

from __future__ import annotations

import math
from contextlib import AbstractAsyncContextManager, suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any

import trio
from attrs import field

from loopal_cluster.address import Address
from loopal_cluster.errors import (
    AgentCancelled,
    AgentLost,
    ClusterError,
    ConnectionLost,
    DeadlineExceeded,
    ErrorCode,
    RemoteError,
)
from loopal_cluster.links.ambient import Ambient
from loopal_cluster.links.caller import Caller
from loopal_cluster.links.nursery import AgentNursery, open_agent_nursery
from loopal_cluster.messages import (
    AgentDetails,
    AgentInfo,
    AgentNode,
    Ask,
    CancelAgent,
    ControlAgent,
    Envelope,
    HubInfo,
    HumanSource,
    InterruptAgent,
    ListHubs,
    MetaTopology,
    Route,
    Source,
    SpawnAgent,
    SpawnSpec,
    Status,
    StatusInfo,
    Topology,
    TopologyOf,
    UserContent,
    WaitAgent,
    Waited,
)
from loopal_cluster.outcomes import Outcome, reason_of, unwrap
from loopal_cluster.records import define, evolve
from loopal_cluster.wire.contents import check_json, check_text, check_texts, dumps

__all__ = ["AgentHandle", "ClusterClient"]

GIVE_UP_TIMEOUT = 2.0
"""Seconds that a spawn which is given up waits for its hub to say that nothing of it runs; it is told all the same."""
ASK_PATIENCE = 3.0
"""Seconds that we wait longer for an answer than the hubs do, which are to say themselves what happened."""

LONGEST = 1e9
"""Seconds, 30 years: the longest time that we ask for. A float can have one that no integer on the wire can."""

WAIT_STEP = 300.0
"""Seconds after which an unbounded wait is asked anew, so that no hub has to keep it for ever."""


class ClusterClient:
    """What both programs and agents can ask."""

    _source: Source = HumanSource()
    """Who we say that we are in a message; the hub knows better, and stamps it."""

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
        details = await self._caller.call(AgentInfo(Address.parse(agent), brief=True))
        if details.outcome is None or details.output is not None:
            return details
        return evolve(details, output=reason_of(details.outcome))

    async def send(self, target: str, text: str) -> None:
        """Send a message to an agent, by bare or qualified name; return when it was accepted.

        Raises:
            AgentNotFound, AmbiguousName, HubNotConnected, DeliveryFailed, Overloaded: it was not.
            TextTooLong: it is larger than a text may be.
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
            AskCircle: it is itself waiting for our reply, or we ask ourselves; see ``AgentContext.serve``.
            AgentNotFound, AmbiguousName, HubNotConnected, Overloaded, MethodNotFound, TextTooLong: it was
                not asked.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        deadline = trio.current_effective_deadline()
        seconds = min(deadline - trio.current_time(), math.inf if time_limit is None else time_limit)
        message = Ask(self._envelope(target, text, _milliseconds(seconds), extend, self._for_ask()))
        try:
            if time_limit is None:
                reply = await self._caller.call(message)
            else:
                patience = time_limit + ASK_PATIENCE
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
            UnknownAgentType, NameTaken, HubNotConnected, SpawnFailed, BudgetExceeded, Overloaded, TextTooLong.
        """
        check_texts(agent_type=agent_type, prompt=prompt, hub=hub, name=name, model=model, cwd=cwd)
        check_texts(permission_mode=permission_mode)
        spec = SpawnSpec(
            name=name or f"{agent_type or 'agent'}-{self._ambient.new_id()[:8]}",
            prompt=None if persistent and not prompt else prompt,  # a turn of nothing would only cost
            cwd=cwd,
            model=model,
            permission_mode=permission_mode,
            target_hub=hub,
            agent_type=agent_type,
            lifecycle="persistent" if persistent else "ephemeral",
            detached=bool(detached),
            notify_parent=bool(notify_parent),
            spawn_id=self._ambient.new_id(),
            timeout_ms=_milliseconds(time_limit),
            idle_timeout_ms=_milliseconds(idle_limit),
        )
        address = Address(spec.name, hub)
        try:
            spawned = await self._caller.call(SpawnAgent(spec))
        except trio.Cancelled:
            # By its identity: the name may be somebody else's, which was going to be the answer.
            with trio.move_on_after(GIVE_UP_TIMEOUT, shield=True), suppress(ClusterError):
                await self.cancel(str(address), "its spawn was cancelled", agent_id=spec.spawn_id)
            raise
        return AgentHandle(self, address, spawned.agent_id)

    def _envelope(
        self,
        target: str,
        text: str,
        timeout_ms: int | None = None,
        extend: bool = False,
        for_ask: int | None = None,
    ) -> Envelope:
        """A message, which ``timeout_ms`` and ``extend`` make an ask."""
        check_text("text", text)
        return Envelope(
            id=self._ambient.new_id(),
            source=self._source,
            target=Address.parse(target),
            content=UserContent(text),
            timestamp=datetime.fromtimestamp(self._ambient.time(), UTC).isoformat(),
            timeout_ms=timeout_ms,
            extend=bool(extend),
            for_ask=for_ask,
        )

    def _for_ask(self) -> int | None:
        """The ask that an ask of ours is for, if we work on several at a time (``Envelope.for_ask``)."""
        return None

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
        check_texts(agent_id=agent_id)
        timeout_ms = int(seconds * 1000)
        message = WaitAgent(Address.parse(agent), agent_id=agent_id, timeout_ms=timeout_ms, brief=True)
        waited = await self._caller.call(message)
        if waited.outcome is None or waited.output:
            return waited
        return evolve(waited, output=reason_of(waited.outcome))

    async def cancel(
        self, agent: str, reason: str = "cancelled", *, agent_id: str | None = None
    ) -> Outcome | None:
        """Stop an agent and all it spawned; return its outcome when it is gone.

        None: it was told, and was not gone when its hub gave up waiting.
        """
        check_texts(reason=reason, agent_id=agent_id)
        message = CancelAgent(Address.parse(agent), agent_id=agent_id, reason=reason, brief=True)
        return (await self._caller.call(message)).outcome

    async def interrupt(self, agent: str) -> None:
        """End an agent's current turn."""
        await self._caller.call(InterruptAgent(Address.parse(agent)))

    async def control(self, agent: str, command: Any) -> None:
        """Hand an agent a control command, such as ``{"ModeSwitch": "Plan"}``."""
        await self._caller.call(ControlAgent(Address.parse(agent), check_json("command", dumps(command))))


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
