"""What is wrong with a line, and what can be saved of it.

JSON that is nested too deep, and lines of which only the start can be read: broken ones and over-long
ones. ``codec`` decides what is a message; this file finds who is to be told when a line is not.
"""

from __future__ import annotations

import re
from itertools import accumulate
from typing import Final

import msgspec

from loopal_cluster.errors import ErrorCode
from loopal_cluster.frames import Failure, Notification, Rejected
from loopal_cluster.messages import Completed
from loopal_cluster.wire.framing import PREFIX_BYTES, Oversized, read_head

__all__ = ["MAX_DEPTH", "check_depth", "reject", "unreadable", "words"]

MAX_DEPTH: Final = 128
"""Nested arrays and objects in one line. Loopal's parser refuses more, and so it would not be relayed."""


def reject(oversized: Oversized) -> Failure | Rejected | Notification:
    """What to answer to a line that was too long, or what it says all the same.

    If it was itself an answer, that is a ``Failure``; if it was an agent's last word, that the agent has failed.
    """
    detail = f"line of more than {oversized.size - 1} bytes"
    if oversized.kept is not None:
        detail = f"{detail}; it was kept on its hub: {oversized.kept}"
    answer = unreadable(oversized.prefix, ErrorCode.OVERSIZED, detail)
    if isinstance(answer, Rejected) and answer.id is None and _COMPLETED.search(oversized.prefix):
        # That an agent has ended is known, and so is why nobody will have its result.
        return Notification(Completed(reason="error", result_text=f"its result is too large: a {detail}"))
    return answer


_COMPLETED = re.compile(rb'"method"\s*:\s*"agent/completed"')


def unreadable(line: bytes, code: ErrorCode, detail: str) -> Failure | Rejected:
    """What to do about a line of which at most the start can be read.

    The scalars at the start of the object are read, up to the first value that may be long: with
    the key order of Loopal, and with that of most others, the id is among them.
    """
    head, last = read_head(line[:PREFIX_BYTES])
    keys = head.keys() | {last}
    id_ = int(head[b"id"]) if head.get(b"id", b"null")[:1] not in b'"n' else None
    if not keys & {b"result", b"error"} or b"method" in keys:
        return Rejected(id_, code, detail)
    if id_ is None:
        return Rejected(None, code, detail, answer=False)
    return Failure(id_, code, detail)


def words(error: msgspec.ValidationError, path: str = "$") -> str:
    """msgspec's words in the form of ours: ``expected int, got str @ $.id``."""
    text, _, inside = str(error).replace("`", "").partition(" - at $")
    return f"{text[:1].lower()}{text[1:]} @ {path}{inside}"


_STEPS: Final = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
_NO_BRACKETS: Final = bytes(set(range(256)) - set(b'[{]}"'))


def check_depth(line: bytes) -> None:
    """Refuse a line that is nested too deep for the parsers on its way. It must be valid JSON.

    Raises:
        RecursionError: it is; msgspec says the same of a line nested deeper than Python's stack.
    """
    # Cheap reasons why it cannot be: a level takes two bytes, one of them an opening bracket, and so many of
    # those do not fit before the last one.
    if len(line) <= 2 * MAX_DEPTH or max(line.rfind(b"{"), line.rfind(b"[")) < MAX_DEPTH:
        return
    if not _has_brackets(line, MAX_DEPTH + 1):
        return
    # Outside strings, an opening bracket is a step of 1 and a closing one of -1 (0xff as signed
    # char). All of it runs in C, because a hostile line is all brackets.
    unescaped = line.replace(rb"\\", b"").replace(rb"\"", b"")
    outside = unescaped.translate(_STEPS, _NO_BRACKETS).split(b'"')[::2]
    if max(accumulate(memoryview(b"".join(outside)).cast("b")), default=0) > MAX_DEPTH:
        raise RecursionError


def _has_brackets(line: bytes, enough: int) -> bool:
    """Whether there are so many opening brackets in it, also in its texts."""
    # ``find`` jumps from one to the next, where ``count`` looks at every byte: of 16 KiB of text, ten times faster.
    for bracket in (b"{", b"["):
        at = line.find(bracket)
        while at >= 0:
            enough -= 1
            if not enough:
                return True
            at = line.find(bracket, at + 1)
    return False
