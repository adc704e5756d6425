"""MCP over HTTP: who is let in, what is refused, and how a request is withdrawn. On real sockets."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import h11
import pytest
import trio
import trio.testing
from attrs import define, field

from loopal_cluster import Client, Hub, open_hub
from loopal_cluster.agents.inbox import Inbox
from loopal_cluster.links.admission import Admission
from loopal_cluster.links.background import open_background
from loopal_cluster.mcp_server.door import open_door
from loopal_cluster.mcp_server.entrance import open_entrance
from loopal_cluster.mcp_server.guests import VISITS
from loopal_cluster.mcp_server.http import BODY_BYTES, STRANGER_TIMEOUT, serve_http
from loopal_cluster.mcp_server.session import CALLS
from loopal_cluster.tools import Mailbox, Toolbox

from ..processes import resident_bytes, until
from .clients import AGENTS, text_of

logger = logging.getLogger("test.http")
PING = {"jsonrpc": "2.0", "id": 1, "method": "ping"}


@define
class Response:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body."""
        return json.loads(self.body)


@define
class HttpClient:
    """One connection to the door of an agent."""

    stream: trio.SocketStream
    headers: dict[str, str]
    """What each request has; None removes one."""
    _http: h11.Connection = field(factory=lambda: h11.Connection(h11.CLIENT))

    async def send(
        self, body: Any = PING, *, method: str = "POST", path: str = "/mcp", **headers: str | None
    ) -> None:
        """Send a request; ``content_type="..."`` is the header Content-Type."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        asked = self.headers | {key.replace("_", "-"): value for key, value in headers.items()}
        given = {key: value for key, value in asked.items() if value is not None} | {
            "content-length": str(len(data))
        }
        events: list[h11.Event] = [h11.Request(method=method, target=path, headers=list(given.items()))]
        events += [h11.Data(data=data)] if data else []
        for event in (*events, h11.EndOfMessage()):
            await self.stream.send_all(self._http.send(event) or b"")

    async def read(self) -> Response:
        """The response to the oldest request that has none."""
        head, body = None, b""
        while not isinstance(event := self._http.next_event(), h11.EndOfMessage):
            if event is h11.NEED_DATA:
                self._http.receive_data(await self.stream.receive_some())
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.Response):
                head = event
        assert head is not None
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
        names = {name.decode(): value.decode() for name, value in head.headers}
        return Response(head.status_code, names, body)

    async def request(self, body: Any = PING, **options: Any) -> Response:
        """Send a request; its response."""
        await self.send(body, **options)
        return await self.read()

    async def use(self, tool: str, /, id_: int = 1, headers: Mapping[str, str] = {}, **arguments: Any) -> Any:
        """Use a tool; its result."""
        response = await self.request(call(tool, id_, **arguments), **headers)
        assert response.status == 200, response
        return response.json["result"]


def call(tool: str, id_: int = 1, /, **arguments: Any) -> dict[str, Any]:
    return {
        "jsonrpc": "2.0",
        "id": id_,
        "method": "tools/call",
        "params": {"name": tool, "arguments": arguments},
    }


@define
class House:
    """A hub, and an agent's program that stands before its door."""

    hub: Hub
    entry: dict[str, Any]

    @property
    def address(self) -> str:
        """``HOST:PORT``."""
        return self.entry["url"].split("/")[2]

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[HttpClient]:
        """A connection, with what its requests need."""
        host, _, port = self.address.partition(":")
        headers = {header["name"].lower(): header["value"] for header in self.entry["headers"]}
        headers |= {"host": self.address, "content-type": "application/json", "accept": "application/json"}
        async with await trio.open_tcp_stream(host, int(port)) as stream:
            yield HttpClient(stream, headers)

    async def names(self) -> list[str]:
        """The agents of the hub."""
        async with self.hub.open_client() as client:
            return [agent.name for agent in await client.local_agents()]


@define
class Program:
    """What an agent does whose program is a test: nothing but to have its tools."""

    tools: Toolbox


@pytest.fixture
async def house() -> AsyncIterator[House]:
    """A hub, and a door with one entry."""
    async with open_hub("solo", agents=AGENTS) as hub, hub.open_client() as client, open_door() as door:
        with door.open_entry(agent(client), http=True) as entry:
            yield House(hub, entry)


def agent(client: Client) -> Any:
    """As much of an agent as the door needs."""
    return Program(Toolbox(client, mailbox=Mailbox(Inbox(10))))


@pytest.fixture
async def client(house: House) -> AsyncIterator[HttpClient]:
    """A connection to it."""
    async with house.connect() as client:
        yield client


