"""A process that runs a core: it has a clock of its own, and can crash, freeze and come back.

``Process`` does for a core what ``runtime/runtime.py`` does; ``HubProcess`` does what
``runtime/hub.py`` does besides: it starts and stops agents, and dials the MetaHub again and again.
"""

from __future__ import annotations

import abc
import random
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from loopal_cluster.config import HubSettings, MetaHubSettings
from loopal_cluster.core.effects import (
    Disconnect,
    Effect,
    Joined,
    KeepText,
    Log,
    Send,
    StartAgent,
    StopAgent,
    Watch,
)
from loopal_cluster.core.events import (
    AgentEnded,
    AgentNotStarted,
    AgentStarted,
    DeadlineReached,
    Event,
    FrameReceived,
    Link,
    Peer,
    PeerConnected,
    PeerLost,
)
from loopal_cluster.core.hub import HubCore
from loopal_cluster.frames import Frame, Request, Response
from loopal_cluster.messages import Shutdown
from loopal_cluster.runtime.runtime import Core, expected_by_hub
from loopal_cluster.wire.codec import decode_result
from tests.simulation.actors import TOKEN, ScriptedAgent
from tests.simulation.bounds import TIMEOUTS
from tests.simulation.history import AgentLife
from tests.simulation.network import Connection, End, Line, connect

if TYPE_CHECKING:
    from tests.simulation.cores import CoreWorld

__all__ = ["AGENT_TYPES", "HubProcess", "MetaHubProcess", "Process"]

AGENT_TYPES = ("quick", "slow", "broken", "mute")
CONNECT_TIMEOUT = 1.0
"""For a connection attempt into a partition to be given up."""


class Stopped(Exception):
    """A core has raised; the run cannot go on."""


