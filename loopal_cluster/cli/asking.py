"""Approvals at a terminal: may this tool be used, which of these options.

One is shown at a time, the others wait for the turn of their agent. What is typed comes in by ``offer``, the lines of a
script by ``give``; whoever reads the lines decides what else they may be. No answer is made up: when there are no more
lines, or somebody else has answered, this human has simply not decided.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Protocol

import trio
from attrs import field

from loopal_cluster.cli.show import note, one_line, shortened
from loopal_cluster.errors import NoOperator, ProtocolError
from loopal_cluster.messages import Answers, Decided, Decision, Opaque, Permission, Question
from loopal_cluster.records import define, evolve, record
from loopal_cluster.wire.contents import loads

__all__ = [
    "ApprovalQueue",
    "Asked",
    "TerminalView",
    "Turns",
    "View",
    "as_text",
    "how_decided",
    "read_answer",
    "read_decision",
    "read_questions",
    "readable",
]

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


class View(Protocol):
    """How approvals look, on a terminal or in lines of JSON. Each is shown with a number of its own."""

    def show_permission(self, number: int, message: Permission) -> None:
        """Show what is to be used, and for what."""

    def show_questions(self, number: int, message: Question) -> None:
        """Show who asks."""

    def show_question(self, asked: Asked) -> None:
        """Show one question, and what may be chosen."""

    def ask_again(self, asked: Asked | None) -> None:
        """Say that a line was no answer to the question; None: to a permission."""

    def show_answered(self, number: int, message: Permission | Question, allow: bool | None) -> None:
        """Say that the answer is on its way."""

    def show_decided(self, number: int, decided: Decided) -> None:
        """Say what has become of one that was shown, and was not answered here."""


@define(eq=False)
class ApprovalQueue:
    """One human's approvals: shown in turn, each answered by the lines that come while it is shown."""

    _view: View
    _by: str | None = None
    """Who answers; None: the hub says that."""
    turns: Turns = field(factory=Turns, init=False)
    """Nothing is shown before they are opened."""
    _count: int = field(default=0, init=False)
    _numbers: dict[str, int] = field(factory=dict, init=False)
    """The numbers of what was shown and not answered here, by id."""
    _lines: deque[str] | None = field(default=None, init=False)
    """What came while an approval is shown, and is not used yet; None: none is shown."""
    _is_awaited: bool = field(default=False, init=False)
    """Whether the next line is used at once."""
    _closed: bool = field(default=False, init=False)
    _unanswered: int = field(default=0, init=False)
    _changed: trio.lowlevel.ParkingLot = field(factory=trio.lowlevel.ParkingLot, init=False)
    """Whoever waits for any of this to change."""

    def offer(self, line: str) -> bool:
        """Hand in a line that somebody typed; False if nothing is asked, for then it was meant for something else."""
        if self._lines is None:
            return False
        self._lines.append(line)
        self._changed.unpark_all()
        return True

    async def give(self, line: str) -> None:
        """Hand in a line of a script, when one is waited for."""
        while not self._is_awaited:
            await self._changed.park()
        self._is_awaited = False
        self.offer(line)

    def close(self) -> None:
        """End the lines: what is asked is not answered here, now or later."""
        self._closed = True
        self._changed.unpark_all()

    async def until_done(self) -> None:
        """Wait until nothing is asked any more."""
        while self._unanswered:
            await self._changed.park()

    async def on_permission(self, permission: Permission) -> Decision:
        """Ask whether a tool may be used; cancelled if somebody else answers first.

        Raises:
            NoOperator: there are no more lines.
        """
        async with self._turn(permission) as number:
            self._view.show_permission(number, permission)
            while (decision := read_decision(await self._next_line())) is None:
                self._view.ask_again(None)
            self._has_answered(number, permission, decision.allow)
            return evolve(decision, by=self._by)

    async def on_question(self, question: Question) -> Answers:
        """Ask everything that an agent asks at once; an option may be named by its number.

        Raises:
            NoOperator: there are no more lines.
        """
        async with self._turn(question) as number:
            self._view.show_questions(number, question)
            answers = tuple([await self._answer(asked) for asked in read_questions(question.questions)])
            self._has_answered(number, question, None)
            return Answers(answers, by=self._by)

    def on_decided(self, decided: Decided) -> None:
        """Say that somebody else was first, or that it is no longer asked; if it was ever shown."""
        if (number := self._numbers.pop(decided.ask_id, None)) is not None:
            self._view.show_decided(number, decided)

    async def _answer(self, asked: Asked) -> str:
        self._view.show_question(asked)
        while (answer := read_answer(asked, await self._next_line())) is None:
            self._view.ask_again(asked)
        return answer

    async def _next_line(self) -> str:
        assert self._lines is not None
        while not self._lines:
            if self._closed:
                raise NoOperator("the operator has no more to say")
            self._is_awaited = True
            self._changed.unpark_all()
            await self._changed.park()
        return self._lines.popleft()

    def _has_answered(self, number: int, message: Permission | Question, allow: bool | None) -> None:
        self._numbers.pop(message.ask_id or "", None)
        self._view.show_answered(number, message, allow)

    @asynccontextmanager
    async def _turn(self, message: Permission | Question) -> AsyncIterator[int]:
        self._unanswered += 1
        try:
            async with self.turns.take(message):
                self._count += 1
                self._numbers[message.ask_id or ""] = self._count
                self._lines = deque()
                try:
                    yield self._count
                finally:
                    self._lines, self._is_awaited = None, False
        finally:
            self._unanswered -= 1
            self._changed.unpark_all()


class TerminalView(View):
    """Approvals between what the root agent says, for a human who talks to it."""

    def show_permission(self, number: int, message: Permission) -> None:
        """Show it in one line."""
        who = message.agent_name or "an agent"
        tool_input = shortened(message.tool_input.json.decode(errors="replace"), INPUT_SHOWN)
        note(one_line(f"{who} wants to use {message.tool_name}: {tool_input}"))
        self.ask_again(None)

    def show_questions(self, number: int, message: Question) -> None:
        """Show who asks."""
        note(f"{one_line(message.agent_name or 'an agent')} asks:")

    def show_question(self, asked: Asked) -> None:
        """Show the question and its options."""
        note(f"  {one_line(asked.text)}")
        for number, (label, description) in enumerate(zip(asked.labels, asked.descriptions, strict=True), 1):
            note(f"    {number}. {one_line(f'{label} ({description})' if description else label)}")
        self.ask_again(asked)

    def ask_again(self, asked: Asked | None) -> None:
        """Say what may be typed."""
        note("allow? [y/n]" if asked is None else "[a number, or words]")

    def show_answered(self, number: int, message: Permission | Question, allow: bool | None) -> None:
        """Say nothing: who has typed it knows."""

    def show_decided(self, number: int, decided: Decided) -> None:
        """Say it in one line."""
        note(f"(it {how_decided(decided)})")


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
