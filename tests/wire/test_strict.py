from __future__ import annotations

import pytest

from loopal_cluster.errors import ErrorCode
from loopal_cluster.frames import Notification, Rejected, Request
from loopal_cluster.messages import ClusterEvent, Opaque, RegisterHub, WaitAgent
from loopal_cluster.wire.codec import decode


def refusal(method: str, params: str) -> str:
    rejected = decode(b'{"id":1,"method":"%b","params":%b}' % (method.encode(), params.encode()))
    assert isinstance(rejected, Rejected)
    assert rejected.id == 1
    assert rejected.code is ErrorCode.INVALID_REQUEST
    return rejected.detail


@pytest.mark.parametrize(
    ("method", "params", "detail"),
    [
        ("hub/wait_agent", '{"name":null}', "expected str, got null @ $.params.name"),
        ("hub/wait_agent", '{"name":7}', "expected str, got int @ $.params.name"),
        ("hub/wait_agent", '{"name":["a"]}', "expected str, got array @ $.params.name"),
        ("hub/wait_agent", "{}", "required, but missing @ $.params.name"),
        ("hub/wait_agent", "null", "expected object, got null @ $.params"),
        ("hub/wait_agent", '{"name":"a","timeout_ms":"5"}', "expected int, got str @ $.params.timeout_ms"),
        ("hub/wait_agent", '{"name":"a","timeout_ms":true}', "expected int, got bool @ $.params.timeout_ms"),
        ("hub/wait_agent", '{"name":"a","timeout_ms":1.0}', "expected int, got float @ $.params.timeout_ms"),
        (
            "hub/wait_agent",
            '{"name":"a","timeout_ms":9223372036854775808}',
            "expected int, got one of more than 64 bits @ $.params.timeout_ms",
        ),
        (
            "hub/wait_agent",
            '{"name":"a b"}',
            "agent name 'a b' is not 1 to 64 of A-Z a-z 0-9 . _ - @ $.params.name",
        ),
        (
            "hub/ask",
            '{"id":"1","source":"Human","target":"a","content":{"text":""},"timestamp":"","extend":1}',
            "expected bool, got int @ $.params.extend",
        ),
        (
            "hub/spawn_agent",
            '{"name":"a","idle_timeout_ms":1.5}',
            "expected int, got float @ $.params.idle_timeout_ms",
        ),
        ("hub/spawn_agent", '{"prompt":"x"}', "required, but missing @ $.params.name"),
        ("hub/spawn_agent", '{"name":"a","detached":1}', "expected bool, got int @ $.params.detached"),
        ("hub/spawn_agent", '{"name":"a","target_hub":3}', "expected str, got int @ $.params.target_hub"),
        ("meta/register", '{"name":"a","labels":{"x":1}}', "expected str, got int @ $.params.labels.x"),
        (
            "meta/register",
            '{"name":"a","capabilities":["x",null]}',
            "expected str, got null @ $.params.capabilities[1]",
        ),
        (
            "meta/register",
            '{"name":"a","capabilities":{}}',
            "expected array, got object @ $.params.capabilities",
        ),
        (
            "meta/register",
            '{"name":"a","protocol":{"version":"1"}}',
            "expected int, got str @ $.params.protocol.version",
        ),
        (
            "hub/register",
            '{"name":"a","role":"king"}',
            "expected one of agent, client, operator, observer, got 'king' @ $.params.role",
        ),
        ("meta/announce", '{"started":[{"name":"a"}]}', "required, but missing @ $.params.started[0].id"),
        (
            "meta/complete",
            '{"spawn_id":"s","agent":"a","parent":"b","outcome":{"outcome":"eaten"}}',
            "unknown outcome 'eaten' @ $.params.outcome",
        ),
        (
            "meta/complete",
            '{"spawn_id":"s","agent":"a","parent":"b","outcome":{"outcome":"lost"}}',
            "required, but missing @ $.params.outcome.reason",
        ),
    ],
)
def test_a_wrong_value_is_refused_with_its_path(method: str, params: str, detail: str) -> None:
    assert refusal(method, params) == detail


@pytest.mark.parametrize(
    ("source", "detail"),
    [
        ('"Alien"', "unknown variant 'Alien' @ $.params.source"),
        ('"Agent"', "expected str, got null @ $.params.source.Agent"),
        ('{"Agent":7}', "expected str, got int @ $.params.source.Agent"),
        ('{"Agent":"a","System":"b"}', "expected one variant, got 2 @ $.params.source"),
        ("{}", "expected one variant, got 0 @ $.params.source"),
        ('{"Human":1}', "variant 'Human' takes no value @ $.params.source"),
        ('{"Channel":{"channel":"c"}}', "required, but missing @ $.params.source.Channel.from"),
        ("null", "expected object, got null @ $.params.source"),
    ],
)
def test_a_wrong_source_is_refused_with_its_path(source: str, detail: str) -> None:
    params = f'{{"content":{{}},"id":"i","source":{source},"target":"w","timestamp":"t"}}'

    assert refusal("hub/route", params) == detail


def test_an_int_is_a_float_but_a_bool_is_not() -> None:
    line = b'{"method":"hub/event","params":{"seq":1,"at":%b,"hub":null,"agent":null,"payload":"Started"}}'

    frame = decode(line % b"5")

    assert frame == Notification(ClusterEvent(1, 5.0, None, None, Opaque(b'"Started"')))
    assert isinstance(decode(line % b"true"), Rejected)
    assert isinstance(decode(line % b"1e999"), Rejected)


def test_unknown_keys_are_ignored() -> None:
    line = b'{"id":1,"method":"meta/register","params":{"name":"a","new":[{"x":1}],"protocol":{"version":2,"y":3}}}'

    frame = decode(line)

    assert isinstance(frame, Request)
    assert isinstance(frame.message, RegisterHub)


def test_a_missing_option_and_a_null_are_the_same() -> None:
    assert decode(b'{"id":1,"method":"hub/wait_agent","params":{"name":"a","timeout_ms":null}}') == decode(
        b'{"id":1,"method":"hub/wait_agent","params":{"name":"a"}}'
    )


def test_a_field_that_is_not_an_option_must_not_be_null() -> None:
    assert refusal("meta/register", '{"name":"a","token":null}') == "expected str, got null @ $.params.token"


def test_the_name_on_the_wire_is_the_one_that_is_read() -> None:
    assert isinstance(decode(b'{"id":1,"method":"hub/wait_agent","params":{"agent":"a"}}'), Rejected)
    frame = decode(b'{"id":1,"method":"hub/wait_agent","params":{"name":"h/a"}}')
    assert isinstance(frame, Request)
    assert isinstance(frame.message, WaitAgent)
    assert str(frame.message.agent) == "h/a"
