"""The world with nothing but the pure cores in its processes: no trio, and milliseconds a run."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial

from loopal_cluster.config import HubSettings, MetaHubSettings
from loopal_cluster.core.events import Link
from loopal_cluster.core.hub import HubCore
from loopal_cluster.core.meta_hub import MetaHubCore
from loopal_cluster.messages import Role
from loopal_cluster.runtime.runtime import Core
from tests.simulation.actors import Caller, ScriptedAgent
from tests.simulation.base_process import BaseHubProcess, BaseMetaHubProcess
from tests.simulation.history import AgentLife, History
from tests.simulation.network import Connection, End, Line, Owner, connect
from tests.simulation.process import HubProcess, MetaHubProcess, Process, Stopped
from tests.simulation.script import META, Script
from tests.simulation.world import World

__all__ = ["CoreWorld", "MakeHub", "MakeMetaHub"]

STEPS_LIMIT = 200_000
"""Far more than any script needs: a core that answers itself for ever is found by this."""

MakeHub = Callable[[HubSettings, Callable[[], str]], Core]
MakeMetaHub = Callable[[MetaHubSettings, Callable[[], str]], Core]


class CoreWorld(World):
    """A run of the cores."""

    def __init__(
        self,
        seed: int,
        script: Script,
        *,
        make_hub: MakeHub = HubCore,
        make_meta_hub: MakeMetaHub = MetaHubCore,
        tracing: bool = False,
    ) -> None:
        super().__init__(seed, script, tracing=tracing)
        self.make_hub, self.make_meta_hub = make_hub, make_meta_hub
        meta = BaseMetaHubProcess if self.is_base(META) else MetaHubProcess
        self.meta: MetaHubProcess = meta(self, META, script.drift)
        self.hubs: dict[str, HubProcess] = {
            name: (BaseHubProcess if self.is_base(name) else HubProcess)(self, name, script.drift)
            for name in script.hubs
        }

    def run(self) -> History:
        with suppress(Stopped):  # the deviation says why
            for until in self.plot():
                self._advance(until)
        self.history.ended_at = self.schedule.now
        return self.history

    def _advance(self, until: float) -> None:
        while self.schedule.now < until:
            self.schedule.run_until(min(until, self.schedule.now + 1.0))
            if self.schedule.done > STEPS_LIMIT:
                self.deviate("the run ends", f"more than {STEPS_LIMIT} things have happened")
                raise Stopped

    def process(self, name: str) -> Process:
        """A hub, or the MetaHub."""
        return self.meta if name == META else self.hubs[name]

    def connect(
        self, dialler: Owner, listener: Owner, *, line: Line | None = None, slowest: float = 0.05
    ) -> Connection:
        """Make a connection with delays of its own."""
        who = tuple(getattr(owner, "name", "?") for owner in (dialler, listener))
        return connect(
            self.schedule,
            dialler,
            listener,
            names=(who[0], who[1]),
            seed=f"{who[0]}-{who[1]}-{self.seed}",
            line=line,
            slowest=slowest,
            codec=self.script.codec,
        )

    def dial(self, owner: Owner, name: str) -> End:
        process = self.process(name)
        connection = self.connect(owner, process)
        connection.open(process.welcome)
        return connection.dialler

    def attach(self, caller: Caller, role: Role) -> None:
        process = self.process(caller.hub)
        if caller.end is not None or (caller.hub == META and self.is_base(META)):
            return  # a base MetaHub has hubs and nobody else
        if not process.alive:
            self.schedule.after(0.5, self.attach, caller, role)
            return
        connection = self.connect(caller, process, slowest=0.02)
        link = Link.TRUSTED if self.trusts(caller.hub) else Link.ACCEPTED
        connection.open(partial(process.welcome, link=link))
        caller.register(connection.dialler, role)

    def start_agent(self, life: AgentLife, on_gone: Callable[[str], None]) -> ScriptedAgent:
        """Let an agent process be there."""
        agent = ScriptedAgent(self, life, on_gone)
        self.add_agent(agent)
        return agent
