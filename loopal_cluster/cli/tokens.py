"""The secret of a cluster, as its users give it: in a file, or in the environment, or as it was made here before.

A token file has one token a line. All are valid, and the first is what is sent; so a token is changed without an
outage: add the new one at the MetaHub, put it first everywhere, remove the old one. The file is read anew whenever
a token is needed.
"""

from __future__ import annotations

import logging
import os
import secrets
import stat
import tempfile
from collections.abc import Sequence
from pathlib import Path

from attrs import field

from loopal_cluster.errors import ConfigError
from loopal_cluster.records import define

__all__ = [
    "NO_TOKEN",
    "TOKEN_VARIABLE",
    "TokenFile",
    "given_token",
    "kept_token",
    "read_token",
    "read_tokens",
    "state_directory",
]

logger = logging.getLogger(__name__)

TOKEN_VARIABLE = "LOOPAL_META_HUB_TOKEN"

NO_TOKEN = f"no token was given: set {TOKEN_VARIABLE}, or use --token-file"
"""What to do about a refusal."""

MAX_BYTES = 65536
"""Of a token file; a longer one is something else."""


@define(eq=False)
class TokenFile:
    """A token file that is read again when it has changed. One that then cannot be read leaves all as it was.

    Raises:
        ConfigError: it cannot be read the first time.
    """

    path: Path
    _tokens: tuple[str, ...] = field(init=False, repr=False)
    _seen: object = field(init=False, repr=False)
    _trouble: str = field(default="", init=False)

    def __attrs_post_init__(self) -> None:
        self._seen = self._look()
        self._tokens = read_tokens(self.path)

    def __call__(self) -> Sequence[str]:
        """The tokens that there are now."""
        seen = self._look()
        if seen != self._seen or self._trouble:
            self._seen = seen
            try:
                self._tokens, self._trouble = read_tokens(self.path), ""
            except ConfigError as error:
                if str(error) != self._trouble:
                    logger.warning("%s; what was in it before is used on", error)
                self._trouble = str(error)
        return self._tokens

    def _look(self) -> object:
        """What changes when the file does."""
        try:
            found = os.stat(self.path)
        except OSError as error:
            return error.errno
        return found.st_mtime_ns, found.st_size, found.st_ino, found.st_dev


def given_token(token_file: str | Path | None) -> TokenFile | str | None:
    """The token file, if one is named, or else the token in the environment.

    Raises:
        ConfigError: the file cannot be used.
    """
    return TokenFile(Path(token_file)) if token_file else os.environ.get(TOKEN_VARIABLE) or None


def read_token(path: str | Path) -> str:
    """The token to send.

    Raises:
        ConfigError: the file cannot be read, or is empty.
    """
    return read_tokens(path)[0]


def read_tokens(path: str | Path) -> tuple[str, ...]:
    """The tokens in a file, one a line, without the white space around them.

    Raises:
        ConfigError: the file cannot be read, or is empty, or too long to be one.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_BYTES + 1)
        tokens = tuple(token for line in content.decode().splitlines() if (token := line.strip()))
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise ConfigError(f"cannot read the token file {path}: {why}") from error
    if len(content) > MAX_BYTES:
        raise ConfigError(f"the token file {path} has more than {MAX_BYTES} bytes: is it one?")
    if not tokens:
        raise ConfigError(f"the token file {path} is empty")
    return tokens


# A token that was made here.


def state_directory(given: Path | None = None) -> Path:
    """Where this user's programs keep what they need at their next start.

    Raises:
        ConfigError: this user has no home.
    """
    if given is not None:
        return given
    base = os.environ.get("XDG_STATE_HOME", "")
    if os.path.isabs(base):  # others are to be ignored (XDG Base Directory Specification)
        return Path(base, "loopal-cluster")
    try:
        return Path.home() / ".local/state/loopal-cluster"
    except RuntimeError as error:
        raise ConfigError(f"there is no state directory: {error}") from error


def kept_token(directory: Path) -> TokenFile:
    """The token file of the MetaHubs of this user, with a token that is made if there is none yet.

    Raises:
        ConfigError: it cannot be kept there, or others can read it.
    """
    path = directory / "metahub-token"
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            _make(path)
        found = path.stat()
    except OSError as error:
        raise ConfigError(f"cannot keep a token in {directory}: {error.strerror}") from error
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise ConfigError(f"others can read the token file {path}: make it yours alone (chmod 600)")
    return TokenFile(path)


def _make(path: Path) -> None:
    """Write it aside and link it, so that of two MetaHubs that start together both use one."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".token.")  # mode 0600
    try:
        os.write(descriptor, f"{secrets.token_hex(16)}\n".encode())
        os.fsync(descriptor)
        os.link(temporary, path)
    except FileExistsError:
        pass
    finally:
        os.close(descriptor)
        os.unlink(temporary)
