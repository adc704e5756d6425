"""``record``: what crosses a boundary, as a value that nobody changes; ``define``: state with one owner.

To a type checker they are ``attrs.frozen``, of which mypy refuses every assignment to a field, here and in
programs that use us, and ``attrs.define``. At run time three things are cheaper:

* Nothing stands guard over a record. attrs does that with a call for each field of each new record, which
  makes one of four fields 3 times as dear (1.1 us instead of 0.4), and a message that a MetaHub passes on is a
  dozen records.
* All are compared, hashed and shown by the three functions below. attrs would write and compile three
  for each class, and nothing that is done often needs them.
* attrs finishes a class when its first object is made, or somebody asks for its fields or its arguments. We
  have 300, a process uses some dozens, and each takes attrs a million instructions, most of them to write an ``__init__`` and
  to compile it. What is written at a class and wrong is found then; a test finishes all of them.

What attrs would mend in a class that it makes anew, it cannot mend here: their methods do not say ``super()``.
"""

from __future__ import annotations

from functools import cache, partial
from inspect import isfunction
from threading import RLock
from typing import TYPE_CHECKING, Any, TypeVar

import attrs

__all__ = ["define", "evolve", "field_names", "record"]

R = TypeVar("R")

if TYPE_CHECKING:
    from attrs import define as define
    from attrs import evolve as evolve
    from attrs import frozen as record
else:

    def record(cls: type | None = None, **options: Any) -> Any:
        """Make a class one of records."""
        if "order" in options:  # which attrs does not write alone
            return attrs.define(cls, unsafe_hash=True, **options)
        return define(cls, unsafe_hash=True, on_setattr=attrs.setters.NO_OP, **options)

    def define(cls: type | None = None, **options: Any) -> Any:
        """Do what ``attrs.define`` does, later."""
        return partial(define, **options) if cls is None else _unfinished(cls, options)

    def evolve(record: R, **changes: Any) -> R:
        """Make a record that differs in some fields, as ``attrs.evolve`` does, in half of its time."""
        cls: Any = type(record)
        values = {name: getattr(record, name) for name in field_names(cls)}
        return cls(**(values | changes))


def _unfinished(cls: type, options: dict[str, Any]) -> type:
    """The class with slots for its fields, for attrs to finish."""
    hashing: Any = _hash if "unsafe_hash" in options else None
    names = [name for name, type_ in cls.__annotations__.items() if not str(type_).startswith("ClassVar")]
    body = {name: value for name, value in vars(cls).items() if name not in ("__dict__", "__weakref__")}
    defaults = {name: body.pop(name, attrs.NOTHING) for name in names}
    body.setdefault("__repr__", _show)
    if options.get("eq", True):
        body.setdefault("__eq__", _equals)
        body.setdefault("__hash__", hashing)
    slots = [*names, *({"__weakref__"} & {*vars(cls)})]
    body |= {"__qualname__": cls.__qualname__, "__slots__": slots}
    body |= {name: _Later(defaults, options) for name in ("__attrs_attrs__", "__init__", "__match_args__")}
    return type(cls)(cls.__name__, cls.__bases__, body)


def _field(default: Any) -> Any:
    return default if isinstance(default, _FIELD) else attrs.field(default=default)


_FIELD = type(attrs.field())


class _Later:
    """What attrs is to write into a class: whoever looks for it, or makes a record, has attrs finish the class."""

    def __init__(self, defaults: dict[str, Any], options: dict[str, Any]) -> None:
        self._defaults = defaults
        self._options = options

    def __set_name__(self, cls: type, name: str) -> None:
        self._cls = cls
        self._name = name

    def __get__(self, instance: object, owner: type) -> Any:
        written = vars(self._cls)
        with _one_at_a_time:
            if written[self._name] is self:
                self._finish(self._cls)
        value = written[self._name]
        return value.__get__(instance, owner) if isfunction(value) else value

    def _finish(self, cls: Any) -> None:
        these = {name: _field(default) for name, default in self._defaults.items()}
        # The class has its slots and three methods already.
        ours = {
            "init": True,
            "slots": False,
            "eq": False,
            "unsafe_hash": None,
            "repr": False,
            "match_args": False,
        }
        attrs.define(cls, these=these, **(self._options | ours))
        fields = attrs.fields(cls)
        matched = tuple(field.name for field in fields if field.init and not field.kw_only)
        type.__setattr__(cls, "__match_args__", matched)


_one_at_a_time = RLock()
"""For threads that make their first records of a class, and of those it is made of, at the same time."""


def _equals(self: Any, other: object) -> Any:
    if type(other) is not type(self):
        return NotImplemented
    cls: Any = type(self)
    return all(getattr(self, name) == getattr(other, name) for name in _compared(cls))


def _hash(self: Any) -> int:
    cls: Any = type(self)
    return hash((cls, *(getattr(self, name) for name in _compared(cls))))


@cache
def _compared(cls: Any) -> tuple[str, ...]:
    return tuple(field.name for field in attrs.fields(cls) if field.eq)


def _show(self: Any) -> str:
    cls: Any = type(self)
    fields = (field for field in attrs.fields(cls) if field.repr)
    return f"{cls.__name__}({', '.join(f'{field.name}={getattr(self, field.name)!r}' for field in fields)})"


@cache
def field_names(cls: Any) -> tuple[str, ...]:
    """The names of a record's fields; of what is no record, none."""
    return tuple(field.name for field in attrs.fields(cls)) if attrs.has(cls) else ()
