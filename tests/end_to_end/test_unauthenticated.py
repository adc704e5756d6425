"""What those without a token cost the others: a real MetaHub, real connections, memory and a member's 99th percentile."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import pytest
import trio
from attrs import define

from loopal_cluster import Client, connect
from loopal_cluster.links.background import open_background

from ..processes import resident_bytes, until

TOKEN = "the-token"
GUESS = (
    json.dumps({"id": 1, "method": "hub/register", "params": {"name": "x", "token": "guess"}}).encode()
    + b"\n"
)


@define
class Site:
    """A MetaHub in a process of its own."""

    pid: int
    address: str
    log: bytearray

    async def connect(self) -> trio.SocketStream:
        host, port = self.address.split(":")
        return await trio.open_tcp_stream(host, int(port))

    @property
    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))


@asynccontextmanager
async def open_site(limit: int = 4096) -> AsyncIterator[Site]:
    """``limit``: descriptors that it may have."""
    program = [sys.executable, "-m", "loopal_cluster", "metahub", "--bind", "127.0.0.1:0"]
    command = ["/bin/sh", "-c", f'ulimit -n {limit}; exec "$@"', "sh", *program]
    env = {**os.environ, "LOOPAL_META_HUB_TOKEN": TOKEN}
    async with open_background() as nursery:
        process = await trio.lowlevel.open_process(command, env=env, stderr=subprocess.PIPE)
        log = bytearray()

        async def read() -> None:
            with suppress(trio.ClosedResourceError):  # it has been killed
                async for chunk in process.stderr:
                    log.extend(chunk)

        nursery.start_soon(read)
        try:
            await until(lambda: b"--join-hub" in log)
            address = re.search(rb"listening on (\S+)", log)[1].decode()  # type: ignore[index]
            yield Site(process.pid, address, log)
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()
                await process.stderr.aclose()


async def p99_ms(client: Client, count: int = 300) -> float:
    """Of a member's look-ups, one after the other."""
    times = []
    for _ in range(count):
        begun_at = trio.current_time()
        await client.list_hubs()
        times.append(trio.current_time() - begun_at)
    return sorted(times)[int(count * 0.99)] * 1000


async def join_now(site: Site, within: float = 10) -> float:
    """Seconds until one with the right token is let in."""
    begun_at = trio.current_time()
    with trio.fail_after(within):
        async with connect(site.address, token=TOKEN) as client:
            await client.list_hubs()
    return trio.current_time() - begun_at


def figures(what: str, **numbers: float) -> None:
    print(what, {name: round(value, 2) for name, value in numbers.items()})


async def test_1500_silent_connections_keep_no_member_out():
    """With 1,024 descriptors: it had none left for anybody, and wrote 82 KB of tracebacks."""
    async with open_site(limit=1024) as site, connect(site.address, token=TOKEN) as member:
        before = resident_bytes(site.pid)
        async with AsyncExitStack() as stack:
            for _ in range(1500):
                await stack.enter_async_context(await site.connect())
            joined, p99 = await join_now(site), await p99_ms(member)
            memory, descriptors = resident_bytes(site.pid) - before, site.descriptors

    figures("silent", joined_s=joined, p99_ms=p99, memory_mb=memory / 2**20, descriptors=descriptors)
    assert joined < 5
    assert p99 < 250
    assert memory < 32 * 2**20
    assert descriptors < 400
    assert len(site.log) < 2000


async def test_half_a_line_of_each_is_all_that_is_kept():
    async with open_site(limit=1024) as site, connect(site.address, token=TOKEN) as member:
        before = resident_bytes(site.pid)
        async with AsyncExitStack() as stack:
            for _ in range(600):
                stream = await stack.enter_async_context(await site.connect())
                with suppress(trio.BrokenResourceError), trio.move_on_after(1):
                    await stream.send_all(b'{"id":1,"method":"' + b"x" * 60_000)
            joined, p99 = await join_now(site), await p99_ms(member)
            memory = resident_bytes(site.pid) - before

    figures("half lines", joined_s=joined, p99_ms=p99, memory_mb=memory / 2**20)
    assert joined < 5
    assert p99 < 250
    assert memory < 48 * 2**20


