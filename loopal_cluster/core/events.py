"""What can happen to a core."""

from __future__ import annotations

import enum
from typing import NewType

from attrs import frozen

from loopal_cluster.frames import Frame

__all__ = [
    "AgentEnded",
    "AgentNotStarted",
    "AgentStarted",
    "Closing",
    "DeadlineReached",
    "Event",
    "FrameReceived",
    "Link",
    "Peer",
    "PeerConnected",
    "PeerLost",
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


@frozen
class PeerConnected:
    """A connection is up."""

    peer: Peer
    link: Link = Link.ACCEPTED


@frozen
class FrameReceived:
    """A peer said something."""

    peer: Peer
    frame: Frame


@frozen
class PeerLost:
    """A connection ended, whoever ended it."""

    peer: Peer
    reason: str


@frozen
class Closing:
    """The hub is to end: stop every agent, start none."""


@frozen
class DeadlineReached:
    """``next_deadline()`` has come."""


@frozen
class AgentStarted:
    """What ``StartAgent`` asked for is running; ``peer`` is the connection to it."""

    agent_id: str
    peer: Peer


@frozen
class AgentNotStarted:
    """It could not be started."""

    agent_id: str
    reason: str


@frozen
class AgentEnded:
    """It is gone: its task ended, or its whole process group did. The last event about it."""

    agent_id: str
    reason: str
    """How it ended, for people: an exit status, the last words on stderr."""


Event = (
    PeerConnected
    | FrameReceived
    | PeerLost
    | DeadlineReached
    | Closing
    | AgentStarted
    | AgentNotStarted
    | AgentEnded
)
