"""The client's side of the Agent Client Protocol, version 1, on trio.

``open_client`` speaks to a program over two streams; ``Client`` opens sessions, ``Session.prompt`` takes a
turn. A session has one turn at a time, because programs do the most different things with a second one; to
interrupt is to cancel the first and then to prompt. Neither files nor terminals are offered: the program has
its own.

Version 2 of the protocol says by an update that a turn is over, and answers ``session/prompt`` at once. The
one place that knows how a turn ends is ``_Turn``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import trio
from attrs import field

from loopal_cluster.acp.rpc import Answer, PeerGone, Refused, RpcPeer, open_peer
from loopal_cluster.acp.schema import (
    ConfigOption,
    Initialized,
    ModeUpdate,
    OptionsUpdate,
    PermissionRequest,
    SessionInfo,
    Unreadable,
    Update,
    read,
    read_update,
)
from loopal_cluster.errors import ClusterError
from loopal_cluster.records import define, record
from loopal_cluster.wire.jsonrpc import INVALID_PARAMS, METHOD_NOT_FOUND

__all__ = ["AcpError", "Client", "LoginNeeded", "PeerGone", "Session", "TurnEnd", "open_client"]

VERSION = 1
AUTH_REQUIRED = -32000

T = TypeVar("T")

McpServer = Mapping[str, Any]
"""An entry of ``mcpServers``, as on the wire."""
OnUpdate = Callable[[Update], None]
OnPermission = Callable[[PermissionRequest], Awaitable[str | None]]
"""Returns the id of the option to take, or None for none."""


class AcpError(ClusterError):
    """The program cannot be worked with, or not in this way; one line that says why."""


class LoginNeeded(AcpError):
    """It wants somebody to log in first."""


@record
class TurnEnd:
    """How a turn has ended."""

    stop_reason: str
    """``end_turn``, ``max_tokens``, ``max_turn_requests``, ``refusal`` or ``cancelled``; or a new one."""
    usage: Mapping[str, Any] = field(factory=dict)
    """What it has cost, if the program says so: ``inputTokens``, ``outputTokens``, ..."""


@define(eq=False)
class _Turn:
    """A turn, and how it ends: in version 1, with the answer to its prompt."""

    answer: Answer
    on_update: OnUpdate
    on_permission: OnPermission
    cancelled: bool = False
    asked: set[trio.CancelScope] = field(factory=set)
    """The permissions that are not answered yet."""

    @property
    def over(self) -> trio.Event:
        """Set when it has ended, in whatever way."""
        return self.answer.settled

    async def end(self) -> TurnEnd:
        """How it has ended; waits for that. Raises as ``Session.prompt``."""
        try:
            match await self.answer.wait():
                case {"stopReason": str(reason), **rest}:
                    usage = rest.get("usage")
                    return TurnEnd(reason, usage if isinstance(usage, dict) else {})
                case _:
                    raise AcpError("its answer to session/prompt has no stopReason")
        except Refused as error:
            raise _said_no("session/prompt", error) from error


class Client:
    """A program that speaks the protocol; made by ``open_client``."""

    def __init__(self) -> None:
        self._peer: RpcPeer  # set by open_client
        self._sessions: dict[str, Session] = {}
        self.program = Initialized(protocol_version=VERSION)
        """What it has said of itself."""

    @property
    def closed(self) -> trio.Event:
        """Set when the talk has ended."""
        return self._peer.closed

    @property
    def lost(self) -> str | None:
        """Why it has."""
        return self._peer.lost

    @property
    def noise(self) -> Sequence[str]:
        """The last lines on its standard output that were no messages."""
        return tuple(self._peer.noise)

    async def initialize(self, *, name: str, version: str) -> Initialized:
        """Introduce ourselves; this comes first.

        Raises:
            AcpError: it speaks another version, or another protocol.
            PeerGone: it has ended.
        """
        answer = await self._call(
            "initialize",
            {
                "protocolVersion": VERSION,
                "clientCapabilities": {
                    "fs": {"readTextFile": False, "writeTextFile": False},
                    "terminal": False,
                },
                "clientInfo": {"name": name, "version": version},
            },
            Initialized,
        )
        if answer.protocol_version != VERSION:
            raise AcpError(f"it speaks version {answer.protocol_version} of ACP, and we speak {VERSION}")
        self.program = answer
        return answer

    async def authenticate(self, method_id: str) -> None:
        """Log in, in one of the ways that the program offers.

        Raises:
            LoginNeeded: it did not work.
        """
        offered = [method.id for method in self.program.auth_methods]
        if method_id not in offered:
            raise AcpError(f"it has no login {method_id!r} (there are: {', '.join(offered) or 'none'})")
        try:
            await self._peer.call("authenticate", {"methodId": method_id})
        except Refused as error:
            raise LoginNeeded(f"login {method_id!r} failed: {error}") from error

    @property
    def can_resume(self) -> bool:
        """Whether it can go on with a session of a process before it."""
        capabilities = self.program.agent_capabilities
        return capabilities.session_capabilities.resume is not None or capabilities.load_session

    async def new_session(self, cwd: str, mcp_servers: Sequence[McpServer] = ()) -> Session:
        """Begin a session, which works in ``cwd``, an absolute path.

        Raises:
            LoginNeeded, AcpError: it refused.
            PeerGone: it has ended.
        """
        params = {"cwd": cwd, "mcpServers": list(mcp_servers)}
        info = await self._call("session/new", params, SessionInfo)
        return self._open(info.session_id, info)

    async def resume_session(
        self, session_id: str, cwd: str, mcp_servers: Sequence[McpServer] = ()
    ) -> Session:
        """Go on with a session of a process before this one. What was said in it is not reported again.

        Raises:
            LoginNeeded, AcpError: it refused, or cannot do that.
            PeerGone: it has ended.
        """
        params = {"sessionId": session_id, "cwd": cwd, "mcpServers": list(mcp_servers)}
        if self.program.agent_capabilities.session_capabilities.resume is not None:
            info = await self._call("session/resume", params, SessionInfo)
        elif self.program.agent_capabilities.load_session:
            # It reports the whole of the past, before it answers: nobody listens yet.
            info = await self._call("session/load", params, SessionInfo)
        else:
            raise AcpError("it cannot resume a session")
        return self._open(session_id, info)

    def _open(self, session_id: str, info: SessionInfo) -> Session:
        session = self._sessions[session_id] = Session(self, session_id, info)
        return session

    async def _call(self, method: str, params: Mapping[str, Any], type_: type[T]) -> T:
        try:
            # An answer without anything in it may be null.
            return read(await self._peer.call(method, params) or {}, type_)
        except Refused as error:
            raise _said_no(method, error) from error
        except Unreadable as error:
            raise AcpError(f"its answer to {method} cannot be read: {error}") from None

    # What the program says.

    def _on_notification(self, method: str, params: Any) -> None:
        match params:
            case {"sessionId": str(session_id), "update": update} if method == "session/update":
                if (session := self._sessions.get(session_id)) is not None:
                    session._on_update(update)
            case _:
                pass  # of a version to come, or an extension

    async def _on_request(self, method: str, params: Any) -> Any:
        if method != "session/request_permission":
            raise Refused(METHOD_NOT_FOUND, f"unknown: {method}")
        try:
            request = read(params, PermissionRequest)
        except Unreadable as error:
            raise Refused(INVALID_PARAMS, str(error)) from None
        session = self._sessions.get(request.session_id)
        option = None if session is None else await session._on_permission(request)
        chosen = {"outcome": "cancelled"} if option is None else {"outcome": "selected", "optionId": option}
        return {"outcome": chosen}


class Session:
    """A conversation with a program; made by ``Client.new_session`` and ``resume_session``."""

    def __init__(self, client: Client, session_id: str, info: SessionInfo) -> None:
        self._client = client
        self._turn: _Turn | None = None
        self.id = session_id
        self.modes = info.modes
        self.options: tuple[ConfigOption, ...] = info.config_options or ()
        self.mode = info.modes.current_mode_id if info.modes is not None else self._mode_option()
        """The mode that is on, if it has any."""
        self.unreadable_count = 0
        """Updates that were left out because they are not of their form."""
        self.is_stuck = False
        """Whether a turn was cancelled and did not end. Then there cannot be another one."""

    async def prompt(
        self, text: str, *, on_update: OnUpdate, on_permission: OnPermission, cancel_timeout: float
    ) -> TurnEnd:
        """Take a turn; return how it ended.

        ``on_update`` is called with everything that the program reports meanwhile, in order, and must not
        block. ``on_permission`` runs in a task for each permission that it asks for.

        If cancelled, the program is told so, permissions are withdrawn, and it has ``cancel_timeout`` seconds
        to end its turn; if it does not, the session ``is_stuck``.

        Raises:
            LoginNeeded, AcpError: it refused.
            PeerGone: it has ended.
        """
        if self._turn is not None or self.is_stuck:
            raise AcpError("its last turn has not ended")
        content = [{"type": "text", "text": text}]
        answer = self._client._peer.ask("session/prompt", {"sessionId": self.id, "prompt": content})
        turn = self._turn = _Turn(answer, on_update, on_permission)
        try:
            return await turn.end()
        finally:
            if not turn.over.is_set():
                self._cancel(turn)
                with trio.move_on_after(cancel_timeout, shield=True):
                    await turn.over.wait()
                self.is_stuck = not turn.over.is_set()
            self._withdraw(turn)
            self._turn = None

    async def set_mode(self, mode: str) -> None:
        """Choose how it works, by one of its own words.

        Raises:
            AcpError: it has no such mode, or refused.
        """
        if self.modes is not None and any(mode == known.id for known in self.modes.available_modes):
            await self._client._call("session/set_mode", {"sessionId": self.id, "modeId": mode}, dict)
            self.mode = mode
        elif (option := self._option_of("mode")) is not None:
            await self.set_option(option.id, mode)
            self.mode = mode
        else:
            raise AcpError(f"it has no mode {mode!r} (there are: {', '.join(self.mode_ids) or 'none'})")

    def is_like(self, earlier: Session) -> None:
        """Say that it goes on with another one: what can be chosen is the same, if nothing else was said."""
        if not self.mode_ids:
            self.modes, self.options = earlier.modes, earlier.options or self.options

    @property
    def mode_ids(self) -> tuple[str, ...]:
        """The modes that can be chosen."""
        if self.modes is not None:
            return tuple(mode.id for mode in self.modes.available_modes)
        option = self._option_of("mode")
        return () if option is None else option.values

    async def set_model(self, model: str) -> None:
        """Choose the model, by the program's own name for it.

        Raises:
            AcpError: it has no such model, lets nobody choose, or refused.
        """
        if (option := self._option_of("model")) is None:
            raise AcpError(f"it does not let its model be chosen (asked for: {model!r})")
        await self.set_option(option.id, model)

    async def set_option(self, option_id: str, value: str) -> None:
        """Change a setting.

        Raises:
            AcpError: it has no such setting, or not this value for it, or refused.
        """
        option = next((option for option in self.options if option.id == option_id), None)
        if option is None:
            known = ", ".join(option.id for option in self.options) or "none"
            raise AcpError(f"it has no option {option_id!r} (there are: {known})")
        if option.values and value not in option.values:
            raise AcpError(f"{option_id} cannot be {value!r} (it can be: {', '.join(option.values)})")
        params = {"sessionId": self.id, "configId": option_id, "value": value}
        info = await self._client._call("session/set_config_option", params, SessionInfo)
        self._on_options(info.config_options)

    def _option_of(self, category: str) -> ConfigOption | None:
        return next((option for option in self.options if category in (option.category, option.id)), None)

    def _mode_option(self) -> str | None:
        option = self._option_of("mode")
        return option.current_value if option is not None and isinstance(option.current_value, str) else None

    def _on_options(self, options: tuple[ConfigOption, ...] | None) -> None:
        self.options = options or self.options
        if options:
            self.mode = self._mode_option() or self.mode

    def _cancel(self, turn: _Turn) -> None:
        turn.cancelled = True
        self._client._peer.notify("session/cancel", {"sessionId": self.id})
        self._withdraw(turn)

    def _withdraw(self, turn: _Turn) -> None:
        for scope in turn.asked:
            scope.cancel()

    def _on_update(self, value: Any) -> None:
        try:
            update = read_update(value)
        except Unreadable:
            self.unreadable_count += 1
            return
        if isinstance(update, ModeUpdate):
            self.mode = update.current_mode_id
        elif isinstance(update, OptionsUpdate):
            self._on_options(update.config_options)
        if update is not None and self._turn is not None:
            self._turn.on_update(update)

    async def _on_permission(self, request: PermissionRequest) -> str | None:
        turn = self._turn
        if turn is None or turn.cancelled:
            return None
        option = None
        with trio.CancelScope() as scope:
            turn.asked.add(scope)
            try:
                option = await turn.on_permission(request)
            finally:
                turn.asked.remove(scope)
        return option


def _said_no(method: str, error: Refused) -> AcpError:
    if error.code == AUTH_REQUIRED:
        return LoginNeeded(str(error))
    return AcpError(f"it refused {method}: {error}")


@asynccontextmanager
async def open_client(receiver: trio.abc.ReceiveStream, sender: trio.abc.SendStream) -> AsyncIterator[Client]:
    """Talk to a program for the length of the block. The streams are not closed."""
    client = Client()
    async with open_peer(receiver, sender, client._on_request, client._on_notification) as peer:
        client._peer = peer
        yield client
