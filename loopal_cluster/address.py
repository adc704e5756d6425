"""Where a message goes: ``agent`` or ``hub/agent``.

A name is 1 to 64 of ``A-Z a-z 0-9 . _ -``, so neither a separator, nor a quote, nor a control
character can occur in one. The grammar is Loopal's: split at the first ``/``.
"""

from __future__ import annotations

import re
from functools import lru_cache

from attrs import field

from loopal_cluster.errors import InvalidAddress
from loopal_cluster.records import record

__all__ = ["MAX_ADDRESS", "Address", "check_name", "is_name", "sanitize_name"]

MAX_ADDRESS = 64 + 1 + 64
"""The characters of the longest address."""

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


def is_name(text: str) -> bool:
    """Whether it may name a hub or an agent."""
    return _NAME.fullmatch(text) is not None


def check_name(name: str, what: str = "name") -> str:
    """Return ``name`` if it may name a hub or an agent.

    Raises:
        InvalidAddress: it may not; the message quotes it and says what is allowed.
    """
    if _NAME.fullmatch(name):
        return name
    raise InvalidAddress(f"{what} {name[:80]!r} is not 1 to 64 of A-Z a-z 0-9 . _ -")


def sanitize_name(text: str) -> str:
    """Make a valid name out of any text, such as a machine's host name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-")[:64] or "hub"


@record(order=True)
class Address:
    """An agent, on a named hub or (``hub`` is None) wherever the reader looks first."""

    agent: str = field()
    """The agent's name on its hub."""
    hub: str | None = None
    """The hub's name, or None for a bare name."""

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read ``agent`` or ``hub/agent``.

        Raises:
            InvalidAddress: empty, a side missing, or a name with other characters than allowed.
        """
        hub, slash, agent = text.partition("/")
        if not slash:
            return cls(check_name(text, "agent name"))
        return cls(check_name(agent, "agent name"), check_name(hub, "hub name"))

    def on(self, hub: str | None) -> Address:
        """The same agent name, on another hub or (None) bare."""
        return self if hub == self.hub else _address(self.agent, hub)

    def __str__(self) -> str:
        return self.agent if self.hub is None else f"{self.hub}/{self.agent}"


# Of every message that a MetaHub passes on, one is asked for, and they are always the same few.
_address = lru_cache(maxsize=4096)(Address)
