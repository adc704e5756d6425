"""A message that a MetaHub leaves sealed goes the way, and comes to the end, of one that it reads.

Two MetaHubs are told the same: one has every message as a line makes it for everybody (``decode``) and decides
with ``handle``; the other has it sealed (``decode_sealed``) and decides with ``forward`` and ``pass_back``
where it can, and passes events on with ``publish``. What both send must be the same, line for line, and so must
what they wait for, and until when.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loopal_cluster.address import Address
from loopal_cluster.config import Limits
from loopal_cluster.core.effects import Effect, Send
from loopal_cluster.core.events import FrameReceived, Peer
from loopal_cluster.core.meta_hub import MetaHubCore
from loopal_cluster.core.parties import PROTOCOL
from loopal_cluster.errors import ErrorCode
from loopal_cluster.frames import AskLetter, Failure, Letter, Notification, Request, Response
from loopal_cluster.messages import (
    OK,
    AgentEvent,
    AgentSource,
    Announce,
    Announced,
    CancelRequest,
    ClusterEvent,
    DeliverEnvelope,
    Envelope,
    Found,
    MetaAsk,
    MetaRoute,
    Ok,
    Opaque,
    Progress,
    RegisterHub,
    Relayed,
    RelayedAsk,
    Role,
    Subscribe,
)
from loopal_cluster.runtime.runtime import expected_by_hub
from loopal_cluster.testing import CoreDriver
from loopal_cluster.wire.codec import decode, decode_result, decode_sealed, encode, is_plain
from loopal_cluster.wire.one_pass import opened
from tests.core.builders import TOKEN, attach, join, open_meta

HUBS = ("a", "b", "c")
TEXTS = st.text(max_size=20)


def route(
    number: int = 1, *, target: str = "b/worker", sender: str = "boss", text: str = "hi", **fields: object
) -> Request:
    content = Opaque(b'{"text":"%b"}' % text.encode())
    envelope = Envelope(f"e-{number}", AgentSource(sender), Address.parse(target), content, "then", **fields)  # type: ignore[arg-type]
    return Request(number, MetaRoute(envelope))


def ask(
    number: int = 1, *, target: str = "b/worker", timeout_ms: int | None = 5000, **fields: object
) -> Request:
    message = route(number, target=target, timeout_ms=timeout_ms, **fields).message
    return Request(number, MetaAsk(message.envelope))


def sealed(request: Request) -> Letter:
    letter = decode_sealed(encode(request).strip())
    assert isinstance(letter, Letter)
    return letter


# Lines.


@pytest.mark.parametrize("target", [Address("worker", "b"), Address("worker")], ids=str)
def test_a_message_for_an_agent_is_left_sealed(target):
    letter = sealed(route(7, target=str(target), sender="boss"))

    assert (letter.id, letter.target, letter.sender) == (7, target, "boss")
    assert not isinstance(letter, AskLetter)


def test_an_ask_is_left_sealed_but_for_the_time_that_it_brings():
    letter = sealed(ask(7, timeout_ms=5000, extend=True))

    assert isinstance(letter, AskLetter)
    assert (letter.id, letter.target, letter.sender) == (7, Address("worker", "b"), "boss")
    assert (letter.timeout_ms, letter.extend) == (5000, True)


@pytest.mark.parametrize(
    "request_",
    [
        route(asked_ms=5),
        ask(asked_ms=5),
        Request(1, DeliverEnvelope(route().message.envelope)),
    ],
    ids=["a repetition", "an ask's repetition", "not for a MetaHub"],
)
def test_what_takes_more_than_its_outside_is_read(request_):
    line = encode(request_).strip()

    assert decode_sealed(line) == decode(line) == request_


@given(
    st.sampled_from([MetaRoute, MetaAsk]),
    TEXTS,
    st.from_regex(r"[a-z._-]{1,20}", fullmatch=True),
    TEXTS,
    st.none() | st.integers(0, 2**40),
    st.booleans(),
)
def test_a_letter_that_is_opened_is_what_everybody_reads(method, id_, sender, timestamp, timeout_ms, extend):
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
    line = encode(Request(3, method(envelope))).strip()

    letter = decode_sealed(line)

    assert isinstance(letter, Letter)
    assert opened(letter) == decode(line) == Request(3, method(envelope))


# Decisions.


class Pair:
    """Two MetaHubs that are told the same."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.plain, self.sealing = open_meta(limits=limits or Limits()), open_meta(limits=limits or Limits())
        self.peers: dict[str, Peer] = {}
        for driver in (self.plain, self.sealing):
            driver.request(watcher(driver), Subscribe())

    def both(self, what: Callable[[CoreDriver], list[Effect]]) -> list[tuple[Peer, bytes]]:
        return self._same(what(self.plain), what(self.sealing))

    def join(self, hub: str) -> list[tuple[Peer, bytes]]:
        """Let a hub join (again), which is asked (again) what it has not answered."""
        ours = {} if hub == "base" else {"protocol": PROTOCOL, "instance": f"{hub}-1"}

        def register(driver: CoreDriver) -> list[Effect]:
            self.peers[hub] = driver.connect()
            return driver.request(self.peers[hub], RegisterHub(hub, TOKEN, **ours))

        return self.both(register)

    def send(self, hub: str, request: Request) -> list[tuple[Peer, bytes]]:
        """Let a hub send a message; what both send for it."""
        return self._same(self.plain.receive(self.peers[hub], request), self._sealed(hub, sealed(request)))

    def report(self, hub: str, event: AgentEvent) -> list[tuple[Peer, bytes]]:
        """Let an agent of a hub report something; what both send for it."""
        peer = self.peers[hub]
        told = core(self.sealing).publish(peer, event, self.sealing.now)
        sealing = (
            self.sealing.notify(peer, event) if told is None else [Send(to, told.frame) for to in told.peers]
        )
        return self._same(self.plain.notify(peer, event), sealing)

    def answer(self, hub: str, answer: Response | Failure) -> list[tuple[Peer, bytes]]:
        """Let a hub answer, as a line; what both send for it."""
        peer, line = self.peers[hub], encode(answer).strip()
        return self._same(self.plain.receive(peer, read(self.plain, peer, line)), self._answered(peer, line))

    def _same(self, plain: list[Effect], sealing: list[Effect]) -> list[tuple[Peer, bytes]]:
        assert lines(plain) == lines(sealing)
        assert calls(self.plain) == calls(self.sealing)
        return lines(plain)

    def _sealed(self, hub: str, letter: Letter) -> list[Effect]:
        effect = core(self.sealing).forward(self.peers[hub], letter, self.sealing.now)
        return [effect] if effect else self.sealing.receive(self.peers[hub], opened(letter))

    def _answered(self, peer: Peer, line: bytes) -> list[Effect]:
        answer = decode_sealed(line)
        if isinstance(answer, Response) and is_plain(answer.result):
            effect = core(self.sealing).pass_back(peer, answer, self.sealing.now)
            if effect is not None:
                return [effect]
        return self.sealing.receive(peer, read(self.sealing, peer, line))


