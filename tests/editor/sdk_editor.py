"""An editor made with the protocol's own Python SDK, as a program: an independent counterpart.

``python sdk_editor.py SCRIPT AGENT...`` starts the agent program, plays the script (JSON: a list of turns, each with
a ``prompt`` and whether to ``allow``, or a text ``cancel_at`` which it cancels), and prints what it saw as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import acp
from acp import schema


class Editor(acp.Client):
    """Keeps what it is shown."""

    def __init__(self) -> None:
        self.turn: dict[str, Any] = {}
        self.seen: list[dict[str, Any]] = []
        self.agent: Any = None

    def on_connect(self, conn: Any) -> None:
        self.agent = conn

    async def request_permission(self, session_id: str, tool_call: Any, options: Any, **_: Any) -> Any:
        self.seen.append({"asked": tool_call.title, "options": [option.kind for option in options]})
        wanted = "allow_once" if self.turn["allow"] else "reject_once"
        [option] = [option for option in options if option.kind == wanted]
        outcome = schema.AllowedOutcome(outcome="selected", option_id=option.option_id)
        return schema.RequestPermissionResponse(outcome=outcome)

    async def session_update(self, session_id: str, update: Any, **_: Any) -> None:
        text = getattr(getattr(update, "content", None), "text", None)
        status = getattr(update, "status", None)
        self.seen.append({"shown": update.session_update, "text": text, "status": status})
        if text is not None and text == self.turn.get("cancel_at"):
            await self.agent.cancel(session_id=session_id)


async def main() -> None:
    script, *program = sys.argv[1:]
    editor = Editor()  # type: ignore[abstract]
    async with acp.spawn_agent_process(editor, *program) as (agent, process):
        hello = await agent.initialize(protocol_version=acp.PROTOCOL_VERSION)
        session = await agent.new_session(cwd="/tmp", mcp_servers=[])
        stops = []
        for editor.turn in json.loads(script):
            prompt = [acp.text_block(editor.turn["prompt"])]
            stops.append((await agent.prompt(prompt=prompt, session_id=session.session_id)).stop_reason)  # type: ignore[arg-type]
    await process.wait()
    title = hello.agent_info.title  # type: ignore[union-attr]
    seen = {"title": title, "session": session.session_id, "stops": stops, "seen": editor.seen}
    print(json.dumps(seen | {"status": process.returncode}))


asyncio.run(main())
