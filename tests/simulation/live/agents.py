"""The agents of a live hub: half of them functions in its process, half of them processes of their own.

The functions are run by the real ``FunctionAgent``. The processes are the scripted agents of
``actors.py`` at the other end of a connection of bytes; what ``children.py`` does to end a process is done
to them. A function cannot be stubborn, stop reading its inbox or die alone, so it plays such a plan as
well as it can.
"""

from __future__ import annotations

import math
import random
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING

import trio
from attrs import frozen

from loopal_cluster.agents.context import AgentContext
from loopal_cluster.agents.inbox import Received, failed
from loopal_cluster.agents.types import FunctionAgent, Place, RunningAgent
from loopal_cluster.errors import ClusterError
from loopal_cluster.frames import Request
from loopal_cluster.links.channels import FrameChannel, Inbound
from loopal_cluster.messages import AgentStart, Completed, Shutdown
from tests.simulation.actors import Agent, ScriptedAgent, begin_life
from tests.simulation.history import INTERRUPTED, AgentLife, Receipt, reply_of
from tests.simulation.live.channels import WatchedChannel
from tests.simulation.live.programs import Program
from tests.simulation.script import Plan

if TYPE_CHECKING:
    from tests.simulation.live.processes import LiveProcess
    from tests.simulation.live.world import RuntimeWorld

__all__ = ["SimulatedAgent"]


@frozen
class SimulatedAgent:
    """An agent type: what a hub of the simulation runs."""

    process: LiveProcess
    kind: str

    @asynccontextmanager
    async def open(self, place: Place) -> AsyncIterator[RunningAgent]:
        """Start an agent, be it slowly."""
        times = self.process.times
        await trio.sleep(times.uniform(1.0, 2.5) if self.kind == "slow" else times.uniform(0.0, 0.2))
        if self.kind == "broken":
            raise ClusterError("no such program")
        as_function = self.kind != "mute" and times.random() < 0.5
        life = self.process.world.new_life(self.process, self.kind)
        open_agent = _open_function if as_function else _open_process
        opened: AbstractAsyncContextManager[RunningAgent] = open_agent(self.process, life, place)
        async with opened as running:
            yield _WatchedAgent(running, life, self.process.world)


class _WatchedAgent:
    """An agent, and when its hub wanted it to end."""

    def __init__(self, running: RunningAgent, life: AgentLife, world: RuntimeWorld) -> None:
        self.channel: FrameChannel = WatchedChannel(running.channel, self._on_frame)
        self._running = running
        self._life = life
        self._world = world

    async def stop(self) -> str:
        if self._life.said_at is None and self._life.ended_at is None:
            self._want_stop()
        return await self._running.stop()

    def _on_frame(self, way: str, frame: Inbound) -> None:
        self._world.trace_frame(self._life.hub, self._life.address, way, frame)
        if isinstance(frame, Request) and isinstance(frame.message, Shutdown):
            self._want_stop()

    def _want_stop(self) -> None:
        if self._life.stop_wanted_at is None and not self._world.over:
            self._life.stop_wanted_at = self._world.schedule.now


# Functions.


class _Killed(Exception):
    """What ends a function that was to die."""


