"""The protocol without a transport: what is answered to what."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
import trio.testing

from loopal_cluster.mcp_server.session import CALLS, LONGEST_CALL, VERSIONS, Call, Session, _content
from loopal_cluster.tools import TOOLS, ToolResult


class Tools:
    """Tools that do what the arguments say."""

    def __init__(self) -> None:
        self.tools = {tool.tool_name: tool for tool in TOOLS}
        self.used: list[tuple[str, Any]] = []

    async def call(self, name: str, arguments: Any = "", *, time_limit: float) -> ToolResult:
        self.used.append((name, arguments))
        assert time_limit == LONGEST_CALL
        await trio.sleep(arguments.get("sleep", 0) if isinstance(arguments, dict) else 0)
        return ToolResult("done", {"status": "done"})


@pytest.fixture
def session() -> Session:
    """One client's."""
    return Session(Tools())


def take(session: Session, **message: Any) -> Any:
    return session.take(json.dumps({"jsonrpc": "2.0"} | message).encode())


def request(session: Session, method: str, id_: Any = 1, **params: Any) -> Any:
    return take(session, id=id_, method=method, params=params)


def use(session: Session, name: str = "ListHubs", id_: Any = 1, **arguments: Any) -> Any:
    return request(session, "tools/call", id_, name=name, arguments=arguments)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_known_version_is_spoken(session, version):
    answer = request(
        session, "initialize", protocolVersion=version, clientInfo={"name": "Ed", "version": "1"}
    )

    assert answer["result"]["protocolVersion"] == version
    assert answer["result"]["capabilities"] == {"tools": {}}
    assert "hub is a program" in answer["result"]["instructions"]
    assert session.client == "Ed"


@pytest.mark.parametrize("version", ["2026-07-28", "1.0", 7, None])
def test_another_version_is_answered_with_the_newest_of_ours(session, version):
    answer = request(session, "initialize", protocolVersion=version)

    assert answer["result"]["protocolVersion"] == VERSIONS[0]


def test_a_ping_is_answered(session):
    assert request(session, "ping", "x") == {"jsonrpc": "2.0", "id": "x", "result": {}}


def test_parameters_may_be_null_or_missing(session):
    assert take(session, id=1, method="ping", params=None)["result"] == {}
    assert take(session, id=1, method="ping")["result"] == {}


def test_the_tools_are_listed_so_that_a_client_shows_them_always(session):
    tools = request(session, "tools/list")["result"]["tools"]

    assert [tool["name"] for tool in tools] == [tool.tool_name for tool in TOOLS]
    for tool in tools:
        assert tool["_meta"] == {"anthropic/alwaysLoad": True}
        assert tool["inputSchema"]["type"] == "object"
        assert "hub" in tool["description"]
        assert "cluster" in tool["description"]
    looks = {tool["name"] for tool in tools if tool["annotations"]["readOnlyHint"]}
    assert looks == {"ListHubs", "ListAgents", "WaitAgent"}
    assert {t["name"] for t in tools if t["annotations"]["destructiveHint"]} == {"CancelAgent"}


@pytest.mark.parametrize(
    "method", ["server/discover", "resources/list", "prompts/list", "logging/setLevel", ""]
)
def test_another_method_does_not_exist(session, method):
    assert request(session, method)["error"]["code"] == -32601


@pytest.mark.parametrize(
    ("text", "code", "id_"),
    [
        ("", -32700, None),
        ("{", -32700, None),
        ("nonsense", -32700, None),
        ('{"id": 1e999}', -32700, None),
        ("[" * 100_000, -32700, None),
        (
            '{"jsonrpc":"2.0","id":1,"method":"ping","params":{"x":%s}}' % ("[" * 500 + "]" * 500),
            -32700,
            None,
        ),
        ("7", -32600, None),
        ("null", -32600, None),
        ("{}", -32600, None),
        ('[{"jsonrpc":"2.0","id":1,"method":"ping"}]', -32600, None),
        ('{"jsonrpc":"1.0","id":1,"method":"ping"}', -32600, None),
        ('{"jsonrpc":"2.0","id":null,"method":"ping"}', -32600, None),
        ('{"jsonrpc":"2.0","id":true,"method":"ping"}', -32600, None),
        ('{"jsonrpc":"2.0","id":[],"method":"ping"}', -32600, None),
        ('{"jsonrpc":"2.0","id":1,"method":7}', -32600, None),
        ('{"jsonrpc":"2.0","id":1,"method":"ping","params":[]}', -32602, 1),
        ('{"jsonrpc":"2.0","id":1,"method":"tools/call"}', -32602, 1),
        ('{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":7}}', -32602, 1),
        (
            '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"ListHubs","arguments":[1]}}',
            -32602,
            1,
        ),
    ],
)
def test_what_cannot_be_read_is_refused(session, text, code, id_):
    answer = session.take(text.encode())

    assert (answer["error"]["code"], answer["id"]) == (code, id_)


