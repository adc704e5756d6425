"""How a connection comes in: unauthenticated first, then as one of an agent's.

Of unauthenticated ones there are few, and any of them makes room for a newer one. Once its token is known, a
connection is its agent's, and no stranger takes anything from it. If all agents together have too many, the one
that has most loses its oldest, idle ones first.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import trio

from loopal_cluster.links.admission import Admission, Place
from loopal_cluster.mcp_server.guests import Guest

__all__ = ["Entrance", "open_entrance"]


class Entrance:
    """One connection's. Made by ``open_entrance``."""

    def __init__(self, stack: ExitStack, unknown: Admission, known: Admission, source: str) -> None:
        self._scope = stack.enter_context(trio.CancelScope())
        self._stack = stack
        self._known = known
        self._place: Place = stack.enter_context(unknown.take_place(source, self._scope.cancel))
        self._guest: Guest | None = None

    @property
    def is_known(self) -> bool:
        """Whether its token was once right."""
        return self._guest is not None

    def let_in(self, guest: Guest) -> None:
        """Give the connection to the guest whose token it has."""
        if guest is not self._guest:
            self._place.leave()
            self._guest = guest
            self._place = self._stack.enter_context(
                self._known.take_place(f"agent {id(guest)}", self._scope.cancel)
            )

    async def refuse(self) -> None:
        """Wait until a wrong token may be answered."""
        if not self.is_known:
            await self._place.wait(self._place.wrong_token())

    @contextmanager
    def work(self) -> Iterator[None]:
        """A block in which it does something for its guest, and is not idle."""
        self._place.is_busy = True
        try:
            yield
        finally:
            self._place.is_busy = False


@contextmanager
def open_entrance(unknown: Admission, known: Admission, source: str) -> Iterator[Entrance]:
    """A connection's way in; the block is cancelled when it must make room."""
    with ExitStack() as stack:
        yield Entrance(stack, unknown, known, source)
