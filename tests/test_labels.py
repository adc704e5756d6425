"""Texts that others choose have a length, and are one printable line where people see them."""

from __future__ import annotations

import logging

import pytest

from loopal_cluster import InvalidAddress, messages
from loopal_cluster.address import Address
from loopal_cluster.errors import ErrorCode
from loopal_cluster.frames import Rejected, Request
from loopal_cluster.labels import MAX_DESCRIPTION, MAX_LABEL, MAX_REASON, check_description, printable
from loopal_cluster.links.logs import OneLine, get_logger
from loopal_cluster.messages import AgentSource, CancelAgent, Decision, Permission, SpawnSpec
from loopal_cluster.outcomes import Cancelled
from loopal_cluster.wire.codec import decode, encode

FORGED = "x\n2026-01-01 INFO all is well\x1b[2J\u202e"


def test_a_reason_is_cut_where_it_enters():
    cancel = CancelAgent(Address("a"), reason="x" * 4_000_000)

    assert len(cancel.reason) == MAX_REASON
    assert cancel.reason.endswith("x...")
    assert len(Cancelled("x" * 501).reason) == MAX_REASON
    assert len(Decision(False, "x" * 501).reason or "") == MAX_REASON
    assert Cancelled("x" * 500).reason == "x" * 500


def test_a_label_is_one_printable_line_of_a_length():
    permission = Permission(tool_name=FORGED, agent_name=FORGED)

    assert permission.tool_name == "x\\n2026-01-01 INFO all is well\\x1b[2J\\u202e"
    assert permission.agent_name == "x-2026-01-01-INFO-all-is-well-2J"
    assert len(Permission(tool_name="x" * 1_000_000).tool_name) == MAX_LABEL
    assert Permission(tool_name="execute: ['/bin/ls']").tool_name == "execute: ['/bin/ls']"


def test_a_sender_can_be_answered_whatever_it_calls_itself():
    def read(name: str) -> str:
        envelope = messages.Envelope("id", AgentSource(name), Address("a"), messages.EMPTY, "")
        line = encode(Request(1, messages.Route(envelope)))
        quick, slow = (
            decode(line),
            decode(line.replace(b'"extend":false,', b"").replace(b'"params":{', b'"params":{"x":1,')),
        )
        assert isinstance(quick, Request)
        assert quick == slow
        return str(quick.message.envelope.source.name)  # type: ignore[attr-defined]

    assert read("hub-a/boss") == "hub-a/boss"
    assert read("Code Reviewer") == "Code-Reviewer"
    assert read(f"h\n/{FORGED}") == "h/x-2026-01-01-INFO-all-is-well-2J"
    assert len(read("x" * 1_000_000)) == 64


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("hub/wait_agent", b'{"name":"a","agent_id":"%b"}' % (b"x" * 129)),
        ("hub/cancel_agent", b'{"target":"a","agent_id":"a\\u001b"}'),
        ("hub/cancel_agent", b'{"target":"h%b/a"}' % (b"x" * 64)),
        ("hub/route", b'{"content":{},"id":"%b","source":"Human","target":"a","timestamp":""}' % (b"x" * 129)),
        ("meta/route", b'{"content":{},"id":"%b","source":{"Agent":"a"},"target":"a","timestamp":""}' % (b"x" * 129)),
        ("hub/spawn_agent", b'{"name":"a","target_hub":"no hub"}'),
        ("hub/spawn_agent", b'{"name":"a","cwd":"%b"}' % (b"x" * 4097)),
        ("meta/announce", b'{"started":[{"name":"no name","id":"a"}]}'),
        ("meta/reconcile", b'{"hub":"no hub"}'),
        ("hub/hub_lost", b'{"hub":"no\\nhub","reason":""}'),
    ],
)  # fmt: skip
def test_a_name_or_an_id_that_is_none_is_refused_in_words(method: str, params: bytes):
    frame = decode(b'{"id":1,"method":"%b","params":%b}' % (method.encode(), params))

    assert isinstance(frame, Rejected)
    assert frame.code is ErrorCode.INVALID_REQUEST
    assert len(frame.detail) < 300
    assert printable(frame.detail) == frame.detail


NOT_NAMES = {
    "token", "prompt", "content", "text", "output", "answers", "error", "traceback", "result_text", "result",
    "capabilities", "agent_types", "labels", "features", "media_type", "data", "lifecycle", "kind", "status",
    "mode", "resume", "children", "agents", "ended", "given_up", "gone", "runs", "owns", "method", "inline",
    "source", "target", "payload", "agent_name", "missed", "extra", "waits",
}  # fmt: skip
"""Contents; what is checked where it is used, or all together; and what only we make."""


def test_no_field_that_is_a_text_has_neither_a_check_nor_a_reason_not_to():
    import attrs

    received = [cls for cls in vars(messages).values() if isinstance(cls, type) and attrs.has(cls)]
    ours = {
        "Address",
        "AgentStart",
        "HubInfo",
        "UplinkInfo",
        "StatusInfo",
        "ClusterEvent",
        "Envelope",
        "AgentSource",
        "AgentEvent",
    }
    unchecked = {
        f"{cls.__name__}.{field.name}"
        for cls in received
        if cls.__name__ not in ours
        for field in attrs.fields(cls)
        if "str" in str(field.type) and field.name not in NOT_NAMES
        if field.converter is None and field.validator is None
    }

    assert unchecked == {"SpawnSpec.name", "Register.name", "RegisterHub.name"}  # by the cores


def test_a_hub_may_say_only_so_much_of_itself():
    check_description(("gpu",), {"room": "1"}, ("coder",))

    with pytest.raises(InvalidAddress, match=f"and may have {MAX_DESCRIPTION}"):
        check_description((), {"x": "x" * 60_000}, ())
    with pytest.raises(InvalidAddress, match=f"and may have {MAX_DESCRIPTION}"):
        check_description(("",) * 10_000, {}, ())
    with pytest.raises(InvalidAddress, match="not printable"):
        check_description((), {"x": "\x1b[2J"}, ())


def test_what_is_logged_is_one_printable_line(caplog):
    logger = get_logger("loopal_cluster.test")

    logger.warning("%s uses %s", "a", FORGED)
    logger.warning("x" * 1_000_000)
    logger.warning(f"100 % {FORGED}")

    assert caplog.messages[0] == "a uses x\\n2026-01-01 INFO all is well\\x1b[2J\\u202e"
    assert len(caplog.messages[1]) == 2000
    assert "\n" not in caplog.messages[2]


def test_a_formatted_line_is_printable_whoever_logs_it():
    record = logging.LogRecord("another", logging.INFO, "", 0, "%s", (FORGED,), None)

    assert OneLine("%(levelname)s %(message)s").format(record) == (
        "INFO x\\n2026-01-01 INFO all is well\\x1b[2J\\u202e"
    )


def test_a_spawn_keeps_no_long_texts_but_its_prompt():
    spec = SpawnSpec("a", model="m" * 1_000_000, agent_type="t" * 1_000_000, parent="p" * 1_000_000)

    assert max(map(len, (spec.model or "", spec.agent_type or "", spec.parent or ""))) <= 130
    assert isinstance(Request(1, messages.SpawnAgent(spec)), Request)
