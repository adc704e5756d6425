"""The map of ``core/__init__.py`` has one line for each file of the directory."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

from loopal_cluster import core

FILES = [*Path(core.__file__).parent.glob("*.py")]


def test_each_file_of_the_core_has_one_line_in_the_map():
    files = {path.stem for path in FILES} - {"__init__"}
    lines = re.findall(r"^\* ``(\w+)``: .+\.$", core.__doc__, flags=re.MULTILINE)

    assert sorted(lines) == sorted(files)


def test_no_file_of_the_core_is_too_long_to_be_read_at_once():
    assert {path.name: lines for path in FILES if (lines := len(path.read_text().splitlines())) > 450} == {}


def test_what_is_matched_is_listed_nearly_everywhere_so_that_a_checker_sees_what_was_forgotten():
    assert sum(path.read_text().count("case _") for path in FILES) <= 8


def test_what_the_page_says_happens_is_there() -> None:
    page = (core.__doc__ or "").partition("**What happens when**")[2].partition("**To add a method**")[0]
    named = re.findall(r"``([A-Z]\w+)\.(\w+)``", page)
    modules = [
        importlib.import_module(f"loopal_cluster.core.{path.stem}")
        for path in FILES
        if path.stem != "__init__"
    ]
    modules.append(importlib.import_module("loopal_cluster.messages"))

    assert len(named) > 5
    for owner, name in named:
        classes = [vars(module)[owner] for module in modules if owner in vars(module)]
        assert any(hasattr(cls, name) for cls in classes), f"{owner}.{name}"
