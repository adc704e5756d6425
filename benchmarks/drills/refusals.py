"""The drills about a MetaHub that says no: it is back with another token, or somebody else wants a hub's name.

A hub lives on with its agents whatever is said to it, and is back when it may be.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial

import trio
from attrs import define, field

from benchmarks.drills.family import agents_left
from benchmarks.drills.findings import Drill, DrillFailed, Findings, Time
from benchmarks.drills.ledger import DONE, Ledger, answer_to
from benchmarks.drills.processes import Site, until
from benchmarks.drills.proxy import open_proxy
from loopal_cluster import Client
from loopal_cluster.config import Limits
from loopal_cluster.core.parties import PROTOCOL
from loopal_cluster.errors import ConnectionLost, ErrorCode
from loopal_cluster.frames import Failure, Request, Response
from loopal_cluster.links.listeners import dial
from loopal_cluster.messages import RegisterHub

__all__ = ["DRILLS"]

WRONG = 10.0
"""Seconds for which the MetaHub has another token."""
LONGEST_PAUSE = 10.0
"""A hub that is refused dials again after at most so long (``Timeouts.refused_delay_max``)."""
SLACK = 1.0
SILENCE = 5.0
"""A hub whose name another one wants has so long to show that it lives (``Timeouts.claim_timeout``)."""
CUTS = 20
BETWEEN_CUTS = 1.0
LONG_CUT = 3.0
"""Longer than a hub's place is kept: then the name is anybody's."""
SETTLE_TIMEOUT = 5.0
ANSWER_TIMEOUT = 40.0


async def token_changed(site: Site) -> Findings:
    """Start the MetaHub with another token, work on each hub meanwhile, and start it with the right one."""
    meta_hub = await site.start_cluster("hub-a", "hub-b")
    wrong = site.directory / "wrong-token"
    wrong.write_text("another\n")
    ledger = Ledger()
    async with site.connect("hub-a") as near, site.connect("hub-b") as far:
        for client in (near, far):
            await client.spawn("desk", name="desk")
        await _ask_across(near)
        await meta_hub.kill()
        meta_hub = await site.start_meta_hub("--token-file", str(wrong))
        changed_at = trio.current_time()
        for name in ("hub-a", "hub-b"):
            await site.programs[name].says("the MetaHub refuses this hub: invalid token")
        detected = trio.current_time() - changed_at
        site.say(f"the MetaHub is back with another token; both hubs say so after {detected:.3f} s")
        with trio.move_on_after(WRONG):
            await _work(ledger, near, far)
        await meta_hub.kill()
        await site.start_meta_hub()
        back_at = trio.current_time()
        with trio.fail_after(ANSWER_TIMEOUT):
            await _until_done(partial(_ask_across, near))
        works = trio.current_time() - back_at
        site.say(f"the token is right again; an ask across hubs was answered after {works:.3f} s")
        _check_alive(site)
        left = await agents_left(near, wanted=1) + await agents_left(far, wanted=1)
    return _findings(
        ledger,
        site,
        left=left,
        detection=Time(
            "from the MetaHub's being back until both hubs have said that it refuses them", detected, 5.0
        ),
        recovery=Time(
            "from the right token until a hub reaches the other's agent", works, LONGEST_PAUSE + SLACK
        ),
    )


async def name_contested(site: Site) -> Findings:
    """Reset a hub's connection again and again while somebody with the token wants its name."""
    await site.start_meta_hub()
    ledger = Ledger()
    async with open_proxy(site.address) as proxy:
        await site.start_hub("hub-a")
        await site.start_hub("hub-b", join=proxy.address)
        async with (
            site.connect("hub-a") as near,
            site.connect("hub-b") as far,
            open_contestant(site) as contestant,
        ):
            await near.spawn("desk", name="desk")
            await far.spawn("desk", name="desk")
            await until(lambda: contestant.refused > 0)
            longest = 0.0
            for _ in range(CUTS):
                proxy.reset()
                cut_at = trio.current_time()
                await _until_done(partial(_ask_across, near))
                longest = max(longest, trio.current_time() - cut_at)
                with trio.move_on_after(BETWEEN_CUTS):
                    await _work(ledger, near, far)
            site.say(f"{CUTS} resets; the longest took {longest:.3f} s; refused {contestant.refused} times")
            if contestant.taken:
                raise DrillFailed("the name was given away while the hub's place was kept")
            proxy.refuse()
            with trio.move_on_after(LONG_CUT):
                await _work(ledger, near, far)
            if not contestant.taken:
                raise DrillFailed("the name was not free after the hub had been lost")
            proxy.accept()
            contestant.stop()
            gone_at = trio.current_time()
            with trio.fail_after(ANSWER_TIMEOUT):
                await _until_done(partial(_ask_across, near))
            back = trio.current_time() - gone_at
            site.say(f"the other one is gone; the hub is back after {back:.3f} s")
            _check_alive(site)
            left = await agents_left(near, wanted=1) + await agents_left(far, wanted=1)
    return _findings(
        ledger,
        site,
        left=left,
        recovery=Time("the longest from a reset until the hub's agent answers again", longest, 1.0),
        times=(Time("from the other one's end until the hub is back", back, LONGEST_PAUSE + SLACK),),
    )


