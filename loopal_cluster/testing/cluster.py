"""A whole cluster in one process, over memory channels."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

import trio
from attrs import define, field

from loopal_cluster.agents.context import AgentFunction
from loopal_cluster.agents.types import AgentType
from loopal_cluster.config import Limits, Policy, Timeouts
from loopal_cluster.errors import ConnectionLost
from loopal_cluster.runtime.channels import FrameChannel, record_pair
from loopal_cluster.runtime.hub import Hub, open_hub
from loopal_cluster.runtime.meta_hub import MetaHub, open_meta_hub

__all__ = ["TestCluster", "open_test_cluster"]


@define
class TestCluster:
    """A MetaHub and its hubs, in one process. Made by ``open_test_cluster``."""

    __test__ = False  # it is not a test, whatever pytest makes of its name

    meta_hub: MetaHub
    hubs: dict[str, Hub]
    """By name: ``hub-a``, ``hub-b``, ..."""
    _pair: Callable[[], tuple[FrameChannel, FrameChannel]]
    _links: dict[str, FrameChannel] = field(factory=dict)
    _reachable: bool = True

    def __getitem__(self, name: str) -> Hub:
        return self.hubs[name]

    async def dial(self, hub: str) -> FrameChannel:
        """What a hub uses to reach the MetaHub."""
        if not self._reachable:
            raise ConnectionLost("the MetaHub is cut off")
        here, there = self._pair()
        self._links[hub] = here
        self.meta_hub.attach(there)
        return here

    async def cut(self, hub: str) -> None:
        """End a hub's connection to the MetaHub, as a broken cable would. The hub dials again."""
        await trio.aclose_forcefully(self._links[hub])

    def isolate(self, *, reachable: bool = False) -> None:
        """Let nobody dial the MetaHub any more, or (``reachable``) again."""
        self._reachable = reachable


@asynccontextmanager
async def open_test_cluster(
    hubs: int | tuple[str, ...] = 3,
    *,
    agents: Mapping[str, AgentType | AgentFunction] | None = None,
    default_agent: str | None = None,
    policy: Policy = Policy.SUPERVISED,
    timeouts: Timeouts | None = None,
    limits: Limits | None = None,
    pair: Callable[[], tuple[FrameChannel, FrameChannel]] = record_pair,
) -> AsyncIterator[TestCluster]:
    """Run a MetaHub and hubs for the length of the block, all joined when it begins.

    ``hubs`` is how many (they are named ``hub-a``, ``hub-b``, ...), or their names. Every hub runs the
    same ``agents``. ``pair`` makes the links: ``record_pair``, or ``byte_pair`` to go through the codec.
    """
    names = hubs if isinstance(hubs, tuple) else tuple(f"hub-{chr(97 + n)}" for n in range(hubs))
    async with AsyncExitStack() as stack:
        meta_hub = await stack.enter_async_context(open_meta_hub(None, timeouts=timeouts, limits=limits))
        cluster = TestCluster(meta_hub, {}, pair)
        for name in names:

            async def dial(name: str = name) -> FrameChannel:
                return await cluster.dial(name)

            cluster.hubs[name] = await stack.enter_async_context(
                open_hub(
                    name,
                    agents=agents,
                    default_agent=default_agent,
                    join=dial,
                    meta_token=meta_hub.token,
                    policy=policy,
                    timeouts=timeouts,
                    limits=limits,
                )
            )
        yield cluster
