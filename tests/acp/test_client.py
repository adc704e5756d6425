"""Sessions and turns, with a program that the test itself plays."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from loopal_cluster.acp.client import AcpError, LoginNeeded, PeerGone, TurnEnd
from loopal_cluster.acp.schema import Chunk, Plan, ToolCall

from .talk import HELLO, Turn, chunk, open_conversation, open_talk

MODES = {
    "currentModeId": "default",
    "availableModes": [{"id": "default", "name": "D"}, {"id": "plan", "name": "P"}],
}
OPTIONS = [
    {
        "id": "llm",
        "name": "Model",
        "category": "model",
        "type": "select",
        "currentValue": "big",
        "options": [
            {"group": "g", "name": "G", "options": [{"value": "big", "name": "B"}]},
            {"value": "small"},
        ],
    }
]
ASKED = {
    "sessionId": "s1",
    "toolCall": {"toolCallId": "never-mentioned", "kind": "execute"},
    "options": [
        {"optionId": "yes", "name": "Yes", "kind": "allow_once"},
        {"optionId": "hm", "name": "?", "kind": "a_kind_to_come"},
    ],
}


@asynccontextmanager
async def open_turn(**session: Any):
    """A turn that has begun: its prompt was read."""
    async with open_conversation(**session) as (opened, hand), trio.open_nursery() as nursery:
        turn = Turn(opened)
        nursery.start_soon(turn.run)
        prompt = await hand.expect("session/prompt")
        yield turn, hand, prompt["id"]
        await turn.ended.wait()


async def call(nursery_call, hand, method: str, result: Any) -> dict[str, Any]:
    """What a call has sent as its parameters, when it is answered so."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(nursery_call)
        return await hand.answer(method, result)


async def test_we_offer_neither_files_nor_terminals(autojump_clock):
    async with open_talk() as (client, hand):
        params = await call(lambda: client.initialize(name="us", version="3"), hand, "initialize", HELLO)

    assert params == {
        "protocolVersion": 1,
        "clientCapabilities": {"fs": {"readTextFile": False, "writeTextFile": False}, "terminal": False},
        "clientInfo": {"name": "us", "version": "3"},
    }


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ({"protocolVersion": 2}, "speaks version 2 of ACP, and we speak 1"),
        (
            {"protocolVersion": "one"},
            "initialize cannot be read: Expected int, got str - at $.protocolVersion",
        ),
        (["?"], "initialize cannot be read"),
        (None, "missing required field protocolVersion"),
    ],
)
async def test_a_program_that_speaks_something_else_is_refused_in_words(answer, why, autojump_clock):
    async with open_talk() as (client, hand), trio.open_nursery() as nursery:
        nursery.start_soon(hand.answer, "initialize", answer)
        with pytest.raises(AcpError) as caught:
            await client.initialize(name="us", version="3")

    assert why in str(caught.value)


async def test_a_session_has_a_directory_and_servers(autojump_clock):
    server = {"name": "loopal", "command": "/bin/x", "args": [], "env": []}
    async with open_talk() as (client, hand), trio.open_nursery() as nursery:

        async def begin() -> None:
            session = await client.new_session("/work", [server])
            assert session.id == "s9"

        nursery.start_soon(begin)
        params = await hand.answer("session/new", {"sessionId": "s9", "_meta": {"x": 1}, "novelty": True})

    assert params == {"cwd": "/work", "mcpServers": [server]}


async def test_an_error_that_asks_for_a_login_is_one_of_its_own(autojump_clock):
    async with open_talk() as (client, hand), trio.open_nursery() as nursery:

        async def refuse() -> None:
            request = await hand.expect("session/new")
            await hand.write(id=request["id"], error={"code": -32000, "message": "Log in first"})

        nursery.start_soon(refuse)
        with pytest.raises(LoginNeeded, match=r"^Log in first$"):
            await client.new_session("/work")


async def test_a_login_that_is_not_offered_is_refused_before_it_is_tried(autojump_clock):
    async with open_talk() as (client, hand):
        hello = HELLO | {"authMethods": [{"id": "key", "name": "Key"}, {"id": "web", "name": "Web"}]}
        await call(lambda: client.initialize(name="us", version="3"), hand, "initialize", hello)

        with pytest.raises(AcpError, match=r"no login 'magic' \(there are: key, web\)"):
            await client.authenticate("magic")
        assert await call(lambda: client.authenticate("key"), hand, "authenticate", None) == {
            "methodId": "key"
        }


async def test_a_turn_reports_in_order_and_then_ends(autojump_clock):
    async with open_turn() as (turn, hand, prompt):
        await hand.say("one")
        await hand.update({"sessionUpdate": "plan", "entries": [{"content": "c", "priority": "low"}]})
        await hand.update({"sessionUpdate": "tool_call", "toolCallId": "t", "title": "T"})
        await hand.say("two")
        await hand.write(id=prompt, result={"stopReason": "end_turn", "usage": {"inputTokens": 3}})

    assert [type(update) for update in turn.updates] == [Chunk, Plan, ToolCall, Chunk]
    assert turn.end == TurnEnd("end_turn", {"inputTokens": 3})


