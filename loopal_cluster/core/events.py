"""What can happen to a core."""

from __future__ import annotations

import enum
from typing import NewType

from attrs import field

from loopal_cluster.frames import Frame
from loopal_cluster.records import record

__all__ = [
    "AgentEnded",
    "AgentNotStarted",
    "AgentStarted",
    "Closing",
    "DeadlineReached",
    "Event",
    "FrameReceived",
    "Link",
    "NotReached",
    "Peer",
    "PeerConnected",
    "PeerLost",
    "TokensGiven",
]

Peer = NewType("Peer", int)
"""One connection. A party that connects again is another peer."""


class Link(enum.Enum):
    """How a connection came to be."""

    ACCEPTED = "accepted"
    """By our listener; who it is, it has yet to say."""
    UPLINK = "uplink"
    """We dialled our MetaHub."""
    TRUSTED = "trusted"
    """The program that embeds this hub; it needs no token."""


@record
class PeerConnected:
    """A connection is up."""

    peer: Peer
    link: Link = Link.ACCEPTED
    source: str = ""
    """Where it comes from, for the log; nothing: from this process."""


@record
class FrameReceived:
    """A peer said something."""

    peer: Peer
    frame: Frame


@record
class PeerLost:
    """A connection ended, whoever ended it."""

    peer: Peer
    reason: str


@record
class TokensGiven:
    """The tokens of the cluster, if they are no longer those that the core was made with.

    A MetaHub takes each of them; a hub brings the first.
    """

    tokens: tuple[str, ...] = field(repr=False)


@record
class NotReached:
    """Our MetaHub could not be dialled; it is dialled again."""

    reason: str


@record
class Closing:
    """The hub is to end: stop every agent, start none."""


@record
class DeadlineReached:
    """``next_deadline()`` has come."""


@record
class AgentStarted:
    """What ``StartAgent`` asked for is running; ``peer`` is the connection to it."""

    agent_id: str
    peer: Peer


@record
class AgentNotStarted:
    """It could not be started."""

    agent_id: str
    reason: str


@record
class AgentEnded:
    """It is gone: its task ended, or its whole process group did. The last event about it."""

    agent_id: str
    reason: str
    """How it ended, for people: an exit status, the last words on stderr."""


Event = (
    PeerConnected
    | FrameReceived
    | PeerLost
    | NotReached
    | TokensGiven
    | DeadlineReached
    | Closing
    | AgentStarted
    | AgentNotStarted
    | AgentEnded
)
