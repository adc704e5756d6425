"""Envelopes, events and answers on their way are read lazily, and however a peer writes them.

Two MetaHubs are told the same: one in lines as we write them, the other in lines with their keys in the opposite order,
and blanks between them. What both send must be the same, line for line, and so must what they wait for, and until when.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import Raw

from loopal_cluster.address import Address
from loopal_cluster.config import Limits
from loopal_cluster.core.effects import Effect, Send
from loopal_cluster.core.events import FrameReceived, Peer
from loopal_cluster.core.meta_hub import MetaHubCore
from loopal_cluster.core.parties import PROTOCOL
from loopal_cluster.errors import ErrorCode
from loopal_cluster.frames import Failure, Notification, Rejected, Request, Response
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
    Role,
    Subscribe,
)
from loopal_cluster.records import evolve
from loopal_cluster.runtime.runtime import expected_by_hub
from loopal_cluster.testing import CoreDriver
from loopal_cluster.wire.codec import decode, decode_result, encode
from tests.core.builders import TOKEN, attach, join, open_meta

HUBS = ("a", "b", "c")
TEXTS = st.text(max_size=20)


def route(
    number: int = 1, *, target: str = "b/worker", sender: str = "boss", text: str = "hi", **fields: Any
) -> Request:
    content = Opaque(b'{"text":"%b"}' % text.encode())
    envelope = Envelope(f"e-{number}", AgentSource(sender), Address.parse(target), content, "then", **fields)
    return Request(number, MetaRoute(envelope))


def ask(
    number: int = 1, *, target: str = "b/worker", timeout_ms: int | None = 5000, **fields: Any
) -> Request:
    message = route(number, target=target, timeout_ms=timeout_ms, **fields).message
    return Request(number, MetaAsk(message.envelope))  # type: ignore[attr-defined]


def turned(line: bytes) -> bytes:
    """A line as a peer may write it as well: its keys in the opposite order at both levels, blanks between them."""
    keys = msgspec.json.decode(line, type=dict[str, Raw])
    if "params" in keys:
        keys["params"] = Raw(_turned(msgspec.json.decode(keys["params"], type=dict[str, Raw])))
    return _turned(keys)


def _turned(keys: dict[str, Raw]) -> bytes:
    items = [b'"%b" : %b' % (key.encode(), bytes(value)) for key, value in reversed(keys.items())]
    return b"{ " + b" , ".join(items) + b" }"


def received(frame: Request | Notification | Response | Failure, write: Callable[[bytes], bytes]) -> Any:
    """A frame as a peer reads it that gets it in a line written so."""
    return decode(write(encode(frame).strip()))


def as_written(line: bytes) -> bytes:
    return line


# Lines.


@pytest.mark.parametrize("write", [as_written, turned])
@pytest.mark.parametrize(
    "body", [b'{"text":"hi"}', b'[1e999,{"a":1,"a":2}]', b'"\xc3\xa9"', b"[" * 50 + b"]" * 50]
)
@pytest.mark.parametrize("method", [MetaRoute, MetaAsk, DeliverEnvelope], ids=lambda cls: cls.method)
def test_the_body_of_an_envelope_stays_the_bytes_that_it_came_as(method, body, write):
    request = Request(7, method(evolve(route().message.envelope, content=Opaque(body))))  # type: ignore[attr-defined]

    frame = received(request, write)

    assert frame == request
    assert frame.message.envelope.content.json == body
    assert body in encode(frame)


@pytest.mark.parametrize("write", [as_written, turned])
@pytest.mark.parametrize("body", [b'{"outcome":"done","result":"yes"}', b"[1e999]", b"null"])
def test_an_answer_stays_the_bytes_that_it_came_as(body, write):
    assert received(Response(3, Opaque(body)), write) == Response(3, Opaque(body))


@pytest.mark.parametrize("write", [as_written, turned])
def test_the_usual_answer_is_known_at_sight(write):
    assert received(Response(3, OK), write).result is OK


@pytest.mark.parametrize("write", [as_written, turned])
def test_the_payload_of_an_event_stays_the_bytes_that_it_came_as(write):
    event = Notification(AgentEvent("x", Opaque(b'{"Stream":{"text":"1"}}')))

    assert received(event, write) == event


@pytest.mark.parametrize(
    "missing",
    [b'"id":"e-1",', b'"source":{"Agent":"boss"},', b'"target":"b/worker",', b'"content":{"text":"hi"},'],
)
@pytest.mark.parametrize("write", [as_written, turned])
def test_an_envelope_without_a_key_that_there_must_be_is_refused_by_its_name(missing, write):
    line = encode(route()).strip()
    assert missing in line

    rejected = decode(write(line.replace(missing, b"")))

    assert isinstance(rejected, Rejected)
    assert (rejected.code, rejected.id) == (ErrorCode.INVALID_REQUEST, 1)
    assert missing.split(b'"')[1].decode() in rejected.detail


@given(
    st.sampled_from([MetaRoute, MetaAsk]),
    TEXTS,
    st.from_regex(r"[a-z._-]{1,20}", fullmatch=True),
    TEXTS,
    st.none() | st.integers(0, 2**40),
    st.booleans(),
    st.sampled_from([as_written, turned]),
)
def test_every_header_is_read_as_it_was_written(method, id_, sender, timestamp, timeout_ms, extend, write):
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

    assert received(Request(3, method(envelope)), write) == Request(3, method(envelope))


# Decisions.


class Pair:
    """Two MetaHubs that are told the same, one in lines as we write them, one in lines that are ``turned``."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.plain, self.turned = open_meta(limits=limits or Limits()), open_meta(limits=limits or Limits())
        self.peers: dict[str, Peer] = {}
        self.both(lambda driver: driver.request(watcher(driver), Subscribe()))

    def both(self, what: Callable[[CoreDriver], list[Effect]]) -> list[tuple[Peer, bytes]]:
        return self._same(what(self.plain), what(self.turned))

    def join(self, hub: str) -> list[tuple[Peer, bytes]]:
        """Let a hub join (again), which is asked (again) what it has not answered."""
        ours: dict[str, Any] = {} if hub == "base" else {"protocol": PROTOCOL, "instance": f"{hub}-1"}

        def register(driver: CoreDriver) -> list[Effect]:
            self.peers[hub] = driver.connect()
            return driver.request(self.peers[hub], RegisterHub(hub, TOKEN, **ours))

        return self.both(register)

    def send(self, hub: str, frame: Request | Notification | Response | Failure) -> list[tuple[Peer, bytes]]:
        """Let a hub send something, as lines; what both send for it."""
        plain = self.plain.receive(self.peers[hub], self._read(self.plain, hub, frame, as_written))
        return self._same(
            plain, self.turned.receive(self.peers[hub], self._read(self.turned, hub, frame, turned))
        )

    def _read(self, driver: CoreDriver, hub: str, frame: Any, write: Callable[[bytes], bytes]) -> Any:
        """A frame as the runtime brings it to ``handle``."""
        frame = received(frame, write)
        if isinstance(frame, Response):
            call = core(driver).exchange.calls.find(self.peers[hub], frame.id)
            if call is not None:
                frame = decode_result(frame, expected_by_hub(call.message))
        return frame

    def _same(self, plain: list[Effect], turned: list[Effect]) -> list[tuple[Peer, bytes]]:
        assert lines(plain) == lines(turned)
        assert calls(self.plain) == calls(self.turned)
        return lines(plain)


