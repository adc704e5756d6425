"""The methods of the Agent Client Protocol that a cluster agent offers to an editor.

``Editor`` is an operator at a hub or a MetaHub on behalf of the human in front of an editor. It decides only about
the agents that the editor has started, and those that these have started in turn: another agent's question is left
to another operator, since some editors allow everything without looking.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import trio

from loopal_cluster import __version__
from loopal_cluster.acp.rpc import Refused, RpcPeer, open_peer
from loopal_cluster.address import Address
from loopal_cluster.editor.session import Session
from loopal_cluster.editor.updates import prompt_text
from loopal_cluster.errors import ClusterError, ConnectionLost, NoOperator, RemoteError
from loopal_cluster.links.background import open_background
from loopal_cluster.links.client import Client, EventStream
from loopal_cluster.links.logs import get_logger
from loopal_cluster.messages import ClusterEvent, Decision, Permission
from loopal_cluster.wire.jsonrpc import INTERNAL_ERROR, INVALID_PARAMS, METHOD_NOT_FOUND

__all__ = ["Editor"]

PROTOCOL = 1
Params = dict[str, Any]
CLOSE_TIMEOUT = 20.0
"""Seconds for the agents of an editor that has gone to be gone, too; their hubs kill them long before."""
GENERATIONS = 32
"""How far up an agent's parents are looked for: hubs allow fewer."""

log = get_logger(__name__)


