"""What a hub tells its MetaHub of the agents that it runs: all when it joins, then what has changed."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice

from attrs import field

from loopal_cluster.core.agents import AgentRecord, AgentTree
from loopal_cluster.core.calls import Call
from loopal_cluster.core.context import HubPart
from loopal_cluster.core.exchange import Refused
from loopal_cluster.core.steps import Announcing, HubThen
from loopal_cluster.frames import Failure, Response
from loopal_cluster.messages import Announce, Announced
from loopal_cluster.records import define

__all__ = ["Announcements"]

CHUNK = 500
"""Agents that are announced at a time, so that the MetaHub looks after others in between."""


@define
class Announcements(HubPart):
    """One announcement at a time; what changes meanwhile goes with the next."""

    _agents: AgentTree
    _wanted: Callable[[], bool]
    """Whether the MetaHub takes announcements: those of the base dialect do not."""
    _call: Callable[[Announce, Announcing, float], Call[HubThen]]
    """``Uplink.call``."""
    _changes: dict[str, Announced | None] = field(factory=dict, init=False)
    """What the MetaHub does not know yet, by agent name; None for one that has ended."""
    _announcing: bool = field(default=False, init=False)
    _whole: bool = field(default=False, init=False)
    """The next says all that this hub runs."""

    def start_over(self) -> None:
        """Take it that the MetaHub knows nothing: this connection is new."""
        self._announcing = False
        self._whole = True

    def agent_started(self, record: AgentRecord, now: float) -> None:
        """Let the MetaHub know of a new agent."""
        self._changes[record.name] = announced(record, now)
        self.send(now)

    def agent_ended(self, record: AgentRecord, now: float) -> None:
        """Let the MetaHub forget an agent."""
        self._changes[record.name] = None
        self.send(now)

    def on_answer(self, answer: Response | Failure, now: float) -> None:
        """The MetaHub has heard: tell it what has changed meanwhile. If not, tell it all, later."""
        self._announcing = False
        if isinstance(answer, Response):
            self.send(now)
        else:
            self._whole = True

    def send(self, now: float, *, even_nothing: bool = False) -> None:
        """Announce what there is to say, unless an announcement is on its way."""
        if not self._wanted():
            self._changes.clear()
            return
        if self._announcing or not (self._changes or self._whole or even_nothing):
            return
        if self._whole:
            running = [record for record in self._agents.here() if record.is_up]
            self._changes = {record.name: announced(record, now) for record in running}
        chunk = dict(islice(self._changes.items(), CHUNK))
        message = Announce(
            started=tuple(entry for entry in chunk.values() if entry is not None),
            ended=tuple(name for name, entry in chunk.items() if entry is None),
            whole=self._whole,
        )
        for name in chunk:
            del self._changes[name]
        try:
            self._call(message, Announcing(), now + self._settings.timeouts.call_timeout)
        except Refused:  # too much is being asked already: tell it all at the next heartbeat
            self._whole = True
            return
        self._whole = False
        self._announcing = True


def announced(record: AgentRecord, now: float) -> Announced:
    """An agent, for the MetaHub's directory."""
    parent = None if record.parent is None else str(record.parent)
    up_ms = int((now - record.begun_at) * 1000)
    return Announced(name=record.name, id=record.id, type=record.type, parent=parent, up_ms=up_ms)
