"""What an agent sees: its prompt, its inbox, its hub and the cluster behind it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import trio
from attrs import frozen

from loopal_cluster.messages import (
    AgentEvent,
    AgentSource,
    AgentStart,
    Decision,
    Envelope,
    Permission,
    Question,
    Source,
)
from loopal_cluster.payloads import Payload, Stream
from loopal_cluster.runtime.caller import Caller
from loopal_cluster.runtime.client import ClusterClient
from loopal_cluster.tools.toolbox import Toolbox
from loopal_cluster.wire.contents import dumps, user_content

__all__ = ["AgentContext", "AgentFunction", "Received"]


@frozen
class Received:
    """A message from the inbox."""

    text: str
    sender: str | None
    """The address to answer to; None if it does not come from an agent."""
    source: Source
    """Who wrote it: an agent, a human, a hub (``SystemSource``), ..."""
    envelope: Envelope


class AgentContext(ClusterClient):
    """An agent's view. Everything ``ClusterClient`` has is asked of the agent's own hub."""

    def __init__(self, caller: Caller, start: AgentStart, inbox: trio.MemoryReceiveChannel[Envelope]) -> None:
        super().__init__(caller)
        self._inbox = inbox
        self._asks = 0
        self.name = start.name or "agent"
        """This agent's name on its hub."""
        self.hub = start.hub or "hub"
        """The hub's name; ``hub/name`` is this agent's address in the cluster."""
        self.parent = start.parent
        """The address of the agent that spawned this one, if one did."""
        self.agent_type = start.agent_type
        self.agent_id = start.agent_id
        self.prompt = start.prompt or ""
        self.cwd = start.cwd or "."
        """The directory to work in; it is not the process's own for an agent inside its hub."""
        # Our hubs always say which. A Loopal hub may leave it open, and means this by it.
        self.persistent = (
            start.lifecycle or ("ephemeral" if start.prompt is not None else "persistent")
        ) == "persistent"
        self.model = start.model
        self.mode = start.mode or "act"
        """``act`` or ``plan``; an operator may change it."""
        # The base dialect's rule: these two do not ask, no mode is the agent's own choice, any other asks.
        supervised = start.permission_mode not in (None, "bypass", "yolo")
        self.tools = Toolbox(self, authorize=self.ask_permission if supervised else None)
        """What a model may do with the cluster: ``await ctx.tools.call("Agent", {"prompt": ...})``."""

    @property
    def address(self) -> str:
        """This agent's address in the cluster."""
        return f"{self.hub}/{self.name}"

    def emit(self, payload: Payload) -> None:
        """Report something to whoever watches. It may be dropped under load."""
        self._caller.offer(AgentEvent(None, payload))

    def stream(self, text: str) -> None:
        """Report a piece of text as it is made."""
        self.emit(Stream(text))

    async def receive(self) -> Received:
        """The next message of the inbox; waits for one."""
        return _received(await self._inbox.receive())

    def receive_nowait(self) -> Received | None:
        """The next message of the inbox, or None if it is empty."""
        try:
            return _received(self._inbox.receive_nowait())
        except trio.WouldBlock:
            return None

    async def ask_permission(
        self, tool_name: str, tool_input: Any = None, *, tool_call_id: str | None = None
    ) -> Decision:
        """Ask a human, or the hub's policy, whether a tool may be used. ``allow`` is the answer."""
        self._asks += 1
        return await self._caller.call(
            Permission(
                tool_name=tool_name,
                tool_input=dumps(tool_input),
                tool_call_id=tool_call_id or f"call-{self._asks}",
            )
        )

    async def ask(
        self,
        question: str,
        options: Sequence[str] | Mapping[str, str] = (),
        *,
        allow_multiple: bool = False,
    ) -> tuple[str, ...]:
        """Ask a human. ``options`` are labels, or labels with a description each.

        Raises:
            NoOperator: nobody answered in the time that the hub's policy gives.
        """
        described = options if isinstance(options, Mapping) else dict.fromkeys(options, "")
        asked = {
            "question": question,
            "options": [{"label": k, "description": v} for k, v in described.items()],
            "allow_multiple": allow_multiple,
        }
        return (await self._caller.call(Question(questions=dumps([asked])))).answers


AgentFunction = Callable[[AgentContext, str], Awaitable[object]]
"""``async def agent(ctx, prompt)``: returns its result, text or something JSON can express."""


def _received(envelope: Envelope) -> Received:
    source = envelope.source
    return Received(
        text=user_content(envelope.content).text,
        sender=source.name if isinstance(source, AgentSource) else None,
        source=source,
        envelope=envelope,
    )
