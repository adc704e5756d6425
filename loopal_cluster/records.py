"""``record``: what crosses a boundary, as a value that nobody changes.

To a type checker it is ``attrs.frozen``, and mypy refuses every assignment to a field, here and in programs
that use us. At run time nothing stands guard: attrs enforces that with a call for each field of each new
record, which makes one of four fields 3 times as dear (1.1 us instead of 0.4). A message on its way through
a MetaHub is a dozen records, so that alone would cost more than everything else that is decided about it.
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
    record = partial(attrs.define, unsafe_hash=True)  # by value, as a frozen one; safe while nobody assigns

    def evolve(record: R, **changes: Any) -> R:
        """Make a record that differs in some fields, as ``attrs.evolve`` does, in half of its time."""
        cls = type(record)
        values = {name: getattr(record, name) for name in field_names(cls)}
        return cls(**(values | changes))


@cache
def field_names(cls: type[Any]) -> tuple[str, ...]:
    """The names of a record's fields; of what is no record, none."""
    return tuple(field.name for field in attrs.fields(cls)) if attrs.has(cls) else ()
