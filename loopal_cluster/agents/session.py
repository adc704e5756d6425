"""The agent's half of the agent protocol: it runs an async function as an agent.

The same code serves an agent inside its hub (over records) and one in a process of its own (over
standard input and output). An ephemeral agent runs the function once and ends with its result; a
persistent one runs it for its prompt and then for every message, and ends when it is told to.
"""

from __future__ import annotations

import traceback
from typing import Any

import trio
from attrs import evolve

from loopal_cluster.agents.context import AgentContext, AgentFunction
from loopal_cluster.config import Limits
from loopal_cluster.errors import (
    ErrorCode,
    InvalidRequest,
    MethodNotFound,
    Overloaded,
    ProtocolError,
    RemoteError,
)
from loopal_cluster.messages import (
    OK,
    AgentEvent,
    AgentStart,
    Completed,
    Control,
    DeliverEnvelope,
    Envelope,
    Initialize,
    Initialized,
    Interrupt,
    Message,
    Opaque,
    Shutdown,
    Started,
)
from loopal_cluster.payloads import AwaitingInput, Error, Finished, Interrupted, ModeChanged, Payload, Stream
from loopal_cluster.payloads import Started as StartedEvent
from loopal_cluster.runtime.caller import Caller, open_caller
from loopal_cluster.runtime.channels import FrameChannel
from loopal_cluster.wire.contents import dumps, loads, user_content

__all__ = ["serve_session"]


async def serve_session(channel: FrameChannel, function: AgentFunction, *, limits: Limits) -> None:
    """Be the agent on the other end of a hub's channel, until it has ended or the hub is gone.

    Beyond ``limits.inbox`` messages that wait, a sender is told ``Overloaded``.
    """
    session = _Session(function, limits.inbox)
    async with open_caller(channel, session.on_request, session.on_notification) as caller:
        session.caller = caller
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.run)
            nursery.start_soon(session.end_with_connection)
            await session.ended.wait()
            nursery.cancel_scope.cancel()


class _Session:
    caller: Caller

    def __init__(self, function: AgentFunction, inbox_limit: int) -> None:
        self._function = function
        self._inbox_limit = inbox_limit
        self._start: AgentStart | None = None
        self._started = trio.Event()
        self._put, self._inbox = trio.open_memory_channel[Envelope](inbox_limit)
        self._turn = trio.CancelScope()
        self._context: AgentContext | None = None
        self._stopping = False
        self.ended = trio.Event()

    # What the hub asks.

    async def on_request(self, message: Message[Any]) -> Any:
        match message:
            case Initialize():
                return Initialized()
            case AgentStart():
                return self._begin(message)
            case DeliverEnvelope(envelope):
                return self._deliver(envelope)
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
                self._turn.cancel()
            case DeliverEnvelope(envelope):
                try:
                    self._deliver(envelope)
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
        self._context = AgentContext(self.caller, start, self._inbox)
        self._started.set()
        return Started(session_id=start.agent_id or "session")

    def _deliver(self, envelope: Envelope) -> Any:
        if self._start is None:
            raise MethodNotFound("expected agent/start")
        try:
            # Read here, where its sender can still be told that it is unreadable.
            content = user_content(envelope.content)
            self._put.send_nowait(evolve(envelope, content=content))
        except ProtocolError as error:
            raise InvalidRequest(str(error)) from None
        except trio.WouldBlock:
            raise Overloaded(f"the inbox is full ({self._inbox_limit} messages)") from None
        return OK

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
            completed = await self._run_turn(self._context, self._context.prompt)
        self._emit(Finished())
        self.caller.notify(completed)
        await self.caller.flush()
        self.ended.set()

    async def _run_turns(self, context: AgentContext) -> Completed:
        prompt = self._start.prompt if self._start else None
        while not self._stopping:
            if prompt is not None:
                turn = await self._run_turn(context, prompt)
                if turn.reason == "error":
                    self._emit(Error(message=turn.result_text or ""))
                elif turn.reason == "goal" and turn.result_text:
                    self._emit(Stream(text=turn.result_text))
            self._emit(AwaitingInput())
            with trio.CancelScope() as self._turn:
                if self._stopping:
                    break
                prompt = user_content((await self._inbox.receive()).content).text
            if self._turn.cancelled_caught:
                prompt = None  # an interrupt while idle has nothing to interrupt
        return Completed(reason="shutdown")

    async def _run_turn(self, context: AgentContext, prompt: str) -> Completed:
        """Run the function once; whatever comes of it becomes an outcome."""
        completed = Completed(reason="aborted", result_text="interrupted")
        try:
            with trio.CancelScope() as self._turn:
                if self._stopping:
                    self._turn.cancel()
                completed = Completed(reason="goal", result_text=_text(await self._function(context, prompt)))
        # Its author's errors are outcomes, whatever they are: also those beside a cancellation, which
        # goes on its way, and ``sys.exit``, which must not end a hub.
        except* (Exception, SystemExit) as group:
            completed = _failed(group)
        if self._turn.cancelled_caught:
            self._emit(Interrupted())
        return completed

    def _emit(self, payload: Payload) -> None:
        self.caller.notify(AgentEvent(None, payload))


def _failed(group: BaseExceptionGroup[BaseException]) -> Completed:
    error: BaseException = group
    if not group.message and len(group.exceptions) == 1:
        error = group.exceptions[0]  # ``except*`` has wrapped an exception that was no group
    trace = "".join(traceback.format_exception(error))
    return Completed(reason="error", result_text=describe(error), traceback=trace)


def describe(error: BaseException) -> str:
    """An exception in one line, an exception group by what is in it."""
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(describe(inner) for inner in error.exceptions)
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _text(result: object) -> str:
    if result is None:
        return ""
    return result if isinstance(result, str) else dumps(result).json.decode()
