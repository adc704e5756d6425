"""The stand-in keeps to its script, through each of its APIs."""

from __future__ import annotations

import json
from typing import Any

import h11
import pytest
import trio

from .script import Asked, Hang, Say, Use, next_move
from .server import StandIn, open_stand_in

SCRIPT = '>> use loopal.ListHubs {"all": true}\n>> say They are: {result}'
TOOLS = ("Agent", "mcp__loopal__ListHubs")


def test_a_script_goes_on_with_each_result():
    assert next_move(Asked(SCRIPT, (), TOOLS)) == Use("mcp__loopal__ListHubs", {"all": True})
    assert next_move(Asked(SCRIPT, ("laptop",), TOOLS)) == Say("They are: laptop")


def test_a_tool_is_found_by_what_each_agent_calls_it():
    for name in ("mcp__loopal__Agent", "mcp__loopal/Agent", "loopal_Agent"):
        assert next_move(Asked(">> use loopal.Agent {}", (), ("Agent", name))) == Use(name, {})
    assert next_move(Asked(">> use Agent {}", (), ("mcp__loopal__Agent", "Agent"))) == Use("Agent", {})


def test_what_is_not_scripted_or_not_possible_is_said():
    assert next_move(Asked("hello", (), TOOLS)) == Say("You said: hello")
    assert next_move(Asked(">> use Bash {}", (), TOOLS)) == Say(
        f"There is no tool Bash, but: {', '.join(TOOLS)}"
    )
    assert "after 1 moves" in getattr(next_move(Asked(">> use Agent {}", ("a",), TOOLS)), "text", "")
    assert "'dance'" in getattr(next_move(Asked(">> dance", (), TOOLS)), "text", "")
    assert next_move(Asked(SCRIPT, (), ())) == Say("a title")
    assert next_move(Asked(">> hang half a", (), TOOLS)) == Hang("half a")


def anthropic_body(texts: list[str], results: list[str]) -> dict[str, Any]:
    """A conversation as Claude Code sends it, with its reminders in tags."""
    told = [
        {"type": "text", "text": text} for text in ["<system-reminder>be brief</system-reminder>", *texts]
    ]
    answers = [
        {"type": "tool_result", "tool_use_id": "1", "content": [{"type": "text", "text": r}]} for r in results
    ]
    messages = [{"role": "user", "content": told}, {"role": "assistant", "content": "..."}]
    messages += [{"role": "user", "content": answers}] if answers else []
    return {"messages": messages, "tools": [{"name": name} for name in TOOLS]}


def chat_body(texts: list[str], results: list[str]) -> dict[str, Any]:
    """The same, as OpenCode does."""
    messages = [{"role": "system", "content": "be brief"}]
    messages += [{"role": "user", "content": text} for text in texts]
    messages += [{"role": "tool", "tool_call_id": "1", "content": result} for result in results]
    return {
        "messages": messages,
        "tools": [{"type": "function", "function": {"name": name}} for name in TOOLS],
    }


def responses_body(texts: list[str], results: list[str]) -> dict[str, Any]:
    """The same, as Codex does: MCP's tools are in a namespace."""
    told = [{"role": "user", "content": [{"type": "input_text", "text": text}]} for text in texts]
    where = {"role": "user", "content": [{"type": "input_text", "text": "<environment_context/>"}]}
    outputs = [{"type": "function_call_output", "call_id": "1", "output": result} for result in results]
    space = {"type": "namespace", "name": "mcp__loopal", "tools": [{"name": "ListHubs"}]}
    return {"input": [*told, where, *outputs], "tools": [{"type": "function", "name": "Agent"}, space]}


APIS = {
    "/v1/messages": anthropic_body,
    "/v1/chat/completions": chat_body,
    "/v1/responses": responses_body,
}


@pytest.mark.parametrize("path", APIS)
async def test_each_api_uses_the_tool_and_says_what_came_of_it(path):
    async with open_stand_in() as stand_in:
        [use] = used(await post(stand_in, path, APIS[path](["before", SCRIPT], [])))
        said = await post(stand_in, path, APIS[path](["before", SCRIPT], ["laptop"]))

    assert use in ("mcp__loopal__ListHubs", "ListHubs")  # Codex' namespace is beside the name
    assert "They are: laptop" in said
    assert [asked.results for asked in stand_in.requests] == [(), ("laptop",)]


@pytest.mark.parametrize("path", APIS)
async def test_each_api_answers_as_one_document_too(path):
    async with open_stand_in() as stand_in:
        document = json.loads(await post(stand_in, path, APIS[path](["hello"], []), stream=False))

    assert "You said: hello" in json.dumps(document)


@pytest.mark.parametrize("path", APIS)
async def test_an_answer_that_hangs_has_begun_and_ends_with_its_reader(path):
    async with open_stand_in() as stand_in:
        stream, _ = await send(stand_in, path, APIS[path]([">> hang half a"], []))
        async with stream:
            begun = b""
            while b"half a" not in begun:
                chunk = await stream.receive_some(65536)
                assert chunk
                begun += chunk
            await stand_in.until_hanging()
        await stand_in.until_hanging(0)


async def test_what_is_not_there_is_an_error_in_words():
    async with open_stand_in() as stand_in:
        said = await post(stand_in, "/v1/embeddings", {})

    assert "no POST /v1/embeddings here" in said


def used(events: str) -> set[str]:
    """The names of the tools that a stream of events uses."""
    names = set()

    def look(value: Any) -> None:
        if isinstance(value, dict):
            if value.get("type") in ("tool_use", "function_call"):
                names.add(value["name"])
            elif "function" in value:
                names.add(value["function"]["name"])
            for inner in value.values():
                look(inner)
        elif isinstance(value, list):
            for inner in value:
                look(inner)

    for line in events.splitlines():
        if line.startswith("data: {"):
            look(json.loads(line.removeprefix("data: ")))
    return names


async def post(stand_in: StandIn, path: str, body: dict[str, Any], *, stream: bool = True) -> str:
    """Ask, and read the whole answer."""
    connection, http = await send(stand_in, path, body | {"stream": stream})
    answer = b""
    async with connection:
        while not isinstance(event := http.next_event(), h11.EndOfMessage):
            if event is h11.NEED_DATA:
                http.receive_data(await connection.receive_some(65536))
            elif isinstance(event, h11.Data):
                answer += event.data
    return answer.decode()


async def send(
    stand_in: StandIn, path: str, body: dict[str, Any]
) -> tuple[trio.SocketStream, h11.Connection]:
    """Ask, on a connection of its own."""
    host, port = stand_in.url.removeprefix("http://").split(":")
    connection = await trio.open_tcp_stream(host, int(port))
    http = h11.Connection(h11.CLIENT)
    content = json.dumps({"stream": True} | body).encode()
    headers = [("host", host), ("content-length", str(len(content)))]
    head = http.send(h11.Request(method="POST", target=path, headers=headers))
    end = (http.send(h11.Data(data=content)) or b"") + (http.send(h11.EndOfMessage()) or b"")
    await connection.send_all((head or b"") + end)
    return connection, http
