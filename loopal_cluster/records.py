"""``record``: what crosses a boundary, as a value that nobody changes.

To a type checker it is ``attrs.frozen``, and mypy refuses every assignment to a field, here and in programs
that use us. At run time three things are cheaper:

* Nothing stands guard. attrs does that with a call for each field of each new record, which makes one of four
  fields 3 times as dear (1.1 us instead of 0.4), and a message that a MetaHub passes on is a dozen records.
* Records are compared, hashed and shown by the three functions below. attrs would write and compile three
  for each class, and nothing that is done often needs them.
* attrs finishes a class when its first record is made, or somebody asks for its fields. We have 170, a process
  uses a few dozen, and each takes attrs 1.1 million instructions, most of them to write an ``__init__`` and
  to compile it. What is written at a class and wrong is found then; a test finishes all of them.
"""

from __future__ import annotations

from functools import cache, partial
from typing import TYPE_CHECKING, Any, TypeVar

import attrs

__all__ = ["evolve", "field_names", "record"]

R = TypeVar("R")

if TYPE_CHECKING:
    from attrs import evolve as evolve
    from attrs import frozen as record
else:

    def record(cls: type | None = None, **options: Any) -> Any:
        """Make a class one of records."""
        if cls is None:
            return partial(record, **options)
        if "order" in options:  # which attrs does not write alone
            return attrs.define(cls, unsafe_hash=True, **options)
        return _unfinished(cls, options)

    def evolve(record: R, **changes: Any) -> R:
        """Make a record that differs in some fields, as ``attrs.evolve`` does, in half of its time."""
        cls: Any = type(record)
        values = {name: getattr(record, name) for name in field_names(cls)}
        return cls(**(values | changes))


def _unfinished(cls: type, options: dict[str, Any]) -> type:
    """The class with slots for its fields, for attrs to finish."""
    names = [name for name, type_ in cls.__annotations__.items() if not str(type_).startswith("ClassVar")]
    body = {name: value for name, value in vars(cls).items() if name not in ("__dict__", "__weakref__")}
    defaults = {name: body.pop(name, attrs.NOTHING) for name in names}
    for name, method in (("__eq__", _equals), ("__hash__", _hash), ("__repr__", _show)):
        body.setdefault(name, method)
    slots = [*names, *({"__weakref__"} & {*vars(cls)})]
    body |= {"__slots__": slots, "__init__": _first, "__attrs_attrs__": _Fields(defaults, options)}
    return type(cls)(cls.__name__, cls.__bases__, body)


def _field(default: Any) -> Any:
    return default if isinstance(default, _FIELD) else attrs.field(default=default)


_FIELD = type(attrs.field())


class _Fields:
    """Where attrs keeps the fields of a class: whoever looks for them, or makes a record, has attrs finish the class."""

    def __init__(self, defaults: dict[str, Any], options: dict[str, Any]) -> None:
        self._defaults = defaults
        self._options = options

    def __set_name__(self, cls: type, name: str) -> None:
        self._cls = cls

    def __get__(self, _: object, __: type) -> Any:
        these = {name: _field(default) for name, default in self._defaults.items()}
        # The class has its slots and three methods already; an ``__init__`` only until now.
        written: Any = {"init": True, "slots": False, "eq": False, "repr": False}
        attrs.define(self._cls, these=these, on_setattr=attrs.setters.NO_OP, **written, **self._options)
        return attrs.fields(self._cls)


def _first(self: Any, *args: Any, **kwargs: Any) -> None:
    """Stand for the ``__init__`` that attrs will write in its place."""
    attrs.fields(type(self))
    self.__init__(*args, **kwargs)


def _equals(self: Any, other: object) -> Any:
    cls: Any = type(self)
    names = field_names(cls)
    if type(other) is not type(self):
        return NotImplemented
    return all(getattr(self, name) == getattr(other, name) for name in names)


def _hash(self: Any) -> int:
    cls: Any = type(self)
    return hash((cls, *(getattr(self, name) for name in field_names(cls))))


def _show(self: Any) -> str:
    cls: Any = type(self)
    fields = (field for field in attrs.fields(cls) if field.repr)
    return f"{cls.__name__}({', '.join(f'{field.name}={getattr(self, field.name)!r}' for field in fields)})"


@cache
def field_names(cls: Any) -> tuple[str, ...]:
    """The names of a record's fields; of what is no record, none."""
    return tuple(field.name for field in attrs.fields(cls)) if attrs.has(cls) else ()
