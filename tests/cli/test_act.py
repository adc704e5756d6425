"""The commands that act, on a MetaHub and on a hub."""

from __future__ import annotations

import json
import signal

import pytest

from loopal_cluster import Cancelled, ProcessAgent

from .program import META_TOKEN, open_site, run

pytestmark = pytest.mark.limit(30)


@pytest.fixture
async def site(tmp_path, monkeypatch):
    async with open_site(tmp_path, monkeypatch) as site:
        yield site


@pytest.mark.parametrize("place", ["local", "hub", "meta hub"])
async def test_spawn_and_wait_gives_the_result(place, site):
    ran = await site.run(
        "spawn",
        *site.places[place],
        "--hub",
        "hub-b",
        "--name",
        "counter",
        "--wait",
        "--json",
        "count",
        "a b c",
    )

    assert ran.status == 0
    assert ran.document.items() >= {
        "agent": "counter", "hub": "hub-b", "outcome": "done", "result": "3 words on hub-b",
    }.items()  # fmt: skip


async def test_people_get_the_result_and_nothing_else_on_stdout(site):
    ran = await site.run("spawn", "--wait", "count", "a b c")

    assert (ran.status, ran.out, ran.err) == (0, "3 words on hub-a\n", "")


@pytest.mark.parametrize("place", ["hub", "meta hub"])
async def test_an_agent_is_spawned_sent_to_and_waited_for(place, site):
    at = site.places[place]

    spawned = await site.run("spawn", *at, "--hub", "hub-b", "--name", "ear", "listen")
    sent = await site.run("send", *at, "hub-b/ear", "hello there")
    waited = await site.run("wait", *at, "hub-b/ear")
    again = await site.run("wait", *at, "--json", "hub-b/ear")

    assert (spawned.status, spawned.out) == (0, "hub-b/ear\n")
    assert (sent.status, sent.out, sent.err) == (0, "", "sent to hub-b/ear\n")
    assert (waited.status, waited.out) == (0, "heard hello there\n")
    assert again.document == {
        "agent": "ear",
        "hub": "hub-b",
        "outcome": "done",
        "result": "heard hello there",
    }


async def test_a_failed_agent_is_status_1_with_its_error(site):
    at = ("spawn", *site.places["hub"], "--hub", "hub-b", "--wait", "fail", "the disk is full")

    people = await site.run(*at)
    machine = await site.run(*at, "--json")

    assert (people.status, people.out) == (1, "")
    assert "failed: " in people.err
    assert "the disk is full" in people.err
    assert machine.status == 1
    assert machine.document["outcome"] == "failed"
    assert "the disk is full" in machine.document["error"]


async def test_a_wait_that_times_out_is_status_5_and_leaves_the_agent_alone(site):
    async with site.b.open_client() as client:
        await client.spawn("nap", name="sleeper")

        ran = await site.run("wait", "hub-b/sleeper", "--timeout", "1", "--json")

        assert (ran.status, ran.document["outcome"]) == (5, "timed_out")
        assert (await client.agent_info("sleeper")).lifecycle == "Running"


async def test_a_spawn_that_times_out_is_status_5_and_cancels_the_agent(site):
    ran = await site.run("spawn", "--name", "sleeper", "--wait", "--timeout", "1", "--json", "nap")

    assert (ran.status, ran.document["outcome"]) == (5, "timed_out")
    async with site.a.open_client() as client:
        assert (await client.agent_info("sleeper")).outcome == Cancelled("it had not ended after 1 s")


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
async def test_a_spawn_that_is_interrupted_cancels_the_agent_and_all_it_spawned(signum, site):
    async with site.start("spawn", "--name", "chief", "--wait", "boss", "hub-b") as spawn:
        await site.started("worker")
        spawn.process.send_signal(signum)

        assert await spawn.process.wait() == 130
    async with site.a.open_client() as client:
        assert (await client.wait("chief")).kind == "cancelled"
        assert (await client.wait("hub-b/worker")).kind == "cancelled"


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
async def test_a_spawn_that_is_interrupted_before_its_agent_is_up_has_not_succeeded(
    signum, tmp_path, monkeypatch
):
    mute = ProcessAgent(["sleep", "1000"])
    async with open_site(tmp_path, monkeypatch, agents={"mute": mute}) as site:
        async with site.start("spawn", "--wait", "mute") as spawn:
            await site.a._runtime.until(lambda: len(site.a.core.agents) > 0)
            spawn.process.send_signal(signum)

            assert await spawn.process.wait() == 130
        await site.a._runtime.until(lambda: len(site.a.core.agents) == 0)


