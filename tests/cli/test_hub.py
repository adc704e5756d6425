"""The command ``hub``, as a process: eight ways to run it, and what can go wrong."""

from __future__ import annotations

import json
import os
import signal
import socket
from contextlib import asynccontextmanager
from itertools import product
from pathlib import Path

import pytest
import trio
import trio.testing

from loopal_cluster import Decision, Role, connect, open_meta_hub
from loopal_cluster.agents.guard import living_groups
from loopal_cluster.payloads import Stream

CONFIG = """
[hub]
default_agent = "count"

[agents.count]
protocol = "command"
command = ["wc", "-w"]

[agents.false]
protocol = "command"
command = ["sh", "-c", "echo broken >&2; exit 1"]

[agents.sleep]
protocol = "command"
command = ["sh", "-c", "echo $$; sleep 600 & wait"]

[agents.stubborn]
protocol = "command"
command = ["sh", "-c", "trap '' TERM; echo $$; while :; do sleep 1; done"]

[agents.talk]
protocol = "python"
target = "cli_agents:talk"

[agents.careful]
protocol = "python"
target = "cli_agents:careful"

[agents.unsure]
protocol = "python"
target = "cli_agents:unsure"
"""

AGENTS = """
async def talk(ctx, prompt):
    return f"{prompt} indeed\\n"

async def careful(ctx, prompt):
    decision = await ctx.ask_permission("Bash", {"command": prompt})
    return f"{decision.allow} by {decision.by}: {decision.reason}"

async def unsure(ctx, prompt):
    return ctx.name + " takes " + (await ctx.ask_human(prompt, {"red": "warm", "blue": ""}))[0]
"""


@pytest.fixture
def config(program):
    """A config file with an agent type for everything that is tried."""
    (program.directory / "cli_agents.py").write_text(AGENTS)
    path = program.directory / "hub.toml"
    path.write_text(CONFIG)
    return ["--config", str(path)]


@asynccontextmanager
async def cluster(joined):
    """What to add to a command to join a cluster, or not; the MetaHub is one of this process."""
    if not joined:
        yield [], {}
        return
    async with open_meta_hub() as meta_hub:
        yield ["--join-hub", meta_hub.address], {"LOOPAL_META_HUB_TOKEN": meta_hub.token}


def discovery_file(program):
    path = Path(program.directory, "loopal-cluster", "box.json")
    return json.loads(path.read_text())


@asynccontextmanager
async def client_of(program, **options):
    found = discovery_file(program)
    async with connect(f"unix:{found['unix']}", token=found["token"], **options) as client:
        yield client


async def first(kind, client):
    """The first event of this kind that the hub has seen, or sees."""
    async for event in await client.subscribe(0):
        if isinstance(event.payload, kind):
            return event.payload
    raise AssertionError("the events have ended")


# Front end, lifecycle, cluster: two of each.


@pytest.mark.parametrize(("server", "joined"), [*product([True, False], repeat=2)])
async def test_an_ephemeral_hub_ends_with_the_result_of_its_root_agent(program, config, server, joined):
    async with cluster(joined) as (options, env):
        options += ["--server"] if server else []
        done = await program.run("hub", *config, *options, "--ephemeral", "one", "two three", **env)

    assert (done.returncode, done.stdout) == (0, "3\n")
    assert (f"(joined {options[1]})" if joined else "(alone)") in done.stderr
    assert os.listdir(program.directory / "loopal-cluster") == [".lock"]


@pytest.mark.parametrize("joined", [True, False])
async def test_a_persistent_server_stays_up_across_jobs(program, config, joined):
    async with cluster(joined) as (options, env):
        command = ("hub", "--server", "--hub-name", "box", *config, *options)
        async with program.start(*command, **env) as hub:
            await hub.says("ready")
            async with client_of(program) as client:
                results = [await (await client.spawn(None, "word " * n)).result() for n in (1, 2)]
            hub.process.terminate()

            assert results == ["1", "2"]
            assert (await hub.ends(), hub.out) == (0, "")


