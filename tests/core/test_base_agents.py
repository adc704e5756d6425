"""The agents that a MetaHub has hubs of the base dialect start: named by identity, as their hubs cannot."""

from __future__ import annotations

from typing import Any

import pytest

from loopal_cluster.address import Address
from loopal_cluster.completions import AGENT_COMPLETED, wrap_result
from loopal_cluster.config import Timeouts
from loopal_cluster.core.effects import Effect
from loopal_cluster.core.events import Peer
from loopal_cluster.errors import ErrorCode
from loopal_cluster.frames import Failure, Response
from loopal_cluster.messages import (
    OK,
    AgentDetails,
    AgentInfo,
    CancelAgent,
    CancelRequest,
    DeliverEnvelope,
    Envelope,
    Found,
    MetaRoute,
    MetaSpawn,
    Resolve,
    ShutdownAgent,
    SpawnAgent,
    Spawned,
    SpawnSpec,
    UserContent,
)
from loopal_cluster.testing import CoreDriver, sent

from .builders import answers, attach, join, join_base, open_meta, requests

HELPER = Address("helper", "base")
TIMEOUTS = Timeouts()


class Cluster:
    """A MetaHub, a hub of ours with an agent ``main``, and a hub of the base dialect."""

    def __init__(self) -> None:
        self.meta: CoreDriver = open_meta()
        self.ours, self.base = join(self.meta, "ours"), join_base(self.meta, "base")

    def spawn(self, spawn_id: str = "id-of-ours", name: str = "helper", **spec: Any) -> list[Effect]:
        """Ask for an agent on the base hub."""
        spec = {"parent": "main", "target_hub": "base", "spawn_id": spawn_id} | spec
        return self.meta.request(self.ours, MetaSpawn(SpawnSpec(name, **spec)))

    def answer(self, result: Any) -> list[Effect]:
        """Let the base hub answer what it was asked last."""
        *_, call = (call for call in self.meta.core.exchange.calls if call.peer == self.base)
        if isinstance(result, Failure):
            return self.meta.receive(self.base, Failure(call.id, result.code, result.detail))
        return self.meta.receive(self.base, Response(call.id, result))

    def bring_up(self, spawn_id: str = "id-of-ours") -> None:
        """Have an agent on the base hub."""
        self.spawn(spawn_id)
        self.answer(Found(False))
        self.answer(Spawned("id-of-base", "helper"))

    def asked(self, effects: list[Effect]) -> list[Any]:
        """What the base hub is asked."""
        return requests(effects, self.base)

    def cancel(self, by: Peer | None = None, **fields: Any) -> list[Effect]:
        """Ask for an end, by identity."""
        fields = {"agent_id": "id-of-ours", "reason": "enough"} | fields
        return self.meta.request(by or self.ours, CancelAgent(HELPER, **fields))

    def report(self, text: str = "so far") -> list[str]:
        """Let the base hub report an end; return what the hub of the parent is told."""
        content = UserContent(wrap_result("helper", text))
        envelope = Envelope("m", AGENT_COMPLETED, Address("main", "ours"), content, "2026-01-01T00:00:00Z")
        told = requests(self.meta.request(self.base, MetaRoute(envelope)), self.ours)
        return [it.envelope.content.text for it in told if isinstance(it, DeliverEnvelope)]


# Starting.


def test_a_base_hub_is_asked_whether_a_name_is_free_and_then_to_start_the_agent():
    cluster = Cluster()

    assert cluster.asked(cluster.spawn()) == [Resolve("helper")]

    [request] = cluster.asked(cluster.answer(Found(False)))
    assert (request.spec.name, request.spec.parent) == ("helper", "ours/main")
    assert answers(cluster.answer(Spawned("id-of-base", "helper")), cluster.ours) == [
        Response(2, Spawned("id-of-base", "helper"))
    ]


