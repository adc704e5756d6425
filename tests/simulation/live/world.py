"""The world of the real runtime: one ``trio.run``, in which the script is carried out."""

from __future__ import annotations

import itertools
import logging
import random
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import trio

from loopal_cluster.agents.inbox import failed
from loopal_cluster.links.ambient import Ambient
from loopal_cluster.links.channels import FrameChannel, Inbound
from loopal_cluster.messages import Role
from loopal_cluster.testing.halting import Halter, this_process
from tests.simulation.actors import Caller
from tests.simulation.history import AgentLife, History
from tests.simulation.live.processes import LiveHub, LiveMetaHub, LiveProcess
from tests.simulation.live.programs import Connected, LiveClient, LiveObserver, LiveOperator
from tests.simulation.live.scheduler import SimClock, seeded_scheduler
from tests.simulation.live.streams import LineEnd, Reader, SimStream, stream_channel
from tests.simulation.network import Connection, End, Line, Owner, connect
from tests.simulation.script import META, Script
from tests.simulation.world import World

__all__ = ["RuntimeWorld"]

EPOCH = 1_767_225_600.0
"""What the clock on the wall shows when a run begins: the year 2026 does."""


class RuntimeWorld(World):
    """A run of the runtime. All clocks go alike: a ``trio.run`` has only one."""

    client = LiveClient
    observer = LiveObserver
    operator = LiveOperator

    nursery: trio.Nursery

    def __init__(self, seed: int, script: Script, *, tracing: bool = False) -> None:
        super().__init__(seed, script, tracing=tracing)
        self.meta: LiveMetaHub = LiveMetaHub(self, META)
        self.hubs: dict[str, LiveHub] = {name: LiveHub(self, name) for name in script.hubs}
        self.over = False
        """Nothing that happens from now on is part of the run: its tasks are only being ended."""
        self._plot = trio.CancelScope()
        self._error: Exception | None = None
        self._lives, self._ids = itertools.count(1), itertools.count(1)

    def run(self) -> History:
        with seeded_scheduler(self.seed), self._logging():
            trio.run(self._main, clock=SimClock(self.schedule, self._on_error), instruments=[Halter()])
        if self._error is not None:
            raise self._error
        return self.history

    async def _main(self) -> None:
        async with trio.open_nursery() as self.nursery:
            with self._plot:
                for until in self.plot():
                    await trio.sleep_until(until)
            self.history.ended_at = self.schedule.now
            self._end()

    def _end(self) -> None:
        """End every task there is, also of processes that were killed: only now do these clean up."""
        self.over, self.tracing = True, False
        self.schedule.clear()
        self.nursery.cancel_scope.cancel()
        for process in (self.meta, *self.hubs.values()):
            process.unwind()

    @contextmanager
    def _logging(self) -> Iterator[None]:
        """Let the runtime's log be part of the transcript."""
        logger, handler = logging.getLogger("loopal_cluster"), _Transcript(self)
        before = logger.level, logger.propagate
        logger.addHandler(handler)
        logger.propagate = False
        logger.setLevel(logging.INFO)
        try:
            yield
        finally:
            logger.removeHandler(handler)
            logger.setLevel(before[0])
            logger.propagate = before[1]

    def _on_error(self, error: Exception) -> None:
        """The simulation itself has raised: end the run, then let it out."""
        self._error = self._error or error
        self._plot.cancel()

    def on_bug(self, name: str, group: ExceptionGroup[Exception]) -> None:
        """A task has raised what nobody expects; the run cannot go on."""
        where = "".join(traceback.format_exception(group))
        self.deviate("no task raises", f"{name} raised {failed(group).error}", f"\n{where}")
        self._plot.cancel()

    # For the parts of the world.

    def trace_frame(self, who: str, other: str, way: str, frame: Inbound) -> None:
        """Write down what a process has sent or received."""
        if self.tracing:
            self.trace(who, way, other, frame)

    def ambient(self, name: str, times: random.Random | None) -> Ambient:
        """Identities that tell whose they are, virtual time, and chance from the seed."""
        return Ambient(
            new_id=lambda: f"{name}-{next(self._ids)}",
            time=lambda: EPOCH + self.schedule.now,
            uniform=(times or random.Random(f"{name}-{self.seed}")).uniform,
        )

    def connect(
        self, dialler: Owner, listener: Owner, *, line: Line | None = None, slowest: float = 0.05
    ) -> Connection:
        """Make a connection of bytes with delays of its own."""
        self._connections += 1
        return connect(
            self.schedule,
            dialler,
            listener,
            names=(_name(dialler), _name(listener)),
            seed=f"{self._connections}-{self.seed}",
            line=line,
            slowest=slowest,
            ends=(_end_for(dialler), _end_for(listener)),
        )

    def process(self, name: str) -> LiveProcess:
        return self.meta if name == META else self.hubs[name]

    def dial(self, owner: Owner, name: str) -> End:
        process = self.process(name)
        connection = self.connect(owner, process)
        connection.open(process.accept)
        return connection.dialler

    def dial_stream(self, owner: Reader, process: LiveProcess) -> FrameChannel:
        """Connect whoever reads and writes bytes to a process."""
        connection = self.connect(owner, process, slowest=0.02)
        connection.open(process.accept)
        return stream_channel(connection.dialler)

    def attach(self, caller: Caller, role: Role) -> None:
        assert isinstance(caller, Connected)
        process = self.process(caller.hub)
        if process.tenant is None:
            self.schedule.after(0.05, self.attach, caller, role)
        else:
            caller.connect(process, role)

    def new_life(self, process: LiveProcess, kind: str) -> AgentLife:
        """An agent that has been opened. Who it is, it is told by ``agent/start``."""
        life = AgentLife(
            agent_id=f"unborn-{next(self._lives)}",
            name="?",
            hub=process.name,
            hub_run=process.run,
            agent_type=kind,
            created_at=self.schedule.now,
        )
        self.history.lives.append(life)
        return life


class _Transcript(logging.Handler):
    """Takes what is logged; an error is our bug."""

    def __init__(self, world: RuntimeWorld) -> None:
        super().__init__()
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        if self._world.over:
            return
        process = this_process()
        name = process.name if process is not None else "?"
        self._world.trace(name, record.levelname, record.getMessage())
        if record.levelno >= logging.ERROR:
            self._world.deviate("no error is logged", f"{name}: {record.getMessage()}")


def _end_for(owner: Owner) -> type[End]:
    return SimStream if isinstance(owner, Reader) else LineEnd


def _name(owner: Owner) -> str:
    return getattr(owner, "name", "?")
