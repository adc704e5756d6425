"""What is kept of the texts that others choose: names, ids, labels and reasons, each with a length.

They go into tables that outlive a message, into lists that everybody gets, onto terminals and into logs. So
they are made safe where they enter, in the record that brings them: a name or an id that is none is refused in
words; of what is only for people to read, a label or a reason, what is too long is cut, and a label is one line
of printable characters.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from loopal_cluster.address import MAX_ADDRESS, check_name, is_name, sanitize_name
from loopal_cluster.errors import InvalidAddress

__all__ = [
    "MAX_DESCRIPTION",
    "MAX_ID",
    "MAX_LABEL",
    "MAX_PATH",
    "MAX_REASON",
    "agent_name",
    "check_description",
    "check_id",
    "cut",
    "hub_name",
    "identity",
    "label",
    "path",
    "printable",
    "reason",
    "sender_name",
]

MAX_LABEL = 128
"""Characters of a label; an MCP tool's full name has up to 128."""
MAX_ID = 128
"""Characters of an id; a uuid has 36."""
MAX_REASON = 500
"""Characters of a reason: a few sentences."""
MAX_PATH = 4096
"""Characters of a directory, as on Linux."""
MAX_DESCRIPTION = 16384
"""Characters of all that a hub says of itself: capabilities, labels and agent types."""
ENTRY = 24
"""Characters that an entry of such a list counts at least."""


def cut(text: str, limit: int) -> str:
    """A text of at most ``limit`` characters; one that was cut ends in dots."""
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def printable(text: str) -> str:
    """A text as one line, every character that does not show itself written as its escape sequence."""
    # Also what turns the direction of writing around, and line ends that only Unicode knows.
    return text if text.isprintable() else "".join(map(_escaped, text))


def _escaped(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode()


def label(text: Any) -> Any:
    """A text that names something to people; None and what is no text stay what they are."""
    if not isinstance(text, str) or (len(text) <= MAX_LABEL and text.isprintable()):
        return text
    return cut(printable(text[: MAX_LABEL + 1]), MAX_LABEL)


def reason(text: Any) -> Any:
    """A text that says why; what is no text stays what it is."""
    return cut(text, MAX_REASON) if isinstance(text, str) else text


def identity(_: object, attribute: Any, value: Any) -> None:
    """A validator: an id is a text of a length, or missing."""
    if isinstance(value, str):
        check_id(value, attribute.name)


def check_id(text: str, what: str = "id") -> str:
    """Return ``text`` if it may be an id.

    Raises:
        InvalidAddress: it may not.
    """
    if len(text) <= MAX_ID and text.isprintable():
        return text
    raise InvalidAddress(f"{what} {text[:40]!r} is not a text of at most {MAX_ID} printable characters")


def agent_name(_: object, attribute: Any, value: Any) -> None:
    """A validator: the name of an agent on its hub, or missing."""
    if isinstance(value, str):
        check_name(value, "agent name")


def hub_name(_: object, attribute: Any, value: Any) -> None:
    """A validator: the name of a hub, or missing."""
    if isinstance(value, str):
        check_name(value, "hub name")


def path(_: object, attribute: Any, value: Any) -> None:
    """A validator: a directory of a length, or missing."""
    if isinstance(value, str) and len(value) > MAX_PATH:
        raise InvalidAddress(f"{attribute.name} has more than {MAX_PATH} characters")


def sender_name(text: Any) -> Any:
    """An agent's name, with or without its hub, as one that can be answered, whatever it calls itself."""
    if not isinstance(text, str):
        return text
    return _sender_name(text if len(text) <= MAX_ADDRESS else text[-MAX_ADDRESS:])


@lru_cache(maxsize=4096)
def _sender_name(text: str) -> str:
    # Base hubs do not check the names of their agents. Nobody can address such a one through a MetaHub anyway.
    hub, slash, agent = text.rpartition("/")
    agent = agent if is_name(agent) else sanitize_name(agent)
    if not slash:
        return agent
    return f"{hub if is_name(hub) else sanitize_name(hub)}/{agent}"


def check_description(
    capabilities: tuple[str, ...], labels: Mapping[str, str], agent_types: tuple[str, ...]
) -> None:
    """Let a hub say no more of itself than everybody can be told who lists the hubs.

    Raises:
        InvalidAddress: it says more, or in unprintable characters.
    """
    texts = [*capabilities, *agent_types, *labels, *labels.values()]
    size = sum(max(len(text), ENTRY) for text in texts)
    if size > MAX_DESCRIPTION:
        raise InvalidAddress(
            f"capabilities, labels and agent types have {size} characters together, "
            f"and may have {MAX_DESCRIPTION}"
        )
    for text in texts:
        if not text.isprintable():
            raise InvalidAddress(f"{text[:40]!r} among capabilities, labels and agent types is not printable")
