"""Whom a door lets in: the program of an agent, as long as that agent runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import trio
from attrs import field

from loopal_cluster.mcp_server.session import Session, ToolServer
from loopal_cluster.records import define

__all__ = ["VISITS", "Guest"]

SESSIONS: Final = 16
"""Sessions of one guest that are remembered; a program that begins more has forgotten the oldest."""
VISITS: Final = 256
"""Calls of one guest at one time, over all its sessions and without one."""


@define(eq=False)
class Guest:
    """An agent's program, on however many connections."""

    server: ToolServer
    """The agent's own tools."""
    sessions: dict[str, Session] = field(factory=dict)
    """By the id that HTTP has for each, oldest first."""
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
