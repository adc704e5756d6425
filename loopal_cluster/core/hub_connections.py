"""The connections of a hub, as they come and end, and what ends with each.

Who calls what: a connection that ends is ``on_lost``, an agent's process that ends is ``on_agent_ended``; both, and an
agent that has said its last word, and one whose start has failed, ``retire`` the peer: nobody talks with it any more,
what it has asked is for nobody (``_disown``), and what it was asked has failed (``_fail``).
"""

from __future__ import annotations

from collections.abc import Callable

from loopal_cluster.address import check_name
from loopal_cluster.core.agents import AgentTree
from loopal_cluster.core.calls import Call, Origin
from loopal_cluster.core.context import HubPart
from loopal_cluster.core.deliveries import Deliveries
from loopal_cluster.core.effects import StopAgent, Watch
from loopal_cluster.core.events import (
    Link,
    Peer,
)
from loopal_cluster.core.handlers import Handlers, Listeners, hear, serve
from loopal_cluster.core.hub_approvals import HubApprovals
from loopal_cluster.core.owners import LocalClient
from loopal_cluster.core.parties import (
    AgentParty,
    ClientParty,
    MetaHubParty,
    Stranger,
    agree,
    is_token,
    pings,
)
from loopal_cluster.core.spawner import Spawner
from loopal_cluster.core.steps import (
    Delivering,
    HandshakeDue,
    HubThen,
)
from loopal_cluster.core.supervisor import Supervisor
from loopal_cluster.core.timeline import Timeline
from loopal_cluster.core.uplink import Uplink
from loopal_cluster.core.waits import Waits
from loopal_cluster.errors import ErrorCode
from loopal_cluster.frames import Failure, Response
from loopal_cluster.messages import (
    CancelRequest,
    Completed,
    DeliverAsk,
    Register,
    Reply,
    Role,
    Welcome,
)
from loopal_cluster.outcomes import Cancelled, TimedOut
from loopal_cluster.records import define

__all__ = ["HubConnections"]

Party = Stranger | ClientParty | AgentParty | MetaHubParty


