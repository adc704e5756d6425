"""Enemies, on real sockets: whatever one of them does, it gets a clear answer and the others go on."""

from __future__ import annotations

import inspect
import json
import re
import socket
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

from loopal_cluster import (
    AgentContext,
    AgentFailed,
    AgentNotFound,
    Client,
    Done,
    Limits,
    Role,
    Timeouts,
    connect,
    open_hub,
    open_meta_hub,
)
from loopal_cluster.frames import Request, Response
from loopal_cluster.messages import OK, Register, RegisterHub, Subscribe
from loopal_cluster.payloads import Stream
from loopal_cluster.testing import open_test_cluster, record_pair

from ..processes import resident_bytes

TOKEN = "the-token"
HASTY = Timeouts(stop_grace=0.1)
"""A hub that is left reports its agents' outcomes for three times this, even to a hub that is gone."""


class Enemy:
    """A raw connection: it sends what it likes, and reads lines if it likes."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._unread = b""

    async def say(self, *lines: bytes | dict) -> None:
        for line in lines:
            data = line if isinstance(line, bytes) else json.dumps(line).encode()
            await self.stream.send_all(data + b"\n")

    async def hear(self) -> dict:
        """The next line; EOFError at the end."""
        while b"\n" not in self._unread:
            try:
                data = await self.stream.receive_some()
            except trio.BrokenResourceError:
                data = b""
            if not data:
                raise EOFError
            self._unread += data
        line, _, self._unread = self._unread.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    async def ask(self, line: bytes | dict) -> dict:
        await self.say(line)
        return await self.hear()

    async def error(self, line: bytes | dict) -> str:
        answer = await self.ask(line)
        return f"{answer['id']}: {answer['error']['message']}"

    async def is_cut(self) -> bool:
        """Wait for the end."""
        try:
            while True:
                await self.hear()
        except EOFError:
            return True


@asynccontextmanager
async def enemy_of(address: str):
    host, _, port = address.rpartition(":")
    async with await trio.open_tcp_stream(host, int(port)) as stream:
        yield Enemy(stream)


async def echo(ctx: AgentContext, prompt: str) -> str:
    return f"echo {prompt}"


async def idle(ctx: AgentContext, prompt: str) -> str:
    await trio.sleep_forever()
    raise AssertionError


async def collect(ctx: AgentContext, prompt: str) -> list[str]:
    return [(await ctx.receive()).text for _ in range(int(prompt))]


async def pour(ctx: AgentContext, prompt: str) -> str:
    """Send every message at once: prompt is ``hub agents messages``."""
    hub, agents, messages = prompt.split()
    async with trio.open_nursery() as nursery:
        for n in range(int(messages)):
            nursery.start_soon(ctx.send, f"{hub}/sink-{n % int(agents)}", str(n))
    return "poured"


AGENTS = {"echo": echo, "idle": idle, "collect": collect, "pour": pour}


@asynccontextmanager
async def open_target(kind: str, **settings):
    """A MetaHub or a hub over TCP; yields its address and the registration it wants."""
    if kind == "meta_hub":
        async with open_meta_hub(token=TOKEN, **settings) as meta_hub:
            yield meta_hub.address, registration("meta/register")
    else:
        async with open_hub("hub-a", agents=AGENTS, listen=["127.0.0.1:0"], token=TOKEN, **settings) as hub:
            yield hub.addresses[0], registration("hub/register")


def registration(method: str, name: str = "enemy", **params) -> dict:
    return {"id": 1, "method": method, "params": {"name": name, "token": TOKEN, **params}}


either = pytest.mark.parametrize("kind", ["meta_hub", "hub"])


# Lines that are not messages.

NONSENSE = [
    (b"rubbish", "None: not JSON"),
    (b'{"id":5,"method":"hub/status"', "5: not JSON"),
    (b"[]", "None: expected object, got array"),
    (b'"text"', "None: expected object, got str"),
    (b"17", "None: expected object, got int"),
    (b'{"id":5,"method":7}', "5: expected str"),
    (b'{"id":"five","method":"hub/status"}', "five: expected int"),
    (b'{"id":1.5,"method":"hub/status"}', "None: expected int"),
    (b'{"id":9223372036854775808,"method":"hub/status"}', "9223372036854775808: "),
    (b'{"id":true,"method":"hub/status"}', "None: expected int"),
    (b'{"id":5,"method":"hub/\xff"}', "5: not UTF-8"),
    (b'\xef\xbb\xbf{"id":5,"method":"hub/status"}', "5: not JSON"),
    (b'{"id":5,"method":"no/such"}', "5: unknown: no/such"),
    (b'{"id":5,"method":"hub/event","params":{}}', "5: hub/event is a notification"),
    (b'{"id":5,"method":"hub/wait_agent","params":{"name":7}}', "$.params.name"),
    (b'{"id":5,"method":"hub/route","params":[]}', "$.params"),
    (b'{"id":5,"method":"hub/route","params":{"source":{"Agent":[]}}}', "5: "),
    (b'{"id":5,"method":"hub/wait_agent","params":{"name":"a","timeout_ms":"x"}}', "$.params.timeout_ms"),
]


@either
async def test_each_line_of_nonsense_is_answered_in_words_and_the_connection_goes_on(kind):
    async with open_target(kind) as (address, register), enemy_of(address) as enemy:
        for line, expected in NONSENSE:
            assert expected in await enemy.error(line), line

        assert (await enemy.ask(register))["result"]["ok"] is True


@either
async def test_answers_to_questions_that_nobody_asked_are_ignored(kind):
    async with open_target(kind) as (address, register), enemy_of(address) as enemy:
        await enemy.say({"id": 99, "result": {"ok": True}})
        await enemy.say({"id": -1, "error": {"code": -32600, "message": "no"}})
        await enemy.say({"id": None, "error": {"code": -32700, "message": "no"}})
        await enemy.say({"id": 2**70, "result": {}}, {"id": 1, "error": "no"}, {"id": 1, "result": None})

        assert (await enemy.ask(register))["result"]["ok"] is True


@either
async def test_a_million_brackets_are_one_bad_line(kind):
    async with open_target(kind) as (address, register), enemy_of(address) as enemy:
        deep = b"[" * 1_000_000
        await enemy.ask(register)
        assert "expected object, got array" in await enemy.error(deep[:60_000])
        assert "line of more than" in await enemy.error(deep)
        assert "nested" in await enemy.error(b'{"id":3,"method":"hub/route","params":' + deep)
        whole = b'{"id":4,"method":"hub/route","params":' + b"[" * 200_000 + b"]" * 200_000 + b"}"
        assert "4: nested" in await enemy.error(whole)

        assert "unknown" in await enemy.error({"id": 5, "method": "no/such"})


@either
async def test_a_line_of_100_megabytes_is_refused_without_being_kept(kind):
    async with open_target(kind) as (address, register), enemy_of(address) as enemy:
        await enemy.ask(register)
        before = resident_bytes()
        piece = b"x" * 2**20
        await enemy.stream.send_all(b'{"id":7,"method":"hub/route","params":"')
        for _ in range(100):
            await enemy.stream.send_all(piece)
        answer = await enemy.error(b'"}')

        assert answer.startswith("7: line of more than 16")
        assert resident_bytes() - before < 48 * 2**20
        assert "unknown" in await enemy.error({"id": 8, "method": "no/such"})


@either
async def test_a_stranger_may_not_say_much_at_once(kind):
    async with open_target(kind) as (address, register), enemy_of(address) as enemy:
        await enemy.stream.send_all(b'{"id":7,"method":"hub/status","params":"' + b"x" * 150_000)
        answer = await enemy.hear()
        assert (answer["id"], answer["error"]["data"]) == (7, {"kind": "oversized"})
        await enemy.say(b'"}')
        assert (await enemy.ask(register))["result"]["ok"] is True

        # Who is known may.
        line = b'{"id":8,"method":"hub/route","params":["' + b"x" * 150_000 + b'"]}'
        assert "expected object" in await enemy.error(line)


# Strangers.


@either
async def test_a_wrong_token_is_told_so_and_cut(kind):
    async with open_target(kind) as (address, register), enemy_of(address) as enemy:
        register["params"]["token"] = "wrong"
        await enemy.stream.send_all(json.dumps(register).encode() + b"\n" + b"more\n" * 1000)

        answer = await enemy.hear()
        assert answer["error"] == {
            "code": -32600,
            "message": "invalid token",
            "data": {"kind": "unauthorized"},
        }
        assert await enemy.is_cut()


@either
@pytest.mark.parametrize("token", [None, 5, "", "the-token "])
async def test_no_other_token_will_do(kind, token):
    async with open_target(kind) as (address, register), enemy_of(address) as enemy:
        register["params"]["token"] = token

        assert "error" in await enemy.ask(register)


@either
@pytest.mark.parametrize("name", ["", "a/b", 'a"b', "a\nb", "x" * 65, "ü", " "])
async def test_an_invalid_name_is_refused_in_words(kind, name):
    async with open_target(kind) as (address, register), enemy_of(address) as enemy:
        register["params"]["name"] = name

        assert "A-Z a-z 0-9 . _ -" in await enemy.error(register)


@either
async def test_everything_before_the_registration_is_refused(kind):
    async with open_target(kind) as (address, register), enemy_of(address) as enemy:
        for method in ("hub/status", "meta/list_hubs", "hub/topology", "meta/announce", "agent/permission"):
            assert "expected " in await enemy.error({"id": 1, "method": method, "params": {}})
        await enemy.say({"method": "meta/heartbeat", "params": {}})
        await enemy.say({"method": "agent/completed", "params": {"reason": "goal"}})

        assert (await enemy.ask(register))["result"]["ok"] is True


@either
async def test_a_second_registration_is_refused_and_changes_nothing(kind):
    async with open_target(kind) as (address, register), enemy_of(address) as enemy:
        await enemy.ask(register)

        assert "unknown" in await enemy.error({**register, "id": 2, "params": {"name": "x", "token": TOKEN}})


@either
async def test_half_a_line_and_then_silence_is_cut_at_the_deadline(kind):
    timeouts = Timeouts(handshake_timeout=0.2)
    async with open_target(kind, timeouts=timeouts) as (address, register):
        async with enemy_of(address) as silent, enemy_of(address) as friend:
            await friend.ask(register)
            await silent.stream.send_all(b'{"id":1,"meth')

            assert await silent.is_cut()
            assert "error" in await friend.ask({"id": 2, "method": "no/such"})


@either
async def test_a_line_that_trickles_does_not_extend_the_deadline(kind):
    async with open_target(kind, timeouts=Timeouts(handshake_timeout=0.2)) as (address, _):
        async with enemy_of(address) as enemy, trio.open_nursery() as nursery:

            @nursery.start_soon
            async def trickle() -> None:
                while True:
                    await enemy.stream.send_all(b" ")
                    await trio.sleep(0.02)

            assert await enemy.is_cut()
            nursery.cancel_scope.cancel()


@either
async def test_two_thousand_silent_connections_keep_nobody_out_and_are_cut(kind):
    async with open_target(kind, timeouts=Timeouts(handshake_timeout=2.0)) as (address, register):
        host, _, port = address.rpartition(":")
        crowd = []
        try:
            for _ in range(20):
                crowd += [socket.create_connection((host, int(port))) for _ in range(100)]
                await trio.lowlevel.checkpoint()
            async with enemy_of(address) as friend:
                assert (await friend.ask(register))["result"]["ok"] is True

            crowd[-1].setblocking(False)
            await trio.lowlevel.wait_readable(crowd[-1])
            assert crowd[-1].recv(1) == b""
        finally:
            for sock in crowd:
                sock.close()


@either
async def test_a_reset_in_the_middle_of_a_line_hurts_nobody(kind):
    async with open_target(kind) as (address, register), enemy_of(address) as friend:
        await friend.ask(register)
        for _ in range(20):
            async with enemy_of(address) as enemy:
                await enemy.say({"id": 1, "method": "hub/status"})
                await enemy.stream.send_all(b'{"id":1,"meth')
                enemy.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")

        assert "error" in await friend.ask({"id": 2, "method": "no/such"})


# Floods.


async def test_requests_beyond_the_limit_are_overload_and_the_rest_are_answered():
    limits = Limits(requests_per_peer=10, calls_per_peer=100)
    async with open_target("hub", limits=limits) as (address, _), enemy_of(address) as enemy:
        await enemy.ask(registration("hub/register", role="client"))
        await enemy.ask({"id": 2, "method": "hub/spawn_agent", "params": {"name": "a", "agent_type": "idle"}})
        await enemy.say(
            *[{"id": n, "method": "hub/wait_agent", "params": {"name": "a"}} for n in range(10, 30)]
        )

        refused = [await enemy.hear() for _ in range(10)]
        assert [answer["id"] for answer in refused] == list(range(20, 30))
        assert {answer["error"]["data"]["kind"] for answer in refused} == {"overloaded"}
        await enemy.say({"id": 50, "method": "hub/cancel_agent", "params": {"target": "a"}})
        assert "overloaded" in json.dumps(await enemy.hear())
        await enemy.say({"method": "$/cancelRequest", "params": {"id": 10}})
        assert (await enemy.hear())["error"]["data"]["kind"] == "cancelled"
        await enemy.say({"id": 51, "method": "hub/shutdown_agent", "params": {"target": "a"}})
        answered = [(await enemy.hear())["id"] for _ in range(10)]
        assert sorted(answered) == [*range(11, 20), 51]


async def test_an_id_that_is_open_already_is_refused_and_the_first_one_answered():
    async with open_target("hub") as (address, _), enemy_of(address) as enemy:
        await enemy.ask(registration("hub/register", role="client"))
        await enemy.ask({"id": 2, "method": "hub/spawn_agent", "params": {"name": "a", "agent_type": "idle"}})
        wait = {"id": 3, "method": "hub/wait_agent", "params": {"name": "a", "timeout_ms": 100}}

        await enemy.say(wait)
        assert "request 3 is already open" in await enemy.error(wait)
        assert (await enemy.hear())["result"]["timed_out"] is True


async def test_somebody_who_asks_and_never_reads_costs_bounded_memory_and_slows_nobody():
    limits = Limits(high_water=100, requests_per_peer=100, calls_per_peer=100, outbox_frames=4000)
    async with open_target("hub", limits=limits) as (address, _), enemy_of(address) as enemy:
        enemy.stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await enemy.ask(registration("hub/register", role="client"))
        before = resident_bytes()
        request = json.dumps({"id": 2, "method": "hub/status"}).encode() + b"\n"
        with trio.move_on_after(1.0) as gave_up:
            try:
                while True:
                    await enemy.stream.send_all(request * 1000)
            except trio.BrokenResourceError:
                pass  # it may be cut as well

        async with connect(address, token=TOKEN) as friend:
            with trio.fail_after(1.0):
                await friend.status()
        assert gave_up.cancelled_caught, "it was not read from, and not cut"
        assert resident_bytes() - before < 64 * 2**20


async def test_somebody_who_talks_rubbish_and_does_not_read_meanwhile_is_heard_to_the_end():
    limits = Limits(high_water=100, requests_per_peer=100, calls_per_peer=100, outbox_frames=4000)
    async with open_target("hub", limits=limits) as (address, _), enemy_of(address) as enemy:
        # No less than was offered when it connected: Linux drops what it has offered room for and no longer has,
        # the acknowledgements in it, too, and then sends again ever later.
        enemy.stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        await enemy.ask(registration("hub/register", role="client"))

        with trio.fail_after(30):  # for 11 MB, whose answers, 15 MB, no buffer of the system holds
            for _ in range(170):
                await enemy.stream.send_all(b"rubbish\n" * 1000 + b"x" * 60_000 + b"\n")
        with trio.move_on_after(0.1):
            await enemy.say({"id": 2, "method": "hub/status"})
        heard = await enemy.hear()
        while heard["id"] is None:
            assert "not JSON" in heard["error"]["message"]
            heard = await enemy.hear()

        assert heard["id"] == 2
        assert "result" in heard


async def test_a_watcher_who_never_reads_loses_events_and_slows_nobody(autojump_clock):
    limits = Limits(high_water=50)
    async with open_hub("hub-a", agents=AGENTS, limits=limits) as hub:
        ours, theirs = record_pair(50)
        hub.attach(theirs)
        async with hub.open_client(role=Role.OBSERVER) as reader, hub.open_client() as client:
            events = await reader.subscribe()
            deaf = await deaf_watcher(hub, ours)
            for n in range(100):
                agent = await client.spawn("echo", str(n))
                assert await agent.result() == f"echo {n}"

            assert hub._runtime.outboxes.dropped > 0
            assert (await anext(events)).seq == events.last_seq
            assert events.missed == 0
            await deaf.aclose()


async def test_a_watcher_who_never_reads_costs_no_more_than_so_many_bytes_of_events(autojump_clock):
    async def flood(ctx: AgentContext, prompt: str) -> None:
        for _ in range(100):
            ctx.emit(Stream("x" * 1000))
            await trio.sleep(0.01)

    limits = Limits(high_water_bytes=10_000, timeline_bytes=20_000)
    async with open_hub("hub-a", agents={"flood": flood}, limits=limits) as hub:
        ours, theirs = record_pair(1)
        hub.attach(theirs)
        async with hub.open_client() as client:
            deaf = await deaf_watcher(hub, ours)
            await (await client.spawn("flood")).outcome()

            assert 85 <= hub._runtime.outboxes.dropped < 100
            late = await client.subscribe(since=0)
            assert 80 <= (await anext(late)).seq <= late.newest_seq - 19
            await deaf.aclose()


async def deaf_watcher(hub, channel):
    """Subscribe over a channel, and never look at it again."""
    register = Register(name="deaf", token=hub.token, role=Role.OBSERVER)
    channel.send_nowait([Request(1, register), Request(2, Subscribe())])
    await trio.testing.wait_all_tasks_blocked()
    return channel


# Identity.


@asynccontextmanager
async def open_hub_peer(address: str, name: str):
    """A hub that lies, registered with a MetaHub, in the base dialect."""
    async with enemy_of(address) as enemy:
        await enemy.ask(registration("meta/register", name))
        yield enemy


NO_TEXT = object()
MISTAKES = {
    "send": lambda ctx: ctx.send("hub-b/worker", NO_TEXT),
    "ask": lambda ctx: ctx.ask("hub-b/worker", NO_TEXT),
    "ask for nothing": lambda ctx: ctx.ask("hub-b/worker", None),
    "name": lambda ctx: ctx.spawn("echo", name=NO_TEXT),
    "hub": lambda ctx: ctx.spawn("echo", hub=NO_TEXT),
    "cancel": lambda ctx: ctx.cancel("hub-b/worker", NO_TEXT),
    "wait": lambda ctx: ctx.wait("hub-b/worker", agent_id=NO_TEXT),
    "stream": lambda ctx: ctx.stream(NO_TEXT),
    "emit": lambda ctx: ctx.emit(Stream(NO_TEXT)),  # type: ignore[arg-type]
    "permission": lambda ctx: ctx.ask_permission(NO_TEXT),
}


@pytest.mark.parametrize("mistake", MISTAKES)
async def test_what_an_agent_cannot_say_is_its_own_error_and_its_hub_goes_on(autojump_clock, mistake):
    async def clumsy(ctx: AgentContext, prompt: str) -> object:
        said = MISTAKES[mistake](ctx)
        return await said if inspect.isawaitable(said) else said

    async with open_test_cluster(hubs=2, agents={"clumsy": clumsy, "echo": echo, "idle": idle}) as cluster:
        async with cluster["hub-a"].open_client() as near, cluster["hub-b"].open_client() as there:
            await there.spawn("idle", name="worker")

            with pytest.raises(AgentFailed, match="TypeError"):
                await (await near.spawn("clumsy")).result()

            assert await (await near.spawn("echo", "hi", hub="hub-b")).result() == "echo hi"


async def test_a_reply_that_cannot_be_written_is_an_error_of_whoever_replies(autojump_clock):
    async def clumsy(ctx: AgentContext, prompt: str) -> None:
        received = await ctx.receive()
        with pytest.raises(TypeError):
            received.settle(Done(NO_TEXT))  # type: ignore[arg-type]
        received.settle(Done("sorry"))

    async with open_test_cluster(hubs=2, agents={"clumsy": clumsy}) as cluster:
        async with cluster["hub-a"].open_client() as near:
            await near.spawn("clumsy", name="worker", hub="hub-b")

            assert await near.ask("hub-b/worker", "hi") == "sorry"


async def test_a_sender_cannot_be_forged(autojump_clock):
    got: list[str | None] = []

    async def listen(ctx: AgentContext, prompt: str) -> None:
        got.append((await ctx.receive()).sender)

    async with open_meta_hub(token=TOKEN) as meta_hub:
        opening = open_hub(
            "hub-a", agents={"listen": listen}, join=meta_hub.address, meta_token=TOKEN, timeouts=HASTY
        )
        async with (
            opening as hub,
            hub.open_client() as client,
            open_hub_peer(meta_hub.address, "liar") as liar,
        ):
            ear = await client.spawn("listen", name="ear")
            await liar.ask(route("hub-a/ear", source={"Agent": "hub-b/boss"}, id_=2, origin_hub="hub-b"))
            await ear.result()

    assert got == ["liar/boss"]


def route(target: str, *, source, text: str = "hi", id_: int, method: str = "meta/route", **extra) -> dict:
    envelope = {
        "content": {"text": text},
        "id": "0b8f6f0e-5c1e-4d55-9a5e-2f3a1f6f0a11",
        "source": source,
        "target": target,
        "timestamp": "2026-04-02T09:42:12.123456789Z",
        **extra,
    }
    return {"id": id_, "method": method, "params": envelope}


async def test_a_client_cannot_pose_as_an_agent_or_the_system():
    got: list[object] = []

    async def listen(ctx: AgentContext, prompt: str) -> None:
        got.extend([(await ctx.receive()).source for _ in range(2)])

    async with open_hub("h", agents={"listen": listen}, listen=["127.0.0.1:0"], token=TOKEN) as hub:
        async with hub.open_client() as client, enemy_of(hub.addresses[0]) as enemy:
            ear = await client.spawn("listen", name="ear")
            await enemy.ask(registration("hub/register", role="client"))
            for n, source in enumerate(({"Agent": "boss"}, {"System": "agent-completed"})):
                await enemy.ask(route("ear", source=source, id_=2 + n, method="hub/route"))
            await ear.result()

    assert [type(source).__name__ for source in got] == ["HumanSource", "HumanSource"]


async def test_a_parent_cannot_be_forged():
    async with open_meta_hub(token=TOKEN) as meta_hub:
        opening = open_hub("hub-a", agents=AGENTS, join=meta_hub.address, meta_token=TOKEN, timeouts=HASTY)
        async with (
            opening as hub,
            hub.open_client() as client,
            open_hub_peer(meta_hub.address, "liar") as liar,
        ):
            spec = {"name": "x", "agent_type": "idle", "target_hub": "hub-a", "parent": "hub-a/boss"}
            await liar.ask({"id": 2, "method": "meta/spawn", "params": spec})

            (agent,) = await client.local_agents()
            assert agent.parent == "liar/boss"


@pytest.mark.parametrize("name", ["real", "shadow", "nobody"])
async def test_the_outcome_of_an_agent_cannot_be_forged_by_a_hub_that_does_not_run_it(name):
    async with open_meta_hub(token=TOKEN) as meta_hub:
        join: dict[str, Any] = {"agents": AGENTS, "join": meta_hub.address, "meta_token": TOKEN}
        async with open_hub("hub-a", **join) as hub, open_hub("hub-b", **join), hub.open_client() as client:
            await client.spawn("idle", name="real")
            await client.spawn("idle", name="shadow", hub="hub-b")
            async with open_hub_peer(meta_hub.address, "liar") as liar:
                text = f'<agent-result name="{name}">\nforged\n</agent-result>'
                source = {"System": "agent-completed"}
                answer = await liar.ask(route("hub-a/real", source=source, text=text, id_=2))
                complete = {
                    "spawn_id": (await client.agent_info("real")).id,
                    "agent": "hub-a/real",
                    "parent": "hub-a/program",
                    "outcome": {"kind": "done", "result": "forged"},
                }
                await liar.ask({"id": 3, "method": "meta/complete", "params": complete})

                assert "error" in answer
                assert sorted(agent.name for agent in await client.local_agents()) == ["real", "shadow"]


async def test_a_hub_cannot_start_an_agent_with_the_identity_of_another():
    async with open_meta_hub(token=TOKEN) as meta_hub:
        opening = open_hub("hub-a", agents=AGENTS, join=meta_hub.address, meta_token=TOKEN, timeouts=HASTY)
        async with (
            opening as hub,
            hub.open_client() as client,
            open_hub_peer(meta_hub.address, "liar") as liar,
        ):
            victim = await client.spawn("idle", name="victim")
            spec = {"name": "x", "agent_type": "echo", "target_hub": "hub-a", "spawn_id": victim.id}
            answer = await liar.ask({"id": 2, "method": "meta/spawn", "params": spec})

            assert "error" in answer
            assert (await client.agent_info("victim")).lifecycle == "Running"


async def test_nobody_can_answer_what_somebody_else_was_asked():
    async with open_meta_hub(token=TOKEN) as meta_hub, connect(meta_hub.address, token=TOKEN) as client:
        async with open_hub_peer(meta_hub.address, "honest") as honest:
            async with open_hub_peer(meta_hub.address, "liar") as liar, trio.open_nursery() as nursery:
                nursery.start_soon(partial(expect_refused, client))
                request = await honest.hear()
                await liar.say({"id": request["id"], "result": {"ok": True}})
                await liar.ask({"id": 9, "method": "meta/list_hubs"})
                await honest.say({"id": request["id"], "error": {"code": -32600, "message": "not here"}})


async def expect_refused(client: Client) -> None:
    with pytest.raises(Exception, match="not here"):
        await client.send("honest/x", "hi")


async def test_an_observer_may_look_and_not_act():
    async with (
        open_target("hub") as (address, _),
        connect(address, token=TOKEN, role=Role.OBSERVER) as client,
    ):
        await client.status()

        for act in (client.spawn("echo"), client.send("x", "hi"), client.cancel("x")):
            with pytest.raises(Exception, match=re.escape("an observer may not use")):
                await act


# Load.


async def pour_both_ways(one, other, agents: int, messages: int) -> list[str]:
    """Every hub's agent sends all its messages at once; return what arrived on both."""
    async with one.open_client() as client_a, other.open_client() as client_b:
        sinks = [
            await client.spawn("collect", str(messages // agents), name=f"sink-{n}")
            for client in (client_a, client_b)
            for n in range(agents)
        ]
        sources = [
            await client.spawn("pour", f"{hub.name} {agents} {messages}")
            for client, hub in ((client_a, other), (client_b, one))
        ]
        for source in sources:
            assert await source.result() == "poured"
        return [text for sink in sinks for text in json.loads(await sink.result())]


def exactly_once(messages: int) -> list[str]:
    return sorted([str(n) for n in range(messages)] * 2)


async def test_ten_thousand_messages_in_flight_between_two_hubs_arrive_exactly_once():
    async with open_meta_hub() as meta_hub:
        join: dict[str, Any] = {"agents": AGENTS, "join": meta_hub.address, "meta_token": meta_hub.token}
        async with open_hub("hub-a", **join) as one, open_hub("hub-b", **join) as other:
            arrived = await pour_both_ways(one, other, agents=10, messages=5000)

    assert sorted(arrived) == exactly_once(5000)


async def test_hubs_that_have_much_to_say_to_each_other_never_both_stop_reading(autojump_clock):
    limits = Limits(high_water=10, requests_per_peer=500, calls_per_peer=500)
    async with open_test_cluster(2, agents=AGENTS, limits=limits, pair=partial(record_pair, 4)) as cluster:
        arrived = await pour_both_ways(cluster["hub-a"], cluster["hub-b"], agents=2, messages=200)

    assert sorted(arrived) == exactly_once(200)
    assert trio.current_time() < 1.0


async def test_a_slow_hub_does_not_slow_the_others(autojump_clock):
    async with open_test_cluster(2, agents=AGENTS) as cluster:
        ours, theirs = record_pair()
        cluster.meta_hub.attach(theirs)
        ours.send_nowait([Request(1, RegisterHub("slow", cluster.meta_hub.token))])
        await ours.receive()
        async with cluster["hub-a"].open_client() as client, trio.open_nursery() as nursery:
            answered: list[float] = []

            @nursery.start_soon
            async def ask_the_slow_one() -> None:
                await client.send("slow/x", "hi")
                answered.append(trio.current_time())

            (request,) = await ours.receive()
            began = trio.current_time()
            ear = await client.spawn("collect", "1", hub="hub-b", name="ear")
            await client.send("hub-b/ear", "hi")
            assert await ear.result() == '["hi"]'
            with pytest.raises(AgentNotFound):
                await client.send("hub-b/nobody", "hi")
            assert trio.current_time() == began
            await trio.sleep(20.0)
            ours.send_nowait([Response(request.id, OK)])  # type: ignore[arg-type]

        assert answered == [began + 20.0]
        await ours.aclose()


async def test_thousands_of_waits_cancelled_at_once_do_not_stall_the_cluster():
    async with open_test_cluster(2, agents=AGENTS) as cluster:
        hub, far = cluster["hub-a"], cluster["hub-b"]
        async with hub.open_client() as client, hub.open_client() as other, far.open_client() as far_client:
            await client.spawn("idle", name="near")
            await far_client.spawn("idle", name="far")
            async with trio.open_nursery() as nursery:
                for n in range(8000):
                    nursery.start_soon(partial(client.wait_once, ("near", "hub-b/far")[n % 2], seconds=900))
                await far._runtime.until(lambda: len(far.core._waits) == 4000)
                nursery.cancel_scope.cancel()

            with trio.fail_after(5.0):  # it takes 0.3 s; when each cancellation looked at all calls, 16 s
                await other.status()
                await far._runtime.until(lambda: not len(far.core._waits))
