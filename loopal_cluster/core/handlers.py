"""Who handles what: tables of handlers by kind of party and type of message.

A core finds the handler of a request, or of a notification, with one look into a dict. Each feature has a table of its
own, ``requests`` or ``notifications``, and a core puts them together. What is in no table, nobody may send.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from loopal_cluster.core.calls import Origin
from loopal_cluster.core.events import Peer
from loopal_cluster.core.exchange import Refused
from loopal_cluster.errors import ErrorCode
from loopal_cluster.messages import Message

__all__ = ["Handlers", "Listeners", "hear", "serve", "unknown"]

P = TypeVar("P")
M = TypeVar("M", bound=Message[Any])

Handlers = dict[tuple[type, type], Callable[[Origin, Any, Any, float], None]]
"""Of requests: given the request, who sends it, its message, and the time. A handler answers, or has it answered later,
or raises ``Refused``."""
Listeners = dict[tuple[type, type], Callable[[Peer, Any, Any, float], None]]
"""Of notifications: given the connection, who sends it, its message, and the time."""


def serve(message: type[M], handler: Callable[[Origin, P, M, float], None], *parties: type[P]) -> Handlers:
    """Make the rows of a request, one for each kind of party that may send it.

    A checker sees that the handler takes the message and these parties.
    """
    return {(party, message): handler for party in parties}


def hear(message: type[M], listener: Callable[[Peer, P, M, float], None], *parties: type[P]) -> Listeners:
    """Make the rows of a notification, likewise."""
    return {(party, message): listener for party in parties}


def unknown(message: Message[Any]) -> Refused:
    """A method that exists, but not for this party."""
    family = message.method.partition("/")[0]
    if family in ("hub", "meta"):
        return Refused(ErrorCode.METHOD_NOT_FOUND, f"unknown {family} method: {message.method}")
    return Refused(ErrorCode.METHOD_NOT_FOUND, f"unknown: {message.method}")
