"""A human in a test: permissions and questions that wait are answered by the test itself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
from attrs import define, field

from loopal_cluster.messages import Answers, Decision, Permission, Question, Role
from loopal_cluster.runtime.hub import Hub
from loopal_cluster.runtime.meta_hub import MetaHub

__all__ = ["Asked", "Operator", "open_operator"]


@define(eq=False)
class Asked:
    """A permission or a question that a human sees now."""

    request: Permission | Question
    _answer: Decision | Answers | None = None
    _answered: trio.Event = field(factory=trio.Event)

    @property
    def agent(self) -> str | None:
        """Who asks."""
        return self.request.agent_name

    @property
    def tool(self) -> str:
        """The tool that it is about; nothing for a question."""
        return self.request.tool_name if isinstance(self.request, Permission) else ""

    def allow(self) -> None:
        """Allow the tool."""
        self._give(Decision(allow=True))

    def deny(self, reason: str | None = None) -> None:
        """Deny the tool."""
        self._give(Decision(allow=False, reason=reason))

    def answer(self, *answers: str) -> None:
        """Answer a question; one text for each that it has."""
        self._give(Answers(answers))

    def _give(self, answer: Decision | Answers) -> None:
        if isinstance(answer, Decision) != isinstance(self.request, Permission):
            raise TypeError(f"this is a {type(self.request).__name__.lower()}")
        if self._answer is not None:
            raise RuntimeError("it has been answered")
        self._answer = answer
        self._answered.set()

    async def _given(self) -> Decision | Answers:
        await self._answered.wait()
        assert self._answer is not None
        return self._answer


@define(eq=False)
class Operator:
    """Somebody who is asked. Made by ``TestCluster.open_operator``."""

    _asked: trio.MemoryReceiveChannel[Asked]

    async def next(self) -> Asked:
        """Wait for the next permission or question."""
        return await self._asked.receive()


@asynccontextmanager
async def open_operator(tenant: Hub | MetaHub, name: str) -> AsyncIterator[Operator]:
    """Attach an operator to a hub or a MetaHub for the block; what it has not answered then goes to others."""
    shown, asked = trio.open_memory_channel[Asked](1000)

    async def show(request: Permission | Question) -> Decision | Answers:
        await shown.send(question := Asked(request))
        return await question._given()

    async def decide(permission: Permission) -> Decision:
        decision = await show(permission)
        assert isinstance(decision, Decision)
        return decision

    async def answer(question: Question) -> Answers:
        answers = await show(question)
        assert isinstance(answers, Answers)
        return answers

    opened = tenant.open_client(name=name, role=Role.OPERATOR, on_permission=decide, on_question=answer)
    async with opened:
        yield Operator(asked)
