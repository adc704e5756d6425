"""The secret of a cluster, as its users give it: in a file, or in the environment."""

from __future__ import annotations

import os
from pathlib import Path

from loopal_cluster.errors import ConfigError

__all__ = ["NO_TOKEN", "TOKEN_VARIABLE", "given_token", "read_token"]

TOKEN_VARIABLE = "LOOPAL_META_HUB_TOKEN"

NO_TOKEN = f"no token was given: set {TOKEN_VARIABLE}, or use --token-file"
"""What to do about a refusal."""


def given_token(token_file: str | Path | None) -> str | None:
    """The token in the file, if one is named, or else in the environment.

    Raises:
        ConfigError: the file cannot be used.
    """
    return read_token(token_file) if token_file else os.environ.get(TOKEN_VARIABLE) or None


def read_token(path: str | Path) -> str:
    """The token in a file, without the white space around it.

    Raises:
        ConfigError: the file cannot be read, or is empty.
    """
    try:
        token = Path(path).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise ConfigError(f"cannot read the token file {path}: {why}") from error
    if not token:
        raise ConfigError(f"the token file {path} is empty")
    return token
