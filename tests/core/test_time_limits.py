"""An agent ends when the time of its spawn is over: on its own hub, or by the hub with its shadow."""

from __future__ import annotations

import pytest

from loopal_cluster.address import Address
from loopal_cluster.config import Timeouts
from loopal_cluster.core.effects import StopAgent
from loopal_cluster.core.events import AgentEnded, Peer
from loopal_cluster.errors import ErrorCode
from loopal_cluster.frames import Failure, Response
from loopal_cluster.messages import (
    AgentEvent,
    CancelAgent,
    Completed,
    Completion,
    HubComplete,
    Interrupt,
    MetaComplete,
    MetaSpawn,
    Progress,
    Shutdown,
    SpawnAgent,
    SpawnSpec,
    WaitAgent,
    Waited,
)
from loopal_cluster.outcomes import Cancelled, Done, Lost, Outcome, TimedOut
from loopal_cluster.payloads import Stream
from loopal_cluster.testing import CoreDriver

from .builders import (
    answers,
    attach,
    begin,
    call_of,
    calls,
    for_remote,
    in_cluster,
    join,
    notices,
    open_hub,
    open_meta,
    requests,
    start,
    with_shadow,
)

Y = Address("y", "there")
OVER = TimedOut("it had 5 s and has not ended")


def waited(effects) -> list[Outcome | None]:
    """The outcomes that somebody who waits is told."""
    results = [answer.result for answer in answers(effects) if isinstance(answer, Response)]
    return [result.outcome for result in results if isinstance(result, Waited)]


def wait(driver: CoreDriver, name: str) -> Peer:
    """A client that waits for an agent."""
    ann = attach(driver)
    driver.request(ann, WaitAgent(Address.parse(name)))
    return ann


# On its own hub.


def test_an_agent_that_has_had_its_time_is_stopped_like_any_other_and_timed_out():
    hub = open_hub()
    x = begin(hub, "x", timeout_ms=5000)
    wait(hub, "x")

    assert hub.advance(4.999) == []
    effects = hub.advance(0.001)

    assert notices(effects, x) == [Interrupt()]
    assert requests(effects, x) == [Shutdown()]
    assert waited(hub.handle(AgentEnded("id-1", "ended"))) == [OVER]


def test_its_time_runs_from_the_request_and_not_from_when_it_is_up():
    hub = open_hub()
    start(hub, "x", timeout_ms=5000)

    effects = hub.advance(5.0)

    assert StopAgent("id-1") in effects
    [refused] = answers(hub.handle(AgentEnded("id-1", "killed")))
    assert refused == Failure(2, ErrorCode.SPAWN_FAILED, f"spawn failed: {OVER.reason}")


def test_an_agent_that_ends_in_time_is_done_and_its_time_forgotten():
    hub = open_hub()
    x = begin(hub, "x", timeout_ms=5000, idle_timeout_ms=1000)
    wait(hub, "x")

    assert waited(hub.notify(x, Completed(reason="goal", result_text="yes"))) == [Done("yes")]
    assert hub.advance(10.0) == []


def test_an_agent_that_says_it_is_done_while_it_is_stopped_for_its_time_is_timed_out():
    hub = open_hub()
    x = begin(hub, "x", timeout_ms=5000)
    wait(hub, "x")
    hub.advance(5.0)

    effects = hub.notify(x, Completed(reason="goal", result_text="too late"))

    assert waited(effects + hub.handle(AgentEnded("id-1", "ended"))) == [OVER]


def test_an_agent_that_was_cancelled_before_its_time_was_over_is_cancelled():
    hub = open_hub()
    begin(hub, "x", timeout_ms=5000)
    hub.request(attach(hub), CancelAgent(Address.parse("x"), reason="no"))
    wait(hub, "x")
    hub.advance(6.0)

    assert Cancelled("no") in waited(hub.handle(AgentEnded("id-1", "ended")))


def test_what_it_has_spawned_ends_with_it():
    hub = open_hub()
    x = begin(hub, "x", timeout_ms=5000)
    kid = begin(hub, "kid", by=x)

    assert requests(hub.advance(5.0), kid) == [Shutdown()]


@pytest.mark.parametrize("given", [0, -1, -(2**63)])
def test_no_time_at_all_is_over_at_once(given):
    hub = open_hub()
    start(hub, "x", timeout_ms=given)

    assert StopAgent("id-1") in hub.advance(0.0)


@pytest.mark.parametrize("given", [0, -1, -(2**63)])
def test_an_agent_that_may_not_be_idle_at_all_is_stopped_as_soon_as_it_is_up(given):
    hub = open_hub()
    begin(hub, "x", idle_timeout_ms=given)
    wait(hub, "x")
    hub.advance(0.0)

    effects = hub.handle(AgentEnded("id-1", "ended"))

    assert waited(effects) == [TimedOut("it has reported nothing for 0 s")]


@pytest.mark.parametrize("field", ["timeout_ms", "idle_timeout_ms"])
def test_the_longest_time_is_no_time_limit(field):
    hub = open_hub()
    begin(hub, "x", **{field: 2**63 - 1})  # type: ignore[arg-type]

    assert hub.advance(1e6) == []