@pytest.mark.parametrize(("place", "hub"), [("local", "hub-a"), ("local", "hub-b"), ("meta hub", "hub-b")])
@pytest.mark.parametrize("command", ["wait", "cancel"])
async def test_a_program_is_told_the_hub_of_an_agent_that_it_has_named_without(command, hub, place, site):
    async with site.a.open_client() as client:
        await client.spawn("nap", hub=hub, name="sleeper")

        limit = ["--timeout", "1"] if command == "wait" else []
        ran = await site.run(command, *site.places[place], *limit, "sleeper", "--json")

    assert (ran.document["agent"], ran.document["hub"]) == ("sleeper", hub)


@pytest.mark.parametrize(
    ("command", "place"), [("cancel", "hub"), ("cancel", "meta hub"), ("shutdown", "hub")]
)
async def test_an_agent_is_stopped(command, place, site):
    async with site.b.open_client() as client:
        await client.spawn("nap", name="sleeper")

        ran = await site.run(command, *site.places[place], "hub-b/sleeper", "--json")

        assert ran.status == 0
        assert json.loads(ran.out)["agent"] in ("sleeper", "hub-b/sleeper")
        assert (await client.wait("sleeper")).kind == "cancelled"


@pytest.mark.parametrize("command", ["cancel", "shutdown"])
async def test_an_agent_that_has_ended_counts_as_stopped_and_one_that_never_was_is_not_found(command, site):
    async with site.b.open_client() as client:
        await (await client.spawn("nap", name="sleeper")).cancel()

        ended = await site.run(command, *site.places["hub"], "hub-b/sleeper")
        nobody = await site.run(command, *site.places["hub"], "hub-b/nobody")

    assert ended.status == 0
    assert (nobody.status, nobody.out) == (1, "")


@pytest.mark.parametrize("place", ["hub", "meta hub"])
async def test_an_interrupt_ends_the_agents_turn(place, site):
    async with site.b.open_client() as client:
        await client.spawn("nap", name="sleeper")

        ran = await site.run("interrupt", *site.places[place], "hub-b/sleeper")

        assert (ran.status, ran.err) == (0, "interrupted hub-b/sleeper\n")
        assert (await client.wait("sleeper")).kind == "cancelled"


async def test_a_result_for_a_program_is_passed_on_as_it_is_and_as_json_is_ascii(site):
    text = "grün \x1b[1m fett"
    async with site.a.open_client() as client:
        await client.spawn("listen", name="ear")
        await client.send("ear", text)

    piped = await site.run("wait", "ear")
    machine = await site.run("wait", "ear", "--json")

    assert piped.out == f"heard {text}\n"
    assert machine.document["result"] == f"heard {text}"
    assert machine.out.isascii()


TROUBLE: dict[str, tuple[tuple[str, ...], int, str]] = {
    "an unknown agent": (("send", "nobody", "hi"), 1, "'nobody'"),
    "an unknown hub": (("spawn", "--hub", "hub-z", "count"), 4, "'hub-z'"),
    "an unknown type": (("spawn", "--hub", "hub-b", "juggle"), 1, "'juggle'"),
    "a taken name": (("spawn", "--hub", "hub-b", "--name", "twin", "nap"), 3, "'twin'"),
    "no hub to spawn on": (("spawn", "count"), 2, "--hub"),
    "a bad hub name": (("spawn", "--hub", "hub b", "count"), 2, "'hub b'"),
    "a bad agent name": (("cancel", "no body"), 2, "'no body'"),
    "a missing argument": (("send", "nobody"), 2, "TEXT"),
    "a timeout that is no number": (("wait", "twin", "--timeout", "soon"), 2, "--timeout"),
}


@pytest.mark.parametrize("what", TROUBLE)
async def test_trouble_is_one_line_and_a_status(what, site):
    args, status, words = TROUBLE[what]
    async with site.a.open_client() as a, site.b.open_client() as b:
        await a.spawn("nap", name="twin")
        await b.spawn("nap", name="twin")

        ran = await site.run(*args, "--connect", site.meta_hub.address)

    assert (ran.status, ran.out) == (status, "")
    assert words in ran.err


async def test_the_connections_token_is_not_the_meta_hubs_when_the_hub_is_local(site):
    at = ("--connect", site.a.addresses[0])

    ran = await run(
        "spawn", *at, "--wait", "count", "a", env=site.env | {"LOOPAL_META_HUB_TOKEN": META_TOKEN}
    )

    assert (ran.status, ran.out) == (0, "1 words on hub-a\n")