async def test_unknown_and_broken_updates_are_passed_over_and_the_broken_are_counted(autojump_clock):
    async with open_turn() as (turn, hand, prompt):
        for update in (
            {"sessionUpdate": "hologram", "data": [1]},
            {"sessionUpdate": "available_commands_update", "availableCommands": []},
            {"no": "kind"},
            "nothing",
            {"sessionUpdate": "tool_call", "title": "without an id"},
            {"sessionUpdate": "plan", "entries": "none"},
            chunk("kept", _meta={"x": 1}, novelty=2),
        ):
            await hand.update(update)
        await hand.update(chunk("another session's"), session="s2")
        await hand.write(method="session/novelty", params={})
        await hand.write(method="session/update", params=[1, 2])
        await hand.write(id=prompt, result={"stopReason": "end_turn"})

    assert turn.updates == [Chunk(kind="agent_message_chunk", content={"type": "text", "text": "kept"})]
    assert turn.session.unreadable_count == 2


async def test_methods_that_we_do_not_offer_are_refused(autojump_clock):
    async with open_turn() as (_, hand, prompt):
        for method in ("fs/read_text_file", "fs/write_text_file", "terminal/create", "elicitation/create"):
            await hand.write(id=7, method=method, params={"sessionId": "s1"})
            assert (await hand.read())["error"] == {"code": -32601, "message": f"unknown: {method}"}
        await hand.write(id=prompt, result={"stopReason": "end_turn"})


async def test_a_permission_is_answered_with_the_option_chosen(autojump_clock):
    async with open_turn() as (turn, hand, prompt):
        await hand.write(id="p", method="session/request_permission", params=ASKED)

        answer = await hand.read()
        await hand.write(id=prompt, result={"stopReason": "end_turn"})

    assert answer == {"id": "p", "result": {"outcome": {"outcome": "selected", "optionId": "yes"}}}
    assert turn.asked[0].tool_call.tool_call_id == "never-mentioned"


async def test_no_option_is_an_answer_too(autojump_clock):
    async with open_turn() as (turn, hand, prompt):
        turn.option = None
        await hand.write(id="p", method="session/request_permission", params=ASKED)

        answer = await hand.read()
        await hand.write(id=prompt, result={"stopReason": "end_turn"})

    assert answer["result"] == {"outcome": {"outcome": "cancelled"}}


async def test_a_permission_outside_of_a_turn_is_cancelled(autojump_clock):
    async with open_conversation() as (_, hand):
        for session in ("s1", "no-such-session"):
            await hand.write(
                id="p", method="session/request_permission", params=ASKED | {"sessionId": session}
            )

            assert (await hand.read())["result"] == {"outcome": {"outcome": "cancelled"}}


async def test_a_permission_that_cannot_be_read_is_refused_with_the_place(autojump_clock):
    async with open_turn() as (_, hand, prompt):
        broken = ASKED | {"toolCall": {"title": "no id"}}
        await hand.write(id="p", method="session/request_permission", params=broken)
        answer = await hand.read()
        await hand.write(id=prompt, result={"stopReason": "end_turn"})

    assert answer["error"]["code"] == -32602
    assert "toolCallId - at $.toolCall" in answer["error"]["message"]


async def test_a_turn_that_is_cancelled_says_so_withdraws_its_permissions_and_waits_for_the_end(
    autojump_clock,
):
    async with open_turn() as (turn, hand, prompt):
        turn.option = ""
        await hand.write(id="p", method="session/request_permission", params=ASKED)
        await trio.testing.wait_all_tasks_blocked()
        turn.scope.cancel()

        said = [await hand.read(), await hand.read()]
        await hand.write(id="late", method="session/request_permission", params=ASKED)
        late = await hand.read()
        await trio.sleep(1)
        assert not turn.ended.is_set()
        await hand.write(id=prompt, result={"stopReason": "cancelled"})

    assert said == [
        {"method": "session/cancel", "params": {"sessionId": "s1"}},
        {"id": "p", "result": {"outcome": {"outcome": "cancelled"}}},
    ]
    assert late == {"id": "late", "result": {"outcome": {"outcome": "cancelled"}}}
    assert turn.scope.cancelled_caught
    assert not turn.session.is_stuck


async def test_after_a_cancelled_turn_there_can_be_another(autojump_clock):
    async with open_conversation() as (session, hand), trio.open_nursery() as nursery:
        first, second = Turn(session), Turn(session)
        nursery.start_soon(first.run)
        request = await hand.expect("session/prompt")
        first.scope.cancel()
        await hand.expect("session/cancel")
        await hand.write(id=request["id"], result={"stopReason": "cancelled"})
        await first.ended.wait()

        nursery.start_soon(second.run)
        request = await hand.expect("session/prompt")
        await hand.write(id=request["id"], result={"stopReason": "end_turn"})
        await second.ended.wait()

    assert second.end == TurnEnd("end_turn")


