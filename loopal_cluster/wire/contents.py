"""What hubs pass on unread: the contents of messages, the payloads of events, plain JSON.

For those at the edges: agents and user interfaces.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Final, cast

import msgspec
from cattrs import BaseValidationError
from msgspec import Raw, Struct

from loopal_cluster.errors import ProtocolError, TextTooLong
from loopal_cluster.messages import Opaque, UserContent
from loopal_cluster.payloads import Payload
from loopal_cluster.texts import TEXT_BYTES, excess, too_large
from loopal_cluster.wire.hooks import CONVERTER
from loopal_cluster.wire.strict import fault

__all__ = [
    "DEPTH",
    "TooDeep",
    "check_json",
    "check_text",
    "check_texts",
    "content_json",
    "dump",
    "dumps",
    "loads",
    "open_error",
    "parse",
    "payload",
    "user_content",
]

DEPTH: Final = 100
"""Lists and objects in each other. Python gives up somewhere above 300 of them, depending on where it is called."""


class TooDeep(ProtocolError):
    """JSON that is nested so deeply that it could not be written again."""


def _plain(value: Any) -> str:
    """A text of a class of its own, which an agent may well return; the encoder knows ``str`` alone."""
    if isinstance(value, str):
        return str.__str__(value)
    raise TypeError(f"{type(value).__name__} cannot be expressed in JSON")


# Keys in ascending order at every level, as serde_json writes them.
_encode = msgspec.json.Encoder(order="sorted", enc_hook=_plain).encode


def dump(value: Any) -> bytes:
    """A value made by ``CONVERTER`` as JSON."""
    try:
        return _encode(value)
    except UnicodeEncodeError:
        # Half of a surrogate pair: a model's text cut in the wrong place, or undecodable bytes on a
        # child's stderr. No JSON parser of Rust would take it, and a hub must not fail over it.
        return _encode(_without_surrogates(value))


def _without_surrogates(value: Any) -> Any:
    match value:
        case str():
            return value.encode(errors="replace").decode()
        case dict():
            return {_without_surrogates(key): _without_surrogates(item) for key, item in value.items()}
        case list() | tuple():
            return [_without_surrogates(item) for item in value]
        case _:
            return value


def loads(opaque: Opaque) -> Any:
    """The value as plain Python: dicts, lists, str, int, float, bool and None.

    Raises:
        ProtocolError: it holds a number that Python cannot, such as ``1e999``.
    """
    try:
        return msgspec.json.decode(opaque.json)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"unreadable JSON: {error}") from error


def parse(text: bytes) -> Any:
    """What a stranger has written, as plain Python that can be written again.

    Raises:
        TooDeep: it is nested more than ``DEPTH`` times.
        ProtocolError: it is no JSON.
    """
    try:
        value = msgspec.json.decode(text)
    except RecursionError:
        raise TooDeep(f"JSON that is nested more than {DEPTH} times") from None
    except ValueError as error:
        raise ProtocolError(f"unreadable JSON: {error}") from None
    # Nearly everything is known to be shallow without looking.
    if text.count(b"[") + text.count(b"{") > DEPTH and _depth(value) > DEPTH:
        raise TooDeep(f"JSON that is nested more than {DEPTH} times")
    return value


def _depth(value: Any) -> int:
    depth, level = 0, [value]
    while level := [item for item in level if isinstance(item, dict | list)]:
        depth += 1
        level = [inner for item in level for inner in (item.values() if isinstance(item, dict) else item)]
    return depth


def dumps(value: Any) -> Opaque:
    """A plain value, or a record of ours, as JSON. NaN and the infinities become ``null``."""
    return Opaque(dump(CONVERTER.unstructure(value)))


def check_texts(**texts: object) -> None:
    """Refuse what is neither text nor None, or too large, before it gets to a hub, which could not send it on.

    An agent that is a function in a hub gives the hub its very objects; nothing reads them on the way.

    Raises:
        TypeError, TextTooLong: names the first.
    """
    for what, value in texts.items():
        if value is not None:
            check_text(what, value)


def check_text(what: str, value: object) -> None:
    """Refuse what is no text, or too large.

    Raises:
        TypeError, TextTooLong: it is.
    """
    if not isinstance(value, str):
        raise TypeError(f"{what}: expected str, got {type(value).__name__}")
    if size := excess(value, TEXT_BYTES):
        raise TextTooLong(too_large(what, size, TEXT_BYTES))


def check_json(what: str, value: Opaque) -> Opaque:
    """The value, if it is not larger than a text may be.

    Raises:
        TextTooLong: it is.
    """
    if len(value.json) > TEXT_BYTES:
        raise TextTooLong(too_large(what, len(value.json), TEXT_BYTES))
    return value


class _PlainContent(Struct, frozen=True, forbid_unknown_fields=True):
    """The content of nearly all messages; ``CONVERTER`` reads it to the same, in three times the time."""

    text: str


_read_plain: Final = msgspec.json.Decoder(_PlainContent).decode


def content_json(content: UserContent) -> bytes:
    """The content of a message as JSON: what ``dumps`` makes of it, sooner."""
    return dump(CONVERTER.unstructure(content) if content.images else {"text": content.text})


def user_content(content: UserContent | Opaque) -> UserContent:
    """The content of a message, for the agent it is for.

    Raises:
        ProtocolError: it has another shape; the message names the path.
    """
    if isinstance(content, UserContent):
        return content
    with suppress(ValueError):
        return UserContent(_read_plain(content.json).text)
    try:
        return CONVERTER.structure(Raw(content.json), UserContent)
    except (BaseValidationError, ValueError) as error:
        raise ProtocolError(fault(error, "$.content")) from error


def payload(value: Payload | Opaque) -> Payload | Opaque:
    """An event's payload as a record; as it came if this version does not know it."""
    if not isinstance(value, Opaque):
        return value
    try:
        return cast(Payload, CONVERTER.structure(Raw(value.json), cast(Any, Payload)))
    except (BaseValidationError, ValueError):
        return value


def open_error(value: Any) -> Any:
    """The one event that a hub reads: a base agent whose model fails says so in it, and nowhere else."""
    return payload(value) if isinstance(value, Opaque) and value.json.startswith(b'{"Error"') else value