def core(driver: CoreDriver) -> MetaHubCore:
    assert isinstance(driver.core, MetaHubCore)
    return driver.core


def read(driver: CoreDriver, peer: Peer, line: bytes) -> Response | Failure:
    """An answer as the runtime brings it to ``handle``."""
    answer = decode(line)
    call = core(driver).exchange.calls.find(peer, answer.id)
    if isinstance(answer, Response) and call is not None:
        answer = decode_result(answer, expected_by_hub(call.message))
    return answer


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
    yes = Response(there.frame.id, OK)
    assert core(meta).pass_back(b, yes, meta.now) == Send(a, Response(9, OK))
    assert core(meta).pass_back(b, yes, meta.now) is None


def test_an_ask_takes_one_step_each_way_and_its_reply_comes_back_unread():
    meta = open_meta()
    a, b = join(meta, "a"), join(meta, "b")

    there = core(meta).forward(a, sealed(ask(9, timeout_ms=5000, extend=True)), meta.now)
    assert there is not None
    assert isinstance(there.frame, Request)
    assert isinstance(there.frame.message, RelayedAsk)
    assert decode(encode(there.frame).strip()).message.envelope.timeout_ms == 5000
    reply = Opaque(b'{"outcome":"done","result":"yes"}')
    assert core(meta).pass_back(b, Response(there.frame.id, reply), meta.now) == Send(a, Response(9, reply))