# One that reports nothing.


def test_an_agent_that_reports_nothing_for_too_long_is_timed_out():
    hub = open_hub()
    x = begin(hub, "x", idle_timeout_ms=1000)
    wait(hub, "x")

    assert requests(hub.advance(1.0), x) == [Shutdown()]
    assert waited(hub.handle(AgentEnded("id-1", "ended"))) == [TimedOut("it has reported nothing for 1 s")]


def test_its_idle_time_begins_when_it_is_up():
    hub = open_hub()
    start(hub, "x", idle_timeout_ms=1000)

    assert hub.advance(3.0) == []


def test_each_report_gives_it_that_time_anew():
    hub = open_hub()
    x = begin(hub, "x", idle_timeout_ms=1000)

    for _ in range(5):
        hub.advance(0.9)
        hub.notify(x, AgentEvent(None, Stream("going on")))

    assert not requests(hub.advance(0.9), x)
    assert requests(hub.advance(0.1), x) == [Shutdown()]


def test_only_reports_count_and_not_progress_with_an_ask():
    hub = open_hub()
    x = begin(hub, "x", idle_timeout_ms=1000)
    hub.advance(0.9)
    hub.notify(x, Progress(1))

    assert requests(hub.advance(0.1), x) == [Shutdown()]


# On another hub.


def test_its_times_go_with_a_spawn_to_the_hub_that_runs_it():
    hub, x, up = in_cluster()

    [spawn] = requests(
        hub.request(x, SpawnAgent(SpawnSpec("y", target_hub="there", timeout_ms=5000, idle_timeout_ms=1000))),
        up,
    )

    assert isinstance(spawn, MetaSpawn)
    assert (spawn.spec.timeout_ms, spawn.spec.idle_timeout_ms) == (5000, 1000)


def test_a_meta_hub_passes_them_on():
    meta = open_meta()
    a, b = join(meta, "a"), join(meta, "b")
    spec = SpawnSpec("y", target_hub="b", parent="a/x", spawn_id="s-1", timeout_ms=5000, idle_timeout_ms=1000)

    [spawn] = requests(meta.request(a, MetaSpawn(spec)), b)

    assert (spawn.spec.timeout_ms, spawn.spec.idle_timeout_ms) == (5000, 1000)


def test_the_hub_that_runs_it_ends_it_and_reports_that_it_timed_out():
    hub, _, up = in_cluster()
    for_remote(hub, up, timeout_ms=5000)
    hub.advance(5.0)

    effects = hub.handle(AgentEnded("s-1", "ended"))

    [report] = [message for message in requests(effects, up) if isinstance(message, MetaComplete)]
    assert report.completion.outcome == OVER


def test_the_hub_with_the_shadow_leaves_it_to_the_other_and_believes_its_report():
    hub, _, up = with_shadow(timeout_ms=5000)
    wait(hub, "there/y")

    assert not calls(hub, CancelAgent)
    hub.advance(6.0)
    assert not calls(hub, CancelAgent)
    assert waited(hub.request(up, HubComplete(Completion("id-2", Y, Address("x", "here"), OVER)))) == [OVER]
    hub.advance(20.0)
    assert not calls(hub, CancelAgent)


def overdue() -> tuple[CoreDriver, Peer]:
    """A hub that has not heard of the end of its agent there and stops it: the hub, the uplink."""
    hub, _, up = with_shadow(timeout_ms=5000)
    wait(hub, "there/y")
    effects = hub.advance(5.0 + Timeouts().stop_grace + 2.0)
    [stop] = [message for message in requests(effects, up) if isinstance(message, CancelAgent)]
    assert (stop.agent_id, stop.reason, stop.timed_out) == ("id-2", OVER.reason, True)
    return hub, up


def test_an_agent_whose_owner_says_that_its_time_is_over_has_timed_out():
    hub, _, up = in_cluster()
    for_remote(hub, up)
    hub.request(up, CancelAgent(Address("r"), "s-1", "it had 5 s", timed_out=True))

    effects = hub.handle(AgentEnded("s-1", "terminated"))

    assert waited(effects) == [TimedOut("it had 5 s")]


@pytest.mark.parametrize(
    "outcome", [Done("in the nick of time"), OVER, Lost("it was"), Cancelled("by another")]
)
def test_how_it_ended_says_the_other_hub(outcome):
    hub, up = overdue()

    effects = hub.receive(up, Response(call_of(hub, CancelAgent), Waited("", outcome=outcome)))

    assert waited(effects) == [outcome]


def test_a_shadow_whose_hub_does_not_answer_the_stop_either_is_lost():
    hub, _ = overdue()

    [outcome] = waited(hub.advance(Timeouts().spawn_timeout))

    assert outcome == Lost("hub 'there' did not stop it: no answer to hub/cancel_agent in time")


def test_a_refused_spawn_forgets_its_time():
    hub, _, up = with_shadow(up=False, timeout_ms=5000)
    hub.receive(up, Failure(call_of(hub, MetaSpawn), ErrorCode.UNKNOWN_AGENT_TYPE, "no"))

    hub.advance(20.0)

    assert not calls(hub, CancelAgent)
