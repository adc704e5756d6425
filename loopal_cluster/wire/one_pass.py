"""The lines that there are most of, read and written in one pass: messages between agents, replies, events.

``codec`` can do without this file: its way through ``hooks`` reads the same lines to the same frames and
writes the same bytes. It takes 14 us instead of 3 to read a message, and 6 instead of 3 for an event, and steps
over a large body three times instead of once. So whatever is unusual about a line, or wrong with it, is no
business of ours: reading or writing it gives ``None`` here, and it goes that way. The order of a line's keys,
and the blanks between them, are not unusual.

Envelopes, events and answers are read lazily: their header here, their body not at all. It stays the bytes that it
came as (``Opaque``), is written as such, and is read by whom it is for.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Raw, Struct

from loopal_cluster.address import MAX_ADDRESS, Address
from loopal_cluster.frames import Notification, Request, Response
from loopal_cluster.labels import MAX_ID, MAX_LABEL, label, sender_name
from loopal_cluster.messages import (
    OK,
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
    Ok,
    Opaque,
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
    "ABSENT",
    "EVENTS",
    "OK_JSON",
    "read",
    "read_reply",
    "read_yes",
    "WRITERS",
    "write_reply",
]

_ENVELOPES: Final = (Route, MetaRoute, DeliverEnvelope, Ask, MetaAsk, DeliverAsk)
"""The messages that are an envelope, and nothing else."""
EVENTS: Final = (ClusterEvent, AgentEvent)
"""The messages that say what an agent, or a hub, has done."""

ABSENT: Final = Raw()
"""What a key has that is not there; no value is it."""
OK_JSON: Final = b'{"ok":true}'
"""The usual answer, as Loopal and we write it."""

_BY_METHOD: Final[dict[str | None, Callable[[Envelope], Message[Any]]]] = {
    cls.method: cls for cls in _ENVELOPES
}
_FLAT_BYTES: Final = 2 * (MAX_DEPTH - 2)
"""The longest body that cannot be too deep: a level takes two bytes, and it is two levels down in its line."""

_dump = msgspec.json.Encoder().encode


def _dumped(value: Struct) -> bytes | None:
    try:
        return _dump(value)
    except UnicodeEncodeError:  # half of a surrogate pair
        return None


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
    # Of lengths at which ``messages.Envelope`` takes them as they are.
    id: Annotated[str, Meta(max_length=MAX_ID)]
    origin_hub: Annotated[str, Meta(max_length=MAX_LABEL)] | None = None
    source: _Agent
    target: str
    timeout_ms: Int64 | None = None
    timestamp: Annotated[str, Meta(max_length=MAX_LABEL)]
    waits: tuple[str, ...] = ()


class _Params(Struct, frozen=True, kw_only=True, gc=False):
    """The keys of an envelope and of an event, in any order. Which of them there must be, their method says."""

    agent_name: str | None = None
    asked_ms: Int64 | None = None
    content: Raw = ABSENT
    extend: bool = False
    for_ask: Int64 | None = None
    # Of lengths at which ``messages.Envelope`` takes them as they are.
    id: Annotated[str, Meta(max_length=MAX_ID)] | None = None
    origin_hub: Annotated[str, Meta(max_length=MAX_LABEL)] | None = None
    payload: Raw = ABSENT
    source: _Agent | None = None
    target: str | None = None
    timeout_ms: Int64 | None = None
    timestamp: Annotated[str, Meta(max_length=MAX_LABEL)] | None = None
    waits: tuple[str, ...] = ()


class _Line(Struct, frozen=True, gc=False):
    """A line with all that may be lazy in it."""

    error: Raw = ABSENT
    id: Int64 | None = None
    method: str | None = None
    params: _Params | None = None
    result: Raw = ABSENT


_read_line = msgspec.json.Decoder(_Line).decode


def read(line: bytes) -> Request | Notification | Response | None:
    """A message between agents, an event, or an answer that says yes, with its body unread.

    Raises:
        RecursionError: it is nested too deep.
    """
    message: Message[Any]
    try:
        head = _read_line(line)
        params = head.params
        if params is None:
            body = head.result
            if head.id is None or body is ABSENT or head.method is not None or head.error is not ABSENT:
                return None
            json = bytes(body)
            frame: Request | Notification | Response = Response(
                head.id, OK if json == OK_JSON else Opaque(json)
            )
        else:
            if (make := _BY_METHOD.get(head.method)) is not None:
                message, body = make(_envelope(params)), params.content
            elif head.method == "agent/event" and head.id is None and params.payload is not ABSENT:
                message, body = _event(params), params.payload
            else:
                return None
            frame = Notification(message) if head.id is None else Request(head.id, message)
    except ValueError:
        return None
    if len(body) > _FLAT_BYTES:  # all else is flat
        check_depth(line)
    return frame


def _envelope(params: _Params) -> Envelope:
    """Make an envelope of its keys.

    Raises:
        ValueError: one is missing, or is no address.
    """
    id_, source, target, timestamp = params.id, params.source, params.target, params.timestamp
    if id_ is None or source is None or target is None or timestamp is None or params.content is ABSENT:
        raise ValueError("a key is missing")
    sender = source.Agent
    return Envelope(
        id_,
        _agent(sender if len(sender) <= MAX_ADDRESS else sender[-MAX_ADDRESS:]),
        _address(target),
        Opaque(bytes(params.content)),
        timestamp,
        params.origin_hub if params.origin_hub is None else label(params.origin_hub),
        params.timeout_ms,
        params.extend,
        params.asked_ms,
        params.for_ask,
        params.waits,
    )


def _write_message(message: Route | MetaRoute | DeliverEnvelope | Ask | MetaAsk | DeliverAsk) -> bytes | None:
    envelope = message.envelope
    source, content = envelope.source, envelope.content
    if not isinstance(source, AgentSource):
        return None
    return _dumped(
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


def _event(params: _Params) -> AgentEvent:
    name = params.agent_name
    if name is not None:
        name = _name(name if len(name) <= MAX_ADDRESS else name[-MAX_ADDRESS:])
    payload = Opaque(bytes(params.payload))
    return AgentEvent(name, open_error(payload) if payload.json[:8] == b'{"Error"' else payload)


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

WRITERS: Final[dict[type, Callable[[Any], bytes | None]]] = {
    **dict.fromkeys(_ENVELOPES, _write_message),
    **dict.fromkeys(EVENTS, _write_event),
}
"""What makes the params of a message; what it returns None for is written the long way."""


# Answers that only say yes, or no.


class _Yes(Struct, frozen=True, forbid_unknown_fields=True):
    ok: bool


_read_yes = msgspec.json.Decoder(_Yes).decode


def read_yes(result: bytes) -> Ok | None:
    """The result of a request that is answered so, however it is written."""
    try:
        return Ok(_read_yes(result).ok)
    except ValueError:
        return None


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
