"""Approvals: whose are shown, in which turn, and what goes on when nobody sees them."""

from __future__ import annotations

import pytest

from loopal_cluster.config import Limits, Timeouts
from loopal_cluster.core.effects import Log
from loopal_cluster.core.events import Link, Peer
from loopal_cluster.core.parties import PROTOCOL
from loopal_cluster.errors import ErrorCode
from loopal_cluster.frames import Failure, Request, Response
from loopal_cluster.messages import (
    Answers,
    Attended,
    CancelRequest,
    Decision,
    Permission,
    Protocol,
    Question,
    Register,
    RegisterHub,
    Role,
    Shown,
    Welcome,
)
from loopal_cluster.testing import CoreDriver, sent

from .builders import (
    TOKEN,
    answers,
    attach,
    begin,
    join,
    join_base_meta,
    join_meta,
    notices,
    open_hub,
    open_meta,
    requests,
)

RM = Permission("Bash")
NOBODY = "nobody was there to answer within 300 s: no operator was attached"


def attach_base(driver: CoreDriver, name: str = "old") -> Peer:
    """An operator of the base dialect, which knows of no acknowledgement."""
    peer = driver.connect()
    driver.request(peer, Register(name, TOKEN, Role.OPERATOR))
    return peer


def approvals(effects, peer: Peer) -> list[Permission]:
    """What somebody is asked for."""
    return [message for message in requests(effects, peer) if isinstance(message, Permission)]


def askers(effects, peer: Peer) -> list[str]:
    """Whose approvals somebody is shown."""
    return [message.agent_name for message in requests(effects, peer)]


def flood(driver: CoreDriver, peer: Peer, count: int, message=RM) -> list:
    """One agent, or hub, asks that often."""
    return [effect for _ in range(count) for effect in driver.request(peer, message)]


def allow(driver: CoreDriver, operator: Peer) -> list:
    """An operator allows the oldest that it is shown."""
    call = next(call for call in driver.core.exchange.calls if call.peer == operator)
    return driver.receive(operator, Response(call.id, Decision(allow=True)))


# What nobody acknowledges.


def test_what_an_operator_acknowledges_stays_with_it():
    hub = open_hub()
    x, up, ann = begin(hub), join_meta(hub), attach(hub, "ann", Role.OPERATOR)

    [shown] = requests(hub.request(x, RM), ann)
    hub.notify(ann, Shown(shown.ask_id))

    assert approvals(hub.advance(20.0), up) == []


@pytest.mark.parametrize("kind", ["vanished", "base"])
def test_what_nobody_acknowledges_within_5_s_goes_up_too_and_the_first_answer_wins(kind):
    hub = open_hub()
    x, up = begin(hub), join_meta(hub)
    ann = attach_base(hub) if kind == "base" else attach(hub, "ann", Role.OPERATOR)
    hub.request(x, RM)

    assert approvals(hub.advance(4.9), up) == []
    [went_up] = approvals(hub.advance(0.1), up)
    answered = hub.receive(ann, Response(1, Decision(allow=True)))

    assert went_up.timeout_ms == 295_000
    assert [frame.result.allow for frame in answers(answered, x)] == [True]
    assert CancelRequest in [type(notice) for notice in notices(answered, up)]


def test_a_short_permission_timeout_leaves_the_next_tier_three_quarters_of_it():
    hub = open_hub(Timeouts(permission_timeout=2.0))
    x, up = begin(hub), join_meta(hub)
    attach(hub, "ann", Role.OPERATOR)
    hub.request(x, RM)

    assert [message.timeout_ms for message in requests(hub.advance(0.5), up)] == [1500]


def test_only_one_who_is_asked_can_acknowledge():
    hub = open_hub()
    x, up = begin(hub), join_meta(hub)
    ann, client = attach(hub, "ann", Role.OPERATOR), attach(hub, "bob")
    [shown] = requests(hub.request(x, RM), ann)

    for peer in (client, x, up):
        hub.notify(peer, Shown(shown.ask_id))
    hub.notify(ann, Shown("another"))

    assert len(approvals(hub.advance(5.0), up)) == 1


