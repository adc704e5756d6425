"""Scripted peers of the base dialect: they send and expect lines, and have never heard of us.

Nothing here uses our codec or our records: what is compared is JSON, as a Loopal peer reads it.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
import trio


class BasePeer:
    """One end of a base connection, driven by hand."""

    def __init__(self, receiver: trio.abc.ReceiveStream, sender: trio.abc.SendStream) -> None:
        self._receiver = receiver
        self._sender = sender
        self._unread = b""
        self._last_id = 0

    async def send(self, line: str) -> None:
        """Send a line exactly as it is."""
        await self._sender.send_all(line.encode() + b"\n")

    async def line(self) -> str:
        """The next line exactly as it came."""
        while b"\n" not in self._unread:
            data = await self._receiver.receive_some()
            if not data:
                raise EOFError
            self._unread += data
        line, _, self._unread = self._unread.partition(b"\n")
        return line.decode()

    async def receive(self) -> Any:
        """The next line, as JSON."""
        return json.loads(await self.line())

    async def is_closed(self) -> bool:
        """Whether nothing more comes; waits for the end."""
        try:
            await self.line()
        except (EOFError, trio.BrokenResourceError):
            return True
        return False

    async def call(self, method: str, params: Any) -> Any:
        """Send a request with the next id and return the answer's result, or its error's message.

        Nothing else may come in between: a base hub's own calls are made one at a time.
        """
        self._last_id += 1
        await self.send(dumps({"id": self._last_id, "jsonrpc": "2.0", "method": method, "params": params}))
        answer = await self.receive()
        assert answer["id"] == self._last_id, answer
        return answer["error"]["message"] if "error" in answer else answer["result"]

    async def expect(self, method: str, params: Any) -> int | None:
        """The next line asks this, whatever it says besides; return its id."""
        request = await self.receive()
        assert request.get("method") == method, request
        assert request["jsonrpc"] == "2.0"
        assert_includes(request["params"], params)
        request_id: int | None = request.get("id")
        return request_id

    async def expect_spawn(self, params: Any) -> int | None:
        """It is asked whether the name is free, which it is, and then to start an agent; return that request's id."""
        await self.answer(await self.expect("meta/resolve", {}), {"found": False})
        return await self.expect("hub/spawn_agent", params)

    async def expect_all(self, *lines: Any) -> None:
        """The next lines are these, in any order, whatever they say besides."""
        received = [await self.receive() for _ in lines]
        for line in lines:
            assert any(includes(candidate, line) for candidate in received), (line, received)

    async def answer(self, request_id: int | None, result: Any) -> None:
        """Answer a request as Loopal does."""
        await self.send(dumps({"id": request_id, "jsonrpc": "2.0", "result": result}))

    async def refuse(self, request_id: int | None, message: str) -> None:
        """Answer no, as Loopal does."""
        error = {"code": -32600, "message": message}
        await self.send(dumps({"error": error, "id": request_id, "jsonrpc": "2.0"}))

    async def notify(self, method: str, params: Any) -> None:
        """Send a notification."""
        await self.send(dumps({"jsonrpc": "2.0", "method": method, "params": params}))

    async def aclose(self) -> None:
        await trio.aclose_forcefully(self._sender)
        await trio.aclose_forcefully(self._receiver)


