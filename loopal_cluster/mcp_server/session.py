"""The Model Context Protocol as far as it is about tools, for one client and without a transport.

A transport gives each message to ``Session.take``, which returns the answer, or a ``Call`` to run in a task:
using a tool takes time. The era of ``initialize`` is spoken, in all its versions; a client of a later one is
told so, and falls back (modelcontextprotocol.io, "Versioning").
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

import trio
from attrs import field

from loopal_cluster import __version__
from loopal_cluster.errors import ProtocolError
from loopal_cluster.links.background import open_background
from loopal_cluster.records import define
from loopal_cluster.texts import excess
from loopal_cluster.tools.arguments import json_schema
from loopal_cluster.tools.tool import Tool, ToolResult
from loopal_cluster.tools.toolbox import MCP_SERVER
from loopal_cluster.wire.contents import parse
from loopal_cluster.wire.jsonrpc import INVALID_PARAMS, INVALID_REQUEST, METHOD_NOT_FOUND, PARSE_ERROR

__all__ = ["LONGEST_CALL", "VERSIONS", "Answer", "Call", "ToolServer", "Session", "failure"]

VERSIONS: Final = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")
"""What we speak, newest first. They differ in nothing that we use."""
LONGEST_CALL: Final = 45.0
"""Seconds; what waits for longer returns then. Some clients give a call up after 60."""
PROGRESS_INTERVAL: Final = 5.0
"""Seconds between two reports of progress, for those who ask for them."""
TWICE_BYTES: Final = 64 * 1024
"""The largest result that is given as a text and as data."""
CALLS: Final = 64
"""Calls of one client at one time."""

INSTRUCTIONS: Final = (
    "These tools connect you to a cluster of hubs. A hub is a program on some machine that runs AI agents. You "
    "are one of the agents: you can start others on any hub (Agent), talk to them (SendMessage, Inbox), wait for "
    "their results (WaitAgent) and stop them (CancelAgent). Begin with ListHubs. Use them when a task needs "
    "another machine, another kind of agent, or several agents at the same time."
)

Answer = dict[str, Any]
"""A JSON-RPC message of ours."""
Id = str | int


class ToolServer(Protocol):
    """What has the tools: a ``Toolbox``, or something that has one at times."""

    @property
    def tools(self) -> Mapping[str, type[Tool]]:
        """By name."""

    async def call(
        self, name: str, arguments: Mapping[str, Any] | str = "", *, time_limit: float
    ) -> ToolResult:
        """Use one."""


def failure(id_: Id | None, code: int, message: str, data: Any = None) -> Answer:
    """An answer that says no."""
    error = {"code": code, "message": message} | ({} if data is None else {"data": data})
    return {"jsonrpc": "2.0", "id": id_, "error": error}


def _success(id_: Id, result: Mapping[str, Any]) -> Answer:
    return {"jsonrpc": "2.0", "id": id_, "result": result}


class Session:
    """Our side of the talk with one client."""

    def __init__(self, server: ToolServer, notify: Callable[[Answer], None] | None = None) -> None:
        self.server = server
        self.notify = notify
        """Sends the client something that is no answer, if its transport can."""
        self.client: str | None = None
        """What it calls itself, once it has said so."""
        self.calls: dict[Id, Call] = {}
        """Those that are not answered."""

    def take(self, text: bytes) -> Answer | Call | None:
        """Take in a message: its answer, or the call that will have one, or None if it wants none."""
        try:
            message = parse(text)
        except ProtocolError as error:
            return failure(None, PARSE_ERROR, str(error))
        match message:
            case {"jsonrpc": "2.0", "method": str(method), "id": str() | int() as id_} if not isinstance(
                id_, bool
            ):
                params = {} if message.get("params") is None else message["params"]
                if not isinstance(params, dict):
                    return failure(id_, INVALID_PARAMS, "params: expected an object")
                return self._on_request(id_, method, params)
            case {"jsonrpc": "2.0", "method": str(method)} if "id" not in message:
                self._on_notification(method, message.get("params"))
                return None
            case {"jsonrpc": "2.0", "id": _, "result": _} | {"jsonrpc": "2.0", "id": _, "error": _}:
                return None  # we ask nothing, so there is nothing to answer
            case list():
                return failure(None, INVALID_REQUEST, "send one message at a time, not a batch")
            case _:
                return failure(None, INVALID_REQUEST, "expected a JSON-RPC 2.0 request or notification")

    def _on_request(self, id_: Id, method: str, params: dict[str, Any]) -> Answer | Call:
        match method:
            case "initialize":
                return self._initialize(id_, params)
            case "ping":
                return _success(id_, {})
            case "tools/list":
                tools = [describe(name, tool) for name, tool in self.server.tools.items()]
                return _success(id_, {"tools": tools})
            case "tools/call":
                return self._begin_call(id_, params)
            case _:
                return failure(id_, METHOD_NOT_FOUND, f"unknown method {method[:80]!r}")

    def _on_notification(self, method: str, params: Any) -> None:
        match method, params:
            case "notifications/cancelled", {"requestId": str() | int() as id_} if id_ in self.calls:
                self.calls[id_].scope.cancel()

    def _initialize(self, id_: Id, params: dict[str, Any]) -> Answer:
        # A client that does not speak what we answer ends the connection itself.
        wanted = params.get("protocolVersion")
        match params.get("clientInfo"):
            case {"name": str(name)}:
                self.client = name
            case _:
                self.client = "mcp-client"
        return _success(
            id_,
            {
                "protocolVersion": wanted if wanted in VERSIONS else VERSIONS[0],
                "capabilities": {"tools": {}},
                "serverInfo": {"name": MCP_SERVER, "title": "loopal_cluster", "version": __version__},
                "instructions": INSTRUCTIONS,
            },
        )

    def _begin_call(self, id_: Id, params: dict[str, Any]) -> Answer | Call:
        name, arguments = params.get("name"), params.get("arguments") or {}
        known = ", ".join(self.server.tools)
        if id_ in self.calls:
            return failure(id_, INVALID_REQUEST, f"request {id_!r} is already open")
        if not isinstance(name, str):
            return failure(id_, INVALID_PARAMS, f"params.name: expected one of {known}")
        if name not in self.server.tools:
            return failure(id_, INVALID_PARAMS, f"unknown tool {name[:80]!r}; the tools are: {known}")
        if not isinstance(arguments, dict | str):  # some models send the object as a text
            return failure(id_, INVALID_PARAMS, "params.arguments: expected an object")
        if len(self.calls) >= CALLS:
            text = f"{CALLS} of your calls are open already: wait for one of them, then try again"
            return _success(id_, _content(ToolResult.error(text)))
        match params.get("_meta"):
            case {"progressToken": str() | int() as token}:
                call = Call(self, id_, name, arguments, token)
            case _:
                call = Call(self, id_, name, arguments)
        self.calls[id_] = call
        return call


@define(eq=False)
class Call:
    """A call of a tool that has begun; ``run`` must follow."""

    _session: Session
    id: Id
    name: str
    _arguments: dict[str, Any] | str
    _progress_token: Id | None = None
    scope: trio.CancelScope = field(factory=trio.CancelScope)
    """Cancelled if the client no longer wants it."""

    async def run(self) -> Answer | None:
        """Do it. None: the client has withdrawn it, and expects no answer."""
        try:
            with self.scope:
                return _success(self.id, _content(await self._use()))
            return None
        finally:
            del self._session.calls[self.id]

    async def _use(self) -> ToolResult:
        async with open_background() as nursery:
            if self._progress_token is not None and self._session.notify is not None:
                nursery.start_soon(self._report_progress, self._session.notify)
            return await self._session.server.call(self.name, self._arguments, time_limit=LONGEST_CALL)
        raise AssertionError("unreachable")  # for mypy: the nursery swallows nothing

    async def _report_progress(self, notify: Callable[[Answer], None]) -> None:
        seconds = 0.0
        while True:
            await trio.sleep(PROGRESS_INTERVAL)
            seconds += PROGRESS_INTERVAL
            params = {
                "progressToken": self._progress_token,
                "progress": seconds,
                "message": f"{self.name}: {seconds:g} s",
            }
            notify({"jsonrpc": "2.0", "method": "notifications/progress", "params": params})


def describe(name: str, tool: type[Tool]) -> dict[str, Any]:
    """A tool as ``tools/list`` shows it."""
    return {
        "name": name,
        "description": tool.description,
        "inputSchema": json_schema(tool),
        "annotations": {"readOnlyHint": tool.only_looks, "destructiveHint": tool.destroys},
        # Claude Code otherwise hides tools until its model searches for them, which it has no reason to.
        "_meta": {"anthropic/alwaysLoad": True},
    }


def _content(result: ToolResult) -> dict[str, Any]:
    content: dict[str, Any] = {"content": [{"type": "text", "text": result.text}], "isError": result.is_error}
    # The data say the same once more; a line has no room for a large text twice.
    is_small = not excess(result.text, TWICE_BYTES)
    return content | ({"structuredContent": result.data} if result.data and is_small else {})
