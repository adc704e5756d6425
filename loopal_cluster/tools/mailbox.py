"""An agent's inbox as a model reads it: mails, some of which want a reply.

A model cannot wait for a message as a function does, nor hold a ``Received`` in its hands: it reads what is
there, and answers an ask by the id that its mail has.
"""

from __future__ import annotations

from typing import Final

import trio
from attrs import field

from loopal_cluster.agents.inbox import Inbox, Received
from loopal_cluster.completions import AGENT_COMPLETED, unwrap_result
from loopal_cluster.errors import ClusterError
from loopal_cluster.records import define, record
from loopal_cluster.tools.quoting import author_of, name_of
from loopal_cluster.wire.contents import check_text

__all__ = ["Mail", "Mailbox", "NotWaiting"]

MAILS: Final = 50
"""So many are read at once."""
MAILS_LENGTH: Final = 60_000
"""Characters. Above so many no further mail is read: some clients cut a tool's result at 25,000 tokens."""


class NotWaiting(ClusterError):
    """There is nobody, or nobody any more, who waits for this reply."""


@record
class Mail:
    """A message that has been read."""

    sender: str
    """An address that can be answered, or ``human``, ``hub``, ..."""
    text: str
    author: str
    """Who that is, for a header."""
    ended: str | None = None
    """The name of the agent whose outcome it is, if a hub has sent it for that reason."""
    ask_id: str | None = None
    """What to reply with, if its sender waits for a reply."""


@define(eq=False)
class Mailbox:
    """Reads an inbox, and remembers the asks that have been read and not answered."""

    _inbox: Inbox
    _asks: dict[str, Received] = field(factory=dict, init=False)
    _last_ask: int = field(default=0, init=False)

    def __len__(self) -> int:
        """How many messages have not been read."""
        return len(self._inbox)

    async def read(self, seconds: float = 0.0) -> list[Mail]:
        """What is there, oldest first; if there is nothing, what comes within so many seconds."""
        mails = self._read_now()
        if not mails:
            with trio.move_on_after(seconds):
                # One task of several that wait may find that another has taken all.
                first = await self._inbox.get()
                mails = [self._mail(first), *self._read_now(len(first.text))]
        return mails

    def reply(self, ask_id: str, text: str) -> str:
        """Answer an ask; return who had asked.

        Raises:
            NotWaiting: nobody waits for that.
            TextTooLong: the reply is too large; the ask still waits for another.
        """
        check_text("the reply", text)
        received = self._asks.pop(ask_id, None)
        if received is None or not received.is_open:
            raise NotWaiting(
                f"no message '{ask_id[:80]}' waits for a reply: it has one, or its sender no longer waits"
            )
        received.reply(text)
        return name_of(received.source)

    def discard_result(self, agent: str, text: str) -> None:
        """Forget that an agent has ended so: whoever reads this knows it already."""
        name = agent.rpartition("/")[2]
        self._inbox.discard(
            lambda received: (
                received.source == AGENT_COMPLETED and unwrap_result(received.text) == (name, text)
            )
        )

    def _read_now(self, length: int = 0) -> list[Mail]:
        mails: list[Mail] = []
        while len(mails) < MAILS and length < MAILS_LENGTH:
            if (received := self._inbox.get_nowait()) is None:
                break
            mails.append(self._mail(received))
            length += len(received.text)
        return mails

    def _mail(self, received: Received) -> Mail:
        if received.source == AGENT_COMPLETED and (report := unwrap_result(received.text)) is not None:
            return Mail("hub", report[1], "the hub", ended=report[0])
        if not received.wants_reply:
            return Mail(name_of(received.source), received.text, author_of(received.source))
        self._asks = {key: ask for key, ask in self._asks.items() if ask.is_open}
        self._last_ask += 1
        ask_id = f"ask-{self._last_ask}"
        self._asks[ask_id] = received
        return Mail(name_of(received.source), received.text, author_of(received.source), ask_id=ask_id)
