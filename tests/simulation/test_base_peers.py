"""Clusters in which some hubs, or the MetaHub, speak the base dialect only.

What is promised with them is less ("Weaker with base peers" in the protocol document), and that is checked;
what is promised without them is not touched by them.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from loopal_cluster.core import (
    base_agents,
    meta_hub,
    meta_membership,
    meta_routing,
    meta_spawns,
    steps,
    supervisor,
    uplink,
)
from loopal_cluster.core.hub_routing import HubRouting
from loopal_cluster.errors import ErrorCode
from loopal_cluster.frames import Failure
from loopal_cluster.messages import HubComplete
from loopal_cluster.outcomes import Cancelled
from tests.simulation import Peers, Script, Simulation, Step, Weather, generate
from tests.simulation.__main__ import main
from tests.simulation.history import INTERRUPTED
from tests.simulation.script import Plan, Spawn

from .seeds import seed_that_catches

SEEDS = range(100)
"""To make scripts of, which is quick."""
RUNS = range(40)
"""To run."""


@pytest.mark.parametrize("weather", Weather)
def test_with_base_peers_what_is_still_promised_is_kept(weather):
    findings = [
        f"seed {seed}: {deviation}"
        for seed in RUNS
        for deviation in Simulation(seed, weather, Peers.MIXED).run().deviations
    ]

    assert findings == []


def test_a_mixed_script_is_the_same_script_among_other_peers():
    for seed in SEEDS:
        ours, mixed = (generate(seed, Weather.ROUGH, peers) for peers in Peers)

        assert mixed.steps == ours.steps
        assert (ours.base, mixed.hubs) == ((), ours.hubs)
        assert set(mixed.base) <= {"meta", *mixed.hubs}
        assert not set(mixed.hubs) <= set(mixed.base), "one hub is always of ours"


def test_a_share_of_the_seeds_has_a_base_meta_hub():
    with_meta_hub = [seed for seed in SEEDS if "meta" in generate(seed, Weather.CALM, Peers.MIXED).base]

    assert len(SEEDS) / 4 < len(with_meta_hub) < len(SEEDS) / 2


def test_a_mixed_seed_gives_the_same_transcript_twice():
    for seed in range(3):
        simulation = Simulation(seed, Weather.ROUGH, Peers.MIXED)

        assert simulation.run(tracing=True).digest == simulation.run(tracing=True).digest


def test_base_peers_do_the_work_they_are_asked_for():
    reports = [Simulation(seed, Weather.CALM, Peers.MIXED).run() for seed in RUNS]

    lives = [life for report in reports for life in report.history.lives]
    for_ours = [life for life in lives if life.base and life.parent is not None and not life.parent.base]
    for_base = [life for life in lives if not life.base and life.parent is not None and life.parent.base]
    assert len(for_ours) > 5, "agents of ours have children on base hubs"
    assert len(for_base) > 5, "agents of base hubs have children on ours"


def test_the_command_simulates_mixed_clusters(capsys):
    assert main(["--seeds", "3", "--seed", "0", "--weather", "calm", "--peers", "mixed"]) == 0

    assert "seeds 0 to 2: 3 runs" in capsys.readouterr().out


def test_the_command_says_how_to_see_a_mixed_finding_again(monkeypatch, capsys):
    a_lost_base_hub_that_nobody_is_told_of(monkeypatch)

    assert main(["--seeds", "500", "--seed", "0", "--weather", "rough", "--peers", "mixed"]) == 1

    out = capsys.readouterr().out
    assert "base: hub-" in out
    assert "--weather rough --peers mixed" in out


# Planted defects that only base peers bring to light.


def a_report_that_is_believed_from_any_hub(patch):
    intact = supervisor.Supervisor.on_base_report
    patch.setattr(
        supervisor.Supervisor,
        "on_base_report",
        lambda self, hub, name, output, now: intact(self, None, name, output, now),
    )


def a_lost_base_hub_that_nobody_is_told_of(patch):
    def on_hub_away(self, record, reason, now):
        if record.instance is not None:
            intact(self, record, reason, now)
        elif self._hubs.get(record.name) is record:
            self._hubs.remove(record)
            self._timers.discard(steps.HealthDue(record.name))

    intact = meta_membership.MetaMembership.on_away
    patch.setattr(meta_membership.MetaMembership, "on_away", on_hub_away)


def a_base_report_that_is_delivered_and_settles_nothing(patch):
    patch.setattr(HubRouting, "_settle_base_report", lambda *_: False)


def an_outcome_for_a_base_parent_in_words_it_does_not_know(patch):
    def report(self, origin, completion, now):
        self._routing.send(origin, completion.parent.hub, HubComplete(completion), now)

    patch.setattr(meta_spawns.MetaSpawns, "_report", report)


def a_base_hub_that_is_not_asked_for_a_bare_name(patch):
    patch.setattr(meta_routing.MetaRouting, "_ask_base", lambda *_: set())


def a_delivery_that_failed_and_counts_as_one_that_went_well(patch):
    patch.setattr(meta_hub, "Ok", type("NoResultIsOne", (), {}))


def a_sender_that_a_base_meta_hub_has_to_qualify(patch):
    intact = HubRouting._route

    def route(self, origin, envelope, source, now):
        cluster, self._uplink.cluster = self._uplink.cluster, "some"
        intact(self, origin, envelope, source, now)
        self._uplink.cluster = cluster

    patch.setattr(HubRouting, "_route", route)


def a_hub_that_takes_its_own_old_connection_for_another(patch):
    intact = uplink.Uplink.on_probed

    def on_probed(self, answer, now):
        leg, self._leg = self._leg, None
        joined = intact(self, answer, now)
        if not joined:
            self._leg = leg
        return joined

    patch.setattr(uplink.Uplink, "on_probed", on_probed)


def a_stop_by_name_of_whoever_has_it(patch):
    def stop(self, origin, hub, message, now):
        self._stop(hub, message.agent.agent, None, origin, Cancelled(""), now)

    patch.setattr(base_agents.BaseAgents, "stop", stop)
    patch.setattr(base_agents.BaseAgents, "_identify", lambda *_: None)


def a_cancelled_agent_that_is_reported_as_done(patch):
    patch.setattr(base_agents, "outcome_text", lambda outcome: INTERRUPTED)


def a_base_hub_that_is_not_asked_whether_a_name_is_free(patch):
    intact = base_agents.BaseAgents.on_name_known

    def on_name_known(self, then, hub, answer, now):
        intact(self, then, hub, Failure(0, ErrorCode.REFUSED, "whatever it says"), now)

    patch.setattr(base_agents.BaseAgents, "on_name_known", on_name_known)


@pytest.mark.parametrize(
    ("plant", "caught_by", "weather"),
    [
        (a_stop_by_name_of_whoever_has_it, {"no stop without cause"}, Weather.ROUGH),
        (a_cancelled_agent_that_is_reported_as_done, {"true outcomes"}, Weather.CALM),
        (a_report_that_is_believed_from_any_hub, {"true outcomes"}, Weather.CALM),
        (a_lost_base_hub_that_nobody_is_told_of, {"lost in time", "tables empty when quiet"}, Weather.ROUGH),
        (
            a_base_report_that_is_delivered_and_settles_nothing,
            {"tables empty when quiet", "parent is told"},
            Weather.CALM,
        ),
        (an_outcome_for_a_base_parent_in_words_it_does_not_know, {"parent is told"}, Weather.CALM),
        (a_base_hub_that_is_not_asked_for_a_bare_name, {"findable"}, Weather.CALM),
        (a_delivery_that_failed_and_counts_as_one_that_went_well, {"delivered once"}, Weather.CALM),
        (a_sender_that_a_base_meta_hub_has_to_qualify, {"true sender"}, Weather.CALM),
        (a_hub_that_takes_its_own_old_connection_for_another, {"hubs come back"}, Weather.ROUGH),
    ],
)
def test_a_defect_that_only_base_peers_show_is_caught(
    plant: Callable[[pytest.MonkeyPatch], None],
    caught_by: set[str],
    weather: Weather,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def findings(seed: int, peers: Peers) -> set[str]:
        return {found.checker for found in Simulation(seed, weather, peers).run().deviations}

    plant(monkeypatch)
    seed = seed_that_catches(
        plant.__name__, range(500), lambda seed: bool(caught_by & findings(seed, Peers.MIXED))
    )

    assert seed is not None
    assert not findings(seed, Peers.OURS)
    monkeypatch.undo()
    assert not findings(seed, Peers.MIXED)


def test_a_second_spawn_of_a_live_name_on_a_base_hub_is_refused(monkeypatch):
    def spawn(at: float, hub: str) -> Step:
        return Step(at, Spawn(f"client@{hub}", "ann", "hub-2", "quick", Plan(ending="hang")))

    steps = (spawn(1.0, "hub-1"), spawn(4.0, "hub-3"))
    script = Script(("hub-1", "hub-2", "hub-3"), steps, horizon=6.0, base=("hub-2",))
    simulation = Simulation(0, Weather.CALM, Peers.MIXED, script=script)

    report = simulation.run()
    spawns = [op for op in report.history.ops if op.number in (1, 2)]
    assert [op.code for op in spawns] == [None, ErrorCode.NAME_TAKEN]
    assert report.deviations == ()

    a_base_hub_that_is_not_asked_whether_a_name_is_free(monkeypatch)
    assert "names are unique" in {found.checker for found in simulation.run().deviations}
