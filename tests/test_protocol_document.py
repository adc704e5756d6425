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
from loopal_cluster.messages import (
    METHODS,
    Decision,
    Direction,
    Found,
    HubList,
    Message,
    Ok,
    Role,
    Spawned,
    Waited,
    Welcome,
)
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


def section(first: str, last: str) -> str:
    """The text between two headings."""
    return TEXT.split(f"\n{first}", 1)[1].split(f"\n{last}", 1)[0]


def methods_in(text: str) -> set[str]:
    """The methods in the first column of a table."""
    return set(re.findall(r"`([^`]+)`", " ".join(re.findall(r"^\| ([^|]*) \|", text, flags=re.MULTILINE))))


def test_every_method_has_a_row_in_a_table() -> None:
    assert set(METHODS) == methods_in(section("## 8. Methods", "### 8.4"))


def nature(cls: type[Message]) -> str:
    """The row of a method in the table of what each is: all that its record says of it."""
    who = dict.fromkeys(direction.value for direction in cls.audience)

    def of(to: str) -> str:
        return ", ".join(way.removesuffix(to).removesuffix(",") for way in who if way.endswith(to))

    is_ = {"repeated": cls.repeatable, "looks": cls.read_only, "answer only": cls.answer_only}
    to_hub = ", ".join(filter(None, (of(", to its hub"), of(", to a hub"))))
    to_meta_hub = ", ".join(filter(None, (of(", to its MetaHub"), of(", to a MetaHub"))))
    told = ", ".join(
        filter(None, ("agent" * bool(of(", to its agent")), "client" * bool(of(", to a client"))))
    )
    words = ", ".join(word for word, holds in is_.items() if holds)
    return f"| `{cls.method}` | {to_hub} | {to_meta_hub} | {told} | {words} |".replace("|  |", "| |").replace(
        "|  |", "| |"
    )


def test_the_table_of_what_each_method_is_says_what_its_record_says() -> None:
    rows = re.findall(r"^\| `.*\|$", section("### 8.4", "## 9."), flags=re.MULTILINE)

    assert rows == [nature(cls) for _, cls in sorted(METHODS.items())]


@pytest.mark.parametrize(
    ("first", "last", "directions"),
    [
        ("### 8.1", "To subscribers", {Direction.AGENT_TO_HUB, Direction.STRANGER_TO_HUB}),
        ("To subscribers", "### 8.2", {Direction.TO_CLIENT, Direction.CLIENT_TO_HUB}),
        ("### 8.2", "From the agent", {Direction.HUB_TO_AGENT}),
        ("From the agent", "### 8.3", {Direction.AGENT_TO_HUB}),
        ("### 8.3", "From the MetaHub", {Direction.HUB_TO_META_HUB, Direction.STRANGER_TO_META_HUB}),
        ("From the MetaHub", "### 8.4", {Direction.META_HUB_TO_HUB}),
    ],
)
def test_a_method_is_sent_by_those_in_whose_table_it_is(first, last, directions) -> None:
    for method in methods_in(section(first, last)):
        assert directions & {*METHODS[method].audience}, method


def test_a_meta_hub_serves_clients_the_methods_of_which_the_document_says_so() -> None:
    rows = re.findall(
        r"^\| `([^`]+)`[^|]*\|[^|]*\|[^|]*\| *(\w+)", section("### 8.1", "To subs"), flags=re.MULTILINE
    )
    served = {Direction.CLIENT_TO_META_HUB, Direction.STRANGER_TO_META_HUB}

    assert len(rows) >= 15
    for method, serves in rows:
        if serves in ("yes", "no"):
            assert bool(served & {*METHODS[method].audience}) == (serves == "yes"), method


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
        for field in attrs.fields(cls)  # type: ignore[arg-type]
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
