"""A whole cluster in one process, over memory channels, and what can go wrong with it, by name."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any

import trio
from attrs import define, field

from loopal_cluster.agents.context import AgentFunction
from loopal_cluster.agents.types import AgentType
from loopal_cluster.config import Limits, Policy, Timeouts
from loopal_cluster.errors import ConnectionLost
from loopal_cluster.links.background import open_background
from loopal_cluster.links.channels import FrameChannel, record_pair
from loopal_cluster.runtime.hub import Hub, open_hub
from loopal_cluster.runtime.meta_hub import MetaHub, open_meta_hub
from loopal_cluster.testing.halting import Halter, Switch
from loopal_cluster.testing.operators import Operator, open_operator
from loopal_cluster.testing.wires import Wire, WiredChannel

__all__ = ["META_HUB", "TestCluster", "open_test_cluster"]

META_HUB = "meta"
"""The MetaHub's name, wherever a fault is to happen to it."""
DIAL_TIMEOUT = 10.0
"""Seconds until who dials over a silent wire gives up."""


@define(eq=False)
class _Process:
    """A hub or the MetaHub as a process: its tasks, which can be stopped where they stand."""

    opened: Callable[[], AbstractAsyncContextManager[Any]]
    _switch: Switch = field(init=False)
    _scope: trio.CancelScope = field(init=False)
    _leave: trio.Event = field(factory=trio.Event, init=False)
    _gone: trio.Event = field(factory=trio.Event, init=False)

    def __attrs_post_init__(self) -> None:
        self._switch, self._scope = Switch("process"), trio.CancelScope()

    @property
    def alive(self) -> bool:
        return not self._gone.is_set()

    async def _run(self, task_status: trio.TaskStatus[Any] = trio.TASK_STATUS_IGNORED) -> None:
        """Run it to its end, whichever that is."""
        Halter.enter(self._switch)
        try:
            with self._scope:
                async with self.opened() as tenant:
                    task_status.started(tenant)
                    await self._leave.wait()
        finally:
            self._gone.set()

    def freeze(self) -> None:
        self._switch.halt()

    def thaw(self) -> None:
        self._switch.resume()

    async def kill(self) -> None:
        """End it; nobody is told."""
        self._scope.cancel()
        self._switch.resume()  # to unwind
        await self._gone.wait()

    async def leave(self) -> None:
        """End it as its program would that leaves the block."""
        self._switch.resume()
        self._leave.set()
        await self._gone.wait()


