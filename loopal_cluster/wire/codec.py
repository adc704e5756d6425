"""One line of bytes to one frame, and back: where every quirk of the base dialect lives.

``encode`` writes what Loopal would write, byte for byte, as long as our extensions have their
defaults. ``decode`` never raises: what is not a message becomes ``Rejected``, which says what to
answer, where Loopal would drop the line and leave its sender waiting. An answer's result stays
unread, but for the usual ``{"ok":true}``, until whoever asked knows what it asked for: ``decode_result``.

What is passed on is checked once, as a line: UTF-8, JSON syntax, depth. It is not checked for what
only its reader can judge. A number that no double holds (``1e999``) and the second of two equal keys
are passed on as they came; a reader of ours refuses the first and lets the last key win.

Next door: shapes of records in ``hooks``, the lines that there are most of in ``one_pass``, lines as such in
``framing``, broken ones in ``faults``, and in ``contents`` what hubs do not read.
"""

from __future__ import annotations

from typing import Any, Final, cast

import attrs
import msgspec
from cattrs import BaseValidationError
from msgspec import Raw, Struct

from loopal_cluster.completions import AGENT_COMPLETED
from loopal_cluster.errors import ErrorCode
from loopal_cluster.frames import Failure, Frame, Notification, Rejected, Request, Response
from loopal_cluster.messages import (
    METHODS,
    OK,
    AgentEvent,
    DeliverEnvelope,
    Message,
    MetaRoute,
    Ok,
    Opaque,
    Reply,
    UserContent,
)
from loopal_cluster.wire.contents import dump, open_error
from loopal_cluster.wire.faults import MAX_DEPTH, check_depth, unreadable, words
from loopal_cluster.wire.hooks import CONVERTER
from loopal_cluster.wire.one_pass import ABSENT, OK_JSON, WRITERS, read, read_reply, read_yes, write_reply
from loopal_cluster.wire.strict import Int64, fault, within

__all__ = ["decode", "decode_result", "encode"]

# The numbers of JSON-RPC 2.0, section 5.1. Loopal uses the first for nearly everything, so it is
# ``error.data.kind`` that tells; where the number tells all, there is no ``data``, as in Loopal.
_INVALID_REQUEST: Final = -32600
_NUMBERS: Final = {ErrorCode.METHOD_NOT_FOUND: -32601, ErrorCode.PARSE_ERROR: -32700}
_BY_NUMBER: Final = {number: code for code, number in _NUMBERS.items()}
_PLAIN: Final = frozenset({*_NUMBERS, ErrorCode.REFUSED})

_METHOD_JSON: Final = {method: b'"%b"' % method.encode() for method in METHODS}


# Encoding.


def encode(frame: Frame | Rejected) -> bytes:
    """The frame as one line, with its line feed."""
    match frame:
        case Request():
            message = frame.message
            method, params = _METHOD_JSON[message.method], _encode_params(message)
            return b'{"id":%d,"jsonrpc":"2.0","method":%b,"params":%b}\n' % (frame.id, method, params)
        case Response():
            return b'{"id":%d,"jsonrpc":"2.0","result":%b}\n' % (frame.id, _encode_result(frame.result))
        case Notification():
            message = frame.message
            method, params = _METHOD_JSON[message.method], _encode_params(message)
            return b'{"jsonrpc":"2.0","method":%b,"params":%b}\n' % (method, params)
        case Failure() | Rejected():
            return _encode_error(frame)


def _encode_params(message: Message[Any]) -> bytes:
    write = WRITERS.get(type(message))
    return (write is not None and write(message)) or dump(CONVERTER.unstructure(message))


def _encode_result(result: Any) -> bytes:
    if result is OK:
        return OK_JSON
    if isinstance(result, Opaque):
        return result.json
    if isinstance(result, Reply) and (json := write_reply(result)) is not None:
        return json
    return dump(CONVERTER.unstructure(result))


