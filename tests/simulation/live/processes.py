"""The processes: a hub or a MetaHub of the real runtime, which can be killed, stopped and started anew."""

from __future__ import annotations

import abc
import contextvars
import random
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import trio

from loopal_cluster.errors import ConnectionLost
from loopal_cluster.links.ambient import Ambient
from loopal_cluster.links.channels import FrameChannel
from loopal_cluster.runtime.hub import Hub, open_hub
from loopal_cluster.runtime.meta_hub import MetaHub, open_meta_hub
from loopal_cluster.runtime.runtime import Core
from loopal_cluster.testing.halting import Halter, Switch
from tests.simulation.actors import TOKEN, ScriptedAgent
from tests.simulation.bounds import TIMEOUTS
from tests.simulation.live.agents import SimulatedAgent
from tests.simulation.live.channels import WatchedChannel
from tests.simulation.live.streams import Reader, SimStream, stream_channel
from tests.simulation.network import RESET, Connection, End, Line
from tests.simulation.process import AGENT_TYPES, CONNECT_TIMEOUT

if TYPE_CHECKING:
    from tests.simulation.live.programs import Program
    from tests.simulation.live.world import RuntimeWorld

__all__ = ["LiveHub", "LiveMetaHub", "LiveProcess"]

STEPS_LIMIT = 200_000
"""Of the tasks of one process, between two starts: far more than any script needs."""


class LiveProcess(Reader, abc.ABC):
    """A process: tasks that stand and fall together, and the connections they have."""

    def __init__(self, world: RuntimeWorld, name: str) -> None:
        self.world = world
        self.name = name
        self.run = 0
        self.alive = False
        self.tenant: Hub | MetaHub | None = None
        """What runs in it, from when it can be connected to."""
        self.times = random.Random(f"process-{name}-{world.seed}")
        self.programs: list[Program] = []
        """Clients and agent functions that run in this process, too."""
        self._streams: list[SimStream] = []
        self._children: list[ScriptedAgent] = []
        self._switches = [Switch(name)]
        """One a start; the last is that of now."""
        self._context = contextvars.copy_context()

    # Life and death.

    @property
    def frozen(self) -> int:
        """Whether it does nothing for a while."""
        return self.alive and self._switches[-1].halted

    def start(self) -> None:
        """Begin with an empty memory."""
        self.run += 1
        self.alive = True
        self._switches.append(Switch(self.name, steps_limit=STEPS_LIMIT))
        self._context = contextvars.copy_context()
        self._context.run(Halter.enter, self._switches[-1])
        self.world.trace(self.name, "starts")
        self.spawn(self._main)

    def crash(self) -> None:
        """Be gone: no word to anybody but what the system says on the connections."""
        self.world.trace(self.name, "CRASHES")
        self.alive, self.tenant = False, None
        self._switches[-1].halt()
        for stream in self._streams:
            stream.close(RESET)
        self._streams.clear()
        programs, self.programs = self.programs, []
        for program in programs:
            program.killed()
        for child in self._children:
            self.world.schedule.after(self.times.uniform(0.0, 0.3), child.die, "its hub was killed")
        self._children.clear()

    def freeze(self, lasts: float) -> None:
        """Do nothing for a while."""
        self.world.trace(self.name, "FREEZES for", lasts)
        self._switches[-1].halt()
        self.world.schedule.after(lasts, self._thaw, self.run)

    def _thaw(self, run: int) -> None:
        if run == self.run and self.alive:
            self.world.trace(self.name, "thaws")
            self._switches[-1].resume()

    def unwind(self) -> None:
        """Let the tasks of all that ever ran here end: they have been cancelled."""
        for switch in self._switches:
            switch.resume()

    def spawn(self, task: Callable[..., Awaitable[object]], *args: Any) -> None:
        """Start a task that belongs to this process."""
        self._context.run(self.world.nursery.start_soon, task, *args)

    async def _main(self) -> None:
        try:
            await self._serve()
        except* Exception as group:
            self.world.on_bug(self.name, group)

    @abc.abstractmethod
    async def _serve(self) -> None:
        """Run the tenant."""

    # Connections.

    def accept(self, end: End) -> None:
        """Somebody has connected to us."""
        if self.tenant is None:
            end.close(RESET)
        else:
            self._context.run(self.tenant.attach, self.channel(end))

    def channel(self, stream: End) -> FrameChannel:
        """Give an end of ours to the runtime."""
        return WatchedChannel(self._own(stream), partial(self.world.trace_frame, self.name, stream.label))

    def reach(self, agent: ScriptedAgent) -> FrameChannel:
        """Connect the runtime to the process of an agent, which goes when this one does."""
        connection = self.world.connect(self, agent, slowest=0.01)
        agent.begin(connection.listener)
        self._children.append(agent)
        return self._own(connection.dialler)

    def _own(self, end: End) -> FrameChannel:
        assert isinstance(end, SimStream)
        self._streams = [stream for stream in self._streams if stream.open]
        self._streams.append(end)
        return stream_channel(end)

    @property
    def peers(self) -> int:
        """How many connections it has."""
        return sum(stream.open for stream in self._streams) + sum(program.ready for program in self.programs)

    @property
    def core(self) -> Core | None:
        """What decides in it."""
        return None if self.tenant is None else self.tenant.core

    def ambient(self) -> Ambient:
        """Identities that tell where they are from, and virtual time."""
        return self.world.ambient(f"{self.name}.{self.run}", self.times)


