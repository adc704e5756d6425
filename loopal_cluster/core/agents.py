"""The agents of one hub: who they are, whose child each is, and where it runs.

An agent that runs on another hub for a parent of ours is an ``AgentRecord`` whose ``hub`` is set: the
"shadow entry". It is created before the request leaves and removed if the request is refused, so a
result can never arrive before its place.
"""

from __future__ import annotations

from collections.abc import Iterator

from attrs import field

from loopal_cluster.address import Address
from loopal_cluster.core.agent_states import (
    AgentState,
    Connected,
    Running,
    RunningThere,
    Spawning,
    StopOutcome,
    Stopping,
)
from loopal_cluster.core.calls import Origin
from loopal_cluster.core.events import Peer
from loopal_cluster.core.exchange import Refused
from loopal_cluster.core.owners import Owner, parent_of
from loopal_cluster.errors import ErrorCode
from loopal_cluster.message_sizes import payload_bytes
from loopal_cluster.messages import AgentNode, SpawnSpec
from loopal_cluster.records import define, evolve

__all__ = ["AgentRecord", "AgentTree"]


@define(eq=False)
class AgentRecord:
    """A live agent, here or (a shadow) elsewhere."""

    id: str
    spec: SpawnSpec
    type: str | None
    owner: Owner | None
    """None: a MetaHub of the base dialect does not say whose it is, and one that has connected to us is its own."""
    hub: str | None = None
    """The hub it runs on, if not this one."""
    depth: int = 0
    state: AgentState = Spawning()
    begun_at: float = 0.0
    """When it was up, if it runs here."""
    children: dict[str, AgentRecord] = field(factory=dict)
    """By id, in the order they were spawned."""
    spawner: Origin | None = None
    """The request to answer when it is up."""
    waiters: dict[Origin, bool] = field(factory=dict)
    """In the order they came, and whether the answer is to be brief; a dict, so that thousands may leave at once."""
    stoppers: list[Origin] = field(factory=list)
    """Requests to answer when it is gone."""
    error: str | None = None
    """The newest that it has reported."""
    heard_at: float = 0.0
    """When it has last reported something."""

    @property
    def name(self) -> str:
        """Its name on the hub it runs on."""
        return self.spec.name

    @property
    def address(self) -> Address:
        """Bare if it runs here, qualified if not."""
        return Address(self.spec.name, self.hub)

    @property
    def parent(self) -> Address | None:
        """Bare if the parent is on this hub, qualified if not."""
        return parent_of(self.owner)

    @property
    def peer(self) -> Peer | None:
        """Its connection, if it runs here and its program is there."""
        return self.state.peer

    @property
    def is_up(self) -> bool:
        """Whether its spawn was answered yes."""
        return self.state.is_up

    @property
    def ending(self) -> StopOutcome | None:
        """Its outcome as soon as it is gone, if it is being stopped."""
        return self.state.ending

    def connect(self, peer: Peer) -> None:
        """Its program is there."""
        state = self.state
        self.state = evolve(state, peer=peer) if isinstance(state, Stopping) else Connected(peer)

    def come_up(self) -> bool:
        """It has begun to work; False if it had before."""
        match self.state:
            case Running() | RunningThere() | Stopping(is_up=True):
                return False
            case Connected(peer):
                self.state = Running(peer)
            case Stopping() as state:
                self.state = evolve(state, is_up=True)
            case Spawning():
                assert self.hub is not None, "an agent of this hub cannot work before it is connected"
                self.state = RunningThere()
        return True

    def stop(self, ending: StopOutcome) -> bool:
        """It is to end; False if that was so before, and its outcome remains that."""
        if isinstance(self.state, Stopping):
            return False
        self.state = Stopping(ending, self.state.peer, self.state.is_up)
        return True

    @property
    def persistent(self) -> bool:
        """Whether it goes on after its first turn."""
        return self.spec.lifecycle == "persistent"

    def node(self) -> AgentNode:
        """A copy for a topology."""
        return AgentNode(
            name=self.name,
            parent=None if self.parent is None else str(self.parent),
            children=tuple(str(child.address) for child in self.children.values()),
            lifecycle="Running" if self.is_up else "Spawning",  # the base dialect's words
            model=self.spec.model,
            id=self.id,
            type=self.type,
            hub=self.hub,
            persistent=self.persistent,
        )


