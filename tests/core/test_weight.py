"""What a route costs, and what it leaves behind: in counts, which are the same on a busy machine.

Work is counted in bytecodes and in calls of C functions, by the interpreter's own hooks; what is left behind,
in entries of whatever a core has that can grow.
"""

from __future__ import annotations

import statistics
import sys
from collections import Counter, deque
from collections.abc import Callable
from types import FrameType
from typing import Any

import attrs
import pytest

from loopal_cluster.address import Address
from loopal_cluster.config import Limits, Timeouts
from loopal_cluster.core.events import FrameReceived, Peer
from loopal_cluster.frames import Request, Response
from loopal_cluster.messages import (
    OK,
    AgentEvent,
    AgentSource,
    CancelRequest,
    DeliverAsk,
    DeliverEnvelope,
    Heartbeat,
    Message,
    MetaAsk,
    MetaRoute,
    Reply,
    Subscribe,
    WaitAgent,
)
from loopal_cluster.outcomes import Done
from loopal_cluster.payloads import Stream
from loopal_cluster.testing import CoreDriver, sent

from .builders import (
    answer_all,
    answers,
    ask,
    attach,
    begin,
    envelope,
    in_cluster,
    join,
    open_hub,
    open_meta,
)

# Work.


def steps(work: Callable[[], object]) -> int:
    """How many bytecodes and calls of C functions something takes."""
    count = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal count
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        count += 1
        return trace

    def profile(_: FrameType, event: str, __: Any) -> None:
        nonlocal count
        count += event == "c_call"

    tracing = sys.gettrace()
    sys.settrace(trace)
    sys.setprofile(profile)
    try:
        work()
    finally:
        sys.setprofile(None)
        sys.settrace(tracing)
    return count


def test_the_count_sees_loops_and_calls() -> None:
    def loop(times: int) -> Callable[[], object]:
        return lambda: [number + 1 for number in range(times)]

    assert steps(loop(1000)) > 1000 + steps(loop(10))
    assert steps(lambda: [len("") for _ in range(100)]) > 100 + steps(lambda: ["" for _ in range(100)])


def crowded(hubs: int, agents: int) -> tuple[CoreDriver, Peer, Peer]:
    """A MetaHub with so many hubs, each with so many agents; two of the hubs."""
    meta = open_meta()
    for number in range(hubs):
        join(meta, f"idle-{number}", *[f"agent-{number}-{index}" for index in range(agents)])
    return meta, join(meta, "left", "chief"), join(meta, "right", "worker")


def weight(meta: CoreDriver, sender: Peer, receiver: Peer, message: Message[Any], result: object) -> int:
    """The steps of one request through a MetaHub and of its answer, in the middle of many."""

    def route(number: int) -> int:
        request = FrameReceived(sender, Request(number, message))
        counted = steps(lambda: forwarded.extend(sent(meta.core.handle(request, meta.now), receiver)))
        (asked,) = forwarded
        forwarded.clear()
        answer = FrameReceived(receiver, Response(asked.id, result))
        return counted + steps(lambda: meta.core.handle(answer, meta.now))

    forwarded: list[Any] = []
    return statistics.median_low([route(number) for number in range(100_000, 100_031)])


@pytest.mark.parametrize(
    ("message", "result"),
    [
        (MetaRoute(envelope("right/worker")), OK),
        (MetaRoute(envelope("worker")), OK),
        (MetaAsk(attrs.evolve(envelope("right/worker"), timeout_ms=5000)), Reply(Done("yes"))),
    ],
    ids=["a message", "a message to a bare name", "an ask"],
)
def test_a_route_costs_the_same_among_ten_hubs_and_among_a_thousand_with_100_000_agents(
    message: Message[Any], result: object
) -> None:
    few, many = crowded(10, 10), crowded(1000, 100)

    assert weight(*many, message, result) == weight(*few, message, result)


def test_a_route_costs_the_same_beside_thousands_that_wait_for_their_answers() -> None:
    meta, sender, receiver = crowded(10, 10)
    message = MetaRoute(envelope("right/worker"))
    alone = weight(meta, sender, receiver, message, OK)

    for _ in range(5000):
        meta.request(sender, message)

    assert weight(meta, sender, receiver, message, OK) == alone


def test_an_event_costs_the_same_whatever_was_seen_before() -> None:
    meta, hub, _ = crowded(10, 10)
    meta.request(attach(meta), Subscribe())
    event = FrameReceived(hub, Request(1, MetaRoute(envelope("nowhere/x"))))

    def cost() -> int:
        return statistics.median_low([steps(lambda: meta.core.handle(event, 0.0)) for _ in range(11)])

    early = cost()
    for number in range(5000):
        meta.notify(hub, AgentEvent("chief", Stream(f"{number}")))

    assert cost() == early


# What is left behind.


def sizes(core: object) -> Counter[str]:
    """How many entries everything in a core has that can grow, by the names of the fields that lead there."""
    found: Counter[str] = Counter()
    seen: set[int] = set()

    def look(value: object, path: str) -> None:
        if id(value) in seen:
            return
        seen.add(id(value))
        if isinstance(value, dict | set | list | deque):
            found[path] += len(value)
        if isinstance(value, dict):
            for item in value.values():
                look(item, path)
        elif isinstance(value, list | deque | tuple):
            for item in value:
                look(item, path)
        elif attrs.has(type(value)):
            for name in [field.name for field in attrs.fields(type(value))]:  # type: ignore[arg-type]
                look(getattr(value, name), f"{path}.{name}")
        elif type(value).__module__.startswith("loopal_cluster"):
            for name, item in getattr(value, "__dict__", {}).items():
                look(item, f"{path}.{name}")

    look(core, "")
    return found


