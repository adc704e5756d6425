"""What is shown of a hub whose MetaHub is away, and how a hub and a MetaHub are."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from loopal_cluster import Hub, MetaHub, Timeouts, open_hub, open_meta_hub, serve_meta_hub
from loopal_cluster.core.parties import PROTOCOL
from loopal_cluster.frames import Request
from loopal_cluster.links.channels import record_pair
from loopal_cluster.messages import RegisterHub

from .program import AGENTS, HUB_TOKEN, META_TOKEN, Ran, environment, open_site, run

pytestmark = pytest.mark.limit(30)


@asynccontextmanager
async def open_left_behind(tmp_path: Any) -> AsyncIterator[tuple[Hub, trio.CancelScope]]:
    """A hub with an agent in a cluster, and what to cancel for its MetaHub to be gone."""
    gone = trio.CancelScope()

    async def serve(task_status: trio.TaskStatus[MetaHub]) -> None:
        with gone:
            await serve_meta_hub("127.0.0.1:0", token=META_TOKEN, task_status=task_status)

    async with trio.open_nursery() as nursery:
        meta_hub = await nursery.start(serve)
        async with open_hub(
            "hub-a",
            agents=AGENTS,
            join=meta_hub.address,
            meta_token=META_TOKEN,
            listen=[f"unix:{tmp_path}/hub.sock"],
            token=HUB_TOKEN,
        ) as hub:
            async with hub.open_client() as client:
                await client.spawn("nap", name="sleeper", detached=True)
            yield hub, gone
        gone.cancel()


async def look(hub: Hub, tmp_path: Any, *args: str) -> Ran:
    env = environment(tmp_path, LOOPAL_META_HUB_TOKEN=HUB_TOKEN)
    return await run(*args, "--connect", hub.addresses[0], env=env)


async def test_a_hub_is_joined_or_away_with_since_and_reason(tmp_path):
    async with open_left_behind(tmp_path) as (hub, meta_hub):
        joined = await look(hub, tmp_path, "status", "--json")
        meta_hub.cancel()
        await hub._runtime.until(lambda: not hub.core.uplink.joined)
        away = await look(hub, tmp_path, "status", "--json")
        people = await look(hub, tmp_path, "status")

    assert (joined.status, joined.document) == (
        0,
        {
            "kind": "hub",
            "hub": "hub-a",
            "agent_count": 1,
            "agent_types": list(AGENTS),
            "capabilities": [],
            "meta_hub": {"state": "joined"},
            "waiting": {},
        },
    )
    assert away.status == people.status == 4
    meta = away.document["meta_hub"]
    assert (set(meta), meta["state"]) == ({"state", "since", "reason"}, "away")
    assert abs(meta["since"] - away.document["meta_hub"]["since"]) < 20
    assert meta["reason"]
    assert "MetaHub: away for " in people.out


async def test_a_hub_that_is_alone_says_so(tmp_path):
    listen = [f"unix:{tmp_path}/hub.sock"]
    async with open_hub("hermit", listen=listen, token=HUB_TOKEN) as hub:
        machine = await look(hub, tmp_path, "status", "--json")
        people = await look(hub, tmp_path, "status")

    assert (machine.status, machine.document["meta_hub"]) == (0, {"state": "alone"})
    assert people.out == "hub hermit, 0 agents\nMetaHub: none, it is alone\nwaiting: nothing\n"


async def test_a_meta_hub_shows_itself_and_its_hubs_and_what_waits(tmp_path, monkeypatch):
    async with open_site(tmp_path, monkeypatch) as site, site.a.open_client() as client:
        await client.spawn("ask", "ls", hub="hub-b", name="asker")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.wait, "hub-b/asker")
            while True:  # until the approval has come up
                ran = await site.run("status", "--json", *site.places["meta hub"])
                people = await site.run("status", *site.places["meta hub"])
                if "approvals" in ran.document["waiting"] and "for_hubs" in ran.document["waiting"]:
                    break
            nursery.cancel_scope.cancel()

    assert ran.status == 0
    assert ran.document["kind"] == "meta_hub"
    assert [hub["name"] for hub in ran.document["hubs"]] == ["hub-a", "hub-b"]
    assert ran.document["waiting"]["approvals"] == 1
    assert people.out.startswith("MetaHub of 2 hubs, 1 agents\nhub hub-a: Connected, 0 agents\n")


@pytest.mark.parametrize(
    ("command", "own", "key"),
    [
        ("hubs", ("hub-a", "Disconnected"), "name"),
        ("agents", ("sleeper", None), "hub"),
        ("topology", (None, None), "hub"),
    ],
)
async def test_who_looks_while_the_meta_hub_is_away_sees_that_it_is_not_all(command, own, key, tmp_path):
    async with open_left_behind(tmp_path) as (hub, meta_hub):
        meta_hub.cancel()
        await hub._runtime.until(lambda: not hub.core.uplink.joined)
        machine = await look(hub, tmp_path, command, "--json")
        people = await look(hub, tmp_path, command)

    first, missing = machine.document
    assert machine.status == people.status == 0
    assert (first.get("name"), first.get("status")) == own
    assert set(missing) == {key, "error"}
    assert missing[key] == "MetaHub"
    assert "the MetaHub is away for 0 s (" in missing["error"] or "for 1 s (" in missing["error"]
    assert [line for line in machine.err.splitlines() if "incomplete" in line] == machine.err.splitlines()
    assert len(machine.err.splitlines()) == 1


async def test_a_hub_that_does_not_answer_is_an_entry_of_its_own(tmp_path):
    async with open_meta_hub(token=META_TOKEN, timeouts=Timeouts(topology_timeout=0.2)) as meta_hub:
        ours, theirs = record_pair()
        meta_hub.attach(theirs)
        ours.send_nowait([Request(1, RegisterHub("mute", META_TOKEN, protocol=PROTOCOL, instance="1"))])
        await ours.receive()
        env = environment(tmp_path, LOOPAL_META_HUB_TOKEN=META_TOKEN)

        ran = [await run(what, "--json", "--connect", meta_hub.address, env=env) for what in COMMANDS]

    entry = [{"hub": "mute", "error": "timeout"}]
    words = "incomplete: 'mute' did not answer (timeout)\n"
    assert [(one.status, one.document, one.err) for one in ran] == [(0, entry, words)] * 2


COMMANDS = ("agents", "topology")
