"""An agent made with the official Python SDK of the protocol: asyncio and pydantic, and nothing of ours.

Its prompt is one word and a text: ``echo`` thinks, uses a tool, for which it asks, and answers; ``wait`` waits
until it is cancelled; ``read`` asks the client for a file.
"""

import asyncio
import os
from typing import Any

from acp import Agent, RequestError, run_agent
from acp.helpers import (
    plan_entry,
    start_tool_call,
    text_block,
    tool_content,
    update_agent_message_text,
    update_agent_thought_text,
    update_plan,
    update_tool_call,
)
from acp.schema import (
    AgentCapabilities,
    Implementation,
    InitializeResponse,
    NewSessionResponse,
    PermissionOption,
    PromptResponse,
    ToolCallUpdate,
)


class Echo(Agent):
    def __init__(self) -> None:
        self.cancelled = asyncio.Event()

    def on_connect(self, conn: Any) -> None:
        self.client = conn

    async def initialize(self, protocol_version: int, **_: Any) -> InitializeResponse:  # type: ignore[override]
        return InitializeResponse(
            protocol_version=protocol_version,
            agent_capabilities=AgentCapabilities(),
            agent_info=Implementation(name="sdk-echo", version="1"),
        )

    async def new_session(self, cwd: str, **_: Any) -> NewSessionResponse:  # type: ignore[override]
        self.cwd = cwd
        return NewSessionResponse(session_id=f"sdk-{os.getpid()}")

    async def cancel(self, session_id: str, **_: Any) -> None:
        self.cancelled.set()

    async def prompt(self, prompt: list[Any], session_id: str, **_: Any) -> PromptResponse:  # type: ignore[override]
        self.cancelled.clear()
        word, _, text = prompt[0].text.partition(" ")
        await getattr(self, word)(session_id, text)
        return PromptResponse(stop_reason="cancelled" if self.cancelled.is_set() else "end_turn")

    async def echo(self, session: str, text: str) -> None:
        update = self.client.session_update
        await update(session, update_agent_thought_text("how to say it"))
        await update(session, update_plan([plan_entry("say it", status="in_progress")]))
        await update(session, start_tool_call("t1", "Echo", kind="execute", raw_input={"text": text}))
        answer = await self.client.request_permission(
            session_id=session,
            tool_call=ToolCallUpdate(tool_call_id="t1", kind="execute", raw_input={"text": text}),
            options=[
                PermissionOption(option_id="n", name="No", kind="reject_once"),
                PermissionOption(option_id="y", name="Yes", kind="allow_once"),
            ],
        )
        if getattr(answer.outcome, "option_id", None) == "y":
            content = [tool_content(text_block(text.upper()))]
            await update(session, update_tool_call("t1", status="completed", content=content))
            await update(session, update_agent_message_text(f"I said {text.upper()}"))
        else:
            await update(session, update_tool_call("t1", status="failed"))
            await update(session, update_agent_message_text(f"I may not: {answer.outcome.outcome}"))

    async def wait(self, session: str, text: str) -> None:
        await self.client.session_update(session, update_agent_message_text("waiting"))
        await self.cancelled.wait()

    async def read(self, session: str, text: str) -> None:
        try:
            await self.client.read_text_file(path=text, session_id=session)
        except RequestError as error:
            await self.client.session_update(session, update_agent_message_text(f"no: {error.code}"))


asyncio.run(run_agent(Echo()))  # type: ignore[abstract]