class LiveMetaHub(LiveProcess):
    """A MetaHub. Restarted, it knows nothing of the hubs it had."""

    async def _serve(self) -> None:
        async with open_meta_hub(None, token=TOKEN, timeouts=TIMEOUTS, ambient=self.ambient()) as self.tenant:
            await trio.sleep_forever()


class LiveHub(LiveProcess):
    """A hub. While the MetaHub cannot be reached at its start, its service manager tries again."""

    tenant: Hub | None

    def __init__(self, world: RuntimeWorld, name: str) -> None:
        super().__init__(world, name)
        self.line = Line()
        self.uplink: Connection | None = None
        self.has_joined = False

    def start(self) -> None:
        self.has_joined = False
        super().start()

    @property
    def joined(self) -> bool:
        """Whether it has a connection to the MetaHub, and was accepted on it."""
        if self.tenant is None or self.uplink is None:
            return False
        return self.uplink.dialler.open and self.tenant.joined

    async def _serve(self) -> None:
        ambient = self.ambient()
        agents = {kind: SimulatedAgent(self, kind) for kind in AGENT_TYPES}
        async with open_hub(
            self.name,
            agents=agents,
            join=self._dial,
            token=TOKEN,
            meta_token=TOKEN,
            join_timeout=None,
            cwd="/",
            timeouts=TIMEOUTS,
            ambient=ambient,
        ) as hub:
            self.tenant = hub
            while True:
                await hub.until_joined()
                self.has_joined = True
                await hub._runtime.until(lambda: hub.absence is not None)
                await hub._runtime.until(lambda: hub.joined or _was_refused(hub))
                if not hub.joined:
                    assert hub.absence is not None
                    self.world.on_refused(self, hub.absence.reason)

    async def _dial(self) -> FrameChannel:
        meta = self.world.meta
        if not self.line.passable:
            await trio.sleep(CONNECT_TIMEOUT)
            raise ConnectionLost("the MetaHub does not answer")
        await trio.lowlevel.checkpoint()
        if meta.tenant is None:
            raise ConnectionLost("nobody listens there")
        self.uplink = connection = self.world.connect(self, meta, line=self.line)
        connection.open(meta.accept)
        return self.channel(connection.dialler)


def _was_refused(hub: Hub) -> bool:
    return hub.absence is not None and hub.absence.refusal is not None