@pytest.mark.parametrize("joined", [True, False])
async def test_a_persistent_hub_is_talked_to_line_by_line_until_the_input_ends(program, config, joined):
    async with cluster(joined) as (options, env):
        async with program.start("hub", "--agent", "talk", *config, *options, "--", "hot", **env) as hub:
            await hub.says("hot indeed\n", on="out")
            await hub.types("sunny\n\n")
            await hub.says("sunny indeed\n", on="out")
            await hub.ends_input()

            assert (await hub.ends(), hub.out) == (0, "hot indeed\nsunny indeed\n")


async def test_what_a_persistent_command_says_is_shown_once(program, config):
    async with program.start("hub", *config, "two", "words") as hub:
        await hub.says("2\n", on="out")
        await hub.types("just three words\n")
        await hub.says("3\n", on="out")
        await hub.ends_input()

        assert (await hub.ends(), hub.out) == (0, "2\n3\n")


async def test_a_worker_of_a_cluster_runs_jobs_that_come_through_the_meta_hub(program, config):
    async with open_meta_hub() as meta_hub, meta_hub.open_client() as client:
        join = ("--join-hub", meta_hub.address)
        command = ("hub", "--server", "--hub-name", "box", *join, *config)
        async with program.start(*command, LOOPAL_META_HUB_TOKEN=meta_hub.token) as hub:
            await hub.says("ready")

            results = [await (await client.spawn("count", "a b", hub="box")).result() for _ in range(3)]

            assert results == ["2", "2", "2"]
            assert [info.name for info in await client.list_hubs()] == ["box"]


@pytest.mark.parametrize("ephemeral", [True, False])
async def test_the_lifecycle_of_the_root_agent_is_said_and_not_guessed(program, config, ephemeral):
    options = ["--ephemeral"] if ephemeral else []
    command = ("hub", "--server", "--hub-name", "box", *options, *config, "--agent", "sleep", "now")
    async with program.start(*command) as hub:
        await hub.says("ready")
        async with client_of(program) as client:
            await first(Stream, client)
            agents = await client.local_agents()

    assert [(agent.name, agent.persistent) for agent in agents] == [("root", not ephemeral)]


async def test_the_first_line_typed_is_the_prompt_if_none_was_given(program, config):
    done = await program.run("hub", "--ephemeral", *config, stdin="four words are here\n")

    assert (done.returncode, done.stdout) == (0, "4\n")


async def test_an_ephemeral_agent_does_not_end_with_the_input(program, config):
    done = await program.run("hub", "--ephemeral", *config, "a", "b", stdin="")

    assert (done.returncode, done.stdout) == (0, "2\n")


async def test_a_persistent_agent_ends_with_the_input_and_that_is_said(program, config):
    done = await program.run("hub", *config, "--agent", "talk", "hello", stdin="")

    assert (done.returncode, done.stdout) == (0, "")
    said = "The input has ended, and with it the agent; --ephemeral waits for its result."
    assert done.stderr.splitlines()[-1] == said


# Outcomes.


@pytest.mark.parametrize("front_end", [[], ["--server"]])
async def test_a_job_that_fails_is_one_line_and_status_1(program, config, front_end):
    done = await program.run("hub", "--ephemeral", *front_end, *config, "--agent", "false", "go")

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1].startswith("error: the agent failed: ")
    assert "broken" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("signum", "lifecycle"), [(signal.SIGTERM, "--ephemeral"), (signal.SIGTERM, None), (signal.SIGINT, None)]
)
async def test_a_signal_ends_the_hub_and_every_process_of_its_agents(program, config, signum, lifecycle):
    options = [lifecycle] if lifecycle else []
    command = ("hub", "--server", "--hub-name", "box", *options, *config, "--agent", "sleep", "x")
    async with program.start(*command) as hub:
        await hub.says("ready")
        async with client_of(program) as client:
            group = int((await first(Stream, client)).text)
        hub.process.send_signal(signum)
        status = await hub.ends()

    # A hub that stays up is ended by SIGTERM as it should be; a job is cut short by it.
    assert status == (0 if signum == signal.SIGTERM and lifecycle is None else 130)
    assert living_groups([group]) == set()
    assert os.listdir(program.directory / "loopal-cluster") == [".lock"]


