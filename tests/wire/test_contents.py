from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopal_cluster import messages as m
from loopal_cluster.address import Address
from loopal_cluster.completions import AGENT_COMPLETED, unwrap_result, wrap_result
from loopal_cluster.errors import ErrorCode, ProtocolError
from loopal_cluster.frames import Failure, Notification, Rejected, Request, Response
from loopal_cluster.outcomes import Done
from loopal_cluster.payloads import MessageRouted
from loopal_cluster.wire.codec import decode, decode_result, encode
from loopal_cluster.wire.contents import DEPTH, TooDeep, dumps, loads, parse, payload, user_content
from loopal_cluster.wire.hooks import preview


def answer(json: bytes) -> Response:
    return Response(3, m.Opaque(json))


# Results.


def test_a_result_becomes_the_record_that_was_asked_for() -> None:
    response = answer(b'{"agents":["main","worker"],"new":1}')

    assert decode_result(response, m.AgentNames) == Response(3, m.AgentNames(("main", "worker")))


def test_the_usual_answer_is_not_parsed() -> None:
    response = decode_result(answer(b'{"ok":true}'), m.Ok)

    assert isinstance(response, Response)
    assert response.result is m.OK


def test_a_failed_delivery_of_the_base_dialect_is_not_ok() -> None:
    assert decode_result(answer(b'{"ok":false}'), m.Ok) == Response(3, m.Ok(ok=False))


@pytest.mark.parametrize("expected", [m.Spawned, m.Ok, m.Opaque, None])
def test_an_error_disguised_as_a_result_is_a_failure(expected: Any) -> None:
    response = answer(b'{"code":-32600,"message":"spawn failed: no"}')

    assert decode_result(response, expected) == Failure(3, ErrorCode.REFUSED, "spawn failed: no")


@pytest.mark.parametrize(
    "json",
    [
        b'{"code":"x","message":"m"}',
        b'{"code":1}',
        b'[{"code":1,"message":"m"}]',
        b'{"x":{"code":1,"message":"m"}}',
    ],
)
def test_a_result_is_not_an_error_unless_it_has_both_keys_at_its_top(json: bytes) -> None:
    assert decode_result(answer(json), None) == answer(json)


def test_a_result_that_does_not_fit_is_a_failure_with_its_path() -> None:
    assert decode_result(answer(b'{"agent_id":null,"name":"w"}'), m.Spawned) == Failure(
        3, ErrorCode.PARSE_ERROR, "expected str, got null @ $.result.agent_id"
    )


def test_a_result_that_is_a_record_already_stays_as_it_is() -> None:
    response = Response(3, m.OK)

    assert decode_result(response, m.Ok) is response


def test_a_cluster_topology_names_the_hubs_that_did_not_answer() -> None:
    line = (
        b'{"id":3,"jsonrpc":"2.0","result":{"hubs":[{"hub":"hub-a","topology":{"agents":[]}},'
        b'{"hub":"hub-b","topology":{"error":"timeout"}}]}}\n'
    )
    topology = m.ClusterTopology(
        (m.TopologyOf("hub-a", m.HubTopology(())), m.TopologyOf("hub-b", error="timeout"))
    )

    decoded = decode(line[:-1])

    assert isinstance(decoded, Response)
    assert decode_result(decoded, m.ClusterTopology) == Response(3, topology)
    assert encode(Response(3, topology)) == line


def test_an_error_object_in_the_place_of_a_topology_is_that_hubs_error() -> None:
    response = answer(b'{"hubs":[{"hub":"b","topology":{"code":-32600,"message":"busy"}}]}')

    assert decode_result(response, m.ClusterTopology) == Response(
        3, m.ClusterTopology((m.TopologyOf("b", error="busy"),))
    )


