"""What every test gets: a time limit, and no way to leave a task behind."""

from __future__ import annotations

import functools
import inspect
import os
import tempfile
from typing import Any

import pytest
import trio
from hypothesis import settings

LIMIT = 60.0
"""Seconds, real or virtual, that an async test may take; ``limit(seconds)`` sets another."""


# How long an example takes says more about the neighbours than about us.
settings.register_profile("everyday", deadline=None, max_examples=20)
# .ci/run adds these: -m hypothesis --hypothesis-profile=thorough
settings.register_profile("thorough", deadline=None, max_examples=200)
settings.load_profile("everyday")

# The hundreds of programs that tests start would otherwise compile all of our modules, each for itself.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# What hubs of tests keep is not for this user's own state directory. One for each process, removed at its end.
_state = tempfile.TemporaryDirectory(prefix="loopal-cluster-state-")
os.environ["XDG_STATE_HOME"] = _state.name


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # pytest-timeout's signal mode breaks trio for all tests that follow; a cancel scope does not.
    for item in items:
        function = getattr(item, "obj", None)
        if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(function):
            marker = item.get_closest_marker("limit")
            item.obj = limited(function, marker.args[0] if marker else LIMIT)


def limited(function: Any, seconds: float) -> Any:
    """The same async test, failing after so many seconds."""

    @functools.wraps(function)
    async def test(*args: Any, **kwargs: Any) -> None:
        with trio.fail_after(seconds):
            await function(*args, **kwargs)

    return test
