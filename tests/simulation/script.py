"""What a run will try: a list of timed steps, made from a seed before anything runs.

Because the script is data, a failing one can be shrunk: leave steps out and see whether it still fails.
Actors are named, not referred to: ``client@hub-1``, ``client@meta``, or an agent's address. A step whose
actor does not exist at that time is skipped.
"""

from __future__ import annotations

import enum
import json
import random

import attrs
from attrs import field, frozen

__all__ = [
    "AgentDies",
    "AgentFreezes",
    "AskAgent",
    "AskHuman",
    "Attach",
    "Cancel",
    "Crash",
    "Cut",
    "Flood",
    "Forge",
    "Freeze",
    "HalfClose",
    "Look",
    "Nudge",
    "Partition",
    "Peers",
    "Plan",
    "Script",
    "Send",
    "Slow",
    "Spawn",
    "Step",
    "Wait",
    "Weather",
    "Withdraw",
    "generate",
]

META = "meta"
NAMES = ("ann", "bob", "cat", "dan", "eve", "fay")
"""Few, so that they are taken, reused and ambiguous."""


class Weather(enum.Enum):
    """How much goes wrong."""

    CALM = "calm"
    """Nothing but what agents do."""
    ROUGH = "rough"
    """Connections are cut, processes crash and freeze, the network is split."""


class Peers(enum.Enum):
    """Who is in the cluster."""

    OURS = "ours"
    """Hubs and a MetaHub of ours."""
    MIXED = "mixed"
    """Some of them speak the base dialect only."""


@frozen
class Plan:
    """How a scripted agent behaves. It travels in the prompt, so it reaches whichever hub it must."""

    work: float = 1.0
    """Seconds until it ends by itself."""
    ending: str = "done"
    """``done``, ``error``, ``aborted``, ``die`` (without a word), or ``hang`` (never by itself)."""
    stubborn: bool = False
    """It ignores interrupts, shutdowns, the end of its input and SIGTERM."""
    listens: str = "yes"
    """``yes``, ``refuses``, or ``silent``: what it does with messages."""
    serves: bool = True
    """It works on many asks at a time; otherwise on none while one of its own is open."""

    def prompt(self, op: int) -> str:
        """The prompt that says so, and which operation it was."""
        return json.dumps({"op": op} | attrs.asdict(self), sort_keys=True)

    @classmethod
    def read(cls, prompt: str | None) -> tuple[int | None, Plan]:
        """The operation and the plan in a prompt; a plain agent if there is none."""
        if not prompt:
            return None, cls()
        fields = json.loads(prompt)
        return fields.pop("op"), cls(**fields)


# What actors do.


@frozen
class Spawn:
    """Start an agent."""

    actor: str
    name: str
    target_hub: str | None
    agent_type: str
    plan: Plan
    detached: bool = False
    notify: bool | None = None
    time_limit: float | None = None
    """Seconds it may take."""


@frozen
class Send:
    """Send a message."""

    actor: str
    target: str


@frozen
class Wait:
    """Wait for an agent, by name or as the run of it that this actor spawned."""

    actor: str
    target: str
    timeout: float | None
    by_id: bool = False


@frozen
class Cancel:
    """Cancel an agent, or (``shutdown``) just stop it."""

    actor: str
    target: str
    shutdown: bool = False


@frozen
class Nudge:
    """Interrupt an agent, or hand it a control."""

    actor: str
    target: str
    control: bool = False


@frozen
class AskAgent:
    """Send a message and wait for the reply."""

    actor: str
    target: str
    timeout: float
    extend: bool = False
    through: tuple[str, ...] = ()
    """Whom the asked agent is to ask before it replies, and that one, and so on."""


@frozen
class AskHuman:
    """Ask a permission, or a question."""

    actor: str
    question: bool = False


@frozen
class Flood:
    """Ask so many permissions at once."""

    actor: str
    count: int


@frozen
class Look:
    """Ask for what is known: ``status``, ``agents``, ``topology``, ``hubs``, ``cluster``, ``where``, ``info``."""

    actor: str
    what: str
    target: str = ""


@frozen
class Withdraw:
    """No longer wait for the answer to the newest open request."""

    actor: str


@frozen
class Attach:
    """Let an operator come, and leave after a while."""

    at_hub: str
    manner: str
    """``allow``, ``deny``, ``fail``, ``silent`` or, of one whose connection is dead and was not ended, ``gone``."""
    stays: float


