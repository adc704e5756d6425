"""How the words of others are put before a model: framed, and so that they cannot leave their frame.

A model reads headers and texts as one text. So each line of what another one has said is quoted, and who has said it
stands in a header, which no text can imitate: a line that is not quoted is the hub's.
"""

from __future__ import annotations

import re

from loopal_cluster.agents.inbox import Received
from loopal_cluster.completions import AGENT_COMPLETED, unwrap_result
from loopal_cluster.labels import printable
from loopal_cluster.messages import AgentSource, ChannelSource, HumanSource, Source, SystemSource

__all__ = ["author_of", "as_prompt", "name_of", "quoted"]

MARK = "> "
_ORDERS = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""Control characters but tab and what ends a line; and those that turn the direction of writing around."""


def quoted(text: str) -> str:
    """A text of somebody else, every line of it marked."""
    # ``splitlines`` knows all ends of lines that there are, so that none is left to make a line without a mark.
    lines = [_ORDERS.sub(lambda match: printable(match[0]), line) for line in text.splitlines()]
    return "\n".join(f"{MARK}{line}" for line in lines or [""])


def author_of(source: Source) -> str:
    """Who has written a message, for a header: an agent that is called ``human`` is none."""
    match source:
        case AgentSource(name):
            return f"agent '{printable(name)}'"
        case HumanSource():
            return "a human"
        case ChannelSource(channel, sender):
            return f"'{printable(sender)}' in the channel '{printable(channel)}'"
        case SystemSource():
            return "the hub"
        case _:
            return "a timer"


def name_of(source: Source) -> str:
    """The same as an address that can be answered, if there is one."""
    match source:
        case AgentSource(name):
            return printable(name)
        case HumanSource():
            return "human"
        case ChannelSource(channel, sender):
            return printable(f"{sender} (in {channel})")
        case SystemSource():
            return "hub"
        case _:
            return "timer"


def as_prompt(received: Received) -> str:
    """A message as the prompt of a turn: a human's is one, anybody else's is shown to the model as what it is."""
    if isinstance(received.source, HumanSource):
        return received.text
    if received.source == AGENT_COMPLETED and (report := unwrap_result(received.text)) is not None:
        return f"Agent '{printable(report[0])}', which you have started, has ended:\n{quoted(report[1])}"
    waits = ", who waits for your answer" if received.wants_reply else ""
    return f"A message from {author_of(received.source)}{waits}:\n{quoted(received.text)}"
