"""``attach``: a human at a hub or a MetaHub. Shows what happens, and answers what agents ask.

Asks are shown one at a time, and a line answers the one that is shown. So nothing is approved by
accident, what a human has typed before an ask is shown does not count; lines of a script wait for it.
Leaving is not an answer: whoever else is there, or comes, is asked.
"""

from __future__ import annotations

import os
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import trio
import typer
from attrs import evolve, field

from loopal_cluster.address import check_name
from loopal_cluster.cli import show
from loopal_cluster.cli.asking import (
    Asked,
    Turns,
    as_text,
    how_decided,
    read_answer,
    read_decision,
    read_questions,
    readable,
)
from loopal_cluster.cli.connect import AsJson, Connect, TokenFile, default_name, open_session
from loopal_cluster.cli.lines import LineReader
from loopal_cluster.cli.look import EventPrinter
from loopal_cluster.cli.run import async_command
from loopal_cluster.errors import ConfigError, NoOperator
from loopal_cluster.messages import Answers, Decided, Decision, Permission, Question
from loopal_cluster.records import define

__all__ = ["register"]

STDIN = 0
SHOWN = 20_000
"""Characters of a tool's input that are shown: more than anybody reads, less than floods a terminal."""


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""

    @async_command(app, "attach")
    async def attach(
        address: Annotated[
            str | None,
            typer.Argument(
                metavar="ADDRESS", help="A MetaHub or hub: HOST:PORT or unix:PATH. [default: the local hub]"
            ),
        ] = None,
        name: Annotated[
            str | None, typer.Option(metavar="NAME", help="What others are told. [default: the user]")
        ] = None,
        connect: Connect = None,
        token_file: TokenFile = None,
        as_json: AsJson = False,
    ) -> None:
        """Show events as they happen; answer permissions and questions.

        Permissions take y or n, and a reason after it if you like; questions the number of an option, or
        words. The end of input detaches.
        """
        if address is not None and connect is not None:
            raise ConfigError("ADDRESS and --connect are the same: give one of them")
        operator = Operator(check_name(name or default_name()), as_json)
        async with trio.open_nursery() as nursery:
            async with open_session(
                address or connect,
                token_file,
                name=operator.name,
                on_permission=operator.on_permission,
                on_question=operator.on_question,
                on_decided=operator.on_decided,
                acknowledge=False,
            ) as client:
                printer = EventPrinter(await client.subscribe(), as_json)
                where = client.welcome.hub or "the MetaHub"
                show.note(f"attached to {where} as {operator.name}; Ctrl-C detaches")
                operator.turns.open(client.acknowledge)
                nursery.start_soon(printer.follow)
                await operator.take_lines()
                show.note("end of input: detached")
                nursery.cancel_scope.cancel()


