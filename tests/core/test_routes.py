"""Where agents are, as a MetaHub knows it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from loopal_cluster.core.routes import Directory, RouteCache
from loopal_cluster.messages import Announce, Announced

HUBS, AGENTS = st.sampled_from(["h1", "h2", "h3"]), st.sampled_from(["a", "b", "c"])
ANNOUNCES = st.builds(
    Announce,
    started=st.lists(st.builds(Announced, AGENTS, st.just("id")), max_size=3).map(tuple),
    ended=st.lists(AGENTS, max_size=3).map(tuple),
    whole=st.booleans(),
)


@given(st.lists(st.tuples(HUBS, st.none() | ANNOUNCES), max_size=30))
def test_a_directory_is_the_last_that_every_hub_has_said(steps):
    directory = Directory()
    model: dict[str, set[str]] = {}

    for hub, announce in steps:
        if announce is None:
            directory.forget(hub)
            model.pop(hub, None)
        else:
            directory.update(hub, announce, 0.0)
            kept = set() if announce.whole else model.get(hub, set()) - set(announce.ended)
            model[hub] = kept | {entry.name for entry in announce.started}

        for agent in "abc":
            assert sorted(directory.hubs_of(agent)) == sorted(h for h in model if agent in model[h])
        assert all(directory.count(hub) == len(agents) for hub, agents in model.items())


def test_a_forgotten_hub_leaves_nothing_behind():
    directory = Directory()
    directory.update("h1", Announce((Announced("a", "1"), Announced("b", "2"))), 0.0)

    directory.forget("h1")

    assert directory == Directory()


def test_an_answer_is_believed_until_its_time_is_up():
    cache = RouteCache(60.0)
    cache.remember("a", "h1", 0.0)

    assert cache.find("a", 59.9) == "h1"
    assert cache.find("a", 60.0) is None
    assert cache.find("b", 0.0) is None


def test_a_newer_answer_counts():
    cache = RouteCache(60.0)
    cache.remember("a", "h1", 0.0)
    cache.remember("a", "h2", 1.0)

    assert cache.find("a", 60.5) == "h2"


def test_the_oldest_answer_goes_when_there_are_too_many():
    cache = RouteCache(60.0, limit=2)
    for agent in ("a", "b", "a", "c"):
        cache.remember(agent, "h1", 0.0)

    assert [cache.find(agent, 0.0) for agent in "abc"] == ["h1", None, "h1"]


def test_what_was_believed_of_a_lost_hub_is_forgotten():
    cache = RouteCache(60.0)
    cache.remember("a", "h1", 0.0)
    cache.remember("b", "h2", 0.0)

    cache.forget("h1")
    cache.drop("nobody")

    assert (cache.find("a", 0.0), cache.find("b", 0.0)) == (None, "h2")
