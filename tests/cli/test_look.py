"""The commands that look, on a MetaHub, on a hub in a cluster, on a hub alone."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio

from loopal_cluster import open_hub
from loopal_cluster.cli import show
from loopal_cluster.cli.look import tree_lines
from loopal_cluster.messages import AgentNode, ClusterEvent, HubTopology, Opaque, TopologyOf
from loopal_cluster.payloads import Stream

from .program import AGENTS, EVIL, HUB_TOKEN, META_TOKEN, Ran, Site, environment, open_site, run, start

pytestmark = pytest.mark.limit(30)


@pytest.fixture
async def site(tmp_path, monkeypatch):
    async with open_site(tmp_path, monkeypatch) as site:
        yield site


async def everywhere(site: Site, *args: str) -> dict[str, Ran]:
    """Run a command on the local hub, on a hub by address, and on the MetaHub."""
    ran: dict[str, Ran] = {}

    async def run_there(place: str) -> None:
        ran[place] = await site.run(*args, *site.places[place])

    async with trio.open_nursery() as nursery:
        for place in site.places:
            nursery.start_soon(run_there, place)
    return ran


async def test_hubs_are_the_same_from_everywhere(site):
    async with site.a.open_client() as client:
        await client.spawn("nap", hub="hub-b")

        ran = await everywhere(site, "hubs", "--json")

    for one in ran.values():
        hubs = {hub["name"]: hub for hub in one.document}
        assert one.status == 0
        assert {name: hub["status"] for name, hub in hubs.items()} == {
            "hub-a": "Connected",
            "hub-b": "Connected",
        }
        assert [hubs["hub-a"]["agent_count"], hubs["hub-b"]["agent_count"]] == [0, 1]
        assert hubs["hub-b"]["capabilities"] == ["gpu"]


async def test_agents_are_the_same_from_everywhere_and_each_is_listed_once(site):
    async with site.a.open_client() as client:
        await client.spawn("boss", "hub-b", name="chief")
        await site.started("worker")

        ran = await everywhere(site, "agents", "--json")

    for one in ran.values():
        agents = {agent["name"]: agent for agent in one.document}
        chief, worker = agents["chief"], agents["worker"]
        assert len(one.document) == 2
        assert (chief["hub"], chief["type"], chief["parent"]) == ("hub-a", "boss", None)
        assert (worker["hub"], worker["type"], worker["parent"]) == ("hub-b", "nap", "hub-a/chief")
        assert worker["lifecycle"] == "Running"


async def test_people_get_tables_and_a_tree(site):
    async with site.a.open_client() as client:
        await client.spawn("boss", "hub-b", name="chief")
        await site.started("worker")

        hubs = await site.run("hubs")
        agents = await site.run("agents")
        topology = await site.run("topology")

    assert [line.split()[:3] for line in hubs.out.splitlines()] == [
        ["hub-a", "Connected", "1"],
        ["hub-b", "Connected", "1"],
    ]
    assert hubs.err.split()[0] == "HUB"
    assert [line.split() for line in agents.out.splitlines()] == [
        ["hub-a/chief", "boss", "Running", "-"],
        ["hub-b/worker", "nap", "Running", "hub-a/chief"],
    ]
    assert topology.out.splitlines() == [
        "hub-a",
        "└── chief  (boss, Running)",
        "    └── hub-b/worker  (nap, Running)",
        "hub-b",
        "└── worker  (nap, Running)  child of hub-a/chief",
    ]


async def test_what_a_client_has_started_elsewhere_is_shown_as_nobodys_child(site):
    async with site.a.open_client(name="ann") as client:
        await client.spawn("nap", hub="hub-b", name="sleeper")

        topology = await site.run("topology")

    assert topology.out.splitlines()[-2:] == [
        "hub-b",
        "└── sleeper  (nap, Running)  spawned from hub-a",
    ]


async def test_the_topology_as_json_has_every_hub_with_its_agents(site):
    async with site.a.open_client() as client:
        await client.spawn("nap", name="sleeper")

        ran = await site.run("topology", "--json")

    parts = {part["hub"]: part for part in ran.document}
    assert [agent["name"] for agent in parts["hub-a"]["agents"]] == ["sleeper"]
    assert parts["hub-b"]["agents"] == []


async def test_a_hub_that_is_alone_shows_itself(tmp_path):
    listen = [f"unix:{tmp_path}/hub.sock"]
    env = environment(tmp_path, LOOPAL_META_HUB_TOKEN=HUB_TOKEN)
    async with open_hub("hermit", agents=AGENTS, listen=listen, token=HUB_TOKEN, capabilities=["gpu"]) as hub:
        async with hub.open_client() as client:
            await client.spawn("nap", name="sleeper")
            at = ("--connect", hub.addresses[0], "--json")

            hubs = await run("hubs", *at, env=env)
            agents = await run("agents", *at, env=env)
            topology = await run("topology", *at, env=env)

    (found,) = hubs.document
    assert (found["name"], found["agent_count"], found["capabilities"]) == ("hermit", 1, ["gpu"])
    assert [(agent["name"], agent["hub"]) for agent in agents.document] == [("sleeper", "hermit")]
    assert topology.document[0]["hub"] == "hermit"


async def test_events_are_shown_once_each_and_the_program_ends(site):
    async with site.a.open_client() as client:
        await (await client.spawn("count", "a b", name="counter")).result()

        ran = await everywhere(site, "events", "--json")
        people = await site.run("events", "--connect", site.meta_hub.address)

    for one in ran.values():
        events = [json.loads(line) for line in one.out.splitlines()]
        ended = [event for event in events if event["event"] == "Ended"]
        assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
        assert [(event["hub"], event["agent"]) for event in ended] == [("hub-a", "counter")]
        assert ended[0]["data"] == {"outcome": "done", "text": "2 words on hub-a"}
    assert "hub-a/counter  Ended: outcome done, text 2 words on hub-a" in people.out


async def test_events_are_followed_until_the_hub_is_gone_which_is_status_4(tmp_path):
    env = environment(tmp_path, LOOPAL_META_HUB_TOKEN=HUB_TOKEN)
    async with open_hub("hermit", agents=AGENTS, listen=["127.0.0.1:0"], token=HUB_TOKEN) as hub:
        at = ("--connect", hub.addresses[0])
        async with start("events", "--follow", "--since", "0", "--json", *at, env=env) as events:
            async with hub.open_client() as client:
                await client.spawn("count", "a b c", name="counter")
                await events.until("3 words on hermit")
            hub._nursery.cancel_scope.cancel()

            assert await events.process.wait() == 4
            await events.until("error: connection lost")


async def test_a_reader_that_goes_away_ends_the_program_quietly(site):
    async with site.start("events", "--follow", "--since", "0", "--connect", site.meta_hub.address) as events:
        await events.until("HubJoined")
        assert events.process.stdout is not None
        await events.process.stdout.aclose()
        async with site.a.open_client() as client:
            await client.spawn("count", "a b c")

        assert await events.process.wait() == 0


async def test_events_that_are_no_longer_kept_are_a_gap(tmp_path):
    from loopal_cluster import Limits

    env = environment(tmp_path, LOOPAL_META_HUB_TOKEN=HUB_TOKEN)
    few = Limits(timeline=3)
    async with open_hub("h", agents=AGENTS, listen=["127.0.0.1:0"], token=HUB_TOKEN, limits=few) as hub:
        async with hub.open_client() as client:
            for _ in range(2):
                await (await client.spawn("count", "a")).result()
            at = ("--connect", hub.addresses[0])

            machine = await run("events", *at, "--json", env=env)
            people = await run("events", *at, env=env)

    events = [json.loads(line) for line in machine.out.splitlines()]
    first = events[0]
    assert first["event"] == "Gap"
    assert first["data"] == {"missed": first["seq"]}
    assert [event["seq"] for event in events[1:]] == [first["seq"] + 1, first["seq"] + 2, first["seq"] + 3]
    assert people.out.startswith(f"(gap)  {first['seq']} events are missing here\n")


TROUBLE: dict[str, tuple[tuple[str, ...], dict[str, str], int, str]] = {
    "a wrong token": (("--connect", "META"), {"LOOPAL_META_HUB_TOKEN": "guess"}, 3, "invalid token"),
    "no token": (("--connect", "META"), {}, 3, "no token was given"),
    "nobody there": (("--connect", "127.0.0.1:1"), {}, 4, "Connection refused"),
    "no such socket": (("--connect", "unix:/nowhere/x"), {}, 4, "No such file"),
    "a bad address": (("--connect", "nonsense"), {}, 2, "'nonsense' is not HOST:PORT"),
    "an impossible host": (("--connect", "a..b:1"), {}, 2, "no host can have this name"),
    "a missing token file": (("--connect", "META", "--token-file", "/nowhere/x"), {}, 2, "/nowhere/x"),
    "an unknown option": (("--colour",), {}, 2, "--colour"),
}


@pytest.mark.parametrize("what", TROUBLE)
async def test_trouble_is_one_line_and_a_status(what, site):
    args, env, status, words = TROUBLE[what]
    args = tuple(site.meta_hub.address if arg == "META" else arg for arg in args)

    ran = await run("hubs", *args, env=site.env | env)

    assert (ran.status, ran.out) == (status, "")
    assert words in ran.err


async def test_without_a_hub_here_the_line_says_what_to_do(tmp_path):
    ran = await run("agents", env=environment(tmp_path))

    assert (ran.status, ran.out) == (4, "")
    assert "--connect" in ran.err


async def test_a_token_file_is_enough(site, tmp_path):
    (tmp_path / "token").write_text(META_TOKEN + "\n")
    at = ("--connect", site.meta_hub.address, "--token-file", str(tmp_path / "token"))

    ran = await run("hubs", *at, env=site.env)

    assert ran.status == 0


# Without processes.


def test_what_a_terminal_obeys_is_shown_as_escapes():
    assert show.one_line(f"a{EVIL}\nb") == "a\\x1b]0;owned\\x07\\x9b31m\\u202e\\nb"
    assert show.as_plain("a\nb\tc\u0085") == "a\nb\tc\\x85"


def test_an_event_is_one_harmless_line_whatever_it_says():
    event = ClusterEvent(1, 0.0, "h", "a", Stream(f"{EVIL}\nallow? y"))

    line = show.event_line(event)

    assert line.isprintable()
    assert "Stream: \\x1b]0" in line


@pytest.mark.parametrize(
    ("payload", "name"),
    [(b'{"New":{"x":1}}', "New"), (b'"Soon"', "Soon"), (b"[1]", "Unknown"), (b"1e999", "Unreadable")],
)
def test_an_event_of_a_version_to_come_is_shown_as_it_is(payload, name):
    event = ClusterEvent(1, 0.0, None, None, Opaque(payload))

    assert show.event_document(event)["event"] == name
    assert f"-  {name}" in show.event_line(event)


def test_a_tree_that_is_circular_is_drawn_and_ends():
    nodes: tuple[Any, ...] = (
        AgentNode("a", parent="b"),
        AgentNode("b", parent="a"),
        AgentNode("c", parent="c"),
    )

    lines = tree_lines(TopologyOf("h", HubTopology((AgentNode("root"), *nodes))))

    assert lines[:2] == ["h", "├── root  (agent, Running)"]
    assert {line.strip("└├─│ ")[0] for line in lines[2:]} == {"a", "b", "c"}


def test_a_hub_that_did_not_answer_is_in_the_tree():
    assert tree_lines(TopologyOf("h", error="timeout")) == ["h  (did not answer: timeout)"]
