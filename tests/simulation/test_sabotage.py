"""Every checker of the simulation is worth its place: it finds a core that was broken on purpose.

A defect counts as caught if the checker that claims to find it does so within 500 seeds, on a seed on
which the same checker has nothing to say about the core as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from attrs import frozen

from loopal_cluster.config import Timeouts
from loopal_cluster.core import (
    approvals,
    calls,
    circles,
    exchange,
    hub_routing,
    membership,
    meta_approvals,
    meta_membership,
    meta_revocations,
    meta_routing,
    receipts,
    results,
    routes,
    steps,
    supervisor,
    uplink,
    waits,
)
from loopal_cluster.core.agents import AgentTree
from loopal_cluster.core.announcements import Announcements
from loopal_cluster.core.deliveries import Deliveries
from loopal_cluster.core.effects import StopAgent
from loopal_cluster.core.hub_lookup import HubLookup
from loopal_cluster.core.hub_routing import HubRouting
from loopal_cluster.core.parties import MetaHubParty
from loopal_cluster.core.reconciler import Reconciler
from loopal_cluster.core.reports import Reports
from loopal_cluster.core.spawner import Spawner
from loopal_cluster.core.timeline import Timeline
from loopal_cluster.errors import ErrorCode
from loopal_cluster.messages import (
    OK,
    CancelRequest,
    Decision,
    DeliverEnvelope,
    Permission,
    Reply,
)
from loopal_cluster.outcomes import Done
from loopal_cluster.records import evolve
from tests.simulation import CHECKERS, Simulation, Weather

from .seeds import seed_that_catches

SEEDS = 500

Supervisor, Uplink, Exchange, Waits = supervisor.Supervisor, uplink.Uplink, exchange.Exchange, waits.Waits


@frozen
class Defect:
    """One way to break a core."""

    name: str
    caught_by: str
    """The checker that finds it; others may, too."""
    weather: Weather
    plant: Callable[[pytest.MonkeyPatch], None]

    def __str__(self) -> str:
        return self.name


DEFECTS: list[Defect] = []


def defect(caught_by: str, *, weather: Weather = Weather.CALM) -> Callable[[Any], Any]:
    """Register a function that plants a defect; its name says which."""

    def register(plant: Callable[[pytest.MonkeyPatch], None]) -> Any:
        DEFECTS.append(Defect(plant.__name__, caught_by, weather, plant))
        return plant

    return register


def nothing(*_: Any, **__: Any) -> None:
    """What a part does that has forgotten its job."""


# Outcomes.


@defect("one outcome")
def a_call_without_a_deadline(patch):
    intact = calls.CallTable.open

    def open_(self, peer, message, then, deadline, asked_at=None, size=None):
        return intact(self, peer, message, then, 1e9, asked_at, size)

    patch.setattr(calls.CallTable, "open", open_)


@defect("one outcome")
def an_answer_settled_twice(patch):
    patch.setattr(Exchange, "_close", lambda self, origin: origin.peer in self._requests)
    intact = Supervisor.settle

    def settle(self, record, outcome, now):
        waiters = list(record.waiters)
        intact(self, record, outcome, now)
        for origin in waiters:
            self._exchange.answer(
                origin, results.FinishedAgent("x", record.address, None, None, outcome, 0).waited()
            )

    patch.setattr(Supervisor, "settle", settle)


@defect("one outcome", weather=Weather.ROUGH)
def a_late_answer_taken_as_a_second_result(patch):
    intact = Exchange.refuse

    def settle_due(self, now):
        yield from self._deadlines.pop_due(now)

    def refuse(self, origin, code, detail):
        if code is ErrorCode.DEADLINE_EXCEEDED:
            self._fail(origin.peer, origin.id, code, detail)
        else:
            intact(self, origin, code, detail)

    patch.setattr(calls.CallTable, "settle_due", settle_due)
    patch.setattr(Exchange, "refuse", refuse)


@defect("one outcome")
def a_wait_that_never_times_out(patch):
    patch.setattr(Waits, "on_due", nothing)


@defect("one outcome")
def an_ask_that_never_expires(patch):
    patch.setattr(approvals.Approvals, "expire", nothing)


@defect("one outcome")
def a_backlog_that_is_lost(patch):
    intact = Supervisor.begin

    def begin(self, record, now):
        self._deliveries._backlog.pop(record.id, None)
        intact(self, record, now)

    patch.setattr(Supervisor, "begin", begin)


@defect("true outcomes")
def a_wait_answered_with_another_agents_result(patch):
    def find(self, address, agent_id=None):
        return next(reversed(self._by_id.values()), None)

    patch.setattr(results.Results, "find", find)


@defect("true outcomes")
def a_kept_result_that_hides_the_agent_that_has_the_name_now(patch):
    intact = HubLookup._addressed

    def addressed(self, origin, party, message, now):
        target = self._routing.own(message.agent)
        if getattr(message, "agent_id", None) is not None or not self._answer_finished(
            origin, message, target, None, isinstance(party, MetaHubParty)
        ):
            intact(self, origin, party, message, now)

    patch.setattr(HubLookup, "_addressed", addressed)


@defect("true outcomes")
def a_forged_completion_that_is_accepted(patch):
    def on_report(self, completion, now):
        if (record := self.agents.get(completion.spawn_id)) is not None:
            self.come_up(record)
            self.settle(record, completion.outcome, now)

    patch.setattr(Supervisor, "on_report", on_report)


@defect("true outcomes")
def a_failure_reported_as_an_empty_success(patch):
    patch.setattr(supervisor, "completed_outcome", lambda message, error: Done(message.result_text or ""))


# Messages.


@defect("delivered once")
def a_message_acknowledged_before_it_was_taken(patch):
    intact = Deliveries.deliver

    def deliver(self, record, message, origin, now, receipt=None):
        intact(self, record, message, origin, now, receipt)
        if origin is not None and isinstance(message, DeliverEnvelope):
            self._exchange.answer(origin, OK)

    patch.setattr(Deliveries, "deliver", deliver)


@defect("delivered once", weather=Weather.ROUGH)
def a_repeated_message_that_is_not_recognized(patch):
    patch.setattr(receipts.Receipts, "knows", lambda self, message_id: False)


@defect("delivered once", weather=Weather.ROUGH)
def a_memory_of_3_s(patch):
    patch.setattr(Timeouts, "memory", lambda self, seconds: 3.0)


@defect("delivered once", weather=Weather.ROUGH)
def a_memory_that_does_not_depend_on_the_time_of_an_ask(patch):
    patch.setattr(Timeouts, "memory", lambda self, seconds: 2 * max(self.call_timeout, self.lease_timeout))


@defect("delivered once")
def a_message_delivered_twice(patch):
    intact = Deliveries.deliver

    def deliver(self, record, message, origin, now, receipt=None):
        intact(self, record, message, None, now)
        intact(self, record, message, origin, now, receipt)

    patch.setattr(Deliveries, "deliver", deliver)


@defect("delivered once")
def a_bare_name_taken_for_the_first_hub_that_comes_to_mind(patch):
    def find(self, origin, target, message, sender, now):
        hub = next(iter(self._hubs)).name
        self.send(origin, hub, message, now)

    def deliver(self, origin, party, message, now):
        record = next((record for record in self._agents.here() if record.peer is not None), None)
        if record is None:
            raise self.not_found(message.envelope.target)
        self._deliveries.deliver(record, message, origin, now)

    patch.setattr(meta_routing.MetaRouting, "_find", find)
    patch.setattr(HubRouting, "_deliver", deliver)


@defect("true sender")
def an_envelope_that_is_forwarded_unstamped(patch):
    def forwarded(envelope, hub):
        return evolve(envelope, target=envelope.target.on(None))

    patch.setattr(meta_routing, "forwarded", forwarded)


@defect("true sender")
def a_sender_that_is_believed(patch):
    def route(self, origin, party, message, now):
        self._route(origin, message.envelope, message.envelope.source, now)

    patch.setattr(HubRouting, "_route_of_client", route)


@defect("no event missing")
def an_event_that_is_dropped(patch):
    intact = Timeline.publish

    def publish(self, hub, agent, payload, now):
        if self._seq % 7 == 3:
            self._seq += 1
        intact(self, hub, agent, payload, now)

    patch.setattr(Timeline, "publish", publish)


# Asks.


@defect("true replies")
def a_reply_for_whoever_asked_last(patch):
    intact = Exchange.answer
    newest: dict[int, Any] = {}

    def answer(self, origin, result):
        if not isinstance(result, Reply):
            return intact(self, origin, result)
        last = newest.get(id(self), result)
        newest[id(self)] = result
        return intact(self, origin, last)

    patch.setattr(Exchange, "answer", answer)


@defect("no idle work")
def an_ask_that_nobody_waits_for_and_that_is_worked_on(patch):
    intact = Exchange.notify

    def notify(self, peer, message):
        if not isinstance(message, CancelRequest):
            intact(self, peer, message)

    patch.setattr(Exchange, "notify", notify)


@defect("no circles of asks")
def a_circle_of_asks_that_is_let_pass(patch):
    patch.setattr(hub_routing, "check_circle", nothing)


@defect("no circles of asks")
def a_meta_hub_that_forgets_who_waits(patch):
    intact = meta_routing.forwarded

    def forwarded(envelope, hub):
        return evolve(intact(envelope, hub), waits=())

    patch.setattr(meta_routing, "forwarded", forwarded)


@defect("no circles of asks")
def an_agent_that_serves_and_is_taken_for_one_that_waits(patch):
    intact = circles.waits_of

    def waits_of(asker, held, *, serves):
        return intact(asker, held, serves=False)

    patch.setattr(hub_routing, "waits_of", waits_of)


@defect("no circles of asks")
def an_agent_that_is_believed_who_waits(patch):
    intact = hub_routing.sent_by

    def sent_by(source, envelope, target, timeout_ms, waits=()):
        return intact(source, envelope, target, timeout_ms, envelope.waits)

    patch.setattr(hub_routing, "sent_by", sent_by)


@defect("time is limited")
def a_time_limit_that_is_forgotten(patch):
    patch.setattr(Supervisor, "on_due", nothing)


# Parents and children.


@defect("spawned means ran")
def a_spawn_acknowledged_before_it_ran(patch):
    intact = Spawner.on_started

    def on_started(self, agent_id, peer, now):
        record = intact(self, agent_id, peer, now)
        if record is not None:
            self._supervisor.come_up(record)
        return record

    patch.setattr(Spawner, "on_started", on_started)


@defect("spawned means ran")
def a_withdrawn_spawn_that_runs_on(patch):
    patch.setattr(Supervisor, "on_spawn_cancelled", nothing)


@defect("spawned means ran", weather=Weather.ROUGH)
def a_repeated_spawn_that_is_not_recognized(patch):
    patch.setattr(Spawner, "_spawned_before", lambda self, spec, parent, origin, now: False)


@defect("spawned means ran", weather=Weather.ROUGH)
def a_spawn_that_is_given_up_and_not_revoked(patch):
    patch.setattr(Supervisor, "revoke", nothing)
    patch.setattr(meta_revocations.Revocations, "revoke", nothing)


@defect("names are unique")
def a_second_agent_of_a_name(patch):
    intact = AgentTree.add

    def add(self, record):
        self._by_address.pop((record.address.agent, record.address.hub), None)
        intact(self, record)

    def remove(self, record):
        del self._by_id[record.id]
        self._by_address.pop((record.address.agent, record.address.hub), None)

    patch.setattr(AgentTree, "add", add)
    patch.setattr(AgentTree, "remove", remove)


@defect("parent is told")
def a_parent_that_is_told_twice(patch):
    intact = Supervisor.settle

    def settle(self, record, outcome, now):
        parent = self.agents.parent_of(record)
        if parent is not None and record.waiters and self.agents.get(record.id) is record:
            self._tell_parent(parent, record, outcome, now)
        intact(self, record, outcome, now)

    patch.setattr(Supervisor, "settle", settle)


@defect("parent is told")
def a_parent_that_is_not_told(patch):
    patch.setattr(Supervisor, "_tell_parent", nothing)


@defect("tables empty when quiet", weather=Weather.ROUGH)
def an_outcome_that_is_not_repeated(patch):
    def on_answer(self, agent_id, answer, now, *, closing=False):
        self._reports.pop(agent_id)

    patch.setattr(Reports, "on_answer", on_answer)
    patch.setattr(Reports, "send_all", nothing)


@defect("no orphans")
def a_cancel_that_stops_at_the_first_hub(patch):
    intact = Supervisor._stop_there

    def stop_there(self, record, ending, now):
        if "parent" in ending.reason:
            self.settle(record, ending, now)
        else:
            intact(self, record, ending, now)

    patch.setattr(Supervisor, "_stop_there", stop_there)


@defect("no orphans")
def a_parent_whose_children_go_on(patch):
    patch.setattr(Supervisor, "end_owned", nothing)


@defect("no orphans")
def a_stop_that_is_asked_for_and_not_enforced(patch):
    patch.setattr(Supervisor, "on_stop_asked", nothing)


@defect("no stop without cause")
def a_wait_whose_end_stops_the_agent(patch):
    intact = Waits.on_due

    def on_due(self, origin):
        record = self._waits.get(origin)
        intact(self, origin)
        if record is not None and record.hub is None:
            self._exchange.perform(StopAgent(record.id))

    patch.setattr(Waits, "on_due", on_due)


@defect("no stop without cause")
def a_detached_agent_that_is_stopped_with_its_sibling(patch):
    intact = Supervisor.settle

    def settle(self, record, outcome, now):
        parent = self.agents.parent_of(record)
        intact(self, record, outcome, now)
        if parent is not None:
            self.end_owned(parent.children.values(), "a sibling ended", now)

    patch.setattr(Supervisor, "settle", settle)


@defect("spawned means ran", weather=Weather.ROUGH)
def a_lease_that_is_ignored(patch):
    patch.setattr(Supervisor, "on_lease_due", nothing)


# Humans.


@defect("humans decide")
def a_permission_that_is_allowed_when_nobody_answers(patch):
    def expire(self, ask_id, now):
        approval = self._open.get(ask_id)
        if approval is not None and isinstance(approval.message, Permission):
            self._settle(approval, Decision(allow=True, by="policy"), now)

    patch.setattr(approvals.Approvals, "expire", expire)


@defect("humans decide")
def an_operator_of_another_hub_who_is_taken_for_one_of_the_meta_hub(patch):
    def attributed(self, approver, name):
        return getattr(self._parties.get(approver), "name", name)

    patch.setattr(meta_approvals.MetaApprovals, "_attributed", attributed)


@defect("humans are asked")
def an_ask_that_the_meta_hub_shows_to_no_hub(patch):
    intact = membership.HubRecord.speaks

    def speaks(self, feature):
        return feature != "judge" and intact(self, feature)

    patch.setattr(membership.HubRecord, "speaks", speaks)


@defect("humans are asked")
def an_operator_who_comes_later_and_is_not_asked(patch):
    patch.setattr(approvals.Approvals, "show_all", nothing)


@defect("approvals go on")
def an_approval_that_waits_for_an_operator_who_is_gone(patch):
    patch.setattr(approvals.Approvals, "on_shown_due", nothing)


@defect("approvals go on")
def an_approval_that_is_shown_to_whoever_has_sent_no_acknowledgement(patch):
    intact = approvals.Approvals.show

    def show(self, approval, approver, now):
        intact(self, approval, approver, now)
        approval.shown_by.update(approval.calls)

    patch.setattr(approvals.Approvals, "show", show)


@defect("floods hide nobody")
def an_agent_that_takes_all_that_its_hub_shows(patch):
    intact = approvals._Askers.next
    patch.setattr(approvals._Askers, "next", lambda self, share: intact(self, 1000))


# The cluster.


@defect("lost in time", weather=Weather.ROUGH)
def a_shadow_that_is_not_purged(patch):
    patch.setattr(Supervisor, "on_hub_lost", nothing)


@defect("lost in time", weather=Weather.ROUGH)
def a_lost_hub_that_nobody_is_told_of(patch):
    def lose(self, record, reason, now):
        self._hubs.remove(record)
        self._routing.forget_hub(record.name)
        self._spawns.forget_hub(record.name, reason, now)
        self._timers.discard(steps.HealthDue(record.name))
        self._timers.discard(steps.RejoinDue(record.name))

    patch.setattr(meta_membership.MetaMembership, "_lose", lose)


@defect("lost in time", weather=Weather.ROUGH)
def a_place_that_is_kept_for_a_lost_hub_for_ever(patch):
    intact = meta_membership.MetaMembership.on_away

    def on_hub_away(self, record, reason, now):
        intact(self, record, reason, now)
        self._timers.discard(steps.RejoinDue(record.name))

    patch.setattr(meta_membership.MetaMembership, "on_away", on_hub_away)


@defect("given up means ended", weather=Weather.ROUGH)
def a_hub_that_comes_back_and_does_not_ask_what_was_given_up(patch):
    patch.setattr(Reconciler, "begin", nothing)


@defect("cuts are survived", weather=Weather.ROUGH)
def a_hub_that_is_given_up_as_soon_as_it_is_away(patch):
    def on_hub_away(self, record, reason, now):
        if self._hubs.get(record.name) is record:
            self._lose(record, reason, now)

    patch.setattr(meta_membership.MetaMembership, "on_away", on_hub_away)


@defect("true health", weather=Weather.ROUGH)
def a_health_that_is_never_checked(patch):
    patch.setattr(meta_membership.MetaMembership, "on_health_due", nothing)


@defect("no stop without cause")
def a_heart_that_beats_once(patch):
    intact = Uplink.beat

    def beat(self, now):
        intact(self, now)
        self._timers.discard(steps.HeartbeatDue())

    patch.setattr(Uplink, "beat", beat)


@defect("the run ends")
def a_heart_that_races(patch):
    intact = Uplink.beat

    def beat(self, now):
        for _ in range(500):
            intact(self, now)
        if self.joined:
            self._timers.set(steps.HeartbeatDue(), now + 0.001)

    patch.setattr(Uplink, "beat", beat)


@defect("hubs come back", weather=Weather.ROUGH)
def a_returning_hub_that_is_taken_for_a_duplicate(patch):
    intact = meta_membership.MetaMembership._register_hub

    def register_hub(self, origin, message, now):
        if self._hubs.get(message.name) is not None:
            raise exchange.Refused(ErrorCode.NAME_TAKEN, "taken")
        intact(self, origin, message, now)

    patch.setattr(meta_membership.MetaMembership, "_register_hub", register_hub)


@defect("findable")
def an_announcement_that_is_lost(patch):
    patch.setattr(Announcements, "send", lambda self, now, even_nothing=False: self._changes.clear())


@defect("cuts are survived", weather=Weather.ROUGH)
def a_question_that_is_not_repeated(patch):
    patch.setattr(Uplink, "keeps", lambda self, call: False)


@defect("tables empty when quiet", weather=Weather.ROUGH)
def a_directory_that_keeps_what_is_gone(patch):
    patch.setattr(routes.Directory, "forget", nothing)


@defect("tables empty when quiet")
def a_wait_that_is_kept_when_its_caller_is_gone(patch):
    def forget(self, peer, request_id=None):
        for origin in [origin for origin in self._waits if origin.peer == peer]:
            self._timers.discard(steps.WaitDue(origin))

    def take(self, record):
        return record.waiters

    patch.setattr(Waits, "forget", forget)
    patch.setattr(Waits, "take", take)


@defect("no core raises", weather=Weather.ROUGH)
def a_loop_over_what_it_changes(patch):
    patch.setattr(AgentTree, "__iter__", lambda self: iter(self._by_id.values()))
    patch.setattr(Supervisor, "end_owned", stop_while_looking)


def stop_while_looking(self, owned, reason, now):
    for child in owned:
        if not child.spec.detached:
            self.stop(child, reason, now)


def finds(planted: Defect, seed: int) -> bool:
    """Whether the expected checker finds something on a seed."""
    deviations = Simulation(seed, planted.weather).run().deviations
    return any(deviation.checker == planted.caught_by for deviation in deviations)


def catches(planted: Defect, patch: pytest.MonkeyPatch, seed: int) -> bool:
    """Whether the expected checker finds something on a seed, and nothing once the defect is mended."""
    with patch.context() as context:
        planted.plant(context)
        found = finds(planted, seed)
    return found and not finds(planted, seed)


SLOW = {"a_heart_that_races"}
"""Those that take seconds, even where they are found at once."""


@pytest.mark.parametrize(
    "planted",
    [pytest.param(it, id=it.name, marks=[pytest.mark.slow] * (it.name in SLOW)) for it in DEFECTS],
)
def test_a_planted_defect_is_caught(planted, monkeypatch):
    seed = seed_that_catches(planted.name, range(SEEDS), partial(catches, planted, monkeypatch))

    assert seed is not None, f"{planted.name} was not caught by {planted.caught_by!r} in {SEEDS} seeds"


NOTED_BY_THE_WORLD = {
    "hubs come back",
    "no core raises",
    "no event missing",
    "tables empty when quiet",
    "the run ends",
}
"""What can only be seen while it happens."""


def test_every_checker_catches_something():
    proved = {planted.caught_by for planted in DEFECTS}

    assert proved == {checker.name for checker in CHECKERS} | NOTED_BY_THE_WORLD
    assert len(DEFECTS) >= 15
