"""AutoGen's gRPC runtime: a host, a worker whose agent answers, and a worker that asks; three processes.

``python -m benchmarks.peers.autogen_grpc ask WINDOW SECONDS``, in AutoGen's environment, starts the two others
and prints what it has measured as one line of JSON.
"""

import asyncio
import json
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from autogen_core import (
    AgentId,
    MessageContext,
    RoutedAgent,
    message_handler,
    try_get_known_serializers_for_type,
)
from autogen_ext.runtimes.grpc import GrpcWorkerAgentRuntime, GrpcWorkerAgentRuntimeHost

from benchmarks.peers.asking import TEXT, ask_many

READY = "ready"
STARTING = 30.0
"""Seconds until the agent must have answered once."""


@dataclass
class Text:
    text: str


class Answerer(RoutedAgent):
    """Answers every message with what it says."""

    @message_handler
    async def on_text(self, message: Text, ctx: MessageContext) -> Text:
        return message


async def host(address: str) -> None:
    """Route between the workers."""
    runtime = GrpcWorkerAgentRuntimeHost(address=address)
    runtime.start()
    print(READY, flush=True)
    await runtime.stop_when_signal()


async def worker(address: str) -> GrpcWorkerAgentRuntime:
    """Connect to the host."""
    runtime = GrpcWorkerAgentRuntime(host_address=address)
    runtime.add_message_serializer(try_get_known_serializers_for_type(Text))
    await runtime.start()
    return runtime


async def answer(address: str) -> None:
    """Run the agent."""
    runtime = await worker(address)
    await Answerer.register(runtime, "answerer", lambda: Answerer("answers"))
    print(READY, flush=True)
    await runtime.stop_when_signal()


async def ask(address: str, window: int, seconds: float) -> None:
    """Ask the agent, and print how that went."""
    runtime = await worker(address)

    async def once(text: str) -> str:
        reply = await runtime.send_message(Text(text), AgentId("answerer", "default"))
        return str(reply.text)

    await asyncio.wait_for(once(TEXT), STARTING)
    print(json.dumps(await ask_many(once, window, seconds)), flush=True)
    await runtime.stop()


def started(role: str, address: str) -> "subprocess.Popen[str]":
    """Run one of the others, and wait until it is ready."""
    command = [sys.executable, "-m", "benchmarks.peers.autogen_grpc", role, address]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    if process.stdout.readline().strip() != READY:
        raise SystemExit(f"error: AutoGen's {role} did not start")
    return process


def main(arguments: Sequence[str]) -> None:
    """Take one of the three parts."""
    match arguments:
        case ["host", address]:
            asyncio.run(host(address))
        case ["answer", address]:
            asyncio.run(answer(address))
        case ["ask", window, seconds]:
            with socket.create_server(("127.0.0.1", 0)) as free:
                address = f"127.0.0.1:{free.getsockname()[1]}"
            others = []
            try:
                others = [started("host", address)]
                others.append(started("answer", address))
                asyncio.run(ask(address, int(window), float(seconds)))
            finally:
                for process in others:
                    process.kill()
                    process.wait()
        case _:
            raise SystemExit("usage: autogen_grpc ask WINDOW SECONDS")


if __name__ == "__main__":
    main(sys.argv[1:])