class Process(abc.ABC):
    """One core, its connections and its clock."""

    core: Core

    def __init__(self, world: CoreWorld, name: str, drift: float) -> None:
        self.world = world
        self.name = name
        self.run = 0
        """Counts the starts; everything of an older run is dead."""
        self.alive = False
        self.frozen = 0
        self._ends: dict[Peer, End] = {}
        self._last_peer = 0
        self._pending: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
        self._times = random.Random(f"process-{name}-{world.seed}")
        self._rate = 1.0 + self._times.uniform(-drift, drift)
        self._offset = self._times.uniform(0.0, 1000.0)
        self._last_now = 0.0
        self._alarm: float | None = None

    # Its clock.

    def now(self) -> float:
        """What its clock shows; it never goes back."""
        self._last_now = max(self._last_now, self._offset + self.world.schedule.now * self._rate)
        return self._last_now

    def _set_alarm(self) -> None:
        deadline = self.core.next_deadline()
        if deadline is None or (self._alarm is not None and self._alarm <= deadline):
            return
        self._alarm = deadline
        at = (deadline - self._offset) / self._rate
        self.world.schedule.at(at + self._times.uniform(0.0, 0.01), self._ring, self.run, deadline)

    def _ring(self, run: int, deadline: float) -> None:
        if run == self.run and self._alarm == deadline:
            self.post(self._on_alarm, deadline)

    def _on_alarm(self, deadline: float) -> None:
        self._alarm = None
        self._last_now = max(self._last_now, deadline)
        self.dispatch(DeadlineReached())

    # Life and death.

    def start(self) -> None:
        """Begin with an empty memory."""
        self.run += 1
        self.alive, self._alarm = True, None
        self.core = self._make_core()
        self.world.trace(self.name, "starts")

    def crash(self) -> None:
        """Be gone: no word to anybody but what the system says on the connections."""
        self.world.trace(self.name, "CRASHES")
        self.alive, self.frozen = False, 0
        self._pending.clear()
        for end in self._ends.values():
            end.close("connection reset")
        self._ends.clear()

    def freeze(self, lasts: float) -> None:
        """Do nothing for a while."""
        self.world.trace(self.name, "FREEZES for", lasts)
        self.frozen += 1
        self.world.schedule.after(lasts, self._thaw, self.run)

    def _thaw(self, run: int) -> None:
        if run != self.run or not self.alive:
            return
        self.frozen -= 1
        if not self.frozen:
            self.world.trace(self.name, "thaws")
        while self._pending and not self.frozen:
            act, args = self._pending.pop(0)
            act(*args)

    def post(self, act: Callable[..., None], *args: Any) -> None:
        """Let something happen in this process: now, or when it thaws; never, if it is gone."""
        if self.frozen and self.alive:
            self._pending.append((act, args))
        elif self.alive:
            act(*args)

    def later(self, delay: float, act: Callable[..., None], *args: Any) -> None:
        """Let something happen in this run of the process."""
        run = self.run

        def act_if_same_run() -> None:
            if self.run == run:
                self.post(act, *args)

        self.world.schedule.after(delay, act_if_same_run)

    # The core.

    def dispatch(self, event: Event) -> None:
        """Tell the core what happened and carry out what it decides."""
        if self.world.tracing:
            self.world.trace(self.name, "<-", event)
        try:
            effects = self.core.handle(event, self.now())
        except Exception as error:
            where = "".join(traceback.format_exception(error)[-8:])
            what = f"{self.name} raised {type(error).__name__}: {error} on {event}"
            self.world.deviate("no core raises", what, f"\n{where}")
            raise Stopped from error
        for effect in effects:
            if self.world.tracing:
                self.world.trace(self.name, "  ->", effect)
            self._perform(effect)
        self._set_alarm()

    def _perform(self, effect: Effect) -> None:
        match effect:
            case Send(peer, frame):
                if (end := self._ends.get(peer)) is not None:
                    end.send(frame)
            case Disconnect(peer):
                self._hang_up(peer, effect.reason)
            case Log() | Joined() | KeepText() | Watch():
                pass
            case StartAgent() | StopAgent():
                raise AssertionError("only a hub has agents")

    def _hang_up(self, peer: Peer, reason: str) -> None:
        # The core hears of it afterwards, as from the runtime: effects never come before they are done.
        if (end := self._ends.pop(peer, None)) is not None:
            end.close("hung up")
            self.later(0.0, self._after_hanging_up, end, reason)

    def _after_hanging_up(self, end: End, reason: str) -> None:
        self.dispatch(PeerLost(end.peer, reason))

    # Its connections.

    def adopt(self, end: End) -> Peer:
        """Give an end its peer id."""
        self._last_peer += 1
        end.peer = Peer(self._last_peer)
        self._ends[end.peer] = end
        return end.peer

    def welcome(self, end: End, link: Link = Link.ACCEPTED) -> None:
        """Somebody has connected to us."""
        self.post(self._accept, end, link)

    def _accept(self, end: End, link: Link) -> None:
        if end.open:
            self.dispatch(PeerConnected(self.adopt(end), link))

    def on_frame(self, end: End, frame: Frame) -> None:
        """Somebody said something."""
        self.post(self._on_frame, end, frame)

    def _on_frame(self, end: End, frame: Frame) -> None:
        if self._ends.get(end.peer) is not end:
            return
        if isinstance(frame, Response):  # as the runtime does
            call = self.core.exchange.calls.find(end.peer, frame.id)
            if call is not None:
                frame = decode_result(frame, expected_by_hub(call.message))
        self.dispatch(FrameReceived(end.peer, frame))

    def on_lost(self, end: End, reason: str) -> None:
        """A connection ended."""
        self.post(self._on_lost, end, reason)

    def _on_lost(self, end: End, reason: str) -> None:
        if self._ends.pop(end.peer, None) is end:
            self.dispatch(PeerLost(end.peer, reason))

    @property
    def peers(self) -> int:
        """How many connections it has."""
        return len(self._ends)

    @abc.abstractmethod
    def _make_core(self) -> Core:
        """A core that knows nothing yet."""

    def _new_id(self) -> Callable[[], str]:
        prefix, numbers = f"{self.name}.{self.run}", iter(range(1, 1_000_000))
        return lambda: f"{prefix}-{next(numbers)}"


