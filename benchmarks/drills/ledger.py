"""What was asked, what was answered, and whether that is true."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable

import trio
from attrs import define, field, frozen

from loopal_cluster import AgentError, ConnectionLost, ErrorCode, RemoteError

__all__ = ["DONE", "NO_ANSWER", "TOO_SLOW", "Balance", "Ledger", "answer_to"]

DONE = "done"
NO_ANSWER = "no answer"
TOO_SLOW = "too slow"
OPEN = (ErrorCode.CONNECTION_LOST, ErrorCode.DEADLINE_EXCEEDED, ErrorCode.CANCELLED)
"""These say openly that nobody knows whether it was carried out (``docs/protocol.md``, section 4)."""
REFUSALS = frozenset(code.value for code in ErrorCode if code not in OPEN)
"""All others say that it was not."""


async def answer_to(request: Callable[[], Awaitable[object]]) -> str:
    """What a request was answered with: ``done``, the kind of a refusal, an outcome's class, ..."""
    try:
        await request()
    except ConnectionLost:
        return ErrorCode.CONNECTION_LOST.value
    except RemoteError as error:
        return error.code.value
    except AgentError as error:
        return type(error).__name__
    except trio.TooSlowError:
        return TOO_SLOW
    return DONE


@frozen
class Balance:
    """Answers compared with deeds."""

    lost: int
    """No answer, or yes and not carried out."""
    doubled: int
    """Carried out more than once, or answered with no and carried out."""


@define
class Ledger:
    """The requests of a drill, by key."""

    answers: dict[str, str | None] = field(factory=dict)
    """None: none yet."""

    async def ask(self, key: str, request: Callable[[], Awaitable[object]]) -> None:
        """Make a request, and keep its answer."""
        self.answers[key] = None
        self.answers[key] = await answer_to(request)

    @property
    def open(self) -> int:
        """Requests without an answer."""
        return sum(answer is None for answer in self.answers.values())

    @property
    def answered(self) -> int:
        """Requests with an answer."""
        return len(self.answers) - self.open

    def counts(self) -> dict[str, int]:
        """How often each answer was given."""
        return dict(Counter(answer or NO_ANSWER for answer in self.answers.values()))

    def missing(self, journal: Iterable[str]) -> int:
        """Requests answered with yes that have not been carried out (yet)."""
        deeds = Counter(journal)
        return sum(answer == DONE and not deeds[key] for key, answer in self.answers.items())

    def balance(self, journal: Iterable[str]) -> Balance:
        """Compare with what was done."""
        deeds = Counter(journal)
        refused = [key for key, answer in self.answers.items() if answer in REFUSALS]
        return Balance(
            lost=self.open + self.missing(deeds),
            doubled=sum(deeds[key] - 1 for key in self.answers if deeds[key] > 1)
            + sum(deeds[key] > 0 for key in refused),
        )
