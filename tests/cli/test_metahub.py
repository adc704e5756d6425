"""The command ``metahub``, as a process."""

from __future__ import annotations

import re
import signal
import socket
from importlib.metadata import entry_points

import pytest

from loopal_cluster import Unauthorized, connect
from loopal_cluster.__main__ import main

READY = re.compile(
    r"""MetaHub listening on (?P<address>127\.0\.0\.1:\d+)
Token: (?P<token>\S+)
\(new at every start; with one of your own in LOOPAL_META_HUB_TOKEN, hubs can rejoin\)

Connect a hub with:
  LOOPAL_META_HUB_TOKEN=(?P=token) loopal-cluster hub --join-hub (?P=address)
"""
)


async def test_it_says_where_it_listens_and_how_a_hub_joins(program):
    async with program.start("metahub", "--bind", "127.0.0.1:0") as meta_hub:
        ready = READY.fullmatch(await meta_hub.says("--join-hub 127.0.0.1:"))
        assert ready is not None

        async with connect(ready["address"], token=ready["token"]) as client:
            assert await client.list_hubs() == ()
        meta_hub.process.terminate()

        assert (await meta_hub.ends(), meta_hub.out) == (0, "")


@pytest.mark.parametrize("way", ["environment", "file"])
async def test_a_token_that_was_given_is_used_and_never_shown(program, way):
    token_file = program.directory / "token"
    token_file.write_text("from the file\n")
    options = ["--token-file", str(token_file)] if way == "file" else []
    token = "from the file" if way == "file" else "from the environment"
    bind = ("metahub", "--bind", "127.0.0.1:0")

    async with program.start(*bind, *options, LOOPAL_META_HUB_TOKEN="from the environment") as meta_hub:
        said = await meta_hub.says("--join-hub")
        address = said.split()[3]

        assert "Token:" not in said
        assert token not in said
        assert f"\n  LOOPAL_META_HUB_TOKEN=... loopal-cluster hub --join-hub {address}" in said
        async with connect(address, token=token):
            pass
        with pytest.raises(Unauthorized):
            async with connect(address, token="another"):
                pass


async def test_the_line_for_hubs_never_names_every_address_for_one(program):
    async with program.start("metahub", "--bind", "0.0.0.0:0") as meta_hub:
        said = await meta_hub.says("--join-hub")

        assert said.startswith("MetaHub listening on 0.0.0.0:")
        assert "--join-hub 0.0.0.0" not in said


async def test_ctrl_c_ends_it_quietly(program):
    async with program.start("metahub", "--bind", "127.0.0.1:0") as meta_hub:
        said = await meta_hub.says("--join-hub")

        meta_hub.process.send_signal(signal.SIGINT)

        assert await meta_hub.ends() == 130
        assert meta_hub.err == said


async def test_health_timeouts_are_options(program):
    timeouts = ["--heartbeat-interval", "0.05", "--suspect-timeout", "0.1", "--lost-timeout", "0.2"]

    async with program.start("metahub", "-v", "--bind", "127.0.0.1:0", *timeouts) as meta_hub:
        await meta_hub.says("--join-hub")
        meta_hub.process.terminate()

        assert await meta_hub.ends() == 0


async def test_a_port_in_use_is_one_line(program):
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"

        done = await program.run("metahub", "--bind", address)

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"error: cannot listen on {address}: the port is in use (another one, or port 0 for any, would do)\n"
    )


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (["--bind", "nowhere"], "'nowhere' is not HOST:PORT"),
        (
            ["--suspect-timeout", "100"],
            "impossible timeouts: heartbeat_interval < suspect_timeout < lost_timeout",
        ),
        (["--token-file", "/nowhere/token"], "cannot read the token file /nowhere/token: No such file"),
        (["--token-file", "/dev/null"], "the token file /dev/null is empty"),
    ],
)
async def test_wrong_usage_is_one_line_and_status_2(program, options, fault):
    done = await program.run("metahub", *options)

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {fault}")
    assert done.stderr.count("\n") == 1


def test_both_names_are_the_same_program():
    (script,) = entry_points(group="console_scripts", name="loopal-cluster")

    assert script.load() is main