def _encode_error(frame: Failure | Rejected) -> bytes:
    error: dict[str, Any] = {
        "code": _NUMBERS.get(frame.code, _INVALID_REQUEST),
        "message": frame.detail,
    }
    if frame.code not in _PLAIN:
        error["data"] = {"kind": frame.code.value}
    return dump({"error": error, "id": frame.id, "jsonrpc": "2.0"}) + b"\n"


# Decoding.

_NULL: Final = Raw(b"null")


class _Line(Struct, frozen=True):
    """The keys of a line that count. The others, ``jsonrpc`` included, are never looked at."""

    id: Int64 | None = None
    method: str | None = None
    params: Raw = Raw(b"null")
    result: Raw = ABSENT
    error: Raw = ABSENT


class _AnyLine(Struct, frozen=True):
    """The same with any values: to say which of them is wrong."""

    id: Any = None
    method: Any = None
    result: Raw = ABSENT
    error: Raw = ABSENT


class _Error(Struct, frozen=True):
    code: int
    message: str
    data: Raw = Raw(b"null")


class _ErrorData(Struct, frozen=True):
    kind: str


_read_line = msgspec.json.Decoder(_Line).decode
_read_any_line = msgspec.json.Decoder(_AnyLine).decode
_read_error = msgspec.json.Decoder(_Error).decode
_read_error_data = msgspec.json.Decoder(_ErrorData).decode


def decode(line: bytes) -> Frame | Rejected:
    """The frame in one line, or what to answer instead. Never raises.

    A broken answer whose id can be read becomes a ``Failure``, so that nobody waits for it.
    """
    try:
        if not line.isascii():
            line.decode()  # msgspec does not look inside the strings that it leaves raw
        return read(line) or _read_any(line)
    except (UnicodeDecodeError, msgspec.DecodeError, RecursionError) as error:
        return _unreadable(line, error)


def _read_any(line: bytes) -> Frame | Rejected:
    """What ``read`` leaves: any line, in one pass for its keys and another for its params."""
    frame = _classify(_read_line(line))
    check_depth(line)
    return frame


def _unreadable(line: bytes, error: Exception) -> Frame | Rejected:
    match error:
        case msgspec.ValidationError():
            return _reject_shape(line, error)
        case UnicodeDecodeError():
            return unreadable(line, ErrorCode.PARSE_ERROR, f"not UTF-8: byte {error.start}")
        case RecursionError():
            return unreadable(line, ErrorCode.PARSE_ERROR, f"nested deeper than {MAX_DEPTH}")
        case _:
            return unreadable(line, ErrorCode.PARSE_ERROR, f"not JSON: {error}")


def _classify(line: _Line) -> Frame | Rejected:
    if line.method is not None:
        return _decode_message(line.id, line.method, line.params)
    if line.id is None:
        # The standard's answer to an unreadable request is one of these; it must not be answered.
        is_answer = line.result is not ABSENT or line.error is not ABSENT
        return Rejected(None, ErrorCode.INVALID_REQUEST, "neither a method nor an id", answer=not is_answer)
    if line.error is not ABSENT and line.error != _NULL:
        return _decode_error(line.id, line.error)
    return Response(line.id, Opaque(bytes(line.result) or b"null"))


def _decode_message(id_: int | None, method: str, params: Raw) -> Frame | Rejected:
    cls = METHODS.get(method)
    if cls is None:
        return Rejected(id_, ErrorCode.METHOD_NOT_FOUND, _unknown(method), answer=id_ is not None)
    if cls.result is None and id_ is not None:
        # Nothing would ever answer it. To Loopal, too, such a request is an unknown method.
        return Rejected(id_, ErrorCode.METHOD_NOT_FOUND, f"{method} is a notification")
    try:
        message = _open(CONVERTER.structure(params, cls))
    except (BaseValidationError, ValueError) as error:
        detail = fault(error, "$.params")
        return Rejected(id_, ErrorCode.INVALID_REQUEST, detail, answer=id_ is not None)
    return Notification(message) if id_ is None else Request(id_, message)


