"""What the commands print: results on stdout, everything else on stderr, nothing that a terminal obeys.

Names, texts and tool inputs come from agents, and an agent may have read them anywhere. A terminal takes
some characters for orders: to move the cursor, to set the clipboard, to show what was never said. They
are shown as escapes. ``--json`` is plain ASCII for the same reason.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from loopal_cluster.cli.unread import UnreadOutput
from loopal_cluster.errors import ProtocolError
from loopal_cluster.messages import ClusterEvent, Opaque
from loopal_cluster.outcomes import Done, Outcome, reason_of
from loopal_cluster.wire.contents import dumps, loads

__all__ = [
    "as_plain",
    "document",
    "event_document",
    "event_line",
    "gap_document",
    "gap_line",
    "note",
    "one_line",
    "out",
    "outcome_document",
    "result",
    "shortened",
    "table",
]

_ORDERS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 and C1 control characters but tab and line feed
    "\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"  # those that reorder or break lines
    "\ud800-\udfff]"  # halves of characters, which cannot be encoded
)
_WIDEST = 400
"""Characters of an event that are shown; more is for ``--json``."""


def one_line(text: str) -> str:
    """The text on one line, without anything a terminal obeys."""
    return as_plain(text).replace("\n", "\\n").replace("\t", "\\t")


def as_plain(text: str) -> str:
    """The text with its lines, without anything else a terminal obeys."""
    return _ORDERS.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def shortened(text: str, length: int = _WIDEST) -> str:
    """The beginning of the text, and how much is missing."""
    return text if len(text) <= length else f"{text[:length]}... ({len(text) - length} more characters)"


def out(text: str) -> None:
    """Print a line of the result; it must be harmless already."""
    _print(text, sys.stdout)


def note(text: str) -> None:
    """Tell the human something that is not the result."""
    _print(as_plain(text), sys.stderr)


def document(value: Any) -> None:
    """Print one JSON document, on one line."""
    out(json.dumps(value))


def result(text: str) -> None:
    """Print an agent's text: as it is for a program, harmless for a terminal."""
    if sys.stdout.isatty():
        text = as_plain(text)
    if isinstance(sys.stdout, UnreadOutput):
        sys.stdout.is_result = True
    out(text.removesuffix("\n"))


def _print(text: str, stream: Any) -> None:
    encoding = stream.encoding or "utf-8"
    # Whatever the locale can say, a character that it cannot must not end the program.
    stream.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
    stream.flush()


def table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows in columns; the headers go to stderr, so that ``cut`` and ``awk`` see rows only."""
    lines = [[one_line(cell) or "-" for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(headers, *lines, strict=True)]

    def line(cells: Sequence[str]) -> str:
        return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()

    note(line(headers))
    for cells in lines:
        out(line(cells))


# Outcomes.


def outcome_document(agent: str, hub: str | None, agent_id: str | None, outcome: Outcome) -> dict[str, Any]:
    """An agent's outcome for ``--json``."""
    text = {"result" if isinstance(outcome, Done) else "error": reason_of(outcome)}
    identity = {} if agent_id is None else {"agent_id": agent_id}
    return {"agent": agent, "hub": hub, **identity, "outcome": outcome.kind, **text}


# Events. One that is missing is an event, too.


def event_document(event: ClusterEvent) -> dict[str, Any]:
    """An event for ``--json``."""
    name, data = _name_and_data(event.payload)
    return {
        "seq": event.seq,
        "at": event.at,
        "hub": event.hub,
        "agent": event.agent,
        "event": name,
        "data": data,
    }


def gap_document(missed: int, seq: int) -> dict[str, Any]:
    """Events that were lost, the last of them with number ``seq``, for ``--json``."""
    return {"seq": seq, "at": None, "hub": None, "agent": None, "event": "Gap", "data": {"missed": missed}}


def event_line(event: ClusterEvent) -> str:
    """An event for people: when, who, what."""
    who = "/".join(part for part in (event.hub, event.agent) if part) or "-"
    name, data = _name_and_data(event.payload)
    return one_line(f"{_clock(event.at)}  {who}  {name}{_in_words(data)}")


def gap_line(missed: int) -> str:
    """Events that were lost, for people."""
    return f"(gap)  {missed} events are missing here"


def _clock(at: float) -> str:
    try:
        return datetime.fromtimestamp(at).strftime("%H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return "--:--:--"


def _name_and_data(payload: Any) -> tuple[str, Any]:
    """A payload as its name and its fields; one of a version to come is shown as it is."""
    try:
        value = loads(payload if isinstance(payload, Opaque) else dumps(payload))
    except ProtocolError as error:
        return "Unreadable", {"error": str(error)}
    if isinstance(value, str):
        return value, {}
    if isinstance(value, dict) and len(value) == 1:
        return next(iter(value.items()))
    return "Unknown", value


def _in_words(data: Any) -> str:
    if data in ({}, None):
        return ""
    if not isinstance(data, dict):
        return f": {shortened(json.dumps(data, ensure_ascii=False))}"
    if len(data) == 1:
        return f": {shortened(_value(next(iter(data.values()))))}"
    return ": " + shortened(", ".join(f"{key} {_value(value)}" for key, value in data.items()))


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
