"""Names that two hubs want: who has one keeps it while it lives, and no longer.

A hub whose name another one has may be the same hub, started anew after its machine lost its power, and the other
a connection whose end nobody has told us. So it is not refused at once: it waits here, while the one that has the
name is probed, or while its place is still kept for it.
"""

from __future__ import annotations

from attrs import field

from loopal_cluster.core.calls import Origin
from loopal_cluster.core.events import Peer
from loopal_cluster.core.exchange import Refused
from loopal_cluster.errors import ErrorCode
from loopal_cluster.messages import RegisterHub
from loopal_cluster.records import define

__all__ = ["Claim", "Claims"]

CLAIMANTS = 16
"""So many may wait for one name; it is a mistake of somebody if there are two."""


@define
class Claim:
    """The registrations that want one name."""

    since: float
    """When the first of them came: what the hub that has the name says after that shows that it lives."""
    probed: bool = False
    waiting: list[tuple[Origin, RegisterHub]] = field(factory=list)


@define
class Claims:
    """The registrations that wait, by name."""

    _by_name: dict[str, Claim] = field(factory=dict, init=False)

    def add(self, origin: Origin, message: RegisterHub, now: float) -> Claim:
        """Let a registration wait.

        Raises:
            Refused: too many do already.
        """
        claim = self._by_name.setdefault(message.name, Claim(now))
        if len(claim.waiting) >= CLAIMANTS:
            raise Refused(ErrorCode.NAME_TAKEN, f"hub name '{message.name}' is wanted by {CLAIMANTS} others")
        claim.waiting.append((origin, message))
        return claim

    def get(self, name: str) -> Claim | None:
        """The registrations that want this name."""
        return self._by_name.get(name)

    def take(self, name: str) -> list[tuple[Origin, RegisterHub]]:
        """Hand out the registrations that want this name, to be told what becomes of it; oldest first."""
        claim = self._by_name.pop(name, None)
        return [] if claim is None else claim.waiting

    def withdraw(self, peer: Peer) -> None:
        """A connection has ended."""
        for name, claim in [*self._by_name.items()]:
            claim.waiting = [entry for entry in claim.waiting if entry[0].peer != peer]
            if not claim.waiting:
                del self._by_name[name]

    def has(self, peer: Peer) -> bool:
        """Whether a connection waits for a name."""
        return any(origin.peer == peer for claim in self._by_name.values() for origin, _ in claim.waiting)
