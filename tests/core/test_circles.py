"""Who waits for an ask is known to hubs alone, and an ask of one who waits for it is refused."""

from __future__ import annotations

import attrs
import pytest

from loopal_cluster.address import Address
from loopal_cluster.core.circles import LINKS, check_circle, waits_of
from loopal_cluster.core.effects import Send
from loopal_cluster.core.exchange import HOP_MARGIN, Refused
from loopal_cluster.errors import ErrorCode
from loopal_cluster.frames import Response
from loopal_cluster.messages import (
    AgentSource,
    Ask,
    CancelAgent,
    CancelRequest,
    DeliverAsk,
    MetaAsk,
    Ok,
    Shutdown,
)
from tests.core.builders import answers, attach, begin, envelope, in_cluster, open_hub, requests


def asked(*waits):
    return attrs.evolve(envelope("x"), waits=waits)


def circle(target, waits, *asked):
    with pytest.raises(Refused) as raised:
        check_circle(target, waits, [Address.parse(one) for one in asked])
    assert raised.value.code is ErrorCode.ASK_CIRCLE
    return raised.value.detail.rpartition(": ")[2]


def test_an_ask_for_nobody_is_waited_for_by_its_asker():
    assert waits_of("a/x", [], serves=False) == ("a/x",)
    assert circle("a/x", ("a/x",)) == "a/x -> a/x"
    check_circle("a/y", ("a/x",), [])


def test_whoever_waits_for_the_asker_waits_for_its_ask():
    first = waits_of("a/x", [], serves=False)
    second = waits_of("b/y", [asked(*first)], serves=False)
    third = waits_of("c/z", [asked(*second)], serves=False)

    assert third == ("a/x > b/y", "b/y > c/z", "c/z")
    assert circle("a/x", third, "b/y") == "a/x -> b/y -> c/z -> a/x"
    assert circle("b/y", third, "c/z") == "b/y -> c/z -> b/y"
    check_circle("d/w", third, [])


def test_one_that_serves_may_be_asked_and_who_waits_for_it_may_not():
    first = waits_of("a/x", [], serves=False)
    second = waits_of("b/s", [asked(*first)], serves=True)
    third = waits_of("c/z", [asked(*second)], serves=False)

    check_circle("b/s", third, [Address("z", "c")])
    assert circle("a/x", third, "s") == "a/x -> b/s -> c/z -> a/x"


def test_only_the_way_that_closes_is_named():
    held = [asked("a/x"), asked("a/v", "b/u"), asked()]
    waits = waits_of("a/y", held, serves=False)

    assert waits == ("a/x > a/y", "a/v", "b/u > a/y", "a/y")
    assert circle("b/u", waits, "a/y") == "b/u -> a/y -> b/u"


def test_a_link_that_is_over_closes_no_circle():
    waits = ("a/x > b/y", "b/y")

    check_circle("a/x", waits, [])
    check_circle("a/x", waits, [Address("z", "b"), Address("y", "c"), Address("yy")])
    assert circle("a/x", waits, "y") == circle("a/x", waits, "b/z", "b/y") == "a/x -> b/y -> a/x"


def test_names_that_begin_alike_are_not_confused():
    check_circle("a/x", ("a/xx > b/y", "b/y"), [Address("y", "b")])
    check_circle("a/x", ("a/x (serves)",), [Address("y", "b")])
    check_circle("a/x", (), [Address("y", "b")])


def test_the_list_is_bounded_and_what_is_no_link_is_dropped():
    many = [asked(f"a/x{number}") for number in range(1000)]
    waits = waits_of("a/y", many, serves=False)

    assert len(waits) == LINKS
    assert waits[-1] == "a/y"
    check_circle("a/x", ("x" * 1000, "a/y"), [Address("y", "b")])
    check_circle("a/x", ("a/x > \x1b[2J", "a/y"), [Address("y", "b")])
    assert len(waits_of("b/z", [asked(*waits)], serves=False)) == LINKS
    assert waits_of("b/z", [asked("x" * 1000)], serves=False) == ("b/z",)


