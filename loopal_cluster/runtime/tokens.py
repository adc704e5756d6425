"""The tokens of a cluster, as a program gives them: one, or a function that says which there are now.

With the latter they can be changed without an outage: a new one is added at the MetaHub, then each hub brings it,
then the old one is removed. The function is called whenever a token is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

__all__ = ["Tokens", "tokens_of"]

Tokens = str | Callable[[], Sequence[str]]
"""A MetaHub takes each of them, a hub brings the first."""


def tokens_of(tokens: Tokens) -> tuple[str, ...]:
    """Those that there are now."""
    return (tokens,) if isinstance(tokens, str) else tuple(tokens())
