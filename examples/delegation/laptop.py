"""The other machine: a hub with a Claude, and you, who are asked for what agents may do, here and on gpu-box."""

from __future__ import annotations

import json
import os
import sys

import trio

from loopal_cluster import AcpAgent, ClusterError, Decision, EventStream, Permission, connect, open_hub
from loopal_cluster.events import Stream, ToolCall

META_HUB = os.environ.get("META_HUB", "127.0.0.1:9900")
TASK = (
    "Have the codex agent on the hub gpu-box find out which version of Python that machine has, "
    "and tell me what it says."
)


async def main(task: str) -> None:
    """Give the task to the Claude here, show what happens in the cluster, print the result."""
    token = os.environ.get("LOOPAL_META_HUB_TOKEN")
    if token is None:
        sys.exit("set LOOPAL_META_HUB_TOKEN to the token that gpu_box.py shows")
    claude = AcpAgent(preset="claude", allow_cluster_tools=True)
    async with (
        open_hub("laptop", agents={"claude": claude}, join=META_HUB, meta_token=token),
        connect(META_HUB, token=token, name="you", on_permission=ask) as client,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(show, await client.subscribe())
        agent = await client.spawn("claude", task, hub="laptop")
        print(f"\nResult: {await agent.result()}")
        nursery.cancel_scope.cancel()


async def ask(permission: Permission) -> Decision:
    """Ask the human in front of this terminal."""
    wanted = json.loads(permission.tool_input.json)
    if isinstance(wanted, dict):
        wanted = wanted.get("command", wanted)  # what a human wants to see of it
    print(f"{permission.agent_name} wants to use {permission.tool_name}: {wanted}")
    answer = await trio.to_thread.run_sync(input, "allow? [y/n] ", abandon_on_cancel=True)
    return Decision(allow=answer.strip().lower() in ("y", "yes"))


async def show(events: EventStream) -> None:
    """Print what agents say and use, on whatever hub."""
    shown = set[str]()  # some agents report the use of a tool again when they know more of it
    async for event in events:
        match event.payload:
            case Stream(text):
                print(f"{event.hub}/{event.agent}: {text}")
            case ToolCall(id=call, name=name) if call not in shown:
                shown.add(call)
                print(f"{event.hub}/{event.agent} uses {name}")


if __name__ == "__main__":
    try:
        trio.run(main, " ".join(sys.argv[1:]) or TASK)
    except* (ClusterError, OSError) as group:
        why: BaseException = group
        while isinstance(why, BaseExceptionGroup):
            why = why.exceptions[0]
        sys.exit(f"{why}; is gpu_box.py running, and is the token its own?")
