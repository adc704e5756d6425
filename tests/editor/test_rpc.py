"""JSON-RPC by lines: who asks gets one answer, and what is no message harms nobody."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import memory_stream_pair

from loopal_cluster.editor.rpc import CANCELLED, INVALID_PARAMS, Peer, RpcError, open_peer
from loopal_cluster.errors import ConnectionLost


class Echo:
    """Says back what it is told, and keeps notifications."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, Any]] = []
        self.cancelled = trio.Event()

    async def on_request(self, method: str, params: dict[str, Any]) -> Any:
        if method == "hang":
            try:
                await trio.sleep_forever()
            finally:
                self.cancelled.set()
        if method == "refuse":
            raise RpcError(INVALID_PARAMS, "no", {"kind": "x"})
        return params

    def on_notification(self, method: str, params: dict[str, Any]) -> None:
        self.heard.append((method, params))


@asynccontextmanager
async def open_two():
    """Two that talk with each other."""
    left, right = memory_stream_pair()
    other = Echo()
    async with (
        open_peer(left, left, Echo().on_request, Echo().on_notification) as peer,
        open_peer(right, right, other.on_request, other.on_notification) as far,
    ):
        yield peer, far, other


@asynccontextmanager
async def open_raw():
    """One that talks, and the bare stream to it."""
    here, there = memory_stream_pair()
    echo = Echo()
    async with open_peer(there, there, echo.on_request, echo.on_notification) as peer:
        yield here, peer, echo


async def answer(stream: trio.abc.ReceiveStream) -> Any:
    return json.loads(await stream.receive_some())


async def test_both_sides_ask_and_are_answered():
    async with open_two() as (peer, far, _):
        assert await peer.call("echo", {"a": 1}) == {"a": 1}
        assert await far.call("echo", {"b": "\ud800 ü\n"}) == {"b": "\ud800 ü\n"}


async def test_a_refusal_keeps_its_code_and_data():
    async with open_two() as (peer, _, _):
        with pytest.raises(RpcError, match="no") as caught:
            await peer.call("refuse", {})

    assert (caught.value.code, caught.value.data) == (INVALID_PARAMS, {"kind": "x"})


async def test_a_call_that_is_cancelled_is_withdrawn(autojump_clock):
    async with open_two() as (peer, _, other):
        with trio.move_on_after(1):
            await peer.call("hang", {})
        await other.cancelled.wait()

        assert await peer.call("echo", {}) == {}


async def test_what_is_withdrawn_at_once_is_answered_so():
    async with open_raw() as (stream, _, _):
        ask = {"id": "a", "method": "hang"}
        withdraw = {"method": "$/cancel_request", "params": {"requestId": "a"}}
        await stream.send_all(f"{json.dumps(ask)}\n{json.dumps(withdraw)}\n".encode())

        assert await answer(stream) == {
            "jsonrpc": "2.0", "id": "a", "error": {"code": CANCELLED, "message": "cancelled"},
        }  # fmt: skip


async def test_notifications_keep_their_order():
    async with open_two() as (peer, _, other):
        for number in range(100):
            peer.notify("tick", {"number": number})
        await peer.call("echo", {})

    assert other.heard == [("tick", {"number": number}) for number in range(100)]


async def test_who_waits_when_the_other_side_goes_is_told():
    async with open_raw() as (stream, peer, _), trio.open_nursery() as nursery:

        async def ask() -> None:
            with pytest.raises(ConnectionLost):
                await peer.call("echo", {})

        nursery.start_soon(ask)
        await stream.receive_some()
        await stream.aclose()
        await peer.ended.wait()
        with pytest.raises(ConnectionLost):
            await peer.call("echo", {})


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        ("hello", -32700, "not JSON"),
        ("[" * 100_000, -32700, "not JSON"),
        ("[]", -32600, "neither"),
        ('{"id": 1}', -32600, "neither"),
        ('{"method": 1}', -32600, "neither"),
        ('{"id": [], "method": "echo"}', -32600, "neither"),
        ('{"id": 1, "method": "echo", "params": []}', -32602, "must be an object"),
    ],
)
async def test_a_line_that_is_no_message_is_answered_in_words_and_harms_nobody(line, code, words):
    async with open_raw() as (stream, _, _):
        await stream.send_all(f"{line}\n".encode())
        refused = await answer(stream)
        await stream.send_all(b'{"id": 7, "method": "echo", "params": {"a": 1}}\n')

        assert refused["error"]["code"] == code
        assert words in refused["error"]["message"]
        assert await answer(stream) == {"jsonrpc": "2.0", "id": 7, "result": {"a": 1}}


@pytest.mark.parametrize(
    "line", ['{"id": 99, "result": {}}', '{"id": null, "error": {}}', '{"method": "x", "params": null}']
)
async def test_a_message_that_means_nothing_to_us_is_passed_over(line):
    async with open_raw() as (stream, _, _):
        await stream.send_all(f'{line}\n{{"id": 7, "method": "echo"}}\n'.encode())

        assert await answer(stream) == {"jsonrpc": "2.0", "id": 7, "result": {}}


async def test_an_error_of_a_wrong_shape_is_an_error():
    async with open_raw() as (stream, peer, _), trio.open_nursery() as nursery:

        async def ask() -> None:
            with pytest.raises(RpcError, match="wrong shape"):
                await peer.call("echo", {})

        nursery.start_soon(ask)
        asked = await answer(stream)
        await stream.send_all(json.dumps({"id": asked["id"], "error": "no"}).encode() + b"\n")


async def test_what_is_said_last_is_still_sent():
    here, there = memory_stream_pair()
    async with open_peer(there, there, Echo().on_request, Echo().on_notification) as peer:
        assert isinstance(peer, Peer)
        peer.notify("bye", {})

    assert (await answer(here))["method"] == "bye"
