"""The four things that travel on a connection (JSON-RPC 2.0, sections 4 and 5).

A ``Request`` gets exactly one ``Response`` or ``Failure`` with its id; a ``Notification`` gets
none. Ids are chosen by the sender, for one connection and one direction.
"""

from __future__ import annotations

from typing import Any

from loopal_cluster.errors import ErrorCode
from loopal_cluster.messages import Message
from loopal_cluster.records import record

__all__ = ["Failure", "Frame", "Notification", "Rejected", "Request", "Response"]


@record
class Request:
    """Something to do, with an answer due."""

    id: int
    message: Message[Any]


@record
class Notification:
    """Something to know. It may be dropped under load, so nothing that matters is one."""

    message: Message[Any]


@record
class Response:
    """The answer that says yes."""

    id: int
    result: Any
    """The result record of the request's message, or ``Opaque`` where it has not been read (``OK`` always is)."""


@record
class Failure:
    """The answer that says no."""

    id: int
    code: ErrorCode
    detail: str
    """One line for people; it names the thing and the value."""


@record
class Rejected:
    """A line that is not a message: what the receiver answers, if anything."""

    id: int | str | None
    """The request's id as far as it could be read; None is answered with ``"id": null``."""
    code: ErrorCode
    detail: str
    answer: bool = True
    """False: it was a notification or an answer, and those are never answered."""


Frame = Request | Notification | Response | Failure
