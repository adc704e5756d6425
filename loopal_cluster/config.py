"""Times and limits: frozen, validated, and their relations asserted.

Durations are seconds. The defaults of health and relay are the base dialect's.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any

from attrs import Factory, field, validators

from loopal_cluster.labels import check_description
from loopal_cluster.records import record
from loopal_cluster.texts import TEXT_BYTES

__all__ = ["HubSettings", "Limits", "MetaHubSettings", "Policy", "Timeouts", "is_supervised"]

_positive: Any = validators.gt(0)


class Policy(enum.Enum):
    """What a hub does with the permission questions of its agents."""

    SUPERVISED = "supervised"
    """Ask operators; deny, with a reason, if nobody answers in time."""
    BYPASS = "bypass"
    """Allow everything. Only ever by explicit configuration."""
    DENY = "deny"
    """Deny everything."""

    def mode_for(self, wanted: str | None) -> str:
        """The permission mode of an agent of this hub: the stricter of the hub's own and its spawner's wish."""
        own = "bypass" if self is Policy.BYPASS else "supervised"
        return own if wanted is None or _strictness(wanted) < _strictness(own) else wanted

    def asked_in(self, mode: str | None) -> Policy:
        """What becomes of the questions of an agent that was spawned in this permission mode."""
        return Policy.SUPERVISED if self is Policy.BYPASS and is_supervised(mode) else self


def is_supervised(mode: str | None) -> bool:
    """Whether an agent asks in this permission mode.

    The base dialect's rule: these two do not ask, no mode is the agent's own choice, any other asks.
    """
    return mode not in (None, "bypass", "yolo")


def _strictness(mode: str) -> int:
    return 0 if not is_supervised(mode) else 1 if mode == "auto" else 2


@record
class Timeouts:
    """How long each thing may take."""

    handshake_timeout: float = field(default=10.0, validator=_positive)
    """From accepting a connection to its registration."""
    heartbeat_interval: float = field(default=15.0, validator=_positive)
    """Between two heartbeats of a hub."""
    suspect_timeout: float = field(default=30.0, validator=_positive)
    """A hub that has said nothing for so long is suspect."""
    lost_timeout: float = field(default=90.0, validator=_positive)
    """A hub that has said nothing for so long is lost."""
    rejoin_timeout: float = field(default=0.8, validator=_positive)
    """After its connection ended, so long a hub's place is kept for it before it is lost. Well below a second,
    so that within one all who wait for its agents know."""
    settle_timeout: float = field(default=3.0, validator=_positive)
    """After a MetaHub was restarted, so long a hub that it does not know may still be about to join."""
    retry_interval: float = field(default=0.25, validator=_positive)
    """Between two attempts to reach such a hub."""
    lease_timeout: float = field(default=60.0, validator=_positive)
    """Without a MetaHub for so long, a hub ends the agents whose owners are elsewhere."""
    call_timeout: float = field(default=30.0, validator=_positive)
    """For a delivery, or any other request passed on, to be answered."""
    spawn_timeout: float = field(default=60.0, validator=_positive)
    """For an agent on another hub to be up."""
    start_timeout: float = field(default=30.0, validator=_positive)
    """For an agent of this hub to answer ``initialize`` and ``agent/start``."""
    topology_timeout: float = field(default=5.0, validator=_positive)
    """For one hub's part of the cluster's topology."""
    resolve_timeout: float = field(default=5.0, validator=_positive)
    """For hubs of the base dialect to say whether they have an agent."""
    route_cache_ttl: float = field(default=60.0, validator=_positive)
    """For how long such an answer is believed."""
    wait_timeout: float = field(default=600.0, validator=_positive)
    """For a wait that brings no time of its own."""
    ask_timeout: float = field(default=600.0, validator=_positive)
    """For an agent to answer an ask that brings no time of its own."""
    permission_timeout: float = field(default=300.0, validator=_positive)
    """For an operator to decide, from when a permission or a question is shown; while no operator is attached, from
    when it was asked."""
    shown_timeout: float = field(default=5.0, validator=_positive)
    """For an operator's program to acknowledge that a permission or a question is shown; then the next tier is
    asked, too. At most a quarter of ``permission_timeout``, so that they have time to answer."""
    stop_grace: float = field(default=5.0, validator=_positive)
    """For an agent to end after it was asked to: so long after that, its process group is killed."""
    result_ttl: float = field(default=3600.0, validator=_positive)
    """For how long a finished agent's outcome is kept for late waiters."""
    report_interval: float = field(default=1.0, validator=_positive)
    """Between two attempts to report an outcome to a parent's hub that is away."""
    redial_delay: float = field(default=0.1, validator=_positive)
    """The longest pause between two dials of a lost MetaHub during the first ``rejoin_timeout``; later it
    is doubled each time. A pause is half to all of it."""
    redial_delay_max: float = field(default=0.5, validator=_positive)
    """The longest pause between two redials. With ``retry_interval`` well below a second, so that within one
    of a MetaHub's return all goes on."""

    refused_delay_max: float = field(default=10.0, validator=_positive)
    """The longest pause between two dials of a MetaHub that refuses this hub."""

    @property
    def acknowledge_timeout(self) -> float:
        """``shown_timeout``, or a quarter of ``permission_timeout`` if that is shorter."""
        return min(self.shown_timeout, self.permission_timeout / 4)

    @property
    def claim_timeout(self) -> float:
        """For a hub to show that it lives, whose name another one wants: well before that one thinks that we do not."""
        return self.handshake_timeout / 2

    @property
    def silence(self) -> float:
        """The longest that what was sent may be on its way over two connections, and its sender not know.

        A connection that says nothing is given up by whoever waits at it. What is not sent by then is lost, and
        repeated on the next, or not at all.
        """
        return 2 * (self.lost_timeout + self.handshake_timeout)

    def memory(self, seconds: float) -> float:
        """For how long what may be repeated for so many seconds is remembered after it was answered.

        Longer than it may be repeated, whatever else is set: each of the three on the way adds a second to its
        deadline, and no two clocks differ by more than a twentieth.
        """
        return 1.05 * (seconds + 3.0) + self.silence

    @property
    def spawn_memory(self) -> float:
        """For how long an agent that was spawned from another hub is remembered, at least, after its end."""
        return self.memory(self.spawn_timeout)

    @property
    def answer_grace(self) -> float:
        """The first quarter of ``stop_grace``: for an agent to answer that it will end."""
        return self.stop_grace / 4

    @property
    def end_grace(self) -> float:
        """The rest: for it to end by itself, and, for the last quarter, on SIGTERM."""
        return self.stop_grace - self.answer_grace

    def __attrs_post_init__(self) -> None:
        if not self.heartbeat_interval < self.suspect_timeout < self.lost_timeout:
            raise ValueError("heartbeat_interval < suspect_timeout < lost_timeout must hold")
        if not self.redial_delay_max <= self.refused_delay_max:
            raise ValueError("redial_delay_max <= refused_delay_max must hold")
        if not self.redial_delay <= self.redial_delay_max < self.settle_timeout:
            raise ValueError("redial_delay <= redial_delay_max < settle_timeout must hold")
        # A pause, and as long for the dial and the registration: a hub that can reach its MetaHub again so
        # long before it is given up is back in time.
        if not 2 * self.redial_delay < self.rejoin_timeout:
            raise ValueError("2 * redial_delay < rejoin_timeout must hold")