class MetaHubProcess(Process):
    """A MetaHub. Restarted, it knows nothing of the hubs it had."""

    def _make_core(self) -> Core:
        settings = MetaHubSettings(cluster=f"cluster-{self.run}", token=TOKEN, timeouts=TIMEOUTS)
        return self.world.make_meta_hub(settings, self._new_id())


class HubProcess(Process):
    """A hub with its agents and its line to the MetaHub."""

    def __init__(self, world: CoreWorld, name: str, drift: float) -> None:
        super().__init__(world, name, drift)
        self.line = Line()
        self.uplink: Connection | None = None
        self.joined = False
        self.has_joined = False
        """Whether it was ever in the cluster as the instance it is now."""
        self._delay = TIMEOUTS.redial_delay
        self._hosts: dict[str, _AgentHost] = {}

    def _make_core(self) -> Core:
        settings = HubSettings(
            name=self.name,
            instance=f"{self.name}.{self.run}",
            token=TOKEN,
            meta_token=TOKEN,
            agent_types=AGENT_TYPES,
            default_type=AGENT_TYPES[0],  # for base hubs, which know no types
            timeouts=TIMEOUTS,
        )
        return self.world.make_hub(settings, self._new_id())

    def start(self) -> None:
        super().start()
        self.joined = self.has_joined = False
        self.later(0.0, self._dial)

    def crash(self) -> None:
        super().crash()
        self.uplink, self.joined = None, False
        hosts, self._hosts = self._hosts, {}
        for host in hosts.values():
            host.die_with_hub(self._times.uniform(0.0, 0.3))

    # The uplink.

    def _dial(self) -> None:
        meta = self.world.meta
        if not self.line.passable:
            self.later(CONNECT_TIMEOUT, self._redial)
        elif not meta.alive:
            self._redial()
        else:
            self._delay = TIMEOUTS.redial_delay
            self.uplink = connection = self.world.connect(self, meta, line=self.line)
            connection.open(meta.welcome)
            self._accept(connection.dialler, Link.UPLINK)

    def _redial(self) -> None:
        self.later(self._delay * self._times.uniform(0.5, 1.0), self._dial)
        self._delay = min(self._delay * 2, TIMEOUTS.redial_delay_max)

    def _on_lost(self, end: End, reason: str) -> None:
        if (host := self._host_of(end)) is not None:
            host.on_lost()  # an agent's connection is part of the agent: only its end is an event
            return
        super()._on_lost(end, reason)
        self._redial_if_uplink(end)

    def _after_hanging_up(self, end: End, reason: str) -> None:
        super()._after_hanging_up(end, reason)
        self._redial_if_uplink(end)

    def _redial_if_uplink(self, end: End) -> None:
        if self.uplink is not None and self.uplink.dialler is end:
            self.uplink, self.joined = None, False
            self._redial()

    def _perform(self, effect: Effect) -> None:
        match effect:
            case StartAgent():
                self._hosts[effect.agent_id] = _AgentHost(self, effect)
            case StopAgent(agent_id):
                if (host := self._hosts.get(agent_id)) is not None:
                    host.stop()
            case Joined():
                self.joined = self.has_joined = True
            case Disconnect():
                self._look_whether_refused()
                super()._perform(effect)
            case Send(peer, Request(_, Shutdown())):
                # Also when its end has come and the core has not heard of it yet.
                if (host := self._host_with(peer)) is not None:
                    host.want_stop()
                super()._perform(effect)
            case _:
                super()._perform(effect)

    def _look_whether_refused(self) -> None:
        absence = self.core.uplink.absence if isinstance(self.core, HubCore) else None
        if absence is not None and absence.refusal is not None:
            self.world.on_refused(self, absence.reason)

    # Agents.

    def _host_of(self, end: End) -> _AgentHost | None:
        return next((host for host in self._hosts.values() if host.end is end), None)

    def _host_with(self, peer: Peer) -> _AgentHost | None:
        ends = ((host, host.end) for host in self._hosts.values())
        return next((host for host, end in ends if end is not None and end.peer == peer), None)

    def forget(self, agent_id: str) -> None:
        """An agent is gone."""
        self._hosts.pop(agent_id, None)

    def dismiss(self, end: End) -> None:
        """Hear an agent no more, as when ``runtime/hub.py`` has left its reading loop."""
        self._ends.pop(end.peer, None)


