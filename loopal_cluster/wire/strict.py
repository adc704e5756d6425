"""One level of JSON at a time, without coercion: what every hook is made of.

A hook gets the JSON *text* of its value and decodes one level of it. That is what lets an ``Opaque``
keep the sender's bytes at any depth, and it makes every type strict, where cattrs alone would
turn ``null`` into the string ``"None"``. Each level scans its text again, which control messages
can afford; relayed envelopes do not come this way (see ``codec``). The hooks are put together in
``hooks``.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from types import GenericAlias, NoneType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

import attrs
import msgspec
from cattrs import (
    AttributeValidationNote,
    BaseValidationError,
    ClassValidationError,
    Converter,
    IterableValidationError,
    IterableValidationNote,
)
from cattrs.gen import make_dict_structure_fn
from msgspec import Meta, Raw

from loopal_cluster.address import Address
from loopal_cluster.messages import Opaque, Role

__all__ = [
    "Hook",
    "Int64",
    "closed_converter",
    "fault",
    "is_null",
    "json_key",
    "read_enum",
    "read_object",
    "read_opaque",
    "read_str",
    "read_tagged",
    "register_strict",
    "within",
]

Hook = Callable[[Any, Any], Any]

Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
"""The longest integer there is on the wire. A longer one is legal JSON, but would overflow in a core's first division."""
_INT64: Final = range(-(2**63), 2**63)

_loads = msgspec.json.Decoder(Any).decode
_object_of = msgspec.json.Decoder(dict[str, Raw]).decode
_array_of = msgspec.json.Decoder(list[Raw]).decode


# Faults.


def fault(error: BaseException, path: str = "$") -> str:
    """The first fault of a failed structuring, such as ``expected str, got null @ $.name``."""
    while isinstance(error, BaseValidationError):
        inner = error.exceptions[0]
        path += _step(error, inner)
        error = inner
    text = "required, but missing" if isinstance(error, KeyError) else str(error)
    return f"{text} @ {path}"


def _step(outer: BaseValidationError, inner: Exception) -> str:
    for note in getattr(inner, "__notes__", ()):
        if isinstance(note, AttributeValidationNote) and isinstance(outer, ClassValidationError):
            return f".{json_key(attrs.fields_dict(outer.cl)[note.name])}"
        if isinstance(note, IterableValidationNote):
            return f"[{note.index}]" if isinstance(note.index, int) else f".{str(note.index)[:80]}"
    return ""


def within(key: str, hook: Hook, text: Raw, type_: Any) -> Any:
    """Structure what was found under ``key``, so that a fault in it names the key."""
    try:
        return hook(text, type_)
    except Exception as error:
        error.add_note(IterableValidationNote(f"in {key!r}", key, type_))
        raise IterableValidationError(f"in {key!r}", [error], type_) from None


def json_key(attribute: attrs.Attribute[Any]) -> str:
    """The attribute's name on the wire."""
    key: str = attribute.metadata.get("wire", attribute.name)
    return key


# One level.


def is_null(text: Raw) -> bool:
    """Whether it is JSON's ``null``, which most readers refuse."""
    return bytes(text) == b"null"


def read_object(text: Raw, _: Any = dict) -> dict[str, Raw]:
    """An object's values, each as text."""
    try:
        return _object_of(text)
    except msgspec.ValidationError:
        raise _wrong("object", _loads(text)) from None


def read_array(text: Raw) -> list[Raw]:
    """An array's items, each as text."""
    try:
        return _array_of(text)
    except msgspec.ValidationError:
        raise _wrong("array", _loads(text)) from None


def read_tagged(text: Raw) -> tuple[str, Raw]:
    """The name and the body of a serde enum: ``"Name"`` (the body is null) or ``{"Name":body}``."""
    if bytes(text).startswith(b'"'):
        return read_str(text), Raw(b"null")
    tagged = read_object(text)
    if len(tagged) != 1:
        raise ValueError(f"expected one variant, got {len(tagged)}")
    return next(iter(tagged.items()))


def read_str(text: Raw, _: Any = str) -> str:
    """A string, and nothing that could be made one."""
    value = _loads(text)
    if isinstance(value, str):
        return value
    raise _wrong("str", value)


def _read_bool(text: Raw, _: Any) -> bool:
    value = _loads(text)
    if isinstance(value, bool):
        return value
    raise _wrong("bool", value)


def _read_int(text: Raw, _: Any) -> int:
    value = _loads(text)
    if not isinstance(value, int) or isinstance(value, bool):
        raise _wrong("int", value)
    if value not in _INT64:
        raise ValueError("expected int, got one of more than 64 bits")
    return value


