"""The work whose instructions are counted is really done."""

from __future__ import annotations

import pytest

from benchmarks.work import WORK


@pytest.mark.parametrize("name", WORK)
def test_fixed_work_checks_its_own_answers(name: str) -> None:
    WORK[name](32)
