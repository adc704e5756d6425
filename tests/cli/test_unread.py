"""Real programs whose output nobody reads, or whose standard streams are closed: they go on serving others."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from loopal_cluster import connect

from ..processes import python, resident_bytes
from .program import environment

TOKEN = "the-token"


@asynccontextmanager
async def cold(*args: str, tmp_path, **streams):
    """The program, started cold, with these streams; it is killed at the end."""
    env = environment(tmp_path, LOOPAL_META_HUB_TOKEN=TOKEN)
    command = [sys.executable, "-m", "loopal_cluster", *args]
    process = await trio.lowlevel.open_process(command, env=env, **streams)
    try:
        yield process
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


async def read_until(fd: int, wanted: bytes) -> bytes:
    """What comes until this does, and no more than necessary."""
    read = b""
    while wanted not in read:
        await trio.lowlevel.wait_readable(fd)
        read += os.read(fd, 4096)
    return read


def free_port() -> int:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


async def reached(address: str):
    """Wait until somebody listens there."""
    host, port = address.split(":")
    with trio.fail_after(20):
        while True:
            try:
                await (await trio.open_tcp_stream(host, int(port))).aclose()
                return
            except OSError:
                await trio.sleep(0.02)


async def published_token(file: Path) -> str:
    """Wait for a hub's token: it listens before it has written the file anew."""
    with trio.fail_after(20):
        while True:
            document = json.loads(await trio.Path(file).read_text())
            if document["token"]:
                return document["token"]
            await trio.sleep(0.02)


async def test_a_log_that_nobody_reads_stops_nobody_and_says_what_is_missing(tmp_path):
    ours, its = os.pipe()
    address = f"127.0.0.1:{free_port()}"
    async with cold("metahub", "--bind", address, "-vv", tmp_path=tmp_path, stderr=its) as process:
        os.close(its)
        await read_until(ours, b"--join-hub")
        before = resident_bytes(process.pid)
        slowest = 0.0
        async with connect(address, token=TOKEN) as client:
            for _ in range(12):
                begun_at = trio.current_time()
                async with trio.open_nursery() as nursery:
                    for _ in range(1000):  # each is two lines of the transcript
                        nursery.start_soon(client.list_hubs)
                slowest = max(slowest, trio.current_time() - begun_at)
        assert resident_bytes(process.pid) - before < 32 * 2**20

        read = await read_until(ours, b"are missing here")

        assert slowest < 10
        missing = re.search(rb"\n\((\d+) lines are missing here: stderr was not read\)\n", read + b"\n")
        assert missing is not None or b"lines are missing here" in read
        process.terminate()
        with trio.fail_after(10):
            assert await process.wait() == 0
    os.close(ours)


async def test_a_program_ends_though_nobody_reads_its_log(tmp_path):
    ours, its = os.pipe()
    address = f"127.0.0.1:{free_port()}"
    os.set_blocking(its, False)
    try:
        while True:
            os.write(its, b"x" * 4096)  # full already
    except BlockingIOError:
        os.set_blocking(its, True)
    async with cold("metahub", "--bind", address, "-vv", tmp_path=tmp_path, stderr=its) as process:
        os.close(its)
        await reached(address)
        async with connect(address, token=TOKEN) as client:
            assert await client.list_hubs() == ()

        process.terminate()

        with trio.fail_after(10):
            assert await process.wait() == 0
    os.close(ours)


async def test_a_log_whose_reader_has_gone_changes_nothing(tmp_path):
    ours, its = os.pipe()
    address = f"127.0.0.1:{free_port()}"
    async with cold("metahub", "--bind", address, "-vv", tmp_path=tmp_path, stderr=its) as process:
        os.close(its)
        await read_until(ours, b"--join-hub")
        os.close(ours)
        for _ in range(3):
            async with connect(address, token=TOKEN) as client:
                assert await client.list_hubs() == ()

        process.send_signal(signal.SIGTERM)

        assert await process.wait() == 0


@pytest.mark.parametrize("closed", ["2", "1", "0", "0 1 2"])
async def test_closed_standard_streams_change_nothing(tmp_path, closed):
    address = f"127.0.0.1:{free_port()}"
    close = "import os, sys; [os.close(int(fd)) for fd in sys.argv[1].split()]; os.execv(sys.argv[2], sys.argv[2:])"
    program = [sys.executable, "-m", "loopal_cluster", "metahub", "--bind", address, "-vv"]
    env = environment(tmp_path, LOOPAL_META_HUB_TOKEN=TOKEN)
    process = await trio.lowlevel.open_process([*python(close), closed, *program], env=env)
    try:
        await reached(address)
        for _ in range(3):
            async with connect(address, token=TOKEN) as client:
                assert await client.list_hubs() == ()
        process.terminate()
        assert await process.wait() == 0
    finally:
        process.kill()


async def test_a_result_is_whole_however_late_it_is_read(tmp_path):
    config = tmp_path / "agents.toml"
    config.write_text('[agents.long]\nprotocol = "command"\ncommand = ["seq", "300000"]\n')
    ours, its = os.pipe()
    options = ["--server", "--ephemeral", "--agent", "long", "--config", str(config), "x"]
    async with cold("hub", *options, tmp_path=tmp_path, stdout=its) as process:
        os.close(its)
        await trio.sleep(2)  # longer than a program waits for a reader of anything else
        read = b""
        while True:
            await trio.lowlevel.wait_readable(ours)
            if not (data := os.read(ours, 65536)):
                break
            read += data
        assert await process.wait() == 0
    os.close(ours)
    assert read.split() == [b"%d" % number for number in range(1, 300_001)]


async def test_a_front_end_that_nobody_reads_does_not_stop_its_hub(tmp_path):
    """Its agent says more than a pipe and a half holds; other clients are served, and SIGTERM ends it."""
    (tmp_path / "talking.py").write_text(
        "import trio\n"
        "async def talk(ctx, prompt):\n"
        "    for _ in range(40):\n"
        "        ctx.stream('x' * 50_000 + chr(10))\n"
        "        await trio.sleep(0)\n"
        "    await trio.sleep_forever()\n"
    )
    config = tmp_path / "agents.toml"
    config.write_text('[agents.talker]\nprotocol = "python"\ntarget = "talking:talk"\n')
    ours, its = os.pipe()
    address = f"127.0.0.1:{free_port()}"
    options = [
        "--agent",
        "talker",
        "--config",
        str(config),
        "--listen",
        address,
        "--hub-name",
        "talking",
        "go",
    ]
    stdin, keep = os.pipe()
    async with cold("hub", *options, tmp_path=tmp_path, stdout=its, stdin=stdin) as process:
        os.close(its)
        os.close(stdin)
        await reached(address)
        token = await published_token(tmp_path / "loopal-cluster" / "talking.json")
        async with connect(address, token=token) as client:
            with trio.fail_after(20):  # it listens before its agent is up
                while not await client.local_agents():  # noqa: ASYNC110  # another process's agent
                    await trio.sleep(0.02)
            for _ in range(20):
                assert len(await client.local_agents()) == 1
                await trio.sleep(0.02)

        read = await read_until(ours, b"are missing here")
        assert b"x" * 1000 in read
        process.terminate()
        with trio.fail_after(10):
            assert await process.wait() == 0
    os.close(ours)
    os.close(keep)