def test_when_the_one_who_has_acknowledged_leaves_the_time_of_the_others_begins():
    hub = open_hub()
    x, up = begin(hub), join_meta(hub)
    ann, _ = attach(hub, "ann", Role.OPERATOR), attach(hub, "bob", Role.OPERATOR)
    [shown] = requests(hub.request(x, RM), ann)
    hub.notify(ann, Shown(shown.ask_id))
    hub.advance(9.0)

    assert approvals(hub.lose(ann), up) == []
    assert approvals(hub.advance(4.9), up) == []
    assert len(approvals(hub.advance(0.1), up)) == 1


def test_what_all_operators_here_have_failed_goes_up_at_once():
    hub = open_hub()
    x, up, editor = begin(hub), join_meta(hub), attach(hub, "editor", Role.OPERATOR)
    hub.request(x, RM)

    failed = hub.receive(editor, Failure(1, ErrorCode.NO_OPERATOR, "not mine"))

    assert len(requests(failed, up)) == 1


def test_what_the_meta_hub_refuses_it_is_not_asked_again_until_it_is_joined_again():
    hub = open_hub()
    x, up = begin(hub), join_meta(hub)
    hub.request(x, RM)
    call = next(call for call in hub.core.exchange.calls if call.peer == up)

    assert requests(hub.receive(up, Failure(call.id, ErrorCode.OVERLOADED, "too many"))) == []
    hub.lose(up)
    again = hub.connect(Link.UPLINK)
    joined = hub.receive(again, Response(1, Welcome(protocol=PROTOCOL)))

    assert [type(message) for message in requests(joined, again)].count(Permission) == 1


def test_what_nobody_acknowledges_while_the_meta_hub_is_away_goes_up_when_it_is_back():
    hub = open_hub()
    x, up = begin(hub), join_meta(hub)
    ann = attach(hub, "ann", Role.OPERATOR)
    hub.lose(up)
    hub.request(x, RM)
    [shown] = requests(hub.request(x, RM), ann)
    hub.advance(6.0)
    hub.notify(ann, Shown(shown.ask_id))

    again = hub.connect(Link.UPLINK)
    joined = hub.receive(again, Response(1, Welcome(protocol=PROTOCOL)))

    assert [type(message) for message in requests(joined, again)].count(Permission) == 1


def test_what_another_hub_asks_never_goes_up_from_here():
    hub = open_hub()
    up = join_meta(hub)
    attach(hub, "ann", Role.OPERATOR)
    hub.request(up, Permission("Bash", agent_name="a/x", ask_id="q", timeout_ms=60_000))

    assert approvals(hub.advance(20.0), up) == []


# Shares and turns.


def test_eight_of_an_agent_are_shown_and_the_next_when_one_is_answered():
    hub = open_hub()
    x, ann = begin(hub), attach(hub, "ann", Role.OPERATOR)

    shown = flood(hub, x, 1024)
    assert len(requests(shown, ann)) == 8
    assert answers(shown) == []
    assert len(requests(allow(hub, ann), ann)) == 1


def test_however_much_one_agent_asks_another_is_shown_at_once_and_not_refused():
    hub = open_hub()
    mallory, x, ann = begin(hub, "mallory"), begin(hub, "x"), attach(hub, "ann", Role.OPERATOR)
    refused = answers(flood(hub, mallory, 1100), mallory)

    effects = hub.request(x, RM)

    assert [failure.code for failure in refused] == [ErrorCode.OVERLOADED] * 76
    assert askers(effects, ann) == ["x"]
    # Somebody has to give way: the newest of the one that has most.
    assert [type(frame) for frame in answers(effects)] == [Failure]
    assert answers(effects, x) == []


def test_of_many_agents_that_wait_each_has_its_turn():
    hub = open_hub(limits=Limits(asks_shown_per_agent=2, asks_shown_per_hub=2))
    ann = attach(hub, "ann", Role.OPERATOR)
    peers = {name: begin(hub, name) for name in ("mallory", "x", "y")}
    for name, count in {"mallory": 5, "x": 2, "y": 1}.items():
        flood(hub, peers[name], count)

    turns = [asker for _ in range(8) for asker in askers(allow(hub, ann), ann)]

    assert turns == ["x", "mallory", "y", "x", "mallory", "mallory"]