# At hubs.


def ask(target, **fields):
    return Ask(attrs.evolve(envelope(target), timeout_ms=5000, **fields))


def delivered(effects, peer):
    [message] = [one for one in requests(effects, peer) if isinstance(one, DeliverAsk)]
    return message.envelope


def test_a_hub_stamps_who_waits_whatever_the_agent_says():
    hub = open_hub()
    x, y = begin(hub, "x"), begin(hub, "y")

    effects = hub.request(x, ask("y", waits=("here/z > here/y",)))

    assert delivered(effects, y).waits == (f"{hub.core.settings.name}/x",)


def test_an_agent_on_the_same_hub_cannot_ask_back():
    hub = open_hub()
    x, y = begin(hub, "x"), begin(hub, "y")
    hub.request(x, ask("y"))

    [refused] = answers(hub.request(y, ask("x", id="e-2")), y)

    name = hub.core.settings.name
    assert refused.code is ErrorCode.ASK_CIRCLE
    assert refused.detail.endswith(f": {name}/x -> {name}/y -> {name}/x")


def test_an_agent_that_has_given_up_may_be_asked_back():
    hub = open_hub()
    x, y = begin(hub, "x"), begin(hub, "y")
    hub.request(x, ask("y"))
    hub.advance(5.0)

    assert delivered(hub.request(y, ask("x", id="e-2")), x).waits[-1] == f"{hub.core.settings.name}/y"


def test_an_agent_of_another_hub_cannot_ask_back_and_its_own_hub_says_who_waits():
    hub, x, up = in_cluster()
    name = hub.core.settings.name
    [message] = requests(hub.request(x, ask("there/y")), up)

    assert isinstance(message, MetaAsk)
    assert message.envelope.waits == (f"{name}/x",)
    back = attrs.evolve(
        envelope("x", AgentSource("there/y")),
        id="e-2",
        origin_hub="there",
        waits=(f"{name}/x > there/y", "there/y"),
    )
    [refused] = answers(hub.request(up, DeliverAsk(back)), up)
    assert refused.code is ErrorCode.ASK_CIRCLE


def back_from(name, who):
    envelope_ = envelope("x", AgentSource(who))
    return DeliverAsk(
        attrs.evolve(
            envelope_, id="e-2", origin_hub="there", waits=(f"{name}/x > {who}", who), timeout_ms=5000
        )
    )


def test_one_that_waits_for_somebody_else_by_now_may_be_asked():
    hub, x, up = in_cluster()
    name = hub.core.settings.name
    hub.request(x, ask("there/y"))
    hub.advance(5.0 + 2 * HOP_MARGIN)
    hub.request(x, ask("there/z", id="e-3"))

    assert delivered(hub.request(up, back_from(name, "there/y")), x).id == "e-2"


@pytest.mark.parametrize("last_word", [True, False], ids=["it answers", "it does not answer"])
def test_one_that_is_stopped_waits_no_longer_and_whom_it_asked_is_told(last_word):
    hub, x, up = in_cluster()
    name = hub.core.settings.name
    boss = attach(hub)
    hub.request(x, ask("there/y"))
    hub.request(boss, CancelAgent(Address("x"), reason="enough"))

    if last_word:
        [shutdown] = [one for one in hub.core.exchange.calls if isinstance(one.message, Shutdown)]
        effects = hub.receive(x, Response(shutdown.id, Ok()))
    else:
        effects = hub.advance(hub.core.settings.timeouts.answer_grace)

    told = [effect.frame.message for effect in effects if isinstance(effect, Send) and effect.peer == up]
    assert [type(one) for one in told] == [CancelRequest]
    assert answers(hub.request(up, back_from(name, "there/y")), up) == []