async def test_many_requests_go_over_one_connection(client):
    for _ in range(3):
        response = await client.request()
        assert (response.status, response.json) == (200, {"jsonrpc": "2.0", "id": 1, "result": {}})
        assert response.headers["content-type"] == "application/json"


async def test_a_notification_is_accepted_without_an_answer(client):
    response = await client.request({"jsonrpc": "2.0", "method": "notifications/initialized"})

    assert (response.status, response.body) == (202, b"")


async def test_a_tool_is_used(client):
    result = await client.use("Agent", prompt="hi", subagent_type="shout")

    assert text_of(result) == "HI on solo"


@pytest.mark.parametrize(
    ("options", "status", "text"),
    [
        ({"authorization": None}, 401, "bearer token is missing"),
        ({"authorization": "Bearer"}, 401, "bearer token is missing"),
        ({"authorization": "Bearer guessed"}, 401, "bearer token is not known"),
        ({"authorization": "Basic Zm9vOmJhcg=="}, 401, "bearer token"),
        ({"host": "evil.example"}, 403, "Host"),
        ({"host": "evil.example:80"}, 403, "Host"),
        ({"origin": "http://evil.example"}, 403, "Origin"),
        ({"origin": "null"}, 403, "Origin"),
        ({"path": "/"}, 404, "only /mcp"),
        ({"path": "/mcp/x"}, 404, "only /mcp"),
        ({"method": "GET", "body": b""}, 405, "no event streams"),
        ({"method": "PUT"}, 405, "only POST"),
        ({"content_type": "text/plain"}, 415, "application/json"),
        ({"content_type": None}, 415, "application/json"),
        ({"mcp_session_id": "guessed"}, 404, "no such session"),
        ({"method": "DELETE", "body": b"", "mcp_session_id": "guessed"}, 404, "no such session"),
        ({"mcp_protocol_version": "2099-01-01"}, 400, "2099-01-01"),
        ({"body": b"nonsense"}, 200, "unreadable JSON"),
        ({"body": b""}, 200, "unreadable JSON"),
    ],
)
async def test_what_is_wrong_with_a_request_is_said(client, options, status, text):
    response = await client.request(**options)

    assert response.status == status
    assert text in response.body.decode()


async def test_a_caller_without_a_token_is_told_which_kind(client):
    response = await client.request(authorization=None)

    assert response.headers["www-authenticate"].startswith("Bearer")


async def test_a_question_for_the_head_alone_is_refused_without_a_body(house, client):
    response = await client.request(b"", method="HEAD", authorization=None, host="elsewhere")

    assert (response.status, response.body) == (403, b"")
    async with house.connect() as other:
        assert (await other.request()).status == 200


async def test_localhost_and_its_own_pages_may_ask(house, client):
    port = house.address.rpartition(":")[2]

    assert (await client.request(host=f"localhost:{port}")).status == 200
    assert (await client.request(origin=f"http://{house.address}")).status == 200
    assert (await client.request(path="/mcp?x=y")).status == 200


async def test_a_client_of_a_later_version_learns_which_are_spoken(client):
    response = await client.request(mcp_protocol_version="2026-07-28")

    assert response.json["error"]["data"]["supported"][0] == "2025-11-25"


async def test_a_body_that_is_too_long_is_refused(client):
    await client.send(b" " * (BODY_BYTES + 1))

    assert (await client.read()).status == 413


