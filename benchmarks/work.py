"""Fixed work, whose instructions ``benchmarks.instructions`` counts.

It is a number of routes: through the codec alone, through the core alone, and through a whole MetaHub.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable

import trio
import trio.testing

from loopal_cluster.config import Limits, MetaHubSettings
from loopal_cluster.core.effects import Effect, Send
from loopal_cluster.core.events import FrameReceived, Link, Peer, PeerConnected
from loopal_cluster.core.meta_hub import MetaHubCore
from loopal_cluster.frames import Frame, Request, Response
from loopal_cluster.messages import OK, Announce, Announced, RegisterHub
from loopal_cluster.runtime.channels import StreamChannel
from loopal_cluster.runtime.meta_hub import MetaHub, open_meta_hub
from loopal_cluster.wire.codec import decode, encode

__all__ = ["MARK", "ROUTES", "WORK"]

ROUTES = 480
"""Of each kind."""
WINDOW = 16
"""Routes that are sent at one time, where there is a wire."""
TOKEN = "token"
JOINING = [
    b'{"id":1,"jsonrpc":"2.0","method":"meta/register","params":{"capabilities":[],"instance":"%s","name":"%s",'
    b'"protocol":{"features":["announce","ask","complete","reconcile"],"version":1},"token":"token"}}\n',
    b'{"id":2,"jsonrpc":"2.0","method":"meta/announce","params":{"ended":[],"started":'
    b'[{"id":"%s","name":"%s","parent":null,"type":null}],"whole":true}}\n',
]
ROUTE = (
    b'{"id":%d,"jsonrpc":"2.0","method":"meta/route","params":{"content":{"text":"' + b"x" * 200 + b'"},'
    b'"id":"0b8f6f0e-5c1e-4d55-9a5e-%012d","source":{"Agent":"chief"},"target":"hub-b/worker",'
    b'"timestamp":"2026-04-02T09:42:12.123456+00:00"}}\n'
)
YES = b'{"id":%d,"jsonrpc":"2.0","result":{"ok":true}}\n'
NUMBER = re.compile(rb'^\{"id":(\d+)', re.MULTILINE)


def codec(routes: int) -> None:
    """Decode and encode requests and their answers, as the MetaHub does."""
    for number in range(routes):
        encode(_frame(ROUTE % (number, number)))
        encode(_frame(YES % number))


def core(routes: int) -> None:
    """Let the core decide, without lines."""
    meta_hub = MetaHubCore(MetaHubSettings("cluster", TOKEN), new_id=lambda: "")
    sender, receiver = Peer(1), Peer(2)
    for peer, name in ((sender, "hub-a"), (receiver, "hub-b")):
        meta_hub.handle(PeerConnected(peer, Link.ACCEPTED), 0.0)
        meta_hub.handle(FrameReceived(peer, Request(1, _register(name))), 0.0)
        meta_hub.handle(FrameReceived(peer, Request(2, Announce((Announced("worker", name),)))), 0.0)
    route = _frame(ROUTE % (3, 0))
    assert isinstance(route, Request)
    for number in range(routes):
        now = number * 1e-5
        request = Request(number + 10, route.message)
        (forwarded,) = _sent(meta_hub.handle(FrameReceived(sender, request), now))
        assert isinstance(forwarded, Request)
        (answer,) = _sent(meta_hub.handle(FrameReceived(receiver, Response(forwarded.id, OK)), now))
        assert answer == Response(request.id, OK)


def runtime(routes: int) -> None:
    """Send lines through a whole MetaHub, over memory."""
    trio.run(_runtime, routes)


async def _runtime(routes: int) -> None:
    async with open_meta_hub(None, token=TOKEN) as meta_hub:
        sender, receiver = await _join(meta_hub, b"hub-a"), await _join(meta_hub, b"hub-b")
        for first in range(10, 10 + routes, WINDOW):
            numbers = range(first, first + WINDOW)
            await sender.send_all(b"".join([ROUTE % (number, number) for number in numbers]))
            forwarded = await _numbers(receiver, WINDOW)
            await receiver.send_all(b"".join([YES % number for number in forwarded]))
            assert await _numbers(sender, WINDOW) == [*numbers]


async def _join(meta_hub: MetaHub, name: bytes) -> trio.abc.Stream:
    ours, theirs = trio.testing.memory_stream_pair()
    meta_hub.attach(StreamChannel(theirs, theirs, Limits().line_bytes))
    for line in JOINING:
        await ours.send_all(line % (name, name))
        await _numbers(ours, 1)
    return ours


async def _numbers(stream: trio.abc.Stream, count: int) -> list[int]:
    """The ids of the next so many lines."""
    data = b""
    while data.count(b"\n") < count:
        data += await stream.receive_some()
    return [int(number) for number in NUMBER.findall(data)]


def _register(name: str) -> RegisterHub:
    frame = _frame(JOINING[0] % (name.encode(), name.encode()))
    assert isinstance(frame, Request)
    assert isinstance(frame.message, RegisterHub)
    return frame.message


def _frame(line: bytes) -> Frame:
    frame = decode(line.strip())
    assert isinstance(frame, Frame), frame
    return frame


def _sent(effects: list[Effect]) -> list[Frame]:
    return [effect.frame for effect in effects if isinstance(effect, Send)]


WORK: dict[str, Callable[[int], None]] = {"codec": codec, "core": core, "runtime": runtime}
"""By name."""

MARK = os.sched_yield
"""Nobody else calls the function of this name in the C library: at each call callgrind writes its counts."""

if __name__ == "__main__":
    for work in WORK.values():  # what is done only once is done before
        work(2 * WINDOW)
    for work in WORK.values():
        MARK()
        work(ROUTES)
    MARK()
