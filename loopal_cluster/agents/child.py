"""The child's half: make a Python function an agent executable, in three lines::

    from loopal_cluster import serve_agent

    serve_agent(my_async_function)

``python -P -m loopal_cluster.agents MODULE:NAME [DIRECTORY]`` does the same for a function that is only named.
"""

from __future__ import annotations

import importlib
import os
import sys

import trio

from loopal_cluster.agents.context import AgentFunction
from loopal_cluster.agents.session import serve_session
from loopal_cluster.config import Limits
from loopal_cluster.errors import ConfigError
from loopal_cluster.links.channels import StreamChannel
from loopal_cluster.links.pipes import ReadPipe

__all__ = ["claim_stdio", "load_function", "main", "serve_agent"]


def serve_agent(function: AgentFunction) -> None:
    """Be the agent ``function`` to the hub that started this process; return when it has ended.

    Standard input and output carry the protocol. What the program prints goes to standard error
    instead, so a stray ``print`` cannot break it.
    """
    hub_in, hub_out = claim_stdio()
    trio.run(_serve, function, hub_in, hub_out)


def claim_stdio() -> tuple[int, int]:
    """Have standard input and output for a protocol, as two other descriptors.

    Instead, what is printed from now on goes to standard error, and there is nothing to read.
    """
    ours = os.dup(0), os.dup(1)
    os.dup2(2, 1)
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    return ours


async def _serve(function: AgentFunction, hub_in: int, hub_out: int) -> None:
    receiver, sender = ReadPipe(trio.lowlevel.FdStream(hub_in)), trio.lowlevel.FdStream(hub_out)
    limits = Limits()
    await serve_session(StreamChannel(receiver, sender, limits.line_bytes), function, limits=limits)


def load_function(target: str) -> AgentFunction:
    """Import ``module:name``.

    Raises:
        ConfigError: it is not of that form, or there is no such module or function.
    """
    module_name, colon, name = target.partition(":")
    if not colon or not module_name or not name:
        raise ConfigError(f"{target!r} is not of the form module:name")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ConfigError(f"cannot import module {module_name!r} of {target!r}: {error}") from error
    function = getattr(module, name, None)
    if not callable(function):
        raise ConfigError(f"module {module_name!r} has no function {name!r}")
    checked: AgentFunction = function
    return checked


def main() -> None:
    """``python -P -m loopal_cluster.agents MODULE:NAME [DIRECTORY]``.

    The module is an installed one or in that directory, never where the agent works.
    """
    if len(sys.argv) not in (2, 3):
        sys.exit("usage: python -P -m loopal_cluster.agents MODULE:NAME [DIRECTORY]")
    sys.path[:0] = sys.argv[2:]
    try:
        function = load_function(sys.argv[1])
    except ConfigError as error:
        sys.exit(f"error: {error}")
    serve_agent(function)
