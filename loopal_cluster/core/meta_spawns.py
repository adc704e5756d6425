"""Spawns on other hubs, and what becomes of the agents: announced, ended, compared.

Agents of hubs that speak the base dialect only are the matter of ``BaseAgents``.
"""

from __future__ import annotations

from typing import Any

from attrs import field

from loopal_cluster.address import Address
from loopal_cluster.core.base_agents import BaseAgents
from loopal_cluster.core.calls import Origin
from loopal_cluster.core.context import MetaHubPart
from loopal_cluster.core.events import Peer
from loopal_cluster.core.exchange import Refused
from loopal_cluster.core.handlers import Handlers, serve
from loopal_cluster.core.kept import check_prompt
from loopal_cluster.core.membership import Membership
from loopal_cluster.core.meta_revocations import Revocations
from loopal_cluster.core.meta_routing import MetaRouting, stamped
from loopal_cluster.core.owners import LocalClient, OnHub
from loopal_cluster.core.parties import ClientParty, HubParty
from loopal_cluster.core.reports import completion_envelope
from loopal_cluster.core.routes import Directory
from loopal_cluster.errors import ErrorCode
from loopal_cluster.messages import (
    OK,
    Announce,
    Completion,
    DeliverEnvelope,
    HubComplete,
    HubReconcile,
    Message,
    MetaComplete,
    MetaReconcile,
    MetaSpawn,
    SpawnAgent,
    SpawnSpec,
)
from loopal_cluster.records import define, evolve

__all__ = ["MetaSpawns"]


@define
class MetaSpawns(MetaHubPart):
    """Passes spawns on, and outcomes back."""

    _hubs: Membership
    _directory: Directory
    _base_agents: BaseAgents
    _revocations: Revocations
    _routing: MetaRouting
    _owned: dict[str, dict[str, tuple[LocalClient, SpawnSpec]]] = field(factory=dict, init=False)
    """The agents of our clients that are not detached, by hub and name: whose each is."""

    def requests(self) -> Handlers:
        """Spawns, and what hubs say of agents."""
        return (
            serve(MetaSpawn, self._on_spawn, HubParty)
            | serve(SpawnAgent, self._on_client_spawn, ClientParty)
            | serve(MetaSpawn, self._on_client_spawn, ClientParty)
            | serve(Announce, self._on_announce, HubParty)
            | serve(MetaComplete, self._on_complete, HubParty)
            | serve(MetaReconcile, self._on_reconcile, HubParty)
        )

    def _on_spawn(self, origin: Origin, party: HubParty, message: MetaSpawn, now: float) -> None:
        hub, spec = party.record, message.spec
        if spec.asked_ms is not None:
            self._routing.check_was_there(Address(spec.name, spec.target_hub), spec.asked_ms, hub)
        parent = None if spec.parent is None else stamped(spec.parent, hub.name)
        depth = self._directory.depth_below(parent, spec.depth)
        self._spawn(origin, evolve(spec, parent=parent, depth=depth, asked_ms=None), OnHub(hub.name), now)

    def _on_client_spawn(
        self, origin: Origin, party: ClientParty, message: SpawnAgent | MetaSpawn, now: float
    ) -> None:
        spec = message.spec
        check_prompt(spec.prompt, self._settings.limits.text_bytes)
        self._spawn(origin, evolve(spec, parent=None, depth=0, asked_ms=None), LocalClient(origin.peer), now)

    def _spawn(self, origin: Origin, spec: SpawnSpec, owner: LocalClient | OnHub, now: float) -> None:
        if spec.target_hub is None:
            raise Refused(ErrorCode.INVALID_REQUEST, "missing 'target_hub'")
        # A client's agent has no owner that would notice it: we must be able to name it.
        spawn_id = spec.spawn_id or self._new_id()
        message = SpawnAgent(evolve(spec, target_hub=None, spawn_id=spawn_id))
        record = self._hubs.get(spec.target_hub)
        if record is not None and record.protocol is None:
            self._base_agents.spawn(origin, record, message, owner, now)
        else:
            self._routing.send(origin, spec.target_hub, message, now)

    def on_spawned(self, client: Peer, spec: SpawnSpec, hub: Peer) -> None:
        """A client's agent is up: it ends with the client."""
        record = self._revocations.hub_of_peer(hub)
        # A base hub would have to be told by name, and does not tell when the agent ends.
        if not spec.detached and record is not None and record.protocol is not None:
            kept = evolve(spec, prompt=None, cwd=None, extra={})  # it lives as long as the agent
            self._owned.setdefault(record.name, {})[spec.name] = (LocalClient(client), kept)

    def _on_announce(self, origin: Origin, party: HubParty, message: Announce, now: float) -> None:
        hub = party.record
        self._directory.update(hub.name, message, now)
        self._forget_ended(hub.name)
        hub.agent_count = self._directory.count(hub.name)  # fresher than its last heartbeat
        self._exchange.answer(origin, OK)

    def _forget_ended(self, hub: str) -> None:
        """Forget what a hub does not run (any more): it answers a spawn before it announces the agent."""
        running = {
            name: owned for name, owned in self._owned.pop(hub, {}).items() if self._directory.has(name, hub)
        }
        if running:
            self._owned[hub] = running

    def on_client_lost(self, client: Peer, reason: str, now: float) -> None:
        """What a client has spawned, or is still spawning, ends with it."""
        self._base_agents.on_owner_lost(LocalClient(client), self._hubs, reason, now)
        for record in self._hubs:
            for name, (owner, spec) in [*self._owned.get(record.name, {}).items()]:
                if owner == LocalClient(client):
                    del self._owned[record.name][name]
                    self._revocations.revoke(spec, record.peer, reason, now)

    def _on_complete(self, origin: Origin, party: HubParty, message: MetaComplete, now: float) -> None:
        completion = message.completion
        agent = completion.agent.on(party.record.name)
        self._report(origin, evolve(completion, agent=agent), now)

    def _report(self, origin: Origin, completion: Completion, now: float) -> None:
        """Bring an outcome to the parent's hub, in the words it knows."""
        parent = completion.parent
        if parent.hub is None:
            raise Refused(ErrorCode.INVALID_REQUEST, f"parent '{parent}' is not qualified")
        message: Message[Any] = HubComplete(completion)
        record = self._hubs.get(parent.hub)
        if record is not None and record.protocol is None:
            envelope = completion_envelope(
                self._new_id(),
                completion.agent.agent,
                completion.outcome,
                parent.on(None),
                self._epoch + now,
            )
            message = DeliverEnvelope(envelope)
        self._routing.send(origin, parent.hub, message, now)

    def _on_reconcile(self, origin: Origin, party: HubParty, message: MetaReconcile, now: float) -> None:
        asked = HubReconcile(party.record.name, message.runs, message.owns)
        self._routing.send(origin, message.hub, asked, now)

    def forget_hub(self, hub: str, reason: str, now: float) -> None:
        """A hub is gone: what it ran is lost, and what others run for it ends."""
        self._owned.pop(hub, None)
        self._base_agents.forget_hub(hub)
        reason = f"hub '{hub}' of its parent was lost: {reason}"
        self._base_agents.on_owner_lost(OnHub(hub), self._hubs, reason, now)
