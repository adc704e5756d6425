"""A client that says exactly what a test wants, over a pair of streams."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio
import trio.testing
from attrs import define, field

from loopal_cluster import AgentContext
from loopal_cluster.mcp_server.lines import serve_lines
from loopal_cluster.mcp_server.session import ToolServer


async def shout(ctx: AgentContext, prompt: str) -> str:
    return f"{prompt.upper()} on {ctx.hub}"


async def linger(ctx: AgentContext, prompt: str) -> str:
    await trio.sleep(float(prompt or 1000))
    return "lingered"


async def listen(ctx: AgentContext, prompt: str) -> str:
    return f"{(received := await ctx.receive()).text!r} from {received.sender}"


AGENTS = {"shout": shout, "linger": linger, "listen": listen}


@define
class LineClient:
    """Sends lines, and reads answers."""

    stream: trio.abc.Stream
    _received: bytearray = field(factory=bytearray)
    _last_id: int = 0

    async def send(self, **message: Any) -> None:
        """Send a message."""
        await self.send_text(json.dumps({"jsonrpc": "2.0"} | message))

    async def send_text(self, text: str) -> None:
        """Send a line."""
        await self.stream.send_all(text.encode() + b"\n")

    async def request(self, method: str, **params: Any) -> int:
        """Send a request; return its id."""
        self._last_id += 1
        await self.send(id=self._last_id, method=method, params=params)
        return self._last_id

    async def use(self, tool: str, /, **arguments: Any) -> int:
        """Ask for the use of a tool; return the request's id."""
        return await self.request("tools/call", name=tool, arguments=arguments)

    async def read(self) -> Any:
        """The next message; None at the end."""
        while b"\n" not in self._received:
            data = await self.stream.receive_some()
            if not data:
                return None
            self._received += data
        line, _, rest = self._received.partition(b"\n")
        self._received = bytearray(rest)
        return json.loads(line)

    async def result(self, tool: str, /, **arguments: Any) -> Any:
        """Use a tool; its result."""
        id_ = await self.use(tool, **arguments)
        answer = await self.read()
        assert answer["id"] == id_
        return answer["result"]

    async def initialize(self, name: str = "Ed") -> Any:
        """Begin as the protocol has it."""
        id_ = await self.request(
            "initialize", protocolVersion="2025-06-18", clientInfo={"name": name, "version": "1"}
        )
        answer = await self.read()
        assert answer["id"] == id_
        await self.send(method="notifications/initialized")
        return answer["result"]


@asynccontextmanager
async def open_line_client(
    server: ToolServer, on_client: Callable[[str], None] = lambda name: None
) -> AsyncIterator[LineClient]:
    """A client of ``server``, over memory streams; the server must end with it."""
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:

        async def serve() -> None:
            await serve_lines(theirs, theirs, server, on_client=on_client)
            await theirs.aclose()

        nursery.start_soon(serve)
        async with ours:
            yield LineClient(ours)


def text_of(result: Any) -> str:
    """What a model reads of a tool's result."""
    (content,) = result["content"]
    text: str = content["text"]
    return text
