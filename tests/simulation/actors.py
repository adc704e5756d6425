"""The parties around the hubs: scripted agents, clients, operators, an observer.

Each has one connection and acts on its own; what it asked, what it got and what it did goes into the
``History``. None of them is told anything by the simulator that a real one could not know.
"""

from __future__ import annotations

import abc
import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from attrs import evolve

from loopal_cluster.address import Address
from loopal_cluster.completions import AGENT_COMPLETED, wrap_result
from loopal_cluster.core.parties import PROTOCOL
from loopal_cluster.errors import ErrorCode
from loopal_cluster.frames import Failure, Frame, Notification, Request, Response
from loopal_cluster.messages import (
    OK,
    AgentSource,
    AgentStart,
    Answers,
    Ask,
    CancelRequest,
    ClusterEvent,
    Completed,
    Completion,
    Control,
    Decision,
    DeliverAsk,
    DeliverEnvelope,
    Envelope,
    HumanSource,
    Initialize,
    Initialized,
    Interrupt,
    Message,
    MetaComplete,
    MetaRoute,
    Permission,
    Progress,
    Question,
    Register,
    RegisterHub,
    Reply,
    Role,
    Route,
    Shown,
    Shutdown,
    SpawnAgent,
    Started,
    Subscribe,
    Subscribed,
    UserContent,
)
from loopal_cluster.outcomes import Done
from loopal_cluster.wire.codec import decode_result
from loopal_cluster.wire.contents import user_content
from tests.simulation.bounds import patience
from tests.simulation.history import (
    INTERRUPTED,
    AgentLife,
    Op,
    Presence,
    Receipt,
    Trouble,
    reply_of,
)
from tests.simulation.network import End
from tests.simulation.script import Plan

if TYPE_CHECKING:
    from tests.simulation.world import World

__all__ = [
    "Agent",
    "Caller",
    "Client",
    "Observer",
    "Operator",
    "Rogue",
    "ScriptedAgent",
    "begin_life",
    "letter",
]

QUIET = evolve(PROTOCOL, features=tuple(feature for feature in PROTOCOL.features if feature != "ping"))
"""What our parties speak: they have nothing to say for long, and do not promise it."""

TOKEN = "token"
THROUGH = "through "
"""How an ask begins that its agent is to pass on before it replies."""
RELAY_TIMEOUT = 5000
"""Milliseconds for that."""


