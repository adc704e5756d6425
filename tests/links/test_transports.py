"""Every transport keeps the same promises: one suite for all of them, and the unix socket's own."""

from __future__ import annotations

import os
import socket
import stat
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import trio
import trio.testing

from loopal_cluster import ConfigError
from loopal_cluster.errors import ErrorCode
from loopal_cluster.frames import Notification, Rejected, Request
from loopal_cluster.links.channels import SocketChannel, StreamChannel
from loopal_cluster.links.listeners import accept_connections, address_of, dial, open_listeners
from loopal_cluster.messages import AgentEvent, Opaque, Status
from loopal_cluster.testing import byte_pair, record_pair

LINE_BYTES = 1 << 20


def socket_pair(buffer_bytes: int | None = None):
    """Two connected ends of a real socket, its kernel buffers as small as the kernel lets them be."""
    ends = socket.socketpair()
    if buffer_bytes is not None:
        for end in ends:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer_bytes)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
    here, there = ends
    return SocketChannel(here, LINE_BYTES), SocketChannel(there, LINE_BYTES)


def narrow_pair():
    return socket_pair(1)


def pipe_pair():
    """What a hub and its child process have between them."""
    (read_a, write_a), (read_b, write_b) = os.pipe(), os.pipe()
    fd = trio.lowlevel.FdStream
    here = StreamChannel(fd(read_a), fd(write_b), LINE_BYTES)
    there = StreamChannel(fd(read_b), fd(write_a), LINE_BYTES)
    return here, there


BYTES = [socket_pair, narrow_pair, pipe_pair, byte_pair]
every_transport = pytest.mark.parametrize("pair", [record_pair, *BYTES])
every_byte_transport = pytest.mark.parametrize("pair", BYTES)
real_transports = pytest.mark.parametrize("pair", [socket_pair, narrow_pair, pipe_pair])


@asynccontextmanager
async def opened(pair):
    here, there = pair()
    try:
        yield here, there
    finally:
        await trio.aclose_forcefully(here)
        await trio.aclose_forcefully(there)


def beat(number: int, padding: int = 0) -> Notification:
    return Notification(AgentEvent(f"a-{number}", Opaque(b'"%b"' % (b"x" * padding))))


async def send_all(channel, frames) -> None:
    if not channel.send_nowait(frames):
        await channel.drained()


async def receive_counts(channel, until: int) -> list[int]:
    counts: list[int] = []
    async for frames in channel:
        counts += [int(frame.message.agent_name[2:]) for frame in frames]
        if len(counts) >= until:
            break
    return counts


@every_transport
async def test_frames_arrive_in_the_order_they_were_sent(pair):
    async with opened(pair) as (here, there):
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def send() -> None:
                for start in range(0, 3000, 100):
                    await send_all(here, [beat(n) for n in range(start, start + 100)])

            assert await receive_counts(there, 3000) == list(range(3000))


@every_transport
async def test_both_directions_are_independent(pair):
    async with opened(pair) as (here, there):
        async with trio.open_nursery() as nursery:
            for channel in (here, there):
                nursery.start_soon(send_all, channel, [beat(n, 200) for n in range(500)])

            assert await receive_counts(there, 500) == list(range(500))
            assert await receive_counts(here, 500) == list(range(500))


@every_transport
async def test_what_was_sent_before_a_close_is_received_before_the_end(pair):
    async with opened(pair) as (here, there):
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def send() -> None:
                await send_all(here, [beat(1), beat(2), beat(3)])
                await here.aclose()

            assert await receive_counts(there, 4) == [1, 2, 3]


@every_transport
async def test_a_receiver_is_told_that_the_other_side_has_closed(pair):
    async with opened(pair) as (here, there):
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def receive() -> None:
                with pytest.raises((trio.EndOfChannel, trio.BrokenResourceError)):
                    await there.receive()

            await trio.testing.wait_all_tasks_blocked()
            await here.aclose()


@every_transport
async def test_a_receiver_is_told_that_its_own_side_has_been_closed(pair):
    async with opened(pair) as (here, _there):
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def receive() -> None:
                with pytest.raises(trio.ClosedResourceError):
                    await here.receive()

            await trio.testing.wait_all_tasks_blocked()
            await here.aclose()


