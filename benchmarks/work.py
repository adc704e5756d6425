"""Fixed work, whose instructions ``benchmarks.instructions`` counts.

It is a number of routes: through the codec alone, through the core alone, and through a whole MetaHub; and as many
asks and events through a whole MetaHub.
"""

from __future__ import annotations

import os
import re
from collections.abc import Awaitable, Callable
from typing import Any

import trio
import trio.testing

from loopal_cluster.config import Limits, MetaHubSettings
from loopal_cluster.core.effects import Effect, Send
from loopal_cluster.core.events import FrameReceived, Link, Peer, PeerConnected
from loopal_cluster.core.meta_hub import MetaHubCore
from loopal_cluster.frames import Frame, Request, Response
from loopal_cluster.links.channels import StreamChannel
from loopal_cluster.messages import OK, Announce, Announced, RegisterHub
from loopal_cluster.runtime.meta_hub import MetaHub, open_meta_hub
from loopal_cluster.wire.codec import decode, encode
from tests.simulation.live.scheduler import seeded_scheduler

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
TURNED_ROUTE = (
    b'{"jsonrpc": "2.0", "id": %d, "method": "meta/route", "params": {"id": "0b8f6f0e-5c1e-4d55-9a5e-%012d",'
    b' "source": {"Agent": "chief"}, "target": "hub-b/worker", "timestamp": "2026-04-02T09:42:12.123456+00:00",'
    b' "content": {"text": "' + b"x" * 200 + b'"}}}\n'
)
"""The same, as Python's ``json`` would write it of dicts in the order of the protocol's document."""
YES = b'{"id":%d,"jsonrpc":"2.0","result":{"ok":true}}\n'
TURNED_YES = b'{"jsonrpc": "2.0", "id": %d, "result": {"ok": true}}\n'
ASK = ROUTE.replace(b"meta/route", b"meta/ask").replace(b',"timestamp"', b',"timeout_ms":60000,"timestamp"')
REPLY = b'{"id":%d,"jsonrpc":"2.0","result":{"outcome":{"outcome":"done","result":"' + b"y" * 200 + b'"}}}\n'
EVENT = (
    b'{"jsonrpc":"2.0","method":"agent/event","params":{"agent_name":"worker","payload":{"Stream":{"text":"%d '
    + b"z" * 60
    + b'"}}}}\n'
)
WATCHING = [
    b'{"id":1,"jsonrpc":"2.0","method":"hub/register","params":{"name":"watcher","protocol":{"features":[],"version":1},'
    b'"role":"observer","token":"token"}}\n',
    b'{"id":2,"jsonrpc":"2.0","method":"hub/subscribe","params":{}}\n',
]
NUMBER = re.compile(rb'^\{"id":(\d+)', re.MULTILINE)
TEXT = re.compile(rb'"Stream":\{"text":"(\d+)')


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
    _run(_requests, routes, ROUTE, YES)


def turned(routes: int) -> None:
    """The same, for hubs that write their lines in another way."""
    _run(_requests, routes, TURNED_ROUTE, TURNED_YES)


def asks(routes: int) -> None:
    """The same with asks and replies."""
    _run(_requests, routes, ASK, REPLY)


def events(routes: int) -> None:
    """The same with events, for one who watches."""
    _run(_events, routes)


def _run(function: Callable[..., Awaitable[None]], *arguments: Any) -> None:
    """Run it with the tasks always in the same order: it decides how much is read and written at a time."""
    with seeded_scheduler(0):
        trio.run(function, *arguments)


async def _requests(count: int, request: bytes, answer: bytes) -> None:
    async with open_meta_hub(None, token=TOKEN) as meta_hub:
        sender, receiver = await _join(meta_hub, b"hub-a"), await _join(meta_hub, b"hub-b")
        for first in range(10, 10 + count, WINDOW):
            numbers = range(first, first + WINDOW)
            await sender.send_all(b"".join([request % (number, number) for number in numbers]))
            forwarded = await _numbers(receiver, WINDOW)
            await receiver.send_all(b"".join([answer % number for number in forwarded]))
            assert await _numbers(sender, WINDOW) == [*numbers]


async def _events(count: int) -> None:
    async with open_meta_hub(None, token=TOKEN) as meta_hub:
        sender, watcher = await _join(meta_hub, b"hub-a"), await _attach(meta_hub, WATCHING)
        for first in range(0, count, WINDOW):
            numbers = range(first, first + WINDOW)
            await sender.send_all(b"".join([EVENT % number for number in numbers]))
            assert await _numbers(watcher, WINDOW, TEXT) == [*numbers]


async def _join(meta_hub: MetaHub, name: bytes) -> trio.abc.Stream:
    return await _attach(meta_hub, [line % (name, name) for line in JOINING])


async def _attach(meta_hub: MetaHub, requests: list[bytes]) -> trio.abc.Stream:
    ours, theirs = trio.testing.memory_stream_pair()
    meta_hub.attach(StreamChannel(theirs, theirs, Limits().line_bytes))
    for line in requests:
        await ours.send_all(line)
        await _numbers(ours, 1)
    return ours


async def _numbers(stream: trio.abc.Stream, count: int, number: re.Pattern[bytes] = NUMBER) -> list[int]:
    """The ids of the next so many lines, or other numbers in them."""
    data = b""
    while data.count(b"\n") < count:
        data += await stream.receive_some()
    return [int(found) for found in number.findall(data)]


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


WORK: dict[str, Callable[[int], None]] = {
    "codec": codec,
    "core": core,
    "runtime": runtime,
    "turned": turned,
    "asks": asks,
    "events": events,
}
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
