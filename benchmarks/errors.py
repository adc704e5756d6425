"""What benchmarks fail with."""

from __future__ import annotations

__all__ = ["BenchmarkError"]


class BenchmarkError(Exception):
    """Something cannot be measured; the message is one line and says why."""
