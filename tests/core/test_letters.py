"""A message that a MetaHub leaves sealed goes the way, and comes to the end, of one that it reads.

Two MetaHubs are told the same: one has every message as a line makes it for everybody (``decode``) and decides
with ``handle``; the other has it sealed (``decode_sealed``) and decides with ``forward`` and ``pass_back``
where it can. What both send must be the same, line for line, and so must what they wait for, and until when.
"""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loopal_cluster.address import Address
from loopal_cluster.config import Limits
from loopal_cluster.core.effects import Effect, Send
from loopal_cluster.core.events import FrameReceived, Peer
from loopal_cluster.core.meta_hub import MetaHubCore
from loopal_cluster.errors import ErrorCode
from loopal_cluster.frames import Failure, Frame, Letter, Request, Response
from loopal_cluster.messages import (
    OK,
    AgentSource,
    CancelRequest,
    DeliverEnvelope,
    Envelope,
    Found,
    MetaRoute,
    Ok,
    Opaque,
    Relayed,
)
from loopal_cluster.testing import CoreDriver
from loopal_cluster.wire.codec import decode, decode_sealed, encode
from loopal_cluster.wire.one_pass import opened
from tests.core.builders import attach, join, join_base, open_meta

HUBS = ("a", "b", "c")
TEXTS = st.text(max_size=20)


def route(
    number: int = 1, *, target: str = "b/worker", sender: str = "boss", text: str = "hi", **fields: object
) -> Request:
    content = Opaque(b'{"text":"%b"}' % text.encode())
    envelope = Envelope(f"e-{number}", AgentSource(sender), Address.parse(target), content, "then", **fields)  # type: ignore[arg-type]
    return Request(number, MetaRoute(envelope))


def sealed(request: Request) -> Letter:
    letter = decode_sealed(encode(request).strip())
    assert isinstance(letter, Letter)
    return letter


# Lines.


def test_a_message_for_an_agent_on_a_named_hub_is_left_sealed():
    letter = sealed(route(7, target="b/worker", sender="boss"))

    assert (letter.id, letter.target, letter.sender) == (7, Address("worker", "b"), "boss")


@pytest.mark.parametrize(
    "request_",
    [route(target="worker"), route(asked_ms=5), Request(1, DeliverEnvelope(route().message.envelope))],
    ids=["by a bare name", "a repetition", "not for a MetaHub"],
)
def test_what_takes_more_than_its_outside_is_read(request_):
    line = encode(request_).strip()

    assert decode_sealed(line) == decode(line) == request_


@given(TEXTS, TEXTS, TEXTS, st.none() | st.integers(0, 2**40), st.booleans())
def test_a_letter_that_is_opened_is_what_everybody_reads(id_, sender, timestamp, timeout_ms, extend):
    envelope = Envelope(
        id_,
        AgentSource(sender),
        Address("worker", "b"),
        Opaque(b'{"text":"\xc3\xa9"}'),
        timestamp,
        None,
        timeout_ms,
        extend,
    )
    line = encode(Request(3, MetaRoute(envelope))).strip()

    letter = decode_sealed(line)

    assert isinstance(letter, Letter)
    assert opened(letter) == decode(line) == Request(3, MetaRoute(envelope))


# Decisions.


