"""Spawns that nobody wants any more, and whose hubs are to hear of it.

Whoever asked for an agent has cancelled, has gone, or got an answer that leaves open whether it was started: then the
agent must not run. Its hub is told to cancel it, now or when it is back (``Owed``).
"""

from __future__ import annotations

from contextlib import suppress

from attrs import field

from loopal_cluster.address import Address
from loopal_cluster.core.context import MetaHubPart
from loopal_cluster.core.events import Peer
from loopal_cluster.core.exchange import Refused
from loopal_cluster.core.membership import Health, HubRecord, Membership
from loopal_cluster.core.owed import Owed
from loopal_cluster.core.receipts import UNCERTAIN
from loopal_cluster.core.steps import (
    OwedDue,
    Revoking,
)
from loopal_cluster.frames import Failure, Response
from loopal_cluster.messages import (
    CancelAgent,
    SpawnSpec,
)
from loopal_cluster.records import define

__all__ = ["Revocations"]


@define
class Revocations(MetaHubPart):
    """Cancels agents whose spawn was given up."""

    _hubs: Membership
    _owed: Owed = field(init=False)
    """Agents that are to end and whose hub may not know it."""

    def __attrs_post_init__(self) -> None:
        self._owed = Owed(self._settings.limits.owed_bytes)

    def __len__(self) -> int:
        return len(self._owed)

    def revoke(self, spec: SpawnSpec, peer: Peer, reason: str, now: float) -> None:
        """Nobody wants what was spawned there any more, if it was: it must not run."""
        record = self.hub_of_peer(peer)
        if record is None or record.protocol is None:
            return
        assert spec.spawn_id is not None
        message = CancelAgent(Address(spec.name), agent_id=spec.spawn_id, reason=reason)
        self.owe(record.name, message, peer, now)
        if record.health is not Health.AWAY:  # else it hears of it when it joins again
            self._revoke(record, message, now)

    def _revoke(self, hub: HubRecord, message: CancelAgent, now: float) -> None:
        deadline = now + self._settings.timeouts.lease_timeout
        with suppress(Refused):  # it is drowning; it hears of it when it joins again
            then = Revoking(message.agent_id or "", hub.name)
            self._exchange.call(hub.peer, message, then, deadline)

    def revoke_again(self, hub: HubRecord, now: float) -> None:
        """A hub is back that may not know which spawns were given up meanwhile."""
        for message in self._owed.to(hub.name):
            self._revoke(hub, message, now)

    def on_revoked(self, then: Revoking, answer: Response | Failure) -> None:
        """The hub does not run it; or is gone, and will be told when it comes back."""
        if not (isinstance(answer, Failure) and answer.code in UNCERTAIN):
            self.forget_owed(then.hub, then.agent_id)

    def owe(self, hub: str, message: CancelAgent, asker: Peer, now: float) -> None:
        """Remember for a while that an agent is to end, until its hub is there and has heard of it."""
        if message.agent_id is None:
            return  # a name may be another agent's by then
        self._timers.set(OwedDue(hub, message.agent_id), now + self._settings.timeouts.result_ttl)
        for other_hub, agent_id in self._owed.add(hub, message, asker):
            self._timers.discard(OwedDue(other_hub, agent_id))

    def forget_owed(self, hub: str, agent_id: str) -> None:
        """Nothing more is to be said about a spawn that was given up."""
        self._timers.discard(OwedDue(hub, agent_id))
        self._owed.forget(hub, agent_id)

    def hub_of_peer(self, peer: Peer) -> HubRecord | None:
        """Return the hub at the other end of a connection, if it is one's newest."""
        return next((record for record in self._hubs if record.peer == peer), None)
