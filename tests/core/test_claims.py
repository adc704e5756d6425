"""Whatever happens to those who want a name: a hub that lives keeps it, and everybody is answered once."""

from __future__ import annotations

import random

import pytest

from loopal_cluster.core.effects import Disconnect, Effect, Send
from loopal_cluster.core.events import Peer
from loopal_cluster.core.meta_membership import MetaMembership
from loopal_cluster.core.parties import PROTOCOL
from loopal_cluster.frames import Failure, Request, Response
from loopal_cluster.messages import CancelRequest, Found, Heartbeat, RegisterHub, Resolve, Welcome
from loopal_cluster.testing import CoreDriver

from .builders import TOKEN, open_meta

SEEDS = range(60)


class Contest:
    """A hub, which lives or not, and others that want its name. What they see is checked as it happens."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.meta: CoreDriver = open_meta()
        self.lives = self.random.random() < 0.6
        self.instance, self.instances = 1, 1
        self.asked: dict[Peer, float] = {}
        """Those who wait for an answer, and since when."""
        self.wanted_by: dict[Peer, int] = {}
        """Whose each of their connections is."""
        self.hub = self.register(1)
        assert self.asked == {}

    def register(self, instance: int) -> Peer:
        """Let somebody come with the name."""
        peer = self.meta.connect()
        self.asked[peer], self.wanted_by[peer] = self.meta.now, instance
        message = RegisterHub("a", TOKEN, protocol=PROTOCOL, instance=str(instance))
        self.see(self.meta.request(peer, message))
        return peer

    def see(self, effects: list[Effect]) -> None:
        """Check what everybody is told, and answer as they do."""
        for effect in effects:
            match effect:
                case Disconnect(peer):
                    assert peer != self.hub or not self.lives, "a hub that lives was hung up on"
                case Send(peer, Request(id_, Resolve())) if peer == self.hub and self.lives:
                    self.see(self.meta.receive(peer, Response(id_, Found(found=False))))
                case Send(peer, Response(_, Welcome())):
                    del self.asked[peer]
                    if self.wanted_by[peer] != self.instance:
                        assert not self.lives, "the name of a hub that lives was given away"
                    self.hub, self.instance, self.lives = peer, self.wanted_by[peer], True
                case Send(peer, Failure(1)):
                    del self.asked[peer]

    def step(self) -> None:
        """Let something happen."""
        match self.random.randrange(6):
            case 0:
                self.instances += 1
                self.register(self.instances)
            case 1 if self.asked:
                gone = self.random.choice([*self.asked])
                del self.asked[gone]
                self.see(self.meta.lose(gone))
            case 2 if self.asked:
                self.see(self.meta.notify(self.random.choice([*self.asked]), CancelRequest(1)))
            case 3 if self.lives:
                self.see(self.meta.notify(self.hub, Heartbeat("a", 0)))
            case 4 if self.lives:
                old = self.hub
                self.hub = Peer(0)
                self.see(self.meta.lose(old))
                self.pass_time(self.random.uniform(0.0, 0.39))
                if self.random.random() < 0.5:
                    self.instances += 1
                    self.register(self.instances)
                self.pass_time(self.random.uniform(0.0, 0.39))
                if self.wanted_by[old] == self.instance:  # nobody else may have the name
                    self.hub = self.register(self.instance)
            case _:
                self.pass_time(self.random.choice((0.01, 0.5, 3.0)))

    def pass_time(self, seconds: float) -> None:
        """Let time pass, and a hub that lives say something as often as it has to."""
        until = self.meta.now + seconds
        while self.meta.now < until:
            self.see(self.meta.advance(min(0.25, until - self.meta.now)))
        for peer, since in self.asked.items():
            assert self.meta.now - since < 7.0, f"{peer} was not answered"


def play(seed: int) -> Contest:
    """A contest to its end."""
    contest = Contest(seed)
    for _ in range(60):
        contest.step()
    contest.pass_time(7.0)
    return contest


@pytest.mark.parametrize("seed", SEEDS)
def test_a_hub_that_lives_keeps_its_name_and_everybody_is_answered_once(seed):
    contest = play(seed)

    assert contest.asked == {}
    assert contest.meta.core._members._claims._by_name == {}


def given_at_once(self, origin, message, known, now):
    self._claims.add(origin, message, now)
    self._lose(known, "another hub has come with its name", now)


def given_while_it_is_away(self, origin, message, known, now, intact=MetaMembership._claim):
    if known.health.value == "Disconnected":
        given_at_once(self, origin, message, known, now)
    else:
        intact(self, origin, message, known, now)


def unheeded(self, *args):
    pass


@pytest.mark.parametrize(
    ("method", "defect"),
    [
        ("_claim", given_at_once),
        ("_claim", given_while_it_is_away),
        ("_refuse_claims", unheeded),
        ("on_probed", unheeded),
    ],
)
def test_these_contests_find_planted_defects(method, defect, monkeypatch):
    monkeypatch.setattr(MetaMembership, method, defect)

    assert any(fails(seed) for seed in SEEDS)


def fails(seed):
    """Whether the contest of a seed shows that something is wrong."""
    try:
        test_a_hub_that_lives_keeps_its_name_and_everybody_is_answered_once(seed)
    except (AssertionError, KeyError):
        return True
    return False