def test_sixty_four_of_a_hub_are_shown_and_of_other_hubs_none_the_less():
    meta = open_meta()
    a, b, ann = join(meta, "a"), join(meta, "b"), attach(meta, "ann", Role.OPERATOR)
    of_a = [
        effect
        for number in range(20)
        for effect in flood(meta, a, 60, Permission("Bash", agent_name=f"x{number}"))
    ]

    of_b = meta.request(b, Permission("Bash", agent_name="y"))

    assert len(requests(of_a, ann)) == len(requests(of_a, b)) == 64
    assert askers(of_b, ann) == ["b/y"]
    assert {failure.code for failure in answers(of_a)} == {ErrorCode.OVERLOADED}


def test_what_a_hub_shows_of_one_other_hub_leaves_room_for_the_rest():
    hub = open_hub()
    up, ann = join_meta(hub), attach(hub, "ann", Role.OPERATOR)
    for number in range(100):
        hub.request(up, Permission("Bash", agent_name=f"a/x{number}", ask_id=f"a{number}", timeout_ms=9000))

    shown = hub.request(up, Permission("Bash", agent_name="b/y", ask_id="b", timeout_ms=9000))

    assert askers(shown, ann) == ["b/y"]


def test_what_waits_for_its_turn_goes_nowhere_and_its_time_runs_from_when_it_is_shown():
    hub = open_hub(limits=Limits(asks_shown_per_agent=1))
    x, ann = begin(hub), attach(hub, "ann", Role.OPERATOR)
    flood(hub, x, 2)
    hub.advance(200.0)

    [shown] = requests(allow(hub, ann), ann)

    assert shown.timeout_ms == 300_000
    assert answers(hub.advance(299.0), x) == []
    assert [frame.result.allow for frame in answers(hub.advance(1.0), x)] == [False]


def test_while_nobody_is_attached_the_time_of_what_waits_runs_from_when_it_was_asked():
    hub = open_hub()
    x = begin(hub)
    flood(hub, x, 20)

    denied = answers(hub.advance(300.0), x)

    assert {frame.result for frame in denied} == {
        Decision(allow=False, reason=NOBODY, by="policy", unanswered=True)
    }
    assert len(denied) == 20


def test_when_the_last_operator_leaves_the_time_of_what_waits_begins_and_ends_when_one_comes():
    hub = open_hub(limits=Limits(asks_shown_per_agent=1))
    x, ann = begin(hub), attach(hub, "ann", Role.OPERATOR)
    flood(hub, x, 2)
    hub.advance(100.0)
    hub.lose(ann)
    hub.advance(150.0)
    attach(hub, "bob", Role.OPERATOR)

    assert len(answers(hub.advance(50.0), x)) == 1  # that which was shown from the beginning
    assert answers(hub.advance(299.0), x) == []
    assert len(answers(hub.advance(1.0), x)) == 1


def test_questions_have_the_same_shares():
    hub = open_hub()
    x, ann = begin(hub), attach(hub, "ann", Role.OPERATOR)

    shown = flood(hub, x, 20, Question())

    assert len(requests(shown, ann)) == 8
    answered = hub.receive(ann, Response(1, Answers(("yes",))))
    assert [type(message) for message in requests(answered, ann)] == [Question]


def test_when_an_agent_ends_none_of_its_approvals_is_shown_any_more():
    hub = open_hub()
    x, ann = begin(hub), attach(hub, "ann", Role.OPERATOR)
    flood(hub, x, 20)

    assert requests(hub.lose(x), ann) == []
    assert len(hub.core._approvals.pending) == 0
    assert hub.core._approvals.pending._askers == {}


def test_shares_are_never_larger_than_what_they_are_shares_of():
    for wrong in ({"asks": 10}, {"asks_shown_per_agent": 65}):
        with pytest.raises(ValueError, match="asks_shown_per_agent <= asks_shown_per_hub <= asks"):
            Limits(**wrong)


# Who is there to answer.


