"""Decides what a hub does.

A hub hosts agents. This file is its switchboard: frames and timers arrive, and each is handed to the part that knows
what to do. Requests and notifications go to the ``hub_...`` files (``_handlers``, ``_listeners``), connections to
``HubConnections``, an agent's start to ``Spawner``, its life to ``Supervisor``, messages for it to ``Deliveries``, its
outcome to ``Waits`` and ``Reports``, the MetaHub to ``Uplink`` and ``Reconciler``, humans to ``HubApprovals``, watchers
to ``Timeline``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, assert_never

from attrs import field

from loopal_cluster.config import HubSettings
from loopal_cluster.core.agents import AgentTree
from loopal_cluster.core.calls import Call, Origin
from loopal_cluster.core.context import Context
from loopal_cluster.core.deadlines import DeadlineQueue
from loopal_cluster.core.deliveries import Deliveries
from loopal_cluster.core.effects import Effect
from loopal_cluster.core.events import (
    AgentEnded,
    AgentNotStarted,
    AgentStarted,
    Closing,
    DeadlineReached,
    Event,
    FrameReceived,
    NotReached,
    Peer,
    PeerConnected,
    PeerLost,
    TokensGiven,
)
from loopal_cluster.core.exchange import Exchange, Refused
from loopal_cluster.core.handlers import Handlers, Listeners, unknown
from loopal_cluster.core.hub_approvals import HubApprovals
from loopal_cluster.core.hub_connections import HubConnections
from loopal_cluster.core.hub_lookup import HubLookup
from loopal_cluster.core.hub_routing import HubRouting
from loopal_cluster.core.hub_spawns import HubSpawns
from loopal_cluster.core.kept import KeptTexts
from loopal_cluster.core.owners import RemoteClient
from loopal_cluster.core.parties import (
    AgentParty,
    ClientParty,
    MetaHubParty,
    Standing,
    Stranger,
    check_may,
    standing_of,
)
from loopal_cluster.core.reconciler import Reconciler
from loopal_cluster.core.refusals import Refusals
from loopal_cluster.core.reports import Reports
from loopal_cluster.core.results import Results
from loopal_cluster.core.spawner import Spawner
from loopal_cluster.core.steps import (
    AgentDue,
    Announcing,
    ApprovalDue,
    Approving,
    BaseSpawnDue,
    Delivering,
    DeliveryDue,
    FarewellDue,
    HandshakeDue,
    HealthDue,
    HeartbeatDue,
    HubThen,
    IdleDue,
    Initializing,
    Joining,
    LeaseDue,
    Leaving,
    OwedDue,
    Probing,
    Reconciling,
    RejoinDue,
    ReportDue,
    Reporting,
    RetryDue,
    Revoking,
    ShownDue,
    ShuttingDown,
    SpawningRemotely,
    StartDue,
    Starting,
    StoppingRemotely,
    Timer,
    WaitDue,
)
from loopal_cluster.core.supervisor import Supervisor
from loopal_cluster.core.timeline import Timeline
from loopal_cluster.core.uplink import Uplink
from loopal_cluster.core.waits import Waits
from loopal_cluster.errors import ErrorCode, InvalidAddress
from loopal_cluster.frames import Failure, Frame, Notification, Request, Response
from loopal_cluster.messages import (
    DeliverAsk,
    Message,
)
from loopal_cluster.payloads import MetaHubAway, MetaHubBack
from loopal_cluster.records import define

__all__ = ["HubCore"]

Party = Stranger | ClientParty | AgentParty | MetaHubParty


@define
class HubCore:
    """Decides what a hub does. Knows no sockets, no clock and no tasks."""

    settings: HubSettings
    new_id: Callable[[], str]
    """Makes uuids."""
    epoch: float = 0.0
    """Seconds to add to ``now`` to get seconds since the Unix epoch."""
    agents: AgentTree = field(factory=AgentTree, init=False)
    exchange: Exchange[HubThen] = field(init=False)
    uplink: Uplink = field(init=False)
    _timers: DeadlineQueue[Timer] = field(factory=DeadlineQueue, init=False)
    _timeline: Timeline = field(init=False)
    _results: Results = field(init=False)
    _kept: KeptTexts = field(init=False)
    _deliveries: Deliveries = field(init=False)
    _waits: Waits = field(init=False)
    _reports: Reports = field(init=False)
    _supervisor: Supervisor = field(init=False)
    _connections: HubConnections = field(init=False)
    _spawner: Spawner = field(init=False)
    _reconciler: Reconciler = field(init=False)
    _routing: HubRouting = field(init=False)
    _lookup: HubLookup = field(init=False)
    _spawns: HubSpawns = field(init=False)
    _approvals: HubApprovals = field(init=False)
    _handlers: Handlers = field(init=False, repr=False)
    """What decides each request, by who asks and what: what is not in it, nobody may ask."""
    _listeners: Listeners = field(init=False, repr=False)
    """What hears each notification, in the same way; what is not in it, nobody hears."""
    _farewell_at: float = field(default=math.inf, init=False)
    """When we close: from then on, a MetaHub that is away is not waited for."""
    _refusals: Refusals = field(init=False)
    _parties: dict[Peer, Party] = field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        settings = self.settings
        self.exchange = Exchange(settings.limits)
        context = Context(settings, self.exchange, self._timers, self.new_id, self.epoch)
        self._refusals = Refusals(context)
        self.uplink = Uplink(context, self.agents, self._publish_uplink)
        self._timeline = Timeline(context, settings.name, self.uplink.notify)
        self._approvals = HubApprovals(context, self.uplink, self._parties)
        self._results = Results(settings.limits.results, settings.limits.results_bytes)
        self._kept = KeptTexts(context)
        self._deliveries = Deliveries(context, self._timeline, self._kept)
        self._waits = Waits(context)
        self._reports = Reports(context, self.uplink, self._results)
        self._supervisor = Supervisor(
            context,
            self._timeline,
            self.uplink,
            self.agents,
            self._results,
            self._deliveries,
            self._waits,
            self._reports,
            self._kept,
        )
        self._spawner = Spawner(
            context,
            self._timeline,
            self.uplink,
            self._retire,
            self.agents,
            self._results,
            self._reports,
            self._supervisor,
        )
        self._connections = HubConnections(
            context,
            self._timeline,
            self.uplink,
            self.agents,
            self._deliveries,
            self._waits,
            self._spawner,
            self._supervisor,
            self._approvals,
            self._parties,
            self._on_answer,
        )
        self._reconciler = Reconciler(
            context, self.uplink, self.agents, self._results, self._reports, self._supervisor
        )
        self._routing = HubRouting(context, self.uplink, self.agents, self._deliveries, self._supervisor)
        self._lookup = HubLookup(
            context,
            self._timeline,
            self.uplink,
            self._approvals.pending,
            self.agents,
            self._results,
            self._waits,
            self._reports,
            self._supervisor,
            self._routing,
        )
        self._spawns = HubSpawns(
            context,
            self._timeline,
            self.uplink,
            self.agents,
            self._spawner,
            self._supervisor,
            self._reconciler,
            self._kept,
        )
        self._handlers = (
            self._connections.requests()
            | self._routing.requests()
            | self._lookup.requests()
            | self._spawns.requests()
            | self._approvals.requests()
        )
        self._listeners = (
            self._connections.notifications()
            | self._routing.notifications()
            | self._spawns.notifications()
            | self._approvals.notifications()
        )

    def handle(self, event: Event, now: float) -> list[Effect]:
        """Take in what happened; return what to do, in this order."""
        match event:
            case FrameReceived():  # nearly always; the class alone, because a pattern of its fields costs more
                if self.exchange.knows(event.peer):
                    self._on_frame(event.peer, event.frame, now)
            case PeerConnected(peer, link, source):
                self._connections.on_connected(peer, link, source, now)
            case PeerLost(peer, reason):
                self._connections.on_lost(peer, reason, now)
            case TokensGiven(tokens):
                self.uplink.token = tokens[0]
            case NotReached(reason):
                self.uplink.on_not_reached(reason, now)
            case AgentStarted(agent_id, peer):
                self._connections.on_agent_started(agent_id, peer, now)
            case AgentNotStarted(agent_id, reason):
                self._spawner.on_not_started(agent_id, reason, now)
            case AgentEnded(agent_id, reason):
                self._connections.on_agent_ended(agent_id, reason, now)
            case DeadlineReached():
                self._on_deadline(now)
            case Closing():
                self._supervisor.close(now)
                self._farewell_at = now + self.settings.timeouts.rejoin_timeout
                self._timers.set(FarewellDue(), self._farewell_at)
            case unreachable:
                assert_never(unreachable)
        if self._supervisor.closing and (self.quiet or self._is_cut_off(now)):
            self.uplink.leave(now)
        return self.exchange.drain()

    def standing(self, peer: Peer) -> Standing:
        """What kind of party a peer is."""
        return standing_of(self._parties.get(peer))

    def next_deadline(self) -> float | None:
        """When ``DeadlineReached`` is due."""
        earliest = self.exchange.calls.next_deadline()
        others = self._timers.next(), self._results.next_deadline(), self._deliveries.receipts.next_deadline()
        for at in others:
            if at is not None and (earliest is None or at < earliest):
                earliest = at
        return earliest

    @property
    def quiet(self) -> bool:
        """Whether no agent lives, and every outcome has been reported."""
        return not self.agents and not self._reports

    def _is_cut_off(self, now: float) -> bool:
        """Whether all that is left to do, when we close, is for a MetaHub to hear that is away."""
        return now >= self._farewell_at and not self.uplink.joined and not self.agents.here()

    @property
    def closed(self) -> bool:
        """Whether, after ``Closing``, nothing is left to do: the hub is quiet, and the MetaHub has been told."""
        return self.uplink.left

    def _retire(self, peer: Peer, reason: str, now: float) -> None:
        self._connections.retire(peer, reason, now)

    def _on_deadline(self, now: float) -> None:
        for call, failure in self.exchange.take_due(now):
            self._on_answer(call, failure, now)
        self._results.expire(now)
        self._deliveries.receipts.expire(now)
        while (timer := self._timers.pop_due(now)) is not None:
            self._on_timer(timer, now)

    def _on_timer(self, timer: Timer, now: float) -> None:
        match timer:
            case HandshakeDue(peer):
                self.exchange.hang_up(peer, "it did not register in time")
            case HeartbeatDue():
                self.uplink.beat(now)
            case WaitDue(origin):
                self._waits.on_due(origin)
            case ApprovalDue(ask_id):
                self._approvals.pending.expire(ask_id, now)
            case ShownDue(ask_id):
                self._approvals.pending.on_shown_due(ask_id, now)
            case DeliveryDue(agent_id, number):
                self._deliveries.on_due(agent_id, number, now)
            case AgentDue(agent_id):
                self._supervisor.on_due(agent_id, now)
            case IdleDue(agent_id):
                self._supervisor.on_idle_due(agent_id, now)
            case StartDue(agent_id):
                self._spawner.on_start_due(agent_id, now)
            case ReportDue(agent_id):
                self._reports.on_due(agent_id, now)
            case RetryDue():
                self.uplink.retry(now)
            case FarewellDue():
                pass  # ``handle`` looks whether that was all
            case LeaseDue():
                self._supervisor.on_lease_due(now)
            case OwedDue() | HealthDue() | RejoinDue() | BaseSpawnDue():
                raise AssertionError("a timer of the MetaHub")
            case unreachable:
                assert_never(unreachable)

    # Frames.

    def _on_frame(self, peer: Peer, frame: Frame, now: float) -> None:
        match frame:
            case Request():
                if (origin := self.exchange.take(peer, frame)) is not None:
                    self._on_request(origin, frame.message, now)
            case Response() | Failure():
                if (call := self.exchange.take_answer(peer, frame)) is not None:
                    self._on_answer(call, frame, now)
            case Notification(message):
                self._on_notification(peer, message, now)
            case unreachable:
                assert_never(unreachable)

    def _on_request(self, origin: Origin, message: Message[Any], now: float) -> None:
        party = self._parties[origin.peer]
        try:
            if isinstance(party, ClientParty):
                check_may(party, message)
            handler = self._handlers.get((type(party), type(message)))
            if handler is None:
                raise unhandled(party, message)
            handler(origin, party, message, now)
        except Refused as refused:
            self._refuse(origin, party, refused.code, refused.detail, now)
        except InvalidAddress as error:
            self._refuse(origin, party, ErrorCode.INVALID_REQUEST, str(error), now)

    def _refuse(self, origin: Origin, party: Party, code: ErrorCode, detail: str, now: float) -> None:
        self.exchange.refuse(origin, code, detail)
        if isinstance(party, Stranger):
            self._refusals.say(party.source, detail, now)

    def _on_notification(self, peer: Peer, message: Message[Any], now: float) -> None:
        party = self._parties[peer]
        # Without one: a base peer may notify us of things we have no use for.
        if (listener := self._listeners.get((type(party), type(message)))) is not None:
            listener(peer, party, message, now)

    def _on_answer(self, call: Call[HubThen], answer: Response | Failure, now: float) -> None:
        if isinstance(answer, Failure):
            if self.uplink.retries_refusal(call, answer, now):
                return
            answer = self.uplink.as_doubtful(call, answer, now)
        match call.then:
            case Origin() as origin:
                self.exchange.pass_on(origin, answer)
            case Delivering() as then:
                is_ask = isinstance(call.message, DeliverAsk)
                self._deliveries.on_answer(then, answer, now, is_ask=is_ask)
            case Approving(ask_id):
                self._approvals.on_answer(call, ask_id, answer, now)
            case Joining():
                before = self.uplink.cluster
                self._on_joined(self.uplink.on_registered(answer, now), now)
                if before is not None and before != self.uplink.cluster:
                    reason = "the MetaHub of its client was started anew"
                    self._supervisor.on_owner_lost(RemoteClient(before), reason, now)
                    self._connections.give_up_asks_of_clients(now)
            case Probing():
                self._on_joined(self.uplink.on_probed(answer, now), now)
            case Announcing():
                self.uplink.on_announced(answer, now)
            case Leaving():
                self.uplink.left = True
            case Initializing(agent_id):
                self._spawner.on_initialized(agent_id, answer, now)
            case Starting(agent_id):
                self._spawner.on_begun(agent_id, answer, now)
            case SpawningRemotely(agent_id):
                self._spawner.on_spawned_there(agent_id, answer, now)
            case Reporting(agent_id):
                self._reports.on_answer(agent_id, answer, now, closing=self._supervisor.closing)
            case ShuttingDown(agent_id):
                self._supervisor.on_stop_asked(agent_id, now)
            case StoppingRemotely(agent_id):
                self._supervisor.on_stopped_there(agent_id, answer, now)
            case Revoking():
                pass  # it is not there, or its hub is gone with it
            case Reconciling() as then:
                self._reconciler.on_answer(then, answer, now)
            case unreachable:
                assert_never(unreachable)

    # The MetaHub and the humans.

    def _on_joined(self, joined: bool, now: float) -> None:
        if joined:
            self._reports.send_all(now)
            self._reconciler.begin(now)
            self._approvals.on_joined(now)

    def _publish_uplink(self, payload: MetaHubAway | MetaHubBack, now: float) -> None:
        self._timeline.publish(self.settings.name, None, payload, now)


def unhandled(party: Party, message: Message[Any]) -> Refused:
    """Why nothing handles a request."""
    if isinstance(party, Stranger):
        return Refused(ErrorCode.NOT_REGISTERED, "expected hub/register first")
    return unknown(message)
