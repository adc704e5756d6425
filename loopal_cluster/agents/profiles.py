"""From a config file to a hub's settings and the agent types it runs.

The file is TOML with a table ``[hub]`` and a table ``[agents.NAME]`` for each type. It is read strictly:
whatever is unknown, missing or of a wrong type is refused with the file, the key and the fault, for a
misspelt ``permission`` must never become a silent default. Paths in it are relative to the file.
"""

from __future__ import annotations

import enum
import math
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from attrs import Factory, evolve, field, validators
from msgspec import Raw

from loopal_cluster.address import check_name
from loopal_cluster.agents.child import load_function
from loopal_cluster.agents.command import check_prompt_place
from loopal_cluster.agents.types import AgentType, CommandAgent, FunctionAgent, ProcessAgent, python_agent
from loopal_cluster.config import Policy
from loopal_cluster.errors import ClusterError, ConfigError
from loopal_cluster.records import record
from loopal_cluster.wire.strict import closed_converter, fault, read_object, read_str, within

__all__ = ["HubTable", "Profile", "load_profile"]


def _valid_name(_: Any, __: Any, name: str | None) -> None:
    if name is not None:
        check_name(name, "hub name")


@record
class HubTable:
    """The table ``[hub]``; what it does not say is None, or empty."""

    name: str | None = field(default=None, validator=_valid_name)
    """The hub's name in the cluster."""
    join: str | None = None
    """The MetaHub's address."""
    token_file: str | None = None
    """A file with the token for the MetaHub."""
    listen: str | None = None
    """Where to listen for clients, besides the unix socket."""
    capabilities: tuple[str, ...] = ()
    labels: Mapping[str, str] = Factory(dict)
    default_agent: str | None = None
    """The type that a spawn without a type gets."""
    permission: Policy = Policy.SUPERVISED
    permission_timeout: float | None = field(default=None, validator=validators.optional(validators.gt(0)))
    """Seconds for an operator to decide."""


@record
class Profile:
    """What a config file says."""

    hub: HubTable = HubTable()
    agents: Mapping[str, AgentType] = Factory(dict)
    """The types the hub runs."""


def load_profile(path: Path) -> Profile:
    """Read a config file, and import the functions of its agents that run in the hub.

    The file's directory is put on ``sys.path``, so that they can be modules beside it.

    Raises:
        ConfigError: one line that names the file, the key and the fault.
    """
    directory = path.absolute().parent
    text = _read(path)
    try:
        file: _File = _CONVERTER.structure(text, _File)
    except Exception as error:  # cattrs gathers whatever its hooks raise; all of it is about the file
        what, _, key = fault(error, "").rpartition(" @ ")
        raise ConfigError(f"{path}: {key.removeprefix('.') or 'top level'}: {what}") from None
    default = file.hub.default_agent
    if default is not None and default not in file.agents:
        known = ", ".join(file.agents) or "none"
        raise ConfigError(f"{path}: hub.default_agent: no agent type {default!r} (there are: {known})")
    return Profile(_relative_to(directory, file.hub), _agents(path, directory, file.agents))


# Agent types.


@record
class _Program:
    """A command line, of an agent whose protocol is ``command`` or ``process``."""

    command: tuple[str, ...]
    env: Mapping[str, str] = Factory(dict)
    cwd: str | None = None

    def __attrs_post_init__(self) -> None:
        if not self.command:
            raise ValueError("command is empty")


@record
class _Command(_Program):
    def __attrs_post_init__(self) -> None:
        _Program.__attrs_post_init__(self)
        check_prompt_place(self.command)

    def agent(self, directory: Path) -> AgentType:
        return CommandAgent(_argv(directory, self.command), self.env, _path(directory, self.cwd))


@record
class _Process(_Program):
    def agent(self, directory: Path) -> AgentType:
        return ProcessAgent(_argv(directory, self.command), self.env, _path(directory, self.cwd))


@record
class _Python:
    target: str
    """``module:name``."""
    process: bool = False
    """True: in a child process of its own; False: in the hub."""
    env: Mapping[str, str] = Factory(dict)
    cwd: str | None = None

    def __attrs_post_init__(self) -> None:
        if not all(self.target.partition(":")):
            raise ValueError(f"{self.target!r} is not of the form module:name")
        if not self.process and (self.env or self.cwd):
            raise ValueError("env and cwd need process = true: in the hub's process there is one of each")

    def agent(self, directory: Path) -> AgentType:
        if not self.process:
            return FunctionAgent(load_function(self.target))
        cwd = _path(directory, self.cwd)
        return python_agent(self.target, env=self.env, cwd=cwd, directory=str(directory))


