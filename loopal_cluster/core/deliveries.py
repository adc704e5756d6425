"""Messages on their way to an agent of this hub.

A message is accepted or refused by the agent's program, and whoever sent it learns which. While the agent
comes up, messages wait for it. One from another hub may come again, and is delivered once (``Receipts``).
"""

from __future__ import annotations

from collections.abc import Hashable

from attrs import define, field

from loopal_cluster.config import HubSettings
from loopal_cluster.core.agents import AgentRecord, Lifecycle
from loopal_cluster.core.calls import Origin
from loopal_cluster.core.exchange import Exchange, Refused
from loopal_cluster.core.receipts import Receipts
from loopal_cluster.core.steps import Delivering, HubThen
from loopal_cluster.core.timeline import Timeline
from loopal_cluster.errors import ErrorCode
from loopal_cluster.frames import Failure, Response
from loopal_cluster.messages import OK, AgentSource, DeliverEnvelope, Envelope, Ok, SystemSource
from loopal_cluster.payloads import MessageRouted

__all__ = ["Deliveries"]


@define
class Deliveries:
    """Hands messages to agents, each once."""

    _settings: HubSettings
    _exchange: Exchange[HubThen]
    _timeline: Timeline
    receipts: Receipts = field(init=False)
    _backlog: dict[str, list[tuple[Origin | None, Envelope, Hashable]]] = field(factory=dict, init=False)
    """Messages for agents that are not up yet, by agent id."""

    def __attrs_post_init__(self) -> None:
        timeouts = self._settings.timeouts
        ttl = 2 * max(timeouts.call_timeout, timeouts.lease_timeout)
        self.receipts = Receipts(self._settings.limits.receipts, ttl)

    def deliver(
        self,
        record: AgentRecord,
        envelope: Envelope,
        origin: Origin | None,
        now: float,
        receipt: Hashable = None,
    ) -> None:
        """Hand a message to an agent of this hub; ``origin`` learns whether it was accepted.

        Raises:
            Refused: the agent has too many undelivered messages.
        """
        if record.lifecycle is Lifecycle.SPAWNING or record.peer is None:
            backlog = self._backlog.setdefault(record.id, [])
            if len(backlog) >= self._settings.limits.inbox:
                raise Refused(ErrorCode.OVERLOADED, f"agent '{record.name}' has too many messages waiting")
            backlog.append((origin, envelope, receipt))
            return
        then = Delivering(origin, source_label(envelope), record.name, envelope.content, receipt)
        deadline = now + self._settings.timeouts.call_timeout
        self._exchange.call(record.peer, DeliverEnvelope(envelope), then, deadline)

    def deliver_once(
        self, record: AgentRecord, envelope: Envelope, origin: Origin, receipt: Hashable, now: float
    ) -> None:
        """``deliver``, for a message from another hub, which may come again.

        Raises:
            Refused: the agent has too many undelivered messages.
        """
        self.receipts.begin(receipt, now)
        try:
            self.deliver(record, envelope, origin, now, receipt)
        except Refused as refused:
            self.receipts.settle(receipt, Failure(0, refused.code, refused.detail))
            raise

    def repeat(self, origin: Origin, receipt: Hashable) -> bool:
        """Give a message that has been seen the answer of the first; False if it has not."""
        if not self.receipts.knows(receipt):
            return False
        if (answer := self.receipts.repeat(receipt, origin)) is not None:
            self._answer(origin, answer)
        return True

    def flush(self, record: AgentRecord, now: float) -> None:
        """The agent is up: hand it what has waited."""
        for origin, envelope, receipt in self._backlog.pop(record.id, ()):
            try:
                self.deliver(record, envelope, origin, now, receipt)
            except Refused as refused:
                self._settle(origin, receipt, Failure(0, refused.code, refused.detail))

    def drop(self, record: AgentRecord) -> None:
        """The agent will never be up: refuse what has waited."""
        ended = Failure(0, ErrorCode.AGENT_NOT_FOUND, f"agent '{record.name}' ended")
        for origin, _, receipt in self._backlog.pop(record.id, ()):
            self._settle(origin, receipt, ended)

    def on_delivered(self, then: Delivering, answer: Response | Failure, now: float) -> None:
        """The agent has accepted a message, or not."""
        if isinstance(answer, Response) and answer.result.ok is True:
            routed = MessageRouted(source=then.source, target=then.target, content_preview=then.content)
            self._timeline.publish(self._settings.name, None, routed, now)
            self._settle(then.origin, then.receipt, OK)
            return
        detail = answer.detail if isinstance(answer, Failure) else "the agent refused the message"
        code = answer.code if isinstance(answer, Failure) else ErrorCode.DELIVERY_FAILED
        failure = Failure(0, code, f"delivery to '{then.target}' failed: {detail}")
        self._settle(then.origin, then.receipt, failure)

    def _settle(self, first: Origin | None, receipt: Hashable, answer: Ok | Failure) -> None:
        """Tell whoever sent the message, and whoever repeated it."""
        for origin in (first, *self.receipts.settle(receipt, answer)):
            if origin is not None:
                self._answer(origin, answer)

    def _answer(self, origin: Origin, answer: Ok | Failure) -> None:
        if isinstance(answer, Failure):
            self._exchange.refuse(origin, answer.code, answer.detail)
        else:
            self._exchange.answer(origin, answer)


def source_label(envelope: Envelope) -> str:
    """The base dialect's word for a source, as ``MessageRouted`` has it."""
    match envelope.source:
        case AgentSource(name):
            return name
        case SystemSource(kind):
            return f"system:{kind}"
        case source:
            return getattr(source, "sender", type(source).__name__.removesuffix("Source").lower())