def grown(driver: CoreDriver, rounds: Callable[[int], None]) -> dict[str, int]:
    """By how much what can grow has grown from the first to the third of some rounds."""
    rounds(0)
    before = sizes(driver.core)
    rounds(1)
    rounds(2)
    after = sizes(driver.core)
    return {path: after[path] - before[path] for path in after if after[path] != before[path]}


TIMES = Timeouts(result_ttl=20.0, heartbeat_interval=1.0)
"""What is kept on purpose is kept for a short time."""
LIMITS = Limits(timeline=2)
"""Of events, the newest few are kept."""


def pass_time(driver: CoreDriver, *hubs: Peer) -> None:
    """Two minutes, in which hubs say that they are alive."""
    for _ in range(120):
        for hub in hubs:
            driver.notify(hub, Heartbeat(1))
        driver.advance(1.0)


def test_the_measure_sees_what_is_left_behind() -> None:
    meta = open_meta(TIMES, limits=LIMITS)
    left, _ = join(meta, "left", "chief"), join(meta, "right", "worker")

    def unanswered(number: int) -> None:
        for index in range(10):
            meta.receive(left, Request(100 * number + index, MetaRoute(envelope("right/worker"))))

    assert sum(grown(meta, unanswered).values()) >= 20


@pytest.mark.parametrize("end", ["answered", "refused", "cancelled", "expired", "cut"])
@pytest.mark.parametrize("kind", ["message", "ask", "wait"])
def test_nothing_is_left_of_requests_through_a_meta_hub_however_they_end(kind: str, end: str) -> None:
    meta = open_meta(TIMES, limits=LIMITS)
    left, right = join(meta, "left", "chief"), join(meta, "right", "worker")
    to = {
        "message": MetaRoute(envelope("right/worker")),
        "ask": MetaAsk(attrs.evolve(envelope("right/worker"), timeout_ms=5000)),
        "wait": WaitAgent(Address.parse("right/worker"), timeout_ms=5000),
    }[kind]

    def requests_of(number: int) -> None:
        nonlocal left
        for index in range(50):
            request_id = 1000 * number + 100 + index
            asked = sent(meta.receive(left, Request(request_id, to)), right)  # type: ignore[arg-type]
            (forwarded,) = [frame for frame in asked if isinstance(frame, Request)]
            match end:
                case "answered":
                    meta.receive(
                        right, Response(forwarded.id, {"message": OK, "ask": Reply(Done("yes"))}.get(kind))
                    )
                case "refused":
                    meta.receive(left, Request(request_id + 500, MetaRoute(envelope("nowhere/x"))))
                    meta.receive(right, Response(forwarded.id, OK))
                case "cancelled":
                    meta.notify(left, CancelRequest(request_id))
        if end == "cut":
            meta.lose(left)
            pass_time(meta, right)
            left = join(meta, "left", "chief")
        pass_time(meta, left, right)

    assert grown(meta, requests_of) == {}


@pytest.mark.parametrize("end", ["answered", "cancelled", "expired", "cut"])
def test_nothing_is_left_of_asks_and_waits_at_a_hub_however_they_end(end: str) -> None:
    hub = open_hub(TIMES, limits=LIMITS)
    agent = begin(hub, "x")

    def asks(number: int) -> None:
        client = attach(hub, f"ann-{number}")
        for index in range(50):
            ask_id, wait_id = 1000 * number + 100 + index, 1000 * number + 500 + index
            asked = hub.receive(client, Request(ask_id, ask(message_id=f"{number}-{index}")))
            hub.receive(client, Request(wait_id, WaitAgent(Address.parse("x"), timeout_ms=5000)))
            (delivered,) = [frame for frame in sent(asked, agent) if isinstance(frame, Request)]
            assert isinstance(delivered.message, DeliverAsk)
            match end:
                case "answered":
                    assert answers(hub.receive(agent, Response(delivered.id, Reply(Done("yes")))), client)
                case "cancelled":
                    hub.notify(client, CancelRequest(ask_id))
                    hub.notify(client, CancelRequest(wait_id))
        if end == "cut":
            hub.lose(client)
        pass_time(hub)
        if end != "cut":
            hub.lose(client)

    assert grown(hub, asks) == {}


def test_a_hub_remembers_messages_from_other_hubs_only_as_long_as_they_may_come_again() -> None:
    hub, agent, uplink = in_cluster(timeouts=TIMES, limits=LIMITS)

    def messages(number: int) -> None:
        for index in range(50):
            message = attrs.evolve(
                envelope("x", AgentSource("there/y")), id=f"{number}-{index}", origin_hub="there"
            )
            delivered = sent(
                hub.receive(uplink, Request(1000 * number + index, DeliverEnvelope(message))), agent
            )
            (request,) = [frame for frame in delivered if isinstance(frame, Request)]
            hub.receive(agent, Response(request.id, OK))
        for _ in range(int(2 * TIMES.memory(TIMES.call_timeout)) + 1):
            answer_all(hub, uplink)
            hub.advance(1.0)

    assert grown(hub, messages) == {}
