"""A hub: ``HubCore`` with its agents, its listeners and its uplink.

``open_hub`` owns the nursery of all of them. An agent is a task here that opens it, lets the core talk
to it, and stops it; the uplink is a task that dials, and dials again.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Unpack

import trio
from attrs import field

from loopal_cluster.address import check_name
from loopal_cluster.agents.context import AgentFunction
from loopal_cluster.agents.guard import Guard, open_guard
from loopal_cluster.agents.types import AgentType, FunctionAgent, Place
from loopal_cluster.config import HubSettings, Limits, Policy, Timeouts
from loopal_cluster.core.effects import Disconnect, Effect, Joined, KeepText, StartAgent, StopAgent
from loopal_cluster.core.events import (
    AgentEnded,
    AgentNotStarted,
    AgentStarted,
    Closing,
    Link,
    NotReached,
    TokensGiven,
)
from loopal_cluster.core.hub import HubCore
from loopal_cluster.core.redial import redial_pauses
from loopal_cluster.core.uplink import Absence
from loopal_cluster.errors import ClusterError, ConfigError, ConnectionLost, ErrorCode, remote_error
from loopal_cluster.links.ambient import Ambient
from loopal_cluster.links.background import open_background, require_trio
from loopal_cluster.links.channels import FrameChannel, record_pair
from loopal_cluster.links.client import Client, ClientOptions, open_client
from loopal_cluster.links.kept import keep_text, kept_directory
from loopal_cluster.links.listeners import (
    accept_connections,
    address_of,
    check_address,
    dial,
    open_listeners,
)
from loopal_cluster.links.logs import get_logger
from loopal_cluster.mcp_server.door import open_door
from loopal_cluster.records import define, evolve
from loopal_cluster.runtime.runtime import Runtime, open_runtime
from loopal_cluster.runtime.tokens import Tokens, tokens_of

__all__ = ["Hub", "open_hub"]

logger = get_logger(__name__)


@define(eq=False)
class Hub:
    """A running hub. Made by ``open_hub``; leaving that block stops its agents and leaves nothing."""

    name: str
    """Its name in the cluster."""
    addresses: tuple[str, ...]
    """Where local clients can connect: ``unix:PATH``, ``HOST:PORT``."""
    token: str = field(repr=False)
    """What those clients must bring."""
    core: HubCore = field(repr=False)
    _runtime: Runtime = field(repr=False)
    _nursery: trio.Nursery = field(repr=False)
    _ambient: Ambient = field(repr=False)

    @property
    def joined(self) -> bool:
        """Whether it is in its cluster now."""
        return self.core.uplink.joined

    @property
    def absence(self) -> Absence | None:
        """Why it is not; None also while nothing is known yet, and for a hub without a MetaHub."""
        return self.core.uplink.absence

    async def until_answered(self) -> None:
        """Wait until the first dial of the MetaHub has come to something: it has joined, or knows why not."""
        await self._runtime.until(lambda: self.joined or self.absence is not None)

    async def until_joined(self, timeout: float = math.inf) -> None:
        """Wait until it is in its cluster.

        Raises:
            ConnectionLost: not within ``timeout``: the MetaHub cannot be reached, or does not answer.
            RemoteError: not within ``timeout``: it refuses this hub. ``Unauthorized``, ``NameTaken``, ...
        """
        with trio.move_on_after(timeout):
            await self._runtime.until(lambda: self.joined)
            return
        absence = self.absence
        if absence is None:
            raise ConnectionLost(f"{self.core.settings.meta_hub} has not answered within {timeout:g} s")
        raise remote_error(absence.refusal or ErrorCode.CONNECTION_LOST, absence.reason)

    def attach(self, channel: FrameChannel) -> None:
        """Serve one more connection, however it was made."""
        self._attach(channel, Link.ACCEPTED)

    def _attach(self, channel: FrameChannel, link: Link) -> None:
        self._nursery.start_soon(self._runtime.serve, channel, link)

    @asynccontextmanager
    async def open_client(
        self, *, name: str = "program", **options: Unpack[ClientOptions]
    ) -> AsyncIterator[Client]:
        """Be a client of this hub, in its own process: spawn, send, wait, watch, decide.

        With ``on_permission`` or ``on_question`` it is an operator, who is asked; see ``ClientOptions``.
        """
        ours, theirs = record_pair()
        self._attach(theirs, Link.TRUSTED)
        async with open_client(ours, name=name, ambient=self._ambient, **options) as client:
            yield client


Dial = Callable[[], Awaitable[FrameChannel]]
"""Makes a connection to the MetaHub, or raises ``ConnectionLost``."""

JOIN_TIMEOUT = 20.0
"""Seconds a program waits for its hub to be in the cluster: ample time for a MetaHub that starts with it."""

FAREWELL_TIMEOUT = 2.0
"""Seconds for the outcomes of the agents of a hub that closes to be known elsewhere, after these have ended."""

AgentTypes = Mapping[str, AgentType | AgentFunction]
"""What a hub runs, by the name of the type."""


@asynccontextmanager
async def open_hub(
    name: str,
    *,
    agents: AgentTypes | None = None,
    default_agent: str | None = None,
    join: str | Dial | None = None,
    meta_token: Tokens = "",
    join_timeout: float | None = JOIN_TIMEOUT,
    listen: Sequence[str] = (),
    token: str | None = None,
    policy: Policy = Policy.SUPERVISED,
    capabilities: Sequence[str] = (),
    labels: Mapping[str, str] | None = None,
    cwd: str | None = None,
    timeouts: Timeouts | None = None,
    limits: Limits | None = None,
    ambient: Ambient | None = None,
) -> AsyncIterator[Hub]:
    """Run a hub for the length of the block.

    ``agents`` are the types it runs: an async function ``(ctx, prompt)``, or an ``AgentType``. ``join``
    is the MetaHub's address, or an async function that connects to it. It is dialled until it accepts the hub, and
    again whenever that is over, whatever it says: nothing but the end of the block ends a hub. The block begins
    when the hub has joined for the first time, which may take ``join_timeout`` seconds; if that is None, it
    begins at once (``Hub.joined``, ``Hub.until_joined``). ``meta_token`` is what it brings, or a function
    that returns that, and is called at each dial: the first of its tokens counts. ``listen`` has the addresses for local clients;
    ``cwd`` is where agents work if their spawner does not say.

    Raises:
        ConnectionLost: the MetaHub could not be reached within ``join_timeout``.
        Unauthorized, NameTaken, InvalidRequest: it was, and refused this hub to the end.
        ConfigError: an address cannot be listened on, or there is no token.
        InvalidAddress: ``name`` is not a valid name.
    """
    require_trio()
    types = {
        key: value if hasattr(value, "open") else FunctionAgent(value)
        for key, value in (agents or {}).items()
    }
    ambient = ambient or Ambient()
    settings = HubSettings(
        name=check_name(name, "hub name"),
        instance=ambient.new_id(),
        token=token or ambient.new_id(),
        meta_token=tokens_of(meta_token)[0],
        capabilities=tuple(capabilities),
        labels=dict(labels or {}),
        agent_types=tuple(types),
        default_type=default_agent,
        policy=policy,
        kept=kept_directory(),
        meta_hub=join if join is None or isinstance(join, str) else "its MetaHub",
        cwd=cwd or os.getcwd(),
        timeouts=timeouts or Timeouts(),
        limits=limits or Limits(),
    )
    epoch = ambient.time() - trio.current_time()
    core = HubCore(settings, new_id=ambient.new_id, epoch=epoch)
    if isinstance(join, str):
        check_address(join)
        join = partial(dial, join, settings.limits.line_bytes)
    async with (
        open_listeners(listen) as listeners,
        open_guard() as guard,
        _open_hub(core, types, listeners, guard, ambient) as hub,
    ):
        if join is not None:
            hub._nursery.start_soon(_keep_joined, hub, join, meta_token)
            if join_timeout is not None:
                await hub.until_joined(join_timeout)
        yield hub


@asynccontextmanager
async def _open_hub(
    core: HubCore,
    types: Mapping[str, AgentType],
    listeners: Sequence[trio.SocketListener],
    guard: Guard,
    ambient: Ambient,
) -> AsyncIterator[Hub]:
    settings = core.settings
    place = Place(settings.cwd, guard, settings.limits, settings.timeouts.end_grace, ambient)
    hub: Hub

    def perform(effect: Effect) -> None:
        match effect:
            case StartAgent():
                running.start(effect)
            case StopAgent(agent_id):
                running.stop(agent_id)
            case KeepText(path, text):
                _keep(path, text)
            case Joined() | Disconnect():
                pass  # the core knows

    async with (
        open_runtime(core, settings.limits, logger, perform) as runtime,
        open_background() as nursery,
        open_door() as door,
        open_background() as agent_nursery,
    ):
        running = _Agents(runtime, agent_nursery, types, evolve(place, mcp=door))
        addresses = tuple(address_of(listener) for listener in listeners)
        hub = Hub(settings.name, addresses, settings.token, core, runtime, nursery, ambient)
        serve = partial(runtime.serve, link=Link.ACCEPTED)
        nursery.start_soon(
            accept_connections,
            listeners,
            serve,
            nursery,
            settings.limits.line_bytes,
            runtime.admission.unaccepted,
        )
        yield hub
        # Left in peace: end the agents, report their outcomes, say goodbye. If cancelled, they are ended without.
        with trio.move_on_after(settings.timeouts.stop_grace + FAREWELL_TIMEOUT):
            runtime.dispatch(Closing())
            await runtime.until(lambda: core.closed)


def _keep(path: str, text: str | bytes) -> None:
    # At once, and not in a thread, so that the file is there when its name is told. It is rare.
    try:
        keep_text(path, text)
    except OSError as error:
        logger.error("cannot keep %s: %s", path, error.strerror or error)


class _Agents:
    """The tasks of a hub's agents: one each, from ``StartAgent`` to ``AgentEnded``."""

    def __init__(
        self, runtime: Runtime, nursery: trio.Nursery, types: Mapping[str, AgentType], place: Place
    ) -> None:
        self._runtime = runtime
        self._nursery = nursery
        self._types = types
        self._place = place
        self._scopes: dict[str, trio.CancelScope] = {}
        """What to cancel to end the opening of an agent, or the talk with it."""

    def start(self, effect: StartAgent) -> None:
        """Begin to open an agent."""
        # One that took too long to come up may be asked for again, with the same identity, before it is
        # gone. That identity then means the new one, and nobody is told of the end of the old one.
        scope = self._scopes[effect.agent_id] = trio.CancelScope()
        self._nursery.start_soon(self._run, effect, scope, name=f"agent {effect.name}")

    def stop(self, agent_id: str) -> None:
        """End an agent, wherever it stands."""
        if (scope := self._scopes.get(agent_id)) is not None:
            scope.cancel()

    async def _run(self, effect: StartAgent, scope: trio.CancelScope) -> None:
        agent_id = effect.agent_id
        place = evolve(self._place, cwd=effect.cwd, name=effect.name, supervised=effect.supervised)
        opened, reason = False, "stopped"
        try:
            async with self._types[effect.agent_type].open(place) as running:
                opened = True
                if not scope.cancel_called:
                    with scope:
                        reason = await self._talk(agent_id, running.channel)
                reason = await running.stop()
        except (ClusterError, OSError) as error:
            reason = str(error)
        finally:
            if self._scopes.get(agent_id) is scope:
                del self._scopes[agent_id]
                ended = AgentEnded(agent_id, reason) if opened else AgentNotStarted(agent_id, reason)
                self._runtime.dispatch(ended)

    async def _talk(self, agent_id: str, channel: FrameChannel) -> str:
        peer = self._runtime.admit(channel)
        try:
            self._runtime.dispatch(AgentStarted(agent_id, peer))
            return await self._runtime.read(peer)
        finally:
            self._runtime.dismiss(peer)


