"""The tools of a program that is a member of the cluster whenever it can be.

An MCP client starts its servers once, and its model knows nothing of hubs that come and go. So this joins in
the background, and joins again when the connection is lost; a tool that is used meanwhile says why it cannot
work. What had been received and not read is kept. If the cluster stops this agent, what it had spawned and
its open calls end; then it is back, for what it is, a human's program, only that human can end.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any

import trio

from loopal_cluster.address import sanitize_name
from loopal_cluster.agents.inbox import Inbox
from loopal_cluster.agents.member import Member, open_member
from loopal_cluster.config import Limits
from loopal_cluster.errors import ClusterError, NameTaken
from loopal_cluster.links.channels import FrameChannel
from loopal_cluster.tools.mailbox import Mailbox
from loopal_cluster.tools.tool import Tool, ToolResult
from loopal_cluster.tools.toolbox import TOOLS

__all__ = ["Dial", "Joining"]

PATIENCE = 5.0
"""Seconds that a call waits for a connection which is being made."""
PAUSE, LONGEST_PAUSE = 0.1, 2.0
"""Seconds between two attempts to join: doubled each time."""
NAMES_TRIED = 100
"""So many clients of one kind can be members of one hub, with a number."""

Dial = Callable[[], Awaitable[tuple[FrameChannel, str]]]
"""Connects to the hub; the connection and the token to register with, or raises ``ClusterError``."""


class Joining:
    """The tools of a member; ``run`` must be a task meanwhile."""

    tools: Mapping[str, type[Tool]] = {tool.tool_name: tool for tool in TOOLS}

    def __init__(self, dial: Dial, name: str | None = None) -> None:
        self._dial = dial
        self._name = name
        self._default = "mcp-client"
        self._introduced = trio.Event()
        self._inbox = Inbox(Limits().inbox)
        self._mailbox = Mailbox(self._inbox)
        self._member: Member | None = None
        self._changed = trio.lowlevel.ParkingLot()
        self._why_not = "it has not been reached yet"

    def introduce(self, client: str) -> None:
        """Say what the client calls itself: that is its name here, if it was not given another."""
        if not self._introduced.is_set():
            self._default = sanitize_name(client.lower())[:59]  # leaves room for a number
            self._introduced.set()

    async def call(
        self, name: str, arguments: Mapping[str, Any] | str = "", *, time_limit: float
    ) -> ToolResult:
        """Use a tool, as soon as we are a member."""
        with trio.move_on_after(PATIENCE):
            while self._member is None:
                await self._changed.park()
        if self._member is None:
            return ToolResult.error(
                f"{name}: no connection to the hub: {self._why_not}; trying again meanwhile"
            )
        return await self._member.tools.call(name, arguments, time_limit=time_limit)

    async def run(self) -> None:
        """Join, and join again; for ever."""
        await self._introduced.wait()
        pause = PAUSE
        while True:
            joined_at = trio.current_time()
            try:
                await self._be_member()
            except (ClusterError, OSError) as error:
                self._why_not = str(error)
            # What fails at once need not be tried so often; one that lasted was a good connection.
            lasted = trio.current_time() - joined_at > LONGEST_PAUSE
            pause = PAUSE if lasted else min(2 * pause, LONGEST_PAUSE)
            await trio.sleep(pause)

    async def _be_member(self) -> None:
        for name in self._names():
            channel, token = await self._dial()
            try:
                async with open_member(
                    channel, name=name, token=token, inbox=self._inbox, mailbox=self._mailbox
                ) as member:
                    self._member = member
                    self._changed.unpark_all()
                    await member.closed.wait()
                    self._why_not = "the connection was lost"
                    return
            except NameTaken:
                if name == self._name:
                    raise
            finally:
                self._member = None
        raise NameTaken(
            f"the hub has {NAMES_TRIED} agents named '{self._default}': choose another with --name"
        )

    def _names(self) -> Iterator[str]:
        if self._name is not None:
            yield self._name
            return
        yield self._default
        for number in range(2, NAMES_TRIED + 1):
            yield f"{self._default}-{number}"
