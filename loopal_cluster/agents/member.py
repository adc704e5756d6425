"""Comes to a hub as one of its agents: for a program that the hub has not started.

The hub knows it by the name it registers with. Others can send it messages and ask it; what it spawns are
its children, and end with its connection. It is not told what to do: it has an inbox, and tools.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from loopal_cluster.agents.inbox import Inbox
from loopal_cluster.errors import ErrorCode, MethodNotFound, RemoteError
from loopal_cluster.links.alive import features_on, keep_alive, register
from loopal_cluster.links.background import open_background
from loopal_cluster.links.caller import Caller, OpenRequest, open_caller
from loopal_cluster.links.channels import FrameChannel
from loopal_cluster.links.cluster_client import ClusterClient
from loopal_cluster.messages import (
    OK,
    AgentSource,
    Control,
    DeliverAsk,
    DeliverEnvelope,
    Message,
    Protocol,
    Register,
    Role,
    Shutdown,
    Welcome,
)
from loopal_cluster.tools.mailbox import Mailbox
from loopal_cluster.tools.toolbox import Toolbox

__all__ = ["Member", "open_member"]


class Member(ClusterClient):
    """An agent that has come by itself. Made by ``open_member``."""

    def __init__(self, caller: Caller, welcome: Welcome, name: str, inbox: Inbox, mailbox: Mailbox) -> None:
        super().__init__(caller)
        self.name = welcome.name or name
        self._source = AgentSource(self.name)
        self._inbox = inbox
        self.hub = welcome.hub or "hub"
        self.closed = caller.closed
        """Set when the connection has ended; an agent that is stopped loses it, too."""
        self.tools = Toolbox(self, address=self.address, mailbox=mailbox)
        """What a model may do with the cluster."""

    def _for_ask(self) -> int | None:
        return self._inbox.for_ask(self._caller)

    @property
    def address(self) -> str:
        """Its address in the cluster."""
        return f"{self.hub}/{self.name}"


@asynccontextmanager
async def open_member(
    channel: FrameChannel, *, name: str, token: str, inbox: Inbox, mailbox: Mailbox
) -> AsyncIterator[Member]:
    """Register over a connected channel, and be an agent of that hub for the block.

    ``inbox`` gets what is sent to it, and ``mailbox`` reads that: they may be those of an earlier connection.

    Raises:
        NameTaken: another agent of the hub has the name.
        Unauthorized: the token is wrong.
        InvalidRequest: it is a MetaHub, which has no agents.
        ConnectionLost: the link ended.
    """
    desk = _Desk(inbox)
    async with (
        open_caller(channel, desk.on_request, desk.on_notification, dialled=True) as caller,
        open_background() as nursery,
    ):
        protocol = Protocol(1, features_on(channel))
        message = Register(name=name, token=token, role=Role.AGENT, protocol=protocol)
        welcome = await register(caller, message)
        nursery.start_soon(keep_alive, caller, channel, welcome)
        yield Member(caller, welcome, name, inbox, mailbox)


class _Desk:
    """Takes in what the hub brings."""

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox

    def on_request(self, message: Message[Any], request: OpenRequest) -> Any:
        match message:
            case DeliverEnvelope(envelope):
                self._inbox.put(envelope)
                return OK
            case DeliverAsk(envelope):
                self._inbox.put_ask(envelope, request)
                return None
            case Shutdown():
                return OK  # the hub closes the connection now
            case Control():
                raise RemoteError(
                    "this agent is not run by its hub, and takes no controls", ErrorCode.REFUSED
                )
            case _:
                raise MethodNotFound(f"unknown: {message.method}")

    def on_notification(self, message: Message[Any]) -> None:
        pass  # an interrupt: what it is doing, only its own program knows
