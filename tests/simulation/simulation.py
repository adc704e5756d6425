"""One seed, one run: generate, run, check; and look closer at a run that fails."""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Sequence
from typing import Any

from attrs import define, evolve, field, frozen

from loopal_cluster.core.hub import HubCore
from loopal_cluster.core.meta_hub import MetaHubCore
from tests.simulation.checkers import CHECKERS, Checker
from tests.simulation.cores import CoreWorld, MakeHub, MakeMetaHub
from tests.simulation.history import Deviation, History
from tests.simulation.live.world import RuntimeWorld
from tests.simulation.script import Peers, Script, Weather, generate
from tests.simulation.shrink import shrink
from tests.simulation.world import World

__all__ = ["Level", "Report", "Simulation"]


class Level(enum.Enum):
    """What runs in the simulated processes."""

    CORE = "core"
    """The pure cores alone: milliseconds a run."""
    RUNTIME = "runtime"
    """The whole runtime, in trio's tasks and over bytes: 0.1 s a run."""


@frozen
class Report:
    """What came of one run."""

    seed: int
    script: Script
    deviations: tuple[Deviation, ...]
    """The promises that were not kept; none is what is wanted."""
    history: History = field(repr=False, eq=False)
    transcript: tuple[str, ...] = field(default=(), repr=False)
    """Every event and effect of every core, if it was asked for."""

    @property
    def digest(self) -> str:
        """Equal for equal runs, also in another process."""
        lines = [*self.transcript, *(f"{op} {op.verdict} {op.ended_at}" for op in self.history.ops)]
        lines += [str(evolve(deviation, traceback="")) for deviation in self.deviations]  # it has addresses
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


@define
class Simulation:
    """A whole cluster from one seed: a MetaHub, hubs, agents, people, a network, and what goes wrong.

    It runs on virtual time and without sockets: the pure cores, or (``level``) the whole runtime inside a
    ``trio.run`` of its own. The same seed gives the same run, to the last frame.
    """

    seed: int
    weather: Weather = Weather.ROUGH
    peers: Peers = Peers.OURS
    level: Level = Level.CORE
    script: Script | None = None
    """What to try; by default what the seed says."""
    make_hub: MakeHub = HubCore
    make_meta_hub: MakeMetaHub = MetaHubCore
    checkers: Sequence[Checker] = CHECKERS

    def __attrs_post_init__(self) -> None:
        if self.script is None:
            self.script = generate(self.seed, self.weather, self.peers)
        if self.script.base and self.level is Level.RUNTIME:
            raise ValueError("peers of the base dialect are simulated at the level of the cores only")

    def run(self, *, tracing: bool = False) -> Report:
        """Carry out the script and check every promise."""
        assert self.script is not None
        world = self._world(self.script, tracing)
        history = world.run()
        deviations = list(history.deviations)
        # After a core has raised nothing else can be expected of the run.
        if not any(deviation.traceback for deviation in deviations):
            deviations += [found for checker in self.checkers for found in checker.check(history)]
        return Report(self.seed, self.script, tuple(deviations), history, tuple(world.transcript))

    def _world(self, script: Script, tracing: bool) -> World:
        if self.level is Level.RUNTIME:
            return RuntimeWorld(self.seed, script, tracing=tracing)
        return CoreWorld(
            self.seed, script, make_hub=self.make_hub, make_meta_hub=self.make_meta_hub, tracing=tracing
        )

    def shrunk(self, checker: str, *, tries: int = 400) -> Simulation:
        """The same simulation with a script from which every step is gone that this finding does not need."""
        script = self.script
        assert script is not None

        def fails(steps: Sequence[Any]) -> bool:
            found = evolve(self, script=evolve(script, steps=tuple(steps))).run().deviations
            return any(deviation.checker == checker for deviation in found)

        return evolve(self, script=evolve(script, steps=tuple(shrink(script.steps, fails, tries))))