class _AgentHost:
    """The hub's task for one agent: from ``StartAgent`` to ``AgentEnded``."""

    def __init__(self, hub: HubProcess, effect: StartAgent) -> None:
        self._hub = hub
        self._times = random.Random(f"host-{effect.agent_id}-{hub.world.seed}")
        self.end: End | None = None
        self.life = AgentLife(
            agent_id=effect.agent_id,
            name=effect.name,
            hub=hub.name,
            hub_run=hub.run,
            agent_type=effect.agent_type,
            created_at=hub.world.schedule.now,
            base=hub.world.is_base(hub.name),
        )
        self._agent: ScriptedAgent | None = None
        self._stopped = False
        self._closing = False
        slow = effect.agent_type == "slow"
        hub.later(self._times.uniform(1.0, 2.5) if slow else self._times.uniform(0.0, 0.2), self._open)

    def _open(self) -> None:
        hub, life = self._hub, self.life
        if self._stopped:
            self._over("stopped before it started")
        elif life.agent_type == "broken":
            hub.dispatch(AgentNotStarted(life.agent_id, "no such program"))
            self._over("no such program")
        else:
            hub.world.history.lives.append(life)
            self._agent = hub.world.start_agent(life, self._on_gone)
            connection = connect(
                hub.world.schedule,
                hub,
                self._agent,
                names=(hub.name, life.name),
                seed=f"{life.agent_id}-{hub.world.seed}",
                slowest=0.01,
                codec=hub.world.script.codec,
            )
            self.end = connection.dialler
            self._agent.begin(connection.listener)
            hub.dispatch(AgentStarted(life.agent_id, hub.adopt(self.end)))

    def want_stop(self) -> None:
        """Somebody wants it to end."""
        if self.life.stop_wanted_at is None:
            self.life.stop_wanted_at = self._hub.world.schedule.now

    def stop(self) -> None:
        """``StopAgent``: no longer hear it, and see to it that it goes."""
        self._stopped = True
        if self.life.said_at is None:
            self.want_stop()
        if self.end is not None and not self._closing:
            self._close()

    def on_lost(self) -> None:
        """Its connection ended by its own doing."""
        if not self._closing:
            self._close()

    def _close(self) -> None:
        self._closing = True
        assert self.end is not None
        self._hub.dismiss(self.end)
        self.end.close()
        if self.life.ended_at is not None:
            self._hub.later(self._times.uniform(0.0, 0.05), self._over, "exited")
        else:
            self._hub.later(TIMEOUTS.stop_grace, self._terminate)

    def _terminate(self) -> None:
        if self._agent is not None and self.life.ended_at is None:
            self._agent.terminate()
            self._hub.later(TIMEOUTS.stop_grace / 2, self._kill)

    def _kill(self) -> None:
        if self._agent is not None:
            self._agent.die("SIGKILL")

    def _on_gone(self, reason: str) -> None:
        """The agent's process is gone; the hub learns of it if it reads no more, else by the connection."""
        if self._closing:
            self._hub.later(self._times.uniform(0.0, 0.05), self._over, reason)

    def _over(self, reason: str) -> None:
        hub, agent_id = self._hub, self.life.agent_id
        if hub._hosts.get(agent_id) is self:
            hub.forget(agent_id)
            hub.dispatch(AgentEnded(agent_id, reason))

    def die_with_hub(self, delay: float) -> None:
        """The hub is gone; the guard process ends the agent."""
        if self._agent is not None:
            self._hub.world.schedule.after(delay, self._die_with_hub)

    def _die_with_hub(self) -> None:
        assert self._agent is not None
        if self.life.ended_at is None:
            self._agent.die("its hub was killed")
