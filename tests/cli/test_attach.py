"""A human, or a script, at a hub or at a MetaHub: sees events, is asked, answers, leaves."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys

import pytest
import trio

from loopal_cluster import Done, Role, Timeouts, connect
from loopal_cluster.messages import Decision, Permission

from ..processes import until
from .program import HUB_TOKEN, META_TOKEN, open_site

pytestmark = pytest.mark.limit(30)


@pytest.fixture
async def site(tmp_path, monkeypatch):
    async with open_site(tmp_path, monkeypatch) as site:
        yield site


@pytest.mark.parametrize(("where", "line", "result"), [
    ("local", "y\n", "allowed by ann: None"),
    ("meta hub", "y\n", "allowed by ann: None"),
    ("connect", "no not on my disk\n", "denied by ann: not on my disk"),
])  # fmt: skip
async def test_a_permission_is_answered(where, line, result, site):
    meta_hub = site.meta_hub.address
    address = {"local": (), "meta hub": (meta_hub,), "connect": ("--connect", meta_hub)}[where]
    async with site.start("attach", *address) as operator, site.a.open_client() as client:
        await operator.until("attached to")
        agent = await client.spawn("ask", "rm -rf /tmp/x", name="asker")
        await operator.until("allow? y or n")
        await operator.type(line)

        assert await agent.result() in (result, result.replace("ann", "MetaHub"))
        assert "asker asks to use Bash" in operator.text
        assert "rm -rf /tmp/x" in operator.text


async def test_at_the_own_hub_a_permission_of_an_agent_on_another_is_answered(site):
    async with site.start("attach") as operator, site.a.open_client() as client:
        await operator.until("attached to")
        agent = await client.spawn("ask", "rm -rf /tmp/x", name="asker", hub="hub-b")
        await operator.until("allow? y or n")
        await operator.type("y\n")

        assert await agent.result() == "allowed by ann at hub-a: None"
        assert "hub-b/asker asks to use Bash" in operator.text


async def test_what_is_not_an_answer_is_asked_again(site):
    async with site.start("attach") as operator, site.a.open_client() as client:
        agent = await client.spawn("ask", "x")
        await operator.until("allow? y or n")
        await operator.type("\nyesterday\n")
        await operator.until("y or n?\ny or n?")
        await operator.type("n\n")

        assert await agent.result() == "denied by ann: None"


@pytest.mark.parametrize(("line", "answer"), [("2\n", "green"), ("blue, please\n", "blue, please")])
async def test_a_question_is_answered_by_number_or_in_words(line, answer, site):
    async with site.start("attach") as operator, site.a.open_client() as client:
        agent = await client.spawn("question", "Which colour?")
        await operator.until("2  green: like grass")
        await operator.type(line)

        assert await agent.result() == f"answered ('{answer}',)"


async def test_of_two_operators_the_first_wins_and_the_other_is_told(site):
    address = site.meta_hub.address
    async with (
        site.start("attach", address, "--name", "ann") as ann,
        site.start("attach", address, "--name", "bob") as bob,
        site.a.open_client() as client,
    ):
        await ann.until("attached to")
        await bob.until("attached to")
        first = await client.spawn("ask", "x")
        await ann.until("allow? y or n")
        await bob.until("allow? y or n")
        await ann.type("y\n")
        await bob.until("[1] was allowed by ann first")

        assert (await first.result()).startswith("allowed")

        second = await client.spawn("ask", "y")
        await bob.until("[2] allow? y or n")
        await ann.until("[2] allow? y or n")
        await bob.type("n\n")
        await ann.until("[2] was denied by bob first")

        assert (await second.result()).startswith("denied")


async def test_an_operator_that_is_killed_has_not_answered(site):
    async with site.start("attach", "--name", "ann") as ann, site.a.open_client() as client:
        await ann.until("attached to")
        agent = await client.spawn("ask", "x")
        await ann.until("allow? y or n")
        ann.process.kill()
        await ann.process.wait()
        async with site.start("attach", "--name", "bob") as bob:
            await bob.until("allow? y or n")
            await bob.type("y\n")

            assert await agent.result() == "allowed by bob: None"


async def test_an_operator_that_detaches_has_not_answered(site):
    async with site.start("attach", "--name", "ann") as ann, site.a.open_client() as client:
        await ann.until("attached to")
        agent = await client.spawn("ask", "x")
        await ann.until("allow? y or n")
        ann.process.send_signal(signal.SIGINT)

        assert await ann.process.wait() == 130

        async with site.start("attach", "--name", "bob") as bob:
            await bob.until("allow? y or n")
            await bob.type("n\n")

            assert await agent.result() == "denied by bob: None"


async def test_an_ask_that_nobody_answers_in_time_is_told_to_who_saw_it(tmp_path, monkeypatch):
    async with open_site(tmp_path, monkeypatch, timeouts=Timeouts(permission_timeout=2.0)) as site:
        async with site.start("attach") as operator, site.a.open_client() as client:
            await operator.until("attached to")
            agent = await client.spawn("ask", "x")
            await operator.until("was denied: nobody answered in time")

            assert await agent.result() == "denied by policy: no operator answered within 2 s"


async def test_a_script_answers_in_turn_and_detaches_at_the_end_of_its_input(site):
    async with site.a.open_client() as client, trio.open_nursery() as nursery:
        results: list[str] = []

        async def work(number: int) -> None:
            agent = await client.spawn("ask", f"job {number}")
            results.append((await agent.result()).split()[0])

        for number in range(3):
            nursery.start_soon(work, number)
        ran = await site.run("attach", "--json", stdin=b"y\nn\ny\n")

    documents = [json.loads(line) for line in ran.out.splitlines()]
    assert ran.status == 0
    assert sorted(results) == ["allowed", "allowed", "denied"]
    asks = [d["data"] for d in documents if d["event"] == "Permission"]
    assert [ask["ask"] for ask in asks] == [1, 2, 3]
    assert {ask["input"]["command"] for ask in asks} == {"job 0", "job 1", "job 2"}
    assert [d["data"]["allow"] for d in documents if d["event"] == "Answered"] == [True, False, True]


@pytest.mark.parametrize("where", ["local", "meta hub"])
async def test_however_much_one_agent_asks_the_next_that_are_shown_are_of_others(where, site):
    address = site.places[where][1:]
    asked = set[str]()

    async def look_on(permission: Permission) -> Decision:
        asked.add(permission.agent_name.rpartition("/")[2])
        await trio.sleep_forever()
        raise AssertionError

    place = site.a.addresses[1] if where == "local" else site.meta_hub.address
    token = HUB_TOKEN if where == "local" else META_TOKEN
    watcher = connect(place, token=token, name="bob", role=Role.OPERATOR, on_permission=look_on)
    async with site.a.open_client() as client, site.b.open_client() as far, watcher:
        flooding = await client.spawn("flood", "1100", name="mallory")
        async with site.start("attach", *address) as operator:
            await operator.until("mallory asks to use Bash")
            agents = [await client.spawn("ask", "ls", name="near"), await far.spawn("ask", "ls", name="far")]
            await until(lambda: {"near", "far"} <= asked)
            for number in (1, 2, 3):
                await operator.until(f"[{number}] allow? y or n")
                await operator.type("y\n")

            assert [await agent.result() for agent in agents] == [
                "allowed by ann: None",
                "allowed by ann at hub-a: None" if where == "local" else "allowed by ann: None",
            ]
            await flooding.cancel("enough")


async def test_what_a_stopped_operator_does_not_show_is_shown_at_the_meta_hub(tmp_path, monkeypatch):
    timeouts = Timeouts(shown_timeout=1.0)
    async with open_site(tmp_path, monkeypatch, timeouts=timeouts) as site:
        async with (
            site.start("attach", "--name", "ann") as ann,
            site.start("attach", site.meta_hub.address, "--name", "bob") as bob,
            site.a.open_client() as client,
        ):
            await ann.until("attached to")
            await bob.until("attached to")
            ann.process.send_signal(signal.SIGSTOP)
            agent = await client.spawn("ask", "x")
            await bob.until("allow? y or n")
            await bob.type("y\n")

            assert await agent.result() == "allowed by bob: None"


async def test_input_from_a_file_that_has_ended_detaches(site):
    ran = await site.run("attach", stdin=b"")

    assert (ran.status, ran.out) == (0, "")
    assert "end of input: detached" in ran.err


async def test_a_hub_that_goes_away_ends_the_program_with_status_4(tmp_path, monkeypatch):
    async with open_site(tmp_path, monkeypatch) as site:
        async with site.start("attach", site.meta_hub.address) as operator:
            await operator.until("attached to the MetaHub")
            site.meta_hub._nursery.cancel_scope.cancel()

            assert await operator.process.wait() == 4


async def test_a_terminal_is_asked_and_shown_nothing_that_it_obeys(site):
    main, side = pty.openpty()
    env = site.env | {"LOOPAL_META_HUB_TOKEN": META_TOKEN}
    program = [sys.executable, "-m", "loopal_cluster", "attach"]
    process = await trio.lowlevel.open_process(program, env=env, stdin=side, stdout=side, stderr=side)
    os.close(side)
    shown = ""

    async def until(wanted: str) -> None:
        nonlocal shown
        while wanted not in shown:
            await trio.lowlevel.wait_readable(main)
            shown += os.read(main, 65536).decode()

    try:
        await until("attached to hub-a")
        os.write(main, b"y\n")
        await until("nothing is asked now")
        async with site.a.open_client() as client:
            agent = await client.spawn("evil", name="mallory")
            await until("allow? y or n")
            os.write(main, b"n\n")
            await until("denied")

            assert isinstance(await agent.outcome(), Done)
        os.write(main, b"\x04")
        await until("end of input")

        assert await process.wait() == 0
        assert "asks to use Bash\\x1b]0;owned\\x07\\x9b31m\\u202e" in shown
        assert not set(shown) & set("\x1b\x07\x9b\u202e")
    finally:
        process.kill()
        with trio.move_on_after(5, shield=True):
            await process.wait()
        os.close(main)


async def test_what_waits_is_asked_after_the_greeting(site):
    async with site.a.open_client() as client:
        await client.spawn("ask", "x", name="asker")
        await site.started("asker")
        async with site.start("attach") as operator:
            await operator.until("allow? y or n")

            assert operator.text.startswith("attached to hub-a as ann")


async def test_two_addresses_are_wrong_usage(site):
    ran = await site.run("attach", site.meta_hub.address, "--connect", site.meta_hub.address)

    assert (ran.status, ran.err) == (2, "error: ADDRESS and --connect are the same: give one of them\n")


async def test_with_nobody_attached_an_observer_is_not_asked(site):
    async with site.meta_hub.open_client(role=Role.OBSERVER), site.a.open_client() as client:
        agent = await client.spawn("ask", "x", name="asker")
        await site.started("asker")
        async with site.start("attach", site.meta_hub.address) as operator:
            await operator.until("hub-a/asker asks to use Bash")
            await operator.type("y\n")

            assert (await agent.result()).startswith("allowed")


@pytest.mark.parametrize(("address", "status"), [("127.0.0.1:1", 4), ("nonsense", 2)])
async def test_an_address_with_nobody_there_is_one_line_and_a_status(address, status, site):
    ran = await site.run("attach", address)

    assert (ran.status, ran.out) == (status, "")
    assert ran.err.startswith("error: ")
    assert subprocess.list2cmdline([address]) in ran.err
