"""What is public: it exists, it is listed, and it says what it is."""

from __future__ import annotations

import ast
import builtins
import importlib
import inspect
import pkgutil
import re
from pathlib import Path
from types import ModuleType

import pytest

import loopal_cluster

NAMES = [
    info.name
    for info in pkgutil.walk_packages(loopal_cluster.__path__, "loopal_cluster.")
    if not info.name.endswith("__main__")
]
INTERNAL = ("loopal_cluster.cli",)
"""Programs, not a library: what they have is for each other."""
LIBRARY = [name for name in NAMES if not name.startswith(INTERNAL)]


def exported(module: ModuleType) -> list[str]:
    """A module's public names."""
    return list(getattr(module, "__all__", ()))


def defined(module: ModuleType) -> set[str]:
    """The public classes and functions that a module itself defines."""
    return {
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (inspect.isclass(value) or inspect.isfunction(value))
        and value.__module__ == module.__name__
    }


@pytest.mark.parametrize("name", ["loopal_cluster", *NAMES])
def test_a_module_says_what_it_is_for(name):
    module = importlib.import_module(name)

    assert module.__doc__, f"{name} has no docstring"


@pytest.mark.parametrize("name", LIBRARY)
def test_a_module_that_defines_something_says_what_of_it_is_public(name):
    module = importlib.import_module(name)

    if defined(module):
        assert hasattr(module, "__all__"), f"{name} has no __all__"


@pytest.mark.parametrize("name", ["loopal_cluster", *NAMES])
def test_what_is_listed_exists_once(name):
    module = importlib.import_module(name)
    names = exported(module)

    assert [one for one in names if not hasattr(module, one)] == []
    assert len(names) == len(set(names))


@pytest.mark.parametrize("name", LIBRARY)
def test_every_public_class_and_function_has_a_docstring(name):
    module = importlib.import_module(name)
    values = {one: getattr(module, one) for one in exported(module)}

    bare = [
        one
        for one, value in values.items()
        if (inspect.isclass(value) or inspect.isfunction(value)) and not written_docstring(value)
    ]
    assert bare == []


@pytest.mark.parametrize("name", LIBRARY)
def test_every_public_method_of_a_public_class_has_a_docstring(name):
    module = importlib.import_module(name)
    bare = []
    for one in exported(module):
        value = getattr(module, one)
        if inspect.isclass(value) and value.__module__ == name:
            bare += [
                f"{one}.{method}" for method in methods(value) if not written_docstring(vars(value)[method])
            ]

    assert bare == []


def methods(cls: type) -> list[str]:
    """The public methods that a class itself defines and that do not only implement a known one."""
    inherited = {name for base in cls.__mro__[1:] for name in vars(base)}
    return [
        name
        for name, value in vars(cls).items()
        if not name.startswith("_")
        and name not in inherited
        and (inspect.isfunction(value) or is_property(value))
    ]


def is_property(value: object) -> bool:
    """Whether it is read like a field."""
    return isinstance(value, property | classmethod | staticmethod)


def written_docstring(value: object) -> str | None:
    """The docstring that was written, not one that was made up or inherited."""
    return getattr(value, "__doc__", None)


def test_what_is_public_here_is_public_where_it_is_defined():
    hidden = []
    for name in exported(loopal_cluster):
        value = getattr(loopal_cluster, name)
        home = getattr(value, "__module__", None)
        if isinstance(home, str) and home.startswith("loopal_cluster."):
            hidden += [] if name in exported(importlib.import_module(home)) else [f"{home}.{name}"]

    assert hidden == []


def test_every_error_is_exported():
    errors = importlib.import_module("loopal_cluster.errors")
    public = [name for name in errors.__all__ if name != "remote_error"]

    assert set(public) <= set(exported(loopal_cluster))


def test_the_package_lists_its_names_in_order():
    assert exported(loopal_cluster) == sorted(exported(loopal_cluster))


@pytest.mark.parametrize(
    "name", ["payloads", "errors", "outcomes", "config", "frames", "core.steps", "core.events"]
)
def test_the_long_lists_are_in_order_constants_first(name):
    names = exported(importlib.import_module(f"loopal_cluster.{name}"))

    assert names == sorted(names, key=lambda one: (not one.isupper(), one))


def test_the_package_gives_each_name_from_where_it_says():
    """It imports them when they are asked for, and a type checker reads where from."""
    tree = ast.parse(inspect.getsource(loopal_cluster))
    said = {
        alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module.startswith("loopal_cluster.")
        for alias in node.names
    }

    assert set(said) == set(loopal_cluster.__all__) - {"__version__"}  # type: ignore[attr-defined]
    for name, module in said.items():
        assert getattr(loopal_cluster, name) is getattr(importlib.import_module(module), name)  # type: ignore[arg-type]
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = loopal_cluster.nothing  # type: ignore[attr-defined]


