"""A turn of a coding agent as its hub sees it: what it wants to be allowed, and what its end comes to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loopal_cluster.acp.client import TurnEnd
from loopal_cluster.acp.permission import choose_option, is_cluster_tool, shown_input
from loopal_cluster.acp.schema import PermissionRequest
from loopal_cluster.acp.transcript import ANSWER_CHARACTERS, Transcript
from loopal_cluster.agents.context import AgentContext, TurnEnds
from loopal_cluster.errors import ClusterError, TextTooLong
from loopal_cluster.messages import Decision
from loopal_cluster.outcomes import Cancelled, Failed
from loopal_cluster.payloads import Error, Payload

if TYPE_CHECKING:
    from loopal_cluster.acp.agent import AcpAgent

__all__ = ["HubTurn", "failed"]

TOLD = 5
"""Of so many tools it is told at most that nobody has answered whether they may be used."""
QUOTED = 500
"""So much of an answer is quoted in a failure."""


class HubTurn:
    """What a hub knows of one turn of a coding agent: what it said, and what it was not allowed."""

    def __init__(self, context: AgentContext, type_: AcpAgent, program: str, servers: frozenset[str]) -> None:
        self.transcript = Transcript(self._emit)
        self._context = context
        self._type = type_
        self._program = program
        self._servers = servers
        self._denied: list[str] = []
        self._unanswered: dict[str, str] = {}
        """Why nobody has answered whether it may use a tool, by the tool."""

    def _emit(self, payload: Payload) -> None:
        try:
            self._context.emit(payload)
        except TextTooLong as error:
            self._context.emit(Error(str(error)))

    async def judge(self, request: PermissionRequest) -> str | None:
        """Which option of a permission to take."""
        self.transcript.end_message()  # some ask before they say what for
        name = self.transcript.name_of(request.tool_call)
        decision = await self._decide(name, request)
        allow = decision.allow
        option = choose_option(request.options, allow=allow)
        if allow and option is None:
            self._context.emit(Error(f"{name}: it cannot be allowed only once, and so it is not"))
            allow, option = False, choose_option(request.options, allow=False)
        if decision.unanswered:
            self._unanswered[name] = decision.reason or "nobody was there to answer"
            self._context.emit(Error(f"{name} is not allowed: {self._unanswered[name]}"))
        elif not allow:
            self._denied.append(name)
        return option

    async def _decide(self, name: str, request: PermissionRequest) -> Decision:
        call = request.tool_call
        own_name = self.transcript.own_name_of(call)
        if self._type.allow_cluster_tools and is_cluster_tool(
            request, self._program, self._servers, own_name
        ):
            return Decision(allow=True)
        try:
            return await self._context.ask_permission(name, shown_input(call), tool_call_id=call.tool_call_id)
        except ClusterError as error:
            reason = f"permission could not be asked for: {error}"
            return Decision(allow=False, reason=reason, unanswered=True)

    @property
    def unanswered(self) -> str:
        """What nobody has refused and was not allowed; empty if nothing.

        A program is only told that it may not, and tells its model, in words of its own, that the user refused.
        """
        return "; ".join(
            f"{tool} was not allowed, but nobody has refused it: {reason}"
            for tool, reason in [*self._unanswered.items()][:TOLD]
        )

    def result_of(self, end: TurnEnd, note: str) -> str:
        """The answer, if the turn has one.

        Raises:
            TurnEnds: it has none; this is its outcome.
        """
        answer = self.transcript.answer
        said = f": {answer.strip()[:QUOTED]}" if answer.strip() else ""
        after = f" after it was not allowed to use {', '.join(self._denied)}" if self._denied else ""
        note += f"\n\n[{self.unanswered}]" if self._unanswered else ""
        match end.stop_reason:
            case "end_turn" if self.transcript.is_cut:
                return f"{answer}\n[cut after {ANSWER_CHARACTERS} characters]{note}"  # too large, and kept as that
            case "end_turn" if (self._denied or self._unanswered) and not said:
                raise failed(f"it ended its turn without a word{after}{note}")
            case "end_turn":
                return answer.rstrip("\n") + note
            case "cancelled":
                raise TurnEnds(Cancelled(f"it gave up its turn{after}{said}{note}"))
            case "refusal":
                raise failed(f"it refused{said}{note}")
            case "max_tokens":
                raise failed(f"it reached the limit of tokens of its model{said}{note}")
            case "max_turn_requests":
                raise failed(f"it reached its limit of requests in a turn{said}{note}")
            case reason:
                raise failed(f"it stopped for a reason that we do not know, {reason!r}{said}{note}")


def failed(error: str, *, final: bool = False) -> TurnEnds:
    """End a turn as failed; ``final``: and the agent with it."""
    return TurnEnds(Failed(error), final=final)