async def test_a_second_signal_ends_the_hub_at_once_whatever_still_runs(program, config):
    command = ("hub", "--server", "--hub-name", "box", *config, "--agent", "stubborn", "x")
    async with program.start(*command) as hub:
        await hub.says("ready")
        async with client_of(program) as client:
            group = int((await first(Stream, client)).text)
            hub.process.terminate()
        hub.process.terminate()
        with trio.fail_after(10.0):
            await hub.ends()
        with trio.fail_after(10.0):
            while living_groups([group]):
                await trio.testing.wait_all_tasks_blocked(0.05)


# Humans.


@pytest.mark.parametrize(("answer", "result"), [("y", "True by"), ("n", "False by"), ("what?\nY", "True by")])
async def test_a_permission_is_asked_inline(program, config, answer, result):
    async with program.start("hub", "--ephemeral", *config, "--agent", "careful", "rm x") as hub:
        await hub.says('"command":"rm x"')
        await hub.says("allow?")
        for line in answer.split("\n"):
            await hub.types(line + "\n")

        assert await hub.ends() == 0
        assert hub.out.startswith(result)


async def test_a_question_is_asked_inline_and_answered_by_number(program, config):
    async with program.start("hub", "--ephemeral", *config, "--agent", "unsure", "colour?") as hub:
        await hub.says("1. red (warm)\n")
        await hub.says("2. blue\n")
        await hub.types("2\n")

        assert (await hub.ends(), hub.out) == (0, "root takes blue\n")


@pytest.mark.parametrize(
    ("front_end", "why"),
    [
        (["--server"], "nobody was there to answer within 0.3 s: no operator was attached"),
        ([], "no operator answered within 0.3 s"),
    ],
)
async def test_nobody_there_is_never_a_yes(program, config, front_end, why):
    settings = program.directory / "hub.toml"
    settings.write_text(CONFIG.replace("[hub]\n", "[hub]\npermission_timeout = 0.3\n"))

    done = await program.run("hub", "--ephemeral", *front_end, *config, "--agent", "careful", "rm x")

    assert (done.returncode, done.stdout) == (0, f"False by policy: {why}\n")


async def test_a_server_passes_its_permissions_to_an_operator_that_attaches(program, config):
    async def allow(permission):
        await trio.lowlevel.checkpoint()
        return Decision(allow=permission.tool_name == "Bash")

    command = ("hub", "--server", "--ephemeral", "--hub-name", "box", *config, "--agent", "careful", "rm x")
    async with program.start(*command) as hub:
        await hub.says("ready")
        async with client_of(program, role=Role.OPERATOR, name="eve", on_permission=allow):
            assert await hub.ends() == 0

    assert hub.out == "True by eve: None\n"


# Names, addresses, tokens.


async def test_a_hub_that_still_dials_can_be_ended(program):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        async with program.start("hub", "--server", "-vv", "--join-hub", address) as hub:
            await hub.says("request 1 meta/register")
            hub.process.terminate()

            assert await hub.ends() == 0
    assert os.listdir(program.directory / "loopal-cluster") == [".lock"]


