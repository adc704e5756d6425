"""Spawns, as a hub takes them, and what it hears from other hubs of agents it shares with them.

An agent's parent is the connection that asks for it; what a client spawns has no parent, and ends with the client.
``Spawner`` brings it up; the rest of its life is the ``Supervisor``'s.
"""

from __future__ import annotations

from loopal_cluster.address import Address
from loopal_cluster.core.agents import AgentTree
from loopal_cluster.core.calls import Origin
from loopal_cluster.core.context import HubPart
from loopal_cluster.core.events import Peer
from loopal_cluster.core.handlers import Handlers, Listeners, hear, serve
from loopal_cluster.core.kept import KeptTexts
from loopal_cluster.core.owners import LocalClient, Owner, Parent, RemoteClient
from loopal_cluster.core.parties import AgentParty, ClientParty, MetaHubParty
from loopal_cluster.core.reconciler import Reconciler
from loopal_cluster.core.spawner import Spawner
from loopal_cluster.core.supervisor import Supervisor
from loopal_cluster.core.timeline import Timeline
from loopal_cluster.core.uplink import Uplink
from loopal_cluster.messages import (
    OK,
    AgentEvent,
    HubComplete,
    HubLost,
    HubReconcile,
    MetaSpawn,
    SpawnAgent,
    SpawnSpec,
)
from loopal_cluster.payloads import Error
from loopal_cluster.records import define, evolve

__all__ = ["HubSpawns"]


@define
class HubSpawns(HubPart):
    """Takes spawns, and news of agents."""

    _timeline: Timeline
    _uplink: Uplink
    _agents: AgentTree
    _spawner: Spawner
    _supervisor: Supervisor
    _reconciler: Reconciler
    _kept: KeptTexts

    def requests(self) -> Handlers:
        """Spawns, and what other hubs say of agents."""
        return (
            serve(SpawnAgent, self._spawn_of_agent, AgentParty)
            | serve(MetaSpawn, self._spawn_of_agent, AgentParty)
            | serve(SpawnAgent, self._spawn_of_client, ClientParty)
            | serve(MetaSpawn, self._spawn_of_client, ClientParty)
            | serve(SpawnAgent, self._spawn_for_remote, MetaHubParty)
            | serve(HubComplete, self._on_complete, MetaHubParty)
            | serve(HubReconcile, self._on_reconcile, MetaHubParty)
            | serve(HubLost, self._on_hub_lost, MetaHubParty)
        )

    def notifications(self) -> Listeners:
        """What agents say of themselves."""
        return hear(AgentEvent, self._on_event, AgentParty)

    def _spawn_of_agent(
        self, origin: Origin, party: AgentParty, message: SpawnAgent | MetaSpawn, now: float
    ) -> None:
        own, depth = Address(party.record.name), party.record.depth + 1
        self._spawn(origin, message.spec, Parent(own), caller=own, depth=depth, now=now)

    def _spawn_of_client(
        self, origin: Origin, party: ClientParty, message: SpawnAgent | MetaSpawn, now: float
    ) -> None:
        # Not a parent, even if an agent has the same name.
        owner, own = LocalClient(origin.peer), Address(party.name)
        self._spawn(origin, message.spec, owner, caller=own, depth=0, now=now)

    def _spawn(
        self,
        origin: Origin,
        spec: SpawnSpec,
        owner: Owner,
        *,
        caller: Address,
        depth: int,
        now: float,
    ) -> None:
        if spec.target_hub is None or spec.target_hub == self._settings.name:
            spec = evolve(spec, target_hub=None)
            self._spawner.spawn_here(spec, origin, owner=owner, depth=depth, now=now)
        else:
            self._spawner.spawn_there(spec, origin, owner=owner, caller=caller, depth=depth, now=now)

    def _spawn_for_remote(self, origin: Origin, party: MetaHubParty, message: SpawnAgent, now: float) -> None:
        parent = None if message.spec.parent is None else Address.parse(message.spec.parent)
        # The caller's working directory means nothing here.
        spec = evolve(message.spec, cwd=None, target_hub=None)
        owner: Owner | None = None
        if parent is not None:
            owner = Parent(parent)
        elif self._uplink.cluster is not None:
            owner = RemoteClient(self._uplink.cluster)
        depth = max(0, spec.depth)
        # A parent that we ourselves had started there: nobody needs to tell us how deep it is.
        if parent is not None and parent.hub and (shadow := self._agents.find(parent)) is not None:
            depth = max(depth, shadow.depth + 1)
        self._spawner.spawn_here(spec, origin, owner=owner, depth=depth, now=now)

    def _on_complete(self, origin: Origin, party: MetaHubParty, message: HubComplete, now: float) -> None:
        self._supervisor.on_report(message.completion, now)
        self._exchange.answer(origin, OK)

    def _on_reconcile(self, origin: Origin, party: MetaHubParty, message: HubReconcile, now: float) -> None:
        self._exchange.answer(origin, self._reconciler.answer(message, now))

    def _on_hub_lost(self, origin: Origin, party: MetaHubParty, message: HubLost, now: float) -> None:
        self._supervisor.on_hub_lost(message.hub, message.reason, now)
        self._exchange.answer(origin, OK)

    def _on_event(self, peer: Peer, party: AgentParty, message: AgentEvent, now: float) -> None:
        record, payload = party.record, message.payload
        record.heard_at = now
        if isinstance(payload, Error):
            record.error = payload.message
        payload = self._kept.payload(payload)
        self._timeline.publish(self._settings.name, record.name, payload, now)
