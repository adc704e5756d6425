"""The lines that there are most of, read and written in one pass: messages between agents, replies, events.

``codec`` can do without this file: its way through ``hooks`` reads the same lines to the same frames and
writes the same bytes. It takes 14 us instead of 3 to read a message, and 6 instead of 3 for an event, and steps
over a large body three times instead of once. So whatever is unusual about a line, or wrong with it, is no
business of ours: reading or writing it gives ``None`` here, and it goes that way.

What only its reader will look at stays the bytes it came as; of a ``Letter``, that is nearly all of it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Raw, Struct

from loopal_cluster.address import MAX_ADDRESS, Address
from loopal_cluster.frames import AskLetter, Letter, Notification, Request, Response
from loopal_cluster.labels import MAX_ID, MAX_LABEL, label, sender_name
from loopal_cluster.messages import (
    AgentEvent,
    AgentSource,
    Ask,
    ClusterEvent,
    DeliverAsk,
    DeliverEnvelope,
    Envelope,
    Message,
    MetaAsk,
    MetaRoute,
    Opaque,
    Relayed,
    RelayedAsk,
    Reply,
    Route,
)
from loopal_cluster.outcomes import Done
from loopal_cluster.payloads import MessageRouted
from loopal_cluster.wire.contents import content_json, open_error
from loopal_cluster.wire.faults import MAX_DEPTH, check_depth
from loopal_cluster.wire.hooks import preview
from loopal_cluster.wire.strict import Int64

__all__ = [
    "EVENTS",
    "opened",
    "read_answer",
    "read_event",
    "read_message",
    "read_reply",
    "write_params",
    "write_reply",
]

_ENVELOPES: Final = (Route, MetaRoute, DeliverEnvelope, Ask, MetaAsk, DeliverAsk)
"""The messages that are an envelope, and nothing else."""
EVENTS: Final = (ClusterEvent, AgentEvent)
"""The messages that say what an agent, or a hub, has done."""

_BY_METHOD: Final[dict[str, Callable[[Envelope], Message[Any]]]] = {cls.method: cls for cls in _ENVELOPES}
_FLAT_BYTES: Final = 2 * (MAX_DEPTH - 2)
"""The longest body that cannot be too deep: a level takes two bytes, and it is two levels down in its line."""

_dump = msgspec.json.Encoder().encode
# The same few addresses come again and again. Faulty ones are not kept, so the caches are small.
_address = lru_cache(maxsize=4096)(Address.parse)


@lru_cache(maxsize=4096)
def _agent(name: str) -> AgentSource:
    # Names of senders are not checked where they are chosen.
    return AgentSource(sender_name(name))


_name = lru_cache(maxsize=4096)(sender_name)


# Messages between agents.


class _Agent(Struct, frozen=True, forbid_unknown_fields=True):
    Agent: str


class _Envelope(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """``messages.Envelope`` from an agent, its keys in ascending order, as they are written."""

    asked_ms: Int64 | None = None
    content: Raw
    extend: bool = False
    for_ask: Int64 | None = None
    # Of lengths at which ``messages.Envelope`` takes them as they are, so that a letter can always be opened.
    id: Annotated[str, Meta(max_length=MAX_ID)]
    origin_hub: Annotated[str, Meta(max_length=MAX_LABEL)] | None = None
    source: _Agent
    target: str
    timeout_ms: Int64 | None = None
    timestamp: Annotated[str, Meta(max_length=MAX_LABEL)]
    waits: tuple[str, ...] = ()


class _EnvelopeLine(Struct, frozen=True):
    method: Literal["agent/ask", "agent/message", "hub/ask", "hub/route", "meta/ask", "meta/route"]
    params: _Envelope
    id: Int64 | None = None


_read_envelope_line = msgspec.json.Decoder(_EnvelopeLine).decode


def read_message(line: bytes) -> Request | Notification | Letter | None:
    """A message between agents; a ``Letter`` if a MetaHub may be able to pass it on unread.

    Raises:
        RecursionError: it is nested too deep.
    """
    try:
        head = _read_envelope_line(line)
        params = head.params
        target = _address(params.target)
    except ValueError:
        return None
    if len(params.content) > _FLAT_BYTES:  # all else is flat
        check_depth(line)
    method, id_ = head.method, head.id
    if id_ is not None and params.asked_ms is None:
        if method == "meta/route":
            return Letter(id_, target, params.source.Agent, params)
        if method == "meta/ask":
            return AskLetter(id_, target, params.source.Agent, params, params.timeout_ms, params.extend)
    message = _BY_METHOD[method](_envelope(params, target))
    return Notification(message) if id_ is None else Request(id_, message)


def opened(letter: Letter) -> Request:
    """A letter as everybody but a MetaHub reads it."""
    method = MetaAsk if isinstance(letter, AskLetter) else MetaRoute
    return Request(letter.id, method(_envelope(letter.inside, letter.target)))


def _envelope(params: _Envelope, target: Address) -> Envelope:
    sender = params.source.Agent
    return Envelope(
        params.id,
        _agent(sender if len(sender) <= MAX_ADDRESS else sender[-MAX_ADDRESS:]),
        target,
        Opaque(bytes(params.content)),
        params.timestamp,
        params.origin_hub if params.origin_hub is None else label(params.origin_hub),
        params.timeout_ms,
        params.extend,
        params.asked_ms,
        params.for_ask,
        params.waits,
    )


def _write_relayed(message: Relayed) -> bytes:
    """The params of a letter that is passed on: what was on its outside anew, the rest as it came."""
    inside: _Envelope = message.inside
    return _dump(
        _Envelope(
            asked_ms=message.asked_ms,
            content=inside.content,
            extend=inside.extend,
            id=inside.id,
            origin_hub=message.origin_hub,
            source=_Agent(message.source),
            target=message.target,
            # It is less in a repetition.
            timeout_ms=message.timeout_ms if isinstance(message, RelayedAsk) else inside.timeout_ms,
            timestamp=inside.timestamp,
            waits=inside.waits,
        )
    )


def _write_message(message: Route | MetaRoute | DeliverEnvelope | Ask | MetaAsk | DeliverAsk) -> bytes | None:
    envelope = message.envelope
    source, content = envelope.source, envelope.content
    if not isinstance(source, AgentSource):
        return None
    return _dump(
        _Envelope(
            asked_ms=envelope.asked_ms,
            content=Raw(content.json if isinstance(content, Opaque) else content_json(content)),
            extend=envelope.extend,
            for_ask=envelope.for_ask,
            id=envelope.id,
            origin_hub=envelope.origin_hub,
            source=_Agent(source.name),
            target=str(envelope.target),
            timeout_ms=envelope.timeout_ms,
            timestamp=envelope.timestamp,
            waits=envelope.waits,
        )
    )


# Events: a busy agent has many, and a MetaHub has those of all.


class _Event(Struct, frozen=True):
    agent_name: str | None
    payload: Raw


class _EventLine(Struct, frozen=True):
    method: Literal["agent/event"]
    params: _Event
    id: None = None


class _ClusterEvent(Struct, frozen=True):
    """``messages.ClusterEvent``, its keys in ascending order, as they are written."""

    agent: str | None
    at: float
    hub: str | None
    payload: Raw
    seq: int


class _Routed(Struct, frozen=True):
    """``payloads.MessageRouted``, of which a hub reports one for each message that it has delivered."""

    content_preview: str
    source: str
    target: str


class _OfRouted(Struct, frozen=True):
    MessageRouted: _Routed


_read_event_line = msgspec.json.Decoder(_EventLine).decode


def read_event(line: bytes) -> Notification | None:
    """An event of an agent.

    Raises:
        RecursionError: it is nested too deep.
    """
    try:
        event = _read_event_line(line).params
    except ValueError:
        return None
    if len(event.payload) > _FLAT_BYTES:
        check_depth(line)
    name = event.agent_name
    if name is not None:
        name = _name(name if len(name) <= MAX_ADDRESS else name[-MAX_ADDRESS:])
    payload = Opaque(bytes(event.payload))
    return Notification(AgentEvent(name, open_error(payload) if payload.json[:8] == b'{"Error"' else payload))


def _write_event(event: AgentEvent | ClusterEvent) -> bytes | None:
    """None if its payload is neither passed on unread nor reports a message."""
    payload: Any = event.payload
    try:
        if isinstance(payload, Opaque):
            payload = Raw(payload.json)
        elif isinstance(payload, MessageRouted):
            payload = _OfRouted(_Routed(preview(payload.content_preview), payload.source, payload.target))
        else:
            return None
        if isinstance(event, ClusterEvent):
            return _dump(_ClusterEvent(event.agent, event.at, event.hub, payload, event.seq))
        return _dump(_Event(event.agent_name, payload))
    except ValueError:  # unreadable content, or half of a surrogate pair
        return None


# All that is written.

_WRITERS: Final[dict[type, Callable[[Any], bytes | None]]] = {
    Relayed: _write_relayed,
    RelayedAsk: _write_relayed,
    **dict.fromkeys(_ENVELOPES, _write_message),
    **dict.fromkeys(EVENTS, _write_event),
}


def write_params(message: Message[Any]) -> bytes | None:
    """The params of a message; None if they are written the long way."""
    write = _WRITERS.get(type(message))
    try:
        return None if write is None else write(message)
    except UnicodeEncodeError:  # half of a surrogate pair
        return None


# Answers that say yes: but for ``{"ok":true}``, which ``codec`` knows by sight, most are replies.


class _AnswerLine(Struct, frozen=True):
    id: Int64
    result: Raw
    method: None = None
    error: None = None


_read_answer_line = msgspec.json.Decoder(_AnswerLine).decode


def read_answer(line: bytes) -> Response | None:
    """An answer that says yes, its result unread.

    Raises:
        RecursionError: it is nested too deep.
    """
    try:
        answer = _read_answer_line(line)
    except ValueError:
        return None
    if len(answer.result) > _FLAT_BYTES:
        check_depth(line)
    return Response(answer.id, Opaque(bytes(answer.result)))


# Replies: the outcome of an ask, which is nearly always a text.


class _Done(Struct, frozen=True, forbid_unknown_fields=True):
    outcome: Literal["done"]
    result: str


class _Reply(Struct, frozen=True):
    outcome: _Done


_read_reply = msgspec.json.Decoder(_Reply).decode


def read_reply(result: bytes) -> Reply | None:
    """The result of an ask, if it is a text."""
    try:
        return Reply(Done(_read_reply(result).outcome.result))
    except ValueError:
        return None


def write_reply(reply: Reply) -> bytes | None:
    """The same as JSON, if it is a text."""
    outcome = reply.outcome
    if not isinstance(outcome, Done) or type(outcome.result) is not str:
        return None
    try:
        return _dump(_Reply(_Done("done", outcome.result)))
    except UnicodeEncodeError:  # half of a surrogate pair
        return None
