"""An editor and agents of a cluster: turns, permissions, cancelling, and the end."""

from __future__ import annotations

import pytest
import trio

from loopal_cluster import Cancelled, ConnectionLost, NoOperator
from loopal_cluster.acp.rpc import PeerGone, Refused
from loopal_cluster.editor.service import Editor
from loopal_cluster.messages import Permission
from loopal_cluster.testing import open_test_cluster
from loopal_cluster.wire.contents import dumps
from loopal_cluster.wire.jsonrpc import INTERNAL_ERROR, INVALID_PARAMS, INVALID_REQUEST, METHOD_NOT_FOUND

from .desk import AGENTS, open_desk


@pytest.fixture
async def cluster(autojump_clock):
    async with open_test_cluster(hubs=2, agents=AGENTS, default_agent="echo") as cluster:
        yield cluster


async def test_it_says_what_it_is(cluster):
    async with open_desk(cluster, "coder") as desk:
        said = await desk.peer.call("initialize", {"protocolVersion": 1, "clientCapabilities": {}})

    assert said["protocolVersion"] == 1
    assert said["agentInfo"]["title"] == "coder on hub-a"
    assert said["authMethods"] == []


@pytest.mark.parametrize("hub", [None, "hub-b"])
async def test_a_turn_is_an_ask_and_its_reply_is_said_once(cluster, hub):
    async with open_desk(cluster, "echo", hub=hub) as desk:
        session = await desk.new_session()

        assert await desk.say(session, "one") == "end_turn"
        assert desk.text == "you said one"
        assert await desk.say(session, "two") == "end_turn"
        assert desk.text == "you said oneyou said two"
        assert session.startswith(f"{hub or 'hub-a'}/echo-")


@pytest.mark.parametrize("hub", [None, "hub-b"])
@pytest.mark.parametrize("allow", [True, False])
async def test_what_the_agent_does_is_shown_and_what_it_may_is_asked(cluster, hub, allow):
    async with open_desk(cluster, "coder", hub=hub) as desk:
        desk.allow = allow
        session = await desk.new_session()

        assert await desk.say(session, "ls") == "end_turn"

    assert desk.kinds == [
        "agent_thought_chunk", "agent_message_chunk", "tool_call", "tool_call_update", "agent_message_chunk",
    ]  # fmt: skip
    assert desk.text == f"I look. {'It has 2 files.' if allow else 'I may not.'}"
    [call, result] = [update for update in desk.updates if "toolCallId" in update]
    assert (call["title"], call["kind"], call["rawInput"]) == ("Bash", "execute", {"command": "ls"})
    assert (result["toolCallId"], result["status"]) == ("t1", "completed" if allow else "failed")
    [asked] = desk.asked
    assert asked["sessionId"] == session
    assert asked["toolCall"]["toolCallId"] == "t1"


async def test_a_question_of_an_agent_that_the_agent_has_started_comes_too(cluster):
    async with open_desk(cluster, "boss", hub="hub-a") as desk:
        session = await desk.new_session()

        assert await desk.say(session, "ls") == "end_turn"

    assert desk.text == "It has 2 files."
    assert [asked["toolCall"]["title"] for asked in desk.asked] == ["hub-b/worker: Bash"]


async def test_about_other_agents_the_editor_does_not_decide(cluster):
    async with open_desk(cluster, "echo") as desk, cluster["hub-a"].open_client() as client:
        await desk.new_session()
        stranger = await client.spawn("coder", "rm -r /")

        with trio.move_on_after(1):
            await stranger.result()

        assert desk.asked == []
        await stranger.cancel()


async def test_what_is_asked_before_the_editor_is_there_is_not_its_business():
    with pytest.raises(NoOperator):
        await Editor("coder", None).on_permission(Permission("Bash", dumps({}), "1", agent_name="stranger"))


@pytest.mark.parametrize("local", [True, False])
async def test_only_on_the_same_machine_the_editors_directory_means_something(cluster, local):
    async with open_desk(cluster, "where", local=local) as desk:
        await desk.say(await desk.new_session(), "?")

    assert (desk.text == "/tmp") == local


async def test_cancelling_ends_the_turn_and_not_the_agent(cluster):
    async with open_desk(cluster, "nap") as desk:
        session = await desk.new_session()
        for count in (1, 2):
            async with trio.open_nursery() as nursery:
                turn = start_turn(nursery, desk, session)
                await desk.until_shown("zzz" * count)
                desk.peer.notify("session/cancel", {"sessionId": session})

            assert turn == ["cancelled"]


