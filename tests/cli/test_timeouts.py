"""No command waits longer than it is told for who accepts a connection and never speaks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from .program import environment, open_site, run

pytestmark = pytest.mark.limit(30)


@asynccontextmanager
async def open_mute(path: str) -> AsyncIterator[str]:
    """Listen at a path as a hub does that is stopped: the system accepts for it."""
    with trio.socket.socket(trio.socket.AF_UNIX) as sock:
        await sock.bind(path)
        sock.listen(16)
        yield f"unix:{path}"


COMMANDS = {
    "hubs": (), "agents": (), "topology": (), "events": (), "events --follow": (),
    "send": ("worker", "hi"), "ask": ("worker", "hi"), "spawn": ("count", "a b"), "spawn --wait": ("count", "a b"),
    "wait": ("worker",), "interrupt": ("worker",), "shutdown": ("worker",), "cancel": ("worker",),
}  # fmt: skip


@pytest.mark.parametrize("as_json", [False, True])
async def test_no_command_waits_longer_than_its_timeout(as_json, tmp_path):
    ran = {}

    async def run_one(command: str, address: str) -> None:
        words = (*command.split(), "--connect", address, "--timeout", "0.5", *(["--json"] * as_json))
        ran[command] = await run(*words, *COMMANDS[command], env=environment(tmp_path))

    async with open_mute(f"{tmp_path}/mute") as address, trio.open_nursery() as nursery:
        for command in COMMANDS:
            nursery.start_soon(run_one, command, address)

    words = "error: not done within 0.5 s; --timeout SECONDS gives it another time\n"
    assert {command: (one.status, one.out, one.err) for command, one in ran.items()} == dict.fromkeys(
        COMMANDS, (5, "", words)
    )


@asynccontextmanager
async def open_half_mute(path: str) -> AsyncIterator[str]:
    """A hub that lets everybody register and never speaks again."""

    async def serve(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b'{"id":1,"jsonrpc":"2.0","result":{"hub":"here","kind":"hub","ok":true}}\n')
        while await stream.receive_some():
            pass

    with trio.socket.socket(trio.socket.AF_UNIX) as sock:
        await sock.bind(path)
        sock.listen(16)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, serve, [trio.SocketListener(sock)])
            yield f"unix:{path}"
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("wait", [(), ("--wait",)])
async def test_a_spawn_that_is_given_up_does_not_wait_long_for_a_hub_that_fell_silent(wait, tmp_path):
    async with open_half_mute(f"{tmp_path}/mute") as address:
        with trio.fail_after(10):
            ran = await run(
                "spawn", *wait, "--connect", address, "--timeout", "0.5", "count", env=environment(tmp_path)
            )

    assert (ran.status, ran.out) == (5, "")


async def test_doctor_says_that_a_meta_hub_does_not_speak(tmp_path):
    async with open_mute(f"{tmp_path}/mute") as address:
        ran = await run("doctor", "--join", address, "--timeout", "0.5", env=environment(tmp_path))

    assert ran.status == 5
    assert "not done within 0.5 s" in ran.out


async def test_a_spawn_has_its_time_for_coming_up_too(tmp_path, monkeypatch):
    async with open_site(tmp_path, monkeypatch) as site:
        ran = await site.run("spawn", "--timeout", "20", "--name", "sleeper", "nap")

    assert (ran.status, ran.out) == (0, "hub-a/sleeper\n")