async def test_those_who_ask_and_do_not_read_delay_nobody():
    """Four of them made the others' median a second."""
    blast = b'{"id":1,"method":"hub/status"}\n' * 100_000

    async def be_rude(site: Site) -> None:
        while True:
            with suppress(trio.BrokenResourceError):
                async with await site.connect() as stream:
                    await stream.send_all(blast)

    async with open_site() as site, connect(site.address, token=TOKEN) as member:
        before = resident_bytes(site.pid)
        async with open_background() as nursery:
            for _ in range(4):
                nursery.start_soon(be_rude, site)
            joined, p99 = await join_now(site), await p99_ms(member)
            memory = resident_bytes(site.pid) - before

    figures("unread", joined_s=joined, p99_ms=p99, memory_mb=memory / 2**20)
    assert joined < 5
    assert p99 < 250
    assert memory < 16 * 2**20


async def test_guesses_are_few_and_logged_and_delay_no_right_token():
    """It was 2,150 a second, without a line in the log."""
    told = 0

    async def guess_on(site: Site) -> None:
        nonlocal told
        while True:
            with suppress(trio.BrokenResourceError):
                async with await site.connect() as stream:
                    await stream.send_all(GUESS)
                    answer = await stream.receive_some()
                    told += bool(answer)

    async with open_site() as site, connect(site.address, token=TOKEN) as member:
        async with open_background() as nursery:
            for _ in range(50):  # fewer than may be delayed at a time
                nursery.start_soon(guess_on, site)
            await trio.sleep(1)
            told = 0
            begun_at = trio.current_time()
            joined, p99 = await join_now(site), await p99_ms(member)
            await trio.sleep(max(0.0, begun_at + 2 - trio.current_time()))
            rate = told / (trio.current_time() - begun_at)

    figures("guesses", joined_s=joined, p99_ms=p99, guesses_a_second=rate)
    assert rate <= 33
    assert joined < 2
    assert p99 < 250
    assert b"WARNING wrong token, from 127.0.0.1\n" in site.log
    assert site.log.count(b"wrong token") == 1


@pytest.mark.slow
@pytest.mark.limit(180)
async def test_a_flood_of_guesses_ends_the_chances_of_nobody_for_long():
    """Who does not wait for the answer pushes itself out, and a right token from the same address comes in."""

    async def guess_on(site: Site) -> None:
        while True:
            with suppress(trio.BrokenResourceError, OSError), trio.move_on_after(0.5):
                async with await site.connect() as stream:
                    await stream.send_all(GUESS)
                    await stream.receive_some()

    async with open_site() as site, connect(site.address, token=TOKEN) as member:
        async with open_background() as nursery:
            for _ in range(150):
                nursery.start_soon(guess_on, site)
            await trio.sleep(5)
            joins = [await join_now(site, 30) for _ in range(3)]
            p99 = await p99_ms(member)

    figures("flood", slowest_join_s=max(joins), p99_ms=p99)
    assert max(joins) < 30


async def test_programs_take_all_descriptors_and_their_agents_begin_with_the_usual_number(tmp_path: Path):
    config = tmp_path / "agents.toml"
    config.write_text(
        '[agents.limit]\nprotocol = "command"\ncommand = ["sh", "-c", "ulimit -S -n; ulimit -H -n"]\n'
    )
    program = [sys.executable, "-m", "loopal_cluster", "hub", "--server", "--ephemeral", "--agent", "limit"]
    command = ["/bin/sh", "-c", 'ulimit -S -n 512; ulimit -H -n 2000; exec "$@"', "sh", *program]
    env = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}

    ran = await trio.run_process([*command, "--config", str(config), "x"], env=env, capture_stdout=True)

    assert ran.stdout.split() == [b"512", b"2000"]
