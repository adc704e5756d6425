"""Messages and asks on their way to an agent of this hub.

A message is accepted or refused by the agent's program, and whoever sent it learns which; an ask is
answered, in the time that it brings. While the agent comes up, both wait for it. One from another hub may
come again, and is delivered once (``Receipts``).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from functools import partial

from attrs import field

from loopal_cluster.core.agents import AgentRecord
from loopal_cluster.core.calls import Call, Origin
from loopal_cluster.core.context import HubPart
from loopal_cluster.core.events import Peer
from loopal_cluster.core.exchange import Refused, with_time_left
from loopal_cluster.core.kept import KeptTexts
from loopal_cluster.core.patience import seconds_for
from loopal_cluster.core.pending import Pending
from loopal_cluster.core.receipts import Answer, Receipts
from loopal_cluster.core.steps import Delivering, DeliveryDue, HubThen
from loopal_cluster.core.timeline import Timeline
from loopal_cluster.errors import ErrorCode
from loopal_cluster.frames import Failure, Response
from loopal_cluster.message_sizes import message_bytes
from loopal_cluster.messages import (
    AgentSource,
    DeliverAsk,
    DeliverEnvelope,
    Envelope,
    Ok,
    Opaque,
    Progress,
    Reply,
    SystemSource,
)
from loopal_cluster.outcomes import Failed
from loopal_cluster.payloads import MessageRouted
from loopal_cluster.records import define, evolve, record

__all__ = ["Deliveries"]

Delivered = DeliverEnvelope | DeliverAsk


@record
class _Waiting:
    """One that waits for its agent to come up."""

    message: Delivered
    origin: Origin | None
    receipt: Hashable
    deadline: float


@define
class Deliveries(HubPart):
    """Hands messages and asks to agents, each once."""

    _timeline: Timeline
    _kept: KeptTexts
    receipts: Receipts = field(init=False)
    _backlog: dict[str, Pending[int, _Waiting]] = field(factory=dict, init=False)
    """By agent id, and by a number, in the order they came."""
    _last_number: int = field(default=0, init=False)
    _asked: dict[Hashable, Call[HubThen]] = field(factory=dict, init=False)
    """The calls of open asks from other hubs, by receipt."""

    def __attrs_post_init__(self) -> None:
        limits = self._settings.limits
        self.receipts = Receipts(limits.receipts, limits.receipts_bytes, self._settings.timeouts.memory)

    def deliver(
        self,
        record: AgentRecord,
        message: Delivered,
        origin: Origin | None,
        now: float,
        receipt: Hashable = None,
    ) -> None:
        """Hand a message to an agent of this hub; ``origin`` gets its answer.

        Raises:
            Refused: the agent has too many undelivered messages, or those of this sender are too large.
        """
        deadline = now + seconds_for(message, self._settings.timeouts)
        state = record.state
        if not state.is_up or state.peer is None:
            backlog = self._backlog.get(record.id)
            if backlog is None:
                backlog = self._backlog[record.id] = Pending(self._timers, partial(DeliveryDue, record.id))
            waiting_bytes = sum(message_bytes(waiting.message) for waiting in backlog.values())
            limits = self._settings.limits
            if len(backlog) >= limits.inbox or waiting_bytes >= limits.calls_bytes:
                raise Refused(ErrorCode.OVERLOADED, f"agent '{record.name}' has too many messages waiting")
            if origin is not None:
                self._exchange.check_held(origin, message, self._held_of(origin.peer))
            self._last_number += 1
            backlog.add(self._last_number, _Waiting(message, origin, receipt, deadline), deadline)
        else:
            self._send(record, state.peer, _Waiting(message, origin, receipt, deadline))

    def _held_of(self, asker: Peer) -> Iterator[Delivered]:
        """The messages of a peer that wait for agents to come up."""
        for backlog in self._backlog.values():
            for waiting in backlog.values():
                if waiting.origin is not None and waiting.origin.peer == asker:
                    yield waiting.message

    def _send(self, record: AgentRecord, peer: Peer, waiting: _Waiting) -> None:
        envelope = waiting.message.envelope
        then = Delivering(
            waiting.origin, source_label(envelope), record.name, envelope.content, waiting.receipt
        )
        call = self._exchange.call(peer, waiting.message, then, waiting.deadline)
        if waiting.receipt is not None and isinstance(waiting.message, DeliverAsk):
            self._asked[waiting.receipt] = call
            for repeated in self.receipts.waiting(waiting.receipt):
                self._exchange.join(repeated, call)

    def deliver_once(
        self, record: AgentRecord, message: Delivered, origin: Origin, receipt: Hashable, now: float
    ) -> None:
        """``deliver``, for a message from another hub, which may come again.

        Raises:
            Refused: the agent has too many undelivered messages.
        """
        self.receipts.begin(receipt, seconds_for(message, self._settings.timeouts), now)
        try:
            self.deliver(record, message, origin, now, receipt)
        except Refused as refused:
            self.receipts.settle(receipt, Failure(0, refused.code, refused.detail), now)
            raise

    def repeat(self, origin: Origin, receipt: Hashable, first_sent: float | None) -> bool:
        """Give a message that has been seen the answer of the first; False if it has not.

        Raises:
            Refused: it is a repetition, first sent then, and we may have forgotten it.
        """
        if not self.receipts.knows(receipt):
            if first_sent is not None and self.receipts.may_have_forgotten(first_sent):
                detail = "asked again, and this hub, busy, remembers only the newest; it may have been done"
                raise Refused(ErrorCode.CONNECTION_LOST, detail)
            return False
        if (answer := self.receipts.repeat(receipt, origin)) is not None:
            self._exchange.pass_on(origin, answer)
        elif (call := self._asked.get(receipt)) is not None:
            self._exchange.join(origin, call)  # whoever asks again may withdraw it, too
        return True

    def flush(self, record: AgentRecord, now: float) -> None:
        """The agent is up: hand it what has waited, with the time that is left."""
        for waiting in self._take_all(record):
            assert record.peer is not None
            message = with_time_left(waiting.message, waiting.deadline - now)
            try:
                self._send(record, record.peer, evolve(waiting, message=message))
            except Refused as refused:
                self._refuse(waiting, refused.code, refused.detail, now)

    def drop(self, record: AgentRecord, now: float) -> None:
        """The agent will never be up: refuse what has waited."""
        for waiting in self._take_all(record):
            self._refuse(waiting, ErrorCode.AGENT_NOT_FOUND, f"agent '{record.name}' ended", now)

    def on_due(self, agent_id: str, number: int, now: float) -> None:
        """The time of something that waits is over, and its agent is not up yet."""
        backlog = self._backlog.get(agent_id)
        if backlog is not None and (waiting := backlog.pop(number)) is not None:
            name = waiting.message.envelope.target.agent
            self._refuse(waiting, ErrorCode.DEADLINE_EXCEEDED, f"agent '{name}' was not up in time", now)

    def _take_all(self, record: AgentRecord) -> list[_Waiting]:
        backlog = self._backlog.pop(record.id, None)
        return [] if backlog is None else backlog.pop_all()

    def _refuse(self, waiting: _Waiting, code: ErrorCode, detail: str, now: float) -> None:
        self._settle(waiting.origin, waiting.receipt, Failure(0, code, detail), now)

    def on_answer(
        self, then: Delivering, answer: Response | Failure, now: float, *, is_ask: bool = False
    ) -> None:
        """The agent has accepted a message, or answered an ask, or neither."""
        if isinstance(answer, Response) and isinstance(answer.result, Ok) and not answer.result.ok:
            answer = Failure(0, ErrorCode.DELIVERY_FAILED, "the agent refused the message")
        elif isinstance(answer, Response) and isinstance(answer.result, Reply | Opaque):
            if (reply := self._kept.reply(then.target, answer.result)) is not answer.result:
                answer = Response(answer.id, reply)
        elif is_ask and isinstance(answer, Failure) and answer.code is ErrorCode.OVERSIZED:
            # A line that could not be read to its end: an agent has replied, and it is known that it did.
            answer = Response(answer.id, Reply(Failed(f"its reply is too large: a {answer.detail}")))
        if isinstance(answer, Failure):
            answer = evolve(answer, detail=f"delivery to '{then.target}' failed: {answer.detail}")
        else:
            routed = MessageRouted(source=then.source, target=then.target, content_preview=then.content)
            self._timeline.publish(self._settings.name, None, routed, now)
        self._settle(then.origin, then.receipt, answer, now)

    def give_up(self, call: Call[HubThen], now: float) -> None:
        """Nobody waits any more for what we have asked somebody."""
        self._exchange.give_up(call)
        if isinstance(call.then, Delivering):
            self.on_answer(
                call.then, Failure(call.id, ErrorCode.CANCELLED, "its caller no longer waits"), now
            )

    def on_progress(self, call: Call[HubThen], then: Delivering, ask: DeliverAsk, now: float) -> None:
        """The agent is still working on an ask: if that may take longer for it, everybody shall know."""
        if ask.envelope.extend:
            self._exchange.calls.extend(call, now + seconds_for(ask, self._settings.timeouts))
            for origin in (then.origin, *self.receipts.waiting(then.receipt)):
                if origin is not None:
                    self._exchange.notify(origin.peer, Progress(origin.id))

    def withdraw(self, peer: Peer, request_id: int | None, now: float) -> None:
        """Whoever asked is gone, or no longer waits for this request: an agent that comes up need not begin."""
        for backlog in self._backlog.values():
            for number, waiting in [*backlog.items()]:
                askers = (waiting.origin, *self.receipts.waiting(waiting.receipt))
                if isinstance(waiting.message, DeliverAsk) and any(
                    asker is not None and asker.peer == peer and request_id in (None, asker.id)
                    for asker in askers
                ):
                    backlog.pop(number)
                    self._refuse(waiting, ErrorCode.CANCELLED, "its caller no longer waits", now)

    def _settle(self, first: Origin | None, receipt: Hashable, answer: Answer, now: float) -> None:
        """Tell whoever sent the message, and whoever repeated it."""
        self._asked.pop(receipt, None)
        for origin in (first, *self.receipts.settle(receipt, answer, now)):
            if origin is not None:
                self._exchange.pass_on(origin, answer)


def source_label(envelope: Envelope) -> str:
    """The base dialect's word for a source, as ``MessageRouted`` has it."""
    match envelope.source:
        case AgentSource(name):
            return name
        case SystemSource(kind):
            return f"system:{kind}"
        case source:
            return getattr(source, "sender", type(source).__name__.removesuffix("Source").lower())
