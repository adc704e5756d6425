"""Who may import whom: the architecture's own unit test.

::

    cli, demo, editor ─► runtime (the hosts) ─► mcp_server ─► agents, acp, tools ─► links ─► wire ─► leaves
                            │                                                                   ▲
                            └─────────► core ───────────────────────────────────────────────────┘
    testing ─► runtime, links, agents, core, wire       nothing imports testing, cli or demo
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import loopal_cluster

PACKAGE = "loopal_cluster"
ROOT = Path(loopal_cluster.__file__).parent
LEAVES = {
    "address",
    "completions",
    "config",
    "errors",
    "frames",
    "labels",
    "message_sizes",
    "messages",
    "outcomes",
    "payloads",
    "records",
    "texts",
}

LAYERS: dict[str, tuple[set[str], set[str]]] = {
    "core": ({"leaves"}, {"attrs"}),
    "wire": ({"leaves"}, {"attrs", "cattrs", "msgspec"}),
    "links": ({"leaves", "wire"}, {"attrs", "trio"}),
    "runtime": ({"leaves", "core", "wire", "links", "agents", "mcp_server"}, {"attrs", "trio"}),
    "agents": ({"leaves", "wire", "links", "tools", "acp"}, {"attrs", "cattrs", "msgspec", "trio"}),
    "acp": ({"leaves", "wire", "links", "agents", "tools"}, {"attrs", "msgspec", "trio"}),
    "tools": ({"leaves", "wire", "links", "agents"}, {"attrs", "cattrs", "msgspec", "trio"}),
    "mcp_server": (
        {"leaves", "wire", "links", "agents", "tools", "package"},
        {"attrs", "h11", "msgspec", "trio"},
    ),
    "testing": ({"leaves", "core", "wire", "links", "runtime", "agents", "tools"}, {"attrs", "trio"}),
    "cli": (
        {
            "leaves",
            "wire",
            "links",
            "runtime",
            "agents",
            "acp",
            "tools",
            "mcp_server",
            "editor",
            "demo",
            "package",
        },
        {"attrs", "trio", "typer"},
    ),
    "editor": ({"leaves", "wire", "links", "runtime", "acp", "package"}, {"attrs", "trio"}),
    "demo": ({"leaves", "agents", "tools", "package"}, {"attrs", "trio"}),
    "leaves": (set(), {"attrs"}),
    "package": ({"leaves", "core", "links", "runtime", "agents", "acp", "tools"}, set()),
    "__main__": ({"cli"}, set()),
}
"""What each layer may import of this package besides itself, and of others besides the standard library."""

IMPURE = {
    "asyncio", "concurrent", "json", "logging", "multiprocessing", "os", "pathlib", "random", "secrets",
    "select", "selectors", "signal", "socket", "subprocess", "sys", "tempfile", "threading", "time", "uuid",
}  # fmt: skip
"""Standard library that a core, or a leaf, may not know of: no clock, no randomness, no IO, no JSON."""


def layer_of(path: Path) -> str:
    """The layer a file belongs to."""
    first = path.relative_to(ROOT).parts[0].removesuffix(".py")
    if first in ("__init__", "events"):
        return "package"
    return "leaves" if first in LEAVES else first


def layer_named(module: str) -> str:
    """The layer of a dotted module of ours."""
    parts = module.split(".")[1:]
    if (
        not parts
        or parts[0] == "events"
        or not ((ROOT / parts[0]).is_dir() or (ROOT / f"{parts[0]}.py").exists())
    ):
        return "package"
    return "leaves" if parts[0] in LEAVES else parts[0]


@cache
def imports(path: Path) -> tuple[str, ...]:
    """Every module that a file imports, anywhere in it."""
    return tuple(_imports(path))


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            if node.module == PACKAGE:
                yield from (f"{PACKAGE}.{alias.name}" for alias in node.names)
            else:
                yield node.module


FILES = sorted(ROOT.rglob("*.py"))
BY_NAME = {str(path.relative_to(ROOT)): path for path in FILES}


@pytest.mark.parametrize("name", BY_NAME)
def test_a_file_imports_only_what_its_layer_may(name):
    path = BY_NAME[name]
    layer = layer_of(path)
    assert layer in LAYERS, f"{name}: a layer without a rule"
    ours, others = LAYERS[layer]

    for module in imports(path):
        top = module.partition(".")[0]
        if top == PACKAGE:
            allowed = layer_named(module) in ours | {layer}
        else:
            allowed = top in others or top in sys.stdlib_module_names
        assert allowed, f"{name} imports {module}"


@pytest.mark.parametrize(
    "name", [name for name, path in BY_NAME.items() if layer_of(path) in ("core", "leaves")]
)
def test_a_core_and_what_it_stands_on_know_no_clock_no_chance_and_no_world(name):
    known = {module.partition(".")[0] for module in imports(BY_NAME[name])}

    # A class is shared by all threads of a program, ours or not.
    assert known & IMPURE == ({"threading"} if name == "records.py" else set())


FLOORS = ["wire", "links", "agents", "mcp_server", "runtime"]
"""From below. ``acp`` and ``tools`` stand beside ``agents``."""


@pytest.mark.parametrize("floor", FLOORS)
def test_no_floor_stands_on_one_above_it(floor):
    above = {*FLOORS[FLOORS.index(floor) + 1 :]}

    assert not LAYERS[floor][0] & above


@pytest.mark.parametrize("layer", ["testing", "cli", "demo"])
def test_nothing_depends_on_what_only_people_use(layer):
    users = {
        layer_of(path) for path in FILES for module in imports(path) if layer_named_of_ours(module) == layer
    }

    assert users <= {layer, *({"cli"} if layer == "demo" else {"__main__"} if layer == "cli" else set())}


def layer_named_of_ours(module: str) -> str | None:
    """The layer of a module, if it is ours."""
    return layer_named(module) if module.partition(".")[0] == PACKAGE else None


def test_the_leaves_do_not_import_each_other_in_a_circle():
    order = [
        "errors",
        "records",
        "address",
        "texts",
        "labels",
        "config",
        "outcomes",
        "messages",
        "completions",
        "frames",
        "payloads",
        "message_sizes",
    ]

    for index, leaf in enumerate(order):
        known = {
            module.split(".")[1] for module in imports(ROOT / f"{leaf}.py") if module.startswith(PACKAGE)
        }
        assert known <= set(order[:index]), leaf
