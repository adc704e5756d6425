"""The map of ``core/__init__.py`` has one line for each file of the directory."""

from __future__ import annotations

import re
from pathlib import Path

from loopal_cluster import core


def test_each_file_of_the_core_has_one_line_in_the_map():
    files = {path.stem for path in Path(core.__file__).parent.glob("*.py")} - {"__init__"}
    lines = re.findall(r"^\* ``(\w+)``: .+\.$", core.__doc__, flags=re.MULTILINE)

    assert sorted(lines) == sorted(files)
