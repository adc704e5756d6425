"""How long a line may be, by who says it and what it says: found out at its start, before it is decoded.

What an agent or a human says may be long: a prompt, a message, a result. What only names something is short
(``framing.SHORT``), and so is all that somebody says who may only look.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from loopal_cluster.core.parties import Standing
from loopal_cluster.messages import (
    AgentEvent,
    Announce,
    Ask,
    Completed,
    Control,
    ControlAgent,
    DeliverAsk,
    DeliverEnvelope,
    HubComplete,
    HubReconcile,
    Message,
    MetaAsk,
    MetaComplete,
    MetaReconcile,
    MetaRoute,
    MetaSpawn,
    Permission,
    Question,
    Route,
    SpawnAgent,
)

__all__ = ["long_lines"]

LIST_BYTES = 4 * 2**20
"""Of a list of names and ids: 10,000 of each."""

_BY_ANYBODY: tuple[type[Message[Any]], ...] = (
    *(Route, MetaRoute, Ask, MetaAsk, SpawnAgent, MetaSpawn, ControlAgent),
)
_BY_AGENTS = (*_BY_ANYBODY, Completed, AgentEvent, Permission, Question)
_BY_HUBS = (*_BY_AGENTS, DeliverEnvelope, DeliverAsk, MetaComplete, HubComplete, Control)
_LISTS = (Announce, MetaReconcile, HubReconcile)


@lru_cache(maxsize=64)
def long_lines(standing: Standing, line_bytes: int) -> Mapping[bytes, int]:
    """What may be long, by method, and how long. An answer, which has no method, is that to a question of ours."""
    match standing:
        case Standing.STRANGER | Standing.OBSERVER:
            return {}
        case Standing.CLIENT:
            methods: tuple[type[Message[Any]], ...] = _BY_ANYBODY
        case Standing.AGENT:
            methods = _BY_AGENTS
        case Standing.HUB:
            methods = _BY_HUBS
    long = {b"": line_bytes} | {method.method.encode(): line_bytes for method in methods}
    if standing is Standing.HUB:
        long |= {method.method.encode(): min(LIST_BYTES, line_bytes) for method in _LISTS}
    return long