@pytest.mark.parametrize("text", [b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\nx\r\n\r\n", b"x" * 100_000])
async def test_what_is_not_http_is_refused(client, text):
    await client.stream.send_all(text)

    assert (await client.stream.receive_some()).startswith((b"HTTP/1.1 400", b"HTTP/1.1 431"))


async def test_a_caller_that_leaves_at_any_time_harms_nobody(house):
    whole = b"POST /mcp HTTP/1.1\r\nHost: %s\r\nContent-Length: 9\r\n\r\n123" % house.address.encode()
    for length in range(0, len(whole), 7):
        async with house.connect() as client:
            await client.stream.send_all(whole[:length])

    async with house.connect() as client:
        assert (await client.request()).status == 200


async def test_a_stranger_who_says_nothing_is_soon_sent_away(autojump_clock):
    begun_at = trio.current_time()
    ours, theirs = trio.testing.memory_stream_pair()

    await be_served(ours)

    assert trio.current_time() - begun_at == STRANGER_TIMEOUT
    assert await theirs.receive_some() == b""


async def be_served(stream: trio.abc.Stream) -> None:
    """A stranger's connection: no token is known."""
    with open_entrance(Admission(1, logger), Admission(1, logger), "10.0.0.1") as entrance:
        await serve_http(stream, {}.get, frozenset({"x"}), entrance)  # type: ignore[arg-type]


async def test_saying_little_does_not_give_a_stranger_more_time(autojump_clock):
    begun_at = trio.current_time()
    ours, theirs = trio.testing.memory_stream_pair()
    async with open_background() as nursery:

        @nursery.start_soon
        async def trickle() -> None:
            await theirs.send_all(b"POST /mcp HTTP/1.1\r\nHost: x\r\n\r\n" * 3)
            while True:
                await trio.sleep(1)
                await theirs.send_all(b"P")

        await be_served(ours)

    assert trio.current_time() - begun_at <= STRANGER_TIMEOUT


async def test_a_body_is_not_kept_before_the_token_is_known(house):
    """500 strangers with 4 MB each, of which nothing is held, and the agent is served meanwhile."""
    head = (
        b"POST /mcp HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer guess\r\nContent-Length: 4000000\r\n\r\n"
        % house.address.encode()
    )
    before = resident_bytes()
    host, port = house.address.split(":")
    async with house.connect() as client, AsyncExitStack() as stack:
        assert (await client.request()).status == 200
        for _ in range(100):
            stream = await stack.enter_async_context(await trio.open_tcp_stream(host, int(port)))
            with suppress(trio.BrokenResourceError), trio.move_on_after(0.05):
                await stream.send_all(head + b"x" * 3_999_999)
            assert (await client.request()).status == 200

        assert resident_bytes() - before < 16 * 2**20


async def test_idle_strangers_make_room_for_the_agent_and_it_keeps_its_place():
    async with open_hub("solo") as hub, hub.open_client() as client, open_door(strangers=4) as door:
        with door.open_entry(agent(client), http=True) as entry:
            house = House(hub, entry)
            async with house.connect() as first, AsyncExitStack() as stack:
                assert (await first.request()).status == 200
                silent = [await stack.enter_async_context(house.connect()) for _ in range(20)]
                async with house.connect() as second:
                    assert (await second.request()).status == 200
                assert (await first.request()).status == 200
                assert await silent[0].stream.receive_some() == b""


async def test_the_agent_that_has_most_connections_loses_its_oldest():
    async with open_hub("solo") as hub, hub.open_client() as client, open_door(connections=4) as door:
        with (
            door.open_entry(agent(client), http=True) as greedy,
            door.open_entry(agent(client), http=True) as modest,
        ):
            async with House(hub, modest).connect() as modest_one, AsyncExitStack() as stack:
                assert (await modest_one.request()).status == 200
                many = []
                for _ in range(8):
                    many.append(await stack.enter_async_context(House(hub, greedy).connect()))
                    assert (await many[-1].request()).status == 200

                assert (await modest_one.request()).status == 200
                assert await many[0].stream.receive_some() == b""
                assert (await many[-1].request()).status == 200


async def test_the_requests_of_one_agent_have_a_size_in_all(house):
    """Each on a connection of its own, and never completed."""
    statuses: list[int] = []

    async def ask(stack: AsyncExitStack) -> None:
        client = await stack.enter_async_context(house.connect())
        head = "".join(f"{key}: {value}\r\n" for key, value in client.headers.items()).encode()
        await client.stream.send_all(b"POST /mcp HTTP/1.1\r\n%scontent-length: 4000001\r\n\r\n" % head)
        with suppress(trio.BrokenResourceError):
            await client.stream.send_all(b"x" * 4_000_000)
        with suppress(trio.BrokenResourceError):
            if data := await client.stream.receive_some():
                statuses.append(int(data.split()[1]))

    async with AsyncExitStack() as stack, open_background() as nursery:
        for _ in range(12):
            nursery.start_soon(ask, stack)
        await until(lambda: len(statuses) >= 3)

    assert set(statuses) == {429}


async def test_a_caller_who_does_not_take_its_answer_is_given_up(autojump_clock):
    ours, theirs = trio.testing.lockstep_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(be_served, ours)
        await theirs.send_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")

    with pytest.raises(trio.BrokenResourceError):
        await theirs.send_all(b"x")


# Withdrawing.


async def test_closing_the_connection_withdraws_its_call(house):
    async with house.connect() as client:
        await client.send(call("Agent", prompt="", subagent_type="linger", name="slow"))
        while "slow" not in await house.names():
            await trio.lowlevel.checkpoint()

    while "slow" in await house.names():
        await trio.lowlevel.checkpoint()


async def test_a_session_can_cancel_its_call_from_another_connection(house):
    async with house.connect() as first, house.connect() as second:
        session = await initialize(first)
        await first.send(
            call("Agent", 7, prompt="", subagent_type="linger", name="slow"), mcp_session_id=session
        )
        while "slow" not in await house.names():
            await trio.lowlevel.checkpoint()
        cancelled = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 7}}
        foreign = await second.request(cancelled, mcp_session_id=await initialize(second))
        assert (foreign.status, await house.names()) == (202, ["slow"])

        await second.request(cancelled, mcp_session_id=session)

        assert (await first.read()).status == 202
        assert await house.names() == []