def _read_float(text: Raw, _: Any) -> float:
    value = _loads(text)
    if isinstance(value, float):
        return value
    if isinstance(value, int) and not isinstance(value, bool) and value in _INT64:
        return float(value)
    raise _wrong("float", value)


def read_opaque(text: Raw, _: Any = Opaque) -> Opaque:
    """Any JSON value, as it was written."""
    return Opaque(bytes(text))


def _read_address(text: Raw, _: Any) -> Address:
    return Address.parse(read_str(text))


def read_enum(text: Raw, cls: type[enum.Enum]) -> enum.Enum:
    """One of the values of an enum of ours, all of which are strings."""
    name = read_str(text)
    try:
        return cls(name)
    except ValueError:
        known = ", ".join(member.value for member in cls)
        raise ValueError(f"expected one of {known}, got {name[:80]!r}") from None


def _wrong(expected: str, value: Any) -> ValueError:
    names = {NoneType: "null", dict: "object", list: "array"}
    return ValueError(f"expected {expected}, got {names.get(type(value), type(value).__name__)}")


# Containers: factories, for cattrs to call with the type and itself.


def _optional(type_: Any, converter: Converter) -> Hook:
    inner: Any = Union[tuple(arg for arg in get_args(type_) if arg is not NoneType)]  # noqa: UP007
    hook = converter.get_structure_hook(inner)
    return lambda text, _: None if is_null(text) else hook(text, inner)


def _tuple(type_: Any, converter: Converter) -> Hook:
    # cattrs reads the list: it puts the index into the path of a fault.
    items = GenericAlias(list, get_args(type_)[:1])
    hook = converter.get_structure_hook(items)
    return lambda text, _: tuple(hook(read_array(text), items))


def _mapping(type_: Any, converter: Converter) -> Hook:
    item = get_args(type_)[1]
    hook = converter.get_structure_hook(item)
    return lambda text, _: {key: within(key, hook, value, item) for key, value in read_object(text).items()}


def register_strict(converter: Converter) -> None:
    """Make ``converter`` read JSON text, strictly, and write values that ``msgspec`` encodes."""
    converter.register_structure_hook(str, read_str)
    converter.register_structure_hook(bool, _read_bool)
    converter.register_structure_hook(int, _read_int)
    converter.register_structure_hook(float, _read_float)
    converter.register_structure_hook(Opaque, read_opaque)
    converter.register_structure_hook(Address, _read_address)
    converter.register_structure_hook(Role, read_enum)
    converter.register_structure_hook_factory(lambda t: NoneType in get_args(t), _optional)
    converter.register_structure_hook_factory(lambda t: getattr(t, "__origin__", t) is tuple, _tuple)
    converter.register_structure_hook_factory(_is_mapping, _mapping)
    converter.register_unstructure_hook(Opaque, lambda opaque: Raw(opaque.json))
    converter.register_unstructure_hook(Address, str)


def _is_mapping(type_: Any) -> bool:
    return getattr(type_, "__origin__", None) is Mapping


# What people and models write: config files, and the arguments of tools.


def closed_converter(key: str) -> Converter:
    """A converter that reads records strictly and refuses what they do not know, in which a misspelt key may hide.

    ``key`` is what a key is called to whoever wrote it.
    """
    converter = Converter()
    register_strict(converter)
    converter.register_structure_hook_func(_is_choice, _read_choice)
    converter.register_structure_hook_func(_is_enum, read_enum)

    def read_record(cls: Any, converter: Converter) -> Hook:
        attrs.resolve_types(cls)
        structure: Hook = make_dict_structure_fn(cls, converter)
        known = [field.name for field in attrs.fields(cls)]

        def read(text: Raw, type_: Any) -> Any:
            values = read_object(text)
            if unknown := next((name for name in values if name not in known), None):
                raise ValueError(f"unknown {key} {unknown[:80]!r} (known: {', '.join(known) or 'none'})")
            return structure(values, type_)

        return read

    converter.register_structure_hook_factory(attrs.has, read_record)
    return converter


def _is_choice(type_: Any) -> bool:
    return get_origin(type_) is Literal


def _is_enum(type_: Any) -> bool:
    return isinstance(type_, type) and issubclass(type_, enum.Enum)


def _read_choice(text: Raw, type_: Any) -> str:
    choices, value = get_args(type_), read_str(text)
    if value in choices:
        return value
    raise ValueError(f"expected one of {', '.join(choices)}, got {value[:80]!r}")