async def test_a_default_name_is_made_unique_on_this_machine_and_in_the_cluster(program, config):
    host = socket.gethostname().partition(".")[0]
    async with open_meta_hub() as meta_hub:
        env = {"LOOPAL_META_HUB_TOKEN": meta_hub.token}
        command = ("hub", "--server", "--join-hub", meta_hub.address)
        elsewhere = program.directory / "elsewhere"
        elsewhere.mkdir()
        async with program.start("hub", "--server") as first:
            await first.says("ready")
            async with program.start(*command, **env) as second:
                said_by_second = await second.says("ready")
                # Another machine, as far as the names of this one go.
                async with program.start(*command, XDG_RUNTIME_DIR=str(elsewhere), **env) as third:
                    await third.says("ready")
                    async with program.start(*command, XDG_RUNTIME_DIR=str(elsewhere), **env) as fourth:
                        said_by_fourth = await fourth.says("ready")

    assert f"Hub '{host}-2' ready" in said_by_second
    assert f"Hub '{host}-3' ready" in said_by_fourth


async def test_an_explicit_name_that_is_taken_is_refused(program):
    async with open_meta_hub() as meta_hub:
        env = {"LOOPAL_META_HUB_TOKEN": meta_hub.token}
        command = ("hub", "--server", "--hub-name", "box", "--join-hub", meta_hub.address)
        elsewhere = program.directory / "elsewhere"
        elsewhere.mkdir()
        async with program.start(*command, **env) as hub:
            await hub.says("ready")

            here = await program.run(*command, **env)
            there = await program.run(*command, "--join-timeout", "1", XDG_RUNTIME_DIR=str(elsewhere), **env)

    assert (here.returncode, there.returncode) == (3, 3)
    assert here.stderr == f"error: a hub named 'box' runs here already (process {hub.process.pid})\n"
    assert there.stderr.endswith("hub name 'box' is taken by a live hub (--hub-name gives it another)\n")


async def test_a_wrong_token_is_status_3_after_the_time_to_join(program):
    async with open_meta_hub() as meta_hub:
        join = ("--join-hub", meta_hub.address, "--join-timeout", "1")
        done = await program.run("hub", "--server", *join, LOOPAL_META_HUB_TOKEN="wrong")

    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.splitlines()[-1] == "error: the MetaHub refuses this hub: invalid token"
    assert "wrong" not in done.stderr


async def test_a_hub_that_is_refused_serves_its_machine_and_says_that_it_has_not_joined(program, config):
    async with open_meta_hub() as meta_hub:
        command = ("hub", "--server", "--hub-name", "box", "--join-hub", meta_hub.address, *config)
        async with program.start(*command, LOOPAL_META_HUB_TOKEN="wrong") as hub:
            said = await hub.says("ready")
            async with client_of(program) as client:
                result = await (await client.spawn("count", "two words")).result()
            hub.process.terminate()
            status = await hub.ends()

    reason = "the MetaHub refuses this hub: invalid token"
    assert f"Hub 'box' ready (not joined: {reason}), listening on" in said
    assert (result, status) == ("2", 0)


async def test_a_hub_outlives_a_meta_hub_that_is_back_with_another_token(program, config):
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    old, new = {"LOOPAL_META_HUB_TOKEN": "old"}, {"LOOPAL_META_HUB_TOKEN": "new"}
    async with program.start("metahub", "--bind", address, **old) as meta_hub:
        await meta_hub.says("Connect a hub")
        command = ("hub", "--server", "--hub-name", "box", "--join-hub", address, *config)
        async with program.start(*command, **old) as hub:
            await hub.says("ready (joined")
            meta_hub.process.kill()
            async with program.start("metahub", "--bind", address, **new) as changed:
                await hub.says("the MetaHub refuses this hub: invalid token; dialling again")
                async with client_of(program) as client:
                    result = await (await client.spawn("count", "two words")).result()
                changed.process.kill()
            async with program.start("metahub", "--bind", address, **old):
                await hub.says("joined the cluster again")

    assert result == "2"


async def test_a_token_that_is_missing_is_refused_with_what_to_do(program):
    async with open_meta_hub() as meta_hub:
        join = ("--join-hub", meta_hub.address, "--join-timeout", "1")
        done = await program.run("hub", "--server", *join)

    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.endswith("(no token was given: set LOOPAL_META_HUB_TOKEN, or use --token-file)\n")


