"""Whoever asks by the runtime's own client: programs, people, agent functions.

They are the actors of ``actors.py``; only that they do not write frames: each question is a task that
calls ``ClusterClient`` and waits.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import TYPE_CHECKING, Any

import trio

from loopal_cluster.errors import ConnectionLost, ErrorCode, RemoteError
from loopal_cluster.frames import Failure, Response
from loopal_cluster.links.client import Client, open_client
from loopal_cluster.links.cluster_client import ClusterClient
from loopal_cluster.messages import (
    Answers,
    Ask,
    Decision,
    Message,
    Permission,
    Progress,
    Question,
    Role,
    SpawnAgent,
    Spawned,
)
from loopal_cluster.records import evolve
from loopal_cluster.runtime.hub import Hub
from loopal_cluster.testing.halting import Switch, this_process
from tests.simulation import actors
from tests.simulation.actors import TOKEN, Caller
from tests.simulation.live.streams import Reader

if TYPE_CHECKING:
    from tests.simulation.live.processes import LiveProcess
    from tests.simulation.live.world import RuntimeWorld

__all__ = ["Connected", "LiveClient", "LiveObserver", "LiveOperator", "Program"]


class Program(Caller):
    """An actor that asks by calling the runtime's client."""

    world: RuntimeWorld

    _client: ClusterClient
    _nursery: trio.Nursery
    _context: contextvars.Context
    _process: Switch | None = None
    _scopes: dict[int, trio.CancelScope]

    def begin(self, client: ClusterClient, nursery: trio.Nursery) -> None:
        """From now on it can ask; called by a task of the process it runs in."""
        self._client, self._nursery = client, nursery
        self._context = contextvars.copy_context()
        self._process = this_process()
        self._scopes = {}
        self.ready = True

    @property
    def here(self) -> bool:
        return self.ready and not (self._process is not None and self._process.halted)

    def withdraw_newest(self) -> None:
        if self._open:
            request_id, op = self._open.popitem()
            self.world.trace(self.name, "withdraws", op.number)
            op.caller_gone_at = self.world.schedule.now
            self._scopes[request_id].cancel()

    def give_up(self) -> None:
        """Ask nothing more, and no longer wait for what is open; its tasks are about to be cancelled."""
        self.ready = False
        if not self.world.over:
            for op in self._open.values():
                op.caller_gone_at = self.world.schedule.now
            self._open.clear()

    def killed(self) -> None:
        """The process is gone; what is open will not be answered."""
        self._forget()

    def _send_request(self, message: Message[Any]) -> int:
        self._last_id += 1
        scope = self._scopes[self._last_id] = trio.CancelScope()
        self._context.run(self._nursery.start_soon, self._call, self._last_id, message, scope)
        return self._last_id

    async def _call(self, request_id: int, message: Message[Any], scope: trio.CancelScope) -> None:
        answer: Response | Failure
        with scope:
            try:
                answer = Response(request_id, await self._ask_hub(message, request_id))
            except RemoteError as error:
                answer = Failure(request_id, error.code, error.detail)
            except ConnectionLost as error:
                if self._client._caller.closed.is_set():
                    return  # ``_forget`` notes it
                answer = Failure(request_id, ErrorCode.CONNECTION_LOST, str(error))
            if not self.world.over:
                self._on_answer(answer)

    async def _ask_hub(self, message: Message[Any], request_id: int) -> Any:
        if not isinstance(message, SpawnAgent):
            if isinstance(message, Ask):
                message = Ask(evolve(message.envelope, for_ask=self._client._for_ask()))
            progress = partial(self._on_notification, Progress(request_id))
            return await self._client._caller.call(message, progress)
        spec = message.spec
        handle = await self._client.spawn(
            spec.agent_type,
            spec.prompt or "",
            hub=spec.target_hub,
            name=spec.name,
            detached=spec.detached,
            notify_parent=spec.notify_parent is not False,
            time_limit=None if spec.timeout_ms is None else spec.timeout_ms / 1000,
        )
        return Spawned(handle.id, spec.name)


