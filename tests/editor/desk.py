"""A human in front of an editor, and the agents of a cluster that they talk to."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio
from attrs import define, field
from trio.testing import memory_stream_pair

from loopal_cluster import AgentContext, Hub, MetaHub, Role
from loopal_cluster.acp.rpc import RpcPeer, open_peer
from loopal_cluster.editor.service import Editor
from loopal_cluster.links.channels import FrameChannel, record_pair
from loopal_cluster.links.client import open_client
from loopal_cluster.payloads import ThinkingStream, ToolCall, ToolResult
from loopal_cluster.testing import TestCluster
from loopal_cluster.wire.contents import dumps


async def echo(ctx: AgentContext, prompt: str) -> str:
    return f"you said {prompt}"


async def coder(ctx: AgentContext, prompt: str) -> str:
    ctx.emit(ThinkingStream("hm"))
    ctx.stream("I look. ")
    ctx.emit(ToolCall("t1", "Bash", dumps({"command": prompt})))
    decision = await ctx.ask_permission("Bash", {"command": prompt}, tool_call_id="t1")
    if not decision.allow:
        ctx.emit(ToolResult("t1", "Bash", "denied", is_error=True))
        return "I may not."
    ctx.emit(ToolResult("t1", "Bash", "2 files", is_error=False))
    return "It has 2 files."


async def boss(ctx: AgentContext, prompt: str) -> str:
    return await (await ctx.spawn("coder", prompt, hub="hub-b", name="worker")).result()


async def nap(ctx: AgentContext, prompt: str) -> str:
    ctx.stream("zzz")
    await trio.sleep_forever()
    raise AssertionError


async def fail(ctx: AgentContext, prompt: str) -> str:
    raise ValueError("no idea")


async def where(ctx: AgentContext, prompt: str) -> str:
    return ctx.cwd


AGENTS = {"where": where, "echo": echo, "coder": coder, "boss": boss, "nap": nap, "fail": fail}


@define(eq=False)
class Desk:
    """What the human sees, and what they answer."""

    stream: trio.abc.Stream
    """To the agents. To close it is to leave."""
    channel: FrameChannel
    """Of the program, to its hub."""
    peer: RpcPeer = field(init=False)
    updates: list[dict[str, Any]] = field(factory=list)
    asked: list[dict[str, Any]] = field(factory=list)
    allow: bool | None = True
    """None: they do not answer."""
    seen: trio.lowlevel.ParkingLot = field(factory=trio.lowlevel.ParkingLot)
    withdrawn: trio.Event = field(factory=trio.Event)

    async def on_request(self, method: str, params: dict[str, Any]) -> Any:
        assert method == "session/request_permission"
        self.asked.append(params)
        self.seen.unpark_all()
        if self.allow is None:
            try:
                await trio.sleep_forever()
            finally:
                self.withdrawn.set()
        wanted = "allow_once" if self.allow else "reject_once"
        [option] = [option for option in params["options"] if option["kind"] == wanted]
        return {"outcome": {"outcome": "selected", "optionId": option["optionId"]}}

    def on_notification(self, method: str, params: dict[str, Any]) -> None:
        assert method == "session/update"
        self.updates.append(params["update"])
        self.seen.unpark_all()

    async def new_session(self) -> str:
        """Begin a conversation."""
        answer = await self.peer.call("session/new", {"cwd": "/tmp", "mcpServers": []})
        session: str = answer["sessionId"]
        return session

    async def say(self, session: str, text: str) -> str:
        """Have a turn; return why it stopped."""
        prompt = [{"type": "text", "text": text}]
        stop = await self.peer.call("session/prompt", {"sessionId": session, "prompt": prompt})
        reason: str = stop["stopReason"]
        return reason

    async def until_shown(self, text: str) -> None:
        """Wait until the agent has said this."""
        while text not in self.text:
            await self.seen.park()

    async def until_asked(self) -> None:
        """Wait until there is a question."""
        while not self.asked:
            await self.seen.park()

    @property
    def text(self) -> str:
        """All that the agent has said."""
        chunks = [update for update in self.updates if update["sessionUpdate"] == "agent_message_chunk"]
        return "".join(chunk["content"]["text"] for chunk in chunks)

    @property
    def kinds(self) -> list[str]:
        """The kinds of what was shown, in order, each run of one kind once."""
        kinds = [update["sessionUpdate"] for update in self.updates]
        return [kind for index, kind in enumerate(kinds) if kinds[index - 1 : index] != [kind]]


@asynccontextmanager
async def open_desk(
    cluster: TestCluster, agent_type: str | None, *, hub: str | None = None, local: bool = False
) -> AsyncIterator[Desk]:
    """An editor at hub-a, or (``hub``) at the MetaHub for agents of that hub."""
    editor = Editor(agent_type, hub, local=local)
    here, there = memory_stream_pair()
    channel, accepted = record_pair()
    desk = Desk(here, channel)
    place: Hub | MetaHub = cluster["hub-a"] if hub is None else cluster.meta_hub
    place.attach(accepted)

    async def serve() -> None:
        operator: dict[str, Any] = {"role": Role.OPERATOR, "on_permission": editor.on_permission}
        async with there, open_client(channel, name="ann", token=place.token, **operator) as client:
            await editor.serve(client, there, there)

    async with trio.open_nursery() as serving:
        serving.start_soon(serve)
        async with here, open_peer(here, here, desk.on_request, desk.on_notification) as desk.peer:
            yield desk