@frozen
class Forge:
    """Somebody with the cluster's token registers as a hub and reports the ends of others' agents."""

    name: str = "rogue"


# What goes wrong.


@frozen
class AgentDies:
    """An agent's process is killed."""

    agent: str


@frozen
class AgentFreezes:
    """An agent's process is stopped for a while."""

    agent: str
    lasts: float


@frozen
class Crash:
    """A hub or the MetaHub is killed, and starts anew after a while."""

    process: str
    down: float


@frozen
class Freeze:
    """A hub or the MetaHub is stopped for a while."""

    process: str
    lasts: float


@frozen
class Cut:
    """A hub's connection to the MetaHub is reset."""

    hub: str


@frozen
class HalfClose:
    """One side of it is ended."""

    hub: str
    by_hub: bool


@frozen
class Partition:
    """Nothing passes between a hub and the MetaHub for a while, one way or both."""

    hub: str
    up: bool
    down: bool
    lasts: float


@frozen
class Slow:
    """Everything between a hub and the MetaHub takes longer for a while."""

    hub: str
    extra: float
    lasts: float


Action = (
    Spawn | Send | AskAgent | Wait | Cancel | Nudge | AskHuman | Flood | Look | Withdraw | Attach
    | Forge | AgentDies | AgentFreezes | Crash | Freeze | Cut | HalfClose | Partition | Slow
)  # fmt: skip


@frozen
class Step:
    """One thing at one instant, in seconds since the start."""

    at: float
    action: Action

    def __str__(self) -> str:
        return f"{self.at:8.3f}  {self.action}"


@frozen
class Script:
    """All that is tried in one run."""

    hubs: tuple[str, ...]
    steps: tuple[Step, ...] = field(repr=lambda steps: f"{len(steps)} steps")
    horizon: float
    """When the last of it has begun; all faults are healed then."""
    codec: bool = False
    """Whether frames go through the wire codec."""
    drift: float = 0.0
    """How much the clocks differ in speed, at most."""
    base: tuple[str, ...] = ()
    """The hubs, or the MetaHub, that speak the base dialect only."""

    def __str__(self) -> str:
        head = (
            f"hubs {', '.join(self.hubs)}; codec {self.codec}; drift {self.drift}; until {self.horizon:.1f}"
        )
        base = [f"base: {', '.join(self.base)}"] if self.base else []
        return "\n".join([head, *base, *map(str, self.steps)])


def generate(seed: int, weather: Weather, peers: Peers = Peers.OURS) -> Script:
    """The script of a seed. Who speaks what changes nothing else in it."""
    script = _Author(seed, weather).script()
    if peers is Peers.OURS:
        return script
    return attrs.evolve(script, base=_base_peers(script.hubs, random.Random(f"peers-{weather.value}-{seed}")))


def _base_peers(hubs: tuple[str, ...], rnd: random.Random) -> tuple[str, ...]:
    """At least one, and never all of the hubs: somebody has to be of ours."""
    if len(hubs) == 1 or rnd.random() < 0.25:
        return (*rnd.sample(hubs, rnd.randint(0, len(hubs) - 1)), META)
    return tuple(rnd.sample(hubs, rnd.randint(1, len(hubs) - 1)))


