"""Approvals at a MetaHub: what hubs bring up that nobody there could answer, and who can.

Its own operators are shown it, and the operators of all other hubs. ``Approvals`` keeps what waits.
"""

from __future__ import annotations

from itertools import chain, islice

from attrs import field

from loopal_cluster.core.approvals import Approvals, Audience
from loopal_cluster.core.calls import Origin
from loopal_cluster.core.context import MetaHubPart
from loopal_cluster.core.events import Peer
from loopal_cluster.core.handlers import Handlers, Listeners, hear, serve
from loopal_cluster.core.membership import HubRecord, Membership
from loopal_cluster.core.parties import ClientParty, HubParty, Stranger
from loopal_cluster.core.patience import seconds_for
from loopal_cluster.messages import (
    Attended,
    Decided,
    Permission,
    Question,
    Role,
    Shown,
)
from loopal_cluster.records import define, evolve

__all__ = ["MetaApprovals"]


@define
class MetaApprovals(MetaHubPart):
    """Brings permissions and questions to people, and their answers back."""

    _hubs: Membership
    _parties: dict[Peer, Stranger | HubParty | ClientParty]
    pending: Approvals = field(init=False)
    _attended_at: tuple[str, ...] = field(default=(), init=False)
    """Where operators are attached: two of the places, of which the empty one is this MetaHub. So of any hub it
    is known whether anybody else has one, and most that come and go change nothing."""

    def __attrs_post_init__(self) -> None:
        audience = Audience(self._approvers, None, self._attended, self._attributed)
        self.pending = Approvals(self._context, audience)

    def requests(self) -> Handlers:
        """What is asked of people."""
        return serve(Permission, self._on_approval, HubParty) | serve(Question, self._on_approval, HubParty)

    def notifications(self) -> Listeners:
        """What becomes of it, and who is there."""
        return (
            hear(Decided, self._on_decided, HubParty)
            | hear(Shown, self._on_shown, ClientParty)
            | hear(Attended, self._on_attended, HubParty)
        )

    def _on_approval(
        self, origin: Origin, party: HubParty, message: Permission | Question, now: float
    ) -> None:
        hub, agent = party.record, message.agent_name
        asker = hub.name if agent is None else f"{hub.name}/{agent}"
        timeout = seconds_for(message, self._settings.timeouts)
        message = evolve(message, agent_name=asker)
        self.pending.park(self._new_id(), origin, message, hub=hub.name, now=now, timeout=timeout)

    def _on_decided(self, peer: Peer, party: HubParty, message: Decided, now: float) -> None:
        self.pending.on_decided(peer, message, now)

    def _on_shown(self, peer: Peer, party: ClientParty, message: Shown, now: float) -> None:
        self.pending.on_shown(peer, message.ask_id)

    def _on_attended(self, peer: Peer, party: HubParty, message: Attended, now: float) -> None:
        record = party.record
        if record.attended != message.attended:
            record.attended = message.attended
            self.on_attendance(now)

    def on_attendance(self, now: float) -> None:
        """Operators have come or gone, here or at a hub: each hub is told whether anybody else has one."""
        here = ("",) if self._operators() else ()
        attended_at = tuple(islice(chain(here, (hub.name for hub in self._hubs if hub.attended)), 2))
        if attended_at == self._attended_at:
            return
        self._attended_at = attended_at
        for hub in self._hubs.reachable():
            self.tell_attended(hub)
        self.pending.on_attendance(now)

    def on_unattended(self, hub: HubRecord, now: float) -> None:
        """A hub is gone, and its operators with it."""
        hub.told_attended = False
        if hub.attended:
            hub.attended = False
            self.on_attendance(now)

    def tell_attended(self, hub: HubRecord) -> None:
        """Tell a hub whether there is an operator anywhere else, if it does not know."""
        attended = any(place != hub.name for place in self._attended_at)
        if hub.speaks("attended") and attended != hub.told_attended:
            hub.told_attended = attended
            self._exchange.notify(hub.peer, Attended(attended))

    def _operators(self) -> list[Peer]:
        return [
            peer
            for peer, party in self._parties.items()
            if isinstance(party, ClientParty) and party.role is Role.OPERATOR
        ]

    def _approvers(self) -> list[Peer]:
        return self._operators() + [hub.peer for hub in self._hubs.reachable() if hub.speaks("judge")]

    def _attended(self) -> bool | None:
        if self._attended_at:
            return True
        silent = (hub for hub in self._hubs.reachable() if hub.speaks("judge") and not hub.speaks("attended"))
        return None if any(silent) else False

    def _attributed(self, approver: Peer, name: str | None) -> str:
        """An operator is who it registered as; a hub says who of its operators it was."""
        match self._parties.get(approver):
            case ClientParty(registered):
                return registered
            case HubParty(record):
                return f"{name or 'somebody'} at {record.name}"
            case _:
                return name or "somebody"
