"""One session of an editor: an agent of the cluster, its turns, and what is asked about it.

A turn is an ask: the prompt goes to the agent, its reply ends the turn, and what it reports meanwhile is shown. To
cancel is to withdraw the ask, which ends the agent's work on it and nothing else of what it does.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from loopal_cluster.acp.rpc import Refused, RpcPeer
from loopal_cluster.address import Address
from loopal_cluster.editor.updates import (
    OPTIONS,
    Spoken,
    Tools,
    Update,
    decision_of,
    message_chunk,
    tool_call_of,
    update_of,
)
from loopal_cluster.errors import AgentCancelled, ClusterError, NoOperator, RemoteError
from loopal_cluster.links.cluster_client import AgentHandle
from loopal_cluster.messages import Decision, Permission
from loopal_cluster.payloads import Stream
from loopal_cluster.wire.jsonrpc import INTERNAL_ERROR, INVALID_REQUEST

__all__ = ["Session"]

TURN_LIMIT = 86_400.0
"""Seconds that a turn may take. A human watches it and can stop it; an ask must have some end."""


class Session:
    """An agent that an editor talks to. Its id is the agent's address, which no other session has."""

    def __init__(self, peer: RpcPeer, agent: AgentHandle, address: Address) -> None:
        self.address = address
        """The agent, qualified."""
        self._peer = peer
        self._agent = agent
        self._spoken = Spoken()
        self._tools = Tools()
        self._turn: trio.CancelScope | None = None

    @property
    def id(self) -> str:
        """What the editor calls it."""
        return str(self.address)

    async def prompt(self, text: str, show_arrived: Callable[[], None]) -> str:
        """Have a turn; return why it stopped, in the protocol's words.

        ``show_arrived`` brings what has been reported and not been shown.

        Raises:
            Refused: there is no result; it says why.
        """
        if self._turn is not None:
            raise Refused(INVALID_REQUEST, f"the agent {self.id} still works on the last prompt")
        self._spoken.begin()
        self._tools.begin()
        try:
            with trio.CancelScope() as self._turn:
                result = await self._agent.ask(text, time_limit=TURN_LIMIT)
                show_arrived()
                self._say(self._spoken.end(result))
                return "end_turn"
        except AgentCancelled:
            show_arrived()
        except RemoteError as error:
            raise Refused(INTERNAL_ERROR, str(error), {"kind": error.code.value}) from error
        except ClusterError as error:
            show_arrived()
            raise Refused(INTERNAL_ERROR, str(error)) from error
        except trio.TooSlowError as error:
            raise Refused(INTERNAL_ERROR, f"no result after {TURN_LIMIT:g} s") from error
        finally:
            self._turn = None
        return "cancelled"

    def cancel(self) -> None:
        """End the turn, if there is one."""
        if self._turn is not None:
            self._turn.cancel()

    def show(self, payload: object) -> None:
        """Show something that the agent has reported."""
        if isinstance(payload, Stream):
            self._say(self._spoken.stream(payload.text))
        elif (update := update_of(payload)) is not None:
            self._update(self._tools.show(update))

    async def decide(self, permission: Permission) -> Decision:
        """Ask the human.

        Raises:
            NoOperator: the editor has gone, or has taken the question back with the turn.
        """
        asked = {"toolCall": tool_call_of(permission, self.address), "options": OPTIONS}
        try:
            answer = await self._peer.call("session/request_permission", {"sessionId": self.id} | asked)
            decision = decision_of(answer)
        except ClusterError as error:
            raise NoOperator(str(error)) from error
        if decision is None:
            raise NoOperator("the turn was cancelled")
        return decision

    async def close(self) -> None:
        """End the agent, and all that it has spawned."""
        self.cancel()
        await self._agent.cancel("its editor has closed the session")

    def _say(self, text: str) -> None:
        if text:
            self._update(message_chunk(text))

    def _update(self, update: Update) -> None:
        self._peer.notify("session/update", {"sessionId": self.id, "update": update})
