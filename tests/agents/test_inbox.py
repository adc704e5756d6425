"""What an agent is sent: in order, bounded, and with one reply to each ask, while somebody waits for it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
from attrs import define, field

from loopal_cluster import Address, InvalidRequest, Overloaded
from loopal_cluster.agents.inbox import Inbox, Received, failed, text_of
from loopal_cluster.links.caller import Caller, OpenRequest, open_caller
from loopal_cluster.messages import (
    AgentSource,
    DeliverAsk,
    Envelope,
    HumanSource,
    Message,
    Opaque,
    Source,
    UserContent,
)
from loopal_cluster.outcomes import Cancelled, Done, Failed, Outcome
from loopal_cluster.records import evolve
from loopal_cluster.testing import record_pair


def envelope(text: str = "hello", source: Source | None = None, content: Any = None) -> Envelope:
    content = UserContent(text) if content is None else content
    return Envelope("id", source or HumanSource(), Address("worker"), content, "2026-01-01T00:00:00Z")


@define(eq=False)
class Asker:
    """Who waits for a reply, at the other end of a connection: what it has heard."""

    caller: Caller
    scope: trio.CancelScope = field(factory=trio.CancelScope)
    outcome: Outcome | None = None
    progress: list[float] = field(factory=list)
    """When it was told of some."""

    async def ask(self, envelope: Envelope) -> None:
        with self.scope:
            reply = await self.caller.call(DeliverAsk(envelope), self.on_progress)
            self.outcome = reply.outcome

    def on_progress(self) -> None:
        self.progress.append(trio.current_time())

    async def heard(self) -> Outcome | None:
        """The reply that it has by now."""
        await trio.testing.wait_all_tasks_blocked()
        return self.outcome

    async def withdraw(self) -> None:
        self.scope.cancel()
        await trio.testing.wait_all_tasks_blocked()


@asynccontextmanager
async def open_asker(inbox: Inbox, ask: Envelope) -> AsyncIterator[Asker]:
    """Let somebody ask, and wait until that is in the inbox."""

    def on_request(message: Message[Any], request: OpenRequest) -> None:
        assert isinstance(message, DeliverAsk)
        inbox.put_ask(message.envelope, request)

    here, there = record_pair()
    async with (
        open_caller(there, on_request, print),
        open_caller(here, on_request, print) as caller,
        trio.open_nursery() as nursery,
    ):
        asker = Asker(caller)
        nursery.start_soon(asker.ask, ask)
        await trio.testing.wait_all_tasks_blocked()
        yield asker
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def open_ask(timeout: float = 5.0, *, extend: bool = False) -> AsyncIterator[tuple[Received, Asker]]:
    """An ask that an agent has received, and who waits for its reply."""
    inbox = Inbox(1)
    ask = evolve(envelope(), timeout_ms=int(timeout * 1000), extend=extend)
    async with open_asker(inbox, ask) as asker:
        received = inbox.get_nowait()
        assert received is not None
        yield received, asker


# The inbox.


async def test_messages_come_out_in_the_order_in_which_they_came_in():
    inbox = Inbox(3)
    for text in "abc":
        inbox.put(envelope(text))

    assert [(await inbox.get()).text for _ in range(3)] == ["a", "b", "c"]
    assert inbox.get_nowait() is None


async def test_whoever_waits_for_a_message_gets_the_next_one(autojump_clock):
    inbox, got = Inbox(3), []

    async def take() -> None:
        got.append((await inbox.get()).text)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(take)
        nursery.start_soon(take)
        await trio.testing.wait_all_tasks_blocked()
        inbox.put(envelope("a"))
        inbox.put(envelope("b"))

    assert sorted(got) == ["a", "b"]


async def test_a_waiter_that_is_cancelled_takes_nothing(autojump_clock):
    inbox = Inbox(3)
    with trio.CancelScope() as scope:
        inbox.put(envelope("a"))
        scope.cancel()
        await inbox.get()

    assert inbox.get_nowait() is not None


def test_a_full_inbox_is_overloaded_and_keeps_what_it_has():
    inbox = Inbox(1)
    inbox.put(envelope("a"))

    with pytest.raises(Overloaded, match=r"the inbox is full \(1 messages\)"):
        inbox.put(envelope("b"))

    assert inbox.get_nowait().text == "a"
    inbox.put(envelope("c"))


async def test_an_ask_that_is_withdrawn_is_not_read_and_makes_room():
    inbox = Inbox(2)
    async with open_asker(inbox, envelope("a")) as asker:
        inbox.put(envelope("b"))

        await asker.withdraw()

        inbox.put(envelope("c"))
        assert [inbox.get_nowait().text for _ in range(2)] == ["b", "c"]


def test_what_cannot_be_read_is_not_taken():
    inbox = Inbox(1)

    with pytest.raises(InvalidRequest):
        inbox.put(envelope(content=Opaque(b'{"text":5}')))

    assert inbox.get_nowait() is None


@pytest.mark.parametrize(("source", "sender"), [(AgentSource("hub-b/x"), "hub-b/x"), (HumanSource(), None)])
def test_only_an_agent_can_be_answered_by_name(source, sender):
    inbox = Inbox(1)
    inbox.put(envelope(source=source))

    received = inbox.get_nowait()

    assert (received.sender, received.source) == (sender, source)


# Replies.


async def test_a_reply_is_text_or_json():
    for result, text in [("yes", "yes"), (None, ""), ({"b": 1, "a": [True]}, '{"a":[true],"b":1}'), (3, "3")]:
        async with open_ask() as (received, asker):
            received.reply(result)
            assert await asker.heard() == Done(text)


async def test_only_the_first_reply_counts():
    async with open_ask() as (received, asker):
        received.reply("first")
        received.reply("second")
        received.fail("third")

        assert await asker.heard() == Done("first")


async def test_an_ask_can_fail_with_words_an_exception_or_any_outcome():
    for act, outcome in [
        (lambda received: received.fail("no"), Failed("no")),
        (lambda received: received.fail(ValueError("no")), Failed("ValueError: no", "ValueError: no\n")),
        (lambda received: received.settle(Cancelled("not now")), Cancelled("not now")),
    ]:
        async with open_ask() as (received, asker):
            act(received)
            assert await asker.heard() == outcome


def test_a_plain_message_wants_no_reply():
    inbox = Inbox(1)
    inbox.put(envelope())
    received = inbox.get_nowait()

    assert not received.wants_reply
    for act in (
        lambda: received.reply("x"),
        lambda: received.fail("x"),
        lambda: received.settle(Done("x")),
        received.progress,
        lambda: received.scope,
    ):
        with pytest.raises(InvalidRequest, match="wants no reply"):
            act()


async def test_a_reply_that_cannot_be_expressed_is_an_error_of_who_gives_it_and_another_may_follow():
    async with open_ask() as (received, asker):
        with pytest.raises(TypeError, match="object cannot be expressed in JSON"):
            received.reply(object())

        received.reply("something else")
        assert await asker.heard() == Done("something else")


async def test_a_reply_when_nobody_waits_any_more_is_dropped():
    async with open_ask() as (received, asker):
        await asker.withdraw()
        received.reply("late")

        assert await asker.heard() is None


# Work on an ask.


async def test_work_ends_when_nobody_waits_any_more(autojump_clock):
    async with open_ask(5.0) as (received, asker):
        with received.scope:
            await asker.withdraw()
            await trio.sleep_forever()

        assert trio.current_time() == 0.0
        assert not received.is_open


async def test_answer_replies_with_what_is_returned():
    async with open_ask() as (received, asker):

        async def answer(received: Received) -> str:
            return received.text.upper()

        await received.answer(answer)

        assert await asker.heard() == Done("HELLO")


@pytest.mark.parametrize(
    "error", [ValueError("no"), SystemExit(3), ExceptionGroup("all", [ValueError("no")])]
)
async def test_answer_replies_with_what_is_raised(error):
    async with open_ask() as (received, asker):

        async def answer(received: Received) -> str:
            raise error

        await received.answer(answer)

        outcome = await asker.heard()
        assert isinstance(outcome, Failed)
        assert outcome.traceback is not None
    assert "answer" in outcome.traceback


async def test_answer_is_cancelled_when_the_time_of_the_ask_is_over_and_leaves_it_to_the_hub_to_say_so(
    autojump_clock,
):
    async with open_ask(5.0) as (received, asker):

        async def answer(received: Received) -> None:
            await trio.sleep_forever()

        await received.answer(answer)

        assert trio.current_time() == pytest.approx(5.0)
        assert await asker.heard() is None


async def test_an_error_while_it_is_cancelled_is_not_the_reply_either(autojump_clock):
    async with open_ask(5.0) as (received, asker):

        async def answer(received: Received) -> None:
            try:
                await trio.sleep_forever()
            finally:
                raise ValueError("in the cleanup")

        await received.answer(answer)

        assert await asker.heard() is None


async def test_the_cancellation_of_the_agent_goes_on_its_way(autojump_clock):
    async with open_ask(5.0) as (received, asker):

        async def answer(received: Received) -> None:
            await trio.sleep_forever()

        with trio.move_on_after(1.0) as scope:
            await received.answer(answer)

        assert scope.cancelled_caught
        assert await asker.heard() is None


async def test_progress_gives_the_work_its_time_anew_and_says_so(autojump_clock):
    async with open_ask(5.0, extend=True) as (received, asker):
        with received.scope as scope:
            for _ in range(3):
                await trio.sleep(4.0)
                received.progress()
            await trio.sleep_forever()

        assert scope.cancelled_caught
        assert asker.progress == pytest.approx([4.0, 8.0, 12.0])
        assert trio.current_time() == pytest.approx(17.0)


async def test_progress_that_makes_no_difference_is_not_said(autojump_clock):
    async with open_ask(5.0) as (fixed, asker), open_ask(5.0, extend=True) as (late, late_asker):
        fixed.progress()
        await trio.sleep(5.0)
        late.progress()

        assert asker.progress == late_asker.progress == []
        assert fixed.scope.deadline == pytest.approx(5.0)


# What becomes text.


def test_a_group_of_errors_is_described_by_what_is_in_it():
    error = ExceptionGroup("two", [ValueError("a"), ExceptionGroup("more", [KeyError("b"), OSError()])])

    assert failed(error).error == "ValueError: a; KeyError: 'b'; OSError"


def test_a_text_of_a_class_of_its_own_is_text():
    class Text(str):
        pass

    assert text_of(Text("x")) == "x"
