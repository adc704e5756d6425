"""What every part of a core has: its settings, and what all parts share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from attrs import Factory, field

from loopal_cluster.config import HubSettings, MetaHubSettings
from loopal_cluster.core.deadlines import DeadlineQueue
from loopal_cluster.core.exchange import Exchange
from loopal_cluster.core.steps import HubThen, MetaHubThen, Timer
from loopal_cluster.records import define, record

__all__ = ["AnyPart", "Context", "HubPart", "MetaHubPart", "Part"]

S = TypeVar("S")
N = TypeVar("N")


@record
class Context(Generic[S, N]):
    """One for each core."""

    settings: S
    exchange: Exchange[N]
    timers: DeadlineQueue[Timer]
    new_id: Callable[[], str]
    """Makes uuids."""
    epoch: float
    """Seconds to add to ``now`` to get seconds since the Unix epoch."""


@define
class Part(Generic[S, N]):
    """A part of a core. It gets the context and the parts that it works with; its own tables it makes itself."""

    # What is in the context is a field of the part, too: hot paths look it up once, and bodies stay short.
    _context: Context[S, N]
    _settings: S = field(init=False, default=Factory(lambda self: self._context.settings, takes_self=True))
    _exchange: Exchange[N] = field(
        init=False, default=Factory(lambda self: self._context.exchange, takes_self=True)
    )
    _timers: DeadlineQueue[Timer] = field(
        init=False, default=Factory(lambda self: self._context.timers, takes_self=True)
    )
    _new_id: Callable[[], str] = field(
        init=False, default=Factory(lambda self: self._context.new_id, takes_self=True)
    )
    _epoch: float = field(init=False, default=Factory(lambda self: self._context.epoch, takes_self=True))


HubPart = Part[HubSettings, HubThen]
MetaHubPart = Part[MetaHubSettings, MetaHubThen]
AnyPart = Part[Any, Any]
"""A part that both cores have."""
