"""What to do next, as records: with the answer to a call, or when an instant comes.

They print, compare and can be purged, which closures cannot.
"""

from __future__ import annotations

from collections.abc import Hashable

from loopal_cluster.core.calls import Origin
from loopal_cluster.core.events import Peer
from loopal_cluster.messages import MetaReconcile, Opaque, UserContent
from loopal_cluster.outcomes import Cancelled, TimedOut
from loopal_cluster.records import record

__all__ = [
    "AgentDue",
    "Announcing",
    "ApprovalDue",
    "Approving",
    "BaseSpawnDue",
    "Claiming",
    "Delivering",
    "DeliveryDue",
    "FarewellDue",
    "FreeingName",
    "Gathering",
    "HandshakeDue",
    "HealthDue",
    "HeartbeatDue",
    "HubThen",
    "Identifying",
    "IdleDue",
    "Initializing",
    "Joining",
    "LeaseDue",
    "Leaving",
    "MetaHubThen",
    "OwedDue",
    "Probing",
    "Reconciling",
    "RejoinDue",
    "ReportDue",
    "Reporting",
    "Resolving",
    "RetryDue",
    "Revoking",
    "ShownDue",
    "ShuttingDown",
    "SpawningRemotely",
    "StartDue",
    "Starting",
    "StartingBase",
    "StoppingBase",
    "StoppingRemotely",
    "Telling",
    "Timer",
    "WaitDue",
]

# With the answer to a call.


@record
class Delivering:
    """Tell the sender, if one waits, whether the message was accepted."""

    origin: Origin | None
    source: str
    target: str
    content: UserContent | Opaque
    receipt: Hashable = None
    """What remembers the message, if it came from another hub."""


@record
class Approving:
    """An operator, or a MetaHub or hub with operators, has decided."""

    ask_id: str


@record
class Joining:
    """The MetaHub has accepted or refused us."""


@record
class Probing:
    """A MetaHub of the base dialect has shown whether it really knows us."""


@record
class Announcing:
    """The MetaHub knows what we run; if that has changed meanwhile, tell it again."""


@record
class Leaving:
    """The MetaHub has heard our farewell, or never will."""


@record
class Initializing:
    """The agent's program is there; now it may begin."""

    agent_id: str


@record
class Starting:
    """The agent has begun."""

    agent_id: str


@record
class SpawningRemotely:
    """The other hub has started our agent or refused."""

    agent_id: str


@record
class Reporting:
    """The parent's hub knows the outcome."""

    agent_id: str


@record
class ShuttingDown:
    """The agent has been asked to end and has had its time."""

    agent_id: str


@record
class StoppingRemotely:
    """The other hub has stopped our agent."""

    agent_id: str


@record
class FreeingName:
    """A hub of the base dialect has said whether it has an agent of the name that ours is to have."""

    hub: str
    agent_id: str


@record
class StartingBase:
    """It has started our agent or refused."""

    hub: str
    agent_id: str


@record
class Identifying:
    """It has said whose child an agent is that we want to stop."""

    origin: Origin | None
    hub: str
    agent_id: str
    ending: Cancelled | TimedOut


@record
class StoppingBase:
    """It knows no cancel, and has been asked to shut an agent down."""

    origin: Origin | None
    hub: str
    agent_id: str | None
    """None: it was named by name only, and we know nothing of it."""


@record
class Revoking:
    """The other hub does not run an agent whose spawn we have given up."""

    agent_id: str
    hub: str


@record
class Reconciling:
    """Another hub has compared what we run for each other."""

    message: MetaReconcile
    anew: bool
    """The MetaHub has started anew, and with it every base hub."""


@record
class Claiming:
    """A hub whose name another one wants lives, or does not."""

    hub: str


@record
class Resolving:
    """A hub of the base dialect has said whether it has the agent."""

    agent: str
    hub: str


@record
class Gathering:
    """One hub's part of an answer."""

    gather_id: int
    hub: str


@record
class Telling:
    """A hub has heard the news; nothing follows."""

    hub: str


HubThen = (
    Origin
    | Delivering
    | Approving
    | Joining
    | Probing
    | Announcing
    | Leaving
    | Initializing
    | Starting
    | SpawningRemotely
    | Reporting
    | ShuttingDown
    | StoppingRemotely
    | Revoking
    | Reconciling
)

MetaHubThen = (
    Origin
    | Claiming
    | FreeingName
    | StartingBase
    | Identifying
    | StoppingBase
    | Revoking
    | Approving
    | Resolving
    | Gathering
    | Telling
)

# When an instant comes.


@record
class FarewellDue:
    """A hub that closes waits no longer for a MetaHub that is away."""


@record
class HandshakeDue:
    """A connection that has not registered is cut."""

    peer: Peer


@record
class HeartbeatDue:
    """Say that we are alive."""


@record
class WaitDue:
    """A wait ends before its agent does."""

    origin: Origin


@record
class ApprovalDue:
    """A permission or a question is answered in words."""

    ask_id: str


@record
class ShownDue:
    """Nobody has acknowledged that a permission or a question is shown."""

    ask_id: str


@record
class StartDue:
    """An agent that is not up by now has failed to start."""

    agent_id: str


@record
class DeliveryDue:
    """A message has waited long enough for its agent to come up."""

    agent_id: str
    number: int


@record
class AgentDue:
    """An agent has had all the time that its spawn gave it."""

    agent_id: str


@record
class IdleDue:
    """See whether an agent has reported nothing for too long."""

    agent_id: str


@record
class ReportDue:
    """Try again to bring an outcome to the parent's hub."""

    agent_id: str


@record
class RetryDue:
    """Ask again what a restarted MetaHub could not yet know."""


@record
class LeaseDue:
    """We have been without a MetaHub for too long."""


@record
class OwedDue:
    """The hub has not come back to hear that a spawn was given up."""

    hub: str
    agent_id: str


@record
class HealthDue:
    """See whether a hub has been silent for too long."""

    hub: str


@record
class BaseSpawnDue:
    """An agent of a hub of the base dialect that is not up by now has failed to start."""

    hub: str
    agent_id: str


@record
class RejoinDue:
    """A hub whose connection ended has not come back."""

    hub: str


Timer = (
    FarewellDue
    | HandshakeDue
    | HeartbeatDue
    | WaitDue
    | ApprovalDue
    | ShownDue
    | StartDue
    | DeliveryDue
    | AgentDue
    | IdleDue
    | ReportDue
    | RetryDue
    | LeaseDue
    | OwedDue
    | HealthDue
    | RejoinDue
    | BaseSpawnDue
)