@define(eq=False)
class Operator:
    """Shows asks in turn, and answers each with the lines that come while it is shown."""

    name: str
    _as_json: bool
    turns: Turns = field(factory=Turns, init=False)
    """Opened when it has been said that this operator is attached; nothing is asked before."""
    _count: int = field(default=0, init=False)
    _numbers: dict[str, int] = field(factory=dict, init=False)
    """The number that an ask was shown with, by its id."""
    _in_hand: int = field(default=0, init=False)
    _idle: trio.lowlevel.ParkingLot = field(factory=trio.lowlevel.ParkingLot, init=False)
    _put_line: trio.MemorySendChannel[str] = field(init=False)
    _lines: trio.MemoryReceiveChannel[str] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._put_line, self._lines = trio.open_memory_channel[str](0)

    async def take_lines(self) -> None:
        """Bring lines to whoever asks, until there are no more and those given have been used."""
        reader, typed = LineReader(STDIN), os.isatty(STDIN)
        with self._put_line:
            while (line := await reader.readline()) is not None:
                if not typed:
                    await self._put_line.send(line)
                    continue
                try:
                    self._put_line.send_nowait(line)
                except trio.WouldBlock:
                    show.note("nothing is asked now")
        while self._in_hand:
            await self._idle.park()

    async def on_permission(self, message: Permission) -> Decision:
        """Ask the human; cancelled if somebody else answers first."""
        async with self._my_turn(message) as number:
            self._show_permission(number, message)
            while (decision := read_decision(await self._next_line())) is None:
                show.note("y or n?")
            self._tell(number, message, "allowed" if decision.allow else "denied", decision.allow)
            return evolve(decision, by=self.name)

    async def on_question(self, message: Question) -> Answers:
        """Ask the human; cancelled if somebody else answers first."""
        async with self._my_turn(message) as number:
            questions = read_questions(message.questions)
            self._show_questions(number, message, questions)
            answers = [await self._answer(asked) for asked in questions]
            self._tell(number, message, "answered", None)
            return Answers(tuple(answers), by=self.name)

    def on_decided(self, decided: Decided) -> None:
        """Somebody else was first, or it is no longer asked."""
        number = self._numbers.pop(decided.ask_id, None)
        if number is None:
            return  # it was never shown
        if self._as_json:
            _document("Decided", ask=number, ask_id=decided.ask_id, by=decided.by, allow=decided.allow)
        else:
            show.note(f"[{number}] {how_decided(decided)}")

    async def _answer(self, asked: Asked) -> str:
        if not self._as_json:
            _show_question(asked)
        while (answer := read_answer(asked, await self._next_line())) is None:
            show.note(f"a number from 1 to {len(asked.labels)}?" if asked.labels else "in words?")
        return answer

    async def _next_line(self) -> str:
        try:
            return await self._lines.receive()
        except trio.EndOfChannel:
            raise NoOperator("the operator has left") from None

    @asynccontextmanager
    async def _my_turn(self, message: Permission | Question) -> AsyncIterator[int]:
        self._in_hand += 1
        try:
            async with self.turns.take(message):
                self._count += 1
                self._numbers[message.ask_id or ""] = self._count
                _forget_what_was_typed()
                yield self._count
        finally:
            self._in_hand -= 1
            self._idle.unpark_all()

    # Showing.

    def _show_permission(self, number: int, message: Permission) -> None:
        value = readable(message.tool_input)
        if self._as_json:
            _document("Permission", **_asker(number, message), tool=message.tool_name, input=value)
            return
        show.note(f"[{number}] {_who(message)} asks to use {show.one_line(message.tool_name)}:")
        show.note(_indented(show.shortened(as_text(value), SHOWN)))
        show.note(f"[{number}] allow? y or n{_time_left(message)}")

    def _show_questions(self, number: int, message: Question, questions: list[Asked]) -> None:
        if self._as_json:
            _document("Question", **_asker(number, message), questions=readable(message.questions))
        else:
            what = "a question" if len(questions) == 1 else f"{len(questions)} questions"
            show.note(f"[{number}] {_who(message)} has {what}{_time_left(message)}:")

    def _tell(self, number: int, message: Permission | Question, what: str, allow: bool | None) -> None:
        if self._as_json:
            _document("Answered", ask=number, ask_id=message.ask_id, by=self.name, allow=allow)
        else:
            show.note(f"[{number}] {what}")


def _show_question(asked: Asked) -> None:
    show.note(_indented(asked.text))
    for number, (label, description) in enumerate(zip(asked.labels, asked.descriptions, strict=True), 1):
        described = f"{label}: {description}" if description else label
        show.note(f"    {number}  {show.one_line(described)}")
    if asked.several:
        show.note("    one or more numbers, or words:")


def _asker(number: int, message: Permission | Question) -> dict[str, Any]:
    return {
        "ask": number,
        "ask_id": message.ask_id,
        "asker": message.agent_name,
        "timeout_ms": message.timeout_ms,
    }


def _who(message: Permission | Question) -> str:
    return show.one_line(message.agent_name or "somebody")


def _time_left(message: Permission | Question) -> str:
    return "" if message.timeout_ms is None else f" (within {message.timeout_ms / 1000:g} s)"


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.split("\n"))


def _document(event: str, **data: Any) -> None:
    """One of ours among the events, in their shape."""
    show.document({"seq": None, "at": None, "hub": None, "agent": None, "event": event, "data": data})


def _forget_what_was_typed() -> None:
    if os.isatty(STDIN):
        termios.tcflush(STDIN, termios.TCIFLUSH)