def dumps(value: Any) -> str:
    """The bytes that Loopal writes: keys ascending, no spaces, nothing escaped without need."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def assert_includes(actual: Any, expected: Any, path: str = "$") -> None:
    """What a base peer reads is as expected; keys it does not know may be there."""
    if isinstance(expected, dict) and isinstance(actual, dict):
        for key, value in expected.items():
            assert key in actual, f"{path}.{key} is missing"
            assert_includes(actual[key], value, f"{path}.{key}")
    elif isinstance(expected, list) and isinstance(actual, list):
        assert len(actual) == len(expected), f"{path}: {actual}"
        for n, (have, want) in enumerate(zip(actual, expected, strict=True)):
            assert_includes(have, want, f"{path}[{n}]")
    else:
        assert actual == expected, f"{path}: {actual!r} is not {expected!r}"


def includes(actual: Any, expected: Any) -> bool:
    """The same, as a question."""
    try:
        assert_includes(actual, expected)
    except AssertionError:
        return False
    return True


Connect = Callable[[str], AbstractAsyncContextManager[BasePeer]]


@pytest.fixture(name="includes")
def _includes() -> Callable[[Any, Any], None]:
    return assert_includes


@pytest.fixture
def connect_base() -> Connect:
    """Connect to an address as a base peer."""

    @asynccontextmanager
    async def connect(address: str) -> AsyncIterator[BasePeer]:
        host, _, port = address.rpartition(":")
        stream = await trio.open_tcp_stream(host, int(port))
        peer = BasePeer(stream, stream)
        try:
            yield peer
        finally:
            await peer.aclose()

    return connect


@pytest.fixture
def join_base(connect_base: Connect) -> Callable[..., AbstractAsyncContextManager[BasePeer]]:
    """Join a MetaHub of ours as a base hub."""

    @asynccontextmanager
    async def join(meta_hub: Any, name: str) -> AsyncIterator[BasePeer]:
        async with connect_base(meta_hub.address) as hub:
            params = {"capabilities": [], "name": name, "token": meta_hub.token}
            assert await hub.call("meta/register", params) == {"ok": True}
            await hub.notify("meta/heartbeat", {"agent_count": 0, "hub_name": name})
            yield hub

    return join


class BaseMetaHub:
    """Listens as a base MetaHub; every connection is a ``BasePeer`` that the test drives."""

    def __init__(self, address: str, accepted: trio.MemoryReceiveChannel[BasePeer]) -> None:
        self.address = address
        self._accepted = accepted

    async def accept(self) -> BasePeer:
        return await self._accepted.receive()

    async def admit(self, name: str, token: str) -> BasePeer:
        """Accept a hub, and answer as a real MetaHub does until the hub believes it."""
        hub = await self.accept()
        request_id = await hub.expect("meta/register", {"capabilities": [], "name": name, "token": token})
        assert request_id == 1
        await hub.answer(request_id, {"ok": True})
        probe = await hub.expect("meta/list_hubs", {})
        listed = {"agent_count": 0, "capabilities": [], "name": name, "status": "Connected"}
        await hub.answer(probe, {"hubs": [listed]})
        assert await hub.expect("meta/heartbeat", {"agent_count": 0, "hub_name": name}) is None
        return hub


@pytest.fixture
def serve_base() -> Callable[[], AbstractAsyncContextManager[BaseMetaHub]]:
    """Be a base MetaHub."""

    @asynccontextmanager
    async def serve() -> AsyncIterator[BaseMetaHub]:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        put, accepted = trio.open_memory_channel[BasePeer](100)
        peers: list[BasePeer] = []

        async def handle(stream: trio.SocketStream) -> None:
            peers.append(BasePeer(stream, stream))
            put.send_nowait(peers[-1])
            await trio.sleep_forever()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, handle, [listener])
            yield BaseMetaHub(f"127.0.0.1:{listener.socket.getsockname()[1]}", accepted)
            nursery.cancel_scope.cancel()
        for peer in peers:
            await peer.aclose()

    return serve


@pytest.fixture
def host_of() -> Callable[[trio.Process], AbstractAsyncContextManager[BasePeer]]:
    """Be the base host of an agent process; its standard input ends with the block, and it is reaped."""

    @asynccontextmanager
    async def host(process: trio.Process) -> AsyncIterator[BasePeer]:
        assert process.stdin is not None
        assert process.stdout is not None
        peer = BasePeer(process.stdout, process.stdin)
        try:
            yield peer
        finally:
            await peer.aclose()
            with trio.move_on_after(5.0, shield=True):
                await process.wait()
            process.kill()

    return host
