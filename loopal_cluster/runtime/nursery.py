"""A nursery whose children are agents, on any hub.

What trio's nursery is for tasks, with the same rules: the block ends when every child has; if one fails,
or the block raises or is cancelled, the others are cancelled, and *their* descendants with them, on
whatever hub; failures come out as an ``ExceptionGroup``.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import trio

from loopal_cluster.errors import AgentLost, ClusterError
from loopal_cluster.outcomes import unwrap

if TYPE_CHECKING:
    from loopal_cluster.runtime.client import AgentHandle, ClusterClient

__all__ = ["AgentNursery", "new_agent_name", "open_agent_nursery"]

CANCEL_TIMEOUT = 30.0
"""Seconds for a hub to confirm that an agent is gone; the hub itself kills it much sooner."""


class AgentNursery:
    """Made by ``ClusterClient.open_agents``."""

    def __init__(self, client: ClusterClient, nursery: trio.Nursery) -> None:
        self._client = client
        self._nursery = nursery
        self.cancel_scope = nursery.cancel_scope
        """Cancel it to stop every child and end the block."""

    async def spawn(
        self,
        agent_type: str | None = None,
        prompt: str = "",
        *,
        hub: str | None = None,
        name: str | None = None,
        **options: Any,
    ) -> AgentHandle:
        """Start a child, as ``ClusterClient.spawn`` does. Its failure is the nursery's.

        If cancelled while the child is coming up, the child is stopped as well.
        """
        # Chosen here, because it is all there is to cancel the child by while it comes up.
        name = name or new_agent_name(agent_type)
        try:
            handle = await self._client.spawn(agent_type, prompt, hub=hub, name=name, **options)
        except trio.Cancelled:
            address = name if hub is None else f"{hub}/{name}"
            with trio.move_on_after(CANCEL_TIMEOUT, shield=True):
                await _cancelled(self._client, address, None)
            raise
        self._nursery.start_soon(self._watch, handle, name=f"agent {handle.address}")
        return handle

    async def _watch(self, handle: AgentHandle) -> None:
        """Wait for a child; see that it is gone if we are cancelled first."""
        try:
            outcome = await handle.outcome()
        except trio.Cancelled:
            with trio.move_on_after(CANCEL_TIMEOUT, shield=True):
                await _cancelled(self._client, str(handle.address), handle.id)
            raise
        except ClusterError as error:
            raise AgentLost(str(handle.address), str(error)) from error
        unwrap(str(handle.address), outcome)


def new_agent_name(agent_type: str | None) -> str:
    """A name for an agent whose spawner does not care."""
    return f"{agent_type or 'agent'}-{uuid.uuid4().hex[:8]}"


async def _cancelled(client: ClusterClient, address: str, agent_id: str | None) -> None:
    """Stop an agent, and return when it is gone or nobody can say any more."""
    try:
        await client.cancel(address, "its nursery was cancelled", agent_id=agent_id)
    except ClusterError:
        return  # it never was, it has ended long ago, or its hub is lost: all the same here


@asynccontextmanager
async def open_agent_nursery(client: ClusterClient) -> AsyncIterator[AgentNursery]:
    """Run agents for the length of the block, and not longer."""
    async with trio.open_nursery() as nursery:
        yield AgentNursery(client, nursery)
