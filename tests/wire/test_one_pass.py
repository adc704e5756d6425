"""The way in one pass and the long way are one, in what they read and in what they write."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw
from msgspec.json import encode as json

from loopal_cluster import messages as m
from loopal_cluster.address import Address
from loopal_cluster.frames import Failure, Notification, Rejected, Request, Response
from loopal_cluster.outcomes import Cancelled, Done, Failed, Lost, TimedOut
from loopal_cluster.payloads import MessageRouted, Stream
from loopal_cluster.wire import codec, one_pass
from loopal_cluster.wire.codec import decode, decode_result, encode
from loopal_cluster.wire.contents import content_json, dumps, user_content
from loopal_cluster.wire.faults import MAX_DEPTH
from loopal_cluster.wire.hooks import CONVERTER

PARAMS = {
    "content": {"text": "x"},
    "id": "e-1",
    "source": {"Agent": "a"},
    "target": "h/w",
    "timestamp": "now",
}
ENVELOPE = m.Envelope("e-1", m.AgentSource("a"), Address("w", "h"), m.Opaque(b'{"text":"x"}'), "now")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(-9, 9) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def request(method: str = "meta/route", id_: Any = 7, **params: Any) -> bytes:
    return json({"id": id_, "jsonrpc": "2.0", "method": method, "params": PARAMS | params})


def the_long_way(line: bytes) -> Any:
    try:
        return codec._read_any(line)
    except (ValueError, RecursionError) as error:
        return codec._unreadable(line, error)


def test_a_message_is_read_in_one_pass() -> None:
    assert one_pass.read(request()) == the_long_way(request()) == Request(7, m.MetaRoute(ENVELOPE))


@pytest.mark.parametrize(
    "line",
    [
        json({"id": 7, "jsonrpc": "2.0", "method": "meta/ping", "params": {}}),
        json({"id": 7, "jsonrpc": "2.0", "error": {"code": 1, "message": "x"}}),
        request(source={"System": {"kind": "x"}}),
        b"[]",
        b"",
    ],
)
def test_what_is_not_usual_is_left_to_the_long_way(line: bytes) -> None:
    assert one_pass.read(line) is None


@pytest.mark.parametrize("method", sorted(one_pass._BY_METHOD))  # type: ignore[type-var]
@pytest.mark.parametrize(
    "params",
    [
        {"asked_ms": 5, "extend": True, "origin_hub": "a", "timeout_ms": 2**63 - 1},
        {"asked_ms": None, "origin_hub": None, "timeout_ms": None},
        {"asked_ms": 2**63},
        {"timeout_ms": 2**63},
        {"timeout_ms": "5"},
        {"extend": None},
        {"source": "Human"},
        {"source": {"Agent": "a", "more": 1}},
        {"source": {"Agent": 1}},
        {"target": "a b"},
        {"target": "w"},
        {"content": None},
        {"later": {"version": 2}},
    ],
    ids=str,
)
def test_both_ways_agree_on_a_message(method: str, params: dict[str, Any]) -> None:
    line = request(method, **params)

    assert decode(line) == the_long_way(line)


@given(st.sampled_from([*PARAMS, "asked_ms", "extend", "origin_hub", "timeout_ms"]), JSON, JSON)
def test_both_ways_agree_whatever_a_value_is(key: str, value: Any, id_: Any) -> None:
    line = request(id_=id_, **{key: value})

    assert decode(line) == the_long_way(line)


@given(JSON, JSON)
def test_both_ways_agree_on_an_event(name: Any, payload: Any) -> None:
    event = {"agent_name": name, "payload": payload}
    line = json({"jsonrpc": "2.0", "method": "agent/event", "params": event})

    assert decode(line) == the_long_way(line)


@given(
    JSON,
    JSON,
    st.sampled_from([{}, {"error": None}, {"error": {"code": 1, "message": "x"}}, {"method": "x"}]),
)
def test_both_ways_agree_on_an_answer(id_: Any, result: Any, more: dict[str, Any]) -> None:
    line = json({"id": id_, "jsonrpc": "2.0", "result": result} | more)

    assert decode(line) == the_long_way(line)


@pytest.mark.parametrize("deeper", [0, 1])
def test_both_ways_agree_on_what_is_too_deep(deeper: int) -> None:
    nested = b"[" * (MAX_DEPTH - 2 + deeper) + b"]" * (MAX_DEPTH - 2 + deeper)
    message = request().replace(b'{"text":"x"}', nested)
    event = b'{"jsonrpc":"2.0","method":"agent/event","params":{"agent_name":"a","payload":%b}}' % nested
    answer = b'{"id":1,"jsonrpc":"2.0","result":[%b]}' % nested

    for line in (message, event, answer):
        assert decode(line) == the_long_way(line)
        assert isinstance(decode(line), Rejected | Failure) == bool(deeper)


@pytest.mark.parametrize("source", [m.AgentSource("a"), m.HumanSource()], ids=str)
def test_both_ways_write_a_message_alike(source: m.Source) -> None:
    envelope = attrs.evolve(ENVELOPE, source=source, origin_hub="hub-a", timeout_ms=5, extend=True)

    assert dumps(envelope).json in encode(Request(1, m.MetaRoute(envelope)))


LABELS = st.text(max_size=5) | st.just("\ud800")
CONTENTS = st.builds(lambda value: m.Opaque(json(value)), JSON | st.fixed_dictionaries({"text": JSON}))
ROUTED = st.builds(
    MessageRouted, LABELS, LABELS, LABELS | CONTENTS | st.builds(m.UserContent, st.text(min_size=70))
)


@given(st.none() | LABELS, ROUTED | st.builds(Stream, LABELS) | CONTENTS, st.floats(0, 2e9))
def test_both_ways_write_an_event_alike(agent: str | None, payload: Any, at: float) -> None:
    for event in (m.AgentEvent(agent, payload), m.ClusterEvent(3, at, "hub-a", agent, payload)):
        assert encode(Notification(event)).endswith(b',"params":%b}\n' % dumps(event).json)


def test_a_delivered_message_is_reported_in_one_pass() -> None:
    routed = MessageRouted("hub-a/a", "w", m.Opaque(b'{"text":"x"}'))

    params = one_pass.WRITERS[m.AgentEvent](m.AgentEvent(None, routed))

    assert params == (
        b'{"agent_name":null,"payload":{"MessageRouted":{"content_preview":"x","source":"hub-a/a","target":"w"}}}'
    )


OUTCOMES = [
    Done("yes"),
    Done(""),
    Done("\ud800"),
    Done(type("Text", (str,), {})("x")),
    Failed("no", "trace"),
    Cancelled("stopped"),
    TimedOut("30 s"),
    Lost("gone"),
]


@pytest.mark.parametrize("outcome", OUTCOMES, ids=repr)
def test_both_ways_write_and_read_a_reply_alike(outcome: Any) -> None:
    reply = m.Reply(outcome)
    written = dumps(reply)

    assert written.json in encode(Response(1, reply))
    read = decode_result(Response(1, written), m.Reply)
    assert read == Response(1, CONVERTER.structure(Raw(written.json), m.Reply))


@given(JSON, JSON, JSON)
def test_both_ways_agree_on_a_reply_whatever_a_value_is(kind: Any, result: Any, more: Any) -> None:
    for outcome in ({"outcome": "done", "result": result}, {"outcome": kind, "result": result}, more):
        text = json({"outcome": outcome})
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(codec, "read_reply", lambda json: None)
            expected = decode_result(Response(1, m.Opaque(text)), m.Reply)
        assert decode_result(Response(1, m.Opaque(text)), m.Reply) == expected


@pytest.mark.parametrize("content", [m.UserContent("x"), m.UserContent("\ud800"), m.UserContent("")])
def test_both_ways_write_and_read_a_content_alike(content: m.UserContent) -> None:
    assert content_json(content) == dumps(content).json
    assert user_content(dumps(content)) == CONVERTER.structure(Raw(dumps(content).json), m.UserContent)


def test_the_way_in_one_pass_knows_every_field() -> None:
    for record, struct in (
        (m.Envelope, one_pass._Envelope),
        (m.ClusterEvent, one_pass._ClusterEvent),
        (m.AgentEvent, one_pass._Event),
        (MessageRouted, one_pass._Routed),
    ):
        assert sorted(field.name for field in attrs.fields(record)) == list(struct.__struct_fields__)
