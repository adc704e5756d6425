"""Texts that are too large: refused where somebody says them, kept where they are what an agent has done.

A message or a prompt is refused, and its sender can send another. A result or a reply cannot be made again: its hub
keeps it in a file, and the outcome is ``failed`` in words that name the hub and the file. Every result comes by here,
also one from another hub, which may be of an older version or of the base dialect.
"""

from __future__ import annotations

from typing import Any

from loopal_cluster.core.context import HubPart
from loopal_cluster.core.effects import KeepText
from loopal_cluster.core.exchange import Refused
from loopal_cluster.errors import ErrorCode
from loopal_cluster.messages import Envelope, Message, Opaque, Permission, Question, Reply, UserContent
from loopal_cluster.outcomes import Done, Failed, Outcome, reason_of
from loopal_cluster.payloads import Error, Stream
from loopal_cluster.records import define
from loopal_cluster.texts import KEPT_BYTES, excess, json_bytes, too_large

__all__ = [
    "KeptTexts",
    "check_asked",
    "check_envelope",
    "check_prompt",
    "content_bytes",
    "outcome_bytes",
    "reply_bytes",
]

_AROUND_TEXT = len('{"text":}')
_AROUND_REPLY = len('{"outcome":{"outcome":"done","result":}}')
_AROUND_IMAGE = 64

QUOTED = 500
"""So many characters of an error that is too large are told all the same."""


@define
class KeptTexts(HubPart):
    """Puts what is too large for a line into files."""

    def outcome(self, agent: str, outcome: Outcome) -> Outcome:
        """The outcome of an agent; if it is too large, ``Failed`` in words that name the file."""
        limit = self._settings.limits.text_bytes
        if not (size := outcome_bytes(outcome, limit)):
            return outcome
        what = "its result" if isinstance(outcome, Done) else f"what it says of being {outcome.kind}"
        return self._failed(agent, what, size, outcome)

    def reply(self, agent: str, reply: Reply | Opaque) -> Reply | Opaque:
        """The same of a reply to an ask, which may not have been read."""
        said = reply if isinstance(reply, Opaque) else reply.outcome
        if not (size := reply_bytes(said, self._settings.limits.text_bytes)):
            return reply
        return Reply(self._failed(agent, "its reply", size, said))

    def payload(self, payload: Any) -> Any:
        """What an agent reports; if it is too large, that it was. It has been seen by nobody, so it is not kept."""
        limit = self._settings.limits.text_bytes
        match payload:
            case Opaque(json):
                size = len(json) if len(json) > limit else 0
            case Stream(text):
                size = excess(text, limit)
            case _:
                return payload
        return Error(too_large("an event", size, limit)) if size else payload

    def _failed(self, agent: str, what: str, size: int, said: Outcome | Opaque) -> Failed:
        words = too_large(what, size, self._settings.limits.text_bytes)
        if not isinstance(said, Opaque | Done):
            words = f"{reason_of(said)[:QUOTED]} ...; {words}"
        if not self._settings.kept:
            return Failed(f"{words}; it was not kept: this hub has no directory for it")
        suffix = "json" if isinstance(said, Opaque) else "txt"
        path = f"{self._settings.kept}/{agent}-{self._new_id()[:8]}.{suffix}"
        self._exchange.perform(KeepText(path, said.json if isinstance(said, Opaque) else _text_of(said)))
        # Not that it was kept: a disk may be full, which the hub's log tells.
        what = "it" if size <= KEPT_BYTES else f"the first {KEPT_BYTES} bytes of it"
        return Failed(f"{words}; look for {what} on hub '{self._settings.name}': {path}")


def check_envelope(envelope: Envelope, limit: int) -> None:
    """Let a message pass that is not too large.

    Raises:
        Refused: it is.
    """
    if size := content_bytes(envelope.content, limit):
        raise _refused("the message", size, limit)


def check_prompt(prompt: str | None, limit: int) -> None:
    """The same of a prompt."""
    if prompt is not None and (size := excess(prompt, limit)):
        raise _refused("the prompt", size, limit)


def check_asked(message: Message[Any], limit: int) -> None:
    """The same of what a human is shown."""
    match message:
        case Permission(tool_input=Opaque(json)):
            what = "the tool's input"
        case Question(questions=Opaque(json)):
            what = "the question"
        case _:
            return
    if len(json) > limit:
        raise _refused(what, len(json), limit)


def _refused(what: str, size: int, limit: int) -> Refused:
    return Refused(ErrorCode.OVERSIZED, too_large(what, size, limit))


# Sizes.


def content_bytes(content: UserContent | Opaque, limit: int) -> int:
    """The size of what a message says, its text with its pictures, if it is too large; else 0, as ``excess``."""
    if isinstance(content, Opaque):
        size = len(content.json) - _AROUND_TEXT
        return size if size > limit else 0
    if not content.images:
        return excess(content.text, limit)
    images = sum(len(image.media_type) + len(image.data) + _AROUND_IMAGE for image in content.images)
    size = json_bytes(content.text) + images
    return size if size > limit else 0


def outcome_bytes(outcome: Outcome, limit: int) -> int:
    """The same of an outcome: its result, or its error with the traceback."""
    size = excess(reason_of(outcome), limit)
    if size or not isinstance(outcome, Failed) or not outcome.traceback:
        return size
    if not excess(outcome.error + outcome.traceback, limit):
        return 0  # which is by two bytes generous
    size = json_bytes(outcome.error) + json_bytes(outcome.traceback)
    return size if size > limit else 0


def reply_bytes(reply: Outcome | Opaque, limit: int) -> int:
    """The same of a reply, which hubs leave unread."""
    if not isinstance(reply, Opaque):
        return outcome_bytes(reply, limit)
    size = len(reply.json) - _AROUND_REPLY
    return size if size > limit else 0


def _text_of(outcome: Outcome) -> str:
    """All that an outcome says, for a file."""
    if isinstance(outcome, Failed) and outcome.traceback:
        return f"{outcome.error}\n\n{outcome.traceback}"
    return outcome.result if isinstance(outcome, Done) else reason_of(outcome)
