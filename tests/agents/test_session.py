"""The agent's half of the agent protocol, from the hub's side of the channel."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing
from attrs import define, evolve, field, frozen

from loopal_cluster import (
    Address,
    AgentContext,
    Cancelled,
    ConnectionLost,
    Done,
    ErrorCode,
    Failed,
    MethodNotFound,
    Overloaded,
    Received,
    RemoteError,
)
from loopal_cluster.agents.context import AgentFunction, TurnEnds
from loopal_cluster.agents.session import serve_session
from loopal_cluster.config import Limits
from loopal_cluster.frames import Notification, Request, Response
from loopal_cluster.links.caller import Caller, OpenRequest, open_caller
from loopal_cluster.links.channels import FrameChannel
from loopal_cluster.messages import (
    OK,
    AgentEvent,
    AgentStart,
    CancelRequest,
    Completed,
    Control,
    DeliverAsk,
    DeliverEnvelope,
    Envelope,
    HumanSource,
    Initialize,
    Interrupt,
    Message,
    Opaque,
    Reply,
    Shutdown,
    Status,
    UserContent,
)
from loopal_cluster.payloads import (
    AwaitingInput,
    Error,
    Finished,
    Interrupted,
    ModeChanged,
    Started,
    Stream,
)
from loopal_cluster.testing import byte_pair, record_pair
from loopal_cluster.wire.contents import payload

EPHEMERAL = AgentStart(lifecycle="ephemeral", prompt="hi", name="worker", hub="hub-a", agent_id="id-1")
PERSISTENT = AgentStart(lifecycle="persistent", name="worker", hub="hub-a")
INBOX = 10


@define
class Host:
    """A hub of one agent: what it has heard."""

    channel: FrameChannel
    """To the agent, for what must arrive together."""
    caller: Caller = field(init=False)
    events: list[Any] = field(factory=list)
    completed: list[Completed] = field(factory=list)

    def on_request(self, message: Message[Any], request: OpenRequest) -> Any:
        raise MethodNotFound(f"unknown: {message.method}")

    def on_notification(self, message: Message[Any]) -> None:
        if isinstance(message, AgentEvent):
            assert message.agent_name is None
            self.events.append(payload(message.payload))
        else:
            assert isinstance(message, Completed)
            self.completed.append(message)

    async def settle(self) -> None:
        """Let everything happen that happens without time passing."""
        await trio.testing.wait_all_tasks_blocked()

    async def send(self, text: str) -> Any:
        return await self.caller.call(DeliverEnvelope(envelope(text)))

    async def outcome(self, seconds: float = 1000) -> Completed:
        with trio.move_on_after(seconds):
            await self.caller.closed.wait()
        (completed,) = self.completed
        return completed


Hosting = Callable[..., AbstractAsyncContextManager[Host]]


@pytest.fixture(params=[record_pair, byte_pair])
def hosting(request: pytest.FixtureRequest) -> Hosting:
    """Open a session with a function, over records and over bytes."""

    @asynccontextmanager
    async def host(function: AgentFunction, start: AgentStart | None = EPHEMERAL) -> AsyncIterator[Host]:
        hub_end, agent_end = request.param()
        host = Host(hub_end)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(serve_session, limits=Limits(inbox=INBOX)), agent_end, function)
            async with open_caller(hub_end, host.on_request, host.on_notification) as host.caller:
                if start is not None:
                    await host.caller.call(Initialize())
                    await host.caller.call(start)
                yield host

    return host


def envelope(text: str, content: Any = None) -> Envelope:
    content = UserContent(text) if content is None else content
    return Envelope("id", HumanSource(), Address("worker"), content, "2026-01-01T00:00:00Z")


async def echo(ctx: AgentContext, prompt: str) -> str:
    return f"echo {prompt}"


async def sleepy(ctx: AgentContext, prompt: str) -> str:
    await trio.sleep(float(prompt) if prompt.isdigit() else 20)
    return f"slept {prompt}"


async def collect(ctx: AgentContext, prompt: str) -> str:
    """Work for ten seconds, then look into the inbox."""
    await trio.sleep(10)
    texts = []
    while (received := ctx.receive_nowait()) is not None:
        texts.append(received.text)
    return ",".join(texts)


# Ephemeral.


async def test_an_ephemeral_agent_runs_once_and_ends_with_its_result(hosting, autojump_clock):
    async with hosting(echo) as host:
        completed = await host.outcome()

        assert completed == Completed(reason="goal", result_text="echo hi")
        assert host.events == [Started(), Finished()]


async def test_the_start_says_who_the_agent_is(hosting, autojump_clock):
    async def who(ctx: AgentContext, prompt: str) -> list[Any]:
        return [ctx.address, ctx.agent_id, ctx.persistent, ctx.mode, ctx.parent]

    async with hosting(who) as host:
        assert (await host.outcome()).result_text == '["hub-a/worker","id-1",false,"act",null]'


@pytest.mark.parametrize(
    ("start", "persistent"),
    [
        (AgentStart(prompt="hi"), False),
        (AgentStart(prompt=""), False),
        (AgentStart(), True),
        (AgentStart(prompt="hi", lifecycle="persistent"), True),
        (AgentStart(lifecycle="ephemeral"), False),
    ],
)
async def test_a_hub_that_leaves_the_lifecycle_open_means_it_by_the_prompt(
    hosting, start, persistent, autojump_clock
):
    async with hosting(echo, start) as host:
        await host.settle()

        assert (AwaitingInput() in host.events) is persistent
        assert bool(host.completed) is not persistent


@frozen
class Point:
    x: int
    y: int


@pytest.mark.parametrize(
    ("result", "text"),
    [
        ("", ""),
        (None, ""),
        (0, "0"),
        ({"b": [1, None], "a": True}, '{"a":true,"b":[1,null]}'),
        (("x", 1.5), '["x",1.5]'),
        (Point(1, 2), '{"x":1,"y":2}'),
    ],
)
async def test_a_result_that_is_not_text_becomes_json(hosting, result, text, autojump_clock):
    async def function(ctx: AgentContext, prompt: str) -> object:
        return result

    async with hosting(function) as host:
        assert await host.outcome() == Completed(reason="goal", result_text=text)


async def test_a_result_that_json_cannot_express_is_a_failure(hosting, autojump_clock):
    async def function(ctx: AgentContext, prompt: str) -> object:
        return object()

    async with hosting(function) as host:
        completed = await host.outcome()

        assert completed.reason == "error"
        assert "TypeError" in (completed.result_text or "")


# Failing.


async def test_an_exception_is_a_failure_with_its_traceback(hosting, autojump_clock):
    async def function(ctx: AgentContext, prompt: str) -> None:
        raise KeyError("colour")

    async with hosting(function) as host:
        completed = await host.outcome()

        assert (completed.reason, completed.result_text) == ("error", "KeyError: 'colour'")
        assert completed.traceback is not None
        assert "raise KeyError" in completed.traceback
        assert "ExceptionGroup" not in completed.traceback


async def test_a_function_that_is_not_async_is_a_failure(hosting, autojump_clock):
    async with hosting(lambda ctx, prompt: "x") as host:
        completed = await host.outcome()

        assert completed.reason == "error"
        assert "TypeError" in (completed.result_text or "")


async def test_an_exception_group_is_described_by_what_is_in_it(hosting, autojump_clock):
    async def bad(text: str) -> None:
        raise ValueError(text)

    async def function(ctx: AgentContext, prompt: str) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bad, "one")
            nursery.start_soon(bad, "two")

    async with hosting(function) as host:
        completed = await host.outcome()

        assert completed.reason == "error"
        assert sorted((completed.result_text or "").split("; ")) == ["ValueError: one", "ValueError: two"]


async def test_a_function_that_exits_is_a_failure_and_not_the_end_of_its_process(hosting, autojump_clock):
    async def function(ctx: AgentContext, prompt: str) -> None:
        raise SystemExit("enough")

    async with hosting(function) as host:
        completed = await host.outcome()

        assert (completed.reason, completed.result_text) == ("error", "SystemExit: enough")


@pytest.mark.parametrize("stop", [Interrupt(), None])
async def test_an_error_in_a_cleanup_while_interrupted_or_cut_off_stays_inside(hosting, stop, autojump_clock):
    async def function(ctx: AgentContext, prompt: str) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            try:
                await trio.sleep_forever()
            finally:
                raise ValueError("no cleanup")

    async with hosting(function) as host:
        await host.settle()
        if stop is not None:
            host.caller.notify(stop)
            completed = await host.outcome()
            assert completed.reason == "error"
            assert "no cleanup" in (completed.result_text or "")


# Interrupting and stopping.


async def test_an_interrupt_ends_an_ephemeral_agent(hosting, autojump_clock):
    async with hosting(sleepy) as host:
        await host.settle()
        host.caller.notify(Interrupt())

        assert await host.outcome() == Completed(reason="aborted", result_text="interrupted")
        assert host.events == [Started(), Interrupted(), Finished()]


@pytest.mark.parametrize(
    "start", [EPHEMERAL, evolve(PERSISTENT, prompt="hi")], ids=["ephemeral", "persistent"]
)
async def test_an_interrupt_that_comes_right_behind_the_start_ends_the_first_turn(
    hosting, start, autojump_clock
):
    async with hosting(sleepy, None) as host:
        await host.caller.call(Initialize())
        host.channel.send_nowait([Request(99, start), Notification(Interrupt())])
        await host.channel.drained()
        await host.settle()

        assert Interrupted() in host.events
        assert trio.current_time() < 1


async def test_an_interrupt_before_the_start_changes_nothing(hosting, autojump_clock):
    async with hosting(sleepy, None) as host:
        await host.caller.call(Initialize())
        host.caller.notify(Interrupt())
        await host.caller.call(EPHEMERAL)

        assert await host.outcome() == Completed(reason="goal", result_text="slept hi")


async def test_a_function_may_finish_its_work_when_interrupted(hosting, autojump_clock):
    async def function(ctx: AgentContext, prompt: str) -> str:
        with trio.move_on_after(100, shield=True):
            await trio.sleep(5)
        return "finished all the same"

    async with hosting(function) as host:
        await host.settle()
        host.caller.notify(Interrupt())

        assert (await host.outcome()).result_text == "finished all the same"


async def test_a_shutdown_ends_a_busy_ephemeral_agent(hosting, autojump_clock):
    async with hosting(sleepy) as host:
        await host.settle()

        assert await host.caller.call(Shutdown()) == OK
        assert (await host.outcome()).reason == "aborted"


@pytest.mark.parametrize("prompt", [None, "100"])
async def test_a_shutdown_ends_a_persistent_agent_idle_or_busy(hosting, prompt, autojump_clock):
    start = AgentStart(lifecycle="persistent", prompt=prompt)
    async with hosting(sleepy, start) as host:
        await host.settle()

        assert await host.caller.call(Shutdown()) == OK
        assert await host.outcome() == Completed(reason="shutdown")


async def test_a_shutdown_before_the_start_ends_the_session(hosting, autojump_clock):
    async with hosting(echo, None) as host:
        assert await host.caller.call(Shutdown()) == OK
        await host.caller.closed.wait()

        assert host.completed == []


async def test_the_end_of_the_connection_cancels_the_function(hosting, autojump_clock):
    ended = trio.Event()

    async def function(ctx: AgentContext, prompt: str) -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.set()

    async with hosting(function) as host:
        await host.settle()

    assert ended.is_set()


# Persistent.


async def test_a_persistent_agent_takes_turns(hosting, autojump_clock):
    async with hosting(echo, PERSISTENT) as host:
        await host.send("one")
        await host.settle()
        await host.send("two")
        await host.settle()

        assert host.events == [
            Started(),
            AwaitingInput(),
            Stream("echo one"),
            AwaitingInput(),
            Stream("echo two"),
            AwaitingInput(),
        ]
        assert host.completed == []


async def test_the_prompt_of_a_persistent_agent_is_its_first_turn(hosting, autojump_clock):
    async with hosting(echo, AgentStart(lifecycle="persistent", prompt="zero")) as host:
        await host.settle()

        assert host.events == [Started(), Stream("echo zero"), AwaitingInput()]


async def test_a_failed_turn_does_not_end_a_persistent_agent(hosting, autojump_clock):
    async def picky(ctx: AgentContext, prompt: str) -> str:
        if prompt == "bad":
            raise ValueError("no")
        return prompt

    async with hosting(picky, PERSISTENT) as host:
        await host.send("bad")
        await host.send("good")
        await host.settle()

        assert host.events[2:] == [Error("ValueError: no"), AwaitingInput(), Stream("good"), AwaitingInput()]


async def test_an_interrupt_ends_the_turn_and_not_the_persistent_agent(hosting, autojump_clock):
    async with hosting(sleepy, PERSISTENT) as host:
        await host.send("100")
        await host.settle()
        host.caller.notify(Interrupt())
        await host.settle()
        await host.send("0")
        await host.settle()

        assert host.events[2:] == [Interrupted(), AwaitingInput(), Stream("slept 0"), AwaitingInput()]


async def test_an_interrupt_while_idle_changes_nothing(hosting, autojump_clock):
    async with hosting(echo, PERSISTENT) as host:
        await host.settle()
        host.caller.notify(Interrupt())
        host.caller.notify(Interrupt())
        await host.settle()
        await host.send("still there")
        await host.settle()

        assert Stream("echo still there") in host.events
        assert Interrupted() not in host.events


# The inbox.


@pytest.mark.parametrize("start", [EPHEMERAL, PERSISTENT])
async def test_messages_to_a_busy_agent_are_accepted_at_once_and_queue(hosting, start, autojump_clock):
    async with hosting(collect, start) as host:
        if start is PERSISTENT:
            await host.send("begin")
        await host.settle()
        before = trio.current_time()
        for text in ("a", "b", "c"):
            assert await host.send(text) == OK

        assert trio.current_time() == before
        await trio.sleep(11)
        assert (host.completed and host.completed[0].result_text == "a,b,c") or Stream("a,b,c") in host.events


async def test_a_full_inbox_refuses_and_loses_nothing_it_has_accepted(hosting, autojump_clock):
    async def count(ctx: AgentContext, prompt: str) -> int:
        await trio.sleep(10)
        number = 0
        while ctx.receive_nowait() is not None:
            number += 1
        return number

    async with hosting(count) as host:
        for _ in range(INBOX):
            await host.send("x")
        with pytest.raises(RemoteError, match=r"the inbox is full \(10 messages\)") as caught:
            await host.send("one too many")
        host.caller.notify(DeliverEnvelope(envelope("and another")))

        assert caught.value.code is ErrorCode.OVERLOADED
        assert (await host.outcome()).result_text == str(INBOX)
        assert Error("a message was dropped: the inbox is full (10 messages)") in host.events


@pytest.mark.parametrize("start", [EPHEMERAL, PERSISTENT])
@pytest.mark.parametrize("content", [b"5", b"null", b"{}", b'{"text":5}', b'{"text":"x","images":1}'])
async def test_a_message_of_another_shape_is_refused_and_the_agent_goes_on(
    hosting, start, content, autojump_clock
):
    async with hosting(collect, start) as host:
        strange = DeliverEnvelope(envelope("", Opaque(content)))
        with pytest.raises(RemoteError, match=r"\$\.content") as caught:
            await host.caller.call(strange)
        host.caller.notify(strange)
        await host.send("fine")
        await trio.sleep(11)

        assert caught.value.code is ErrorCode.INVALID_REQUEST
        ended = ["fine"] if start is EPHEMERAL else []
        assert [completed.result_text for completed in host.completed] == ended
        assert host.caller.closed.is_set() is (start is EPHEMERAL)


# Controls and refusals.


async def test_the_mode_and_the_model_can_be_switched(hosting, autojump_clock):
    async def function(ctx: AgentContext, prompt: str) -> list[Any]:
        await trio.sleep(1)
        return [ctx.mode, ctx.model]

    async with hosting(function) as host:
        assert await host.caller.call(Control(Opaque(b'{"ModeSwitch":"Plan"}'))) == OK
        assert await host.caller.call(Control(Opaque(b'{"ModelSwitch":"small"}'))) == OK

        assert (await host.outcome()).result_text == '["plan","small"]'
        assert ModeChanged(mode="plan") in host.events


@pytest.mark.parametrize(
    "command", [b'"Clear"', b'{"ModeSwitch":"Sleep"}', b'{"ModelSwitch":7}', b"null", b"1e999", b"[[]]"]
)
async def test_an_unknown_control_is_refused_and_the_agent_goes_on(hosting, command, autojump_clock):
    async with hosting(sleepy) as host:
        with pytest.raises(RemoteError):
            await host.caller.call(Control(Opaque(command)))

        assert await host.outcome() == Completed(reason="goal", result_text="slept hi")


async def test_a_long_control_is_not_repeated_in_full(hosting, autojump_clock):
    async with hosting(sleepy) as host:
        with pytest.raises(RemoteError) as caught:
            await host.caller.call(Control(Opaque(b'"' + b"x" * 100_000 + b'"')))

        assert len(caught.value.detail) < 300


@pytest.mark.parametrize(
    "message", [DeliverEnvelope(envelope("hi")), Control(Opaque(b'{"ModeSwitch":"Act"}'))]
)
async def test_before_the_start_there_is_nobody_to_ask(hosting, message, autojump_clock):
    async with hosting(echo, None) as host:
        with pytest.raises(MethodNotFound, match="expected agent/start"):
            await host.caller.call(message)


async def test_an_agent_begins_once(hosting, autojump_clock):
    async with hosting(sleepy) as host:
        with pytest.raises(RemoteError, match="this agent has begun already"):
            await host.caller.call(EPHEMERAL)

        assert (await host.outcome()).result_text == "slept hi"


async def test_an_unknown_lifecycle_is_refused(hosting, autojump_clock):
    async with hosting(echo, None) as host:
        with pytest.raises(RemoteError, match="lifecycle 'eternal' is neither ephemeral nor persistent"):
            await host.caller.call(AgentStart(lifecycle="eternal"))


async def test_what_is_not_for_agents_is_refused(hosting, autojump_clock):
    async with hosting(sleepy) as host:
        with pytest.raises(MethodNotFound, match="unknown: hub/status"):
            await host.caller.call(Status())


async def test_what_an_agent_reports_is_an_event(hosting, autojump_clock):
    async def function(ctx: AgentContext, prompt: str) -> None:
        for word in ("a", "b"):
            ctx.stream(word)

    async with hosting(function) as host:
        await host.outcome()

        assert host.events == [Started(), Stream("a"), Stream("b"), Finished()]


# Asks.


async def asked(host: Host, text: str = "hi", **fields: Any) -> Any:
    """What comes of an ask."""
    message = evolve(envelope(text), **fields)
    return (await host.caller.call(DeliverAsk(message))).outcome


async def test_a_turn_of_a_persistent_agent_is_the_reply_and_shown_too(hosting, autojump_clock):
    async with hosting(echo, PERSISTENT) as host:
        assert await asked(host) == Done("echo hi")
        await host.settle()

        assert host.events[-2:] == [Stream("echo hi"), AwaitingInput()]


async def test_a_failed_turn_is_a_failed_reply_and_the_agent_goes_on(hosting, autojump_clock):
    async def fussy(ctx: AgentContext, prompt: str) -> str:
        if prompt == "bad":
            raise ValueError("no")
        return prompt

    async with hosting(fussy, PERSISTENT) as host:
        failure = await asked(host, "bad")

        assert failure.error == "ValueError: no"
        assert "fussy" in failure.traceback
        assert await asked(host, "good") == Done("good")


async def verdict(ctx: AgentContext, prompt: str) -> str:
    """Do what the prompt says; wrapped, as an exception from a nursery is."""
    if prompt.startswith("final"):
        raise ExceptionGroup("", [TurnEnds(Failed(prompt), final=True)])
    if prompt == "give up":
        raise TurnEnds(Cancelled(prompt))
    if prompt.startswith("no"):
        raise TurnEnds(Failed(prompt))
    return prompt


async def test_a_function_may_say_how_its_turn_ends_and_the_agent_goes_on(hosting, autojump_clock):
    async with hosting(verdict, PERSISTENT) as host:
        assert await asked(host, "no!") == Failed("no!")
        assert await asked(host, "give up") == Cancelled("give up")
        assert await asked(host, "yes") == Done("yes")


async def test_a_turn_that_is_the_last_one_ends_the_agent_after_its_reply(hosting, autojump_clock):
    async with hosting(verdict, PERSISTENT) as host:
        assert await asked(host, "final: broken") == Failed("final: broken")
        assert await host.outcome() == Completed(reason="error", result_text="final: broken")


@pytest.mark.parametrize(
    ("prompt", "reason"), [("no!", "error"), ("final!", "error"), ("give up", "aborted"), ("yes", "goal")]
)
async def test_an_ephemeral_agent_ends_as_its_only_turn_does(hosting, prompt, reason, autojump_clock):
    async with hosting(verdict, evolve(EPHEMERAL, prompt=prompt)) as host:
        assert await host.outcome() == Completed(reason=reason, result_text=prompt)


async def test_an_interrupted_turn_is_a_cancelled_reply(hosting, autojump_clock):
    async with hosting(sleepy, PERSISTENT) as host, trio.open_nursery() as nursery:

        @nursery.start_soon
        async def ask() -> None:
            assert await asked(host) == Cancelled("interrupted")

        await host.settle()
        host.caller.notify(Interrupt())


async def test_a_turn_whose_time_is_over_ends_and_the_next_begins(hosting, autojump_clock):
    async with hosting(sleepy, PERSISTENT) as host, trio.open_nursery() as nursery:
        nursery.start_soon(partial(asked, host, "100", timeout_ms=1000))
        await host.settle()

        assert await asked(host, "2") == Done("slept 2")
        assert trio.current_time() == pytest.approx(3.0)
        nursery.cancel_scope.cancel()


async def test_an_ask_that_is_withdrawn_ends_its_turn(hosting, autojump_clock):
    async with hosting(sleepy, PERSISTENT) as host:
        with trio.move_on_after(1):
            await asked(host, "100")

        assert await asked(host, "2") == Done("slept 2")
        assert trio.current_time() == pytest.approx(3.0)


async def test_an_ask_that_is_withdrawn_in_the_same_breath_is_never_begun(autojump_clock):
    begun: list[str] = []

    async def note(ctx: AgentContext, prompt: str) -> None:
        begun.append(prompt)

    hub_end, agent_end = record_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(serve_session, limits=Limits()), agent_end, note)
        hub_end.send_nowait([Request(1, PERSISTENT)])
        await trio.testing.wait_all_tasks_blocked()
        hub_end.send_nowait([Request(2, DeliverAsk(envelope("never"))), Notification(CancelRequest(2))])
        hub_end.send_nowait([Request(3, DeliverAsk(envelope("next"))), Request(4, Shutdown())])
        await trio.testing.wait_all_tasks_blocked()
        await hub_end.aclose()

    assert begun == ["next"]


async def test_asks_and_messages_have_one_inbox(hosting, autojump_clock):
    async with hosting(sleepy, PERSISTENT) as host, trio.open_nursery() as nursery:
        nursery.start_soon(asked, host, "20")
        await host.settle()
        for _ in range(INBOX):
            await host.send("1")

        with pytest.raises(Overloaded):
            await asked(host)


async def test_the_last_replies_of_an_agent_come_before_its_last_word(autojump_clock):
    async def once(ctx: AgentContext, prompt: str) -> None:
        for received in [await ctx.receive() for _ in range(3)]:
            received.reply(received.text)

    hub_end, agent_end = record_pair()
    asks = [Request(n, DeliverAsk(envelope(str(n)))) for n in (2, 3, 4)]
    hub_end.send_nowait([Request(1, EPHEMERAL), *asks])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(serve_session, limits=Limits()), agent_end, once)
        frames = [frame async for batch in hub_end for frame in batch]

    replies = [frame for frame in frames if isinstance(frame, Response) and isinstance(frame.result, Reply)]
    assert {reply.id: reply.result.outcome for reply in replies} == {n: Done(str(n)) for n in (2, 3, 4)}
    assert frames[-1] == Notification(Completed(reason="goal", result_text=""))


async def test_an_agent_does_not_wait_for_asks_that_it_has_not_answered(hosting, autojump_clock):
    async with hosting(sleepy) as host, trio.open_nursery() as nursery:

        @nursery.start_soon
        async def ask() -> None:
            with pytest.raises(ConnectionLost):
                await asked(host)

        assert (await host.outcome()).reason == "goal"


async def test_serve_answers_asks_drops_what_messages_return_and_ends_with_their_errors(
    hosting, autojump_clock
):
    async def serve(ctx: AgentContext, prompt: str) -> None:
        async def answer(received: Received) -> str:
            if received.text == "bad":
                raise ValueError("no")
            return received.text.upper()

        await ctx.serve(answer)

    async with hosting(serve) as host:
        await host.send("a message")
        assert await asked(host) == Done("HI")
        assert (await asked(host, "bad")).error == "ValueError: no"
        await host.send("bad")

        assert (await host.outcome()).result_text == "ValueError: no"


async def test_serve_works_on_many_at_a_time(hosting, autojump_clock):
    async def serve(ctx: AgentContext, prompt: str) -> None:
        async def answer(received: Received) -> str:
            await trio.sleep(5)
            return received.text

        await ctx.serve(answer)

    async with hosting(serve) as host:
        async with trio.open_nursery() as nursery:
            for n in range(INBOX):
                nursery.start_soon(asked, host, str(n))

        assert trio.current_time() == pytest.approx(5.0)
