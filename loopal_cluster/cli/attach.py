"""``attach``: a human at a hub or a MetaHub. Shows what happens, and answers what agents ask.

Asks are shown one at a time, and a line answers the one that is shown. So nothing is approved by
accident, what a human has typed before an ask is shown does not count; lines of a script wait for it.
Leaving is not an answer: whoever else is there, or comes, is asked.
"""

from __future__ import annotations

import os
import termios
from typing import Annotated, Any

import trio
import typer

from loopal_cluster.address import check_name
from loopal_cluster.cli import show
from loopal_cluster.cli.asking import (
    ApprovalQueue,
    Asked,
    View,
    as_text,
    how_decided,
    read_questions,
    readable,
)
from loopal_cluster.cli.connect import AsJson, Connect, TokenFile, default_name, open_session
from loopal_cluster.cli.lines import LineReader
from loopal_cluster.cli.look import EventPrinter
from loopal_cluster.cli.run import async_command
from loopal_cluster.errors import ConfigError
from loopal_cluster.messages import Decided, Permission, Question
from loopal_cluster.records import record

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
        by = check_name(name or default_name())
        queue = ApprovalQueue(NumberedView(by, as_json), by)
        async with trio.open_nursery() as nursery:
            async with open_session(
                address or connect,
                token_file,
                name=by,
                on_permission=queue.on_permission,
                on_question=queue.on_question,
                on_decided=queue.on_decided,
                acknowledge=False,
            ) as client:
                printer = EventPrinter(await client.subscribe(), as_json)
                where = client.welcome.hub or "the MetaHub"
                show.note(f"attached to {where} as {by}; Ctrl-C detaches")
                queue.turns.open(client.acknowledge)
                nursery.start_soon(printer.follow)
                await take_lines(queue)
                show.note("end of input: detached")
                nursery.cancel_scope.cancel()


async def take_lines(queue: ApprovalQueue) -> None:
    """Bring lines to what is asked, until there are no more and those given have been used."""
    reader, typed = LineReader(STDIN), os.isatty(STDIN)
    while (line := await reader.readline()) is not None:
        if not typed:
            await queue.give(line)
        elif not queue.offer(line):
            show.note("nothing is asked now")
    queue.close()
    await queue.until_done()


@record
class NumberedView(View):
    """Approvals among the events of a cluster, on a terminal or as JSON."""

    _by: str
    _as_json: bool

    def show_permission(self, number: int, message: Permission) -> None:
        """Show all that a human may want to know."""
        _forget_what_was_typed()
        value = readable(message.tool_input)
        if self._as_json:
            _document("Permission", **_asker(number, message), tool=message.tool_name, input=value)
            return
        show.note(f"[{number}] {_who(message)} asks to use {show.one_line(message.tool_name)}:")
        show.note(_indented(show.shortened(as_text(value), SHOWN)))
        show.note(f"[{number}] allow? y or n{_time_left(message)}")

    def show_questions(self, number: int, message: Question) -> None:
        """Show who asks, and for how long."""
        _forget_what_was_typed()
        count = len(read_questions(message.questions))
        if self._as_json:
            _document("Question", **_asker(number, message), questions=readable(message.questions))
        else:
            what = "a question" if count == 1 else f"{count} questions"
            show.note(f"[{number}] {_who(message)} has {what}{_time_left(message)}:")

    def show_question(self, asked: Asked) -> None:
        """Show it, with its options by number."""
        if self._as_json:
            return
        show.note(_indented(asked.text))
        for number, (label, description) in enumerate(zip(asked.labels, asked.descriptions, strict=True), 1):
            described = f"{label}: {description}" if description else label
            show.note(f"    {number}  {show.one_line(described)}")
        if asked.several:
            show.note("    one or more numbers, or words:")

    def ask_again(self, asked: Asked | None) -> None:
        """Say what would be an answer."""
        if asked is None:
            show.note("y or n?")
        else:
            show.note(f"a number from 1 to {len(asked.labels)}?" if asked.labels else "in words?")

    def show_answered(self, number: int, message: Permission | Question, allow: bool | None) -> None:
        """Say what this operator has decided."""
        if self._as_json:
            _document("Answered", ask=number, ask_id=message.ask_id, by=self._by, allow=allow)
        else:
            show.note(f"[{number}] {_WORDS[allow]}")

    def show_decided(self, number: int, decided: Decided) -> None:
        """Say who has decided it."""
        if self._as_json:
            _document("Decided", ask=number, ask_id=decided.ask_id, by=decided.by, allow=decided.allow)
        else:
            show.note(f"[{number}] {how_decided(decided)}")


_WORDS = {True: "allowed", False: "denied", None: "answered"}


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