def core(driver: CoreDriver) -> MetaHubCore:
    assert isinstance(driver.core, MetaHubCore)
    return driver.core


def calls(driver: CoreDriver) -> list[tuple[Peer, int, object, float]]:
    return [(call.peer, call.id, call.then, call.deadline) for call in core(driver).exchange.calls]


def lines(effects: list[Effect]) -> list[tuple[Peer, bytes]]:
    return [(effect.peer, encode(effect.frame)) for effect in effects if isinstance(effect, Send)]


def test_a_reply_comes_back_unread():
    pair = Pair()
    for hub in ("a", "b"):
        pair.join(hub)
    pair.send("a", ask(9))
    reply = b'{"outcome": "done", "result": 1e999}'

    ((peer, line),) = pair.send("b", Response(1, Opaque(reply)))

    assert peer == pair.peers["a"]
    assert reply in line


def test_an_envelope_says_which_hub_it_comes_from_whatever_its_sender_says():
    pair = Pair()
    for hub in ("a", "b"):
        pair.join(hub)

    ((peer, line),) = pair.send("a", route(1, sender="c/somebody", origin_hub="c"))

    assert peer == pair.peers["b"]
    assert b'"origin_hub":"a","source":{"Agent":"a/somebody"},"target":"worker"' in line


@pytest.mark.parametrize("target", ["nowhere/x", "a/x"])
def test_an_envelope_for_nobody_and_one_for_the_sender_itself_are_answered_as_usual(target):
    pair = Pair()
    pair.join("a")

    assert pair.send("a", route(1, target=target))