class Connected(Program):
    """A program with a connection of its own, or in the hub's own process if that trusts it."""

    _attached = False
    _left = False

    def connect(self, process: LiveProcess, role: Role) -> None:
        """Be a client of what runs in this process."""
        tenant, name = process.tenant, self.name.partition("@")[0]
        if self._attached or self._left or tenant is None:
            return
        self._attached = True
        if self.world.trusts(self.hub):
            assert isinstance(tenant, Hub)
            process.programs.append(self)
            process.spawn(self._live, partial(tenant.open_client, name=name, role=role, **self._answers()))
        else:
            channel = self.world.dial_stream(Outside(self.name), process)
            client = partial(
                open_client,
                channel,
                name=name,
                token=TOKEN,
                role=role,
                ambient=self.world.ambient(self.name, None),
                **self._answers(),
            )
            self.world.nursery.start_soon(self._live, client)

    async def _live(self, opened: Callable[[], AbstractAsyncContextManager[Client]]) -> None:
        try:
            async with opened() as client, trio.open_nursery() as nursery:
                self.begin(client, nursery)
                await self._be_there(client)
                nursery.cancel_scope.cancel()
        except ConnectionLost as error:
            self.world.trace(self.name, "could not register:", error)
        except RemoteError as error:
            self.world.deviate("one outcome", f"{self.name} may not register: {error}")
        finally:
            if not self.world.over:
                self._forget()

    async def _be_there(self, client: Client) -> None:
        await client.closed.wait()

    def _answers(self) -> dict[str, Any]:
        """Who answers permissions and questions."""
        return {}

    def _forget(self) -> None:
        self._attached = False
        super()._forget()


class LiveClient(Connected, actors.Client):
    """A program that acts for a human. It comes back when its hub does."""

    def _forget(self) -> None:
        super()._forget()
        self.world.schedule.after(0.3, self.world.attach, self, Role.CLIENT)


class LiveObserver(Connected, actors.Observer):
    """Sees every event, and that none is missing."""

    async def _be_there(self, client: Client) -> None:
        stream = await client.subscribe()
        async for event in stream:
            if stream.missed:
                self.world.deviate(
                    "no event missing", f"{self.name} missed {stream.missed} before {event.seq}"
                )


class LiveOperator(Connected, actors.Operator):
    """A human who answers, or does not, and leaves some time."""

    _stay: trio.CancelScope | None = None

    def begin(self, client: ClusterClient, nursery: trio.Nursery) -> None:
        super().begin(client, nursery)
        self.note_arrival()

    def leave(self) -> None:
        self._left = True
        if self._stay is not None:
            self.world.trace(self.name, "leaves")
            self._stay.cancel()

    async def _be_there(self, client: Client) -> None:
        with trio.CancelScope() as self._stay:
            await client.closed.wait()

    def _answers(self) -> dict[str, Any]:
        acknowledge = self._manner != "gone"
        return {"on_permission": self._judge, "on_question": self._advise, "acknowledge": acknowledge}

    async def _judge(self, message: Permission) -> Decision:
        self.note_shown(message)
        await self._think()
        allow = self._manner == "allow"
        self.note_decision(message.tool_call_id, allow)
        return Decision(allow=allow)

    async def _advise(self, message: Question) -> Answers:
        await self._think()
        self.note_decision("", None)
        return Answers((self.name,))

    async def _think(self) -> None:
        await trio.sleep(self._habits.uniform(0.1, 3.0))
        if self._manner in ("silent", "gone"):
            await trio.sleep_forever()
        if self._manner == "fail":
            raise RemoteError("the window was closed")


class Outside(Reader):
    """The process of a program outside the hub."""

    def __init__(self, name: str) -> None:
        self.name = name
