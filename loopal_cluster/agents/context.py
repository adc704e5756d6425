"""What an agent sees: its prompt, its inbox, its hub and the cluster behind it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn, cast

from loopal_cluster.agents.inbox import Answerer, Inbox, Received
from loopal_cluster.config import is_supervised
from loopal_cluster.links.ambient import Ambient
from loopal_cluster.links.background import open_background
from loopal_cluster.links.caller import Caller
from loopal_cluster.links.cluster_client import ClusterClient
from loopal_cluster.messages import (
    AgentEvent,
    AgentSource,
    AgentStart,
    Decision,
    Permission,
    Question,
)
from loopal_cluster.outcomes import Cancelled, Failed, reason_of
from loopal_cluster.payloads import Payload, Stream
from loopal_cluster.tools.mailbox import Mailbox
from loopal_cluster.tools.toolbox import Toolbox
from loopal_cluster.wire.contents import check_json, check_text, check_texts, dumps

__all__ = ["AgentContext", "AgentFunction", "Streamed", "TurnEnds"]


class AgentContext(ClusterClient):
    """An agent's view. Everything ``ClusterClient`` has is asked of the agent's own hub."""

    def __init__(
        self, caller: Caller, start: AgentStart, inbox: Inbox, ambient: Ambient | None = None
    ) -> None:
        super().__init__(caller, ambient)
        self._inbox = inbox
        self._turn_of: Received | None = None
        """The message that is the prompt of the turn; for its session."""
        self._asks = 0
        self.name = start.name or "agent"
        """This agent's name on its hub."""
        self._source = AgentSource(self.name)
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
        self.permission_mode = start.permission_mode
        """How strict it is: our hubs say the stricter of their own policy and their spawner's wish."""
        self.tools = Toolbox(
            self,
            address=self.address,
            mailbox=Mailbox(inbox),
            authorize=self.ask_permission if is_supervised(start.permission_mode) else None,
        )
        """What a model may do with the cluster: ``await ctx.tools.call("Agent", {"prompt": ...})``."""

    @property
    def address(self) -> str:
        """This agent's address in the cluster."""
        return f"{self.hub}/{self.name}"

    def emit(self, payload: Payload) -> None:
        """Report something to whoever watches. It may be dropped under load."""
        # Written here: what cannot be is our error, and not the hub's, which passes it on as it is.
        self._caller.offer(AgentEvent(None, check_json("an event", dumps(payload))))
        return _NOTHING_TO_AWAIT

    def stream(self, text: str) -> None:
        """Report a piece of text as it is made."""
        check_text("text", text)
        self._caller.offer(AgentEvent(None, Stream(text)))
        return _NOTHING_TO_AWAIT

    def _for_ask(self) -> int | None:
        return self._inbox.for_ask(self._caller)

    async def receive(self) -> Received:
        """The next message of the inbox; waits for one."""
        return await self._inbox.get()

    def receive_nowait(self) -> Received | None:
        """The next message of the inbox, or None if it is empty."""
        return self._inbox.get_nowait()

    async def serve(self, answerer: Answerer) -> NoReturn:
        """Answer everything that arrives, many at a time, until cancelled.

        An ask gets what ``answerer`` returns as its reply, or the exception that it raises; work on one
        that nobody waits for any more is cancelled. What it returns for a plain message is dropped, and
        an exception ends us all. A persistent agent that serves in a turn answers the message that began it
        like the others, and the turn goes on.

        While it serves, others may ask it and it may ask them, also those who wait for it; only if it asks somebody
        who waits for the very ask that it is answering, that is refused (``AskCircle``).
        """
        self._inbox.servers += 1
        try:
            async with open_background() as nursery:

                def take(received: Received) -> None:
                    if received.wants_reply:
                        nursery.start_soon(received.answer, answerer)
                    else:
                        nursery.start_soon(answerer, received)

                first, self._turn_of = self._turn_of, None
                if first is not None:
                    take(first.handed_over())
                while True:
                    take(await self.receive())
        finally:
            self._inbox.servers -= 1

    async def ask_permission(
        self, tool_name: str, tool_input: Any = None, *, tool_call_id: str | None = None
    ) -> Decision:
        """Ask a human, or the hub's policy, whether a tool may be used. ``allow`` is the answer."""
        check_texts(tool_name=tool_name, tool_call_id=tool_call_id)
        self._asks += 1
        return await self._caller.call(
            Permission(
                tool_name=tool_name,
                tool_input=check_json("tool_input", dumps(tool_input)),
                tool_call_id=tool_call_id or f"call-{self._asks}",
            )
        )

    async def ask_human(
        self,
        question: str,
        options: Sequence[str] | Mapping[str, str] = (),
        *,
        allow_multiple: bool = False,
    ) -> tuple[str, ...]:
        """Ask whoever operates the hub. ``options`` are labels, or labels with a description each.

        Raises:
            NoOperator: nobody answered in the time that the hub's policy gives.
        """
        described = options if isinstance(options, Mapping) else dict.fromkeys(options, "")
        asked = {
            "question": question,
            "options": [{"label": k, "description": v} for k, v in described.items()],
            "allow_multiple": allow_multiple,
        }
        return (await self._caller.call(Question(questions=check_json("question", dumps([asked]))))).answers


class _NothingToAwait:
    """What ``stream`` and ``emit`` return: most of the other methods are awaited, and so may these be, by mistake."""

    def __await__(self) -> Iterator[NoReturn]:
        raise TypeError("stream() and emit() are done when they return: call them without await")


_NOTHING_TO_AWAIT = cast(None, _NothingToAwait())
"""None to a type checker, which finds the mistake before."""


class Streamed(str):
    """A result that was streamed as it was made, and is not streamed again when the turn ends."""


class TurnEnds(Exception):
    """Raised by an agent function: its turn ends with this outcome, without a traceback.

    ``final``: and the agent with it, also one that is persistent, because it cannot go on.
    """

    def __init__(self, outcome: Failed | Cancelled, *, final: bool = False) -> None:
        super().__init__(reason_of(outcome))
        self.outcome = outcome
        self.final = final


AgentFunction = Callable[[AgentContext, str], Awaitable[object]]
"""``async def agent(ctx, prompt)``: returns its result, text or something JSON can express."""
