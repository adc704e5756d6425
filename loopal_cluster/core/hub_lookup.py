"""What is asked of a hub about its agents: one of them, all of them, the hub itself.

An agent is looked for here, among the outcomes that are kept, and then, over the MetaHub, on the other hubs. To add a
method that only looks: its record in ``messages.py``, a handler here, and its row in ``requests``.
"""

from __future__ import annotations

from loopal_cluster.address import Address
from loopal_cluster.core.agents import AgentRecord, AgentTree
from loopal_cluster.core.approvals import Approvals
from loopal_cluster.core.calls import Origin
from loopal_cluster.core.context import HubPart
from loopal_cluster.core.events import Peer
from loopal_cluster.core.exchange import Refused
from loopal_cluster.core.handlers import Handlers, serve
from loopal_cluster.core.hub_routing import HubRouting
from loopal_cluster.core.parties import AgentParty, ClientParty, MetaHubParty
from loopal_cluster.core.patience import seconds_for
from loopal_cluster.core.reports import Reports
from loopal_cluster.core.results import Results
from loopal_cluster.core.supervisor import Supervisor
from loopal_cluster.core.timeline import Timeline
from loopal_cluster.core.uplink import Uplink
from loopal_cluster.core.waits import Waits
from loopal_cluster.errors import ErrorCode
from loopal_cluster.messages import (
    OK,
    Addressed,
    AgentDetails,
    AgentInfo,
    AgentNames,
    CancelAgent,
    Control,
    ControlAgent,
    Found,
    HubTopology,
    Interrupt,
    InterruptAgent,
    ListAgents,
    ListHubs,
    MetaTopology,
    Ping,
    Resolve,
    ShutdownAgent,
    Status,
    StatusInfo,
    Subscribe,
    Topology,
    WaitAgent,
)
from loopal_cluster.records import define, evolve

__all__ = ["HubLookup", "only_some"]


