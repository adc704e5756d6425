"""Arguments of tools: the record is the one source of the schema and of the check.

``json_schema`` shows a tool's fields to a model, ``read_arguments`` makes a call of what the model sends
back. Both look at the same types, defaults and bounds, so they cannot come to differ. Arguments are flat:
strings, numbers, booleans, ``Literal`` choices, and each of these or null.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import NoneType
from typing import Any, Final, Literal, NoReturn, TypeVar, get_args, get_origin

import attrs
import msgspec
from cattrs import AttributeValidationNote, BaseValidationError
from msgspec import Raw

from loopal_cluster.errors import ClusterError
from loopal_cluster.tools.tool import Tool
from loopal_cluster.wire.contents import dump
from loopal_cluster.wire.strict import closed_converter, fault

__all__ = ["InvalidArguments", "argument", "blame", "json_schema", "read_arguments"]

T = TypeVar("T", bound=Tool)

_TYPES: Final[Mapping[Any, str]] = {str: "string", bool: "boolean", int: "integer", float: "number"}


class InvalidArguments(ClusterError):
    """Arguments that do not fit the tool's schema; the message names the path and what is expected."""


def argument(
    description: str,
    *,
    default: Any = attrs.NOTHING,
    minimum: float | None = None,
    maximum: float | None = None,
) -> Any:
    """A field of a tool. Without a default it is required; the bounds are inclusive."""
    bounds = {"minimum": minimum, "maximum": maximum}
    schema = {"description": description} | {key: bound for key, bound in bounds.items() if bound is not None}

    def check(_: object, field: attrs.Attribute[Any], value: Any) -> None:
        low = minimum is None or value >= minimum
        high = maximum is None or value <= maximum
        if not (low and high):
            blame(field.name, f"expected a number from {minimum} to {maximum}, got {value:g}")

    bounded = minimum is not None or maximum is not None
    return attrs.field(default=default, metadata={"schema": schema}, validator=check if bounded else None)


def blame(field: str, text: str) -> NoReturn:
    """Refuse the value of a field, from a validator or ``__attrs_post_init__``.

    Raises:
        ValueError: always; ``fault`` turns it into ``text @ $.field``.
    """
    error = ValueError(text)
    error.add_note(AttributeValidationNote(text, field, None))
    raise error


def json_schema(tool: type[Tool]) -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of a tool's arguments."""
    fields = attrs.fields(attrs.resolve_types(tool))
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {field.name: _property(field) for field in fields},
        "additionalProperties": False,
    }
    if required := [field.name for field in fields if field.default is attrs.NOTHING]:
        schema["required"] = required
    return schema


def _property(field: attrs.Attribute[Any]) -> dict[str, Any]:
    schema: dict[str, Any] = _type(field.type) | field.metadata["schema"]
    return schema if field.default in (attrs.NOTHING, None) else schema | {"default": field.default}


def _type(type_: Any) -> dict[str, Any]:
    if _is_choice(type_):
        return {"type": "string", "enum": list(get_args(type_))}
    if NoneType in get_args(type_):
        (inner,) = (arg for arg in get_args(type_) if arg is not NoneType)
        return {"type": [_type(inner)["type"], "null"]}
    return {"type": _TYPES[type_]}


def _is_choice(type_: Any) -> bool:
    return get_origin(type_) is Literal


def read_arguments(tool: type[T], arguments: Mapping[str, Any] | str) -> T:
    """A call of ``tool``, from a mapping or from JSON text.

    Raises:
        InvalidArguments: the first fault, such as ``expected str, got int @ $.name``.
    """
    try:
        return _CONVERTER.structure(_as_json(arguments), tool)
    except (BaseValidationError, ValueError) as error:
        raise InvalidArguments(fault(error)) from error
    except (TypeError, RecursionError) as error:
        raise InvalidArguments(f"not expressible as JSON: {error}") from error


def _as_json(arguments: Mapping[str, Any] | str) -> Raw:
    if not isinstance(arguments, str):
        return Raw(dump(dict(arguments)))
    # Some models send nothing at all to a tool that takes no arguments.
    text = arguments.strip() or "{}"
    try:
        msgspec.json.decode(text)  # whole, so that a fault deep inside is not taken for one of a type
    except ValueError as error:
        raise ValueError(f"expected a JSON object, got unreadable JSON: {error}") from error
    return Raw(text.encode())


_CONVERTER: Final = closed_converter("argument")