@every_transport
async def test_receiving_from_a_closed_channel_says_so(pair):
    async with opened(pair) as (here, _there):
        await here.aclose()

        with pytest.raises(trio.ClosedResourceError):
            await here.receive()


@every_transport
async def test_a_channel_may_be_closed_twice(pair):
    async with opened(pair) as (here, _there):
        await here.aclose()

        await here.aclose()


def too_much():
    """More than any of the transports takes without being read."""
    return [beat(n, 2000) for n in range(5000)]


@real_transports
async def test_drained_ends_when_the_other_side_closes(pair):
    async with opened(pair) as (here, there):
        assert here.send_nowait(too_much()) is False
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def drain() -> None:
                # Either is fine; the reader is told of the broken connection in any case.
                with suppress(trio.BrokenResourceError):
                    await here.drained()

            await trio.testing.wait_all_tasks_blocked()
            await there.aclose()

        with pytest.raises((trio.EndOfChannel, trio.BrokenResourceError)):
            await here.receive()


@pytest.mark.parametrize("pair", [record_pair, socket_pair, narrow_pair, pipe_pair])
async def test_drained_ends_when_its_own_side_closes(pair):
    async with opened(pair) as (here, _there):
        assert here.send_nowait(too_much()) is False
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def drain() -> None:
                with pytest.raises((trio.ClosedResourceError, trio.BrokenResourceError)):
                    await here.drained()

            await trio.testing.wait_all_tasks_blocked()
            await here.aclose()


@every_transport
async def test_sending_on_a_closed_channel_raises_nothing(pair):
    async with opened(pair) as (here, _there):
        await here.aclose()

        here.send_nowait([beat(1)])


@every_transport
async def test_sending_to_a_closed_peer_raises_nothing_and_the_receiver_is_told(pair):
    async with opened(pair) as (here, there):
        await there.aclose()

        for _ in range(3):
            try:
                await send_all(here, [beat(1)])
            except trio.BrokenResourceError:
                break
        with pytest.raises((trio.EndOfChannel, trio.BrokenResourceError)):
            await here.receive()


@every_byte_transport
async def test_large_frames_pass_in_pieces(pair):
    async with opened(pair) as (here, there):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_all, here, [beat(n, 300_000) for n in range(10)])

            assert await receive_counts(there, 10) == list(range(10))


@every_byte_transport
async def test_a_frame_longer_than_the_limit_is_refused_and_the_next_one_read(pair):
    async with opened(pair) as (here, there):
        there.limit_lines(1000)
        long = beat(1, 5000)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_all, here, [Request(7, Status()), long, beat(2)])
            received: list[Any] = []
            while len(received) < 3:
                received += await there.receive()

        assert received[0] == Request(7, Status())
        assert isinstance(received[1], Rejected)
        assert received[1].code is ErrorCode.OVERSIZED
        assert received[2] == beat(2)


async def test_a_line_that_only_the_end_of_the_stream_ends_still_counts():
    raw, ours = socket.socketpair()
    channel = SocketChannel(ours, LINE_BYTES)
    raw.sendall(b'{"id":1,"method":"hub/status"}')
    raw.close()

    assert await channel.receive() == [Request(1, Status())]
    with pytest.raises(trio.EndOfChannel):
        await channel.receive()
    await channel.aclose()


async def test_a_line_may_come_byte_by_byte():
    raw, ours = socket.socketpair()
    channel = SocketChannel(ours, LINE_BYTES)
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def trickle() -> None:
            for byte in b'{"id":1,"method":"hub/status"}\r\n\n':
                raw.send(bytes([byte]))
                await trio.lowlevel.checkpoint()

        assert await channel.receive() == [Request(1, Status())]
    raw.close()
    await channel.aclose()


async def test_a_reset_is_a_broken_connection():
    async with listening("127.0.0.1:0") as (address, accepted):
        host, _, port = address.rpartition(":")
        client = socket.create_connection((host, int(port)))
        channel = await accepted.receive()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        client.sendall(b'{"id":1,"meth')
        client.close()

        with pytest.raises(trio.BrokenResourceError):
            await channel.receive()
        await channel.aclose()


