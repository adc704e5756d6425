"""The tokens of a cluster, as a program gives them: one, or a function that says which there are now.

With the latter they can be changed without an outage: a new one is added at the MetaHub, then each hub brings it,
then the old one is removed. The function is called whenever a token is needed. If it fails, because the file that it
reads is just being replaced, a hub dials again, and a MetaHub goes on with the tokens that it knows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from loopal_cluster.errors import ConfigError

__all__ = ["Tokens", "tokens_of"]

Tokens = str | Callable[[], Sequence[str]]
"""A MetaHub takes each of them, a hub brings the first."""


def tokens_of(tokens: Tokens) -> tuple[str, ...]:
    """Those that there are now.

    Raises:
        ConfigError: there are none, or they cannot be read.
    """
    if isinstance(tokens, str):
        return (tokens,)
    try:
        known = tuple(filter(None, tokens()))  # an empty one, as of a blank line, would let everybody in
    except OSError as error:
        raise ConfigError(f"cannot read the tokens: {error.strerror or error}") from error
    if not known:
        raise ConfigError("there is no token: none was given")
    return known