def _unknown(method: str) -> str:
    namespace = method.partition("/")[0]
    what = f"unknown {namespace} method" if namespace in ("hub", "meta") else "unknown"
    return f"{what}: {method[:80]}"


def _open(message: Message[Any]) -> Message[Any]:
    # A hub reads no content, except these: how a base hub says that a remote child has ended ...
    if isinstance(message, DeliverEnvelope | MetaRoute) and message.envelope.source == AGENT_COMPLETED:
        raw = Raw(cast(Opaque, message.envelope.content).json)
        content = within("content", CONVERTER.structure, raw, UserContent)
        return type(message)(attrs.evolve(message.envelope, content=content))
    # ... and what a base agent says whose model has failed.
    if isinstance(message, AgentEvent):
        return AgentEvent(message.agent_name, open_error(message.payload))
    return message


def _decode_error(id_: int, text: Raw) -> Failure:
    try:
        error = _read_error(text)
    except msgspec.ValidationError as invalid:
        # Loopal drops such a line, and the requester waits for ever.
        return Failure(id_, ErrorCode.PARSE_ERROR, f"malformed error: {words(invalid, '$.error')}")
    return Failure(id_, _error_code(error), error.message)


def _error_code(error: _Error) -> ErrorCode:
    try:
        return ErrorCode(_read_error_data(error.data).kind)
    except ValueError:  # no kind, or one of a later version
        return _BY_NUMBER.get(error.code, ErrorCode.REFUSED)


# Faults of a line.


def _reject_shape(line: bytes, error: msgspec.ValidationError) -> Frame | Rejected:
    """JSON, perhaps, but not the keys and types of JSON-RPC."""
    detail = words(error)
    try:
        head = _read_any_line(line)
    except msgspec.ValidationError:
        return Rejected(None, ErrorCode.INVALID_REQUEST, detail)  # not an object; batches neither
    except (msgspec.DecodeError, RecursionError):
        return unreadable(line, ErrorCode.PARSE_ERROR, "not JSON, or nested too deep")
    id_ = head.id if type(head.id) in (int, str) else None
    if head.method is not None:
        return Rejected(id_, ErrorCode.INVALID_REQUEST, detail, answer=head.id is not None)
    is_answer = head.result is not ABSENT or head.error is not ABSENT
    return Rejected(id_, ErrorCode.INVALID_REQUEST, detail, answer=not is_answer)


# Answers.


def decode_result(response: Response, expected: type | None) -> Response | Failure:
    """The response with its result as an ``expected`` record, or the failure that it really is.

    A real MetaHub passes a refused spawn on as a *success* whose result is the error object; a base
    hub's own callers, too, take any result with a ``message`` for an error. None for ``expected``
    leaves the result unread otherwise.
    """
    if response.result is OK and expected is not Ok:
        response = Response(response.id, Opaque(OK_JSON))  # ``decode`` could not know what was asked
    if not isinstance(response.result, Opaque):
        return response
    if expected is Ok and (yes := read_yes(response.result.json)) is not None:
        return Response(response.id, OK if yes.ok else yes)
    if (failure := _disguised(response.id, response.result)) is not None:
        return failure
    if expected is None or expected is Opaque:
        return response
    if expected is Reply and (reply := read_reply(response.result.json)) is not None:
        return Response(response.id, reply)
    try:
        return Response(response.id, CONVERTER.structure(Raw(response.result.json), expected))
    except (BaseValidationError, ValueError) as error:
        return Failure(response.id, ErrorCode.PARSE_ERROR, fault(error, "$.result"))


def _disguised(id_: int, result: Opaque) -> Failure | None:
    if b'"code"' not in result.json or b'"message"' not in result.json:
        return None
    try:
        error = _read_error(result.json)
    except msgspec.ValidationError:
        return None
    return Failure(id_, _error_code(error), error.message)