def test_a_yes_is_no_reply_and_a_reply_is_no_yes():
    meta = open_meta()
    a, b = join(meta, "a"), join(meta, "b")
    for letter in (sealed(route(8)), sealed(ask(9))):
        assert core(meta).forward(a, letter, meta.now) is not None

    assert (
        core(meta).pass_back(b, Response(1, Opaque(b'{"outcome":"done","result":"yes"}')), meta.now) is None
    )
    assert core(meta).pass_back(b, Response(2, OK), meta.now) is None
    assert len(core(meta).exchange.calls) == 2


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


RESULTS: dict[str, Callable[[int], Response | Failure]] = {
    "yes": lambda id_: Response(id_, OK),
    "no": lambda id_: Failure(id_, ErrorCode.AGENT_NOT_FOUND, "not here"),
    "not ok": lambda id_: Response(id_, Ok(ok=False)),
    "a reply": lambda id_: Response(id_, Opaque(b'{"outcome":"done","result":"yes"}')),
    "a reply that speaks of errors": lambda id_: Response(
        id_, Opaque(b'{"outcome":"done","result":"\\"code\\" or \\"message\\"","code":"x","message":1}')
    ),
    "a failure in disguise": lambda id_: Response(id_, Opaque(b'{"code":-32600,"message":"cannot"}')),
    "neither": lambda id_: Response(id_, Opaque(b"[1]")),
    "found": lambda id_: Response(id_, Found(found=True)),
}
"""What a hub may answer, whatever it was asked."""

TARGETS = st.sampled_from(["a/x", "b/x", "base/x", "nobody/x", "x", "y"])
STEPS = st.one_of(
    st.tuples(st.just("send"), st.sampled_from([*HUBS, "base"]), TARGETS),
    st.tuples(st.just("ask"), st.sampled_from(HUBS), TARGETS, st.sampled_from([None, 0, 500, 40_000]), st.booleans()),
    st.tuples(st.just("report"), st.sampled_from([*HUBS, "base"]), st.none() | TEXTS),
    st.tuples(st.just("watch"), st.none() | st.integers(0, 40)),
    st.tuples(st.just("announce"), st.sampled_from(HUBS), st.sets(st.sampled_from("xy"))),
    st.tuples(st.just("answer"), st.sampled_from([*HUBS, "base"]), st.integers(0, 3), st.sampled_from([*RESULTS])),
    st.tuples(st.just("progress"), st.sampled_from(HUBS), st.integers(0, 3)),
    st.tuples(st.just("cancel"), st.sampled_from(HUBS), st.integers(1, 9)),
    st.tuples(st.just("lose"), st.sampled_from([*HUBS, "base"])),
    st.tuples(st.just("join"), st.sampled_from([*HUBS, "base"])),
    st.tuples(st.just("wait"), st.sampled_from([0.1, 1.0, 31.0])),
)  # fmt: skip


@settings(suppress_health_check=list(HealthCheck))
@given(st.lists(STEPS, max_size=40))
def test_whatever_happens_both_ways_send_the_same(steps):
    play(steps)


