"""Connections that have not said who they are, and those who guess. Time is virtual; nothing is really sent."""

from __future__ import annotations

import logging
import os
import socket
from contextlib import ExitStack, asynccontextmanager, suppress

import pytest
import trio

from loopal_cluster import Client, Limits, Unauthorized, connect, open_meta_hub
from loopal_cluster.links import descriptors
from loopal_cluster.links.admission import (
    DELAYED_AT_A_TIME,
    FIRST_DELAY,
    FORGET_AFTER,
    LONGEST_DELAY,
    REPORT_INTERVAL,
    REPORTS,
    Admission,
)
from loopal_cluster.links.background import open_background
from loopal_cluster.links.listeners import accept_streams
from loopal_cluster.links.sockets import source_of

logger = logging.getLogger("test.admission")
TOKEN = "the-token"


class Door:
    """Connections by name, and which of them have been cut."""

    def __init__(self, places: int) -> None:
        self.admission = Admission(places, logger)
        self.cut: list[str] = []
        self.stack = ExitStack()

    def come(self, name: str, source: str = "10.0.0.1"):
        return self.stack.enter_context(self.admission.take_place(source, lambda: self.cut.append(name)))


async def guess(place) -> float:
    """Be wrong; return after how many seconds one is told so."""
    begun_at = trio.current_time()
    async with place.turn():
        delay = place.wrong_token()
    await place.wait(delay)
    return trio.current_time() - begun_at


# Places.


async def test_the_oldest_makes_room_for_the_newest():
    door = Door(places=2)

    for name in "abcd":
        door.come(name)

    assert door.cut == ["a", "b"]


async def test_whoever_has_registered_makes_room_for_nobody():
    door = Door(places=2)
    door.come("member").leave()

    for name in "abcd":
        door.come(name)

    assert door.cut == ["a", "b"]


async def test_the_address_that_has_most_makes_room():
    door = Door(places=4)
    door.come("alone", "10.0.0.2")

    for name in "abcdef":
        door.come(name, "10.0.0.1")

    assert door.cut == ["a", "b", "c"]


async def test_a_place_is_free_again_when_its_connection_ends():
    door = Door(places=1)
    with door.admission.take_place("10.0.0.1", lambda: door.cut.append("a")):
        pass

    door.come("b")

    assert door.cut == []


# Wrong tokens.


async def test_each_wrong_token_of_an_address_is_answered_later_than_the_one_before(autojump_clock):
    door = Door(places=100)

    delays = [round(await guess(door.come("x")), 6) for _ in range(7)]

    assert delays == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]


@pytest.mark.limit(100)
async def test_an_address_that_was_quiet_for_long_begins_anew(autojump_clock):
    door = Door(places=100)
    for _ in range(7):
        await guess(door.come("x"))

    await trio.sleep(FORGET_AFTER + 1)

    assert await guess(door.come("x")) == pytest.approx(FIRST_DELAY)


async def test_other_addresses_do_not_wait_for_those_who_guess(autojump_clock):
    door = Door(places=100)
    for _ in range(7):
        await guess(door.come("x"))

    assert await guess(door.come("y", "10.0.0.2")) == pytest.approx(FIRST_DELAY)


async def test_whoever_guesses_at_many_connections_has_32_guesses_a_second(autojump_clock):
    door = Door(places=1024)
    guesses = 0

    async def guess_on() -> None:
        nonlocal guesses
        while True:
            await guess(door.come("x"))
            guesses += 1

    async with open_background() as nursery:
        for _ in range(1000):
            nursery.start_soon(guess_on)
        await trio.sleep(10)
        guesses = 0
        await trio.sleep(20)

    # They are told all at a time: one such batch more or less falls between the two instants.
    assert guesses / 20 == pytest.approx(DELAYED_AT_A_TIME / LONGEST_DELAY, rel=0.11)


async def test_hanging_up_does_not_spare_anybody_the_delay(autojump_clock):
    door = Door(places=4)  # one may be delayed at a time
    async with trio.open_nursery() as nursery:
        with door.admission.take_place("10.0.0.1", lambda: None) as place:
            async with place.turn():
                nursery.start_soon(place.wait, place.wrong_token())
        begun_at = trio.current_time()

        async with door.come("x").turn():
            assert trio.current_time() - begun_at == pytest.approx(FIRST_DELAY)


async def test_a_right_token_is_not_delayed_by_those_behind_the_same_nat_that_are_wrong(autojump_clock):
    door = Door(places=1024)
    async with open_background() as nursery:
        for _ in range(DELAYED_AT_A_TIME - 1):
            nursery.start_soon(guess, door.come("x"))
        await trio.testing.wait_all_tasks_blocked()
        begun_at = trio.current_time()

        async with door.come("right").turn():
            pass

        assert trio.current_time() == begun_at


async def test_a_right_token_waits_no_longer_than_those_before_it(autojump_clock):
    door = Door(places=1024)
    async with open_background() as nursery:
        for _ in range(DELAYED_AT_A_TIME * 3):
            nursery.start_soon(guess, door.come("x"))
        await trio.testing.wait_all_tasks_blocked()
        begun_at = trio.current_time()

        async with door.come("right").turn():
            pass

        assert trio.current_time() - begun_at <= 3 * LONGEST_DELAY