class Caller:
    """A party with a connection: it asks, remembers what it asked, and is asked."""

    life: AgentLife | None = None

    def __init__(self, world: World, name: str, hub: str) -> None:
        self.world = world
        self.name = name
        self.hub = hub
        self.end: End | None = None
        self.ready = False
        self.known_ids: dict[str, str] = {}
        """The identities of agents this actor has spawned, by name or address."""
        self._ops: dict[int, Op] = {}
        self._open: dict[int, Op] = {}
        self._last_id = 0
        self._handshakes: dict[int, Message[Any]] = {}

    # Asking.

    def ask(self, message: Message[Any]) -> Op:
        """Ask the hub for something, and remember that."""
        history = self.world.history
        op = Op(
            number=len(history.ops) + 1,
            at=self.world.schedule.now,
            actor=self.name,
            hub=self.hub,
            message=message,
            patience=patience(message) + self._turns_to_wait_for(message),
            life=self.life,
        )
        history.ops.append(op)
        message = op.message = self._numbered(op, message)
        self.world.trace(self.name, "asks", op.number, message)
        request_id = self._send_request(message)
        self._ops[request_id] = self._open[request_id] = op
        return op

    def _turns_to_wait_for(self, message: Message[Any]) -> float:
        is_for_people = isinstance(message, Permission | Question)
        return self.life.floods if is_for_people and self.life is not None else 0.0

    def _numbered(self, op: Op, message: Message[Any]) -> Message[Any]:
        """Mark what will be found again at the other end of the cluster."""
        history = self.world.history
        match message:
            case Route(envelope) | Ask(envelope):
                history.envelopes[envelope_id := f"m{op.number}"] = op
                return type(message)(evolve(envelope, id=envelope_id))
            case SpawnAgent(spec):
                history.spawns[op.number] = op
                _, plan = Plan.read(spec.prompt)
                return SpawnAgent(evolve(spec, prompt=plan.prompt(op.number)))
            case Permission():
                history.asks[call_id := f"tool-{op.number}"] = op
                return evolve(message, tool_call_id=call_id)
            case _:
                return message

    def withdraw_newest(self) -> None:
        """No longer wait for the newest open request."""
        if self._open:
            request_id = next(reversed(self._open))
            self.world.trace(self.name, "withdraws", self._open[request_id].number)
            self.notify(CancelRequest(request_id))

    def notify(self, message: Message[None]) -> None:
        """Tell the hub something."""
        if self.end is not None:
            self.end.send(Notification(message))

    def _send_request(self, message: Message[Any]) -> int:
        self._last_id += 1
        assert self.end is not None
        self.end.send(Request(self._last_id, message))
        return self._last_id

    # What comes in.

    def on_frame(self, end: End, frame: Frame) -> None:
        """The hub said something."""
        match frame:
            case Request(request_id, message):
                self._on_request(request_id, message)
            case Notification(message):
                self._on_notification(message)
            case Response() | Failure():
                self._on_answer(frame)

    def _on_answer(self, answer: Response | Failure) -> None:
        if (handshake := self._handshakes.pop(answer.id, None)) is not None:
            self._on_handshake(self._read(answer, handshake))
            return
        op = self._ops.get(answer.id)
        if op is None:
            self.world.deviate("one outcome", f"{self.name} got an answer to nothing: {answer}")
            return
        answer = self._read(answer, op.message)
        self._open.pop(answer.id, None)
        self.world.trace(self.name, "gets", op.number, answer)
        op.answers.append((self.world.schedule.now, answer))
        if isinstance(op.message, SpawnAgent) and isinstance(answer, Response):
            spec = op.message.spec
            hub = spec.target_hub or (self.hub if self.hub != "meta" else None)
            self.known_ids[spec.name] = self.known_ids[f"{hub}/{spec.name}"] = answer.result.agent_id

    def _read(self, answer: Response | Failure, message: Message[Any]) -> Response | Failure:
        return answer if isinstance(answer, Failure) else decode_result(answer, message.result)

    def _on_handshake(self, answer: Response | Failure) -> None:
        self.ready = isinstance(answer, Response)
        if not self.ready:
            self.world.deviate("one outcome", f"{self.name} may not register: {answer}")

    def _on_request(self, request_id: int, message: Message[Any]) -> None:
        self.answer(Failure(request_id, ErrorCode.METHOD_NOT_FOUND, f"unknown: {message.method}"))

    def _on_notification(self, message: Message[Any]) -> None:
        if isinstance(message, Progress) and (op := self._open.get(message.id)) is not None:
            op.progress_at = self.world.schedule.now

    def answer(self, answer: Response | Failure) -> None:
        """Answer a request of the hub."""
        if self.end is not None:
            self.end.send(answer)

    def on_lost(self, end: End, reason: str) -> None:
        """The hub is gone: nothing that is open will be answered."""
        self._forget()

    def _forget(self) -> None:
        self.end, self.ready = None, False
        for op in self._open.values():
            op.caller_gone_at = self.world.schedule.now
        self._open.clear()
        self._ops.clear()
        self._handshakes.clear()

    @property
    def here(self) -> bool:
        """Whether it can act now."""
        return self.ready and self.end is not None and self.end.open

    def register(self, end: End, role: Role) -> None:
        """Say who we are, on a new connection."""
        self.end = end
        token = "" if self.world.trusts(self.hub) else TOKEN
        name = self.name.partition("@")[0]
        self._handshakes[self._last_id + 1] = message = Register(name, token, role, QUIET)
        self._send_request(message)


