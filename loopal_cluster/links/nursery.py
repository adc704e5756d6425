"""A nursery whose children are agents, on any hub.

What trio's nursery is for tasks, with the same rules: the block ends when every child has; if one fails,
or the block raises or is cancelled, the others are cancelled, and *their* descendants with them, on
whatever hub; failures come out as an ``ExceptionGroup``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, TypedDict, Unpack

import trio

from loopal_cluster.errors import AgentLost, ClusterError
from loopal_cluster.outcomes import unwrap

if TYPE_CHECKING:
    from loopal_cluster.links.cluster_client import AgentHandle, ClusterClient

__all__ = ["AgentNursery", "SpawnOptions", "open_agent_nursery"]

DEADLINE_MARGIN = 1.0
"""Seconds that a child has longer than the block, which is to end it itself and to say why."""

CANCEL_TIMEOUT = 30.0
"""Seconds for a hub to confirm that an agent is gone; the hub itself kills it much sooner."""


class SpawnOptions(TypedDict, total=False):
    """What ``ClusterClient.spawn`` takes besides; another option is a ``TypeError`` there."""

    hub: str | None
    name: str | None
    persistent: bool
    detached: bool
    notify_parent: bool
    model: str | None
    permission_mode: str | None
    cwd: str | None
    idle_limit: float | None


class AgentNursery:
    """Made by ``ClusterClient.open_agents``."""

    def __init__(self, client: ClusterClient, nursery: trio.Nursery) -> None:
        self._deadline = trio.current_effective_deadline()
        self._client = client
        self._nursery = nursery
        self.cancel_scope = nursery.cancel_scope
        """Cancel it to stop every child and end the block."""

    async def spawn(
        self,
        agent_type: str | None = None,
        prompt: str = "",
        *,
        time_limit: float | None = None,
        **options: Unpack[SpawnOptions],
    ) -> AgentHandle:
        """Start a child, as ``ClusterClient.spawn`` does. Its failure is the nursery's.

        If a cancel scope around the block has a deadline, that travels with it, so that the child ends
        even if nobody can reach it any more; ``time_limit`` can only make that sooner.
        """
        left = self._deadline - trio.current_time() + DEADLINE_MARGIN
        limit = left if time_limit is None else min(left, time_limit)
        handle = await self._client.spawn(agent_type, prompt, time_limit=limit, **options)
        self._nursery.start_soon(self._watch, handle, name=f"agent {handle.address}")
        return handle

    async def _watch(self, handle: AgentHandle) -> None:
        """Wait for a child; see that it is gone if we are cancelled first."""
        try:
            outcome = await handle.outcome()
        except trio.Cancelled:
            # Refused, it never was, or has ended long ago, or its hub is lost: all the same here.
            with trio.move_on_after(CANCEL_TIMEOUT, shield=True), suppress(ClusterError):
                await handle.cancel("its nursery was cancelled")
            raise
        except ClusterError as error:
            raise AgentLost(str(handle.address), str(error)) from error
        unwrap(str(handle.address), outcome)


@asynccontextmanager
async def open_agent_nursery(client: ClusterClient) -> AsyncIterator[AgentNursery]:
    """Run agents for the length of the block, and not longer."""
    async with trio.open_nursery() as nursery:
        yield AgentNursery(client, nursery)