async def test_the_end_of_a_session_withdraws_its_calls(house):
    async with house.connect() as first, house.connect() as second:
        session = await initialize(first)
        await first.send(call("WaitAgent", name="slow"), mcp_session_id=session)
        async with house.hub.open_client() as client:
            await client.spawn("linger", name="slow")
            await first.read()
            await first.send(call("WaitAgent", name="slow"), mcp_session_id=session)

            assert (await second.request(b"", method="DELETE", mcp_session_id=session)).status == 204

            assert (await first.read()).status == 202
        assert (await second.request(mcp_session_id=session)).status == 404


async def initialize(client: HttpClient) -> str:
    """Begin a session; its id."""
    params = {"protocolVersion": "2025-06-18", "clientInfo": {"name": "Ed", "version": "1"}}
    response = await client.request({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params})
    assert response.json["result"]["protocolVersion"] == "2025-06-18"
    return response.headers["mcp-session-id"]


async def test_a_program_may_forget_its_sessions_and_begin_new_ones(client):
    sessions = [await initialize(client) for _ in range(20)]

    assert len(set(sessions)) == 20
    assert (await client.request(mcp_session_id=sessions[0])).status == 404
    assert (await client.request(mcp_session_id=sessions[-1])).status == 200


async def test_what_is_sent_ahead_waits_for_its_turn(house, client):
    async with house.hub.open_client() as hub:
        agent = await hub.spawn("linger", name="slow")
        body = json.dumps(call("WaitAgent", name="slow")).encode()
        head = "".join(f"{key}: {value}\r\n" for key, value in client.headers.items()).encode()
        one = b"POST /mcp HTTP/1.1\r\n%scontent-length: %d\r\n\r\n%s" % (head, len(body), body)
        await client.stream.send_all(one + one)
        await agent.cancel()

    received = b""
    while received.count(b'"jsonrpc"') < 2:
        received += await client.stream.receive_some()
    assert received.count(b"HTTP/1.1 200 OK") == 2
    assert received.count(b"agent 'slow' was cancelled: cancelled") == 2


async def test_a_flood_of_calls_is_refused_in_part_and_none_is_left(house):
    async with house.connect() as first:
        session = await initialize(first)
        statuses: list[bool] = []

        async def wait() -> None:
            async with house.connect() as client:
                result = await client.use("WaitAgent", id(client), {"mcp_session_id": session}, name="slow")
                statuses.append("wait for one of them" in text_of(result))

        async with house.hub.open_client() as hub:
            agent = await hub.spawn("linger", name="slow")
            async with trio.open_nursery() as nursery:
                for _ in range(CALLS + 10):
                    nursery.start_soon(wait)
                await until(lambda: len(statuses) == 10)
                assert all(statuses)
                await agent.cancel()
        assert statuses.count(False) == CALLS


async def test_a_program_without_sessions_cannot_flood_either(house):
    statuses: list[int] = []

    async def wait() -> None:
        async with house.connect() as client:
            statuses.append((await client.request(call("WaitAgent", name="slow"))).status)

    async with house.hub.open_client() as hub:
        agent = await hub.spawn("linger", name="slow")
        async with trio.open_nursery() as nursery:
            for _ in range(VISITS + 3):
                nursery.start_soon(wait)
            await until(lambda: len(statuses) == 3)
            assert statuses == [429] * 3
            await agent.cancel()

    assert statuses.count(200) == VISITS


# The end of the agent.


async def test_a_token_is_forgotten_with_its_agent_and_its_calls_are_withdrawn():
    async with open_hub("solo", agents=AGENTS) as hub, hub.open_client() as client, open_door() as door:
        with door.open_entry(agent(client), http=True) as other:
            with door.open_entry(agent(client), http=True) as entry:
                house = House(hub, entry)
                connection = house.connect()
                first = await connection.__aenter__()
                await first.send(call("Agent", prompt="", subagent_type="linger", name="slow"))
                while "slow" not in await house.names():
                    await trio.lowlevel.checkpoint()

            assert (await first.read()).status == 202
            assert await house.names() == []
            assert (await first.request()).status == 401
            assert (await first.request(authorization=other["headers"][0]["value"])).status == 200
            await connection.__aexit__(None, None, None)