class _Author:
    def __init__(self, seed: int, weather: Weather) -> None:
        self._random = random.Random(f"script-{weather.value}-{seed}")
        self._faults = random.Random(f"faults-{weather.value}-{seed}")
        self._asks = random.Random(f"asks-{weather.value}-{seed}")
        self._outages = random.Random(f"outages-{weather.value}-{seed}")
        self._limits = random.Random(f"limits-{weather.value}-{seed}")
        self._circles = random.Random(f"circles-{weather.value}-{seed}")
        self._humans = random.Random(f"humans-{weather.value}-{seed}")
        self._weather = weather
        self._hubs = tuple(f"hub-{n}" for n in range(1, self._random.choice((1, 2, 2, 3, 3, 4)) + 1))
        self._horizon = self._random.uniform(6.0, 16.0)

        self._at = 0.0
        self._spawned: list[tuple[str, float, float]] = []
        """What will probably be there: addresses, from when, until when."""
        self._owners: dict[str, str] = {}
        """On which hub each was spawned last."""

    def script(self) -> Script:
        rnd = self._random
        instants = [(round(rnd.uniform(0.2, 2.0), 3), True) for _ in range(rnd.randint(2, 6))]
        instants += [(self._instant(rnd), False) for _ in range(rnd.randint(8, 40))]
        steps = []
        for self._at, top in sorted(instants):
            action = self._spawn(top=True) if top else self._operation()
            steps.append(Step(self._at, action))
            if isinstance(action, Spawn | Wait | Cancel) and rnd.random() < 0.04:
                steps.append(Step(round(self._at + rnd.uniform(0.01, 0.5), 3), Withdraw(action.actor)))
        if rnd.random() < 0.3:
            steps.append(Step(self._instant(rnd), Forge()))
        if self._weather is Weather.ROUGH:
            for _ in range(self._faults.randint(1, 4)):
                steps += self._trouble()
        steps += [self._ask_agent() for _ in range(self._asks.randint(0, 8))]
        if self._weather is Weather.ROUGH and self._outages.random() < 0.1:
            steps += self._outage()
        steps += self._circles_of_asks()
        steps = [self._serial(self._limited(step)) for step in steps]
        if self._humans.random() < 0.4:
            steps = [self._perhaps_gone(step) for step in steps] + self._flood()
        steps.sort(key=lambda step: step.at)
        return Script(
            hubs=self._hubs,
            steps=tuple(steps),
            horizon=round(self._horizon, 3),
            codec=rnd.random() < 0.15,
            drift=rnd.choice((0.0, 0.001, 0.01)),
        )

    def _instant(self, rnd: random.Random) -> float:
        return round(rnd.uniform(0.5, self._horizon), 3)

    # Operations.

    def _operation(self) -> Action:
        kinds = (
            self._spawn, self._send, self._send, self._send, self._wait, self._wait, self._cancel,
            self._nudge, self._ask, self._look, self._withdraw, self._attach, self._agent_trouble,
        )  # fmt: skip
        weights = (24, 10, 10, 8, 14, 8, 8, 3, 6, 6, 3, 4, 4)
        return self._random.choices(kinds, weights)[0]()

    def _spawn(self, *, top: bool = False) -> Spawn:
        rnd = self._random
        hub = rnd.choice(self._hubs)
        actor = f"client@{hub}" if top else self._actor()
        target = rnd.choice((None, *self._hubs, *self._hubs))
        if actor == f"client@{META}":
            target = rnd.choice(self._hubs)
        name, plan = rnd.choice(NAMES), self._plan()
        if rnd.random() < 0.8:  # rather a free name
            taken = {address for address, _ in self._there()}
            name = next((free for free in NAMES if f"{target}/{free}" not in taken), name)
        here = actor.partition("/")[0].removeprefix("client@")
        until = self._at + (1000.0 if plan.ending == "hang" else plan.work)
        self._spawned.append((address := f"{target or here}/{name}", self._at + 0.3, until))
        self._owners[address] = here.partition("@")[2] or here
        return Spawn(
            actor=actor,
            name=name,
            target_hub=target,
            agent_type=rnd.choices(("quick", "slow", "broken", "mute", "unheard-of"), (84, 8, 3, 3, 2))[0],
            plan=plan,
            detached=rnd.random() < 0.15,
            notify=rnd.choices((None, True, False), (80, 10, 10))[0],
        )

    def _plan(self) -> Plan:
        rnd = self._random
        return Plan(
            work=round(rnd.choice((rnd.uniform(0.0, 0.3), rnd.uniform(0.3, 4.0), rnd.uniform(4.0, 12.0))), 3),
            ending=rnd.choices(("done", "error", "aborted", "die", "hang"), (60, 12, 4, 10, 14))[0],
            stubborn=rnd.random() < 0.15,
            listens=rnd.choices(("yes", "refuses", "silent"), (86, 6, 8))[0],
        )

    def _send(self) -> Send:
        return Send(self._actor(), self._target())

    def _wait(self) -> Wait:
        rnd = self._random
        timeout = rnd.choice((None, round(rnd.uniform(0.05, 6.0), 3)))
        return Wait(self._actor(), self._target(), timeout, by_id=rnd.random() < 0.5)

    def _cancel(self) -> Cancel:
        return Cancel(self._actor(), self._target(), shutdown=self._random.random() < 0.3)

    def _nudge(self) -> Nudge:
        return Nudge(self._actor(), self._target(), control=self._random.random() < 0.5)

    def _ask(self) -> AskHuman:
        return AskHuman(self._agent(), question=self._random.random() < 0.3)

    def _ask_agent(self) -> Step:
        """An agent or a client asks an agent that is probably there, or one of a name that may be anybody's."""
        rnd = self._asks
        at = self._instant(rnd)
        there = [address for address, since, until in self._spawned if since < at < until]
        anybody = f"{rnd.choice(self._hubs)}/{rnd.choice(NAMES)}"
        clients = [f"client@{hub}" for hub in (*self._hubs, META)]
        actor = rnd.choice(there) if there and rnd.random() < 0.6 else rnd.choice(clients)
        target = rnd.choice(there) if there and rnd.random() < 0.9 else anybody
        if rnd.random() < 0.3:
            target = target.partition("/")[2]
        return Step(at, AskAgent(actor, target, round(rnd.uniform(0.1, 5.0), 3), extend=rnd.random() < 0.3))

    def _circles_of_asks(self) -> list[Step]:
        """A client asks an agent to ask others, the last of which is to ask the first, or one on the way."""
        rnd, steps = self._circles, []
        for _ in range(rnd.randint(0, 3)):
            at = self._instant(rnd)
            there = [address for address, since, until in self._spawned if since < at < until - 1.0]
            if there:
                chosen = rnd.choices(there, k=rnd.randint(1, 3))
                through = (*chosen[1:], rnd.choice(chosen))
                actor = f"client@{rnd.choice((*self._hubs, META))}"
                steps.append(Step(at, AskAgent(actor, chosen[0], rnd.uniform(6.0, 9.0), through=through)))
        return steps

    def _serial(self, step: Step) -> Step:
        """Sometimes, an agent that does one thing at a time."""
        if not isinstance(step.action, Spawn) or self._circles.random() > 0.6:
            return step
        plan = attrs.evolve(step.action.plan, serves=False)
        return attrs.evolve(step, action=attrs.evolve(step.action, plan=plan))

    def _limited(self, step: Step) -> Step:
        """Sometimes, a spawn with a time limit."""
        if not isinstance(step.action, Spawn) or self._limits.random() > 0.15:
            return step
        limit = round(self._limits.uniform(0.2, 5.0), 3)
        return attrs.evolve(step, action=attrs.evolve(step.action, time_limit=limit))

    def _perhaps_gone(self, step: Step) -> Step:
        """Sometimes, an operator who has vanished without a word, and later another one elsewhere."""
        if not isinstance(step.action, Attach) or self._humans.random() > 0.5:
            return step
        return attrs.evolve(step, action=attrs.evolve(step.action, manner="gone"))

    def _flood(self) -> list[Step]:
        """An agent asks much, and then another one of its hub asks once; one is there to see that, or two are."""
        rnd = self._humans
        at = self._instant(rnd)
        there = [address for address, since, until in self._spawned if since < at < until - 1.0]
        if not there:
            return []
        agent = rnd.choice(there)
        hub = agent.partition("/")[0]
        others = [address for address in there if address != agent and address.startswith(f"{hub}/")]
        manner = rnd.choice(("silent", "gone", "allow"))
        steps = [
            Step(max(0.0, round(at - 0.5, 3)), Attach(hub, manner, 6.0)),
            Step(max(0.0, round(at - 0.5, 3)), Attach(rnd.choice((*self._hubs, META)), "silent", 8.0)),
            Step(at, Flood(agent, rnd.randint(70, 140))) if rnd.random() < 0.7 else Step(at, AskHuman(agent)),
        ]
        return steps + [Step(round(at + 0.2, 3), AskHuman(other)) for other in others[:1]]

    def _look(self) -> Look:
        what = self._random.choice(
            ("status", "agents", "topology", "hubs", "hubs", "cluster", "where", "info")
        )
        target = self._target() if what in ("where", "info") else ""
        return Look(self._actor(), what, target)

    def _withdraw(self) -> Withdraw:
        return Withdraw(self._actor())

    def _attach(self) -> Attach:
        rnd = self._random
        manner = rnd.choices(("allow", "deny", "fail", "silent"), (40, 25, 15, 20))[0]
        return Attach(rnd.choice((*self._hubs, META)), manner, round(rnd.uniform(0.5, 8.0), 3))

    def _agent_trouble(self) -> AgentDies | AgentFreezes:
        rnd = self._random
        if rnd.random() < 0.5:
            return AgentDies(self._agent())
        return AgentFreezes(self._agent(), round(rnd.uniform(0.2, 6.0), 3))

    # Who and whom.

    def _actor(self) -> str:
        rnd = self._random
        if rnd.random() < 0.6:
            return self._agent()
        return f"client@{rnd.choice((*self._hubs, *self._hubs, META))}"

    def _there(self) -> list[tuple[str, float]]:
        return [(address, until) for address, since, until in self._spawned if since < self._at < until]

    def _agent(self) -> str:
        if self._random.random() < 0.9 and (there := self._there()):
            return self._random.choice(there)[0]
        return f"{self._random.choice(self._hubs)}/{self._random.choice(NAMES)}"

    def _target(self) -> str:
        address = self._agent()
        return address.partition("/")[2] if self._random.random() < 0.4 else address

    # Faults.

    def _trouble(self) -> list[Step]:
        rnd = self._faults
        at, hub = self._instant(rnd), rnd.choice(self._hubs)
        lasts = round(rnd.choice((rnd.uniform(0.05, 0.6), rnd.uniform(0.6, 4.0), rnd.uniform(8.0, 14.0))), 3)
        match rnd.choices(
            ("cut", "half", "partition", "slow", "crash", "freeze", "meta crash", "meta freeze"),
            (20, 6, 16, 8, 18, 12, 14, 6),
        )[0]:
            case "cut":
                return [Step(at, Cut(hub)), *self._witnesses(hub, at)]
            case "half":
                return [Step(at, HalfClose(hub, by_hub=rnd.random() < 0.5))]
            case "partition":
                lasts = self._or_very_long(lasts)
                up, down = rnd.choice(((True, True), (True, False), (False, True)))
                partition = Step(at, Partition(hub, up, down, lasts))
                return [partition, *self._peeks(at, lasts), *self._witnesses(hub, at)]
            case "slow":
                return [Step(at, Slow(hub, round(rnd.uniform(0.05, 1.0), 3), lasts))]
            case "crash":
                return [Step(at, Crash(hub, lasts)), *self._peeks(at, lasts), *self._witnesses(hub, at)]
            case "freeze":
                lasts = self._or_very_long(lasts)
                return [Step(at, Freeze(hub, lasts)), *self._peeks(at, lasts), *self._witnesses(hub, at)]
            case "meta crash":
                return [Step(at, Crash(META, self._or_very_long(lasts)))]
            case _:
                return [Step(at, Freeze(META, lasts))]

    def _outage(self) -> list[Step]:
        """A hub loses its MetaHub for longer than anything is remembered by itself, while its clients ask and send.

        They wait until it is over, so what they have asked is asked again.
        """
        rnd = self._outages
        at, hub = self._instant(rnd), rnd.choice(self._hubs)
        far = [address for address, since, until in self._spawned if since < at < until]
        targets = [address for address in far if not address.startswith(hub)] or far
        if not targets:
            return []
        lasts = round(rnd.uniform(20.0, 45.0), 3)
        asks = [
            Step(
                round(max(0.2, at - rnd.uniform(0.05, 0.4)), 3),
                AskAgent(f"client@{hub}", rnd.choice(targets), round(lasts + rnd.uniform(5.0, 20.0), 3)),
            )
            for _ in range(rnd.randint(2, 4))
        ]
        return [*asks, Step(at, Partition(hub, up=False, down=True, lasts=lasts))]

    def _or_very_long(self, lasts: float) -> float:
        """Sometimes long enough for a hub to be lost, or a lease to end."""
        rnd = self._faults
        return round(rnd.uniform(20.0, 30.0), 3) if rnd.random() < 0.2 else lasts

    def _peeks(self, at: float, lasts: float) -> list[Step]:
        """Somebody looks at the hubs meanwhile, so that a wrong health is seen."""
        return [Step(round(at + lasts * part, 3), Look(f"client@{META}", "hubs")) for part in (0.5, 0.95)]

    def _witnesses(self, hub: str, at: float) -> list[Step]:
        """Their owners and others wait on agents of the hub when it goes, on those that would go on longest."""
        there = [(until, name) for name, since, until in self._spawned if since < at < until]
        names = [name for _, name in sorted(there, reverse=True) if name.startswith(hub)][:2]
        waiters = [(self._owners[name], name) for name in names]
        waiters += [(self._faults.choice(self._hubs), name) for name in names]
        return [
            Step(round(max(0.0, at - 0.8), 3), Wait(f"client@{waiter}", name, None))
            for waiter, name in waiters
        ]