def test_a_second_agent_of_a_name_that_a_base_hub_has_is_refused():
    cluster = Cluster()
    cluster.spawn()

    effects = cluster.answer(Found(True))

    taken = Failure(2, ErrorCode.NAME_TAKEN, "agent name 'base/helper' is taken")
    assert (answers(effects, cluster.ours), cluster.asked(effects)) == ([taken], [])


def test_a_second_agent_of_a_name_that_is_coming_up_is_refused_at_once():
    cluster = Cluster()
    cluster.spawn()

    [failure] = answers(cluster.spawn("another"), cluster.ours)

    assert failure == Failure(3, ErrorCode.NAME_TAKEN, "agent name 'base/helper' is taken")


@pytest.mark.parametrize(
    "answer",
    [Failure(0, ErrorCode.REFUSED, "unknown"), Found(True, hub="elsewhere")],
    ids=["refused", "echo"],
)
def test_a_base_hub_that_does_not_know_who_has_a_name_is_asked_all_the_same(answer):
    cluster = Cluster()
    cluster.spawn()

    [request] = cluster.asked(cluster.answer(answer))

    assert isinstance(request, SpawnAgent)


def test_a_spawn_that_is_repeated_is_done_once():
    cluster = Cluster()
    cluster.spawn()
    cluster.answer(Found(False))

    effects = cluster.spawn()

    assert cluster.asked(effects) == []
    effects = cluster.answer(Spawned("id-of-base", "helper"))
    assert answers(effects, cluster.ours) == [Response(3, Spawned("id-of-base", "helper"))]
    assert answers(cluster.spawn(), cluster.ours) == [Response(4, Spawned("id-of-base", "helper"))]


def test_a_spawn_that_is_repeated_after_the_end_of_its_agent_is_not_done_again():
    cluster = Cluster()
    cluster.bring_up()
    cluster.report()
    cluster.meta.now += TIMEOUTS.spawn_timeout + TIMEOUTS.lost_timeout

    effects = cluster.spawn()

    assert cluster.asked(effects) == []
    assert answers(effects, cluster.ours) == [Response(3, Spawned("id-of-base", "helper"))]


def test_what_has_ended_is_forgotten_when_nobody_repeats_its_spawn_any_more():
    cluster = Cluster()
    cluster.bring_up()
    cluster.report()

    cluster.meta.advance(TIMEOUTS.spawn_memory)

    assert not cluster.meta.core.base_agents._agents


def test_a_spawn_that_is_withdrawn_before_the_name_is_known_to_be_free_is_not_done():
    cluster = Cluster()
    cluster.spawn()
    cluster.meta.notify(cluster.ours, CancelRequest(2))

    assert cluster.asked(cluster.answer(Found(False))) == []


def test_an_agent_that_comes_up_when_nobody_wants_it_any_more_is_stopped():
    cluster = Cluster()
    cluster.spawn()
    cluster.answer(Found(False))
    cluster.meta.notify(cluster.ours, CancelRequest(2))

    assert cluster.asked(cluster.answer(Spawned("id-of-base", "helper"))) == [AgentInfo(Address("helper"))]
    details = AgentDetails("helper", "Running", parent="ours/main")
    assert cluster.asked(cluster.answer(details)) == [ShutdownAgent(Address("helper"))]


# Stopping.


@pytest.mark.parametrize("agent_id", ["id-of-ours", "id-of-base"])
def test_an_agent_is_stopped_by_name_if_it_surely_has_the_name(agent_id):
    cluster = Cluster()
    cluster.bring_up()

    assert cluster.asked(cluster.cancel(agent_id=agent_id)) == [AgentInfo(Address("helper"))]
    effects = cluster.answer(AgentDetails("helper", "Running", parent="ours/main"))

    assert cluster.asked(effects) == [ShutdownAgent(Address("helper"))]
    [answer] = answers(cluster.answer(OK), cluster.ours)
    assert (answer.result.outcome, answer.result.timed_out) == (None, True)