@define
class HubConnections(HubPart):
    """Knows what to tidy when somebody goes."""

    _timeline: Timeline
    _uplink: Uplink
    _agents: AgentTree
    _deliveries: Deliveries
    _waits: Waits
    _spawner: Spawner
    _supervisor: Supervisor
    _approvals: HubApprovals
    _parties: dict[Peer, Party]
    _settle: Callable[[Call[HubThen], Response | Failure, float], None]
    """Does what follows the answer to a call."""

    def requests(self) -> Handlers:
        """The first request of whoever connects."""
        return serve(Register, self._register, Stranger)

    def notifications(self) -> Listeners:
        """The last word of an agent, and requests that nobody waits for any more."""
        return hear(Completed, self._on_completed, AgentParty) | hear(
            CancelRequest, self._on_cancelled, AgentParty, ClientParty, MetaHubParty, Stranger
        )

    def on_connected(self, peer: Peer, link: Link, source: str, now: float) -> None:
        """Begin to talk with a peer: our MetaHub, or somebody who has yet to say who it is."""
        self._exchange.admit(peer)
        if link is Link.UPLINK:
            self._parties[peer] = MetaHubParty()
            self._exchange.make_link(peer)
            self._uplink.connect(peer, now)
            return
        self._parties[peer] = Stranger(link is Link.TRUSTED, source)
        self._timers.set(HandshakeDue(peer), now + self._settings.timeouts.handshake_timeout)

    def _register(self, origin: Origin, party: Stranger, message: Register, now: float) -> None:
        if not party.trusted and not is_token(message.token, self._settings.token):
            self._exchange.refuse(origin, ErrorCode.UNAUTHORIZED, "invalid token")
            self._exchange.hang_up(origin.peer, "invalid token", wrong_token=True)
            return
        protocol = agree(message.protocol)
        name = check_name(message.name)
        if message.role is Role.AGENT:
            self._parties[origin.peer] = AgentParty(self._spawner.register_external(name, origin.peer, now))
        else:
            self._parties[origin.peer] = ClientParty(name, message.role)
        self._timers.discard(HandshakeDue(origin.peer))
        welcome = Welcome()
        if protocol is not None:
            welcome = Welcome(name=name, kind="hub", hub=self._settings.name, protocol=protocol)
        self._exchange.answer(origin, welcome)
        self._exchange.perform(Watch(origin.peer, pings(protocol)))
        if message.role is Role.OPERATOR:
            self._approvals.pending.show_all(origin.peer, now)
            self._approvals.on_attendance(now)

    def on_agent_started(self, agent_id: str, peer: Peer, now: float) -> None:
        """The process of an agent is up: talk with it, or stop it, if nobody wants it any more."""
        self._exchange.admit(peer)
        record = self._spawner.on_started(agent_id, peer, now)
        if record is None or record.ending is not None:
            self._exchange.forget(peer)
            self._exchange.perform(StopAgent(agent_id))
        else:
            self._parties[peer] = AgentParty(record)

    def on_lost(self, peer: Peer, reason: str, now: float) -> None:
        """A connection has ended: so has an agent that came by itself, and what a client owned ends."""
        party = self._parties.get(peer)
        self._timers.discard(HandshakeDue(peer))
        self.retire(peer, f"connection lost: {reason}", now)
        if isinstance(party, AgentParty):
            self._supervisor.on_external_lost(party.record, f"connection lost: {reason}", now)
        elif isinstance(party, ClientParty):
            self._supervisor.on_owner_lost(LocalClient(peer), f"client '{party.name}' has gone", now)
        self._approvals.on_attendance(now)

    def on_agent_ended(self, agent_id: str, reason: str, now: float) -> None:
        """The process of an agent is gone."""
        record = self._agents.get(agent_id)
        if record is None or record.peer is None:
            self._supervisor.on_ended(agent_id, reason, now)
            return
        asked, calls = self._exchange.calls_for(record.peer), self._exchange.forget(record.peer)
        # Settled before its calls, so that a start that was going on is told why, and not that its call was lost.
        self._supervisor.on_ended(agent_id, reason, now)
        self.retire(record.peer, reason, now)
        self._disown(record.peer, asked, now)
        self._fail(calls, f"agent '{record.name}' ended: {reason}", now, record.ending)

    def _on_completed(self, peer: Peer, party: AgentParty, message: Completed, now: float) -> None:
        self._supervisor.on_completed(party.record, message, now)
        self.retire(peer, f"agent '{party.record.name}' ended", now)

    def _on_cancelled(self, peer: Peer, party: object, message: CancelRequest, now: float) -> None:
        origin = Origin(peer, message.id)
        self._waits.forget(origin.peer, origin.id)
        self._approvals.pending.withdraw(origin.peer, now, origin.id)
        self._supervisor.on_spawn_cancelled(origin, now)
        self._deliveries.withdraw(origin.peer, origin.id, now)
        call = self._exchange.call_for(origin)
        if call is not None and isinstance(call.message, DeliverAsk):
            self._deliveries.give_up(call, now)
        self._exchange.withdraw(origin)

    def retire(self, peer: Peer, reason: str, now: float) -> None:
        """Stop talking with a peer that is gone or has said its last word."""
        asked = self._exchange.calls_for(peer)
        party = self._parties.pop(peer, None)
        self._waits.forget(peer)
        self._approvals.pending.withdraw(peer, now)
        self._timeline.forget(peer)
        calls = self._exchange.forget(peer, self._uplink.keeps)
        if self._uplink.peer == peer:
            self._uplink.lost(reason, now)  # what it has asked it may ask again
        else:
            self._disown(peer, asked, now)
        self._fail(calls, reason, now, party.record.ending if isinstance(party, AgentParty) else None)

    def _disown(self, peer: Peer, asked: list[Call[HubThen]], now: float) -> None:
        """Nobody waits any more for what a peer has asked that is gone."""
        self._deliveries.withdraw(peer, None, now)
        for call in asked:
            if call.message.answer_only:
                self._deliveries.give_up(call, now)

    def _fail(
        self,
        calls: list[Call[HubThen]],
        reason: str,
        now: float,
        ending: Cancelled | TimedOut | None = None,
    ) -> None:
        """Nobody is there to answer any more. An agent that was stopped leaves its asks no doubt."""
        for call in calls:
            answer: Response | Failure = Failure(call.id, ErrorCode.CONNECTION_LOST, reason)
            if ending is not None and isinstance(call.message, DeliverAsk):
                answer = Response(call.id, Reply(ending))
            self._settle(call, answer, now)

    def give_up_asks_of_clients(self, now: float) -> None:
        """The MetaHub was started anew: its clients are gone, and will not ask again as hubs do."""
        for call in [*self._exchange.calls]:
            match call:
                case Call(then=Delivering(receipt=receipt), message=DeliverAsk(envelope)):
                    if receipt is not None and envelope.origin_hub is None:
                        self._deliveries.give_up(call, now)