@pytest.mark.parametrize(
    "text",
    [
        '{"jsonrpc":"2.0","method":"notifications/initialized"}',
        '{"jsonrpc":"2.0","method":"notifications/cancelled"}',
        '{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":9}}',
        '{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":{}}}',
        '{"jsonrpc":"2.0","method":"whatever","params":7}',
        '{"jsonrpc":"2.0","id":1,"result":{}}',
        '{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"no"}}',
    ],
)
def test_what_wants_no_answer_gets_none(session, text):
    assert session.take(text.encode()) is None


def test_an_unknown_tool_is_an_error_that_names_the_tools(session):
    error = use(session, "Bash")["error"]

    assert error["code"] == -32602
    assert error["message"].startswith("unknown tool 'Bash'; the tools are: ListHubs, ListAgents, Agent,")


async def test_a_call_is_answered_as_text_and_as_a_structure(session):
    call = use(session, what="x")
    assert isinstance(call, Call)

    assert await call.run() == {
        "jsonrpc": "2.0",
        "id": 1,
        "result": {
            "content": [{"type": "text", "text": "done"}],
            "isError": False,
            "structuredContent": {"status": "done"},
        },
    }
    assert session.calls == {}
    assert session.server.used == [("ListHubs", {"what": "x"})]


@pytest.mark.parametrize("arguments", ['{"what":1}', None, {}])
async def test_arguments_may_be_a_text_or_missing(session, arguments):
    call = request(session, "tools/call", name="ListHubs", arguments=arguments)

    assert (await call.run())["result"]["isError"] is False


async def test_a_cancelled_call_ends_without_an_answer(session, autojump_clock):
    call = use(session, id_="a", sleep=1000)
    answers = []

    async def run() -> None:
        answers.append(await call.run())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await trio.testing.wait_all_tasks_blocked()
        take(session, method="notifications/cancelled", params={"requestId": "a"})

    assert answers == [None]
    assert session.calls == {}
    assert trio.current_time() < 1


async def test_a_call_that_is_cancelled_before_it_runs_does_nothing_that_waits(session):
    call = use(session, sleep=1000)
    take(session, method="notifications/cancelled", params={"requestId": 1})

    assert await call.run() is None


async def test_an_id_is_one_open_call(session):
    call = use(session, id_=5)

    assert use(session, id_=5)["error"]["code"] == -32600
    await call.run()
    assert isinstance(use(session, id_=5), Call)


async def test_too_many_calls_are_an_error_that_a_model_reads(session):
    calls = [use(session, id_=n) for n in range(CALLS)]
    refused = use(session, id_="more")

    assert all(isinstance(call, Call) for call in calls)
    assert refused["result"]["isError"] is True
    assert "wait for one of them" in refused["result"]["content"][0]["text"]
    await calls[0].run()
    assert isinstance(use(session, id_="more"), Call)


async def test_progress_is_reported_to_those_who_ask(autojump_clock):
    told: list[Any] = []
    session = Session(Tools(), told.append)
    params = {"name": "Agent", "arguments": {"sleep": 12}}

    await request(session, "tools/call", 1, **params, _meta={"progressToken": "t"}).run()
    await request(session, "tools/call", 2, **params).run()

    assert [message["method"] for message in told] == ["notifications/progress"] * 2
    assert [message["params"]["progress"] for message in told] == [5, 10]
    assert {message["params"]["progressToken"] for message in told} == {"t"}


def test_a_large_result_is_in_its_line_once():
    large = ToolResult("x" * 100_000, {"result": "x" * 100_000})

    assert _content(large) == {"content": [{"type": "text", "text": large.text}], "isError": False}