def test_an_agent_that_was_never_started_there_for_us_is_not_stopped_by_name():
    cluster = Cluster()

    effects = cluster.cancel()

    detail = "hub 'base' does not run agent 'helper' (id-of-ours), as far as is known"
    assert (answers(effects), cluster.asked(effects)) == (
        [Failure(2, ErrorCode.AGENT_NOT_FOUND, detail)],
        [],
    )


def test_an_agent_whose_name_another_has_is_not_stopped():
    cluster = Cluster()
    cluster.bring_up()
    cluster.cancel()

    effects = cluster.answer(AgentDetails("helper", "Running", parent="somebody"))

    assert cluster.asked(effects) == []
    [failure] = answers(effects, cluster.ours)
    assert failure.code is ErrorCode.AGENT_NOT_FOUND


def test_an_agent_that_has_ended_is_not_stopped():
    cluster = Cluster()
    cluster.bring_up()
    cluster.report()

    [failure] = answers(cluster.cancel(), cluster.ours)

    assert failure.code is ErrorCode.AGENT_NOT_FOUND


def test_an_agent_that_is_named_by_name_only_is_stopped_whosever_it_is():
    cluster = Cluster()

    assert cluster.asked(cluster.cancel(agent_id=None)) == [ShutdownAgent(Address("helper"))]


def test_what_a_client_has_spawned_on_a_base_hub_ends_with_it():
    cluster = Cluster()
    ann = attach(cluster.meta)
    cluster.meta.request(ann, SpawnAgent(SpawnSpec("helper", target_hub="base", spawn_id="s")))
    cluster.answer(Found(False))
    cluster.answer(Spawned("id-of-base", "helper"))

    assert cluster.asked(cluster.meta.lose(ann)) == [AgentInfo(Address("helper"))]
    effects = cluster.answer(AgentDetails("helper", "Running", parent="meta-hub/s"))
    assert cluster.asked(effects) == [ShutdownAgent(Address("helper"))]


def test_what_is_detached_does_not():
    cluster = Cluster()
    ann = attach(cluster.meta)
    cluster.meta.request(ann, SpawnAgent(SpawnSpec("helper", target_hub="base", detached=True)))
    cluster.answer(Found(False))
    cluster.answer(Spawned("id-of-base", "helper"))

    assert cluster.asked(cluster.meta.lose(ann)) == []


# Ending.


def test_the_end_of_an_agent_is_a_result():
    cluster = Cluster()
    cluster.bring_up()

    assert cluster.report() == [wrap_result("helper", "so far")]


@pytest.mark.parametrize(("timed_out", "kind"), [(False, "cancelled"), (True, "timed_out")])
def test_the_end_of_an_agent_that_was_asked_to_stop_is_no_result(timed_out, kind):
    cluster = Cluster()
    cluster.bring_up()
    cluster.cancel(timed_out=timed_out)
    cluster.answer(AgentDetails("helper", "Running", parent="ours/main"))

    assert cluster.report() == [wrap_result("helper", f"[{kind}] enough")]


def test_an_agent_that_a_stranger_had_stopped_by_name_has_no_result_either():
    cluster = Cluster()
    cluster.bring_up()
    cluster.cancel(by=attach(cluster.meta), agent_id=None)

    assert cluster.report() == [wrap_result("helper", "[cancelled] enough")]


def test_the_end_of_what_a_client_of_the_meta_hub_wanted_is_heard_by_the_meta_hub_alone():
    cluster = Cluster()
    cluster.meta.request(
        attach(cluster.meta), SpawnAgent(SpawnSpec("helper", target_hub="base", spawn_id="s"))
    )
    cluster.answer(Found(False))
    cluster.answer(Spawned("id-of-base", "helper"))
    content = UserContent(wrap_result("helper", "42"))
    envelope = Envelope("m", AGENT_COMPLETED, Address("s", "meta-hub"), content, "2026-01-01T00:00:00Z")

    assert sent(cluster.meta.request(cluster.base, MetaRoute(envelope))) == [Response(2, OK)]
