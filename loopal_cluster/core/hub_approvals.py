"""Approvals at a hub: what its agents ask people, and who is there to answer.

The hub's own policy is asked first, then its operators, then its MetaHub. What the MetaHub brings is for the operators
here, and never goes up again. ``Approvals`` keeps what waits.
"""

from __future__ import annotations

from attrs import field

from loopal_cluster.config import Policy
from loopal_cluster.core.approvals import POLICY, Approvals, Audience
from loopal_cluster.core.calls import Call, Origin
from loopal_cluster.core.context import HubPart
from loopal_cluster.core.events import Peer
from loopal_cluster.core.exchange import Refused
from loopal_cluster.core.handlers import Handlers, Listeners, hear, serve
from loopal_cluster.core.kept import check_asked
from loopal_cluster.core.parties import AgentParty, ClientParty, MetaHubParty, Stranger
from loopal_cluster.core.patience import seconds_for
from loopal_cluster.core.steps import HubThen
from loopal_cluster.core.uplink import Uplink
from loopal_cluster.errors import ErrorCode
from loopal_cluster.frames import Failure, Response
from loopal_cluster.messages import Attended, Decided, Decision, Permission, Question, Role, Shown
from loopal_cluster.records import define, evolve

__all__ = ["HubApprovals"]

HAS_NOBODY = "nobody was there to answer: a MetaHub of the base dialect asks nobody"
"""Why it has denied a permission."""


@define
class HubApprovals(HubPart):
    """Brings permissions and questions to people, and their answers back."""

    _uplink: Uplink
    _parties: dict[Peer, Stranger | ClientParty | AgentParty | MetaHubParty]
    pending: Approvals = field(init=False)
    _told_attended: bool = field(default=False, init=False)
    """What the MetaHub was last told of our operators, on the connection that is up."""

    def __attrs_post_init__(self) -> None:
        audience = Audience(self._operators, self._joined_meta_hub, self._attended, self._attributed)
        self.pending = Approvals(self._context, audience)

    def requests(self) -> Handlers:
        """What is asked of people."""
        return (
            serve(Permission, self._approve_for_agent, AgentParty)
            | serve(Question, self._approve_for_agent, AgentParty)
            | serve(Permission, self._approve_for_meta_hub, MetaHubParty)
            | serve(Question, self._approve_for_meta_hub, MetaHubParty)
        )

    def notifications(self) -> Listeners:
        """What becomes of it, and who is there."""
        return (
            hear(Decided, self._on_decided, MetaHubParty)
            | hear(Shown, self._on_shown, ClientParty)
            | hear(Attended, self._on_attended, MetaHubParty)
        )

    def _approve_for_agent(
        self, origin: Origin, party: AgentParty, message: Permission | Question, now: float
    ) -> None:
        record = party.record
        policy = self._settings.policy.asked_in(record.spec.permission_mode)
        message = evolve(message, agent_name=record.name)
        check_asked(message, self._settings.limits.text_bytes)
        timeout = self._settings.timeouts.permission_timeout
        if isinstance(message, Permission) and policy is not Policy.SUPERVISED:
            allow = policy is Policy.BYPASS
            reason = f"the policy of hub '{self._settings.name}' is {policy.value}"
            self._exchange.answer(origin, Decision(allow=allow, reason=reason, by=POLICY))
            return
        if isinstance(message, Question) and policy is Policy.DENY:
            raise Refused(ErrorCode.NO_OPERATOR, f"hub '{self._settings.name}' does not pass questions on")
        self.pending.park(self._new_id(), origin, message, hub="", now=now, timeout=timeout)

    def _approve_for_meta_hub(
        self, origin: Origin, party: MetaHubParty, message: Permission | Question, now: float
    ) -> None:
        """Let our operators answer for an agent of another hub, whose policy it was to ask."""
        timeout = seconds_for(message, self._settings.timeouts)
        hub = (message.agent_name or "").partition("/")[0]  # by which the MetaHub has qualified it
        self.pending.park(self._new_id(), origin, message, hub=hub, now=now, timeout=timeout, relayed=True)

    def _on_decided(self, peer: Peer, party: MetaHubParty, message: Decided, now: float) -> None:
        self.pending.on_decided(peer, message, now)

    def _on_shown(self, peer: Peer, party: ClientParty, message: Shown, now: float) -> None:
        self.pending.on_shown(peer, message.ask_id)

    def _on_attended(self, peer: Peer, party: MetaHubParty, message: Attended, now: float) -> None:
        self._uplink.attended = message.attended
        self.on_attendance(now)

    def on_answer(self, call: Call[HubThen], ask_id: str, answer: Response | Failure, now: float) -> None:
        """An operator, or the MetaHub, has answered."""
        self.pending.on_answer(call, ask_id, self._told_apart(call, answer), now)

    def _told_apart(self, call: Call[HubThen], answer: Response | Failure) -> Response | Failure:
        """A base MetaHub has nobody to ask, and denies at once: that is nobody's refusal."""
        is_base = call.peer == self._uplink.peer and self._uplink.protocol is None
        if not is_base or isinstance(answer, Failure) or answer.result.by is not None:
            return answer
        if isinstance(answer.result, Decision) and not answer.result.allow:
            denial = evolve(answer.result, reason=HAS_NOBODY, unanswered=True)
            return Response(answer.id, denial)
        return answer

    # Who is there to answer.

    def on_joined(self, now: float) -> None:
        """We are in the cluster (again): the MetaHub, and those it can ask, are there."""
        self._told_attended = False
        self.on_attendance(now)
        self.pending.on_next_tier(now)

    def on_attendance(self, now: float) -> None:
        """Operators may have come or gone: what waits for one, and the MetaHub, know it."""
        here = bool(self._operators())
        if self._uplink.speaks("attended") and self._told_attended != here:
            self._told_attended = here
            self._uplink.notify(Attended(here))
        self.pending.on_attendance(now)

    def _joined_meta_hub(self) -> Peer | None:
        return self._uplink.peer if self._uplink.joined else None

    def _attended(self) -> bool | None:
        if self._operators():
            return True
        return self._uplink.attended if self._uplink.joined else False

    def _operators(self) -> list[Peer]:
        return [
            peer
            for peer, party in self._parties.items()
            if isinstance(party, ClientParty) and party.role is Role.OPERATOR
        ]

    def _attributed(self, approver: Peer, name: str | None) -> str:
        """An operator is who it registered as; a MetaHub says who it was."""
        party = self._parties.get(approver)
        return party.name if isinstance(party, ClientParty) else name or "MetaHub"
