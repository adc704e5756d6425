"""The agent's half of the agent protocol: it runs an async function as an agent.

The same code serves an agent inside its hub (over records) and one in a process of its own (over
standard input and output). An ephemeral agent runs the function once and ends with its result; a
persistent one runs it for its prompt and then for every message, and ends when it is told to.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any

import trio

from loopal_cluster.agents.context import AgentContext, AgentFunction, Streamed, TurnEnds
from loopal_cluster.agents.inbox import Inbox, Received, failed, text_of
from loopal_cluster.completions import completed_outcome
from loopal_cluster.config import Limits
from loopal_cluster.errors import (
    ErrorCode,
    InvalidRequest,
    MethodNotFound,
    ProtocolError,
    RemoteError,
)
from loopal_cluster.links.ambient import Ambient
from loopal_cluster.links.caller import Caller, OpenRequest, open_caller
from loopal_cluster.links.channels import FrameChannel
from loopal_cluster.messages import (
    OK,
    AgentEvent,
    AgentStart,
    Completed,
    Control,
    DeliverAsk,
    DeliverEnvelope,
    Initialize,
    Initialized,
    Interrupt,
    Message,
    Opaque,
    Shutdown,
    Started,
)
from loopal_cluster.outcomes import Failed, reason_of
from loopal_cluster.payloads import AwaitingInput, Error, Finished, Interrupted, ModeChanged, Payload, Stream
from loopal_cluster.payloads import Started as StartedEvent
from loopal_cluster.texts import TEXT_BYTES, excess
from loopal_cluster.wire.contents import loads

__all__ = ["serve_session"]


async def serve_session(
    channel: FrameChannel,
    function: AgentFunction,
    *,
    limits: Limits,
    ambient: Ambient | None = None,
    prompt_of: Callable[[Received], str] = attrgetter("text"),
) -> None:
    """Be the agent on the other end of a hub's channel, until it has ended or the hub is gone.

    Beyond ``limits.inbox`` messages that wait, a sender is told ``Overloaded``. ``prompt_of`` makes the prompt of a
    turn of a message: for a model, who has said it belongs to it.
    """
    session = _Session(function, limits.inbox, ambient or Ambient(), prompt_of)
    async with open_caller(channel, session.on_request, session.on_notification) as caller:
        session.caller = caller
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.run)
            nursery.start_soon(session.end_with_connection)
            await session.ended.wait()
            nursery.cancel_scope.cancel()


class _Session:
    caller: Caller

    def __init__(
        self,
        function: AgentFunction,
        inbox_limit: int,
        ambient: Ambient,
        prompt_of: Callable[[Received], str],
    ) -> None:
        self._function = function
        self._prompt_of = prompt_of
        self._ambient = ambient
        self._start: AgentStart | None = None
        self._started = trio.Event()
        self._inbox = Inbox(inbox_limit)
        self._turn = trio.CancelScope()
        """Of what it does now; before that, of its first turn."""
        self._context: AgentContext | None = None
        self._stopping = False
        self._final: Completed | None = None
        """How a turn has ended that was the last one by its own word."""
        self.ended = trio.Event()

    # What the hub asks.

    def on_request(self, message: Message[Any], request: OpenRequest) -> Any:
        match message:
            case Initialize():
                return Initialized()
            case AgentStart():
                return self._begin(message)
            case DeliverEnvelope(envelope):
                self._open_inbox().put(envelope)
                return OK
            case DeliverAsk(envelope):
                self._open_inbox().put_ask(envelope, request)
                return None
            case Control(command):
                return self._control(command)
            case Shutdown():
                self._stopping = True
                self._turn.cancel()
                if self._start is None:
                    self.ended.set()
                return OK
            case _:
                raise MethodNotFound(f"unknown: {message.method}")

    def on_notification(self, message: Message[Any]) -> None:
        match message:
            case Interrupt():
                if self._start is not None:
                    self._turn.cancel()
            case DeliverEnvelope(envelope):
                try:
                    self._open_inbox().put(envelope)
                except RemoteError as error:
                    self._emit(Error(message=f"a message was dropped: {error.detail}"))
            case _:
                pass

    def _begin(self, start: AgentStart) -> Started:
        if self._start is not None:
            raise InvalidRequest("this agent has begun already")
        if start.lifecycle not in ("ephemeral", "persistent", None):
            raise InvalidRequest(f"lifecycle {start.lifecycle!r} is neither ephemeral nor persistent")
        self._start = start
        self._context = AgentContext(self.caller, start, self._inbox, self._ambient)
        self._started.set()
        return Started(session_id=start.agent_id or "session")

    def _open_inbox(self) -> Inbox:
        if self._start is None:
            raise MethodNotFound("expected agent/start")
        return self._inbox

    def _control(self, command: Opaque) -> Any:
        if self._context is None:
            raise MethodNotFound("expected agent/start")
        try:
            asked = loads(command)
        except ProtocolError as error:
            raise InvalidRequest(str(error)) from None
        match asked:
            case {"ModeSwitch": "Act" | "Plan" as mode}:
                self._context.mode = mode.lower()
                self._emit(ModeChanged(mode=mode.lower()))
            case {"ModelSwitch": str(model)}:
                self._context.model = model
            case _:
                known = '{"ModeSwitch":"Act"}, {"ModeSwitch":"Plan"}, {"ModelSwitch":NAME}'
                shown = repr(asked)[:80]
                raise RemoteError(f"this agent takes the controls {known}, not {shown}", ErrorCode.REFUSED)
        return OK

    # What the agent does.

    async def end_with_connection(self) -> None:
        await self.caller.closed.wait()
        self.ended.set()

    async def run(self) -> None:
        """From ``agent/start`` to ``agent/completed``."""
        await self._started.wait()
        assert self._start is not None
        assert self._context is not None
        self._emit(StartedEvent())
        if self._context.persistent:
            completed = await self._run_turns(self._context)
        else:
            completed = await self._run_turn(self._context, self._context.prompt, self._turn)
        self._emit(Finished())
        self.caller.notify(completed)
        await self.caller.flush()
        self.ended.set()

    async def _run_turns(self, context: AgentContext) -> Completed:
        if self._start is not None and self._start.prompt is not None:
            self._show(await self._run_turn(context, self._start.prompt, self._turn))
        while self._final is None and not self._stopping:
            self._emit(AwaitingInput())
            received: Received | None = None
            with trio.CancelScope() as self._turn:
                if self._stopping:
                    break
                received = await self._inbox.get()
            if received is not None:  # an interrupt while idle has nothing to interrupt
                await self._run_turn_for(context, received)
        return self._final or Completed(reason="shutdown")

    async def _run_turn_for(self, context: AgentContext, received: Received) -> None:
        """A message is the prompt of a turn; the reply to an ask is what comes of it."""
        context._turn_of = received
        turn = Completed(reason="aborted", result_text="its sender no longer waits")
        try:
            if received.wants_reply:
                with received.scope:
                    turn = await self._run_turn(context, self._prompt_of(received))
            else:
                turn = await self._run_turn(context, self._prompt_of(received))
        finally:
            context._turn_of = None
        if received.wants_reply and not received.was_handed_over:
            received.settle(completed_outcome(turn))
        self._show(turn)

    def _show(self, turn: Completed) -> None:
        if turn.reason == "error":
            self._emit(Error(message=turn.result_text or ""))
        elif turn.reason == "goal" and turn.result_text and not isinstance(turn.result_text, Streamed):
            # One that is too large is kept in a file, and that is told.
            self._emit(Stream(text="" if excess(turn.result_text, TEXT_BYTES) else turn.result_text))

    async def _run_turn(
        self, context: AgentContext, prompt: str, turn: trio.CancelScope | None = None
    ) -> Completed:
        """Run the function once; whatever comes of it becomes an outcome.

        The first ``turn`` is a scope that was there before it: an interrupt may have cancelled it already.
        """
        completed = Completed(reason="aborted", result_text="interrupted")
        try:
            with turn or trio.CancelScope() as self._turn:
                if self._stopping:
                    self._turn.cancel()
                completed = Completed(
                    reason="goal", result_text=text_of(await self._function(context, prompt))
                )
        except* TurnEnds as group:
            completed = self._on_turn_ends(group)
        # Its author's errors are outcomes, whatever they are: also those beside a cancellation, which
        # goes on its way, and ``sys.exit``, which must not end a hub.
        except* (Exception, SystemExit) as group:
            error = failed(group)
            completed = Completed(reason="error", result_text=error.error, traceback=error.traceback)
        if self._turn.cancelled_caught:
            self._emit(Interrupted())
        return completed

    def _on_turn_ends(self, group: BaseExceptionGroup[TurnEnds]) -> Completed:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        assert isinstance(error, TurnEnds)
        reason = "error" if isinstance(error.outcome, Failed) else "aborted"
        completed = Completed(reason=reason, result_text=reason_of(error.outcome))
        if error.final:
            self._final = completed
        return completed

    def _emit(self, payload: Payload) -> None:
        self.caller.notify(AgentEvent(None, payload))