class _FunctionActor(Program, Agent):
    """An async function in its hub's process that does as its plan says."""

    def __init__(self, world: RuntimeWorld, life: AgentLife) -> None:
        super().__init__(world, life.address, life.hub)
        self.life = life
        self._plan = Plan()
        self._death = trio.CancelScope()
        self._reason = ""

    async def function(self, ctx: AgentContext, prompt: str) -> str:
        """What the hub runs."""
        completed = Completed("aborted", INTERRUPTED)
        try:
            self.life.agent_id, self.life.name = ctx.agent_id or "", ctx.name
            self.name = self.life.address
            self._plan = begin_life(self.world, self.life, prompt)
            with self._death:
                await self._work(ctx)
            completed = self._completed()
        finally:
            self._say(ctx, completed)
        if completed.reason == "error":
            raise _Killed(self._reason)
        return completed.result_text or ""

    async def _work(self, ctx: AgentContext) -> None:
        async with trio.open_nursery() as nursery:
            # It listens before it asks, so that it is seen to go on replying.
            await nursery.start(self._listen, ctx, nursery)
            self.begin(ctx, nursery)
            try:
                await trio.sleep(math.inf if self._plan.ending == "hang" else self._plan.work)
            finally:
                self.give_up()
            nursery.cancel_scope.cancel()

    async def _listen(
        self, ctx: AgentContext, nursery: trio.Nursery, *, task_status: trio.TaskStatus[None]
    ) -> None:
        task_status.started()
        while True:
            received = await ctx.receive()
            receipt = self._on_message(received)
            if received.wants_reply:
                nursery.start_soon(self._answer, received, receipt)

    def _on_message(self, received: Received) -> Receipt:
        receipt = Receipt(self.world.schedule.now, received.envelope, accepted=True)
        if not self.world.over:
            self.world.trace(self.name, "takes", received.envelope.id)
            self.life.received.append(receipt)
        return receipt

    async def _answer(self, received: Received, receipt: Receipt) -> None:
        try:
            await received.answer(self._reply)
        finally:
            if not self.world.over:
                self.world.trace(self.name, "is done with", received.envelope.id)
                receipt.done_at = self.world.schedule.now

    async def _reply(self, received: Received) -> str:
        chance = random.Random(f"reply-{received.envelope.id}-{self.world.seed}")
        await trio.sleep(chance.uniform(0.0, 1.5))
        while chance.random() < 0.3:
            received.progress()
            await trio.sleep(chance.uniform(0.0, 1.5))
        return reply_of(self.life, received.envelope.id)

    def _completed(self) -> Completed:
        text = f"work of {self.life.agent_id}"
        if not self._reason and self._plan.ending == "done":
            return Completed("goal", text)
        self._reason = self._reason or text
        return Completed("error", failed(_Killed(self._reason)).error)

    def _say(self, ctx: AgentContext, completed: Completed) -> None:
        if self.world.over:
            return
        while (received := ctx.receive_nowait()) is not None:
            self._on_message(received)
        self.world.trace(self.name, "says", completed)
        self.life.said, self.life.said_at = completed, self.world.schedule.now
        self._forget()

    def die(self, reason: str = "killed") -> None:
        if self.ready:
            self.world.trace(self.name, "fails:", reason)
            self._reason = reason
            self._death.cancel()

    def freeze(self, lasts: float) -> None:
        self.world.trace(self.name, "cannot freeze: it is a task")

    def killed(self) -> None:
        self.life.ended_at = self.world.schedule.now
        super().killed()


@asynccontextmanager
async def _open_function(process: LiveProcess, life: AgentLife, place: Place) -> AsyncIterator[RunningAgent]:
    world = process.world
    actor = _FunctionActor(world, life)
    world.add_agent(actor)
    process.programs.append(actor)
    try:
        async with FunctionAgent(actor.function).open(place) as running:
            yield running
    finally:
        if not world.over:
            life.ended_at = world.schedule.now
            process.programs.remove(actor)


# Processes.


class _ProcessActor(ScriptedAgent):
    """A scripted agent at the other end of a connection of bytes; it learns who it is from ``agent/start``."""

    world: RuntimeWorld

    def _start(self, message: AgentStart) -> None:
        self.life.agent_id, self.life.name = message.agent_id or "", message.name or ""
        self.name = self.life.address
        super()._start(message)


class _Process:
    """What ``_Process`` of ``agents/types.py`` is for a real process."""

    def __init__(self, actor: _ProcessActor, channel: FrameChannel, ended: trio.Event, grace: float) -> None:
        self.channel = channel
        self._actor = actor
        self._ended = ended
        self._grace = grace

    async def stop(self) -> str:
        await trio.aclose_forcefully(self.channel)
        await self._ended_within(self._grace * 2 / 3)
        if not self._ended.is_set():
            self._actor.terminate()
            await self._ended_within(self._grace / 3)
        if not self._ended.is_set():
            self._actor.die("SIGKILL")
        return "ended"

    async def _ended_within(self, seconds: float) -> None:
        with trio.move_on_after(seconds):
            await self._ended.wait()


@asynccontextmanager
async def _open_process(process: LiveProcess, life: AgentLife, place: Place) -> AsyncIterator[RunningAgent]:
    ended = trio.Event()
    actor = _ProcessActor(process.world, life, lambda reason: ended.set())
    process.world.add_agent(actor)
    running = _Process(actor, process.reach(actor), ended, place.end_grace)
    try:
        yield running
    finally:
        with trio.move_on_after(2 * place.end_grace, shield=True):
            await running.stop()