class Editor:
    """One editor, connected on standard input and output or whatever carries lines."""

    def __init__(self, agent_type: str | None, hub: str | None, *, local: bool = False) -> None:
        """Offer agents of this type (None: the hub's default), on this hub (None: the one connected to).

        ``local``: hub and editor are on one machine, so the agents can work in the editor's directory.
        """
        self._agent_type = agent_type
        self._hub = hub
        self._local = local
        self._sessions: dict[str, Session] = {}
        self._client: Client
        self._peer: RpcPeer
        self._events: EventStream
        self._methods: dict[str, Callable[[Params], Awaitable[Params]]] = {
            "initialize": self._initialize,
            "session/new": self._new_session,
            "session/prompt": self._prompt,
            "session/close": self._close_session,
        }

    async def serve(
        self, client: Client, receiver: trio.abc.ReceiveStream, sender: trio.abc.SendStream
    ) -> None:
        """Serve the editor until it has closed its end; then all its agents are ended.

        Raises:
            ConnectionLost: the hub has gone.
        """
        self._client = client
        self._events = await client.subscribe()
        async with (
            open_peer(receiver, sender, self._on_request, self._on_notification) as self._peer,
            open_background() as nursery,
        ):
            over = trio.Event()
            nursery.start_soon(self._show_events)
            nursery.start_soon(_set_after, over, self._peer.closed)
            nursery.start_soon(_set_after, over, client.closed)
            try:
                await over.wait()
            finally:
                with trio.move_on_after(CLOSE_TIMEOUT, shield=True):
                    await self._close_all()
        if client.closed.is_set():
            raise ConnectionLost("the connection to the hub has ended")

    async def on_permission(self, permission: Permission) -> Decision:
        """Ask the human, if it is about an agent of this editor's.

        Raises:
            NoOperator: it is not, or the human has not decided.
        """
        # Whatever waits for an operator is shown to us as soon as we are one, which is before ``serve``.
        session = await self._session_above(permission.agent_name) if self._sessions else None
        if session is None:
            raise NoOperator("only about its own agents does an editor decide")
        self._client.acknowledge(permission)
        return await session.decide(permission)

    # Methods.

    async def _on_request(self, method: str, params: Any) -> Any:
        handle = self._methods.get(method)
        if handle is None:
            raise Refused(METHOD_NOT_FOUND, f"unknown method {method!r}")
        if not isinstance(params, dict):
            raise Refused(INVALID_PARAMS, f"{method}: params must be an object")
        try:
            return await handle(params)
        except RemoteError as error:
            raise Refused(INTERNAL_ERROR, str(error), {"kind": error.code.value}) from error
        except ClusterError as error:
            if isinstance(error, Refused):
                raise
            raise Refused(INTERNAL_ERROR, str(error)) from error

    def _on_notification(self, method: str, params: Any) -> None:
        match method, params:
            case "session/cancel", {"sessionId": str(session_id)} if session_id in self._sessions:
                self._sessions[session_id].cancel()

    async def _initialize(self, params: Params) -> Params:
        """Say what we are. A client of another version hears which is ours, and decides."""
        return {
            "protocolVersion": PROTOCOL,
            "agentInfo": {"name": "loopal-cluster", "title": self._title(), "version": __version__},
            "agentCapabilities": {
                "loadSession": False,
                "promptCapabilities": {"image": False, "audio": False, "embeddedContext": True},
                "mcpCapabilities": {"http": False, "sse": False},
                "sessionCapabilities": {"close": {}},
            },
            "authMethods": [],
        }

    async def _new_session(self, params: Params) -> Params:
        cwd = params.get("cwd")
        if not isinstance(cwd, str) or not os.path.isabs(cwd):
            raise Refused(INVALID_PARAMS, "session/new: cwd must be an absolute path")
        if params.get("mcpServers"):
            log.warning("the editor's MCP servers are not passed on: the agent has those of its hub's config")
        where = self._hub or self._client.welcome.hub
        agent = await self._client.spawn(
            self._agent_type, hub=self._hub, persistent=True, cwd=cwd if self._local else None
        )
        session = Session(self._peer, agent, Address(agent.name, where))
        self._sessions[session.id] = session
        return {"sessionId": session.id}

    async def _prompt(self, params: Params) -> Params:
        text = prompt_text(params.get("prompt"))
        return {"stopReason": await self._session(params).prompt(text, self._show_arrived)}

    async def _close_session(self, params: Params) -> Params:
        session = self._session(params)
        del self._sessions[session.id]
        await session.close()
        return {}

    def _session(self, params: Params) -> Session:
        session = self._sessions.get(str(params.get("sessionId")))
        if session is None:
            known = ", ".join(self._sessions) or "none"
            raise Refused(INVALID_PARAMS, f"no session {params.get('sessionId')!r} (there are: {known})")
        return session

    def _title(self) -> str:
        kind = self._agent_type or "default agent"
        where = self._hub or self._client.welcome.hub
        return f"{kind} on {where}"

    # What the cluster says.

    async def _show_events(self) -> None:
        async for event in self._events:
            self._show(event)
            await self._peer.flush()

    def _show_arrived(self) -> None:
        for event in self._events.arrived():
            self._show(event)

    def _show(self, event: ClusterEvent) -> None:
        if event.agent is not None and (
            session := self._sessions.get(self._qualified(event.agent, event.hub))
        ):
            session.show(event.payload)

    async def _session_above(self, agent: str | None) -> Session | None:
        """The session of an agent, or of the agent that has started it, or of that one's."""
        for _ in range(GENERATIONS):
            if agent is None:
                return None
            address = self._qualified(agent, self._client.welcome.hub)
            if address in self._sessions:
                return self._sessions[address]
            agent = (await self._client.agent_info(address)).parent
        return None

    def _qualified(self, agent: str, hub: str | None) -> str:
        address = Address.parse(agent)
        return str(address if address.hub else Address(address.agent, hub))

    # Ends.

    async def _close_all(self) -> None:
        async with trio.open_nursery() as nursery:
            for session in self._sessions.values():
                nursery.start_soon(_close, session)


async def _set_after(event: trio.Event, before: trio.Event) -> None:
    await before.wait()
    event.set()


async def _close(session: Session) -> None:
    with suppress(ClusterError):  # it has ended already, or its hub is gone
        await session.close()
