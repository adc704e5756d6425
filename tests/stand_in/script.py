"""What the stand-in for a model does: a script in the prompt says it, a line a move.

::

    >> say Some text.
    >> use loopal.ListHubs {}
    >> say They are: {result}
    >> hang Half a sentence and then nothing

A model is asked anew after each tool, with all that was said before, so nothing has to be remembered: as
many moves have been made since the prompt as tools have answered. ``{result}`` is what the last one said.
A prompt without a script is said back. ``anthropic.py`` and ``openai.py`` know the wire, ``server.py`` HTTP.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import frozen

__all__ = ["Asked", "Hang", "Move", "Say", "Use", "next_move", "prompt_of"]

MARK = ">> "


@frozen
class Asked:
    """What a request to a model comes down to, whichever API it came through."""

    prompt: str
    """The last thing that the user said."""
    results: tuple[str, ...]
    """What tools have answered since."""
    tools: tuple[str, ...]
    """The tools that the model may use, by the names it has to use."""


@frozen
class Say:
    """Say it, and end the turn."""

    text: str


@frozen
class Use:
    """Use a tool."""

    tool: str
    arguments: Mapping[str, Any]


@frozen
class Hang:
    """Begin to say it, and never go on."""

    text: str


Move = Say | Use | Hang


def prompt_of(texts: Sequence[str]) -> str:
    """The last of a user's texts that a person may have written: programs add some, in tags."""
    return next((text for text in reversed(texts) if not text.lstrip().startswith("<")), "")


def next_move(asked: Asked) -> Move:
    """What the model does now. What cannot be done is said, so that the test that wanted it sees why."""
    script = [line.removeprefix(MARK) for line in asked.prompt.splitlines() if line.startswith(MARK)]
    if not asked.tools:
        return Say("a title")  # agents ask for names of conversations, too, and offer no tools then
    if not script:
        return Say(f"You said: {asked.prompt}")
    done = len(asked.results)
    if done >= len(script):
        return Say(f"The script has ended after {len(script)} moves.")
    verb, _, rest = script[done].partition(" ")
    match verb:
        case "say":
            return Say(_filled(rest, asked.results))
        case "hang":
            return Hang(_filled(rest, asked.results))
        case "use":
            name, _, arguments = rest.partition(" ")
            tool = _offered(name, asked.tools)
            if tool is None:
                return Say(f"There is no tool {name}, but: {', '.join(asked.tools)}")
            return Use(tool, json.loads(arguments or "{}"))
        case _:
            return Say(f"The script has a move {verb!r}, and only say, use and hang are known.")


def _filled(text: str, results: Sequence[str]) -> str:
    return text.replace("{result}", results[-1] if results else "nothing")


def _offered(name: str, tools: Sequence[str]) -> str | None:
    """The tool as the agent calls it: ``loopal.Agent`` is ``mcp__loopal__Agent`` here, ``loopal_Agent`` there."""
    server, _, tool = name.rpartition(".")
    return next(
        (one for one in tools if one.endswith(tool) and (one == tool if not server else server in one)), None
    )
