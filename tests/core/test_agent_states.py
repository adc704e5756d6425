"""The states of a live agent: what each knows, and which follows from which."""

from __future__ import annotations

import pytest

from loopal_cluster.core.agent_states import Connected, Running, RunningThere, Spawning, Stopping
from loopal_cluster.core.agents import AgentRecord
from loopal_cluster.core.events import Peer
from loopal_cluster.messages import SpawnSpec
from loopal_cluster.outcomes import Cancelled, TimedOut

PEER = Peer(7)
ENOUGH = Cancelled("enough")


def agent(state, hub=None):
    return AgentRecord("id", SpawnSpec(name="a"), "echo", None, hub, state=state)


def test_an_agent_of_this_hub_is_connected_and_then_works():
    record = agent(Spawning())

    record.connect(PEER)
    assert record.state == Connected(PEER)
    assert record.come_up()
    assert record.state == Running(PEER)


def test_an_agent_of_another_hub_works_without_a_connection_to_us():
    record = agent(Spawning(), hub="b")

    assert record.come_up()
    assert record.state == RunningThere()


def test_an_agent_of_this_hub_cannot_work_before_it_is_connected():
    with pytest.raises(AssertionError):
        agent(Spawning()).come_up()


@pytest.mark.parametrize("state", [Running(PEER), RunningThere(), Stopping(ENOUGH, PEER, is_up=True)])
def test_what_works_comes_up_only_once(state):
    record = agent(state)

    assert not record.come_up()
    assert record.state == state


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (Spawning(), Stopping(ENOUGH, None, is_up=False)),
        (Connected(PEER), Stopping(ENOUGH, PEER, is_up=False)),
        (Running(PEER), Stopping(ENOUGH, PEER, is_up=True)),
        (RunningThere(), Stopping(ENOUGH, None, is_up=True)),
    ],
)
def test_whoever_stops_an_agent_fixes_its_outcome(state, expected):
    record = agent(state)

    assert record.stop(ENOUGH)
    assert not record.stop(TimedOut("too late"))
    assert (record.state, record.peer, record.is_up, record.ending) == (
        expected,
        expected.peer,
        expected.is_up,
        ENOUGH,
    )


def test_one_that_is_stopped_while_it_comes_up_is_connected_and_works_for_a_moment():
    record = agent(Stopping(ENOUGH, None, is_up=False))

    record.connect(PEER)
    assert record.come_up()
    assert record.state == Stopping(ENOUGH, PEER, is_up=True)
