"""Waits for an agent's end: any number, each until its own time."""

from __future__ import annotations

from attrs import field

from loopal_cluster.core.agents import AgentRecord
from loopal_cluster.core.calls import Origin
from loopal_cluster.core.context import HubPart
from loopal_cluster.core.events import Peer
from loopal_cluster.core.pending import Pending
from loopal_cluster.core.steps import WaitDue
from loopal_cluster.messages import Waited
from loopal_cluster.records import define

__all__ = ["Waits"]


@define
class Waits(HubPart):
    """Who waits for which agent. The agent's record knows the same, in ``waiters``."""

    _waits: Pending[Origin, AgentRecord] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._waits = Pending(self._timers, WaitDue)

    def park(
        self, record: AgentRecord, origin: Origin, timeout: float, now: float, *, brief: bool = False
    ) -> None:
        """``origin`` is answered when the agent has ended, or after ``timeout`` seconds."""
        record.waiters[origin] = brief
        self._waits.add(origin, record, now + timeout)

    def __len__(self) -> int:
        return len(self._waits)

    def on_due(self, origin: Origin) -> None:
        """The wait is over, the agent is not."""
        record = self._waits.pop(origin)
        if record is not None:
            del record.waiters[origin]
            waited = Waited(
                output="(agent timed out)", timed_out=True, agent=str(record.address), agent_id=record.id
            )
            self._exchange.answer(origin, waited)

    def forget(self, peer: Peer, request_id: int | None = None) -> None:
        """A waiter is gone, or no longer waits for this request."""
        if request_id is None:
            gone = [origin for origin in self._waits if origin.peer == peer]
        else:
            gone = [Origin(peer, request_id)]
        for origin in gone:
            if (record := self._waits.pop(origin)) is not None:
                del record.waiters[origin]

    def take(self, record: AgentRecord) -> dict[Origin, bool]:
        """The agent has ended: hand out who waits for it, to be told, and whether in brief."""
        waiters, record.waiters = record.waiters, {}
        for origin in waiters:
            self._waits.pop(origin)
        return waiters
