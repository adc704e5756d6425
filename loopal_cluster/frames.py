"""The four things that travel on a connection (JSON-RPC 2.0, sections 4 and 5).

A ``Request`` gets exactly one ``Response`` or ``Failure`` with its id; a ``Notification`` gets
none. Ids are chosen by the sender, for one connection and one direction.
"""

from __future__ import annotations

from typing import Any

from attrs import field

from loopal_cluster.address import Address
from loopal_cluster.errors import ErrorCode
from loopal_cluster.messages import Message
from loopal_cluster.records import record

__all__ = ["AskLetter", "Failure", "Frame", "Letter", "Notification", "Rejected", "Request", "Response"]


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


@record
class Letter:
    """A request to deliver a message to an agent on another hub, of which only the outside has been read.

    A MetaHub passes it on as it is. ``wire.one_pass.opened`` makes the ``Request`` of it that it is otherwise.
    """

    id: int
    target: Address
    """As its sender wrote it: with a hub, or a bare name."""
    sender: str
    """The name that the sender gives itself."""
    inside: Any = field(repr=False)
    """What the codec needs to write it again, or to open it."""


@record
class AskLetter(Letter):
    """The same of an ask, which tells on its outside how long its answer may take."""

    timeout_ms: int | None
    """Milliseconds; None: as long as the MetaHub allows."""
    extend: bool
    """Whether progress gives it that time anew."""


Frame = Request | Notification | Response | Failure