# Listeners.


@asynccontextmanager
async def listening(address):
    """Listen, and give what was accepted."""
    put, accepted = trio.open_memory_channel(10)

    async def serve(channel):
        put.send_nowait(channel)

    async with open_listeners([address]) as listeners, trio.open_nursery() as nursery:
        nursery.start_soon(accept_connections, listeners, serve, nursery, LINE_BYTES)
        yield address_of(listeners[0]), accepted
        nursery.cancel_scope.cancel()
    put.close()
    async for channel in accepted:
        await channel.aclose()


async def cannot_listen(*addresses):
    async with open_listeners(addresses):
        raise AssertionError("it listens")


async def test_a_unix_socket_is_for_its_owner_only_and_carries_frames(tmp_path):
    path = tmp_path / "hub.sock"
    async with listening(f"unix:{path}") as (_, accepted):
        here = await dial(f"unix:{path}", LINE_BYTES)
        there = await accepted.receive()
        here.send_nowait([Request(1, Status())])

        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert await there.receive() == [Request(1, Status())]
        await here.aclose()
        await there.aclose()


async def test_a_socket_that_nobody_listens_on_any_more_is_replaced(tmp_path):
    path = tmp_path / "hub.sock"
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(path))
    dead.close()

    async with listening(f"unix:{path}"):
        await (await dial(f"unix:{path}", LINE_BYTES)).aclose()


async def test_a_socket_that_somebody_listens_on_is_left_alone(tmp_path):
    path = tmp_path / "hub.sock"
    async with listening(f"unix:{path}"):
        with pytest.raises(ConfigError, match="somebody else does"):
            await cannot_listen(f"unix:{path}")

        await (await dial(f"unix:{path}", LINE_BYTES)).aclose()


async def test_a_file_in_the_place_of_a_socket_is_left_alone(tmp_path):
    path = tmp_path / "hub.sock"
    path.write_text("precious")

    with pytest.raises(ConfigError, match="there is a file of that name"):
        await cannot_listen(f"unix:{path}")

    assert path.read_text() == "precious"


async def test_a_link_to_a_file_in_the_place_of_a_socket_is_left_alone(tmp_path):
    (tmp_path / "target").write_text("precious")
    path = tmp_path / "hub.sock"
    path.symlink_to(tmp_path / "target")

    with pytest.raises(ConfigError):
        await cannot_listen(f"unix:{path}")

    assert path.is_symlink()


@pytest.mark.parametrize("path", ["missing/hub.sock", "x" * 200])
async def test_a_unix_socket_that_cannot_be_made_is_one_clear_line(tmp_path, path):
    with pytest.raises(ConfigError, match="cannot listen on unix:") as error:
        await cannot_listen(f"unix:{tmp_path / path}")

    assert "\n" not in str(error.value)


async def test_a_unix_socket_is_removed_when_it_is_not_listened_on_any_more(tmp_path):
    path = tmp_path / "hub.sock"
    async with open_listeners(["127.0.0.1:0", f"unix:{path}"]):
        assert path.exists()

    assert not path.exists()


async def test_a_unix_socket_that_somebody_has_removed_already_is_no_fault(tmp_path):
    path = tmp_path / "hub.sock"
    async with open_listeners([f"unix:{path}"]):
        path.unlink()


async def test_what_was_listened_on_before_an_address_that_cannot_be_is_given_back(tmp_path):
    path = tmp_path / "hub.sock"

    with pytest.raises(ConfigError):
        await cannot_listen(f"unix:{path}", "nonsense")

    assert not path.exists()


async def test_a_port_in_use_is_one_clear_line():
    async with listening("127.0.0.1:0") as (address, _):
        with pytest.raises(ConfigError, match="the port is in use"):
            await cannot_listen(address)


async def test_a_socket_that_is_closed_with_something_unsent_says_so_to_whoever_waits_for_it():
    ours, theirs = socket.socketpair()
    with theirs:
        channel = SocketChannel(ours, 4096)
        while channel.send_nowait([beat(1, 65536)]):
            pass
        await channel.aclose()

        with pytest.raises(trio.ClosedResourceError):
            await channel.drained()
