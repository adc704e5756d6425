"""What a line is taken for. Where Loopal drops a line silently, its sender is told, if it can be."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopal_cluster.errors import ErrorCode
from loopal_cluster.frames import Failure, Notification, Rejected, Request, Response
from loopal_cluster.messages import CancelRequest, Heartbeat, Interrupt, ListHubs, Opaque, Status
from loopal_cluster.wire.codec import decode, encode
from loopal_cluster.wire.faults import MAX_DEPTH, reject
from loopal_cluster.wire.framing import LineBuffer, Oversized

PARSE_ERROR = ErrorCode.PARSE_ERROR
INVALID = ErrorCode.INVALID_REQUEST
UNKNOWN = ErrorCode.METHOD_NOT_FOUND


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


# Section 1.4 of the base dialect, row by row.


@pytest.mark.parametrize(
    ("line", "frame"),
    [
        (b'{"method":"hub/status","id":1}', Request(1, Status())),
        (b'{"method":"hub/status","id":-9223372036854775808}', Request(-(2**63), Status())),
        (b'{"method":"agent/interrupt"}', Notification(Interrupt())),
        (b'{"method":"agent/interrupt","id":null}', Notification(Interrupt())),
        (b'{"id":1,"result":3}', Response(1, Opaque(b"3"))),
        (b'{"id":1,"method":null,"result":3}', Response(1, Opaque(b"3"))),
        (b'{"id":1}', Response(1, Opaque(b"null"))),
        (b'{"id":1,"error":null}', Response(1, Opaque(b"null"))),
        (b'{"id":1,"error":null,"result":3}', Response(1, Opaque(b"3"))),
        (b'{"id":1,"error":{"code":5,"message":"no"}}', Failure(1, ErrorCode.REFUSED, "no")),
        (b'{"id":1,"result":1,"error":{"code":5,"message":"no"}}', Failure(1, ErrorCode.REFUSED, "no")),
        (b'{"id":1,"result":1,"method":"hub/status"}', Request(1, Status())),
        (b'{"id":1,"jsonrpc":9,"method":"hub/status","new":[1]}', Request(1, Status())),
        (b' { "method" : "hub/status" , "id" : 1 } ', Request(1, Status())),
    ],
)
def test_a_line_is_what_its_keys_say(line: bytes, frame: object) -> None:
    assert decode(line) == frame


@pytest.mark.parametrize(
    ("line", "rejected"),
    [
        (
            b'{"id":"a","method":"hub/status"}',
            Rejected("a", INVALID, "expected int | null, got str @ $.id"),
        ),
        (
            b'{"id":true,"method":"hub/status"}',
            Rejected(None, INVALID, "expected int | null, got bool @ $.id"),
        ),
        (
            b'{"id":[],"method":"hub/status"}',
            Rejected(None, INVALID, "expected int | null, got array @ $.id"),
        ),
        (
            b'{"id":{},"method":"hub/status"}',
            Rejected(None, INVALID, "expected int | null, got object @ $.id"),
        ),
        (
            b'{"id":1.0,"method":"hub/status"}',
            Rejected(None, INVALID, "expected int | null, got float @ $.id"),
        ),
        (
            b'{"id":1e0,"method":"hub/status"}',
            Rejected(None, INVALID, "expected int | null, got float @ $.id"),
        ),
        (
            b'{"id":9223372036854775808,"method":"hub/status"}',
            Rejected(2**63, INVALID, "expected int <= 9223372036854775807 @ $.id"),
        ),
        (b'{"id":1,"method":7}', Rejected(1, INVALID, "expected str | null, got int @ $.method")),
        (b"[1]", Rejected(None, INVALID, "expected object, got array @ $")),
        (b'[1,"hub/status",null,null,null]', Rejected(None, INVALID, "expected object, got array @ $")),
        (b"3", Rejected(None, INVALID, "expected object, got int @ $")),
        (b"{}", Rejected(None, INVALID, "neither a method nor an id")),
    ],
)
def test_a_line_of_a_wrong_shape_is_answered_with_its_id_if_it_has_one(
    line: bytes, rejected: Rejected
) -> None:
    assert decode(line) == rejected


@pytest.mark.parametrize(
    "line",
    [
        b'{"error":{"code":-32700,"message":"parse error"},"id":null,"jsonrpc":"2.0"}',
        b'{"id":null,"result":1}',
        b'{"id":"a","result":1}',
        b'{"id":1.0,"result":1}',
        b'{"id":9223372036854775808,"result":1}',
        b'{"result":1}',
        b'{"method":7}',
        b'{"method":"no/such"}',
        b'{"method":"hub/wait_agent","params":{}}',
        b'{"result":\xff}',
    ],
)
def test_a_bad_answer_and_a_bad_notification_are_never_answered(line: bytes) -> None:
    rejected = decode(line)

    assert isinstance(rejected, Rejected)
    assert not rejected.answer


def test_what_answers_an_unreadable_line_is_itself_not_answered() -> None:
    answer = encode(Rejected(None, PARSE_ERROR, "not JSON"))

    rejected = decode(answer)

    assert answer == b'{"error":{"code":-32700,"message":"not JSON"},"id":null,"jsonrpc":"2.0"}\n'
    assert isinstance(rejected, Rejected)
    assert not rejected.answer


@pytest.mark.parametrize(
    ("error", "detail"),
    [
        (b'{"message":"m"}', "malformed error: object missing required field code @ $.error"),
        (b'{"code":1}', "malformed error: object missing required field message @ $.error"),
        (b'{"code":1.5,"message":"m"}', "malformed error: expected int, got float @ $.error.code"),
        (b'{"code":1,"message":null}', "malformed error: expected str, got null @ $.error.message"),
        (b'"no"', "malformed error: expected object, got str @ $.error"),
        (b"false", "malformed error: expected object, got bool @ $.error"),
    ],
)
def test_a_malformed_error_still_fails_the_request(error: bytes, detail: str) -> None:
    assert decode(b'{"id":4,"error":%b}' % error) == Failure(4, PARSE_ERROR, detail)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (b'{"code":-32600,"message":"m"}', ErrorCode.REFUSED),
        (b'{"code":-32601,"message":"m"}', ErrorCode.METHOD_NOT_FOUND),
        (b'{"code":-32700,"message":"m"}', ErrorCode.PARSE_ERROR),
        (b'{"code":-32600,"message":"m","data":{"kind":"name_taken","more":1}}', ErrorCode.NAME_TAKEN),
        (b'{"code":-32600,"message":"m","data":{"kind":"from_the_future"}}', ErrorCode.REFUSED),
        (b'{"code":-32600,"message":"m","data":{"kind":7}}', ErrorCode.REFUSED),
        (b'{"code":-32600,"message":"m","data":[1e999]}', ErrorCode.REFUSED),
    ],
)
def test_an_error_means_what_its_kind_says_or_else_its_number(error: bytes, code: ErrorCode) -> None:
    assert decode(b'{"id":4,"error":%b}' % error) == Failure(4, code, "m")


@pytest.mark.parametrize("code", ErrorCode)
def test_every_failure_survives_the_wire(code: ErrorCode) -> None:
    failure = Failure(4, code, "agent 'ü' not found")

    assert decode(encode(failure).rstrip(b"\n")) == failure


def test_a_failure_says_its_kind_beside_the_number_of_the_base_dialect() -> None:
    line = encode(Failure(4, ErrorCode.AGENT_NOT_FOUND, "no"))

    assert line == (
        b'{"error":{"code":-32600,"data":{"kind":"agent_not_found"},"message":"no"},"id":4,"jsonrpc":"2.0"}\n'
    )


# Methods.


@pytest.mark.parametrize(
    ("method", "detail"),
    [
        ("foo/bar", "unknown: foo/bar"),
        ("agent/status", "unknown: agent/status"),
        ("hub/nope", "unknown hub method: hub/nope"),
        ("meta/nope", "unknown meta method: meta/nope"),
        ("hub/" + "x" * 100, "unknown hub method: hub/" + "x" * 76),
        ("meta/heartbeat", "meta/heartbeat is a notification"),
    ],
)
def test_a_request_that_nobody_would_answer_is_an_unknown_method(method: str, detail: str) -> None:
    assert decode(b'{"id":3,"method":"%b"}' % method.encode()) == Rejected(3, UNKNOWN, detail)


@pytest.mark.parametrize("params", [b"null", b"{}", b"[]", b"7", b'{"x":1}'])
def test_the_params_of_a_method_without_any_are_ignored(params: bytes) -> None:
    line = b'{"id":3,"method":"meta/list_hubs","params":%b}' % params

    assert decode(line) == Request(3, ListHubs())


def test_a_request_can_be_cancelled_by_its_id() -> None:
    frame = Notification(CancelRequest(7))

    assert encode(frame) == b'{"jsonrpc":"2.0","method":"$/cancelRequest","params":{"id":7}}\n'
    assert decode(encode(frame)[:-1]) == frame


# Lines that are not JSON.


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{",
        b'{"id":2,"jsonrpc":"2.0","method":"hub/status"} x',
        b'{"id":2,"method":"hub/status","params":NaN}',
        b'{"id":2,"method":"hub/status","params":"\\ud800"}',
        b'{"id":2,"method":"hub/status","params":"\xff"}',
        b'{"id":2,"method":"hub/status","\xff":1}',
        b'{"id":2,"method":"hub/status","params":"\x01"}',
        b'\xef\xbb\xbf{"id":2,"method":"hub/status"}',
        b'{"id":2,"method":"hub/status","params":' + nested(MAX_DEPTH) + b"}",
        b'{"id":2,"method":"hub/status","params":' + b"[" * 1_000_000 + b"}",
        b'{"id":2,"method":"hub/status","params":' + b'{"a":' * 1_000_000 + b"}",
    ],
)
def test_a_line_that_is_not_json_is_a_parse_error(line: bytes) -> None:
    rejected = decode(line)

    assert isinstance(rejected, Rejected)
    assert rejected.code is PARSE_ERROR
    assert rejected.answer
    assert rejected.id in (None, 2)


def test_the_id_of_a_broken_line_is_found_at_its_start() -> None:
    assert decode(b'{"id":2,"jsonrpc":"2.0","method":"hub/status","params":{') == Rejected(
        2, PARSE_ERROR, "not JSON: Input data was truncated"
    )


def test_an_id_inside_a_broken_line_is_not_taken_for_its_own() -> None:
    rejected = decode(b'{"jsonrpc":"2.0","method":"hub/route","params":{"id":3')

    assert isinstance(rejected, Rejected)
    assert rejected.id is None


def test_a_broken_answer_fails_the_request() -> None:
    assert decode(b'{"id":2,"jsonrpc":"2.0","result":"\xff"}') == Failure(
        2, PARSE_ERROR, "not UTF-8: byte 34"
    )


def test_a_duplicated_key_counts_for_its_last_value() -> None:
    assert decode(b'{"id":1,"id":2,"method":"hub/status"}') == Request(2, Status())
    assert decode(
        b'{"method":"meta/heartbeat","params":{"hub_name":"a","agent_count":1,"hub_name":"b"}}'
    ) == Notification(Heartbeat("b", 1))


def test_depth_counts_brackets_outside_strings_only() -> None:
    deep = b'{"id":1,"result":%b}' % nested(MAX_DEPTH - 1)
    wide = b'{"id":1,"result":[%b0]}' % (b"[]," * 1000)
    text = b'{"id":1,"result":"%b\\\\"}' % (b'[{\\"' * 1000)

    assert isinstance(decode(deep), Response)
    assert isinstance(decode(wide), Response)
    assert isinstance(decode(text), Response)
    assert isinstance(decode(b'{"id":1,"result":%b}' % nested(MAX_DEPTH)), Failure)


def test_hostile_lines_are_read_in_linear_time() -> None:
    begun = time.process_time()

    for hostile in (b"[]," * MILLION + b"0", b'"\\\\",' * MILLION + b"0", b'"[\\"",' * MILLION + b"0"):
        assert isinstance(decode(b'{"id":1,"result":[%b]}' % hostile), Response)

    assert time.process_time() - begun < 5


MILLION = 1_000_000


@given(st.binary() | st.text().map(str.encode))
def test_nothing_raises_out_of_decode(line: bytes) -> None:
    decode(line)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@given(
    st.sampled_from(["hub/route", "agent/message", "hub/spawn_agent", "meta/register", "agent/event"]),
    st.dictionaries(
        st.sampled_from(["id", "source", "target", "content", "timestamp", "name", "payload", "labels"]), JSON
    ),
)
def test_no_params_raise_out_of_decode(method: str, params: dict[str, object]) -> None:
    import json

    line = json.dumps({"id": 1, "method": method, "params": params}).encode()

    assert isinstance(decode(line), Request | Rejected)


# Lines that are too long.


@pytest.mark.parametrize(
    ("line", "frame"),
    [
        (
            b'{"id":7,"jsonrpc":"2.0","method":"hub/route","params":{"content":"xxxxxxxxx',
            Rejected(7, ErrorCode.OVERSIZED, "line of more than 74 bytes"),
        ),
        (
            b'{"jsonrpc": "2.0", "id": 7, "method": "hub/route", "params": {"content": "x',
            Rejected(7, ErrorCode.OVERSIZED, "line of more than 74 bytes"),
        ),
        (
            b'{"id":7,"jsonrpc":"2.0","result":{"output":"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx',
            Failure(7, ErrorCode.OVERSIZED, "line of more than 74 bytes"),
        ),
        (
            b'{"error":{"code":-32600,"message":"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx',
            Rejected(None, ErrorCode.OVERSIZED, "line of more than 74 bytes", answer=False),
        ),
    ],
)
def test_an_over_long_line_is_answered_by_what_its_start_says(line: bytes, frame: object) -> None:
    [oversized] = LineBuffer(60).feed(line[:75])

    assert isinstance(oversized, Oversized)
    assert reject(oversized) == frame
