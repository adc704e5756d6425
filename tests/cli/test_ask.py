"""``ask`` and what its exit status says; and whose an agent is that ``spawn`` has started."""

from __future__ import annotations

import signal

import pytest
import trio

from loopal_cluster import Cancelled
from loopal_cluster.messages import DeliverAsk

from .program import open_site

pytestmark = pytest.mark.limit(30)


@pytest.fixture
async def site(tmp_path, monkeypatch):
    async with open_site(tmp_path, monkeypatch) as site:
        async with site.b.open_client() as client:
            await client.spawn("count", name="counter", persistent=True)
            await client.spawn("fail", name="broken", persistent=True)
            await client.spawn("nap", name="sleeper", persistent=True)
            yield site


@pytest.mark.parametrize("place", ["local", "hub", "meta hub"])
async def test_people_get_the_reply_and_nothing_else_on_stdout(place, site):
    ran = await site.run("ask", *site.places[place], "hub-b/counter", "a b c")

    assert (ran.status, ran.out, ran.err) == (0, "3 words on hub-b\n", "")


async def test_a_program_gets_one_json_document(site):
    ran = await site.run("ask", "--json", "hub-b/counter", "a b c")

    assert (ran.status, ran.err) == (0, "")
    assert ran.document == {
        "agent": "counter", "hub": "hub-b", "outcome": "done", "result": "3 words on hub-b",
    }  # fmt: skip


OUTCOMES: dict[str, tuple[tuple[str, ...], int, str, str]] = {
    "failed": (("hub-b/broken", "the disk is full"), 1, "failed", "ValueError: the disk is full"),
    "timed out": (("--timeout", "1", "hub-b/sleeper", "hi"), 5, "timed_out", "in time"),
}


@pytest.mark.parametrize("what", OUTCOMES)
async def test_each_outcome_has_a_status_and_a_line(what, site):
    args, status, kind, words = OUTCOMES[what]

    people = await site.run("ask", *args)
    machine = await site.run("ask", "--json", *args)

    assert (people.status, people.out) == (status, "")
    assert people.err.count("\n") == 1
    assert words in people.err
    assert (machine.status, machine.document["outcome"]) == (status, kind)


@pytest.mark.parametrize("command", ["interrupt", "cancel"])
async def test_an_ask_whose_turn_is_ended_is_cancelled(command, site):
    async with site.start("ask", "--json", "hub-b/sleeper", "hi") as ask:
        await asked(site, 1)
        async with site.b.open_client() as client:
            await getattr(client, command)("sleeper")

        assert await ask.process.wait() == 1
        await ask.until('"outcome": "cancelled"')


async def test_an_ask_whose_agent_ends_without_a_reply_is_lost(site):
    async with site.b.open_client() as client:
        await client.spawn("listen", name="ear")

        ran = await site.run("ask", "--json", "hub-b/ear", "hi")

    assert (ran.status, ran.document["outcome"]) == (4, "lost")


async def asked(site, count: int) -> None:
    """Until so many asks are open at the agents of ``hub-b``."""

    def is_so() -> bool:
        return sum(isinstance(call.message, DeliverAsk) for call in site.b.core.exchange.calls) == count

    with trio.fail_after(5):
        await site.b._runtime.until(is_so)


@pytest.mark.parametrize(
    ("signum", "status"),
    [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM), (signal.SIGKILL, -signal.SIGKILL)],
)
async def test_an_ask_whose_program_is_interrupted_or_killed_is_withdrawn(signum, status, site):
    async with site.start("ask", "hub-b/sleeper", "hi") as ask:
        await asked(site, 1)
        ask.process.send_signal(signum)

        assert await ask.process.wait() == status
    await asked(site, 0)


TROUBLE: dict[str, tuple[tuple[str, ...], int, str]] = {
    "an unknown agent": (("nobody", "hi"), 1, "'nobody'"),
    "an unknown hub": (("hub-z/counter", "hi"), 4, "'hub-z'"),
    "an ambiguous name": (("twin", "hi"), 1, "hub-a/twin, hub-b/twin"),
    "a bad address": (("a/b/c", "hi"), 2, "'b/c'"),
    "a timeout that is not a number": (("--timeout", "nan", "counter", "hi"), 2, "--timeout"),
    "a negative timeout": (("--timeout", "-1", "counter", "hi"), 2, "--timeout"),
}


@pytest.mark.parametrize("what", TROUBLE)
async def test_trouble_is_one_line_and_a_status(what, site):
    args, status, words = TROUBLE[what]
    async with site.a.open_client() as a, site.b.open_client() as b:
        await a.spawn("nap", name="twin")
        await b.spawn("nap", name="twin")

        ran = await site.run("ask", "--connect", site.meta_hub.address, *args)

    assert (ran.status, ran.out) == (status, "")
    assert words in ran.err
    assert "Traceback" not in ran.err


async def test_a_timeout_of_for_ever_is_none(site):
    ran = await site.run("ask", "--timeout", "inf", "hub-b/counter", "a b c")

    assert (ran.status, ran.out) == (0, "3 words on hub-b\n")


# Whose an agent is.


@pytest.mark.parametrize("place", ["hub", "meta hub"])
async def test_an_agent_that_was_spawned_with_wait_ends_when_the_command_is_killed_and_others_go_on(
    place, site
):
    at = site.places[place]
    ran = await site.run("spawn", *at, "--hub", "hub-b", "--name", "free", "nap")
    async with site.start("spawn", *at, "--hub", "hub-b", "--name", "bound", "--wait", "nap") as spawn:
        await site.started("bound")
        spawn.process.kill()
        await spawn.process.wait()

    async with site.b.open_client() as client:
        with trio.fail_after(5):
            outcome = await client.wait("bound")
        # Whatever else the end of a client ends has ended by now: the other one's came first.
        free = await client.agent_info("free")

    assert (ran.status, free.lifecycle) == (0, "Running")
    assert isinstance(outcome, Cancelled)
    assert "has gone" in outcome.reason