async def test_a_session_whose_turn_does_not_end_is_stuck(autojump_clock):
    async with open_conversation() as (session, hand), trio.open_nursery() as nursery:
        turn, again = Turn(session), Turn(session)
        nursery.start_soon(turn.run)
        await hand.expect("session/prompt")
        began = trio.current_time()
        turn.scope.cancel()
        await turn.ended.wait()
        await again.run()

    assert trio.current_time() - began == 5
    assert session.is_stuck
    assert str(again.end) == "its last turn has not ended"


async def test_a_second_turn_is_never_sent_while_one_runs(autojump_clock):
    async with open_turn() as (turn, hand, prompt):
        again = Turn(turn.session)
        await again.run()
        await hand.write(id=prompt, result={"stopReason": "end_turn"})

    assert isinstance(again.end, AcpError)
    assert turn.end == TurnEnd("end_turn")


async def test_a_program_that_ends_ends_the_turn(autojump_clock):
    async with open_turn() as (turn, hand, _):
        await hand.stream.aclose()

    assert isinstance(turn.end, PeerGone)


@pytest.mark.parametrize("result", [{}, None, "end_turn", {"stopReason": 3}])
async def test_a_turn_that_ends_without_a_reason_is_an_error(result, autojump_clock):
    async with open_turn() as (turn, hand, prompt):
        await hand.write(id=prompt, result=result)

    assert str(turn.end) == "its answer to session/prompt has no stopReason"


async def test_a_refused_prompt_is_an_error_with_its_words(autojump_clock):
    async with open_turn() as (turn, hand, prompt):
        await hand.write(id=prompt, error={"code": -32603, "message": "Internal error", "data": "no credit"})

    assert str(turn.end) == "it refused session/prompt: Internal error: no credit"


async def test_a_flood_is_reported_whole_before_the_end_of_the_turn(autojump_clock):
    async with open_turn() as (turn, hand, prompt):
        for _ in range(200):
            await hand.raw("".join(_line("x" * 100) for _ in range(50)))
        await hand.write(id=prompt, result={"stopReason": "end_turn"})

    assert len(turn.updates) == 10_000
    assert turn.end == TurnEnd("end_turn")


def _line(text: str) -> str:
    return (
        '{"jsonrpc":"2.0","method":"session/update","params":{"sessionId":"s1","update":'
        '{"sessionUpdate":"agent_thought_chunk","content":{"type":"text","text":"' + text + '"}}}}\n'
    )


async def test_a_mode_is_set_by_the_method_for_modes(autojump_clock):
    async with open_conversation(modes=MODES) as (session, hand):
        params = await call(lambda: session.set_mode("plan"), hand, "session/set_mode", {})

        assert params == {"sessionId": "s1", "modeId": "plan"}
        assert session.mode == "plan"
        with pytest.raises(AcpError, match=r"no mode 'yolo' \(there are: default, plan\)"):
            await session.set_mode("yolo")


async def test_the_mode_that_the_program_changes_is_known(autojump_clock):
    async with open_conversation(modes=MODES) as (session, hand):
        await hand.update({"sessionUpdate": "current_mode_update", "currentModeId": "plan"})
        await hand.flush()

        assert session.mode == "plan"


async def test_a_model_is_an_option_and_its_values_may_be_in_groups(autojump_clock):
    async with open_conversation(configOptions=OPTIONS) as (session, hand):
        params = await call(
            lambda: session.set_model("small"), hand, "session/set_config_option", {"configOptions": OPTIONS}
        )

        assert params == {"sessionId": "s1", "configId": "llm", "value": "small"}
        with pytest.raises(AcpError, match=r"llm cannot be 'tiny' \(it can be: big, small\)"):
            await session.set_model("tiny")
        with pytest.raises(AcpError, match=r"no option 'speed' \(there are: llm\)"):
            await session.set_option("speed", "fast")


async def test_a_program_without_a_choice_of_models_says_so(autojump_clock):
    async with open_conversation() as (session, _):
        with pytest.raises(AcpError, match="does not let its model be chosen"):
            await session.set_model("small")


@pytest.mark.parametrize(
    ("capabilities", "method"),
    [
        ({"sessionCapabilities": {"resume": {}}, "loadSession": True}, "session/resume"),
        ({"loadSession": True}, "session/load"),
    ],
)
async def test_a_session_is_resumed_in_the_way_that_is_offered(capabilities, method, autojump_clock):
    async with open_talk() as (client, hand):
        hello = HELLO | {"agentCapabilities": capabilities}
        await call(lambda: client.initialize(name="us", version="3"), hand, "initialize", hello)

        assert client.can_resume
        params = await call(lambda: client.resume_session("s1", "/work"), hand, method, None)
        assert params == {"sessionId": "s1", "cwd": "/work", "mcpServers": []}


async def test_a_session_cannot_be_resumed_where_that_is_not_offered(autojump_clock):
    async with open_talk() as (client, _):
        assert not client.can_resume
        with pytest.raises(AcpError, match="cannot resume"):
            await client.resume_session("s1", "/work")
