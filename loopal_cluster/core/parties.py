"""Who a connection belongs to. Known from its registration, never from a field in a message."""

from __future__ import annotations

import enum
import hmac

from attrs import field

from loopal_cluster.core.agents import AgentRecord
from loopal_cluster.core.exchange import Refused
from loopal_cluster.core.membership import HubRecord
from loopal_cluster.errors import ErrorCode
from loopal_cluster.messages import Message, Protocol, Role
from loopal_cluster.records import define

__all__ = [
    "PROTOCOL",
    "AgentParty",
    "ClientParty",
    "HubParty",
    "MetaHubParty",
    "Standing",
    "Stranger",
    "agree",
    "check_may",
    "is_token",
    "standing_of",
    "pings",
]

PROTOCOL = Protocol(
    1, ("announce", "ask", "attended", "complete", "judge", "leave", "ping", "reconcile", "shown")
)
"""What this version speaks beyond the base dialect; ``docs/protocol.md`` says what each means."""


class Standing(enum.Enum):
    """What kind of party a connection belongs to, for whoever reads its lines."""

    STRANGER = "stranger"
    OBSERVER = "observer"
    CLIENT = "client"
    AGENT = "agent"
    HUB = "hub"
    """Or a hub's MetaHub."""


@define
class Stranger:
    """A connection that has not said who it is."""

    trusted: bool = False
    """True: the program that embeds the hub; it needs no token."""
    source: str = ""
    """Where it comes from; nothing: from this process."""


@define
class ClientParty:
    """A program or a human."""

    name: str
    role: Role


@define
class AgentParty:
    """An agent of this hub."""

    record: AgentRecord = field(repr=lambda record: record.name)


@define
class MetaHubParty:
    """The MetaHub of this hub."""


@define
class HubParty:
    """A hub of this MetaHub."""

    record: HubRecord = field(repr=lambda record: record.name)


def standing_of(party: object) -> Standing:
    """The kind of a party."""
    match party:
        case ClientParty(role=Role.OBSERVER):
            return Standing.OBSERVER
        case ClientParty():
            return Standing.CLIENT
        case AgentParty():
            return Standing.AGENT
        case HubParty() | MetaHubParty():
            return Standing.HUB
        case _:
            return Standing.STRANGER


def check_may(party: ClientParty, message: Message[object]) -> None:
    """Let an observer only look.

    Raises:
        Refused: it wants to act.
    """
    if party.role is Role.OBSERVER and not message.read_only:
        raise Refused(ErrorCode.UNAUTHORIZED, f"an observer may not use {message.method}")


def pings(protocol: Protocol | None) -> bool:
    """Whether a party has promised not to be silent."""
    return protocol is not None and "ping" in protocol.features


def is_token(given: str, *expected: str) -> bool:
    """Whether it is one of those that are expected; compared in a time that does not depend on where they differ."""
    return sum(hmac.compare_digest(given.encode(), token.encode()) for token in expected) > 0


def agree(theirs: Protocol | None) -> Protocol | None:
    """What both sides speak; None for a peer of the base dialect.

    Raises:
        Refused: the other side's version cannot be served.
    """
    if theirs is None:
        return None
    if theirs.version < PROTOCOL.version:
        detail = f"protocol version {theirs.version} is not served here, only {PROTOCOL.version}"
        raise Refused(ErrorCode.INVALID_REQUEST, detail)
    features = tuple(feature for feature in PROTOCOL.features if feature in theirs.features)
    return Protocol(PROTOCOL.version, features)
