"""What a core remembers: every container in it, found by walking its attributes.

A new table in a core is found without being listed here; it has to be empty when the cluster is quiet,
or ``MAY_STAY`` has to say why not and how large it may be.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from loopal_cluster.core.deadlines import DeadlineQueue

__all__ = ["left_in"]

TIMERS = {"HeartbeatDue", "HealthDue"}
"""Timers that go on while hubs are connected."""


def left_in(core: Any, *, peers: int, hubs: int) -> list[tuple[str, str]]:
    """What a quiet core should not remember: the name of each table, and what is in it."""
    left = []
    for name, table in containers(core):
        if isinstance(table, DeadlineQueue):
            keys = [key for key in table._due if type(key).__name__ not in TIMERS]
            if len(table._heap) > 64 + 2 * len(table._due) + 1:
                left.append((name, f"{len(table._heap)} heap entries for {len(table._due)} keys"))
        else:
            keys = list(table)[_allowed(name, peers, hubs) :]
        if keys:
            left.append((name, ", ".join(str(key)[:120] for key in keys[:3])))
    return left


def _allowed(name: str, peers: int, hubs: int) -> int:
    """How many entries may stay."""
    match name.rpartition(".")[2]:
        case "_parties" | "_requests" | "_legs" | "_links" | "_subscribers":
            return peers
        case "_by_name" if name == "hubs._by_name":
            return hubs
        case "_by_hub":
            return hubs  # an empty table each; its entries are walked, too
        case "_kept":
            return 2048
        case "_handlers" | "_listeners":
            return 1000  # made once, and never changed
        case _:
            return 0


def containers(core: Any) -> Iterator[tuple[str, Any]]:
    """Every dict, list, set, deque and deadline queue a core holds, with its path; each once."""
    seen: set[int] = set()
    yield from _walk(core, "", seen, depth=0)


def _walk(value: Any, path: str, seen: set[int], depth: int) -> Iterator[tuple[str, Any]]:
    if id(value) in seen or depth > 6:
        return
    if isinstance(value, DeadlineQueue):
        seen.add(id(value))
        yield path, value
    elif isinstance(value, dict | list | set | deque):
        seen.add(id(value))
        yield path, value
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, item in list(items)[:50]:
            if isinstance(item, dict | list | set | deque):
                yield from _walk(item, f"{path}[{key}]", seen, depth + 1)
    elif _is_part(value):
        seen.add(id(value))
        for attribute in attrs.fields(type(value)):
            inner = getattr(value, attribute.name, None)
            yield from _walk(inner, f"{path}.{attribute.name}".lstrip("."), seen, depth + 1)


def _is_part(value: Any) -> bool:
    """Whether it is a part of a core, and not a value such as settings."""
    module = type(value).__module__
    return attrs.has(type(value)) and not isinstance(value, type) and ".core." in module
