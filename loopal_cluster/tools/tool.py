"""What a tool is: a record of its arguments, with a method that does it.

The class is the tool, an instance is one call of it. Fields are made with ``arguments.argument``. A
``ToolContext`` says for whom it is used, and in what time.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from typing import Any, ClassVar, Final

import trio
from attrs import Factory

from loopal_cluster.links.cluster_client import ClusterClient
from loopal_cluster.records import record
from loopal_cluster.tools.mailbox import Mailbox

__all__ = ["LONGEST_WAIT", "PermissionLevel", "Tool", "ToolContext", "ToolResult"]

LONGEST_WAIT: Final = 600.0
"""Seconds that a model may wait for something in one call; the base dialect's bound."""


class PermissionLevel(enum.Enum):
    """What a human may want to be asked before a tool is used; the base dialect's words."""

    READ_ONLY = "ReadOnly"
    """Only reads: never asked."""
    SUPERVISED = "Supervised"
    """Asked, if the agent is supervised."""


@record
class ToolResult:
    """What came of a call."""

    text: str
    """For a model to read; of an error: what was wrong, and what is allowed."""
    data: Mapping[str, Any] = Factory(dict)
    """The same for a program, as plain JSON values; empty for an error without more to say."""
    is_error: bool = False

    @classmethod
    def error(cls, text: str, data: Mapping[str, Any] | None = None) -> ToolResult:
        """What went wrong, in words that a model cannot take for a result."""
        return cls(f"Tool error: {text}", data or {}, is_error=True)


@record
class ToolContext:
    """Who uses a tool, and until when."""

    client: ClusterClient
    """What it is done over: its sender, and the parent of what it starts."""
    mailbox: Mailbox | None = None
    """What others have sent to whoever uses it; None if nobody can."""
    deadline: float = math.inf
    """When the call must be over, on trio's clock. What waits for longer returns then, and says how to go on."""
    address: str | None = None
    """Where others find whoever uses it; None if they cannot."""

    @property
    def time_left(self) -> float:
        """Seconds."""
        return max(0.0, self.deadline - trio.current_time())

    @property
    def is_bounded(self) -> bool:
        """Whether there is such a deadline."""
        return self.deadline < math.inf


@record
class Tool:
    """One call of a tool."""

    tool_name: ClassVar[str]
    description: ClassVar[str]
    """For a model that has never heard of us."""
    permission: ClassVar[PermissionLevel]
    only_looks: ClassVar = False
    """Whether using it changes nothing."""
    destroys: ClassVar = False
    """Whether work may be lost by it."""
    needs_mailbox: ClassVar = False
    """Whether it is of use only to those who can be sent messages."""

    @property
    def level(self) -> PermissionLevel:
        """What a human may want to be asked before this call."""
        return self.permission

    async def run(self, context: ToolContext) -> ToolResult:
        """Do it.

        Raises:
            ClusterError: it was refused; the toolbox makes an error result of it.
        """
        raise NotImplementedError