@define
class HubLookup(HubPart):
    """Answers what is asked about agents and about the hub."""

    _timeline: Timeline
    _uplink: Uplink
    _approvals: Approvals
    _agents: AgentTree
    _results: Results
    _waits: Waits
    _reports: Reports
    _supervisor: Supervisor
    _routing: HubRouting

    def requests(self) -> Handlers:
        """The requests about one agent, and those that look."""
        anybody = AgentParty, ClientParty, MetaHubParty
        return (
            serve(WaitAgent, self._addressed, *anybody)
            | serve(AgentInfo, self._addressed, *anybody)
            | serve(ControlAgent, self._addressed, *anybody)
            | serve(InterruptAgent, self._addressed, *anybody)
            | serve(ShutdownAgent, self._addressed, *anybody)
            | serve(CancelAgent, self._addressed, *anybody)
            | serve(ListAgents, self._list_agents, *anybody)
            | serve(Topology, self._topology, *anybody)
            | serve(Status, self._status, *anybody)
            | serve(Ping, self._ping, AgentParty, ClientParty)
            | serve(Subscribe, self._subscribe, AgentParty, ClientParty)
            | serve(ListHubs, self._ask_meta_hub, AgentParty, ClientParty)
            | serve(MetaTopology, self._ask_meta_hub, AgentParty, ClientParty)
            | serve(Resolve, self._ask_meta_hub, AgentParty, ClientParty)
            | serve(Resolve, self._resolve, MetaHubParty)
        )

    # The hub.

    def _list_agents(self, origin: Origin, party: object, message: ListAgents, now: float) -> None:
        names = tuple(str(record.address) for record in self._agents)
        self._exchange.answer(origin, AgentNames(names))

    def _topology(self, origin: Origin, party: object, message: Topology, now: float) -> None:
        nodes = tuple(record.node() for record in self._agents)
        self._exchange.answer(origin, HubTopology(nodes))

    def _status(self, origin: Origin, party: object, message: Status, now: float) -> None:
        status = StatusInfo(
            agent_count=len(self._agents),
            uplink=self._uplink.info(self._epoch),
            hub=self._settings.name,
            agent_types=self._settings.agent_types,
            capabilities=self._settings.capabilities,
            late_answers=self._exchange.late_answers,
            waiting=only_some(
                approvals=len(self._approvals),
                waits=len(self._waits),
                reports=len(self._reports),
                for_meta_hub=self._uplink.outstanding(),
            ),
        )
        self._exchange.answer(origin, status)

    def _ping(self, origin: Origin, party: object, message: Ping, now: float) -> None:
        self._exchange.answer(origin, OK)

    def _subscribe(self, origin: Origin, party: object, message: Subscribe, now: float) -> None:
        self._exchange.answer(origin, self._timeline.subscribe(origin.peer, message.since, now))

    # The cluster.

    def _ask_meta_hub(
        self, origin: Origin, party: object, message: ListHubs | MetaTopology | Resolve, now: float
    ) -> None:
        self._routing.escalate(origin, message, now)

    def _resolve(self, origin: Origin, party: MetaHubParty, message: Resolve, now: float) -> None:
        record = self._agents.local(message.agent_name)
        self._exchange.answer(origin, Found(found=record is not None and record.peer is not None))

    # One agent.

    def _addressed(self, origin: Origin, party: object, message: Addressed, now: float) -> None:
        """Anything about one agent: here if it is here, else up, and down to the hub that has it."""
        address = self._routing.own(message.agent)
        agent_id = getattr(message, "agent_id", None)
        # Named on this hub, or asked by the MetaHub, it is an agent of this hub and no shadow.
        only_here = self._routing.is_own(message.agent) or isinstance(party, MetaHubParty)
        if agent_id is not None:
            record = self._agents.get(agent_id)
        else:
            record = self._agents.local(address.agent) if only_here else self._agents.find(address)
        may_be_shadow = isinstance(message, WaitAgent | CancelAgent | AgentInfo)
        if record is not None and (record.hub is None or may_be_shadow):
            self._on_live_agent(origin, message, record, now)
        elif record is None and self._answer_finished(origin, message, address, agent_id, only_here):
            pass
        elif not only_here and self._uplink.expected:
            target = address if record is None else record.address
            timeout = seconds_for(message, self._settings.timeouts)
            self._routing.escalate(origin, evolve(message, agent=target), now, timeout=timeout)
        else:
            raise self._routing.not_found(address)

    def _answer_finished(
        self, origin: Origin, message: Addressed, address: Address, agent_id: str | None, only_here: bool
    ) -> bool:
        """Answer from the outcomes we keep; False if that is not for us to say."""
        finished = self._results.find(address, agent_id)
        if finished is None:
            return False
        if agent_id is None and finished.address.hub is not None and (only_here or address.hub is not None):
            return False  # that hub may run another agent of the name by now
        if isinstance(message, WaitAgent | CancelAgent):
            self._exchange.answer(origin, finished.waited(brief=message.brief))
        elif isinstance(message, AgentInfo):
            self._exchange.answer(origin, finished.details(brief=message.brief))
        else:
            return False
        return True

    def _on_live_agent(self, origin: Origin, message: Addressed, record: AgentRecord, now: float) -> None:
        match message:
            case WaitAgent():
                timeout = seconds_for(message, self._settings.timeouts)
                self._waits.park(record, origin, timeout, now, brief=message.brief)
            case AgentInfo():
                self._exchange.answer(origin, details(record))
            case CancelAgent(reason=reason, timed_out=timed_out):
                timeout = self._settings.timeouts.spawn_timeout
                self._waits.park(record, origin, timeout, now, brief=message.brief)
                self._supervisor.stop(record, reason, now, timed_out=timed_out)
            case ShutdownAgent():
                record.stoppers.append(origin)
                self._supervisor.stop(record, "shutdown", now)
            case InterruptAgent():
                self._exchange.notify(running(record), Interrupt())
                self._exchange.answer(origin, OK)
            case ControlAgent(command=command):
                deadline = now + self._settings.timeouts.call_timeout
                self._exchange.call(running(record), Control(command), origin, deadline)


def details(record: AgentRecord) -> AgentDetails:
    """What is said of a live agent."""
    node = record.node()
    return AgentDetails(
        name=node.name,
        lifecycle=node.lifecycle,
        parent=node.parent,
        children=node.children,
        model=node.model,
        id=node.id,
        type=node.type,
        hub=node.hub,
    )


def running(record: AgentRecord) -> Peer:
    """The connection of an agent that is up.

    Raises:
        Refused: it is not.
    """
    if record.peer is None or not record.is_up:
        raise Refused(ErrorCode.AGENT_NOT_FOUND, f"agent '{record.name}' is not up yet")
    return record.peer


def only_some(**counts: int) -> dict[str, int]:
    """The counts that are not 0."""
    return {name: count for name, count in counts.items() if count}