async def _keep_joined(hub: Hub, dial: Dial, meta_token: Tokens) -> None:
    """Dial the MetaHub and serve the connection, again and again, until the hub has nothing more to do."""
    timeouts, uplink = hub.core.settings.timeouts, hub.core.uplink

    def refused() -> bool:
        return uplink.absence is not None and uplink.absence.refusal is not None

    def fresh_pauses() -> Iterator[float]:
        return redial_pauses(timeouts, hub._ambient.uniform, refused)

    pauses, complaints = fresh_pauses(), _Complaints(hub.core.settings.meta_hub or "")
    while not hub.core.closed:
        has_joined = await _serve_uplink(hub, dial, meta_token)
        if hub.core.closed:
            return
        assert uplink.absence is not None
        complaints.complain(uplink.absence, was_joined=has_joined)
        if has_joined:  # it was a good connection; one that was refused goes on slowing us
            pauses = fresh_pauses()
        await trio.sleep(next(pauses))


async def _serve_uplink(hub: Hub, dial: Dial, meta_token: Tokens) -> bool:
    """One dial, and the connection if it comes to one; return whether the hub was in the cluster meanwhile."""
    try:
        tokens = tokens_of(meta_token)
        channel = await dial()
    except (ConnectionLost, ConfigError) as error:
        hub._runtime.dispatch(NotReached(str(error)))
        return False
    before = hub.core.uplink.joins
    hub._runtime.dispatch(TokensGiven(tokens))
    await hub._runtime.serve(channel, Link.UPLINK)
    return hub.core.uplink.joins > before


@define
class _Complaints:
    """What is said of a MetaHub that does not have us: each thing once, and louder if somebody can do something."""

    _meta_hub: str
    _said: str = ""

    def complain(self, absence: Absence, *, was_joined: bool) -> None:
        """Log it if it is new."""
        if was_joined:
            reason = absence.reason.removeprefix("connection lost: ")
            logger.warning("lost the MetaHub: %s; dialling again", reason)
        elif absence.reason != self._said:
            first = not self._said
            level = logging.WARNING if first or absence.refusal is not None else logging.INFO
            logger.log(level, "not joined (%s): %s; dialling again", self._meta_hub, absence.reason)
        self._said = absence.reason
