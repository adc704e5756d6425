"""The transcripts of the base dialect, line by line. ``A>M {..}   (note)`` is one line and who said it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from loopal_cluster.errors import ErrorCode
from loopal_cluster.frames import Rejected
from loopal_cluster.messages import Opaque
from loopal_cluster.payloads import PAYLOADS, Started, SubAgentSpawned, ToolResult
from loopal_cluster.wire.codec import decode, encode
from loopal_cluster.wire.contents import dump, payload
from loopal_cluster.wire.hooks import CONVERTER

GOLDEN = Path(__file__).parent.parent / "golden"
LINES = [
    re.sub(r"   \(.*\)$", "", line).partition(" ")[2].encode()
    for line in (GOLDEN / "loopal-transcripts.txt").read_text().splitlines()
]
PAYLOAD_LINES = (GOLDEN / "loopal-payloads.txt").read_bytes().splitlines()

# Requests that the transcripts show in order to be refused.
REFUSED = {
    b'{"id":3,"jsonrpc":"2.0","method":"foo/bar","params":null}': (
        b'{"error":{"code":-32601,"message":"unknown: foo/bar"},"id":3,"jsonrpc":"2.0"}\n'
    ),
    # The one deliberate difference: JSON-RPC's number for an unknown method, where Loopal has -32600.
    b'{"id":4,"jsonrpc":"2.0","method":"hub/nope","params":{}}': (
        b'{"error":{"code":-32601,"message":"unknown hub method: hub/nope"},"id":4,"jsonrpc":"2.0"}\n'
    ),
}


@pytest.mark.parametrize("line", [line for line in LINES if line not in REFUSED])
def test_a_golden_line_decodes_and_encodes_to_the_same_bytes(line: bytes) -> None:
    frame = decode(line)

    assert not isinstance(frame, Rejected)
    assert encode(frame) == line + b"\n"


@pytest.mark.parametrize(("line", "answer"), REFUSED.items())
def test_a_golden_line_with_an_unknown_method_is_answered_as_loopal_would(line: bytes, answer: bytes) -> None:
    rejected = decode(line)

    assert line in LINES
    assert isinstance(rejected, Rejected)
    assert rejected.code is ErrorCode.METHOD_NOT_FOUND
    assert encode(rejected) == answer


def test_the_transcripts_are_all_there() -> None:
    assert len(LINES) == 68


@pytest.mark.parametrize("line", PAYLOAD_LINES)
def test_a_golden_payload_decodes_and_encodes_to_the_same_bytes(line: bytes) -> None:
    record = payload(Opaque(line))

    assert not isinstance(record, Opaque)
    assert dump(CONVERTER.unstructure(record)) == line


def test_the_golden_payloads_show_the_27_of_the_base_dialect() -> None:
    shown = {type(payload(Opaque(line))).__name__ for line in PAYLOAD_LINES}

    assert len(shown) == 27
    assert shown <= set(PAYLOADS)


@pytest.mark.parametrize(
    ("line", "record"),
    [
        (
            b'{"ToolResult":{"id":"t","is_error":false,"metadata":null,"name":"n","result":"r"}}',
            ToolResult("t", "n", "r", is_error=False),
        ),
        (
            b'{"SubAgentSpawned":{"agent_id":"9f","name":"w"}}',
            SubAgentSpawned("w", "9f"),
        ),
    ],
)
def test_an_optional_field_of_a_payload_may_be_missing_or_null(line: bytes, record: object) -> None:
    assert payload(Opaque(line)) == record


@pytest.mark.parametrize(
    "line",
    [
        b'{"ThinkingComplete":{"token_count":-1}}',
        b'{"ThinkingComplete":{"token_count":4294967296}}',
        b'{"ThinkingComplete":{"token_count":1.0}}',
        b'{"ThinkingComplete":{}}',
        b'{"FromTheFuture":{"x":1}}',
        b'"FromTheFuture"',
        b'"Stream"',
        b'{"Started":1}',
        b'{"Started":null,"Finished":null}',
        b"[]",
        b"null",
    ],
)
def test_a_payload_that_is_not_known_stays_opaque(line: bytes) -> None:
    assert payload(Opaque(line)) == Opaque(line)


def test_a_unit_payload_may_be_an_object_with_a_null() -> None:
    assert payload(Opaque(b'{"Started":null}')) == Started()
