"""What a core can ask for."""

from __future__ import annotations

from attrs import field

from loopal_cluster.core.events import Peer
from loopal_cluster.frames import Frame
from loopal_cluster.records import record

__all__ = [
    "Disconnect",
    "Effect",
    "Joined",
    "KeepText",
    "Log",
    "Send",
    "StartAgent",
    "StopAgent",
    "Watch",
]


@record
class Send:
    """Queue a frame for a peer. A notification may be dropped if the peer is slow."""

    peer: Peer
    frame: Frame
    size: int = field(default=0, eq=False, repr=False)
    """About how many bytes its line has, if what it says makes it long."""


@record
class Disconnect:
    """End a connection after what is queued for it. The core has already forgotten the peer."""

    peer: Peer
    reason: str
    wrong_token: bool = False
    """It has guessed; those who guess are told so late."""


@record
class Joined:
    """The MetaHub has accepted us."""


@record
class Watch:
    """End a connection when nothing shows any more that a client is at its other end."""

    peer: Peer
    pings: bool
    """It has promised to be heard of; else only the transport can tell."""


@record
class StartAgent:
    """Start an agent; answer with ``AgentStarted`` or ``AgentNotStarted``."""

    agent_id: str
    name: str
    agent_type: str
    cwd: str
    supervised: bool = True
    """Whether it is to ask before it acts."""


@record
class StopAgent:
    """End a started agent: close its connection, and see to it that it is gone.

    Within ``end_grace`` its process group is terminated, then killed. ``AgentEnded`` follows.
    """

    agent_id: str


@record
class KeepText:
    """Write a file that only its owner can read, before anybody is told its name."""

    path: str
    text: str | bytes


@record
class Log:
    """Something an operator may want to know. ``level`` is a name of ``logging``."""

    level: str
    text: str


Effect = Send | Disconnect | Joined | Watch | StartAgent | StopAgent | KeepText | Log
