"""Connections that have not said who they are: how many there may be, and how often they may be wrong.

Without a token nobody may keep anybody out. So a connection has a *place* until it has registered: there are
few, well below the number of descriptors, and when all are taken, the oldest makes room, of the address that has
most of them. Whoever has registered has left its place, and nobody takes anything from it.

Who brings a wrong token is answered late, and later each time. Its place is kept until then, even if it hangs
up: otherwise nobody would have to wait. When ``DELAYED_AT_A_TIME`` of one address wait, its next one is heard when
one of them has been answered, first come, first served. A right token is answered at once: others behind the
same NAT delay it only while there are so many of them, and then no longer than their queue is.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final

import trio
from attrs import field

from loopal_cluster.records import define

__all__ = ["Admission", "Place"]

FIRST_DELAY: Final = 0.1
"""Seconds until the first wrong token of an address is answered; each later one waits twice as long, ..."""
LONGEST_DELAY: Final = 2.0
"""... up to this. With ``DELAYED_AT_A_TIME``, an address has 32 guesses a second."""
DELAYED_AT_A_TIME: Final = 64
"""Of one address, and no more than a quarter of all places."""
FORGET_AFTER: Final = 60.0
"""Seconds after the last wrong token of an address, it begins anew."""
ADDRESSES: Final = 4096
"""Addresses with wrong tokens that are remembered; the one that was quiet for longest is forgotten first."""
REPORT_INTERVAL: Final = 10.0
"""Seconds for which the log has no more than one line for an address, ..."""
REPORTS: Final = 10
"""... and no more than so many lines for all of them."""


@define(eq=False)
class Place:
    """The place of one connection, until it is known whose it is. Made by ``Admission.take_place``."""

    source: str
    """The address that it comes from."""
    make_room: Callable[[], None]
    """Called when another one needs the place: the connection must end."""
    _admission: Admission = field(repr=False)
    is_delayed: bool = False
    """Whether it has brought a wrong token, and has not been answered."""
    is_busy: bool = False
    """It makes room only if nobody else can: it is delayed, or does something for somebody who is known."""

    def leave(self) -> None:
        """Give the place back: it is known now whose connection this is."""
        self._admission._leave(self)

    @property
    def must_wait(self) -> bool:
        """Whether ``turn`` will take its time."""
        return self._admission._must_wait(self.source)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """A block in which this address may bring a token; at once, unless very many of its were wrong just now."""
        await self._admission._wait_for_turn(self.source)
        yield
        if not self.is_delayed:
            self._admission._pass_turn(self.source)

    def wrong_token(self) -> float:
        """The seconds to ``wait`` before a wrong token is answered. Until then the place is kept."""
        return self._admission._wrong_token(self)

    async def wait(self, seconds: float) -> None:
        """Wait, and leave the place."""
        await self._admission._wait(self, seconds)


@define(eq=False)
class _Wrong:
    """The wrong tokens of one address."""

    count: int = 0
    last_at: float = 0.0
    delayed: int = 0
    """So many of its connections wait to be told."""
    unreported: int = 0
    turn: trio.lowlevel.ParkingLot = field(factory=trio.lowlevel.ParkingLot)


class Admission:
    """The places of one server, or of several that share them."""

    def __init__(self, places: int, logger: logging.Logger) -> None:
        self._count = places
        self._delayed_at_a_time = min(DELAYED_AT_A_TIME, max(1, places // 4))
        self._logger = logger
        self._places: dict[str, dict[Place, None]] = {}
        """By address, each oldest first."""
        self._taken = 0
        self._wrong: dict[str, _Wrong] = {}
        """By address; who was wrong last is last."""
        self._lines = 0
        """Lines written since the last report."""
        self._unaccepted = 0
        self._report_wanted = trio.lowlevel.ParkingLot()

    # Places.

    @contextmanager
    def take_place(self, source: str, make_room: Callable[[], None]) -> Iterator[Place]:
        """A place for the block, or until it is left; the oldest makes room for it."""
        if self._taken >= self._count:
            self._free_one()
        place = Place(source, make_room, self)
        self._places.setdefault(source, {})[place] = None
        self._taken += 1
        try:
            yield place
        finally:
            if not place.is_delayed:  # else it stays taken, whatever becomes of the connection
                place.leave()

    def _free_one(self) -> None:
        """Have the oldest make room, of the address that has most.

        Those that wait to be told that they were wrong come last: otherwise who guesses would push itself out.
        """
        by_number = sorted(self._places.values(), key=len, reverse=True)
        if not by_number:
            return
        idle = (place for places in by_number for place in places if not place.is_busy)
        oldest = next(idle, None) or next(iter(by_number[0]))
        oldest.leave()
        oldest.make_room()

    def _leave(self, place: Place) -> None:
        places = self._places.get(place.source, {})
        if place not in places:
            return
        del places[place]
        self._taken -= 1
        if not places:
            del self._places[place.source]

    # Wrong tokens.

    def _must_wait(self, source: str) -> bool:
        wrong = self._wrong.get(source)
        return wrong is not None and (bool(wrong.turn) or wrong.delayed >= self._delayed_at_a_time)

    async def _wait_for_turn(self, source: str) -> None:
        if (wrong := self._wrong.get(source)) is not None and wrong.turn:
            await wrong.turn.park()  # behind those who have come before
        while (wrong := self._wrong.get(source)) is not None and wrong.delayed >= self._delayed_at_a_time:
            await wrong.turn.park()

    def _pass_turn(self, source: str) -> None:
        if (wrong := self._wrong.get(source)) is not None:
            wrong.turn.unpark()

    def _wrong_token(self, place: Place) -> float:
        wrong = self._note(place.source, trio.current_time())
        wrong.delayed += 1
        place.is_delayed = place.is_busy = True
        return min(FIRST_DELAY * 2.0 ** min(wrong.count - 1, 16), LONGEST_DELAY)

    async def _wait(self, place: Place, seconds: float) -> None:
        wrong = self._wrong[place.source]
        try:
            await trio.sleep(seconds)
        finally:
            wrong.delayed -= 1
            wrong.turn.unpark()
            place.is_delayed = place.is_busy = False
            place.leave()

    def _note(self, source: str, now: float) -> _Wrong:
        wrong = self._wrong.pop(source, None)
        if wrong is None:
            wrong = _Wrong()
            self._forget(now)
        elif now - wrong.last_at > FORGET_AFTER:
            wrong.count = 0
        self._wrong[source] = wrong
        wrong.last_at = now
        wrong.count += 1
        wrong.unreported += 1
        if wrong.count == 1 and self._lines < REPORTS:
            self._report_of(source, wrong)
        self._report_wanted.unpark()
        return wrong

    def _forget(self, now: float) -> None:
        """Forget who was quiet for long, and one more if there are too many; but nobody that must wait."""
        for source, wrong in [*self._wrong.items()]:
            if now - wrong.last_at <= FORGET_AFTER and len(self._wrong) < ADDRESSES:
                return
            if not wrong.delayed and not wrong.turn:
                del self._wrong[source]

    # What the log says.

    def unaccepted(self, error: OSError) -> None:
        """A connection could not be accepted, most likely because all descriptors are in use: make room."""
        if self._unaccepted == 0:
            self._logger.error(
                "cannot accept connections: %s (raise the limit: ulimit -n, LimitNOFILE=)",
                error.strerror or error,
            )
        self._unaccepted += 1
        self._report_wanted.unpark()
        for _ in range(1 + self._taken // 4):
            self._free_one()

    async def report_forever(self) -> None:
        """Say from time to time what there was more than one line for."""
        while True:
            await self._report_wanted.park()
            await trio.sleep(REPORT_INTERVAL)
            self._report()

    def _report(self) -> None:
        self._lines = 0
        unsaid = [(source, wrong) for source, wrong in self._wrong.items() if wrong.unreported]
        for source, wrong in unsaid[:REPORTS]:
            self._report_of(source, wrong)
        if rest := unsaid[REPORTS:]:
            count = sum(wrong.unreported for _, wrong in rest)
            self._logger.warning("wrong tokens, from %d more addresses: %d times", len(rest), count)
            for _, wrong in rest:
                wrong.unreported = 0
        if self._unaccepted > 1:
            self._logger.error("connections could not be accepted %d times", self._unaccepted)
        self._unaccepted = 0

    def _report_of(self, source: str, wrong: _Wrong) -> None:
        times = "" if wrong.count == 1 else f": {wrong.unreported} times more, {wrong.count} in all"
        self._logger.warning("wrong token, from %s%s", source, times)
        wrong.unreported = 0
        self._lines += 1
