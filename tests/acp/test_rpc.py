"""JSON-RPC over lines, whatever the other side writes."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from loopal_cluster.acp import rpc
from loopal_cluster.acp.rpc import PeerGone, Refused, open_peer

from .talk import Hand


class Ours:
    """Our side of a talk: it hears everything, and answers all but ``wait`` with the parameters."""

    def __init__(self) -> None:
        self.heard: list[Any] = []
        self.cancelled = 0

    async def on_request(self, method: str, params: Any) -> Any:
        self.heard.append((method, params))
        if method == "refuse":
            raise Refused(-32601, "no")
        if method == "wait":
            try:
                await trio.sleep_forever()
            finally:
                self.cancelled += 1
        return params

    def on_notification(self, method: str, params: Any) -> None:
        self.heard.append((method, params))


@asynccontextmanager
async def talk(**options: Any):
    ours = Ours()
    here, there = trio.testing.memory_stream_pair()
    async with open_peer(here, here, ours.on_request, ours.on_notification, **options) as peer:
        yield peer, Hand(there), ours


async def test_a_request_is_answered_with_its_result(autojump_clock):
    async with talk() as (peer, hand, _):
        answer = peer.ask("add", {"a": 1})
        request = await hand.read()
        await hand.write(id=request["id"], result=2)

        assert request == {"id": 1, "method": "add", "params": {"a": 1}}
        assert await answer.wait() == 2


async def test_a_refusal_has_its_code_its_words_and_the_beginning_of_its_data(autojump_clock):
    async with talk() as (peer, hand, _):
        answer = peer.ask("add", {})
        await hand.write(id=1, error={"code": -32000, "message": "no", "data": {"why": "x" * 1000}})

        with pytest.raises(Refused) as caught:
            await answer.wait()
    assert caught.value.code == -32000
    assert str(caught.value).startswith('no: {"why":"xxx')
    assert len(str(caught.value)) < 400


async def test_notifications_come_before_the_answer_that_follows_them(autojump_clock):
    async with talk() as (peer, hand, ours):
        answer = peer.ask("go", {})
        await hand.write(method="one")
        await hand.write(method="two", params=2)
        await hand.write(id=1, result=None)
        await answer.wait()

        assert ours.heard == [("one", None), ("two", 2)]


async def test_what_is_no_message_is_passed_over_and_its_end_is_remembered(autojump_clock):
    async with talk() as (peer, hand, ours):
        answer = peer.ask("go", {})
        await hand.raw("Welcome!\n\n{not json\n42\n[1]\n{}\n" + "y" * 1000 + "\n")
        for number in range(100):
            await hand.raw(f"line {number}\n")
        await hand.write(id=1, result="ok")

        assert await answer.wait() == "ok"
        assert ours.heard == []
        assert list(peer.noise) == [f"line {number}" for number in range(80, 100)]


async def test_a_long_line_of_noise_is_shortened(autojump_clock):
    async with talk() as (peer, hand, _):
        await hand.raw("y" * 1000 + "\n")
        answer = peer.ask("go", {})
        await hand.write(id=1, result="ok")
        await answer.wait()

        assert list(peer.noise) == ["y" * 200]


async def test_half_of_a_character_does_not_cost_the_message(autojump_clock):
    async with talk() as (_, hand, ours):
        await hand.raw('{"jsonrpc":"2.0","method":"say","params":"a\\ud83d"}\n')
        await hand.raw('{"jsonrpc":"2.0","id":7,"method":"echo","params":"b\\ud83d"}\n')

        assert (await hand.read())["result"] == "b?"
        assert ours.heard[0] == ("say", "a?")


async def test_a_request_is_refused_in_the_words_of_its_handler(autojump_clock):
    async with talk() as (_, hand, _):
        await hand.write(id="x", method="refuse")

        assert await hand.read() == {"id": "x", "error": {"code": -32601, "message": "no"}}


async def test_a_request_that_takes_long_holds_up_nothing(autojump_clock):
    async with talk() as (_, hand, _):
        await hand.write(id=1, method="wait")
        await hand.write(id=2, method="echo", params="hi")

        assert await hand.read() == {"id": 2, "result": "hi"}


async def test_a_request_that_is_withdrawn_is_answered_so(autojump_clock):
    async with talk() as (_, hand, ours):
        await hand.write(id=1, method="wait")
        await trio.testing.wait_all_tasks_blocked()
        await hand.write(method="$/cancel_request", params={"requestId": 1})

        assert await hand.read() == {"id": 1, "error": {"code": -32800, "message": "cancelled"}}
        assert ours.cancelled == 1


async def test_more_requests_than_can_be_open_are_refused(autojump_clock):
    async with talk() as (_, hand, _):
        for number in range(rpc.OPEN_REQUESTS + 1):
            await hand.write(id=number, method="wait")

        answer = await hand.read()
        assert answer["id"] == rpc.OPEN_REQUESTS
        assert "64 requests are open" in answer["error"]["message"]


async def test_an_id_that_is_open_is_refused_and_the_first_goes_on(autojump_clock):
    async with talk() as (_, hand, ours):
        await hand.write(id=1, method="wait")
        await hand.write(id=1, method="echo")

        assert (await hand.read())["error"]["code"] == -32600
        assert ours.cancelled == 0


async def test_who_does_not_read_its_answers_is_not_read_from(autojump_clock):
    ours, text, sent = Ours(), "z" * 100_000, 0
    here, there = trio.testing.lockstep_stream_pair()  # a pipe that is full at once
    async with open_peer(here, here, ours.on_request, ours.on_notification):
        with trio.move_on_after(10):
            while True:
                line = json.dumps({"jsonrpc": "2.0", "id": sent, "method": "echo", "params": text})
                await there.send_all(f"{line}\n".encode())
                sent += 1

    # One write is stuck in the pipe, a megabyte waits, and no more is taken in.
    assert 10 <= sent <= 15


async def test_the_end_of_its_output_ends_every_wait(autojump_clock):
    async with talk() as (peer, hand, ours):
        await hand.write(id=1, method="wait")
        answers = [peer.ask("a", {}), peer.ask("b", {})]
        await trio.testing.wait_all_tasks_blocked()
        await hand.stream.aclose()

        for answer in answers:
            with pytest.raises(PeerGone, match="closed its standard output"):
                await answer.wait()
        with pytest.raises(PeerGone):
            await peer.call("c", {})
        assert ours.cancelled == 1


async def test_a_last_line_without_an_end_counts(autojump_clock):
    async with talk() as (peer, hand, _):
        answer = peer.ask("a", {})
        await hand.raw('{"jsonrpc":"2.0","id":1,"result":5}')
        await hand.stream.aclose()

        assert await answer.wait() == 5


async def test_an_answer_that_is_too_long_ends_the_talk_in_words(autojump_clock):
    async with talk(line_bytes=1000) as (peer, hand, _):
        answer = peer.ask("a", {})
        await hand.write(id=1, result="r" * 2000)

        with pytest.raises(PeerGone, match="a line of more than 1000 bytes"):
            await answer.wait()


async def test_a_report_that_is_too_long_is_passed_over(autojump_clock):
    async with talk(line_bytes=1000) as (peer, hand, ours):
        answer = peer.ask("a", {})
        await hand.write(method="session/update", params="u" * 2000)
        await hand.write(id=1, result="still here")

        assert await answer.wait() == "still here"
        assert ours.heard == []


async def test_what_is_nested_too_deeply_is_treated_as_too_long(autojump_clock):
    deep = "[" * 500 + "]" * 500
    async with talk() as (peer, hand, ours):
        answer = peer.ask("a", {})
        await hand.raw(f'{{"jsonrpc":"2.0","method":"session/update","params":{deep}}}\n')
        await hand.write(id=1, result="still here")
        assert await answer.wait() == "still here"

        answer = peer.ask("b", {})
        await hand.raw(f'{{"jsonrpc":"2.0","id":2,"result":{deep}}}\n')
        with pytest.raises(PeerGone, match="nested more than 100 times"):
            await answer.wait()

    assert ours.heard == []


class SlowPipe(trio.abc.SendStream):
    """It is full for a while."""

    def __init__(self) -> None:
        self.taken = b""

    async def send_all(self, data: bytes) -> None:  # type: ignore[override]
        await trio.sleep(rpc.FLUSH_TIMEOUT / 2)
        self.taken += data

    async def wait_send_all_might_not_block(self) -> None:
        raise NotImplementedError

    async def aclose(self) -> None:
        raise NotImplementedError


async def test_what_is_being_sent_at_the_end_is_sent_whole(autojump_clock):
    ours, pipe = Ours(), SlowPipe()
    _, quiet = trio.testing.memory_stream_one_way_pair()
    async with open_peer(quiet, pipe, ours.on_request, ours.on_notification) as peer:
        peer.notify("bye", {})
        await trio.testing.wait_all_tasks_blocked()

    assert json.loads(pipe.taken)["method"] == "bye"


async def test_one_who_has_closed_its_input_is_still_read_to_the_end(autojump_clock):
    ours, text = Ours(), "z" * 100_000
    there_out, here_in = trio.testing.memory_stream_one_way_pair()
    here_out, there_in = trio.testing.memory_stream_one_way_pair()
    await there_in.aclose()
    async with open_peer(here_in, here_out, ours.on_request, ours.on_notification) as peer:
        for number in range(30):
            line = json.dumps({"jsonrpc": "2.0", "id": number, "method": "echo", "params": text})
            await there_out.send_all(f"{line}\n".encode())
        await there_out.aclose()

        await peer.closed.wait()
        await peer.flush()

    assert len(ours.heard) == 30


async def test_an_answer_to_nothing_is_no_fault(autojump_clock):
    async with talk() as (peer, hand, _):
        answer = peer.ask("a", {})
        await hand.write(id=99, result="for whom?")
        await hand.write(id=None, error={"code": -32700, "message": "what?"})
        await hand.write(id=1, result="ok")

        assert await answer.wait() == "ok"


async def test_what_is_said_last_is_still_sent(autojump_clock):
    async with talk() as (peer, hand, _):
        with trio.CancelScope() as scope:
            try:
                scope.cancel()
                await trio.sleep_forever()
            finally:
                peer.notify("bye", {})

    assert await hand.read() == {"method": "bye", "params": {}}


async def test_a_call_that_is_cancelled_is_withdrawn(autojump_clock):
    async with talk() as (peer, hand, _):
        with trio.move_on_after(1):
            await peer.call("add", {"a": 1})
        assert await hand.read() == {"id": 1, "method": "add", "params": {"a": 1}}
        assert await hand.read() == {"method": "$/cancel_request", "params": {"requestId": 1}}

        await hand.write(id=1, result=2)  # too late, and no harm
        answer = peer.ask("add", {})
        await hand.write(id=2, result=3)
        assert await answer.wait() == 3


async def test_a_refusal_of_ours_keeps_its_data(autojump_clock):
    async def refuse(method: str, params: Any) -> Any:
        raise Refused(-32603, "no", {"kind": "lost"})

    here, there = trio.testing.memory_stream_pair()
    async with open_peer(here, here, refuse, Ours().on_notification):
        hand = Hand(there)
        await hand.write(id=1, method="add")

        error = {"code": -32603, "message": "no", "data": {"kind": "lost"}}
        assert await hand.read() == {"id": 1, "error": error}


async def test_a_talk_that_is_cancelled_before_it_begins_ends(autojump_clock):
    ours = Ours()
    here, _there = trio.testing.memory_stream_pair()

    with trio.CancelScope() as scope:
        scope.cancel()
        async with open_peer(here, here, ours.on_request, ours.on_notification):
            await trio.sleep_forever()

    assert scope.cancelled_caught