async def test_a_question_is_taken_back_with_its_turn(cluster):
    async with open_desk(cluster, "coder") as desk:
        desk.allow = None
        session = await desk.new_session()
        async with trio.open_nursery() as nursery:
            turn = start_turn(nursery, desk, session)
            await desk.until_asked()
            desk.peer.notify("session/cancel", {"sessionId": session})
        await desk.withdrawn.wait()

    assert turn == ["cancelled"]


def start_turn(nursery, desk, session):
    """Say something and do not wait; how the turn ends will be in the list."""
    reasons = []

    async def turn():
        try:
            reasons.append(await desk.say(session, "go"))
        except (Refused, PeerGone) as error:
            reasons.append(str(error))

    nursery.start_soon(turn)
    return reasons


async def test_one_turn_at_a_time(cluster):
    async with open_desk(cluster, "nap") as desk, trio.open_nursery() as nursery:
        session = await desk.new_session()
        nursery.start_soon(desk.say, session, "sleep")
        await desk.until_shown("zzz")

        with pytest.raises(Refused, match="still works on the last prompt") as caught:
            await desk.say(session, "more")

        assert caught.value.code == INVALID_REQUEST
        desk.peer.notify("session/cancel", {"sessionId": session})


async def test_a_turn_that_fails_is_an_error_in_words(cluster):
    async with open_desk(cluster, "fail") as desk:
        session = await desk.new_session()

        with pytest.raises(Refused, match="no idea") as caught:
            await desk.say(session, "x")

        assert caught.value.code == INTERNAL_ERROR


async def test_an_agent_that_has_ended_is_an_error_in_words(cluster):
    async with open_desk(cluster, "echo") as desk, cluster["hub-a"].open_client() as client:
        session = await desk.new_session()
        await client.cancel(session)

        with pytest.raises(Refused) as caught:
            await desk.say(session, "x")

    assert session.partition("/")[2] in str(caught.value)


@pytest.mark.parametrize("hub", [None, "hub-b"])
async def test_when_the_editor_goes_in_the_middle_of_a_turn_its_agents_are_gone(cluster, hub):
    async with open_desk(cluster, "nap", hub=hub) as desk, trio.open_nursery() as nursery:
        session = await desk.new_session()
        start_turn(nursery, desk, session)
        await desk.until_shown("zzz")
        await desk.stream.aclose()
    async with cluster.meta_hub.open_client() as client:
        details = await client.agent_info(session)

    assert details.outcome == Cancelled("its editor has closed the session")


async def test_when_the_hub_goes_the_turn_is_an_error_in_words_and_the_program_ends(cluster):
    with pytest.RaisesGroup(pytest.RaisesExc(ConnectionLost, match="the hub has ended")):
        async with open_desk(cluster, "nap") as desk:
            session = await desk.new_session()
            async with trio.open_nursery() as nursery:
                turn = start_turn(nursery, desk, session)
                await desk.until_shown("zzz")
                await trio.aclose_forcefully(desk.channel)
            await desk.peer.closed.wait()

    [said] = turn
    assert "connection lost" in said


async def test_a_closed_session_ends_its_agent(cluster):
    async with open_desk(cluster, "echo") as desk, cluster["hub-a"].open_client() as client:
        session = await desk.new_session()
        await desk.peer.call("session/close", {"sessionId": session})
        details = await client.agent_info(session)

        assert details.outcome is not None
        with pytest.raises(Refused, match="no session"):
            await desk.say(session, "x")


PROMPT = {"prompt": [{"type": "text", "text": "x"}]}


@pytest.mark.parametrize(
    ("method", "params", "code", "words"),
    [
        ("session/new", {"cwd": "here", "mcpServers": []}, INVALID_PARAMS, "absolute path"),
        ("session/new", {}, INVALID_PARAMS, "absolute path"),
        ("session/prompt", {"sessionId": "x", "prompt": []}, INVALID_PARAMS, "list of content blocks"),
        (
            "session/prompt",
            {"sessionId": "x"} | PROMPT,
            INVALID_PARAMS,
            "no session 'x' \\(there are: none\\)",
        ),
        ("session/prompt", {"prompt": [{"type": "image", "data": ""}]}, INVALID_PARAMS, "cannot take image"),
        ("session/dance", {}, METHOD_NOT_FOUND, "session/dance"),
    ],
)
async def test_bad_input_is_refused_in_words(cluster, method, params, code, words):
    async with open_desk(cluster, "echo") as desk:
        with pytest.raises(Refused, match=words) as caught:
            await desk.peer.call(method, params)

        assert caught.value.code == code
        assert await desk.say(await desk.new_session(), "hi") == "end_turn"


async def test_an_agent_type_that_the_hub_does_not_run_is_refused_in_words(cluster):
    async with open_desk(cluster, "codex") as desk:
        with pytest.raises(Refused, match="codex") as caught:
            await desk.new_session()

    assert caught.value.data == {"kind": "unknown_agent_type"}
