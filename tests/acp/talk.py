"""A client, and the program on the other end in the test's own hands: over memory, a line at a time."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio
import trio.testing
from attrs import define, field

from loopal_cluster.acp.client import Client, Session, open_client

HELLO = {"protocolVersion": 1, "agentCapabilities": {}, "agentInfo": {"name": "hand", "version": "0"}}


@define(eq=False)
class Hand:
    """The program's end."""

    stream: trio.StapledStream[Any, Any]
    _waiting: list[bytes] = field(factory=list)
    _rest: bytes = b""

    async def read(self) -> dict[str, Any]:
        """The next message from the client."""
        while not self._waiting:
            data = await self.stream.receive_some()
            assert data, "the client has closed"
            *lines, self._rest = (self._rest + bytes(data)).split(b"\n")
            self._waiting += lines
        message: dict[str, Any] = json.loads(self._waiting.pop(0))
        assert message.pop("jsonrpc") == "2.0"
        return message

    async def expect(self, method: str) -> dict[str, Any]:
        """The next message, which is of this method."""
        message = await self.read()
        assert message["method"] == method
        return message

    async def raw(self, text: str) -> None:
        """Write anything."""
        await self.stream.send_all(text.encode())

    async def write(self, **message: Any) -> None:
        """Write a message."""
        await self.raw(json.dumps({"jsonrpc": "2.0", **message}) + "\n")

    async def answer(self, method: str, result: Any) -> dict[str, Any]:
        """Answer the next request, which is of this method; return its parameters."""
        request = await self.expect(method)
        await self.write(id=request["id"], result=result)
        params: dict[str, Any] = request["params"]
        return params

    async def update(self, update: dict[str, Any], session: str = "s1") -> None:
        """Report something."""
        await self.write(method="session/update", params={"sessionId": session, "update": update})

    async def say(self, text: str) -> None:
        """Report a piece of an answer."""
        await self.update(chunk(text))

    async def flush(self) -> None:
        """Wait until the client has taken in everything so far: it answers this."""
        await self.write(id="flush", method="no/such")
        assert (await self.read())["id"] == "flush"


def chunk(text: str, kind: str = "agent_message_chunk", **more: Any) -> dict[str, Any]:
    """An update with a piece of text."""
    return {"sessionUpdate": kind, "content": {"type": "text", "text": text}, **more}


@asynccontextmanager
async def open_talk() -> AsyncIterator[tuple[Client, Hand]]:
    """A client and a program that have not said anything yet."""
    ours, theirs = trio.testing.memory_stream_pair()
    async with open_client(ours, ours) as client:
        yield client, Hand(theirs)


@asynccontextmanager
async def open_conversation(**session: Any) -> AsyncIterator[tuple[Session, Hand]]:
    """A session that is open."""
    async with open_talk() as (client, hand):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hand.answer, "initialize", HELLO)
            await client.initialize(name="test", version="0")
            nursery.start_soon(hand.answer, "session/new", {"sessionId": "s1", **session})
            opened = await client.new_session("/work")
        yield opened, hand


@define(eq=False)
class Turn:
    """A turn that runs in a task: what it reports and how it ends."""

    session: Session
    updates: list[Any] = field(factory=list)
    asked: list[Any] = field(factory=list)
    option: str | None = "yes"
    """What is answered to permissions; empty: nothing, for ever."""
    end: Any = None
    scope: trio.CancelScope = field(factory=trio.CancelScope)
    ended: trio.Event = field(factory=trio.Event)

    async def judge(self, request: Any) -> str | None:
        self.asked.append(request)
        if self.option == "":
            await trio.sleep_forever()
        return self.option

    async def run(self, text: str = "go") -> None:
        """Take it; keep what comes of it."""
        try:
            with self.scope:
                self.end = await self.session.prompt(
                    text, on_update=self.updates.append, on_permission=self.judge, cancel_timeout=5
                )
        except Exception as error:
            self.end = error
        finally:
            self.ended.set()