class Client(Caller):
    """A program that acts for a human. It comes back when its hub does."""

    def on_lost(self, end: End, reason: str) -> None:
        super().on_lost(end, reason)
        self.world.schedule.after(0.3, self.world.attach, self, Role.CLIENT)


class Observer(Caller):
    """Sees every event, and that none is missing."""

    _seq: int | None = None

    def _on_handshake(self, answer: Response | Failure) -> None:
        super()._on_handshake(answer)
        self._handshakes[self._last_id + 1] = Subscribe()
        self._send_request(Subscribe())
        self._on_handshake = self._on_subscribed  # type: ignore[method-assign]

    def _on_subscribed(self, answer: Response | Failure) -> None:
        if isinstance(answer, Response) and isinstance(answer.result, Subscribed):
            self._seq = answer.result.seq

    def _on_notification(self, message: Message[Any]) -> None:
        if not isinstance(message, ClusterEvent):
            return
        if self._seq is not None and message.seq != self._seq + 1:
            self.world.deviate("no event missing", f"{self.name} got {message.seq} after {self._seq}")
        self._seq = message.seq


class Operator(Caller):
    """A human who answers, or does not, and leaves some time."""

    def __init__(self, world: World, name: str, hub: str, manner: str, habits: random.Random) -> None:
        super().__init__(world, name, hub)
        self._manner = manner
        self._habits = habits
        self._presence: Presence | None = None

    def leave(self) -> None:
        """Go."""
        if self.end is not None:
            self.world.trace(self.name, "leaves")
            self.end.close()
            self._forget()

    def note_arrival(self) -> None:
        """From now on this operator is asked."""
        self._presence = Presence(
            self.name, self.hub, self.world.schedule.now, acknowledges=self._manner != "gone"
        )
        self.world.history.operators.append(self._presence)

    def _on_handshake(self, answer: Response | Failure) -> None:
        super()._on_handshake(answer)
        if self.ready:
            self.note_arrival()

    def _forget(self) -> None:
        super()._forget()
        if self._presence is not None and self._presence.until is None:
            self._presence.until = self.world.schedule.now

    def note_shown(self, message: Permission | Question) -> None:
        """This operator is asked."""
        if isinstance(message, Permission):
            self.world.history.shown.add((self.name, message.tool_call_id))

    def _on_request(self, request_id: int, message: Message[Any]) -> None:
        if isinstance(message, Permission | Question):
            self.note_shown(message)
            if self._manner != "gone" and message.ask_id is not None:
                self.notify(Shown(message.ask_id))
            self.world.schedule.after(self._habits.uniform(0.1, 3.0), self._decide, request_id, message)

    def _decide(self, request_id: int, message: Permission | Question) -> None:
        if self.end is None or self._manner in ("silent", "gone"):
            return
        if self._manner == "fail":
            self.answer(Failure(request_id, ErrorCode.REFUSED, "the window was closed"))
            return
        allow = self._manner == "allow"
        call_id = message.tool_call_id if isinstance(message, Permission) else ""
        decided = allow if isinstance(message, Permission) else None
        self.note_decision(call_id, decided)
        result = Decision(allow=allow) if isinstance(message, Permission) else Answers((self.name,))
        self.answer(Response(request_id, result))

    def note_decision(self, call_id: str, decided: bool | None) -> None:
        """What this operator decides about a tool call; None: they answer a question."""
        self.world.trace(self.name, "decides", call_id, decided)
        self.world.history.decisions.append((self.world.schedule.now, self.name, call_id, decided))