def play(steps: Iterable[tuple[Any, ...]]) -> list[tuple[Peer, bytes]]:
    """Let it happen to two MetaHubs, the request of the first step being number 10; what both send in the last."""
    pair, last = Pair(), []
    for hub in (*HUBS, "base"):
        pair.join(hub)
    for number, step in enumerate(steps, start=10):
        match step:
            case ("send", hub, target) if hub in pair.peers:
                last = pair.send(hub, route(number, target=target))
            case ("ask", hub, target, timeout_ms, extend) if hub in pair.peers:
                last = pair.send(hub, ask(number, target=target, timeout_ms=timeout_ms, extend=extend))
            case ("report", hub, agent) if hub in pair.peers:
                last = pair.report(hub, AgentEvent(agent, Opaque(b'"Started"')))
            case ("watch", since):
                last = pair.both(
                    lambda driver, since=since: driver.request(watcher(driver), Subscribe(since))
                )
            case ("announce", hub, names) if hub in pair.peers:
                agents = tuple(Announced(name, f"{hub}-{name}") for name in sorted(names))
                request, peer = Request(number, Announce(agents, whole=True)), pair.peers[hub]
                last = pair.both(lambda driver, peer=peer, request=request: driver.receive(peer, request))
            case ("answer", hub, which, how) if hub in pair.peers:
                last = pair.answer(hub, RESULTS[how](open_call(pair.plain, pair.peers[hub], which)))
            case ("progress", hub, which) if hub in pair.peers:
                peer = pair.peers[hub]
                told = Progress(open_call(pair.plain, peer, which))
                last = pair.both(lambda driver, peer=peer, told=told: driver.notify(peer, told))
            case ("cancel", hub, back) if hub in pair.peers:
                peer, id_ = pair.peers[hub], number - back
                last = pair.both(lambda driver, peer=peer, id_=id_: driver.notify(peer, CancelRequest(id_)))
            case ("lose", hub) if hub in pair.peers:
                peer = pair.peers.pop(hub)
                last = pair.both(lambda driver, peer=peer: driver.lose(peer))
            case ("join", hub) if hub not in pair.peers:
                last = pair.join(hub)
            case ("wait", seconds):
                last = pair.both(lambda driver, seconds=seconds: driver.advance(seconds))
            case _:
                pass  # it is not there, or there already
    assert calls(pair.plain) == calls(pair.sealing)
    assert pair.plain.core.next_deadline() == pair.sealing.core.next_deadline()
    return last


ASK, LONG_ASK = ("ask", "a", "b/x", 5000, False), ("ask", "a", "b/x", 5000, True)
AWAY = [("wait", 3.0), ("lose", "b"), ("wait", 0.5)]


@pytest.mark.parametrize(
    ("steps", "sent"),
    [
        ([ASK, ("answer", "b", 0, "a reply")], b'{"id":10,"jsonrpc":"2.0","result":{"outcome":"done",'),
        ([ASK, ("answer", "b", 0, "a failure in disguise")], b'"message":"cannot"},"id":10'),
        ([ASK, ("answer", "b", 0, "no")], b'"message":"not here"},"id":10'),
        ([ASK, ("answer", "b", 0, "yes")], b'"id":10,"jsonrpc":"2.0","result":{"ok":true}'),
        ([ASK, ("wait", 6.0)], b"no answer to agent/ask in time"),
        ([ASK, ("wait", 6.0)], b'"method":"$/cancelRequest","params":{"id":1}'),
        ([LONG_ASK, ("progress", "b", 0)], b'"method":"$/progress","params":{"id":10}'),
        ([LONG_ASK, ("wait", 5.0), ("progress", "b", 0), ("wait", 5.0), ("answer", "b", 0, "a reply")], b'"id":10'),
        ([ASK, ("progress", "b", 0)], None),
        ([ASK, ("cancel", "a", 1)], b'"method":"$/cancelRequest","params":{"id":1}'),
        ([ASK, ("lose", "a"), ("wait", 1.0)], b'"method":"$/cancelRequest","params":{"id":1}'),
        ([ASK, *AWAY, ("join", "b")], b'"timeout_ms":2500'),
        ([LONG_ASK, *AWAY, ("join", "b")], b'"timeout_ms":5000'),
        ([ASK, *AWAY, ("cancel", "a", 4), ("join", "b")], b'"method":"$/cancelRequest","params":{"id":1}'),
        ([ASK, ("lose", "b"), ("wait", 1.0)], b'"kind":"connection_lost"'),
        ([("ask", "a", "base/x", 5000, False)], b"takes messages for its agents, but no asks"),
    ],
    ids=str,
)  # fmt: skip
def test_an_ask_ends_as_usual_however_it_ends(steps, sent):
    lines = [line for _, line in play(steps)]

    assert any(sent in line for line in lines) if sent else not lines


