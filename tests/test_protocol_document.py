"""``docs/protocol.md`` says what the code does: its lines are lines, and its names are all there are."""

from __future__ import annotations

import re
from pathlib import Path

import attrs
import pytest

from loopal_cluster import messages
from loopal_cluster.config import Limits, Timeouts
from loopal_cluster.core.parties import PROTOCOL
from loopal_cluster.errors import ErrorCode
from loopal_cluster.frames import Rejected, Request, Response
from loopal_cluster.messages import METHODS, Decision, Found, HubList, Ok, Role, Spawned, Waited, Welcome
from loopal_cluster.outcomes import Outcome
from loopal_cluster.payloads import PAYLOADS
from loopal_cluster.wire.codec import decode, decode_result, encode
from loopal_cluster.wire.contents import payload
from loopal_cluster.wire.faults import MAX_DEPTH
from loopal_cluster.wire.strict import json_key

TEXT = (Path(__file__).parent.parent / "docs" / "protocol.md").read_text()
WORDS = set(re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", TEXT, flags=re.DOTALL | re.MULTILINE)))


def lines(kind: str) -> list[bytes]:
    """The lines of all blocks of this kind, in order."""
    blocks = re.findall(rf"^```{kind}\n(.*?)^```", TEXT, flags=re.DOTALL | re.MULTILINE)
    return [line.encode() for block in blocks for line in block.splitlines()]


def table_rows(section: str) -> dict[str, str]:
    """The first column of the tables of a section, and the second."""
    body = TEXT.split(f"\n## {section}", 1)[1].split("\n## ", 1)[0]
    return dict(re.findall(r"^\| `(\w+)`[^|]*\| *([^|]*?) *\|", body, flags=re.MULTILINE))


def words_in(text: str) -> set[str]:
    """Every word between backquotes, also where several stand together."""
    return {word for quoted in re.findall(r"`([^`\n]+)`", text) for word in re.findall(r"\w+", quoted)}


# The lines.

RESULTS = (
    *(Ok, Welcome, Spawned, Waited, Decision, Found, HubList),
    *(messages.Initialized, messages.Started, messages.Subscribed, messages.Reconciled, messages.Reply),
)


@pytest.mark.parametrize("line", lines("json"))
def test_an_example_is_a_line_that_the_codec_writes(line: bytes) -> None:
    frame = decode(line)

    assert not isinstance(frame, Rejected)
    assert encode(frame) == line + b"\n"


@pytest.mark.parametrize(
    ("line", "answer"), [*zip(lines("json foreign"), lines("json answers"), strict=True)]
)
def test_a_line_that_is_shown_to_be_refused_is_answered_as_shown(line: bytes, answer: bytes) -> None:
    rejected = decode(line)

    assert isinstance(rejected, Rejected)
    assert rejected.answer
    assert encode(rejected) == answer + b"\n"


@pytest.mark.parametrize("line", [line for line in lines("json") if b'"result":{' in line])
def test_the_result_of_an_example_is_the_record_it_claims_to_be(line: bytes) -> None:
    response = decode(line)

    assert isinstance(response, Response)
    read = [decode_result(response, expected) for expected in RESULTS]
    assert line + b"\n" in [encode(answer) for answer in read]


def test_the_payloads_of_the_examples_are_known() -> None:
    frames = [decode(line) for line in lines("json") if b'"payload"' in line]

    assert frames
    for frame in frames:
        assert not isinstance(payload(frame.message.payload), messages.Opaque)


def test_most_methods_have_an_example() -> None:
    shown = {frame.message.method for line in lines("json") if isinstance(frame := decode(line), Request)}

    assert len(shown) >= 15


# The names.


def test_every_method_has_a_row_in_a_table() -> None:
    section = TEXT.split("\n## 8. Methods", 1)[1].split("\n## 9.", 1)[0]
    first_columns = re.findall(r"^\| ([^|]*) \|", section, flags=re.MULTILINE)

    assert set(METHODS) == set(re.findall(r"`([^`]+)`", " ".join(first_columns)))


def test_no_method_appears_that_does_not_exist() -> None:
    named = {word for word in WORDS if re.fullmatch(r"(?:hub|meta|agent)/[a-z_]+|\$/\w+", word)}
    addresses = {"hub/agent"}

    assert named - addresses <= set(METHODS)


def test_every_field_of_a_method_is_named() -> None:
    section = TEXT.split("\n## 7. Data types", 1)[1].split("\n## 9.", 1)[0]
    named = words_in(section)
    fields = {
        json_key(field)
        for cls in METHODS.values()
        for field in attrs.fields(cls)
        if not cls.inline and field.name != "extra"
    }

    assert fields - named == set()


@pytest.mark.parametrize(
    "record",
    [
        *(messages.Envelope, messages.SpawnSpec, messages.Completion, messages.UserContent, messages.Image),
        *(messages.Announced, messages.AgentNode, messages.HubInfo, messages.UplinkInfo, messages.Protocol),
        *dict.fromkeys(cls.result for cls in METHODS.values() if cls.result is not None),
        *Outcome.__args__,
    ],
)
def test_every_field_of_a_data_type_is_named(record: type) -> None:
    named = words_in(TEXT.split("\n## 7. Data types", 1)[1].split("\n## 9.", 1)[0])

    assert {json_key(field) for field in attrs.fields(record)} - {"extra"} - named == set()


def test_the_table_of_errors_has_every_kind_with_its_number() -> None:
    rows = table_rows("4. Errors")

    assert set(rows) == {code.value for code in ErrorCode}
    for kind, number in rows.items():
        assert b'"code":%b,' % number.encode() in encode(Rejected(1, ErrorCode(kind), ""))


def test_the_table_of_payloads_has_every_payload_with_its_fields() -> None:
    rows = table_rows("9. Events")

    assert set(rows) == set(PAYLOADS)
    for name, fields in rows.items():
        assert {json_key(field) for field in attrs.fields(PAYLOADS[name])} <= words_in(fields)


@pytest.mark.parametrize(("section", "record"), [("11. Times", Timeouts), ("12. Limits", Limits)])
def test_the_tables_of_times_and_limits_have_the_defaults_of_the_code(section: str, record: type) -> None:
    rows = table_rows(section)

    assert {name: float(value) for name, value in rows.items()} == attrs.asdict(record())


def test_every_role_outcome_feature_and_source_is_named() -> None:
    roles = {role.value for role in Role}
    outcomes = {outcome.kind for outcome in Outcome.__args__}
    sources = {"Human", "Agent", "Channel", "Scheduled", "System"}

    assert roles | outcomes | set(PROTOCOL.features) | sources <= words_in(TEXT)


def test_the_depth_of_a_line_is_the_one_of_the_code() -> None:
    assert f"nest at most {MAX_DEPTH} deep" in TEXT