@define
class AgentTree:
    """The live agents of one hub, by identity and by address."""

    _by_id: dict[str, AgentRecord] = field(factory=dict, init=False)
    _by_address: dict[tuple[str, str | None], AgentRecord] = field(factory=dict, init=False)
    """By name and hub. Not by ``Address``: its hash is dear, and every message has one that is looked for."""
    spawn_bytes: int = field(default=0, init=False)
    """Of their specs, which live as long as they do."""
    _shadows: dict[str, dict[str, AgentRecord]] = field(factory=dict, init=False)
    """Agent name -> hub -> shadow, to find a bare name among shadows."""

    def add(self, record: AgentRecord) -> None:
        """Add an agent and make it its parent's child.

        Raises:
            Refused: its name is taken on the hub it runs on.
        """
        key = _key(record.address)
        if key in self._by_address:
            raise Refused(ErrorCode.NAME_TAKEN, f"agent name '{record.address}' is taken")
        if record.id in self._by_id:
            raise Refused(ErrorCode.NAME_TAKEN, f"agent id '{record.id}' is taken")
        self._by_id[record.id] = record
        self.spawn_bytes += payload_bytes(record.spec)
        self._by_address[key] = record
        if record.hub is not None:
            self._shadows.setdefault(record.name, {})[record.hub] = record
        if record.parent is not None and (parent := self._by_address.get(_key(record.parent))) is not None:
            parent.children[record.id] = record

    def remove(self, record: AgentRecord) -> None:
        """Remove an agent; its children keep their parent's name and lose its record."""
        del self._by_id[record.id]
        self.spawn_bytes -= payload_bytes(record.spec)
        del self._by_address[_key(record.address)]
        if record.hub is not None:
            del self._shadows[record.name][record.hub]
            if not self._shadows[record.name]:
                del self._shadows[record.name]
        if (parent := self.parent_of(record)) is not None:
            parent.children.pop(record.id, None)

    def parent_of(self, record: AgentRecord) -> AgentRecord | None:
        """The parent, if it is a live agent of this hub; not another that has got its name since."""
        parent = None if record.parent is None else self._by_address.get(_key(record.parent))
        return parent if parent is not None and record.id in parent.children else None

    def get(self, agent_id: str) -> AgentRecord | None:
        """The live agent with this identity."""
        return self._by_id.get(agent_id)

    def local(self, name: str) -> AgentRecord | None:
        """The live agent of this name that runs here."""
        return self._by_address.get((name, None))

    def find(self, address: Address) -> AgentRecord | None:
        """The live agent or shadow an address means; a bare name is looked for here first.

        Raises:
            Refused: a bare name that only shadows have, and several of them.
        """
        if (record := self._by_address.get(_key(address))) is not None:
            return record
        if address.hub is not None:
            return None
        shadows = list(self._shadows.get(address.agent, {}).values())
        if len(shadows) > 1:
            candidates = ", ".join(str(shadow.address) for shadow in shadows)
            raise Refused(
                ErrorCode.AMBIGUOUS_NAME, f"agent name '{address}' is on several hubs: {candidates}"
            )
        return shadows[0] if shadows else None

    def here(self) -> list[AgentRecord]:
        """Those that run on this hub, oldest first."""
        return [record for record in self._by_id.values() if record.hub is None]

    def __iter__(self) -> Iterator[AgentRecord]:
        return iter(list(self._by_id.values()))

    def __len__(self) -> int:
        return len(self._by_id)


def _key(address: Address) -> tuple[str, str | None]:
    return address.agent, address.hub
