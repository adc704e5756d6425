"""Asks the human in front of a hub: may this tool be used, which of these options.

One ask is shown at a time, the others wait for the turn of their asker. What is typed comes in by ``offer``; whoever
reads the lines decides what else they may be. No answer is made up: when there are no more lines, or
somebody else has answered, this human has simply not decided.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeVar

import trio

from loopal_cluster.cli.show import note, one_line, shortened
from loopal_cluster.errors import NoOperator, ProtocolError
from loopal_cluster.messages import Answers, Decided, Decision, Opaque, Permission, Question
from loopal_cluster.records import record
from loopal_cluster.wire.contents import loads

__all__ = [
    "Asked",
    "Asker",
    "Turns",
    "as_text",
    "how_decided",
    "read_answer",
    "read_decision",
    "read_questions",
    "readable",
]

A = TypeVar("A")
INPUT_SHOWN = 20_000
"""Characters of a tool's input."""


class Turns:
    """One human's attention: only one ask has it at a time, and the askers have it in turn.

    So who asks much is not asked about before all others. What has it is acknowledged as shown.
    """

    def __init__(self) -> None:
        self._acknowledge: Callable[[Permission | Question], None] | None = None
        """None: nothing is shown yet."""
        self._current: trio.Event | None = None
        self._waiting: dict[str, deque[trio.Event]] = {}
        """By asker, whose turn is next first."""

    def open(self, acknowledge: Callable[[Permission | Question], None]) -> None:
        """From now on asks are shown, and each is acknowledged then."""
        self._acknowledge = acknowledge
        self._pass_on()

    @asynccontextmanager
    async def take(self, ask: Permission | Question) -> AsyncIterator[None]:
        """Have the human's attention for the block, when it is this asker's turn."""
        asker, turn = ask.agent_name or "", trio.Event()
        self._waiting.setdefault(asker, deque()).append(turn)
        self._pass_on()
        try:
            await turn.wait()
            assert self._acknowledge is not None
            self._acknowledge(ask)
            yield
        finally:
            if self._current is turn:
                self._current = None
                if asker in self._waiting:
                    self._waiting[asker] = self._waiting.pop(asker)  # its next turn is the last
                self._pass_on()
            else:
                self._waiting[asker].remove(turn)
                if not self._waiting[asker]:
                    del self._waiting[asker]

    def _pass_on(self) -> None:
        if self._current is not None or self._acknowledge is None or not self._waiting:
            return
        asker, waiting = next(iter(self._waiting.items()))
        self._current = waiting.popleft()
        self._current.set()
        if not waiting:
            del self._waiting[asker]


class Asker:
    """Turns asks into lines to show, and typed lines into answers."""

    def __init__(self) -> None:
        self.turns = Turns()
        """Nothing is asked before they are opened."""
        self._put: trio.MemorySendChannel[str] | None = None
        """Where lines go while an ask is shown."""
        self._closed = False
        self._shown = set[str | None]()
        """The ids of asks that were shown and not answered here."""

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
        async with self._asking(permission) as lines:
            note(one_line(f"{who} wants to use {permission.tool_name}: {tool_input}"))
            return await _answer(lines, "allow? [y/n]", read_decision)

    async def on_question(self, question: Question) -> Answers:
        """Ask everything that an agent asks at once; an option may be named by its number.

        Raises:
            NoOperator: there are no more lines.
        """
        async with self._asking(question) as lines:
            note(f"{one_line(question.agent_name or 'an agent')} asks:")
            questions = read_questions(question.questions)
            return Answers(tuple([await _ask(lines, asked) for asked in questions]))

    def on_decided(self, decided: Decided) -> None:
        """Somebody else was first, or it is no longer asked."""
        if decided.ask_id in self._shown:
            self._shown.remove(decided.ask_id)
            note(f"(it {how_decided(decided)})")

    @asynccontextmanager
    async def _asking(self, ask: Permission | Question) -> AsyncIterator[trio.MemoryReceiveChannel[str]]:
        async with self.turns.take(ask):
            self._put, lines = trio.open_memory_channel[str](math.inf)
            if self._closed:
                self._put.close()
            self._shown.add(ask.ask_id)
            try:
                yield lines
                self._shown.discard(ask.ask_id)
            finally:
                self._put = None


# What is asked, and how it is read.


@record
class Asked:
    """One question to a human."""

    text: str
    labels: tuple[str, ...] = ()
    descriptions: tuple[str, ...] = ()
    several: bool = False
    """Whether more than one option may be chosen."""


def read_questions(questions: Opaque) -> list[Asked]:
    """The questions of an ask. What has another shape than agreed is shown as it came."""
    value = readable(questions)
    if not isinstance(value, list):
        return [Asked(as_text(value))]
    return [_read_question(item) for item in value]


def _read_question(item: Any) -> Asked:
    try:
        options = item.get("options") or []
        return Asked(
            text=str(item["question"]),
            labels=tuple(str(option["label"]) for option in options),
            descriptions=tuple(str(option.get("description") or "") for option in options),
            several=item.get("allow_multiple") is True,
        )
    except (AttributeError, KeyError, TypeError):
        return Asked(as_text(item))


def read_decision(line: str) -> Decision | None:
    """``y`` or ``n``, and perhaps a reason; None if it is neither."""
    word, _, reason = line.strip().partition(" ")
    if word.lower() in ("y", "yes"):
        return Decision(allow=True, reason=reason.strip() or None)
    if word.lower() in ("n", "no"):
        return Decision(allow=False, reason=reason.strip() or None)
    return None


def read_answer(asked: Asked, line: str) -> str | None:
    """The labels of the numbers given, or the words; None if there is no such option."""
    words = line.strip()
    numbers = words.replace(",", " ").split()
    if not asked.labels or not all(number.isdecimal() for number in numbers):
        return words or None
    chosen = [int(number) for number in numbers]
    if not chosen or (len(chosen) > 1 and not asked.several):
        return None
    if not all(1 <= number <= len(asked.labels) for number in chosen):
        return None
    return ", ".join(asked.labels[number - 1] for number in chosen)


def readable(value: Opaque) -> Any:
    """What an agent sent; as text, if it is nothing else."""
    try:
        return loads(value)
    except ProtocolError:
        return value.json.decode(errors="replace")


def as_text(value: Any) -> str:
    """Something that was sent, for people to read."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2)


def how_decided(decided: Decided) -> str:
    """What has become of an ask that was not answered here, to be said of it."""
    if decided.by is None:
        return "is no longer asked"
    what = {True: "allowed", False: "denied", None: "answered"}[decided.allow]
    if decided.by == "policy":
        return f"was {what}: nobody answered in time"
    return f"was {what} by {one_line(decided.by)} first"


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
