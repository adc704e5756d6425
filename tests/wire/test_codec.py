"""Every record to a line and back. The strategies are built from the records' own annotations."""

from __future__ import annotations

import enum
import string
import types
from collections.abc import Mapping
from typing import Any, Union, get_args, get_origin

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopal_cluster import labels
from loopal_cluster import messages as m
from loopal_cluster.address import Address
from loopal_cluster.frames import Notification, Request, Response
from loopal_cluster.outcomes import Cancelled, Done, Failed, Lost, TimedOut
from loopal_cluster.payloads import PAYLOADS, MessageRouted, ToolResult
from loopal_cluster.wire.codec import decode, decode_result, encode
from loopal_cluster.wire.contents import dumps, payload, user_content

NAMES = st.from_regex(r"[A-Za-z0-9._-]{1,64}", fullmatch=True)
OPAQUES = st.sampled_from(
    [m.Opaque(b"null"), m.Opaque(b' {"b":1,  "a":[ 1e3 ]}'.strip()), m.Opaque(b'"\xc3\xa9"')]
)
IDS = st.text(string.ascii_letters + string.digits + "-:é", max_size=128)
CHECKED = {
    labels.identity: IDS,
    labels.agent_name: NAMES,
    labels.hub_name: NAMES,
    labels.path: st.text(max_size=50),
}
EXTRAS = st.dictionaries(st.text(min_size=20), OPAQUES, max_size=2)


def values(type_: Any, name: str = "") -> st.SearchStrategy[Any]:
    if name == "extra":
        return EXTRAS
    if type_ in (Any, m.Opaque) or type_ == m.UserContent | m.Opaque:
        return OPAQUES
    if type_ is Address:
        return st.builds(Address, NAMES, st.none() | NAMES)
    if attrs.has(type_):
        return records(type_)
    if get_origin(type_) in (Union, types.UnionType):
        return st.one_of(*(values(arg) for arg in get_args(type_)))
    if get_origin(type_) is tuple:
        return st.lists(values(get_args(type_)[0]), max_size=2).map(tuple)
    if get_origin(type_) is Mapping:
        return st.dictionaries(st.text(), values(get_args(type_)[1]), max_size=2)
    if isinstance(type_, type) and issubclass(type_, enum.Enum):
        return st.sampled_from(type_)
    plain = {
        str: st.text(),
        bool: st.booleans(),
        int: st.integers(0, 2**32 - 1),
        float: st.floats(allow_nan=False, allow_infinity=False),
        type(None): st.none(),
    }
    return plain[type_]


def records(cls: Any) -> st.SearchStrategy[Any]:
    if cls is m.TopologyOf:
        failed = st.builds(m.TopologyOf, NAMES, error=st.text())
        return failed | st.builds(m.TopologyOf, NAMES, values(m.HubTopology))
    if cls is m.Envelope:
        return st.builds(
            cls, IDS, values(m.Source), values(Address), OPAQUES, st.text(max_size=128), st.none() | NAMES
        )
    if cls is m.AgentSource:
        return st.builds(cls, NAMES)
    if cls is m.AgentEvent:
        return st.builds(cls, st.none() | NAMES, OPAQUES)
    if cls is MessageRouted:
        return st.builds(MessageRouted, st.text(), st.text(), st.text(max_size=20))
    if cls is ToolResult:
        # A null is read as no metadata, as by serde.
        metadata = st.sampled_from([None, m.Opaque(b'{"a": 1}')])
        return st.builds(ToolResult, st.text(), st.text(), st.text(), st.booleans(), st.none(), metadata)
    attrs.resolve_types(cls)
    return st.builds(cls, **{field.name: checked(field) for field in attrs.fields(cls)})


def checked(field: Any) -> st.SearchStrategy[Any]:
    """What may be the value of a field, by its type and its validator."""
    allowed = CHECKED.get(field.validator)
    if allowed is None:
        return values(field.type, field.name)
    return allowed if field.type is str else st.none() | allowed


def not_opened(message: Any) -> bool:
    """Whether decode leaves the content alone."""
    return not isinstance(message, m.DeliverEnvelope) or message.envelope.source != m.SystemSource(
        "agent-completed"
    )


@pytest.mark.parametrize("cls", m.METHODS.values(), ids=lambda cls: cls.__name__)
@given(data=st.data())
def test_a_message_survives_the_wire(cls: type[m.Message[Any]], data: st.DataObject) -> None:
    message = data.draw(records(cls).filter(not_opened))
    frame = Notification(message) if cls.result is None else Request(5, message)

    line = encode(frame)

    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert decode(line[:-1]) == frame


@pytest.mark.parametrize(
    "cls",
    sorted({cls.result for cls in m.METHODS.values() if cls.result}, key=lambda cls: cls.__name__),  # type: ignore[attr-defined]
    ids=lambda cls: cls.__name__,
)
@given(data=st.data())
def test_a_result_survives_the_wire(cls: Any, data: st.DataObject) -> None:
    response = Response(5, data.draw(records(cls)))

    answer = decode(encode(response)[:-1])

    assert isinstance(answer, Response)
    assert decode_result(answer, cls) == response


