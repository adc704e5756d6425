"""The command ``metahub``, as a process."""

from __future__ import annotations

import re
import signal
import socket
from importlib.metadata import entry_points
from typing import Any

import pytest

from loopal_cluster import Unauthorized, connect
from loopal_cluster.__main__ import main

READY = re.compile(
    r"""MetaHub listening on (?P<address>127\.0\.0\.1:\d+)
Token: (?P<token>\S+)
\(kept in (?P<path>\S+) for the next start\)

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


async def test_a_token_that_was_made_is_kept_for_its_user_alone_and_used_again(program):
    said: list[Any] = []
    for _ in range(2):
        async with program.start("metahub", "--bind", "127.0.0.1:0") as meta_hub:
            said.append(READY.fullmatch(await meta_hub.says("--join-hub 127.0.0.1:")))
    path = program.directory / "state" / "loopal-cluster" / "metahub-token"

    assert said[0]["token"] == said[1]["token"] == path.read_text().strip()
    assert said[0]["path"] == str(path)
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert [entry.name for entry in path.parent.iterdir()] == ["metahub-token"]


async def test_a_token_that_cannot_be_kept_is_a_new_one_at_every_start_unless_a_place_was_named(program):
    (program.directory / "file").write_text("")
    nowhere = str(program.directory / "file")

    async with program.start("metahub", "--bind", "127.0.0.1:0", XDG_STATE_HOME=nowhere) as meta_hub:
        said = await meta_hub.says("--join-hub 127.0.0.1:")
    done = await program.run("metahub", "--state-dir", f"{nowhere}/state")

    assert (
        f"(new at every start, for cannot keep a token in {nowhere}/loopal-cluster: Not a directory;" in said
    )
    assert (done.returncode, done.stderr) == (
        2,
        f"error: cannot keep a token in {nowhere}/state: Not a directory\n",
    )


async def test_a_kept_token_that_others_can_read_is_not_used(program):
    state = program.directory / "other"
    state.mkdir()
    (state / "metahub-token").write_text("known")
    (state / "metahub-token").chmod(0o644)

    done = await program.run("metahub", "--state-dir", str(state))

    assert done.returncode == 2
    assert done.stderr.startswith(f"error: others can read the token file {state}/metahub-token: ")


async def test_tokens_are_changed_without_an_outage(program):
    """Add the new one at the MetaHub, put it first at the hub, remove the old one."""
    at_meta_hub, at_hub = program.directory / "meta", program.directory / "hub"
    at_meta_hub.write_text("old\n")
    at_hub.write_text("old\n")
    bind = ("metahub", "--bind", "127.0.0.1:0", "--token-file", str(at_meta_hub))
    async with program.start(*bind) as meta_hub:
        address = (await meta_hub.says("--join-hub")).split()[3]
        join = ("hub", "--server", "-v", "--join-hub", address, "--token-file", str(at_hub))
        async with program.start(*join) as hub:
            await hub.says("ready (joined")
            at_meta_hub.write_text("old\nnew\n")
            for token in ("old", "new"):
                async with connect(address, token=token):
                    pass
            at_meta_hub.write_text("new\n")
            with pytest.raises(Unauthorized):
                async with connect(address, token="old"):
                    pass
            async with connect(address, token="new") as client:
                assert len(await client.list_hubs()) == 1  # whoever is in stays in
        async with program.start(*join) as hub:
            await hub.says("ready (not joined: the MetaHub refuses this hub: invalid token)")
            at_hub.write_text("new\nold\n")
            await hub.says("joined the cluster as")


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