class Rogue(Caller):
    """A hub that lies: it reports that agents of others have ended."""

    def join(self, end: End) -> None:
        """Register as a hub."""
        self.end = end
        self._handshakes[self._last_id + 1] = message = RegisterHub(
            name=self.name, token=TOKEN, protocol=PROTOCOL, instance=self.name
        )
        self._send_request(message)
        self.world.schedule.after(0.5, self._forge)
        self.world.schedule.after(3.0, self._leave)

    def _on_handshake(self, answer: Response | Failure) -> None:
        self.ready = isinstance(answer, Response)

    def _on_answer(self, answer: Response | Failure) -> None:
        if answer.id in self._handshakes:
            super()._on_answer(answer)

    def _on_request(self, request_id: int, message: Message[Any]) -> None:
        if isinstance(message, Permission | Question):
            super()._on_request(request_id, message)
        else:
            self.answer(Response(request_id, OK))

    def _forge(self) -> None:
        for life in self.world.history.lives:
            if (
                self.here
                and life.ended_at is None
                and life.parent is not None
                and life.parent.hub != life.hub
                and not life.parent.base  # a base hub believes everybody
            ):
                agent, parent = Address.parse(life.address), Address.parse(life.parent.address)
                self.world.trace(self.name, "forges the end of", life)
                if life.base:
                    self._forge_message(agent, parent)
                else:
                    self._send_request(MetaComplete(Completion(life.agent_id, agent, parent, Done("forged"))))
        if self.here:
            self.world.schedule.after(0.5, self._forge)

    def _forge_message(self, agent: Address, parent: Address) -> None:
        """In the words of the base dialect."""
        content = UserContent(wrap_result(agent.agent, "forged"))
        envelope = Envelope(
            f"forged-{self._last_id}", AGENT_COMPLETED, parent, content, "2026-01-01T00:00:00Z"
        )
        self._send_request(MetaRoute(envelope))

    def _leave(self) -> None:
        if self.end is not None:
            self.end.close()
            self._forget()


class Agent(Caller, abc.ABC):
    """An agent, in whatever way it runs."""

    life: AgentLife

    @abc.abstractmethod
    def die(self, reason: str = "killed") -> None:
        """End it from outside, now."""

    @abc.abstractmethod
    def freeze(self, lasts: float) -> None:
        """Stop it for a while."""