async def test_after_a_right_token_the_next_one_has_its_turn(autojump_clock):
    door = Door(places=4)  # one may be delayed at a time
    heard = []

    async def be_right(name: str) -> None:
        async with door.come(name).turn():
            heard.append(name)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(guess, door.come("x"))
        await trio.testing.wait_all_tasks_blocked()
        for name in "abc":
            nursery.start_soon(be_right, name)
            await trio.testing.wait_all_tasks_blocked()

    assert heard == ["a", "b", "c"]


# What the log says.


def lines(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records]


@pytest.mark.limit(200)
async def test_the_log_says_who_guesses_and_how_often(autojump_clock, caplog):
    door = Door(places=1024)
    async with open_background() as nursery:
        nursery.start_soon(door.admission.report_forever)
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(30):
            nursery.start_soon(guess, door.come("x"))
        await trio.sleep(REPORT_INTERVAL * 10)

    assert lines(caplog) == [
        "wrong token, from 10.0.0.1",
        "wrong token, from 10.0.0.1: 29 times more, 30 in all",
    ]


@pytest.mark.limit(200)
async def test_a_thousand_addresses_that_guess_are_a_few_lines(autojump_clock, caplog):
    door = Door(places=2048)
    async with open_background() as nursery:
        nursery.start_soon(door.admission.report_forever)
        await trio.testing.wait_all_tasks_blocked()
        for number in range(1000):
            nursery.start_soon(guess, door.come("x", f"10.0.{number // 250}.{number % 250}"))
        await trio.sleep(REPORT_INTERVAL * 10)

    assert len(lines(caplog)) == 2 * REPORTS + 1
    assert lines(caplog)[-1] == "wrong tokens, from 980 more addresses: 980 times"


# Descriptors.


class Full:
    """A listener that has no descriptor left for so many times."""

    def __init__(self, times: int) -> None:
        self.times = times

    async def accept(self):
        await trio.lowlevel.checkpoint()
        if self.times == 0:
            await trio.sleep_forever()
        self.times -= 1
        raise OSError(24, "Too many open files")


async def test_a_server_without_descriptors_says_so_in_a_line_and_goes_on(autojump_clock, caplog):
    door = Door(places=8)
    for name in "abcdefgh":
        door.come(name)
    async with open_background() as nursery:
        nursery.start_soon(door.admission.report_forever)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(accept_streams, Full(20), None, nursery, door.admission.unaccepted)  # type: ignore[arg-type]
        await trio.sleep(50)

    assert lines(caplog) == [
        "cannot accept connections: Too many open files (raise the limit: ulimit -n, LimitNOFILE=)",
        "connections could not be accepted 20 times",
    ]
    assert door.cut == [*"abcdefgh"]


# The whole way: a MetaHub, on a real socket.


@asynccontextmanager
async def meta_hub_with(places: int):
    async with open_meta_hub(token=TOKEN, limits=Limits(unauthenticated=places)) as meta_hub:
        yield meta_hub


@asynccontextmanager
async def silent(address: str, count: int):
    """So many connections that say nothing."""
    host, port = address.rsplit(":", 1)
    async with open_background():
        streams = [await trio.open_tcp_stream(host, int(port)) for _ in range(count)]
        try:
            yield streams
        finally:
            for stream in streams:
                await trio.aclose_forcefully(stream)


async def test_silent_connections_keep_nobody_out():
    async with meta_hub_with(places=8) as meta_hub, connect(meta_hub.address, token=TOKEN) as member:
        async with silent(meta_hub.address, 50) as streams:
            async with connect(meta_hub.address, token=TOKEN) as late:
                assert await late.list_hubs() == ()
                assert await member.list_hubs() == ()
            assert await streams[0].receive_some() == b""


async def test_whoever_guesses_is_told_so_late_and_keeps_nobody_out():
    async with meta_hub_with(places=8) as meta_hub:
        begun_at = trio.current_time()
        with pytest.raises(Unauthorized):
            async with connect(meta_hub.address, token="guess"):
                pass
        assert trio.current_time() - begun_at >= FIRST_DELAY

        async with connect(meta_hub.address, token=TOKEN) as client:
            assert isinstance(client, Client)


async def test_whoever_says_much_before_it_registers_is_cut():
    async with meta_hub_with(places=8) as meta_hub:
        host, port = meta_hub.address.rsplit(":", 1)
        async with await trio.open_tcp_stream(host, int(port)) as stream:
            await stream.send_all(b'{"id":1,"method":"hub/status"}\n' * 1000)
            heard = b""
            with suppress(trio.BrokenResourceError):  # what it has not read of ours is a reset
                async for data in stream:
                    heard += data
    assert 0 < heard.count(b"\n") <= 64


async def test_three_hundred_that_come_at_one_time_are_all_let_in():
    clients = 0

    async def be_client(address: str) -> None:
        nonlocal clients
        async with connect(address, token=TOKEN):
            clients += 1

    async with open_meta_hub(token=TOKEN) as meta_hub, trio.open_nursery() as nursery:
        for _ in range(300):
            nursery.start_soon(be_client, meta_hub.address)
    assert clients == 300


async def test_an_address_is_said_without_its_port(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
        accepted, _ = server.accept()
        with accepted:
            assert source_of(accepted) == "127.0.0.1"
    a, b = socket.socketpair()
    with a, b:
        assert source_of(a) == "this machine's socket"


def test_a_program_that_has_not_raised_its_limit_passes_it_on():
    assert descriptors.with_first_limit(["true"]) == ["true"]
    assert descriptors.share_of_descriptors(10) == 10
    assert descriptors.share_of_descriptors(10**9) <= os.sysconf("SC_OPEN_MAX")