@pytest.mark.parametrize(
    ("result", "json"),
    [
        (m.StatusInfo(1, None), b'{"agent_count":1,"uplink":null}'),
        (
            m.StatusInfo(1, m.UplinkInfo(connected=True, hub_name="hub-a")),
            b'{"agent_count":1,"uplink":{"connected":true,"hub_name":"hub-a"}}',
        ),
        (m.Waited("x"), b'{"output":"x"}'),
        (m.Waited("(agent timed out)", timed_out=True), b'{"output":"(agent timed out)","timed_out":true}'),
        (m.Found(found=True, hub="hub-b"), b'{"found":true,"hub":"hub-b"}'),
        (m.Decision(allow=False), b'{"allow":false}'),
        (
            m.HubList((m.HubInfo("hub-a", "Connected", 1),)),
            b'{"hubs":[{"agent_count":1,"capabilities":[],"name":"hub-a","status":"Connected"}]}',
        ),
        (
            m.HubTopology((m.AgentNode("main", children=("worker",), lifecycle="Spawning"),)),
            b'{"agents":[{"children":["worker"],"lifecycle":"Spawning","model":null,"name":"main","parent":null}]}',
        ),
    ],
)
def test_a_result_looks_as_in_the_base_dialect(result: Any, json: bytes) -> None:
    assert encode(Response(3, result)) == b'{"id":3,"jsonrpc":"2.0","result":%b}\n' % json
    assert decode_result(answer(json), type(result)) == Response(3, result)


# Contents.


def test_content_is_read_by_whoever_it_is_for() -> None:
    content = user_content(
        m.Opaque(b'{"images":[{"data":"iVBORw0KGgo=","media_type":"image/png"}],"text":"look"}')
    )

    assert content == m.UserContent("look", (m.Image("image/png", "iVBORw0KGgo="),))
    assert dumps(content).json == (
        b'{"images":[{"data":"iVBORw0KGgo=","media_type":"image/png"}],"text":"look"}'
    )


def test_content_without_images_does_not_mention_them() -> None:
    assert dumps(m.UserContent("hi")).json == b'{"text":"hi"}'


def test_unreadable_content_names_the_fault() -> None:
    with pytest.raises(ProtocolError, match=r"expected str, got null @ \$\.content\.text"):
        user_content(m.Opaque(b'{"text":null}'))


def test_plain_values_are_written_as_loopal_writes_them() -> None:
    value = {"b": "é/\x7f\u2028", "a": ['\x00\b\f\n\r\t"\\', 1.0, None, True]}

    json = dumps(value)

    assert json.json == ('{"a":["\\u0000\\b\\f\\n\\r\\t\\"\\\\",1.0,null,true],"b":"é/\x7f\u2028"}'.encode())
    assert loads(json) == value


def test_half_a_surrogate_pair_does_not_stop_a_line() -> None:
    assert dumps({"a": ["x\ud83d"]}).json == b'{"a":["x?"]}'


def test_a_number_that_python_cannot_hold_is_passed_on_but_not_read() -> None:
    response = decode(b'{"id":3,"result":1e999}')

    assert response == answer(b"1e999")
    with pytest.raises(ProtocolError, match="out of range"):
        loads(m.Opaque(b"1e999"))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("short", "short"),
        ("x" * 81, "x" * 80),
        ("x" * 79 + "é", "x" * 79),
        ("€" * 30, "€" * 26),
        ("😀" * 20, "😀" * 20),
        ("", ""),
    ],
)
def test_a_preview_is_80_bytes_of_whole_characters(text: str, shown: str) -> None:
    content = m.UserContent(text)
    for given_content in (text, content, dumps(content)):
        assert preview(given_content) == shown
        event = encode(Notification(m.AgentEvent(None, MessageRouted("a", "b", given_content))))
        frame = decode(event[:-1])
        assert isinstance(frame, Notification)
        assert payload(frame.message.payload) == MessageRouted("a", "b", shown)  # type: ignore[attr-defined]


@given(st.text())
def test_a_preview_is_a_start_of_the_text(text: str) -> None:
    shown = preview(text)

    assert text.startswith(shown)
    assert len(shown.encode()) <= 80
    assert shown == text or len(text[: len(shown) + 1].encode()) > 80


