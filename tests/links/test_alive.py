"""Both ends of a client's connection find out when nobody is at the other one any more."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
import trio
import trio.testing
from attrs import define

from loopal_cluster import (
    AgentContext,
    Client,
    ConnectionLost,
    Hub,
    Limits,
    MetaHub,
    open_hub,
    open_meta_hub,
)
from loopal_cluster.agents.inbox import Inbox
from loopal_cluster.agents.member import open_member
from loopal_cluster.frames import Response
from loopal_cluster.links import alive
from loopal_cluster.links.channels import FrameChannel, SocketChannel, StreamChannel, record_pair
from loopal_cluster.links.client import open_client
from loopal_cluster.links.listeners import dial
from loopal_cluster.messages import Protocol, Role, Welcome
from loopal_cluster.testing.channels import byte_pair
from loopal_cluster.tools.mailbox import Mailbox

pytestmark = pytest.mark.limit(10_000)

MINUTE = 60.0


async def nap(ctx: AgentContext, prompt: str) -> str:
    await trio.sleep_forever()
    raise AssertionError


async def count(ctx: AgentContext, prompt: str) -> str:
    return str(len(prompt))


@define(eq=False)
class Flow:
    """A connection through a network that can drop what is on its way, and is slow if it is told to be."""

    near: FrameChannel
    far: FrameChannel
    dropped: bool = False
    chunk_time: float = 0.0

    async def carry(self, source: trio.abc.ReceiveStream, sink: trio.abc.SendStream) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while data := await source.receive_some(4096):
                await trio.sleep(self.chunk_time)
                if not self.dropped:
                    await sink.send_all(data)
        if not self.dropped:
            await sink.aclose()


@asynccontextmanager
async def open_flow() -> AsyncIterator[Flow]:
    near, here = trio.testing.lockstep_stream_pair()
    far, there = trio.testing.lockstep_stream_pair()
    size = Limits().line_bytes
    async with trio.open_nursery() as nursery:
        flow = Flow(StreamChannel(near, near, size), StreamChannel(far, far, size))
        nursery.start_soon(flow.carry, here, there)
        nursery.start_soon(flow.carry, there, here)
        yield flow
        nursery.cancel_scope.cancel()


@pytest.fixture(params=["hub", "meta hub"])
async def server(request):
    if request.param == "hub":
        async with open_hub("hub-a", agents={"nap": nap, "count": count}) as hub:
            yield hub
    else:
        async with (
            open_meta_hub(None) as meta_hub,
            open_hub(
                "hub-a",
                agents={"nap": nap, "count": count},
                join=lambda: attached(meta_hub),
                meta_token=meta_hub.token,
            ),
        ):
            yield meta_hub


async def attached(meta_hub: MetaHub) -> FrameChannel:
    ours, theirs = record_pair()
    meta_hub.attach(theirs)
    return ours


@asynccontextmanager
async def open_both(server: Hub | MetaHub) -> AsyncIterator[tuple[Flow, Client]]:
    """A client of the server over a flow."""
    async with open_flow() as flow:
        server.attach(flow.far)
        async with open_client(flow.near, name="ann", token=server.token) as client:
            yield flow, client


async def test_a_client_gives_up_on_who_does_not_answer_its_registration(autojump_clock):
    ours, _theirs = record_pair()
    with pytest.raises(ConnectionLost, match="no answer to the registration within 10 s"):
        async with open_client(ours, name="ann"):
            pass

    assert trio.current_time() == pytest.approx(10, abs=0.1)


async def test_a_member_gives_up_on_who_does_not_answer_its_registration(autojump_clock):
    ours, _theirs = record_pair()
    inbox = Inbox(8)
    with pytest.raises(ConnectionLost, match="no answer to the registration within 10 s"):
        async with open_member(ours, name="ann", token="", inbox=inbox, mailbox=Mailbox(inbox)):
            pass


async def test_who_waits_over_a_flow_that_was_dropped_is_told_within_a_minute(server, autojump_clock):
    async with open_both(server) as (flow, client):
        agent = await client.spawn("nap", hub="hub-a")
        await trio.sleep(100)
        flow.dropped, dropped_at = True, trio.current_time()

        with pytest.raises(ConnectionLost, match="nothing has come from the other side for 40 s"):
            await agent.outcome()

        assert trio.current_time() - dropped_at < MINUTE


async def test_who_watches_over_a_flow_that_was_dropped_is_told_why_no_more_comes(server, autojump_clock):
    async with open_both(server) as (flow, client):
        events = await client.subscribe()
        flow.dropped, dropped_at = True, trio.current_time()

        assert [event async for event in events] == []
        assert events.ended == "connection lost: nothing has come from the other side for 40 s"
        assert trio.current_time() - dropped_at < MINUTE


async def test_what_a_client_owns_ends_within_a_minute_after_its_flow_was_dropped(server, autojump_clock):
    async with server.open_client() as watcher, open_both(server) as (flow, client):
        agent = await client.spawn("nap", hub="hub-a")
        await trio.sleep(100)
        flow.dropped, dropped_at = True, trio.current_time()

        outcome = await watcher.wait(f"hub-a/{agent.name}")

        assert outcome.kind == "cancelled"
        assert trio.current_time() - dropped_at < MINUTE


async def test_an_operator_whose_flow_was_dropped_is_not_attached_any_more_within_a_minute(autojump_clock):
    async def decide(permission):
        await trio.sleep_forever()

    async def ask(ctx: AgentContext, prompt: str) -> str:
        return str((await ctx.ask_permission("Bash", {})).reason)

    async with open_hub("hub-a", agents={"ask": ask}) as hub, open_flow() as flow:
        hub.attach(flow.far)
        register = {"name": "ann", "token": hub.token, "role": Role.OPERATOR, "on_permission": decide}
        async with open_client(flow.near, **register):  # type: ignore[arg-type]
            flow.dropped = True
            await trio.sleep(MINUTE)

            assert hub.core._approvals._operators() == []


async def test_a_member_learns_within_a_minute_that_its_hub_is_out_of_reach(autojump_clock):
    inbox = Inbox(8)
    async with open_hub("hub-a") as hub, open_flow() as flow:
        hub.attach(flow.far)
        async with open_member(
            flow.near, name="ann", token=hub.token, inbox=inbox, mailbox=Mailbox(inbox)
        ) as member:
            flow.dropped = True
            await trio.sleep(MINUTE)

            assert member.closed.is_set()
            assert [str(record.name) for record in hub.core.agents] == []


async def test_a_connection_on_which_nobody_says_anything_goes_on(server, autojump_clock):
    async with open_both(server) as (_, client):
        await trio.sleep(3600)

        assert not client.closed.is_set()
        assert (await client.status()).agent_count == 0


async def test_what_takes_long_on_a_slow_way_is_not_silent(server, autojump_clock):
    async with open_both(server) as (flow, client):
        flow.chunk_time, began_at = 1.0, trio.current_time()  # 4 KiB a second

        agent = await client.spawn("count", "x" * 500_000, hub="hub-a", detached=True)

        assert trio.current_time() - began_at > 100
        assert await agent.result() == "500000"


async def test_whoever_was_stopped_reads_before_it_judges(server, autojump_clock):
    async with open_both(server) as (_, client):
        await trio.sleep(7)
        autojump_clock.jump(1000)
        await trio.sleep(100)

        assert not client.closed.is_set()


async def test_a_server_that_does_not_speak_of_pings_gets_none(autojump_clock):
    ours, theirs = byte_pair()

    async def answer() -> None:
        [frame] = await theirs.receive()
        theirs.send_nowait([Response(frame.id, Welcome(kind="hub", protocol=Protocol(1)))])  # type: ignore[arg-type]
        await theirs.drained()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer)
        async with open_client(ours, name="ann") as client:
            await trio.sleep(1000)

            assert not client.closed.is_set()
            with trio.move_on_after(1) as scope:
                await theirs.receive()
            assert scope.cancelled_caught


def test_in_a_process_nobody_pings():
    ours, _ = record_pair()

    assert alive.features_on(ours) == ()


# TCP.


@asynccontextmanager
async def open_socket_pair() -> AsyncIterator[tuple[SocketChannel, SocketChannel]]:
    """What a client dials, and what a MetaHub has accepted of it."""
    accepted: list[FrameChannel] = []
    async with open_meta_hub() as meta_hub:
        original, there = meta_hub._runtime.serve, trio.Event()

        async def serve(channel: FrameChannel, link: object) -> str:
            accepted.append(channel)
            there.set()
            return await original(channel, link)  # type: ignore[arg-type]

        meta_hub._runtime.serve = serve  # type: ignore[method-assign]
        ours = await dial(meta_hub.address, Limits().line_bytes)
        await there.wait()
        assert isinstance(ours, SocketChannel)
        assert isinstance(accepted[0], SocketChannel)
        yield ours, accepted[0]
        await ours.aclose()


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="this system has no TCP_USER_TIMEOUT")
async def test_both_ends_of_a_tcp_connection_let_the_system_watch_it():
    async with open_socket_pair() as channels:
        found = [
            [
                channel._sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
                *(
                    channel._sock.getsockopt(socket.IPPROTO_TCP, option)
                    for option in (
                        socket.TCP_KEEPIDLE,
                        socket.TCP_KEEPINTVL,
                        socket.TCP_KEEPCNT,
                        socket.TCP_USER_TIMEOUT,
                    )
                ),
            ]
            for channel in channels
        ]

    # What the MetaHub has accepted may be a hub, which its heartbeats judge.
    assert found == [[1, 15, 5, 6, 45_000], [1, 15, 5, 15, 90_000]]


async def test_what_a_peer_has_not_acknowledged_is_known():
    async with open_socket_pair() as (ours, _):
        ours._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
        here, there = socket.socketpair()
        channel = SocketChannel(here, Limits().line_bytes)
        assert not channel.can_vanish
        assert ours.can_vanish
        assert ours.backlog() == 0
        await channel.aclose()
        there.close()
