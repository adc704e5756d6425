"""Asks the human in front of a hub: may this tool be used, which of these options.

One ask is shown at a time, the others wait for their turn. What is typed comes in by ``offer``; whoever
reads the lines decides what else they may be. No answer is made up: when there are no more lines, or
somebody else has answered, this human has simply not decided.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TypeVar

import trio

from loopal_cluster.cli.attach import Asked, read_answer, read_decision, read_questions
from loopal_cluster.cli.show import note, one_line, shortened
from loopal_cluster.errors import NoOperator
from loopal_cluster.messages import Answers, Decision, Permission, Question

__all__ = ["Asker"]

A = TypeVar("A")
INPUT_SHOWN = 20_000
"""Characters of a tool's input."""


class Asker:
    """Turns asks into lines to show, and typed lines into answers."""

    def __init__(self) -> None:
        self._put: trio.MemorySendChannel[str] | None = None
        """Where lines go while an ask is shown."""
        self._closed = False
        # Not state to protect, but one human's attention: first come, first asked.
        self._attention = trio.Lock()

    def offer(self, line: str) -> bool:
        """Hand in a line; False if nothing is asked. A line typed before an ask never answers it."""
        if self._put is None:
            return False
        self._put.send_nowait(line)
        return True

    def close(self) -> None:
        """There are no more lines: what is asked is not answered here, now or later."""
        self._closed = True
        if self._put is not None:
            self._put.close()

    async def on_permission(self, permission: Permission) -> Decision:
        """Ask whether a tool may be used.

        Raises:
            NoOperator: there are no more lines.
        """
        who = permission.agent_name or "an agent"
        tool_input = shortened(permission.tool_input.json.decode(errors="replace"), INPUT_SHOWN)
        async with self._asking() as lines:
            note(one_line(f"{who} wants to use {permission.tool_name}: {tool_input}"))
            return await _answer(lines, "allow? [y/n]", read_decision)

    async def on_question(self, question: Question) -> Answers:
        """Ask everything that an agent asks at once; an option may be named by its number.

        Raises:
            NoOperator: there are no more lines.
        """
        async with self._asking() as lines:
            note(f"{one_line(question.agent_name or 'an agent')} asks:")
            questions = read_questions(question.questions)
            return Answers(tuple([await _ask(lines, asked) for asked in questions]))

    @asynccontextmanager
    async def _asking(self) -> AsyncIterator[trio.MemoryReceiveChannel[str]]:
        async with self._attention:
            self._put, lines = trio.open_memory_channel[str](math.inf)
            if self._closed:
                self._put.close()
            try:
                yield lines
            except trio.Cancelled:
                note("(no longer asked)")
                raise
            finally:
                self._put = None


async def _ask(lines: trio.MemoryReceiveChannel[str], asked: Asked) -> str:
    note(f"  {one_line(asked.text)}")
    for number, (label, description) in enumerate(zip(asked.labels, asked.descriptions, strict=True), 1):
        note(f"    {number}. {one_line(f'{label} ({description})' if description else label)}")
    return await _answer(lines, "[a number, or words]", partial(read_answer, asked))


async def _answer(lines: trio.MemoryReceiveChannel[str], prompt: str, read: Callable[[str], A | None]) -> A:
    """Ask until the answer is one."""
    while True:
        note(prompt)
        try:
            answer = read(await lines.receive())
        except trio.EndOfChannel:
            raise NoOperator("the operator has no more to say") from None
        if answer is not None:
            return answer