@pytest.mark.parametrize("content", [b"7", b'{"text":7}', b"{}"])
def test_a_message_with_unreadable_content_is_routed_without_a_preview(content: bytes) -> None:
    line = encode(Notification(m.AgentEvent(None, MessageRouted("a", "b", m.Opaque(content)))))

    assert b'"content_preview":""' in line


def test_a_text_of_a_class_of_its_own_is_written_as_text() -> None:
    class Text(str):
        pass

    assert dumps({"a": Text("x")}) == m.Opaque(b'{"a":"x"}')
    assert b'"result":"x"' in encode(Response(1, m.Reply(Done(Text("x")))))


def test_what_json_cannot_express_is_said_to_be_so() -> None:
    with pytest.raises(TypeError, match="object cannot be expressed in JSON"):
        dumps(object())


# Completions of the base dialect.


def delivery(source: m.Source, content: m.UserContent | m.Opaque) -> m.DeliverEnvelope:
    return m.DeliverEnvelope(m.Envelope("id", source, Address("main"), content, "now"))


@pytest.mark.parametrize("frame", [Notification, lambda message: Request(1, message)])
def test_a_base_completion_arrives_readable(frame: Any) -> None:
    sent = frame(delivery(AGENT_COMPLETED, m.UserContent(wrap_result("helper", "done\n\nall"))))

    assert decode(encode(sent)[:-1]) == sent


def test_other_contents_stay_unread() -> None:
    sent = Request(1, delivery(m.SystemSource("tick"), m.UserContent(wrap_result("helper", "done"))))

    received = decode(encode(sent)[:-1])

    assert isinstance(received, Request)
    assert isinstance(received.message.envelope.content, m.Opaque)  # type: ignore[attr-defined]


def test_an_unreadable_completion_is_refused_with_its_path() -> None:
    line = encode(Request(1, delivery(AGENT_COMPLETED, m.Opaque(b'{"text":7}'))))

    assert decode(line[:-1]) == Rejected(
        1, ErrorCode.INVALID_REQUEST, "expected str, got int @ $.params.content.text"
    )


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('<agent-result name="w">\ndone\n</agent-result>', ("w", "done")),
        ('Note: <agent-result name="w">\ndone\n</agent-result> end', ("w", "done")),
        ('<agent-result name="w">\n<agent-result name="x">\n1\n</agent-result>\n</agent-result>',
         ("w", '<agent-result name="x">\n1\n</agent-result>')),
        ('<agent-result name="w">\ncut off', ("w", "cut off")),
        ('<agent-result name="w', None),
        ("nothing", None),
    ],
)  # fmt: skip
def test_a_completion_is_recognised_by_its_wrapper(text: str, found: tuple[str, str] | None) -> None:
    assert unwrap_result(text) == found


@given(st.text())
def test_a_wrapped_result_is_unwrapped_whole(output: str) -> None:
    assert unwrap_result(wrap_result("w", output)) == ("w", output)


# What strangers write.


@pytest.mark.parametrize(("opens", "closes"), [(b"[", b"]"), (b'{"a":[', b"]}")])
def test_what_is_not_nested_too_deeply_can_be_written_again(opens: bytes, closes: bytes) -> None:
    levels = DEPTH // opens.count(b"[") // (1 + opens.count(b"{"))

    assert dumps(parse(opens * levels + closes * levels)).json == opens * levels + closes * levels
    with pytest.raises(TooDeep):
        parse(opens * (levels + 1) + closes * (levels + 1))


def test_what_is_wide_is_not_deep() -> None:
    assert len(parse(b"[" + b"[]," * 10_000 + b"[]]")) == 10_001


@pytest.mark.parametrize("text", [b"", b"{", b"no", b"1e999", b"\xff"])
def test_what_is_no_json_is_a_fault_of_its_writer(text: bytes) -> None:
    with pytest.raises(ProtocolError, match="unreadable JSON"):
        parse(text)
