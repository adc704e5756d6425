"""A slow hub, a deaf observer, a flood: what the others get done meanwhile, counted and not timed.

Hubs are played frame by frame, over memory and virtual time. In virtual time one sees whether anybody waits for
somebody else's slowness; in passes of the scheduler, whether somebody else's haste keeps anybody waiting.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count

import pytest
import trio
from attrs import define, field

from loopal_cluster import Limits, MetaHub, Role, open_meta_hub
from loopal_cluster.address import Address
from loopal_cluster.frames import Frame, Notification, Request, Response
from loopal_cluster.links.channels import FrameChannel
from loopal_cluster.messages import (
    OK,
    AgentEvent,
    AgentSource,
    Announce,
    Announced,
    ClusterEvent,
    Envelope,
    MetaRoute,
    Opaque,
    Register,
    RegisterHub,
    Subscribe,
)
from loopal_cluster.payloads import Stream
from loopal_cluster.runtime.outbox import Outboxes
from loopal_cluster.runtime.runtime import Runtime
from loopal_cluster.testing import record_pair

PAIRS, WINDOW, ROUTES = 4, 4, 400
TEXT = Opaque(b'{"text":"' + b"x" * 200 + b'"}')


def route(request_id: int, target: str) -> Request:
    address = Address.parse(target)
    return Request(request_id, MetaRoute(Envelope(f"m-{request_id}", AgentSource("a"), address, TEXT, "now")))


async def join(meta_hub: MetaHub, name: str) -> FrameChannel:
    """A hub with an agent ``a``."""
    ours, theirs = record_pair(64)
    meta_hub.attach(theirs)
    ours.send_nowait([Request(1, RegisterHub(name, meta_hub.token))])
    ours.send_nowait([Request(2, Announce((Announced("a", f"{name}-a"),)))])
    answered = 0
    while answered < 2:
        answered += len([frame for frame in await ours.receive() if isinstance(frame, Response)])
    return ours


class Passes(trio.abc.Instrument):
    """How often the scheduler has gone round."""

    def __init__(self) -> None:
        self.count = 0

    def before_io_wait(self, timeout: float) -> None:
        self.count += 1


@define
class Result:
    """What a number of routes took."""

    seconds: float
    passes: int


@define
class Load:
    """Pairs of hubs, each with a window of messages in flight, until all of them together have sent ``ROUTES``."""

    meta_hub: MetaHub
    answering: float = 0.0
    """Seconds that a receiver takes."""
    done: int = 0
    numbers: count[int] = field(factory=lambda: count(10))

    async def run(self) -> Result:
        """Send it all."""
        passes = Passes()
        async with trio.open_nursery() as nursery:
            senders = []
            for number in range(PAIRS):
                receiver = await join(self.meta_hub, f"to-{number}")
                nursery.start_soon(answer, receiver, self.answering)
                senders.append((await join(self.meta_hub, f"from-{number}"), f"to-{number}/a"))
            began = trio.current_time()
            trio.lowlevel.add_instrument(passes)
            async with trio.open_nursery() as sending:
                for sender, target in senders:
                    sending.start_soon(self._send, sender, target)
            trio.lowlevel.remove_instrument(passes)
            nursery.cancel_scope.cancel()
        return Result(trio.current_time() - began, passes.count)

    async def _send(self, sender: FrameChannel, target: str) -> None:
        sender.send_nowait([route(next(self.numbers), target) for _ in range(WINDOW)])
        while self.done < ROUTES:
            answers = [frame for frame in await sender.receive() if isinstance(frame, Response)]
            self.done += len(answers)
            sender.send_nowait([route(next(self.numbers), target) for _ in answers])


async def answer(receiver: FrameChannel, seconds: float) -> None:
    """Say yes to everything, after a while."""

    async def yes(requests: list[Frame]) -> None:
        await trio.sleep(seconds)
        receiver.send_nowait(
            [Response(request.id, OK) for request in requests if isinstance(request, Request)]
        )

    async with trio.open_nursery() as nursery:
        while True:
            nursery.start_soon(yes, [*await receiver.receive()])  # type: ignore[arg-type]


@asynccontextmanager
async def alone(meta_hub: MetaHub) -> AsyncIterator[None]:
    """Nobody disturbs."""
    yield


@asynccontextmanager
async def beside_a_slow_hub(meta_hub: MetaHub) -> AsyncIterator[None]:
    """A hub takes 16 messages, and takes its time to answer."""
    slow, sender = await join(meta_hub, "slow"), await join(meta_hub, "patient")
    sender.send_nowait([route(10 + number, "slow/a") for number in range(16)])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer, slow, 20.0)
        yield
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def beside_a_deaf_observer(meta_hub: MetaHub) -> AsyncIterator[None]:
    """Somebody wants to see all events, and sees none; there are some all the time."""
    deaf, theirs = record_pair(64)
    meta_hub.attach(theirs)
    deaf.send_nowait([Request(1, Register("deaf", meta_hub.token, Role.OBSERVER)), Request(2, Subscribe())])
    await deaf.receive()
    talking = await join(meta_hub, "talking")

    async def talk() -> None:
        while True:
            talking.send_nowait([Notification(AgentEvent("a", Stream("x" * 100))) for _ in range(10)])
            await trio.sleep(0.001)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(talk)
        yield
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def beside_a_flood(meta_hub: MetaHub) -> AsyncIterator[None]:
    """A hub sends 50 messages in each pass of the scheduler, to nobody, and does not wait for answers."""
    flooding = await join(meta_hub, "flooding")

    async def flood() -> None:
        for number in count(10):
            flooding.send_nowait([route(50 * number + index, "flooding/nobody") for index in range(50)])
            await trio.lowlevel.checkpoint()

    async def read() -> None:
        while True:
            await flooding.receive()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(flood)
        nursery.start_soon(read)
        yield
        nursery.cancel_scope.cancel()


async def took(disturbed, answering: float) -> Result:
    async with open_meta_hub(None, limits=Limits(high_water=64)) as meta_hub, disturbed(meta_hub):
        return await Load(meta_hub, answering).run()


@pytest.mark.parametrize("disturbed", [beside_a_slow_hub, beside_a_deaf_observer])
async def test_nobody_waits_for_somebody_elses_slowness(disturbed, autojump_clock) -> None:
    calm, beside = await took(alone, 0.01), await took(disturbed, 0.01)

    assert calm.seconds == pytest.approx(ROUTES / (PAIRS * WINDOW) * 0.01, rel=0.1)
    assert beside.seconds == pytest.approx(calm.seconds, rel=0.05)


def a_delivery_that_everybody_waits_for(patch):
    intact = Runtime.read

    async def read(self, peer, **how):
        receive = self._connections[peer].channel.receive

        async def receive_in_turn():
            frames = await receive()
            if any(isinstance(frame, Request) for frame in frames):
                await self.until(lambda: len(self._core.exchange.calls) == 0)
            return frames

        self._connections[peer].channel.receive = receive_in_turn
        return await intact(self, peer, **how)

    patch.setattr(Runtime, "read", read)


def a_writer_that_waits_for_each_reader(patch):
    async def flush_forever(self):
        while True:
            if not self._dirty:
                self._flusher = trio.lowlevel.current_task()
                await trio.lowlevel.wait_task_rescheduled(self._abort_flusher)
            for connection in (dirty := self._dirty):
                connection.dirty = False
                self._flush(connection)
                await connection.channel.drained()
            del self._dirty[: len(dirty)]

    patch.setattr(Outboxes, "flush_forever", flush_forever)


@pytest.mark.parametrize(
    ("defect", "disturbed"),
    [
        (a_delivery_that_everybody_waits_for, beside_a_slow_hub),
        (a_writer_that_waits_for_each_reader, beside_a_deaf_observer),
    ],
)
async def test_a_meta_hub_that_lets_somebody_wait_is_seen(
    defect, disturbed, autojump_clock, monkeypatch
) -> None:
    calm = await took(alone, 0.01)
    defect(monkeypatch)

    seconds = math.inf  # unless it is over in time
    with trio.move_on_after(2.0):
        seconds = (await took(disturbed, 0.01)).seconds

    assert seconds > 2 * calm.seconds


@pytest.mark.parametrize("disturbed", [beside_a_slow_hub, beside_a_flood])
async def test_a_route_takes_no_more_passes_of_the_scheduler_beside_others(disturbed) -> None:
    calm, beside = await took(alone, 0.0), await took(disturbed, 0.0)

    assert beside.passes <= 1.2 * calm.passes


async def test_an_observer_that_keeps_up_sees_every_event_of_a_busy_meta_hub(autojump_clock) -> None:
    async with open_meta_hub(None) as meta_hub:
        reader, theirs = record_pair(64)
        meta_hub.attach(theirs)
        reader.send_nowait(
            [Request(1, Register("eager", meta_hub.token, Role.OBSERVER)), Request(2, Subscribe())]
        )
        seen: list[int] = []

        async def read() -> None:
            while True:
                for frame in await reader.receive():
                    if isinstance(frame, Notification) and isinstance(frame.message, ClusterEvent):
                        seen.append(frame.message.seq)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            async with beside_a_deaf_observer(meta_hub):
                await Load(meta_hub, 0.01).run()
            await trio.sleep(1.0)
            nursery.cancel_scope.cancel()

    assert len(seen) > 1000
    assert seen == [*range(seen[0], seen[0] + len(seen))]