async def test_a_meta_hub_that_is_not_there_is_status_4(program):
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"

    done = await program.run("hub", "--server", "--join-hub", address, "--join-timeout", "1")

    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr.splitlines()[-1] == f"error: cannot reach {address}: Connection refused"


async def test_a_hub_that_starts_before_its_meta_hub_joins_it_later(program):
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    env = {"LOOPAL_META_HUB_TOKEN": "old"}
    async with program.start("hub", "--server", "-v", "--join-hub", address, **env) as hub:
        said = await hub.says("ready")
        async with program.start("metahub", "--bind", address, **env):
            await hub.says("joined the cluster as")

    assert f"ready (not joined: cannot reach {address}: Connection refused)" in said


async def test_it_listens_on_tcp_on_request_and_says_so_in_its_discovery_file(program, config):
    async with program.start("hub", "--server", "--hub-name", "box", "--listen", "127.0.0.1:0") as hub:
        await hub.says("ready")
        found = discovery_file(program)

        async with connect(found["tcp"], token=found["token"]) as client:
            assert (await client.status()).hub == "box"
        assert found["token"] not in hub.err
        assert f"the token in {program.directory}/loopal-cluster/box.json" in hub.err


async def test_a_port_in_use_is_one_line_and_leaves_nothing(program):
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"

        done = await program.run("hub", "--server", "--listen", address)

    assert done.returncode == 2
    assert done.stderr.startswith(f"error: cannot listen on {address}: the port is in use")
    assert os.listdir(program.directory / "loopal-cluster") == [".lock"]


async def test_options_override_the_config_file(program, config):
    settings = program.directory / "hub.toml"
    settings.write_text(CONFIG.replace("[hub]\n", '[hub]\nname = "filed"\njoin = "127.0.0.1:1"\n'))

    async with open_meta_hub() as meta_hub:
        env = {"LOOPAL_META_HUB_TOKEN": meta_hub.token}
        options = ("--hub-name", "box", "--join-hub", meta_hub.address, "--agent", "talk")
        done = await program.run("hub", "--ephemeral", *options, *config, "warm", **env)

    assert (done.returncode, done.stdout) == (0, "warm indeed\n")
    assert "Hub 'box' ready" in done.stderr


# Wrong usage.


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (["--agent", "no-such", "go"], "no agent type 'no-such' (there are: count, false, sleep, stubborn, "),
        (["--server", "--ephemeral"], "--server --ephemeral needs a PROMPT"),
        (["--hub-name", "a/b"], "hub name 'a/b' is not 1 to 64 of"),
        (["--join-hub", "nowhere"], "'nowhere' is not HOST:PORT"),
        (["--token-file", "/nowhere"], "cannot read the token file /nowhere: No such file or directory"),
        (["--config", "/nowhere"], "cannot read the config file /nowhere: No such file or directory"),
        (["--listen", "nowhere"], "'nowhere' is not HOST:PORT"),
    ],
)
async def test_wrong_usage_is_one_line_and_status_2(program, config, options, fault):
    done = await program.run("hub", *config, *options)

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {fault}")
    assert done.stderr.count("\n") == 1


async def test_a_prompt_without_an_agent_for_it_is_wrong_usage(program):
    done = await program.run("hub", "do something")

    assert done.returncode == 2
    assert done.stderr == "error: no agent for the prompt: name one with --agent (there are: none)\n"


async def test_no_prompt_given_and_none_typed_is_wrong_usage(program, config):
    done = await program.run("hub", "--ephemeral", *config)

    assert done.returncode == 2
    assert done.stderr.endswith("error: --ephemeral needs a prompt: none was given, and none was typed\n")


async def test_a_fault_in_the_config_file_is_one_line_with_the_file_and_the_key(program, config):
    settings = program.directory / "hub.toml"
    settings.write_text('[hub]\npermision = "bypass"\n')

    done = await program.run("hub", *config)

    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {settings}: hub: unknown key 'permision'")
    assert done.stderr.count("\n") == 1