class _Isolation(enum.Enum):
    NONE = "none"
    WORKTREE = "worktree"


@record
class _Acp:
    command: tuple[str, ...] = ()
    preset: str | None = None
    env: Mapping[str, str] = Factory(dict)
    cwd: str | None = None
    model: str | None = None
    mode: str | None = None
    asks: bool = False
    options: Mapping[str, str] = Factory(dict)
    auth: str | None = None
    isolation: _Isolation = _Isolation.NONE
    resume: bool = False
    allow_cluster_tools: bool = False

    def __attrs_post_init__(self) -> None:
        self.agent(Path())  # what the type itself refuses is a fault of the table

    def agent(self, directory: Path) -> AgentType:
        from loopal_cluster.acp.agent import AcpAgent  # not at the top: most hubs have none

        return AcpAgent(
            _argv(directory, self.command) if self.command else (),
            preset=self.preset,
            env=self.env,
            cwd=_path(directory, self.cwd),
            model=self.model,
            mode=self.mode,
            asks=self.asks,
            options=self.options,
            auth=self.auth,
            worktree=self.isolation is _Isolation.WORKTREE,
            resume=self.resume,
            allow_cluster_tools=self.allow_cluster_tools,
        )


_Agent = _Command | _Process | _Python | _Acp
_PROTOCOLS: dict[str, type[_Agent]] = {
    "command": _Command,
    "python": _Python,
    "process": _Process,
    "acp": _Acp,
}


@record
class _File:
    hub: HubTable = HubTable()
    agents: Mapping[str, _Agent] = Factory(dict)

    def __attrs_post_init__(self) -> None:
        for name in self.agents:
            check_name(name, "agent type")


def _agents(path: Path, directory: Path, tables: Mapping[str, _Agent]) -> dict[str, AgentType]:
    if str(directory) not in sys.path:
        sys.path.insert(0, str(directory))
    agents = {}
    for name, table in tables.items():
        try:
            agents[name] = table.agent(directory)
        except ClusterError as error:
            raise ConfigError(f"{path}: agents.{name}: {error}") from error
        except Exception as error:  # the author's module may raise anything when it is imported
            raise ConfigError(f"{path}: agents.{name}: {type(error).__name__}: {error}") from error
    return agents


# Paths.


def _relative_to(directory: Path, hub: HubTable) -> HubTable:
    return evolve(hub, token_file=_path(directory, hub.token_file))


def _path(directory: Path, path: str | None) -> str | None:
    return None if path is None else str(directory / Path(path).expanduser())


def _argv(directory: Path, command: tuple[str, ...]) -> tuple[str, ...]:
    # Like a shell: a name is looked up on PATH, only a path is a path.
    program, *arguments = command
    return (str(directory / program) if "/" in program else program, *arguments)


# Reading.


def _read(path: Path) -> Raw:
    """The file as JSON text, which is what the strict hooks read."""
    try:
        table = tomllib.loads(path.read_text(), parse_float=_finite)
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise ConfigError(f"cannot read the config file {path}: {why}") from error
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from None
    return Raw(msgspec.json.encode(table))


def _finite(text: str) -> float:
    # JSON has no word for the others.
    if math.isfinite(number := float(text)):
        return number
    raise ValueError(f"{text} is not a number to count with")


def _agent(text: Raw, _: Any) -> Any:
    values = read_object(text)
    if "protocol" not in values:
        raise ValueError(f"protocol is required: one of {', '.join(_PROTOCOLS)}")
    protocol = within("protocol", read_str, values.pop("protocol"), str)
    if (cls := _PROTOCOLS.get(protocol)) is None:
        raise ValueError(f"protocol {protocol!r} is none of {', '.join(_PROTOCOLS)}")
    return _CONVERTER.structure(Raw(msgspec.json.encode(values)), cls)


_CONVERTER = closed_converter("key")
_CONVERTER.register_structure_hook_func(lambda type_: type_ == _Agent, _agent)