def logged(effects) -> list[str]:
    """What was told the operator's log."""
    return [effect.text for effect in effects if isinstance(effect, Log)]


def test_a_meta_hub_tells_each_hub_whether_anybody_else_has_an_operator():
    meta = open_meta()
    a, b, c = (join(meta, name) for name in "abc")

    first = meta.notify(a, Attended(attended=True))
    second = meta.notify(b, Attended(attended=True))
    gone = meta.notify(a, Attended(attended=False))
    ann = attach(meta, "ann", Role.OPERATOR)
    lost = meta.lose(ann)

    assert [notices(first, peer) for peer in (a, b, c)] == [[], [Attended(True)], [Attended(True)]]
    assert [notices(second, peer) for peer in (a, b, c)] == [[Attended(True)], [], []]
    assert [notices(gone, peer) for peer in (a, b, c)] == [[], [Attended(False)], []]
    assert [notices(lost, peer) for peer in (a, b, c)] == [[], [Attended(False)], []]


def test_a_hub_that_joins_is_told_and_one_that_is_gone_has_no_operators():
    meta = open_meta()
    a = join(meta, "a")
    meta.notify(a, Attended(attended=True))
    b = meta.connect()
    welcome = meta.receive(b, Request(1, join_message("b")))

    assert notices(welcome, b) == [Attended(True)]
    assert notices(meta.lose(a), b) == [Attended(False)]


def join_message(name: str):
    """The registration of a hub of ours."""

    return RegisterHub(name, TOKEN, protocol=PROTOCOL, instance=f"{name}-1")


def test_a_hub_tells_its_meta_hub_when_its_first_operator_comes_and_its_last_goes():
    hub = open_hub()
    up = join_meta(hub)

    def told(effects):
        return [notice for notice in notices(effects, up) if isinstance(notice, Attended)]

    ann = hub.connect()
    came = hub.request(ann, Register("ann", TOKEN, Role.OPERATOR, PROTOCOL))
    bob = hub.connect()
    more = hub.request(bob, Register("bob", TOKEN, Role.OPERATOR, PROTOCOL))

    assert (told(came), told(more), told(hub.lose(ann))) == ([Attended(True)], [], [])
    assert told(hub.lose(bob)) == [Attended(False)]


def test_that_no_operator_is_attached_is_logged_only_if_no_hub_has_one():
    meta = open_meta()
    a, b = join(meta, "a"), join(meta, "b")

    nobody = logged(meta.request(a, Permission("Bash", agent_name="x")))
    meta.notify(b, Attended(attended=True))
    somebody = logged(meta.request(a, Permission("Bash", agent_name="x")))

    assert nobody == ["a/x asks a permission (Bash), and no operator is attached; it waits 300 s"]
    assert somebody == []


def test_of_hubs_that_cannot_say_whether_they_have_one_nothing_is_claimed():
    meta = open_meta()
    a = join(meta, "a")
    join(meta, "b", protocol=Protocol(1, ("judge",)))
    meta.request(a, Permission("Bash", agent_name="x", timeout_ms=2000))

    [denied] = answers(meta.advance(2.0), a)

    assert denied.result.reason == "no operator answered within 2 s"


def test_a_permission_that_an_operator_somewhere_could_have_answered_says_that_none_did():
    hub = open_hub()
    x, up = begin(hub), join_meta(hub)
    hub.request(x, RM)
    hub.notify(up, Attended(attended=True))

    [denied] = answers(hub.advance(300.0), x)

    reason = "no operator answered within 300 s"
    assert denied.result == Decision(allow=False, reason=reason, by="policy", unanswered=True)


def test_a_base_meta_hub_denies_because_it_has_nobody_to_ask():
    hub = open_hub()
    x, up = begin(hub), join_base_meta(hub)
    [asked] = [frame for frame in sent(hub.request(x, RM), up) if isinstance(frame, Request)]

    [denied] = answers(hub.receive(up, Response(asked.id, Decision(allow=False))), x)

    reason = "nobody was there to answer: a MetaHub of the base dialect asks nobody"
    assert denied.result == Decision(allow=False, reason=reason, by="MetaHub", unanswered=True)