def test_an_event_takes_one_step_to_all_who_watch():
    meta = open_meta()
    a, first, second = join(meta, "a"), watcher(meta), watcher(meta)
    for peer in (first, second):
        meta.request(peer, Subscribe())

    told = core(meta).publish(a, AgentEvent("x", Opaque(b'"Started"')), meta.now)

    assert told is not None
    assert told.peers == (first, second)
    assert told.frame == Notification(ClusterEvent(2, 0.0, "a", "x", Opaque(b'"Started"')))


def test_nobody_hears_of_what_a_stranger_reports_or_a_connection_that_was_given_up():
    meta = open_meta()
    stranger, a = meta.connect(), join(meta, "a")
    join(meta, "a")  # on another connection

    for peer in (stranger, a):
        assert core(meta).publish(peer, AgentEvent("x", Opaque(b'"Started"')), meta.now) is None
        assert meta.notify(peer, AgentEvent("x", Opaque(b'"Started"'))) == []


SEND = ("send", "a", "x")


@pytest.mark.parametrize(
    ("steps", "sent"),
    [
        ([("announce", "b", "x"), SEND], b'"method":"agent/message","params":{'),
        ([("announce", "b", "x"), ("ask", "a", "x", 5000, False)], b'"method":"agent/ask","params":{'),
        ([("announce", "b", "x"), ("announce", "a", "x"), SEND], b'"method":"agent/message","params":{'),
        ([("announce", "a", "x"), SEND], b'"method":"meta/resolve"'),
        ([("announce", "b", "x"), ("announce", "c", "x"), SEND], b"is on several hubs: b/x, c/x"),
        ([("announce", hub, "x") for hub in HUBS] + [SEND], b"is on several hubs: b/x, c/x"),
        ([("announce", "b", "x"), ("announce", "b", ""), SEND], b'"method":"meta/resolve"'),
        ([("announce", "b", "x"), ("lose", "b"), SEND, ("join", "b")], b'"method":"agent/message","params":{'),
        ([SEND, ("answer", "base", 0, "found"), ("announce", "b", "x"), SEND], b'"id":1,"jsonrpc":"2.0","method":"agent/message"'),
        ([SEND, ("answer", "base", 0, "found"), SEND], b'"id":3,"jsonrpc":"2.0","method":"agent/message"'),
    ],
    ids=str,
)  # fmt: skip
def test_a_bare_name_is_looked_for_as_usual(steps, sent):
    assert any(sent in line for _, line in play(steps))


def test_a_message_for_the_one_agent_of_a_name_that_another_hub_has_announced_takes_one_step():
    meta = open_meta()
    a, b = join(meta, "a", "worker"), join(meta, "b", "worker")

    there = core(meta).forward(a, sealed(route(9, target="worker")), meta.now)

    assert there is not None
    assert (there.peer, there.frame.message.target) == (b, "worker")


def watcher(driver: CoreDriver) -> Peer:
    return attach(driver, role=Role.OBSERVER)


def open_call(driver: CoreDriver, peer: Peer, which: int) -> int:
    """The id of one of the open calls to a peer, or of none."""
    open_ = [call.id for call in core(driver).exchange.calls if call.peer == peer]
    return open_[which % len(open_)] if open_ else 1000


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