async def power_cut(site: Site) -> Findings:
    """Take a hub away without a FIN, and start it again: nobody has told the MetaHub that the old one is gone."""
    await site.start_meta_hub()
    async with open_proxy(site.address) as proxy:
        await site.start_hub("hub-a")
        await site.start_hub("hub-b", join=proxy.address)
        proxy.cut()
        await site.programs["hub-b"].kill()
        began_at = trio.current_time()
        await site.start_hub("hub-b")
        joined = trio.current_time() - began_at
        site.say(f"the hub has its own name again after {joined:.3f} s")
        async with site.connect("hub-a") as near, site.connect("hub-b") as far:
            await far.spawn("desk", name="desk")
            with trio.fail_after(ANSWER_TIMEOUT):
                await _until_done(partial(_ask_across, near))
            left = await agents_left(far, wanted=1)
    meaning = "from the start of the hub until it is in the cluster under its own name"
    return Findings(recovery=Time(meaning, joined, SILENCE + 4.0), left=left)


def _findings(
    ledger: Ledger,
    site: Site,
    *,
    left: int,
    recovery: Time,
    detection: Time | None = None,
    times: tuple[Time, ...] = (),
) -> Findings:
    if others := ledger.counts().keys() - {DONE}:
        raise DrillFailed(f"work on the hub itself was answered with {', '.join(others)}")
    balance = ledger.balance(site.journal())
    return Findings(detection, recovery, times, balance.lost, balance.doubled, left, ledger.counts())


async def _work(ledger: Ledger, *clients: Client) -> None:
    """Ask the desk of each client's own hub, one time after the other."""
    while True:
        for client in clients:
            key = f"local-{len(ledger.answers)}"
            with trio.CancelScope(shield=True), trio.move_on_after(SETTLE_TIMEOUT):
                await ledger.ask(key, partial(client.ask, "desk", f"0 {key}"))
        await trio.sleep(0.05)


async def _ask_across(client: Client) -> None:
    await client.ask("hub-b/desk", "0 probe")


async def _until_done(request: Callable[[], Awaitable[object]]) -> None:
    while await answer_to(request) != DONE:  # noqa: ASYNC110
        await trio.sleep(0.02)


def _check_alive(site: Site) -> None:
    for program in site.programs.values():
        if program.process.poll() is not None:
            raise DrillFailed(f"{program.name} has ended")


# Somebody else who wants the name.


@define(eq=False)
class Contestant:
    """Has the token, and asks for the name of ``hub-b`` all the time. Made by ``open_contestant``."""

    refused: int = 0
    taken: int = 0
    """So often the name was given to it."""
    _scope: trio.CancelScope = field(factory=trio.CancelScope)

    def stop(self) -> None:
        """Want it no longer."""
        self._scope.cancel()

    async def want(self, site: Site) -> None:
        """Register again and again."""
        with self._scope:
            while True:
                with suppress(ConnectionLost, trio.EndOfChannel, trio.BrokenResourceError):
                    await self._try(site)
                await trio.sleep(0.01)

    async def _try(self, site: Site) -> None:
        channel = await dial(site.address, Limits().line_bytes)
        async with channel:
            message = RegisterHub("hub-b", site.token, protocol=PROTOCOL, instance="another")
            channel.send_nowait([Request(1, message)])
            while True:
                for frame in await channel.receive():
                    match frame:
                        case Failure():
                            self.refused += 1
                            return
                        case Response():
                            self.taken += 1
                        case Request(id_):  # it lives
                            channel.send_nowait([Failure(id_, ErrorCode.METHOD_NOT_FOUND, "no")])
                        case _:
                            pass


@asynccontextmanager
async def open_contestant(site: Site) -> AsyncIterator[Contestant]:
    """Somebody who wants the name of ``hub-b`` for the length of the block."""
    contestant = Contestant()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(contestant.want, site)
        yield contestant
        contestant.stop()


DRILLS = (
    Drill(
        "token-changed",
        "the MetaHub is back with another token for 10 s, and then with the right one",
        token_changed,
    ),
    Drill(
        "power-cut",
        "a hub is gone without a FIN, and is started again under its name",
        power_cut,
    ),
    Drill(
        "name-contested",
        "a hub's connection is reset 20 times while somebody with the token wants its name",
        name_contested,
    ),
)