# The public face: these modules, and what they name.

FACE = ("loopal_cluster", "loopal_cluster.events", "loopal_cluster.testing", "loopal_cluster.tools")
TOP = Path(__file__).parents[1]
WRITTEN = [TOP / "README.md", *(TOP / "docs").glob("*.md"), *(TOP / "examples").rglob("*.md")]
PROGRAMS = [*(TOP / "examples").rglob("*.py")]
TYPING = {"Any", "ClassVar", "Literal", "NoReturn", "Self", "Unpack"}
ABSTRACT = {
    *("AbstractAsyncContextManager", "AsyncIterator", "Awaitable", "Callable"),
    *("Iterator", "Mapping", "Sequence"),
}
ELSEWHERE = {"trio"}
"""Modules whose names may be used with a dot."""
INSIDE = {
    "C": ("CoreDriver",),
    **dict.fromkeys(["HubCore", "MetaHubCore"], ("Hub", "MetaHub")),
    **dict.fromkeys(["Direction", "Patience"], ("ClusterEvent", "Decided", "Permission", "Question")),
    **dict.fromkeys(["Inbound", "Rejected"], ("FrameChannel",)),
    "Frame": ("CoreDriver", "FrameChannel", "sent"),
    **dict.fromkeys(["Guard", "McpDoor", "Spilled"], ("Place",)),
    **dict.fromkeys(
        ["Core", "Effect", "Event", "Link", "Message", "Peer", "Request"], ("CoreDriver", "sent")
    ),
    "Ambient": ("Place", "open_client", "open_hub", "open_meta_hub"),
}
"""Names of our own that these few speak of, for our own use: a window on a core for those who count what it keeps, a
channel's frames, what an agent type hands on to our processes, the clock and the dice of a test."""


def imports_in(text: str) -> set[str]:
    """Modules of ours that a text imports from, as Python or in code blocks of a document."""
    return set(re.findall(r"^\s*(?:>>> )?(?:from|import) (loopal_cluster[\w.]*)", text, re.MULTILINE))


@pytest.mark.parametrize("path", [*WRITTEN, *PROGRAMS], ids=lambda path: str(path.relative_to(TOP)))
def test_what_we_show_to_others_imports_only_what_is_public(path):
    assert imports_in(path.read_text()) <= set(FACE)


def test_what_we_show_to_others_imports_something():
    assert {module for path in [*WRITTEN, *PROGRAMS] for module in imports_in(path.read_text())} != set()


def public_values() -> dict[str, object]:
    """What the face names, by name."""
    return {
        name: getattr(module, name)
        for module in map(importlib.import_module, FACE)
        for name in exported(module)
        if name != "__version__"
    }


def named_in(annotation: object) -> set[str]:
    """The names in an annotation as it was written."""
    if not isinstance(annotation, str):
        return set()
    tree = ast.parse(annotation, mode="eval")
    quoted = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    return names if "Literal" in names else names.union(*map(named_in, quoted))


def annotations_of(name: str, value: object) -> dict[str, object]:
    """What a public function, class or method takes, has and returns, by where that is said."""
    if inspect.isfunction(value):
        return {f"{name}({argument})": said for argument, said in inspect.get_annotations(value).items()}
    if not inspect.isclass(value) or not value.__module__.startswith("loopal_cluster"):
        return {}
    said = {
        f"{name}.{field}": text
        for cls in value.__mro__
        if cls.__module__.startswith("loopal_cluster")
        for field, text in inspect.get_annotations(cls).items()
        if not field.startswith("_")
    }
    for method, member in vars(value).items():
        function = getattr(member, "fget", None) or getattr(member, "__func__", member)
        if inspect.isfunction(function) and not method.startswith("_"):
            said |= annotations_of(f"{name}.{method}", inspect.unwrap(function))
    return said


@pytest.mark.parametrize("name", sorted(public_values()))
def test_a_public_name_speaks_only_of_public_ones(name):
    known = set(public_values()) | set(dir(builtins)) | TYPING | ABSTRACT | ELSEWHERE
    known |= {inside for inside, users in INSIDE.items() if name in users}
    hidden = {
        where: named_in(text) - known
        for where, text in annotations_of(name, public_values()[name]).items()
        if named_in(text) - known
    }

    assert hidden == {}


def test_the_face_is_of_a_size_that_one_can_know():
    assert 80 <= len(exported(loopal_cluster)) <= 110
