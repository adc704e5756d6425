"""How commands find the hubs of this user on this machine.

Each hub has a file ``NAME.json`` in the user's runtime directory, readable by nobody else: it says where
the hub listens, and the token. The file is also the claim on the name: it is there, without addresses,
while the hub starts, and locked for as long as the hub's process has it open. A file that nobody has locked
is left over from a crash, and removed by whoever comes across it. The lock, not the process id, says who lives:
ids are used again, in a container every hub may have the id 1, and a zombie still has its own.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from attrs import field

from loopal_cluster.errors import ConfigError, ConnectionLost, NameTaken
from loopal_cluster.records import define, record

__all__ = [
    "Claim",
    "LocalHub",
    "claim_name",
    "file_of",
    "find_hub",
    "known_token",
    "local_hubs",
    "runtime_directory",
]


@record
class LocalHub:
    """A hub that runs on this machine, for this user."""

    hub: str
    """Its name."""
    pid: int
    unix: str | None
    """The path of its socket; None while it starts."""
    tcp: str | None
    """``HOST:PORT``, if it listens there too."""
    token: str = field(repr=False)

    @property
    def address(self) -> str:
        """Where to connect."""
        return f"unix:{self.unix}"


def find_hub() -> LocalHub:
    """The one hub that runs here.

    Raises:
        ConnectionLost: there is none.
        ConfigError: there are several; the message names their addresses.
    """
    hubs = local_hubs()
    if not hubs:
        raise ConnectionLost(
            "no hub runs here: start one with 'loopal-cluster hub', or use --connect ADDRESS"
        )
    if len(hubs) > 1:
        choices = ", ".join(f"{hub.hub} (--connect {hub.address})" for hub in hubs)
        raise ConfigError(f"several hubs run here: {choices}")
    return hubs[0]


def file_of(hub: str) -> Path:
    """The file by which a hub of ours is found."""
    return _file(runtime_directory(), hub)


def known_token(address: str) -> str | None:
    """The token of the hub of ours that listens at this address, if there is one."""
    hubs = (hub for hub in local_hubs() if address in (hub.address, hub.tcp))
    return next((hub.token for hub in hubs), None)


def local_hubs() -> list[LocalHub]:
    """The hubs that run here and can be connected to, by name. What dead ones left is removed."""
    directory = runtime_directory()
    with _locked(directory):
        live = [hub for path in sorted(directory.glob("*.json")) if (hub := _read_live(path))]
    return [hub for hub in live if hub.unix]


@define
class Claim:
    """A hub's name on this machine, its own until ``claim_name``'s block ends."""

    name: str
    _directory: Path
    _locked: int | None = None
    """The descriptor of the file by which the hub is found. It stays open, for the lock ends with it."""

    @property
    def socket(self) -> str:
        """The address for the hub to listen on."""
        return f"unix:{self._directory / self.name}.sock"

    def publish(self, addresses: Sequence[str], token: str) -> None:
        """Let the hub be found: it is up."""
        unix = next((a.removeprefix("unix:") for a in addresses if a.startswith("unix:")), None)
        tcp = next((a for a in addresses if not a.startswith("unix:")), None)
        with _locked(self._directory):
            self._write(unix=unix, tcp=tcp, token=token)

    def _write(self, **what: str | None) -> None:
        # Written aside and renamed, so that a reader sees all of it or nothing; mkstemp makes it 0600.
        text = json.dumps({"pid": os.getpid(), "hub": self.name, **what})
        descriptor, temporary = tempfile.mkstemp(dir=self._directory, prefix=f".{self.name}.")
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        os.write(descriptor, f"{text}\n".encode())
        os.replace(temporary, _file(self._directory, self.name))
        self._unlock()
        self._locked = descriptor

    def _unlock(self) -> None:
        if self._locked is not None:
            os.close(self._locked)


@contextmanager
def claim_name(name: str) -> Iterator[Claim]:
    """Have a hub name to oneself, on this machine and among this user's hubs, for the block.

    Raises:
        NameTaken: a live hub has it.
        ConfigError: the runtime directory cannot be used.
    """
    directory = runtime_directory()
    claim = Claim(name, directory)
    with _locked(directory):
        if (other := _read_live(_file(directory, name))) is not None:
            raise NameTaken(f"a hub named '{name}' runs here already (process {other.pid})")
        claim._write(unix=None, tcp=None, token="")
    try:
        yield claim
    finally:
        with _locked(directory):
            _file(directory, name).unlink(missing_ok=True)
            claim._unlock()


def runtime_directory() -> Path:
    """This user's directory for sockets and discovery files; made if need be.

    Raises:
        ConfigError: it is not ours alone, or cannot be made.
    """
    base = os.environ.get("XDG_RUNTIME_DIR", "")
    if os.path.isdir(base):
        directory = Path(base, "loopal-cluster")
    else:
        directory = Path(tempfile.gettempdir(), f"loopal-cluster-{os.getuid()}")
    try:
        with contextlib.suppress(FileExistsError):
            directory.mkdir(mode=0o700)
        found = directory.lstat()
    except OSError as error:
        raise ConfigError(f"cannot use the runtime directory {directory}: {error.strerror}") from error
    # In a shared /tmp anybody can make a directory of that name first, and would read our tokens.
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise ConfigError(f"the runtime directory {directory} is not a directory of ours with mode 0700")
    return directory


def _file(directory: Path, name: str) -> Path:
    return directory / f"{name}.json"


def _read_live(path: Path) -> LocalHub | None:
    """The hub whose file this is; if it is dead, or the file is none of ours, remove what is left."""
    try:
        with path.open() as file:
            if _is_locked(file):
                return _parse(json.load(file))
    except FileNotFoundError:
        return None
    path.unlink(missing_ok=True)
    path.with_suffix(".sock").unlink(missing_ok=True)
    return None


def _parse(found: Any) -> LocalHub:
    return LocalHub(found["hub"], int(found["pid"]), found["unix"], found["tcp"], found["token"])


def _is_locked(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Be the only process that reads or changes the files; held for microseconds."""
    with open(directory / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
