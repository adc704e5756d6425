"""What can go wrong, as codes on the wire and as exceptions in the library.

::

    ClusterError
      InvalidAddress (also ValueError)
      ConfigError          a config file or an option that cannot be used
      ProtocolError        the peer broke the protocol; its connection ends
      ConnectionLost       the link ended while you waited
      RemoteError          an answer that says no: ``.code``, ``.detail``
        Unauthorized  InvalidRequest  MethodNotFound  NameTaken  AgentNotFound  AmbiguousName
        HubNotConnected  NotInCluster  UnknownAgentType  SpawnFailed  DeliveryFailed
        Overloaded  DeadlineExceeded  BudgetExceeded  NoOperator  TextTooLong
        AskCircle
      AgentError           an outcome that is not a result: ``.agent``, ``.reason``
        AgentFailed  AgentCancelled  AgentTimedOut  AgentLost

An ``ErrorCode`` travels as ``error.data.kind``; the numeric code beside it is the base dialect's.
"""

from __future__ import annotations

import enum

__all__ = [
    "AgentCancelled",
    "AgentError",
    "AgentFailed",
    "AgentLost",
    "AgentNotFound",
    "AgentTimedOut",
    "AmbiguousName",
    "AskCircle",
    "BudgetExceeded",
    "ClusterError",
    "ConfigError",
    "ConnectionLost",
    "DeadlineExceeded",
    "DeliveryFailed",
    "ErrorCode",
    "HubNotConnected",
    "InvalidAddress",
    "InvalidRequest",
    "MethodNotFound",
    "NameTaken",
    "NoOperator",
    "NotInCluster",
    "Overloaded",
    "ProtocolError",
    "RemoteError",
    "SpawnFailed",
    "TextTooLong",
    "Unauthorized",
    "UnknownAgentType",
    "remote_error",
]


class ErrorCode(enum.Enum):
    """Why a request was refused. The value is what travels as ``error.data.kind``."""

    UNAUTHORIZED = "unauthorized"
    INVALID_REQUEST = "invalid_request"
    PARSE_ERROR = "parse_error"
    OVERSIZED = "oversized"
    METHOD_NOT_FOUND = "method_not_found"
    NOT_REGISTERED = "not_registered"
    NAME_TAKEN = "name_taken"
    AGENT_NOT_FOUND = "agent_not_found"
    AMBIGUOUS_NAME = "ambiguous_name"
    HUB_NOT_CONNECTED = "hub_not_connected"
    NOT_IN_CLUSTER = "not_in_cluster"
    UNKNOWN_AGENT_TYPE = "unknown_agent_type"
    SPAWN_FAILED = "spawn_failed"
    DELIVERY_FAILED = "delivery_failed"
    OVERLOADED = "overloaded"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    BUDGET_EXCEEDED = "budget_exceeded"
    CONNECTION_LOST = "connection_lost"
    CANCELLED = "cancelled"
    NO_OPERATOR = "no_operator"
    ASK_CIRCLE = "ask_circle"
    REFUSED = "refused"
    """A peer of the base dialect said no and gave only words."""


class ClusterError(Exception):
    """Everything this package raises on purpose."""


class InvalidAddress(ClusterError, ValueError):
    """A name or an address with a part missing or a character that is not allowed."""


class ConfigError(ClusterError):
    """A config file or an option that cannot be used; the message names the place and the fault."""


class ProtocolError(ClusterError):
    """The peer broke the protocol."""


class ConnectionLost(ClusterError):
    """The link ended while you waited; the request may or may not have been carried out."""


class RemoteError(ClusterError):
    """An answer that says no."""

    code: ErrorCode = ErrorCode.REFUSED

    def __init__(self, detail: str, code: ErrorCode | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        if code is not None:
            self.code = code


class Unauthorized(RemoteError):
    """Wrong or missing token, or a role that may not do this."""

    code = ErrorCode.UNAUTHORIZED


class InvalidRequest(RemoteError):
    """Parameters of a wrong shape or an impossible value; the detail names the path."""

    code = ErrorCode.INVALID_REQUEST


class MethodNotFound(RemoteError):
    """The peer does not know this method."""

    code = ErrorCode.METHOD_NOT_FOUND


class NameTaken(RemoteError):
    """A live hub or agent has this name."""

    code = ErrorCode.NAME_TAKEN


class AgentNotFound(RemoteError):
    """No such agent, or no longer."""

    code = ErrorCode.AGENT_NOT_FOUND


class AmbiguousName(RemoteError):
    """A bare name that several hubs have; the detail lists the qualified candidates."""

    code = ErrorCode.AMBIGUOUS_NAME


class HubNotConnected(RemoteError):
    """The hub is not in the cluster, or was lost."""

    code = ErrorCode.HUB_NOT_CONNECTED


class NotInCluster(RemoteError):
    """This hub has no MetaHub."""

    code = ErrorCode.NOT_IN_CLUSTER


class UnknownAgentType(RemoteError):
    """The hub does not run this type; the detail lists those it does."""

    code = ErrorCode.UNKNOWN_AGENT_TYPE


class SpawnFailed(RemoteError):
    """The agent could not be started."""

    code = ErrorCode.SPAWN_FAILED


class DeliveryFailed(RemoteError):
    """The agent was found and did not accept the message."""

    code = ErrorCode.DELIVERY_FAILED


class Overloaded(RemoteError):
    """A limit was reached; try again later."""

    code = ErrorCode.OVERLOADED


class DeadlineExceeded(RemoteError):
    """The peer did not answer in the time given."""

    code = ErrorCode.DEADLINE_EXCEEDED


class BudgetExceeded(RemoteError):
    """The tree of agents is as deep or as large as it may be."""

    code = ErrorCode.BUDGET_EXCEEDED


class NoOperator(RemoteError):
    """A question that no operator answered in time."""

    code = ErrorCode.NO_OPERATOR


class AskCircle(RemoteError):
    """An ask of an agent that is itself waiting for the reply, so that neither would ever go on; the detail names who
    waits for whom."""

    code = ErrorCode.ASK_CIRCLE


class TextTooLong(RemoteError):
    """A prompt, a message or a question that is larger than a text may be (``Limits.text_bytes``)."""

    code = ErrorCode.OVERSIZED


class AgentError(ClusterError):
    """An agent's outcome that is not a result."""

    def __init__(self, agent: str, reason: str) -> None:
        super().__init__(f"{agent}: {reason}")
        self.agent = agent
        self.reason = reason


class AgentFailed(AgentError):
    """The agent ended with an error; ``reason`` is its text."""


class AgentCancelled(AgentError):
    """The agent was stopped before it had a result."""


class AgentTimedOut(AgentError):
    """The agent's own deadline passed."""


class AgentLost(AgentError):
    """The agent's hub is gone, or whoever was asked; whether the work was done is unknown."""


_BY_CODE: dict[ErrorCode, type[RemoteError]] = {cls.code: cls for cls in RemoteError.__subclasses__()}


def remote_error(code: ErrorCode, detail: str) -> ClusterError:
    """The exception for a refusal: the class of its code, or plain ``RemoteError``."""
    if code is ErrorCode.CONNECTION_LOST:
        return ConnectionLost(detail)
    return _BY_CODE.get(code, RemoteError)(detail, code)