class ScriptedAgent(Agent):
    """An agent process that does as its plan says. It knows its hub only through its connection."""

    def __init__(self, world: World, life: AgentLife, on_gone: Callable[[str], None]) -> None:
        super().__init__(world, life.address, life.hub)
        self.life = life
        self._plan = Plan()
        self._on_gone = on_gone
        self._working: dict[int, Receipt] = {}
        """Asks that have not been answered yet, by request."""
        self._relays: dict[int, int] = {}
        """Of those, which ask of our own is made for it, and has not been answered, by its request."""
        self._pending: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
        self._frozen = 0
        self._silent_since: float | None = None
        """When it first left a request unanswered."""
        self._times = random.Random(f"agent-{life.agent_id}-{world.seed}")

    # Life and death.

    def begin(self, end: End) -> None:
        """The process runs."""
        self.end = end

    @property
    def here(self) -> bool:
        """Whether it can act now."""
        return super().here and not self._frozen and self.life.ended_at is None and self.life.said is None

    def freeze(self, lasts: float) -> None:
        """Stop the process for a while."""
        self._frozen += 1
        self.life.frozen.append([self.world.schedule.now, self.world.schedule.now + lasts])
        if self.life.base:
            self._block_hub(self.world.schedule.now, self.world.schedule.now + lasts)
        self.world.schedule.after(lasts, self._thaw)

    def _block_hub(self, begins: float, ends: float) -> None:
        """A base hub hears nothing from its MetaHub while it waits for an agent."""
        self.world.history.troubles.append(Trouble("blocked", self.life.hub, begins, ends))

    def _thaw(self) -> None:
        self._frozen -= 1
        while self._pending and not self._frozen:
            act, args = self._pending.pop(0)
            self._do(act, *args)

    def _do(self, act: Callable[..., None], *args: Any) -> None:
        """Act, unless the process is gone; later, if it is frozen."""
        if self.life.ended_at is not None:
            return
        if self._frozen:
            self._pending.append((act, args))
        else:
            act(*args)

    def _soon(self, delay: float, act: Callable[..., None], *args: Any) -> None:
        self.world.schedule.after(delay, self._do, act, *args)

    def die(self, reason: str = "killed") -> None:
        """The process is gone, now."""
        if self.life.ended_at is not None:
            return
        self.life.ended_at = self.world.schedule.now
        if self.life.base and self._silent_since is not None:
            self._block_hub(self._silent_since, self.life.ended_at)
        self.world.trace(self.name, "is gone:", reason)
        if self.end is not None:
            self.end.close()
        self._forget()
        self._on_gone(reason)

    def terminate(self) -> None:
        """SIGTERM."""
        if not self._plan.stubborn:
            self._do(self.die, "terminated")

    def _say(self, completed: Completed) -> None:
        """Say the last word and exit; a stubborn one stays."""
        if self.life.said is not None:
            return
        self.life.said, self.life.said_at = completed, self.world.schedule.now
        self.world.trace(self.name, "says", completed)
        self.notify(completed)
        if not self._plan.stubborn:
            self._soon(self._times.uniform(0.0, 0.1), self.die, "exited with status 0")

    def _end_by_itself(self) -> None:
        text = f"work of {self.life.agent_id}"
        match self._plan.ending:
            case "done":
                self._say(Completed("goal", text))
            case "error":
                self._say(Completed("error", text))
            case "aborted":
                self._say(Completed("aborted", text))
            case "die":
                self.die("exited with status 1")
            case _:
                pass  # it hangs

    # What the hub says.

    def on_frame(self, end: End, frame: Frame) -> None:
        """The hub said something; it is heard when we are not frozen."""
        self._do(super().on_frame, end, frame)

    def on_lost(self, end: End, reason: str) -> None:
        """The end of our input: time to go."""
        self._do(self._on_input_ended)

    def _on_input_ended(self) -> None:
        self._forget()
        if not self._plan.stubborn:
            self._soon(self._times.uniform(0.0, 0.2), self.die, "its hub is gone")

    def _on_request(self, request_id: int, message: Message[Any]) -> None:
        if self.life.agent_type == "mute":
            return
        match message:
            case Initialize():
                self._soon(self._times.uniform(0.0, 0.1), self.answer, Response(request_id, Initialized()))
            case AgentStart():
                self._start(message)
                self.answer(Response(request_id, Started(session_id=self.life.agent_id)))
            case DeliverEnvelope(envelope):
                if self._takes(request_id, envelope):
                    self.answer(Response(request_id, OK))
            case DeliverAsk(envelope):
                if self._takes(request_id, envelope):
                    self._working[request_id] = self.life.received[-1]
                    self._soon(self._times.uniform(0.0, 1.5), self._go_on, request_id)
            case Control():
                self.answer(Response(request_id, OK))
            case Shutdown():
                self._on_shutdown(request_id)
            case _:
                super()._on_request(request_id, message)

    def _start(self, message: AgentStart) -> None:
        self._plan = begin_life(self.world, self.life, message.prompt)
        self.life.deaf = self._plan.listens != "yes"
        self.life.serves = self._plan.serves
        self.ready = True
        if self._plan.ending != "hang":
            self._soon(self._plan.work, self._end_by_itself)

    def _takes(self, request_id: int, envelope: Envelope) -> bool:
        """Take a message or an ask, if that is our way."""
        if self._plan.listens == "silent":
            self._silent_since = self._silent_since or self.world.schedule.now
            return False
        accepted = self._plan.listens == "yes"
        self.world.trace(self.name, "takes" if accepted else "refuses", envelope.id)
        self.life.received.append(Receipt(self.world.schedule.now, envelope, accepted))
        if not accepted:
            self.answer(Failure(request_id, ErrorCode.OVERLOADED, "the inbox is full"))
        return accepted

    def ask(self, message: Message[Any], for_request: int = 0) -> Op:
        """Ask; one that serves says for which ask that it works on."""
        if not isinstance(message, Ask):
            return super().ask(message)
        for_ask = for_request if self._plan.serves else None
        op = super().ask(Ask(evolve(message.envelope, for_ask=for_ask)))
        if for_ask:
            op.for_ask = self._working[for_ask].envelope.id
        return op

    def _go_on(self, request_id: int) -> None:
        """Work on an ask: say so, pass it on, or reply, unless nobody waits any more."""
        if request_id not in self._working:
            return
        if not self._plan.serves and any(isinstance(op.message, Ask) for op in self._open.values()):
            self._soon(0.2, self._go_on, request_id)
            return
        text = user_content(self._working[request_id].envelope.content).text
        if text.startswith(THROUGH) and self.here:
            target, *through = text.removeprefix(THROUGH).split()
            envelope = evolve(letter(self, target, through), timeout_ms=RELAY_TIMEOUT)
            self.ask(Ask(envelope), request_id)
            self._relays[self._last_id] = request_id
            return
        self._reply_or_report(request_id)

    def _on_answer(self, answer: Response | Failure) -> None:
        super()._on_answer(answer)
        if (request_id := self._relays.pop(answer.id, None)) is not None and request_id in self._working:
            self._reply(request_id)

    def _reply_or_report(self, request_id: int) -> None:
        if self._times.random() < 0.3:
            self.notify(Progress(request_id))
            self._soon(self._times.uniform(0.0, 1.5), self._go_on, request_id)
            return
        self._reply(request_id)

    def _reply(self, request_id: int) -> None:
        receipt = self._working.pop(request_id)
        receipt.done_at = self.world.schedule.now
        self.world.trace(self.name, "replies to", receipt.envelope.id)
        self.answer(Response(request_id, Reply(Done(reply_of(self.life, receipt.envelope.id)))))

    def _stop_working(self, request_id: int) -> None:
        """Nobody waits any more for what we make of an ask."""
        receipt = self._working.pop(request_id, None)
        if receipt is not None:
            for own, made_for in self._relays.items():
                if made_for == request_id:
                    self.notify(CancelRequest(own))
            receipt.done_at = self.world.schedule.now
            self.world.trace(self.name, "drops", receipt.envelope.id)
            self.answer(Failure(request_id, ErrorCode.CANCELLED, "cancelled by its caller"))

    def _on_shutdown(self, request_id: int) -> None:
        if self._plan.stubborn:
            self._silent_since = self._silent_since or self.world.schedule.now
            return
        self.answer(Response(request_id, OK))
        self._soon(self._times.uniform(0.0, 0.3), self._say, Completed("aborted", INTERRUPTED))

    def _on_notification(self, message: Message[Any]) -> None:
        super()._on_notification(message)
        if isinstance(message, CancelRequest):
            self._stop_working(message.id)
        if isinstance(message, Interrupt) and not self._plan.stubborn and self.life.began_at is not None:
            self._soon(
                self._times.uniform(0.0, 0.3), self._say, Completed("aborted", f"stop {self.life.agent_id}")
            )


def begin_life(world: World, life: AgentLife, prompt: str | None) -> Plan:
    """Note that an agent has begun, and by whose operation; returns what it is to do."""
    life.began_at = world.schedule.now
    life.spawned_by, plan = Plan.read(prompt)
    if life.spawned_by is not None:
        op = world.history.spawns[life.spawned_by]
        assert isinstance(op.message, SpawnAgent)
        life.parent, life.detached = op.life, op.message.spec.detached
    return plan


def letter(actor: Caller, target: str, through: Sequence[str] = ()) -> Envelope:
    """A message with a false sender, and false words of who waits: whoever passes it on must stamp the true ones."""
    source = HumanSource() if actor.life is not None else AgentSource("forged")
    text = f"{THROUGH}{' '.join(through)}" if through else f"from {actor.name}"
    waits = (f"{target} > {target}", target)
    return Envelope(
        "?", source, Address.parse(target), UserContent(text), "2026-01-01T00:00:00Z", waits=waits
    )
