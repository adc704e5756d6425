"""About how many bytes a message has: what bounds in bytes are counted in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from loopal_cluster.messages import (
    AgentEvent,
    Ask,
    ClusterEvent,
    DeliverAsk,
    DeliverEnvelope,
    Message,
    MetaAsk,
    MetaRoute,
    Opaque,
    Route,
)
from loopal_cluster.records import field_names

__all__ = ["SMALL", "message_bytes", "payload_bytes"]


SMALL = 4096
"""Bytes of a message that are not counted: of those, so many are allowed that they come to little."""


def message_bytes(message: Message[Any]) -> int:
    """About how long a message's line will be, if what it says makes it long."""
    size = _BODIES.get(type(message))
    return payload_bytes(message) if size is None else size(message)


def _envelope_bytes(message: Any) -> int:
    content = message.envelope.content
    return len(content.json) if type(content) is Opaque else payload_bytes(content)


def _event_bytes(message: Any) -> int:
    payload = message.payload
    return len(payload.json) if type(payload) is Opaque else payload_bytes(payload)


_BODIES: dict[type, Callable[[Any], int]] = {
    **dict.fromkeys((DeliverEnvelope, DeliverAsk, Route, Ask, MetaRoute, MetaAsk), _envelope_bytes),
    **dict.fromkeys((ClusterEvent, AgentEvent), _event_bytes),
}
"""Of those that there are most of, only the content."""


def payload_bytes(payload: object) -> int:
    """About how much of the memory a payload takes: its texts, and what is unread of it."""
    if isinstance(payload, Opaque):
        return len(payload.json)
    if isinstance(payload, str):
        return len(payload)
    if isinstance(payload, tuple):
        return sum(map(payload_bytes, payload))
    if isinstance(payload, Mapping):
        return sum(payload_bytes(key) + payload_bytes(value) for key, value in payload.items())
    cls: Any = type(payload)
    return sum(payload_bytes(getattr(payload, name)) for name in field_names(cls))
