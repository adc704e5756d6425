"""What is asked of a MetaHub about the cluster: its hubs, all their agents, itself, its events.

To add a method that only looks: its record in ``messages.py``, a handler here, and its row in ``requests``.
"""

from __future__ import annotations

from attrs import field

from loopal_cluster.core.approvals import Approvals
from loopal_cluster.core.calls import Origin
from loopal_cluster.core.context import MetaHubPart
from loopal_cluster.core.exchange import Refused
from loopal_cluster.core.handlers import Handlers, serve
from loopal_cluster.core.hub_lookup import only_some
from loopal_cluster.core.membership import Health, Membership
from loopal_cluster.core.meta_revocations import Revocations
from loopal_cluster.core.parties import ClientParty, HubParty
from loopal_cluster.core.steps import (
    Gathering,
)
from loopal_cluster.core.timeline import Timeline
from loopal_cluster.errors import ErrorCode
from loopal_cluster.frames import Failure, Response
from loopal_cluster.messages import (
    OK,
    ClusterTopology,
    HubList,
    ListHubs,
    MetaTopology,
    Ping,
    Status,
    StatusInfo,
    Subscribe,
    Topology,
    TopologyOf,
)
from loopal_cluster.records import define

__all__ = ["MetaLookup"]


@define
class Gather:
    """A topology in the making."""

    origin: Origin
    parts: dict[str, TopologyOf | None]
    """By hub, None while we wait for it."""


@define
class MetaLookup(MetaHubPart):
    """Answers what is asked about the cluster."""

    _timeline: Timeline
    _hubs: Membership
    _approvals: Approvals
    _revocations: Revocations
    _gathers: dict[int, Gather] = field(factory=dict, init=False)
    _last_gather: int = field(default=0, init=False)

    def requests(self) -> Handlers:
        """The requests that look."""
        return (
            serve(ListHubs, self._on_list_hubs, HubParty, ClientParty)
            | serve(MetaTopology, self._on_topology, HubParty, ClientParty)
            | serve(Ping, self._on_ping, HubParty, ClientParty)
            | serve(Status, self._on_status, ClientParty)
            | serve(Subscribe, self._on_subscribe, ClientParty)
        )

    def _on_list_hubs(self, origin: Origin, party: object, message: ListHubs, now: float) -> None:
        self._exchange.answer(origin, HubList(tuple(record.info() for record in self._hubs)))

    def _on_status(self, origin: Origin, party: object, message: Status, now: float) -> None:
        count = sum(record.agent_count for record in self._hubs)
        late = self._exchange.late_answers
        waiting = only_some(
            approvals=len(self._approvals),
            for_hubs=len(self._exchange.calls),
            cancellations=len(self._revocations),
        )
        self._exchange.answer(
            origin, StatusInfo(agent_count=count, uplink=None, late_answers=late, waiting=waiting)
        )

    def _on_ping(self, origin: Origin, party: object, message: Ping, now: float) -> None:
        self._exchange.answer(origin, OK)

    def _on_subscribe(self, origin: Origin, party: object, message: Subscribe, now: float) -> None:
        self._exchange.answer(origin, self._timeline.subscribe(origin.peer, message.since, now))

    def _on_topology(self, origin: Origin, party: object, message: MetaTopology, now: float) -> None:
        self._last_gather += 1
        gather = Gather(origin, {})
        self._gathers[self._last_gather] = gather
        deadline = now + self._settings.timeouts.topology_timeout
        for record in self._hubs:
            gather.parts[record.name] = None
            then = Gathering(self._last_gather, record.name)
            try:
                if record.health is not Health.AWAY:
                    self._exchange.call(record.peer, Topology(), then, deadline)
                    continue
            except Refused:
                pass  # it is asked too much already
            gather.parts[record.name] = TopologyOf(record.name, error="unreachable")
        self._finish_gather(self._last_gather)

    def on_gathered(self, then: Gathering, answer: Response | Failure) -> None:
        """One hub's part is here, or will not come."""
        if isinstance(answer, Response):
            part = TopologyOf(then.hub, topology=answer.result)
        elif answer.code is ErrorCode.DEADLINE_EXCEEDED:
            part = TopologyOf(then.hub, error="timeout")
        elif answer.code is ErrorCode.CONNECTION_LOST:
            part = TopologyOf(then.hub, error="unreachable")
        else:
            part = TopologyOf(then.hub, error=answer.detail)
        self._gathers[then.gather_id].parts[then.hub] = part
        self._finish_gather(then.gather_id)

    def _finish_gather(self, gather_id: int) -> None:
        gather = self._gathers[gather_id]
        parts = [part for part in gather.parts.values() if part is not None]
        if len(parts) == len(gather.parts):
            del self._gathers[gather_id]
            self._exchange.answer(gather.origin, ClusterTopology(tuple(parts)))
