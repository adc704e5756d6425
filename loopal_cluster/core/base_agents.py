"""The agents that a MetaHub has hubs of the base dialect start: whose each is, and whether it is to end.

Such a hub knows names and no identities: it starts a second agent of a live name and leaves it to itself, stops
whoever has the name, and reports every end as a result. So what it does not know is kept here. It is asked
whether a name is free before an agent is started there. What is named by its identity is stopped only if this is
surely the agent that has the name now: the newest that was started there for us, whose end was not reported, and
whose parent is the one that we named. And the report of one that was asked to stop says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial

from attrs import field

from loopal_cluster.address import Address
from loopal_cluster.completions import AGENT_COMPLETED, outcome_text, unwrap_result, wrap_result
from loopal_cluster.core.calls import Origin
from loopal_cluster.core.context import MetaHubPart
from loopal_cluster.core.events import Peer
from loopal_cluster.core.exchange import HOP_MARGIN, Refused
from loopal_cluster.core.membership import HubRecord
from loopal_cluster.core.owners import LocalClient, OnHub
from loopal_cluster.core.pending import Pending
from loopal_cluster.core.receipts import UNCERTAIN
from loopal_cluster.core.steps import (
    BaseSpawnDue,
    FreeingName,
    Identifying,
    MetaHubThen,
    StartingBase,
    StoppingBase,
)
from loopal_cluster.errors import ErrorCode
from loopal_cluster.frames import Failure, Response
from loopal_cluster.messages import (
    AgentInfo,
    CancelAgent,
    Envelope,
    Resolve,
    ShutdownAgent,
    SpawnAgent,
    Spawned,
    UserContent,
    Waited,
)
from loopal_cluster.outcomes import Cancelled, TimedOut
from loopal_cluster.records import define, evolve

__all__ = ["BaseAgents"]

NOBODY = "meta-hub"
"""The hub, in the parent of an agent that a client of ours has wanted: so its end is reported to us."""

ASKED = Waited("asked to stop", timed_out=True)
"""The answer to a stop: whether it ends is its own affair."""


@define(eq=False)
class BaseAgent:
    """An agent on a base hub."""

    id: str
    """The identity for whoever wanted it."""
    name: str
    parent: str
    """What its hub was told."""
    owner: LocalClient | OnHub
    message: SpawnAgent
    spawner: Origin | None
    """Whom to tell that it is up."""
    asked_for: bool = False
    """Whether its hub was asked to start it."""
    own_id: str | None = None
    """The identity for its hub, once it is up."""
    ending: Cancelled | TimedOut | None = None
    """The outcome of one that was asked to stop, or will be as soon as it is up."""
    ended: bool = False
    """Whether its hub has reported its end. It is remembered for as long as its spawn may be repeated."""

    @property
    def is_up(self) -> bool:
        """Whether it is surely the one that has the name, as far as we know."""
        return self.own_id is not None and not self.ended

    @property
    def is_coming_up(self) -> bool:
        """Whether the name will be its, as far as we know."""
        return self.own_id is None and not self.ended


@define
class BaseAgents(MetaHubPart):
    """Knows what base hubs do not."""

    _agents: dict[str, Pending[str, BaseAgent]] = field(factory=dict, init=False)
    """By hub and identity. One that comes up has a deadline, and one that has ended; one that is up has none."""

    # Starting.

    def spawn(
        self, origin: Origin, hub: HubRecord, message: SpawnAgent, owner: LocalClient | OnHub, now: float
    ) -> None:
        """Have a base hub start an agent, if the name is free; ``origin`` is answered when it is up.

        Raises:
            Refused: an agent of this name is coming up there, or the id is another's.
        """
        spec = message.spec
        assert spec.spawn_id is not None
        parent = spec.parent or f"{NOBODY}/{spec.spawn_id}"
        known = self._get(hub.name, spec.spawn_id)
        if known is not None:
            self._spawn_again(known, origin, spec.name, parent)
            return
        if any(agent.name == spec.name and agent.is_coming_up for agent in self._of(hub.name)):
            raise Refused(ErrorCode.NAME_TAKEN, f"agent name '{hub.name}/{spec.name}' is taken")
        if len(self._agents.get(hub.name, ())) >= self._settings.limits.agents:
            raise Refused(ErrorCode.OVERLOADED, f"hub '{hub.name}' has been asked for too many agents")
        waiting = (agent for agents in self._agents.values() for agent in agents.values())
        held = (agent.message for agent in waiting if agent.owner == owner and not agent.asked_for)
        self._exchange.check_held(origin, message, held)
        message = SpawnAgent(evolve(spec, parent=parent))
        timeouts = self._settings.timeouts
        then = FreeingName(hub.name, spec.spawn_id)
        self._exchange.call(hub.peer, Resolve(spec.name), then, now + timeouts.resolve_timeout)
        agent = BaseAgent(spec.spawn_id, spec.name, parent, owner, message, origin)
        if hub.name not in self._agents:
            self._agents[hub.name] = Pending(self._timers, partial(BaseSpawnDue, hub.name))
        self._agents[hub.name].add(agent.id, agent, now + timeouts.spawn_timeout - HOP_MARGIN)

    def _spawn_again(self, agent: BaseAgent, origin: Origin, name: str, parent: str) -> None:
        """Answer a spawn that its owner repeats, because the answer was lost, as the first was."""
        if (agent.name, agent.parent) != (name, parent):
            raise Refused(ErrorCode.NAME_TAKEN, f"agent id '{agent.id}' is taken")
        self._refuse(agent, ErrorCode.CANCELLED, "its spawner has asked again")
        agent.spawner = origin
        if agent.own_id is not None:
            self._answer(agent, agent.own_id)

    def on_name_known(
        self, then: FreeingName, hub: HubRecord | None, answer: Response | Failure, now: float
    ) -> None:
        """The hub has said whether it has an agent of this name; no answer is a no."""
        agent = self._get(then.hub, then.agent_id)
        if agent is None or hub is None:
            return
        if isinstance(answer, Failure) and answer.code is ErrorCode.CONNECTION_LOST:
            self._drop(then.hub, agent)
            self._refuse(agent, answer.code, answer.detail)
            return
        # A later Loopal asks us in its turn, and what we said comes back with the hub that has the agent.
        taken = isinstance(answer, Response) and answer.result.found and answer.result.hub is None
        if taken:
            self._drop(then.hub, agent)
            self._refuse(agent, ErrorCode.NAME_TAKEN, f"agent name '{then.hub}/{agent.name}' is taken")
        elif agent.ending is not None or agent.spawner is None or not self._exchange.waits(agent.spawner):
            self._drop(then.hub, agent)  # nobody wants it any more
            self._refuse(agent, ErrorCode.SPAWN_FAILED, "spawn failed: it was given up")
        else:
            for other in [*self._of(then.hub)]:
                if other.name == agent.name and other.is_up:
                    self._end(then.hub, other, now)  # and nobody has told us
            agent.asked_for = True
            self._start(then.hub, hub.peer, agent, now)

    def _start(self, hub: str, peer: Peer, agent: BaseAgent, now: float) -> None:
        # It has no deadlines. If its answer comes when nobody waits any more we need it, to stop the agent.
        deadline = now + self._settings.timeouts.result_ttl
        try:
            self._exchange.call(peer, agent.message, StartingBase(hub, agent.id), deadline)
            # It is remembered long after that, and only what it is, not what it is to do.
            agent.message = SpawnAgent(evolve(agent.message.spec, prompt=None, cwd=None, extra={}))
        except Refused as refused:
            self._drop(hub, agent)
            self._refuse(agent, refused.code, refused.detail)

    def on_started(
        self, then: StartingBase, hub: HubRecord | None, answer: Response | Failure, now: float
    ) -> None:
        """Take in that an agent is up, or could not be started."""
        agent = self._get(then.hub, then.agent_id)
        if agent is None:
            return
        if not agent.ended:
            self._agents[then.hub].set_deadline(agent.id, None)
        if isinstance(answer, Failure):
            self._drop(then.hub, agent)
            self._refuse(agent, answer.code, answer.detail)
            return
        agent.own_id = answer.result.agent_id
        self._answer(agent, agent.own_id)
        if agent.ending is not None and hub is not None and not agent.ended:
            self._identify(hub, agent, None, agent.ending, now)

    def on_due(self, hub: str, agent_id: str) -> None:
        """Give up an agent that has taken too long to come up, or forget one that has ended long ago."""
        agent = self._get(hub, agent_id)
        if agent is None:
            return
        if agent.ended:
            self._drop(hub, agent)
            return
        self._refuse(agent, ErrorCode.DEADLINE_EXCEEDED, f"no answer to {SpawnAgent.method} in time")
        if isinstance(agent.owner, LocalClient):  # a hub sees to it itself
            agent.ending = agent.ending or Cancelled("its spawn was given up")

    def withdraw(self, peer: Peer, request_id: int | None) -> None:
        """Whoever asked is gone, or no longer waits for this request."""
        for agents in self._agents.values():
            for agent in agents.values():
                spawner = agent.spawner
                if spawner is None or spawner.peer != peer or request_id not in (None, spawner.id):
                    continue
                agent.spawner = None
                if request_id is not None:
                    agent.ending = agent.ending or Cancelled("its spawn was given up")

    def _answer(self, agent: BaseAgent, own_id: str) -> None:
        if agent.spawner is not None:
            self._exchange.answer(agent.spawner, Spawned(own_id, agent.name))
            agent.spawner = None

    def _refuse(self, agent: BaseAgent, code: ErrorCode, detail: str) -> None:
        if agent.spawner is not None:
            self._exchange.refuse(agent.spawner, code, detail)
            agent.spawner = None

    # Stopping.

    def stop(self, origin: Origin, hub: HubRecord, message: CancelAgent | ShutdownAgent, now: float) -> None:
        """Have a base hub stop an agent: by its identity, if this surely is who has the name, else by name.

        Raises:
            Refused: we know of no such agent there.
        """
        name, agent_id = message.agent.agent, None
        ending: Cancelled | TimedOut = Cancelled("shutdown")
        if isinstance(message, CancelAgent):
            agent_id = message.agent_id
            ending = TimedOut(message.reason) if message.timed_out else Cancelled(message.reason)
        if agent_id is None:
            agent = next((agent for agent in self._of(hub.name) if agent.name == name and agent.is_up), None)
            self._stop(hub, name, agent, origin, ending, now)
            return
        agent = next((agent for agent in self._of(hub.name) if agent_id in (agent.id, agent.own_id)), None)
        if agent is None or agent.ended:
            detail = f"hub '{hub.name}' does not run agent '{name}' ({agent_id}), as far as is known"
            raise Refused(ErrorCode.AGENT_NOT_FOUND, detail)
        if agent.is_up:
            self._identify(hub, agent, origin, ending, now)
        else:
            agent.ending = agent.ending or ending
            self._exchange.answer(origin, ASKED)

    def on_owner_lost(
        self, owner: LocalClient | OnHub, hubs: Iterable[HubRecord], reason: str, now: float
    ) -> None:
        """What a client, or the agents of a hub, have spawned, or are still spawning, ends with them."""
        for hub in hubs:
            for agent in [*self._of(hub.name)]:
                if agent.owner == owner and not agent.message.spec.detached:
                    agent.ending = agent.ending or Cancelled(reason)
                    if agent.is_up:
                        self._identify(hub, agent, None, agent.ending, now)

    def _identify(
        self,
        hub: HubRecord,
        agent: BaseAgent,
        origin: Origin | None,
        ending: Cancelled | TimedOut,
        now: float,
    ) -> None:
        """See whether it is still this agent that has the name."""
        then = Identifying(origin, hub.name, agent.id, ending)
        deadline = now + self._settings.timeouts.call_timeout
        self._try(hub, origin, AgentInfo(Address(agent.name)), then, deadline)

    def on_identified(
        self, then: Identifying, hub: HubRecord | None, answer: Response | Failure, now: float
    ) -> None:
        """The hub has said whose child has the name."""
        agent = self._get(then.hub, then.agent_id)
        if isinstance(answer, Failure) and answer.code in UNCERTAIN:
            self._pass_on(then.origin, answer)
        elif (
            agent is None
            or hub is None
            or isinstance(answer, Failure)
            or answer.result.parent != agent.parent
        ):
            if agent is not None:
                self._end(then.hub, agent, now)
            detail = f"hub '{then.hub}' does not run it any more"
            self._pass_on(then.origin, Failure(0, ErrorCode.AGENT_NOT_FOUND, detail))
        else:
            self._stop(hub, agent.name, agent, then.origin, then.ending, now)

    def _stop(
        self,
        hub: HubRecord,
        name: str,
        agent: BaseAgent | None,
        origin: Origin | None,
        ending: Cancelled | TimedOut,
        now: float,
    ) -> None:
        deadline = now + self._settings.timeouts.spawn_timeout - HOP_MARGIN
        then = StoppingBase(origin, hub.name, None if agent is None else agent.id)
        if self._try(hub, origin, ShutdownAgent(Address(name)), then, deadline) and agent is not None:
            agent.ending = agent.ending or ending

    def on_stopped(self, then: StoppingBase, answer: Response | Failure, now: float) -> None:
        """Take in that an agent was asked to stop, or is not there."""
        agent = self._get(then.hub, then.agent_id)
        if isinstance(answer, Failure) and answer.code not in UNCERTAIN and agent is not None:
            self._end(then.hub, agent, now)
        self._pass_on(then.origin, Response(answer.id, ASKED) if isinstance(answer, Response) else answer)

    def _try(
        self,
        hub: HubRecord,
        origin: Origin | None,
        message: AgentInfo | ShutdownAgent,
        then: MetaHubThen,
        deadline: float,
    ) -> bool:
        try:
            self._exchange.call(hub.peer, message, then, deadline)
        except Refused as refused:
            self._pass_on(origin, Failure(0, refused.code, refused.detail))
            return False
        return True

    def _pass_on(self, origin: Origin | None, answer: Response | Failure) -> None:
        if origin is not None:
            self._exchange.pass_on(origin, answer)

    # Ending.

    def reported(self, hub: HubRecord, envelope: Envelope, now: float) -> Envelope | None:
        """What a base hub says of an end, as it is passed on; None if it is for us alone.

        Of one that was asked to stop it says that: its hub takes what it had said by then for a result.
        """
        if envelope.source != AGENT_COMPLETED or not isinstance(envelope.content, UserContent):
            return envelope
        name, _ = unwrap_result(envelope.content.text) or (None, "")
        target = str(envelope.target)
        agents = (it for it in self._of(hub.name) if (it.name, it.parent) == (name, target))
        agent = next((it for it in agents if it.asked_for and not it.ended), None)
        if agent is None:
            return envelope
        was_up = agent.is_up  # a quick one may end before we are told that it is
        self._end(hub.name, agent, now)
        if agent.parent == f"{NOBODY}/{agent.id}":
            return None
        if agent.ending is None or not was_up:
            return envelope
        return evolve(envelope, content=UserContent(wrap_result(agent.name, outcome_text(agent.ending))))

    def forget_hub(self, hub: str) -> None:
        """A hub is gone, and its agents with it."""
        for agent in [*self._of(hub)]:
            self._drop(hub, agent)
            self._refuse(agent, ErrorCode.CONNECTION_LOST, f"hub '{hub}' is gone")

    def _get(self, hub: str, agent_id: str | None) -> BaseAgent | None:
        agents = self._agents.get(hub)
        return None if agents is None else agents.get(agent_id or "")

    def _of(self, hub: str) -> Iterator[BaseAgent]:
        return iter(agents.values() if (agents := self._agents.get(hub)) is not None else ())

    def _end(self, hub: str, agent: BaseAgent, now: float) -> None:
        """Mark an agent as ended, and keep it: its owner may still repeat the spawn, and would be given another."""
        agent.ended = True
        self._agents[hub].set_deadline(agent.id, now + self._settings.timeouts.spawn_memory)

    def _drop(self, hub: str, agent: BaseAgent) -> None:
        agents = self._agents[hub]
        agents.pop(agent.id)
        if not agents:
            del self._agents[hub]