class Pair:
    """Two MetaHubs that are told the same."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.plain, self.sealing = open_meta(limits=limits or Limits()), open_meta(limits=limits or Limits())
        self.peers: dict[str, Peer] = {}

    def both(self, what) -> None:
        assert lines(what(self.plain)) == lines(what(self.sealing))

    def join(self, hub: str) -> None:
        for driver in (self.plain, self.sealing):
            self.peers[hub] = (join_base if hub == "base" else join)(driver, hub)

    def send(self, hub: str, request: Request) -> list[tuple[Peer, bytes]]:
        """Let a hub send a message; what both send for it."""
        return self._same(self.plain.receive(self.peers[hub], request), self._sealed(hub, sealed(request)))

    def answer(self, hub: str, answer: Response | Failure) -> list[tuple[Peer, bytes]]:
        peer = self.peers[hub]
        return self._same(self.plain.receive(peer, answer), self._answered(peer, answer))

    def _same(self, plain: list[Effect], sealing: list[Effect]) -> list[tuple[Peer, bytes]]:
        assert lines(plain) == lines(sealing)
        assert calls(self.plain) == calls(self.sealing)
        return lines(plain)

    def _sealed(self, hub: str, letter: Letter) -> list[Effect]:
        effect = core(self.sealing).forward(self.peers[hub], letter, self.sealing.now)
        return [effect] if effect else self.sealing.receive(self.peers[hub], opened(letter))

    def _answered(self, peer: Peer, answer: Response | Failure) -> list[Effect]:
        if isinstance(answer, Response) and answer.result is OK:
            effect = core(self.sealing).pass_back(peer, answer.id, self.sealing.now)
            if effect is not None:
                return [effect]
        return self.sealing.receive(peer, answer)


def core(driver: CoreDriver) -> MetaHubCore:
    assert isinstance(driver.core, MetaHubCore)
    return driver.core


def calls(driver: CoreDriver) -> list[tuple[Peer, int, object, float]]:
    return [(call.peer, call.id, call.then, call.deadline) for call in core(driver).exchange.calls]


def lines(effects: list[Effect]) -> list[tuple[Peer, bytes]]:
    return [(effect.peer, encode(effect.frame)) for effect in effects if isinstance(effect, Send)]


def test_a_letter_takes_one_step_each_way():
    meta = open_meta()
    a, b = join(meta, "a"), join(meta, "b")

    there = core(meta).forward(a, sealed(route(9)), meta.now)
    assert there is not None
    assert there.peer == b
    assert isinstance(there.frame, Request)
    assert isinstance(there.frame.message, Relayed)
    assert core(meta).pass_back(b, there.frame.id, meta.now) == Send(a, Response(9, OK))
    assert core(meta).pass_back(b, there.frame.id, meta.now) is None


def test_a_letter_says_which_hub_it_comes_from_whatever_its_sender_says():
    pair = Pair()
    for hub in ("a", "b"):
        pair.join(hub)

    ((peer, line),) = pair.send("a", route(1, sender="c/somebody", origin_hub="c"))

    assert peer == pair.peers["b"]
    assert b'"origin_hub":"a","source":{"Agent":"a/somebody"},"target":"worker"' in line


@pytest.mark.parametrize("target", ["nowhere/x", "a/x"])
def test_a_letter_for_nobody_and_one_for_the_sender_itself_are_answered_as_usual(target):
    pair = Pair()
    pair.join("a")

    assert pair.send("a", route(1, target=target))


def test_a_letter_is_refused_as_usual_when_there_is_too_much():
    pair = Pair(Limits(calls_per_peer=1))
    for hub in ("a", "b"):
        pair.join(hub)
    pair.send("a", route(1))

    ((peer, line),) = pair.send("a", route(2))
    assert peer == pair.peers["a"]
    assert b"overloaded" in line
    ((_, line),) = pair.send("a", route(1))
    assert b"already open" in line


def test_a_client_has_no_letters():
    meta = open_meta()
    join(meta, "b")
    client = attach(meta)

    assert core(meta).forward(client, sealed(route()), meta.now) is None


STEPS = st.one_of(
    st.tuples(st.just("send"), st.sampled_from([*HUBS, "base"]), st.sampled_from(["a", "b", "base", "nobody"])),
    st.tuples(st.just("answer"), st.sampled_from([*HUBS, "base"]), st.integers(0, 3), st.sampled_from(["yes", "no", "not ok"])),
    st.tuples(st.just("cancel"), st.sampled_from(HUBS), st.integers(1, 9)),
    st.tuples(st.just("lose"), st.sampled_from([*HUBS, "base"])),
    st.tuples(st.just("join"), st.sampled_from([*HUBS, "base"])),
    st.tuples(st.just("wait"), st.sampled_from([0.1, 1.0, 31.0])),
)  # fmt: skip


@settings(suppress_health_check=list(HealthCheck))
@given(st.lists(STEPS, max_size=40))
def test_whatever_happens_both_ways_send_the_same(steps):
    pair = Pair()
    for hub in (*HUBS, "base"):
        pair.join(hub)
    for number, step in enumerate(steps, start=10):
        match step:
            case ("send", hub, target) if hub in pair.peers:
                pair.send(hub, route(number, target=f"{target}/worker"))
            case ("answer", hub, which, how) if hub in pair.peers:
                pair.answer(hub, answer_to(pair.plain, pair.peers[hub], which, how))
            case ("cancel", hub, back) if hub in pair.peers:
                peer, id_ = pair.peers[hub], number - back
                pair.both(lambda driver, peer=peer, id_=id_: driver.notify(peer, CancelRequest(id_)))
            case ("lose", hub) if hub in pair.peers:
                peer = pair.peers.pop(hub)
                pair.both(lambda driver, peer=peer: driver.lose(peer))
            case ("join", hub) if hub not in pair.peers:
                before = [len(driver.transcript) for driver in (pair.plain, pair.sealing)]
                pair.join(hub)
                assert len(pair.plain.transcript) - before[0] == len(pair.sealing.transcript) - before[1]
            case ("wait", seconds):
                pair.both(lambda driver, seconds=seconds: driver.advance(seconds))
            case _:
                pass  # it is not there, or there already
    assert len(core(pair.plain).exchange.calls) == len(core(pair.sealing).exchange.calls)
    assert pair.plain.core.next_deadline() == pair.sealing.core.next_deadline()


def answer_to(driver: CoreDriver, peer: Peer, which: int, how: str) -> Response | Failure:
    """An answer to one of the open calls to a peer, or to none."""
    open_ = [call.id for call in core(driver).exchange.calls if call.peer == peer]
    id_ = open_[which % len(open_)] if open_ else 1000
    results: dict[str, Frame] = {
        "yes": Response(id_, OK),
        "no": Failure(id_, ErrorCode.AGENT_NOT_FOUND, "not here"),
        "not ok": Response(id_, Ok(ok=False)),
    }
    answer = results[how]
    assert isinstance(answer, Response | Failure)
    return answer


# Memory.


@pytest.mark.parametrize("read", [decode_sealed, decode], ids=["sealed", "read"])
def test_what_a_sender_calls_itself_is_not_kept_when_it_is_long(read):
    driver = open_meta()
    peers = [join(driver, hub) for hub in ("a", "b")]
    tracemalloc.start()
    try:
        for number in range(20):
            frame = read(encode(route(number, sender=f"{number}" + "x" * 1_000_000)).strip())
            if isinstance(frame, Letter):
                assert core(driver).forward(peers[0], frame, driver.now) is not None
            else:
                core(driver).handle(FrameReceived(peers[0], frame), driver.now)  # a driver remembers it
            core(driver).handle(FrameReceived(peers[1], Response(number + 1, OK)), driver.now)
        del frame
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert kept < 5_000_000


def test_a_letter_that_could_not_be_delivered_ends_what_is_believed_of_its_target():
    pair = Pair()
    pair.join("a")
    pair.join("base")
    for driver in (pair.plain, pair.sealing):
        driver.receive(pair.peers["a"], route(1, target="worker"))
        driver.receive(pair.peers["base"], Response(1, Found(found=True)))
        driver.receive(pair.peers["base"], Response(2, OK))

    assert pair.send("a", route(2, target="base/worker"))
    assert pair.answer("base", Failure(3, ErrorCode.AGENT_NOT_FOUND, "no agent 'worker'"))

    again = route(3, target="worker")
    pair.both(lambda driver: driver.receive(pair.peers["a"], again))
