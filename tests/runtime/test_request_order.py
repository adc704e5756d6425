"""Requests are handled in the order they were sent, also when they arrive together and are answered later."""

from __future__ import annotations

from typing import Any

import trio

from loopal_cluster.address import Address
from loopal_cluster.links.caller import OpenRequest, open_caller
from loopal_cluster.messages import OK, DeliverEnvelope, Envelope, HumanSource, Message, UserContent
from loopal_cluster.testing import record_pair

COUNT = 20


def message(number: int) -> DeliverEnvelope:
    return DeliverEnvelope(Envelope(str(number), HumanSource(), Address("a"), UserContent(""), ""))


async def test_messages_that_arrive_together_are_handled_in_order(autojump_clock):
    handled: list[str] = []

    async def answer() -> Any:
        await trio.sleep(1)  # handling one does not keep the next waiting
        return OK

    def on_request(request: Message[Any], asked: OpenRequest) -> None:
        assert isinstance(request, DeliverEnvelope)
        handled.append(request.envelope.id)
        asked.answer_later(answer)

    here, there = record_pair()
    async with (
        open_caller(here, on_request, print),
        open_caller(there, on_request, print) as sender,
    ):
        for burst in range(COUNT):
            started = trio.current_time()
            async with trio.open_nursery() as nursery:
                for number in range(burst):
                    nursery.start_soon(sender.call, message(number))
                    await trio.lowlevel.checkpoint()  # so that the calls themselves are in order
            assert handled == [str(number) for number in range(burst)]
            assert trio.current_time() - started < 2
            handled.clear()
