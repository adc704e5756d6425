"""Messages and asks, as a hub passes them on: to an agent here, or up to its MetaHub.

Every sender is stamped from its connection. What comes from the MetaHub is for an agent of this hub, and never goes up
again; it may come twice, and is delivered once (``Deliveries``).
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any

from loopal_cluster.address import Address
from loopal_cluster.completions import unwrap_result
from loopal_cluster.core.agents import AgentRecord, AgentTree
from loopal_cluster.core.calls import Call, Origin
from loopal_cluster.core.circles import LINKS, check_circle, waits_of
from loopal_cluster.core.context import HubPart
from loopal_cluster.core.deliveries import Deliveries
from loopal_cluster.core.events import Peer
from loopal_cluster.core.exchange import HOP_MARGIN, Refused
from loopal_cluster.core.handlers import Handlers, Listeners, hear, serve
from loopal_cluster.core.kept import check_envelope
from loopal_cluster.core.parties import AgentParty, ClientParty, MetaHubParty
from loopal_cluster.core.steps import Delivering
from loopal_cluster.core.supervisor import Supervisor
from loopal_cluster.core.uplink import Uplink
from loopal_cluster.errors import ErrorCode
from loopal_cluster.messages import (
    OK,
    AgentSource,
    Ask,
    ChannelSource,
    DeliverAsk,
    DeliverEnvelope,
    Envelope,
    HumanSource,
    Message,
    MetaAsk,
    MetaRoute,
    Progress,
    Route,
    ScheduledSource,
    Source,
    SystemSource,
    UserContent,
)
from loopal_cluster.records import define, evolve

__all__ = ["HubRouting", "sent_by", "source_of_client"]


@define
class HubRouting(HubPart):
    """Brings messages and asks to agents."""

    _uplink: Uplink
    _agents: AgentTree
    _deliveries: Deliveries
    _supervisor: Supervisor

    def requests(self) -> Handlers:
        """The requests that bring a message or an ask."""
        return (
            serve(Route, self._route_of_agent, AgentParty)
            | serve(MetaRoute, self._route_of_agent, AgentParty)
            | serve(Ask, self._ask_of_agent, AgentParty)
            | serve(MetaAsk, self._ask_of_agent, AgentParty)
            | serve(Route, self._route_of_client, ClientParty)
            | serve(MetaRoute, self._route_of_client, ClientParty)
            | serve(Ask, self._ask_of_client, ClientParty)
            | serve(MetaAsk, self._ask_of_client, ClientParty)
            | serve(DeliverEnvelope, self._deliver, MetaHubParty)
            | serve(DeliverAsk, self._deliver, MetaHubParty)
        )

    def notifications(self) -> Listeners:
        """Messages that want no answer, and news of asks."""
        return hear(DeliverEnvelope, self._on_unanswered_message, MetaHubParty) | hear(
            Progress, self._on_progress, AgentParty, MetaHubParty
        )

    # Up, from an agent or a client.

    def _route_of_agent(
        self, origin: Origin, party: AgentParty, message: Route | MetaRoute, now: float
    ) -> None:
        self._route(origin, message.envelope, AgentSource(party.record.name), now)

    def _route_of_client(
        self, origin: Origin, party: ClientParty, message: Route | MetaRoute, now: float
    ) -> None:
        self._route(origin, message.envelope, source_of_client(message.envelope), now)

    def _ask_of_agent(self, origin: Origin, party: AgentParty, message: Ask | MetaAsk, now: float) -> None:
        record, envelope = party.record, message.envelope
        waits = self._waits_of(record, origin.peer, envelope.for_ask)
        self._ask(origin, envelope, AgentSource(record.name), now, waits)

    def _ask_of_client(self, origin: Origin, party: ClientParty, message: Ask | MetaAsk, now: float) -> None:
        self._ask(origin, message.envelope, source_of_client(message.envelope), now)

    def _route(self, origin: Origin, envelope: Envelope, source: Source, now: float) -> None:
        check_envelope(envelope, self._settings.limits.text_bytes)
        record, target = self._locate(envelope.target)
        if record is not None:
            envelope = sent_by(source, envelope, target, envelope.timeout_ms)
            self._deliveries.deliver(record, DeliverEnvelope(envelope), origin, now)
        else:
            envelope = sent_by(self._answerable(source), envelope, target, envelope.timeout_ms)
            self.escalate(origin, MetaRoute(envelope), now)

    def _ask(
        self,
        origin: Origin,
        envelope: Envelope,
        source: Source,
        now: float,
        waits: tuple[str, ...] = (),
    ) -> None:
        check_envelope(envelope, self._settings.limits.text_bytes)
        record, target = self._locate(envelope.target)
        timeout_ms = envelope.timeout_ms
        if timeout_ms is None:
            timeout_ms = int(self._settings.timeouts.ask_timeout * 1000)
        timeout_ms = max(0, timeout_ms)
        envelope = sent_by(source, envelope, target, timeout_ms, waits)
        if record is not None:
            self._check_circle(record, waits, origin)
            self._deliveries.deliver(record, DeliverAsk(envelope), origin, now)
        elif self._uplink.joined and not self._uplink.speaks("ask"):
            raise Refused(ErrorCode.METHOD_NOT_FOUND, "the MetaHub can pass messages on, but no asks")
        else:
            self.escalate(origin, MetaAsk(envelope), now, timeout=timeout_ms / 1000)

    def escalate(
        self, origin: Origin, message: Message[Any], now: float, *, timeout: float | None = None
    ) -> None:
        """Have the MetaHub answer a request, within ``timeout`` seconds (default: ``call_timeout``) for its own part."""
        timeout = self._settings.timeouts.call_timeout if timeout is None else timeout
        # Two hops further, MetaHub and hub, each of which is to say itself that the time is over.
        self._uplink.call(message, origin, now + timeout + 2 * HOP_MARGIN, now=now)

    def _locate(self, address: Address) -> tuple[AgentRecord | None, Address]:
        """The agent if it is here; None if the MetaHub is to be asked, and the name to ask for.

        Raises:
            Refused: it is not here, and nobody else can have it.
        """
        is_own = self.is_own(address)
        target = address.on(None) if is_own else address
        record = self._agents.find(target)
        if record is not None and record.hub is None:
            return record, target
        if is_own:
            raise self.not_found(target)
        if not self._uplink.expected:
            detail = f"agent '{target}' not found locally and no MetaHub uplink configured"
            raise Refused(ErrorCode.AGENT_NOT_FOUND, detail)
        return None, target if record is None else record.address

    def _answerable(self, source: Source) -> Source:
        """Say where the sender is, if the MetaHub is a base one, which passes it on as it is."""
        if self._uplink.cluster is None and isinstance(source, AgentSource):
            return AgentSource(f"{self._settings.name}/{source.name}")
        return source

    # Down, from the MetaHub.

    def _deliver(
        self, origin: Origin, party: MetaHubParty, message: DeliverEnvelope | DeliverAsk, now: float
    ) -> None:
        envelope = message.envelope
        # Of an agent its name: a record's hash is dear, and it is looked for many times.
        source = envelope.source.name if isinstance(envelope.source, AgentSource) else envelope.source
        receipt = (message.method, envelope.origin_hub, source, envelope.id)
        if self._deliveries.repeat(origin, receipt, self._uplink.first_sent(envelope.asked_ms)):
            return
        if isinstance(message, DeliverEnvelope) and self._settle_base_report(origin, envelope, now):
            return
        check_envelope(envelope, self._settings.limits.text_bytes)
        target = self.own(envelope.target)
        record = self._agents.local(target.agent)
        if record is None or target.hub is not None:
            raise self.not_found(target)
        if isinstance(message, DeliverAsk):
            self._check_circle(record, envelope.waits, origin)
        if target is not envelope.target or envelope.asked_ms is not None:
            message = type(message)(evolve(envelope, target=target, asked_ms=None))
        self._deliveries.deliver_once(record, message, origin, receipt, now)

    def _on_unanswered_message(
        self, peer: Peer, party: MetaHubParty, message: DeliverEnvelope, now: float
    ) -> None:
        """A base MetaHub brings a message and does not want to know whether it was accepted."""
        if (target := self._agents.local(message.envelope.target.agent)) is None:
            return
        try:
            self._deliveries.deliver(target, message, None, now)
        except Refused as refused:
            self._exchange.log("WARNING", f"dropped a message: {refused.detail}")

    def _settle_base_report(self, origin: Origin, envelope: Envelope, now: float) -> bool:
        """Take an outcome in the base dialect for what it is.

        Raises:
            Refused: it names an agent that we never had that hub run. Anybody could write that text.
        """
        if envelope.source != SystemSource("agent-completed") or not isinstance(
            envelope.content, UserContent
        ):
            return False
        if (report := unwrap_result(envelope.content.text)) is None:
            return False
        name, output = report
        if not self._supervisor.on_base_report(envelope.origin_hub, name, output, now):
            raise Refused(ErrorCode.AGENT_NOT_FOUND, f"no agent '{name}' was spawned there from here")
        self._exchange.answer(origin, OK)
        return True

    def _on_progress(self, peer: Peer, party: object, message: Progress, now: float) -> None:
        """Somebody is still working on what we have asked: it may take longer, if its caller allows that."""
        call = self._exchange.calls.find(peer, message.id)
        match call:
            case Call(then=Delivering() as then, message=DeliverAsk() as ask):
                self._deliveries.on_progress(call, then, ask, now)
            case Call(then=Origin() as origin, message=MetaAsk(envelope)) if envelope.extend:
                self._exchange.calls.extend(call, now + (envelope.timeout_ms or 0) / 1000 + 2 * HOP_MARGIN)
                self._exchange.notify(origin.peer, Progress(origin.id))

    # Circles.

    def _waits_of(self, record: AgentRecord, peer: Peer, for_ask: int | None) -> tuple[str, ...]:
        """Who waits for an ask that an agent of this hub makes."""
        calls = self._exchange.calls
        if for_ask is None:
            held: Iterable[Call[Any] | None] = islice(calls.to(peer), LINKS)
        else:
            held = (calls.find(peer, for_ask),)
        asks = [
            call.message.envelope
            for call in held
            if call is not None and isinstance(call.message, DeliverAsk)
        ]
        return waits_of(f"{self._settings.name}/{record.name}", asks, serves=for_ask is not None)

    def _check_circle(self, record: AgentRecord, waits: tuple[str, ...], origin: Origin) -> None:
        """Let an ask pass if its target can reply.

        Raises:
            Refused: it waits itself for the reply, and its turn with it.
        """
        # One that has given up its ask meanwhile waits no longer, and who works on that has not heard of it.
        if record.peer is None or not waits:
            return
        asked = [
            call.message.envelope.target.on(self._settings.name)
            if isinstance(call.message, DeliverAsk)
            else call.message.envelope.target
            for call in self._exchange.calls_for(record.peer)
            if isinstance(call.message, DeliverAsk | MetaAsk)
        ]
        if asked or record.peer == origin.peer:
            check_circle(f"{self._settings.name}/{record.name}", waits, asked)

    # Names.

    def own(self, address: Address) -> Address:
        """An address without this hub's name."""
        return address.on(None) if self.is_own(address) else address

    def is_own(self, address: Address) -> bool:
        """Whether an address names this hub."""
        return address.hub == self._settings.name

    def not_found(self, address: Address) -> Refused:
        """Why nothing is done for an agent that is not here."""
        return Refused(ErrorCode.AGENT_NOT_FOUND, f"no agent '{address}' on hub '{self._settings.name}'")


def sent_by(
    source: Source,
    envelope: Envelope,
    target: Address,
    timeout_ms: int | None,
    waits: tuple[str, ...] = (),
) -> Envelope:
    """An envelope as it leaves the hub of its sender, who is who we say, whatever it says."""
    # Not ``evolve``, which costs three times as much: this is done for every message.
    return Envelope(
        envelope.id,
        source,
        target,
        envelope.content,
        envelope.timestamp,
        None,  # the MetaHub says it, and to those here it is no other hub
        timeout_ms,
        envelope.extend,
        waits=waits,
    )


def source_of_client(envelope: Envelope) -> Source:
    """Whom a client speaks for: a human, unless it says that it brings something else."""
    source = envelope.source
    return source if isinstance(source, ChannelSource | ScheduledSource) else HumanSource()