@define(eq=False)
class TestCluster:
    """A MetaHub and its hubs, in one process. Made by ``open_test_cluster``.

    ``kill``, ``restart``, ``freeze``, ``cut`` and ``partition`` do to a hub, or to the MetaHub (``"meta"``), what happens to
    machines and networks. All of it is over when the block is left.
    """

    __test__ = False  # it is not a test, whatever pytest makes of its name

    meta_hub: MetaHub = field(init=False)
    """That of now: a restarted one is another."""
    hubs: dict[str, Hub] = field(factory=dict, init=False)
    """By name: ``hub-a``, ``hub-b``, ... Those of now, and of one that was killed the last."""
    _nursery: trio.Nursery
    _pair: Callable[[], tuple[FrameChannel, FrameChannel]]
    _processes: dict[str, _Process] = field(factory=dict, init=False)
    _wires: dict[str, Wire] = field(factory=dict, init=False)
    _reachable: bool = field(default=True, init=False)

    def __getitem__(self, name: str) -> Hub:
        return self.hubs[name]

    # Processes.

    async def kill(self, name: str) -> None:
        """End a hub or the MetaHub as kill -9 does: its agents go with it, its connections end, it says nothing.

        What it runs is cancelled, so that of your own code ``finally`` blocks do run; nobody hears of what they do.
        """
        process = self._alive(name)
        process.freeze()
        for wire in self._wires_of(name):
            await wire.cut()
        await process.kill()

    async def restart(self, name: str) -> None:
        """Start a hub or the MetaHub anew, under its name, with an empty memory; it is killed first if it is alive.

        It runs when this returns; ``await cluster[name].until_joined()`` waits until a hub is back in the cluster.
        """
        process = self._process(name)
        if process.alive:
            await self.kill(name)
        await self._start(name, process.opened)

    def freeze(self, name: str) -> None:
        """Let a hub or the MetaHub do nothing, as SIGSTOP or a suspended machine does, until ``thaw``."""
        self._alive(name).freeze()

    def thaw(self, name: str) -> None:
        """Let a frozen one go on; what should have happened meanwhile happens now."""
        self._alive(name).thaw()

    # Connections.

    async def cut(self, name: str) -> None:
        """End a hub's connection to the MetaHub, or (``"meta"``) those of all; both ends are told. Hubs dial again."""
        for wire in self._wires_of(name):
            await wire.cut()

    def partition(self, *names: str) -> None:
        """Let nothing pass between these hubs and the MetaHub, until ``heal``; neither side is told.

        What is sent meanwhile arrives when it is over, if the connection lives so long.
        """
        for name in names:
            for wire in self._wires_of(name):
                wire.fall_silent()

    def heal(self, *names: str) -> None:
        """Let everything pass again, of these hubs or (without a name) of all."""
        for name in names or self._wires:
            for wire in self._wires_of(name):
                wire.be_heard()

    def isolate(self, *, reachable: bool = False) -> None:
        """Refuse new connections to the MetaHub, or (``reachable``) accept them again. Those that are up stay so."""
        self._reachable = reachable

    # People.

    def open_operator(
        self, at: str = META_HUB, *, name: str = "human"
    ) -> AbstractAsyncContextManager[Operator]:
        """Be the human at a hub or at the MetaHub for the block, who answers permissions and questions."""
        self._alive(at)
        return open_operator(self.meta_hub if at == META_HUB else self.hubs[at], name)

    # How it is made.

    async def dial(self, hub: str) -> FrameChannel:
        """What a hub uses to reach the MetaHub."""
        wire = self._wires.setdefault(hub, Wire())
        if wire.silent:
            with trio.move_on_after(DIAL_TIMEOUT):
                await wire.until_heard()
            if wire.silent:
                raise ConnectionLost(f"the MetaHub has not answered within {DIAL_TIMEOUT:g} s")
        if not self._reachable:
            raise ConnectionLost("the MetaHub is cut off")
        if not self._processes[META_HUB].alive:
            raise ConnectionLost("nobody listens there")
        here, there = (WiredChannel(end, wire) for end in self._pair())
        wire.ends = (here, there)
        self.meta_hub.attach(there)
        return here

    async def _start(self, name: str, opened: Callable[[], AbstractAsyncContextManager[Any]]) -> None:
        self._processes[name] = process = _Process(opened)
        tenant = await self._nursery.start(process._run)
        if name == META_HUB:
            self.meta_hub = tenant
        else:
            self.hubs[name] = tenant

    async def _leave(self) -> None:
        self.heal()
        for process in reversed(self._processes.values()):
            await process.leave()

    def _unwind(self) -> None:
        for process in self._processes.values():
            process.thaw()

    def _process(self, name: str) -> _Process:
        return self._processes[self._known(name, self._processes)]

    def _known(self, name: str, names: Iterable[str]) -> str:
        if name not in names:
            raise KeyError(f"no {name!r} in this cluster; there are {', '.join(names)}")
        return name

    def _alive(self, name: str) -> _Process:
        process = self._process(name)
        if not process.alive:
            raise RuntimeError(f"{name!r} was killed; restart it first")
        return process

    def _wires_of(self, name: str) -> list[Wire]:
        if name == META_HUB:
            return list(self._wires.values())
        return [self._wires[self._known(name, self._wires)]]


@asynccontextmanager
async def open_test_cluster(
    hubs: int | tuple[str, ...] = 3,
    *,
    agents: Mapping[str, AgentType | AgentFunction] | None = None,
    default_agent: str | None = None,
    policy: Policy = Policy.SUPERVISED,
    timeouts: Timeouts | None = None,
    limits: Limits | None = None,
    pair: Callable[[], tuple[FrameChannel, FrameChannel]] = record_pair,
) -> AsyncIterator[TestCluster]:
    """Run a MetaHub and hubs for the length of the block, all joined when it begins.

    ``hubs`` is how many (they are named ``hub-a``, ``hub-b``, ...), or their names. Every hub runs the
    same ``agents``. ``pair`` makes the links: ``record_pair``, or ``byte_pair`` to go through the codec.

    Raises:
        ValueError: a hub is named ``meta``, which is the MetaHub's name here.
    """
    names = hubs if isinstance(hubs, tuple) else tuple(f"hub-{chr(97 + n)}" for n in range(hubs))
    if META_HUB in names:
        raise ValueError(f"{META_HUB!r} is the name of the MetaHub; give the hub another one")
    token = "test"
    opened_hub = partial(
        open_hub,
        agents=agents,
        default_agent=default_agent,
        meta_token=token,
        policy=policy,
        timeouts=timeouts,
        limits=limits,
    )
    async with _halting(), open_background() as nursery:
        cluster = TestCluster(nursery, pair)
        try:
            await cluster._start(
                META_HUB, partial(open_meta_hub, None, token=token, timeouts=timeouts, limits=limits)
            )
            for name in names:
                cluster._wires[name] = Wire()
                opened = partial(opened_hub, name, join=partial(cluster.dial, name), join_timeout=None)
                await cluster._start(name, opened)
                await cluster[name].until_joined()
            yield cluster
            await cluster._leave()
        finally:
            cluster._unwind()


@asynccontextmanager
async def _halting() -> AsyncIterator[None]:
    """Let the tasks of processes be stopped that begin within the block."""
    halter = Halter()
    trio.lowlevel.add_instrument(halter)
    try:
        yield
    finally:
        trio.lowlevel.remove_instrument(halter)