def test_an_envelope_is_refused_as_usual_when_there_is_too_much():
    pair = Pair(Limits(calls_per_peer=1))
    for hub in ("a", "b"):
        pair.join(hub)
    pair.send("a", route(1))

    ((peer, line),) = pair.send("a", route(2))
    assert peer == pair.peers["a"]
    assert b"overloaded" in line
    ((_, line),) = pair.send("a", route(1))
    assert b"already open" in line


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
def test_whatever_happens_the_order_of_keys_changes_nothing(steps):
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
                last = pair.send(hub, Notification(AgentEvent(agent, Opaque(b'"Started"'))))
            case ("watch", since):
                last = pair.both(
                    lambda driver, since=since: driver.request(watcher(driver), Subscribe(since))  # type: ignore[misc]
                )
            case ("announce", hub, names) if hub in pair.peers:
                agents = tuple(Announced(name, f"{hub}-{name}") for name in sorted(names))
                last = pair.send(hub, Request(number, Announce(agents, whole=True)))
            case ("answer", hub, which, how) if hub in pair.peers:
                last = pair.send(hub, RESULTS[how](open_call(pair.plain, pair.peers[hub], which)))
            case ("progress", hub, which) if hub in pair.peers:
                last = pair.send(hub, Notification(Progress(open_call(pair.plain, pair.peers[hub], which))))
            case ("cancel", hub, back) if hub in pair.peers:
                last = pair.send(hub, Notification(CancelRequest(number - back)))
            case ("lose", hub) if hub in pair.peers:
                peer = pair.peers.pop(hub)
                last = pair.both(lambda driver, peer=peer: driver.lose(peer))  # type: ignore[misc]
            case ("join", hub) if hub not in pair.peers:
                last = pair.join(hub)
            case ("wait", seconds):
                last = pair.both(lambda driver, seconds=seconds: driver.advance(seconds))  # type: ignore[misc]
            case _:
                pass  # it is not there, or there already
    assert calls(pair.plain) == calls(pair.turned)
    assert pair.plain.core.next_deadline() == pair.turned.core.next_deadline()
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


def test_an_event_goes_to_all_who_watch():
    meta = open_meta()
    a, first, second = join(meta, "a"), watcher(meta), watcher(meta)
    for peer in (first, second):
        meta.request(peer, Subscribe())

    told = Notification(ClusterEvent(2, 0.0, "a", "x", Opaque(b'"Started"')))

    assert meta.notify(a, AgentEvent("x", Opaque(b'"Started"'))) == [Send(first, told), Send(second, told)]


def test_nobody_hears_of_what_a_stranger_reports_or_a_connection_that_was_given_up():
    meta = open_meta()
    stranger, a = meta.connect(), join(meta, "a")
    join(meta, "a")  # on another connection

    for peer in (stranger, a):
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


def watcher(driver: CoreDriver) -> Peer:
    return attach(driver, role=Role.OBSERVER)


def open_call(driver: CoreDriver, peer: Peer, which: int) -> int:
    """The id of one of the open calls to a peer, or of none."""
    open_ = [call.id for call in core(driver).exchange.calls if call.peer == peer]
    return open_[which % len(open_)] if open_ else 1000


# Memory.


def test_what_a_sender_calls_itself_is_not_kept_when_it_is_long():
    driver = open_meta()
    peers = [join(driver, hub) for hub in ("a", "b")]
    tracemalloc.start()
    try:
        for number in range(20):
            frame = decode(encode(route(number, sender=f"{number}" + "x" * 1_000_000)).strip())
            # Straight to the core: a driver keeps a transcript.
            core(driver).handle(FrameReceived(peers[0], frame), driver.now)  # type: ignore[arg-type]
            core(driver).handle(FrameReceived(peers[1], Response(number + 1, OK)), driver.now)
        del frame
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert kept < 5_000_000


def test_an_envelope_that_could_not_be_delivered_ends_what_is_believed_of_its_target():
    pair = Pair()
    pair.join("a")
    pair.join("base")
    for driver in (pair.plain, pair.turned):
        driver.receive(pair.peers["a"], route(1, target="worker"))
        driver.receive(pair.peers["base"], Response(1, Found(found=True)))
        driver.receive(pair.peers["base"], Response(2, OK))

    assert pair.send("a", route(2, target="base/worker"))
    assert pair.send("base", Failure(3, ErrorCode.AGENT_NOT_FOUND, "no agent 'worker'"))

    again = route(3, target="worker")
    pair.both(lambda driver: driver.receive(pair.peers["a"], again))