@pytest.mark.parametrize("cls", PAYLOADS.values(), ids=lambda cls: cls.__name__)
@given(data=st.data())
def test_a_payload_survives_the_wire(cls: Any, data: st.DataObject) -> None:
    record = data.draw(records(cls))

    frame = decode(encode(Notification(m.AgentEvent("main", record)))[:-1])

    assert isinstance(frame, Notification)
    assert payload(frame.message.payload) == record  # type: ignore[attr-defined]


@given(records(m.UserContent))
def test_contents_survive_the_wire(content: m.UserContent) -> None:
    assert user_content(dumps(content)) == content


def envelope(source: m.Source) -> m.Envelope:
    return m.Envelope("id", source, Address("w", "h"), m.Opaque(b'{"text": "x"}'), "now", "hub-a")


@pytest.mark.parametrize(
    ("source", "json"),
    [
        (m.HumanSource(), b'"Human"'),
        (m.ScheduledSource(), b'"Scheduled"'),
        (m.AgentSource("main"), b'{"Agent":"main"}'),
        (m.SystemSource("tick"), b'{"System":"tick"}'),
        (m.ChannelSource("general", "bot"), b'{"Channel":{"channel":"general","from":"bot"}}'),
    ],
)
def test_a_source_is_an_enum_of_serde(source: m.Source, json: bytes) -> None:
    frame = Request(1, m.Route(envelope(source)))

    assert b'"source":' + json in encode(frame)
    assert decode(encode(frame)[:-1]) == frame


@pytest.mark.parametrize("name", ["Human", "Scheduled"])
def test_a_unit_source_may_be_an_object_with_a_null(name: str) -> None:
    line = encode(Request(1, m.Route(envelope(m.HumanSource()))))

    frame = decode(line.replace(b'"Human"', b'{"%b":null}' % name.encode()).strip())

    assert isinstance(frame, Request)
    assert type(frame.message.envelope.source).__name__ == f"{name}Source"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("outcome", "json"),
    [
        (Done("ok"), b'{"outcome":"done","result":"ok"}'),
        (Failed("no"), b'{"error":"no","outcome":"failed"}'),
        (Failed("no", "Traceback"), b'{"error":"no","outcome":"failed","traceback":"Traceback"}'),
        (Cancelled("by x"), b'{"outcome":"cancelled","reason":"by x"}'),
        (TimedOut("5 s"), b'{"outcome":"timed_out","reason":"5 s"}'),
        (Lost("hub b"), b'{"outcome":"lost","reason":"hub b"}'),
    ],
)
def test_an_outcome_names_its_kind(outcome: Any, json: bytes) -> None:
    completion = m.Completion("s", Address("a", "h"), Address("b", "g"), outcome)
    frame = Request(1, m.MetaComplete(completion))

    assert b'"outcome":' + json in encode(frame)
    assert decode(encode(frame)[:-1]) == frame


def test_opaque_json_is_passed_on_byte_for_byte() -> None:
    weird = b'{ "z" : [ 1E3,-0.0 , "\\u00e9\\/" ],"a":{"a":1,"a":2} }'
    envelope_line = (
        b'{"id":1,"jsonrpc":"2.0","method":"meta/route","params":{"content":%b,"id":"i","source":%b,'
        b'"target":"w","timestamp":"t"}}\n'
    )
    lines = [
        envelope_line % (weird, b'{"Agent":"a"}'),
        envelope_line % (weird, b'"Human"'),
        b'{"id":1,"jsonrpc":"2.0","method":"agent/control","params":%b}\n' % weird,
        b'{"jsonrpc":"2.0","method":"agent/event","params":{"agent_name":null,"payload":%b}}\n' % weird,
        b'{"id":1,"jsonrpc":"2.0","result":%b}\n' % weird,
        b'{"id":1,"jsonrpc":"2.0","method":"hub/spawn_agent","params":{"model":null,"name":"w",'
        b'"permission_mode":null,"prompt":null,"zeta":%b}}\n' % weird,
        b'{"id":1,"jsonrpc":"2.0","method":"agent/permission","params":{"tool_call_id":"","tool_input":%b,'
        b'"tool_name":"","unknown":%b}}\n' % (weird, weird),
    ]

    for line in lines:
        assert encode(decode(line[:-1])) == line


def test_a_later_versions_keys_do_not_hide_our_own() -> None:
    spec = m.SpawnSpec("real", extra={"name": m.Opaque(b'"forged"'), "extra": m.Opaque(b"1")})

    frame = decode(encode(Request(1, m.SpawnAgent(spec)))[:-1])

    assert frame == Request(1, m.SpawnAgent(m.SpawnSpec("real", extra={"extra": m.Opaque(b"1")})))
