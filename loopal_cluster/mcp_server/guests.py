"""Whom a door lets in: the program of an agent, as long as that agent runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import trio
from attrs import field

from loopal_cluster.mcp_server.session import Session, ToolServer
from loopal_cluster.records import define

__all__ = ["BODIES_BYTES", "VISITS", "Guest", "Room"]

SESSIONS: Final = 16
"""Sessions of one guest that are remembered; a program that begins more has forgotten the oldest."""
VISITS: Final = 256
"""Calls of one guest at one time, over all its sessions and without one."""
BODIES_BYTES: Final = 32 * 2**20
"""Bytes of what one guest asks for at one time, over all its connections: eight requests as large as there are."""


@define(eq=False)
class Guest:
    """An agent's program, on however many connections."""

    server: ToolServer
    """The agent's own tools."""
    sessions: dict[str, Session] = field(factory=dict)
    """By the id that HTTP has for each, oldest first."""
    body_bytes: int = 0
    """What its requests have, that are not answered."""
    _visits: set[trio.CancelScope] = field(factory=set)

    def begin_session(self, session_id: str, session: Session) -> None:
        """Remember a session."""
        self.sessions[session_id] = session
        while len(self.sessions) > SESSIONS:
            self.end_session(next(iter(self.sessions)))

    def end_session(self, session_id: str) -> None:
        """Forget a session, and withdraw its calls."""
        for call in self.sessions.pop(session_id).calls.values():
            call.scope.cancel()

    @property
    def is_crowded(self) -> bool:
        """Whether its program does too many things at one time."""
        return len(self._visits) >= VISITS

    @contextmanager
    def room_for_bodies(self) -> Iterator[Room]:
        """Room for one request, given back at the end of the block."""
        room = Room(self)
        try:
            yield room
        finally:
            self.body_bytes -= room.taken

    @contextmanager
    def visit(self) -> Iterator[None]:
        """Be there, at most until the guest must leave."""
        with trio.CancelScope() as scope:
            self._visits.add(scope)
            try:
                yield
            finally:
                self._visits.remove(scope)

    def leave(self) -> None:
        """The agent has ended: so does all that its program still does here."""
        for scope in self._visits:
            scope.cancel()


@define(eq=False)
class Room:
    """What one request of a guest takes of all that its requests may."""

    _guest: Guest
    taken: int = 0

    def take(self, size: int) -> bool:
        """Take more; False if there is not so much."""
        if self._guest.body_bytes + size > BODIES_BYTES:
            return False
        self._guest.body_bytes += size
        self.taken += size
        return True
