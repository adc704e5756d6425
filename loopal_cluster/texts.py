"""How large a text is, and what is said of one that is too large.

One rule for every prompt, message, reply and result: ``Limits.text_bytes`` of *encoded* JSON, because a line carries
it encoded, and one character takes one to six bytes there. The cores, agents and programs use it; nothing here encodes
JSON. What is only read from a line is measured as it came.
"""

from __future__ import annotations

from typing import Final

__all__ = [
    "KEPT_BYTES",
    "TEXT_BYTES",
    "excess",
    "json_bytes",
    "too_large",
]

TEXT_BYTES: Final = 8 * 2**20
"""The longest text, if nobody says otherwise: half of the longest line, so that what is around it fits, too."""
KEPT_BYTES: Final = 64 * 2**20
"""So much of a result that is too large is kept in a file."""

_LONGEST_ESCAPE: Final = 6
"""Bytes of a control character; no other takes more."""
_SHORT: Final = b'"\\\b\f\n\r\t'
"""What is escaped with one more byte; the other control characters take five more."""
_LONG: Final = bytes(code for code in range(0x20) if code not in _SHORT)


def json_bytes(text: str) -> int:
    """The bytes of a text as JSON, as ours and Loopal's encoders write it, its quotes included."""
    raw = text.encode("utf-8", "replace")  # half of a surrogate pair is written as "?", too
    short = len(raw) - len(raw.translate(None, _SHORT))
    long = len(raw) - len(raw.translate(None, _LONG))
    return 2 + len(raw) + short + (_LONGEST_ESCAPE - 1) * long


def excess(text: str, limit: int) -> int:
    """The size of a text that is too large; 0 if it is not. Nearly all are known to be small without a look inside."""
    if _LONGEST_ESCAPE * len(text) + 2 <= limit:
        return 0
    size = json_bytes(text)
    return size if size > limit else 0


def too_large(what: str, size: int, limit: int) -> str:
    """One line that says so."""
    return f"{what} has {size} bytes as JSON, more than the {limit} that a text may have"