@record
class Limits:
    """How much of each thing there may be."""

    line_bytes: int = field(default=16 * 2**20, validator=_positive)
    """The longest line read, its line feed not counted; a longer one is refused and skipped."""
    text_bytes: int = field(
        default=Factory(lambda limits: min(TEXT_BYTES, limits.line_bytes // 2), takes_self=True),
        validator=_positive,
    )
    """The longest prompt, message, reply or result, in bytes of encoded JSON. At most half of ``line_bytes``,
    so that all that is around it in a line fits."""
    high_water: int = field(default=4096, validator=_positive)
    """Above so many unsent frames to a peer, its notifications are dropped."""
    high_water_bytes: int = field(default=16 * 2**20, validator=_positive)
    """Above so many bytes of unsent events to a peer, too."""
    calls_per_peer: int = field(default=16384, validator=_positive)
    """Requests that may be outstanding to one peer."""
    calls_bytes: int = field(default=16 * 2**20, validator=_positive)
    """Bytes of the large messages, of more than 4 KiB, that may be outstanding to one peer; twice as many of those
    of one peer. One may always be."""
    link_bytes: int = field(default=256 * 2**20, validator=_positive)
    """The same to a hub or a MetaHub, which speaks for many."""
    requests_per_peer: int = field(default=16384, validator=_positive)
    """Requests of one peer that may be unanswered. With more unsent answers it is not read from."""
    answer_bytes: int = field(default=64 * 2**20, validator=_positive)
    """Bytes of large unsent answers to one peer; the next ones are refusals."""
    outbox_frames: int = field(default=40960, validator=_positive)
    """Unsent frames of one peer; more proves a broken rule, and the connection is cut."""
    unauthenticated: int = field(default=1024, validator=_positive)
    """Connections that have not registered; the oldest makes room for the newest. They are never more than a
    quarter of the descriptors that the process may have."""
    hubs: int = field(default=16384, validator=_positive)
    """Hubs of one MetaHub."""
    spawn_bytes: int = field(default=64 * 2**20, validator=_positive)
    """Bytes of the prompts, and of what else spawns bring, of one hub's live agents."""
    agents: int = field(default=10000, validator=_positive)
    """Live agents of one hub, shadows included."""
    agent_depth: int = field(default=16, validator=_positive)
    """Generations below a root agent, counted across hubs."""
    results_bytes: int = field(default=64 * 2**20, validator=_positive)
    """Bytes of their texts; the oldest are forgotten."""
    results: int = field(default=10000, validator=_positive)
    """Outcomes of finished agents that one hub keeps."""
    owed_bytes: int = field(default=4 * 2**20, validator=_positive)
    """Of the cancels that a MetaHub keeps for hubs which are not there."""
    timeline: int = field(default=2048, validator=_positive)
    """Events kept for observers who come late or fell behind."""
    timeline_bytes: int = field(default=16 * 2**20, validator=_positive)
    """The older of them are forgotten when they have more bytes than this."""
    asks: int = field(default=1024, validator=_positive)
    """Permissions and questions of one hub's agents parked at one time."""
    asks_shown_per_agent: int = field(default=8, validator=_positive)
    """Those of one agent that operators are shown at one time; the others wait."""
    asks_shown_per_hub: int = field(default=64, validator=_positive)
    """The same of all agents of one hub, which have their turns."""
    receipts_bytes: int = field(default=64 * 2**20, validator=_positive)
    """Bytes of their answers; of the oldest only that they were answered is remembered."""
    receipts: int = field(default=20_000, validator=_positive)
    """Messages from other hubs that are remembered, so that a repeated one is not delivered twice. When there are
    more, a repetition of one that may have been forgotten is refused."""
    inbox: int = field(default=1024, validator=_positive)
    """Messages that wait for an agent of this hub: while it comes up, and in its inbox if it is a function
    in the hub. One in a process of its own has this default."""

    def __attrs_post_init__(self) -> None:
        if 2 * self.text_bytes > self.line_bytes:
            raise ValueError("2 * text_bytes <= line_bytes must hold")
        # The proof obligation of the back-pressure rules: answers and calls are bounded by their own
        # limits, notifications by the high-water mark, so a full outbox is our bug and not a slow network.
        if self.outbox_frames < self.high_water + self.calls_per_peer + self.requests_per_peer:
            raise ValueError("outbox_frames >= high_water + calls_per_peer + requests_per_peer must hold")
        # What one agent has parked never takes all that a hub shows, and what is shown is parked.
        if not self.asks_shown_per_agent <= self.asks_shown_per_hub <= self.asks:
            raise ValueError("asks_shown_per_agent <= asks_shown_per_hub <= asks must hold")


@record
class HubSettings:
    """One hub, as far as its core needs to know."""

    name: str
    instance: str
    """A uuid made at process start; a hub that comes back with it is the same hub."""
    token: str = field(default="", repr=False)
    """What a party that connects to this hub must bring."""
    meta_token: str = field(default="", repr=False)
    """What this hub brings to its MetaHub."""
    meta_hub: str | None = None
    """Where its MetaHub is, in words for people; None: it has none, and is alone."""
    capabilities: tuple[str, ...] = ()
    labels: Mapping[str, str] = Factory(dict)
    agent_types: tuple[str, ...] = ()
    """The types this hub runs."""
    default_type: str | None = None
    """What a spawn without a type gets."""
    policy: Policy = Policy.SUPERVISED
    kept: str = ""
    """The directory for results that are too large to be told; empty: they are not kept."""
    cwd: str = "."
    """The working directory of agents whose spawner did not, or may not, choose one."""
    timeouts: Timeouts = Timeouts()
    limits: Limits = Limits()

    def __attrs_post_init__(self) -> None:
        check_description(self.capabilities, self.labels, self.agent_types)


@record
class MetaHubSettings:
    """A MetaHub, as far as its core needs to know."""

    cluster: str
    """The id of the cluster, new at each start."""
    token: str = field(default="", repr=False)
    """What hubs and clients must bring."""
    timeouts: Timeouts = Timeouts()
    limits: Limits = Limits()
