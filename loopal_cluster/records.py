"""``record``: what crosses a boundary, as a value that nobody changes.

To a type checker it is ``attrs.frozen``, and mypy refuses every assignment to a field, here and in programs
that use us. At run time two things are cheaper:

* Nothing stands guard. attrs does that with a call for each field of each new record, which makes one of four
  fields 3 times as dear (1.1 us instead of 0.4), and a message that a MetaHub passes on is a dozen records.
* Records are compared, hashed and shown by the three functions below. attrs would write and compile three
  for each class, which is much of the time in which a hub starts, and nothing that is done often needs them.
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
        for name, method in (("__eq__", _equals), ("__hash__", _hash), ("__repr__", _show)):
            if name not in vars(cls):
                setattr(cls, name, method)
        return attrs.define(cls, eq=False, repr=False, on_setattr=attrs.setters.NO_OP, **options)

    def evolve(record: R, **changes: Any) -> R:
        """Make a record that differs in some fields, as ``attrs.evolve`` does, in half of its time."""
        cls: Any = type(record)
        values = {name: getattr(record, name) for name in field_names(cls)}
        return cls(**(values | changes))


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
