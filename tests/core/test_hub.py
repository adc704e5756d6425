"""What a hub answers: registration, messages, permissions, events."""

from __future__ import annotations

import pytest

from loopal_cluster.address import Address
from loopal_cluster.config import Limits, Policy
from loopal_cluster.core.effects import Disconnect, Send, Watch
from loopal_cluster.core.events import Link
from loopal_cluster.core.parties import PROTOCOL
from loopal_cluster.errors import ErrorCode
from loopal_cluster.frames import Failure, Notification, Request, Response
from loopal_cluster.messages import (
    NULL,
    OK,
    AgentDetails,
    AgentEvent,
    AgentInfo,
    AgentNames,
    AgentNode,
    AgentSource,
    Answers,
    CancelRequest,
    ChannelSource,
    ClusterEvent,
    Control,
    ControlAgent,
    Decided,
    Decision,
    DeliverEnvelope,
    Found,
    HubList,
    HubTopology,
    HumanSource,
    Interrupt,
    InterruptAgent,
    ListAgents,
    ListHubs,
    MetaAsk,
    MetaRoute,
    MetaTopology,
    Ok,
    Permission,
    Protocol,
    Question,
    Register,
    RegisterHub,
    Resolve,
    Role,
    Route,
    SpawnAgent,
    SpawnSpec,
    Status,
    StatusInfo,
    Subscribe,
    SystemSource,
    Topology,
    UplinkInfo,
    Welcome,
)
from loopal_cluster.payloads import Finished, MessageRouted
from loopal_cluster.testing import sent

from .builders import (
    TOKEN,
    answers,
    attach,
    begin,
    come_up,
    envelope,
    join_base_meta,
    join_meta,
    notices,
    open_hub,
    quietly,
    requests,
    start,
    unlogged,
)

# Registration.


@pytest.mark.parametrize("role", list(Role))
def test_a_party_that_registers_is_welcomed(role):
    hub = open_hub()
    peer = hub.connect()

    effects = hub.request(peer, Register("ann", TOKEN, role, PROTOCOL))

    welcome = Welcome(name="ann", kind="hub", hub="here", protocol=PROTOCOL)
    assert unlogged(effects) == [Send(peer, Response(1, welcome)), Watch(peer, pings=True)]


def test_a_party_of_the_base_dialect_gets_a_plain_ok():
    hub = open_hub()
    peer = hub.connect()

    assert hub.request(peer, Register("x", TOKEN)) == [
        Send(peer, Response(1, Welcome())),
        Watch(peer, pings=False),
    ]


def test_a_wrong_token_is_refused_and_the_connection_ended():
    hub = open_hub()
    peer = hub.connect()

    assert hub.request(peer, Register("x", "wrong")) == [
        Send(peer, Failure(1, ErrorCode.UNAUTHORIZED, "invalid token")),
        Disconnect(peer, "invalid token", wrong_token=True),
    ]


def test_the_program_that_embeds_the_hub_needs_no_token():
    hub = open_hub()
    peer = hub.connect(Link.TRUSTED)

    [welcome] = sent(hub.request(peer, Register("me", role=Role.CLIENT)))

    assert isinstance(welcome, Response)


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (Register("a/b", TOKEN), ErrorCode.INVALID_REQUEST),
        (Register("", TOKEN, Role.CLIENT), ErrorCode.INVALID_REQUEST),
        (Register("x", TOKEN, protocol=Protocol(0)), ErrorCode.INVALID_REQUEST),
        (Register("taken", TOKEN), ErrorCode.NAME_TAKEN),
        (Status(), ErrorCode.NOT_REGISTERED),
        (RegisterHub("b", TOKEN), ErrorCode.NOT_REGISTERED),
    ],
)
def test_a_refused_party_may_try_again_but_not_forever(message, code):
    hub = open_hub()
    begin(hub, "taken")
    peer = hub.connect()

    [failure] = sent(hub.request(peer, message))

    assert failure.code is code
    assert Disconnect(peer, "it did not register in time") in hub.advance(10.0)


def test_a_second_register_is_refused():
    hub = open_hub()
    client = attach(hub)

    [failure] = sent(hub.request(client, Register("bob", TOKEN, Role.OPERATOR)))

    assert failure == Failure(2, ErrorCode.METHOD_NOT_FOUND, "unknown hub method: hub/register")


def test_an_observer_may_only_look():
    hub = open_hub()
    observer = attach(hub, role=Role.OBSERVER)

    for message in (Route(envelope("x")), SpawnAgent(SpawnSpec("x")), InterruptAgent(Address("x"))):
        [failure] = sent(hub.request(observer, message))
        assert failure.code is ErrorCode.UNAUTHORIZED
    for look in (Status(), ListAgents(), Topology(), Subscribe()):
        assert isinstance(sent(hub.request(observer, look))[0], Response)


def test_an_external_agent_counts_as_one():
    hub = open_hub(limits=Limits(agents=1))
    attach(hub, "x", Role.AGENT)

    second = hub.connect()
    [failure] = sent(hub.request(second, Register("y", TOKEN)))

    assert failure.code is ErrorCode.OVERLOADED


# Looking.


def test_a_hub_says_what_it_is_and_runs():
    hub = open_hub(capabilities=("gpu",))
    client = attach(hub)
    x = begin(hub, "x", client)
    begin(hub, "y", x)

    def ask(message):
        return answers(hub.request(client, message), client)[0].result

    assert ask(Status()) == StatusInfo(2, None, "here", ("t",), ("gpu",))
    assert ask(ListAgents()) == AgentNames(("x", "y"))
    assert ask(Topology()) == HubTopology(
        (
            AgentNode("x", None, ("y",), "Running", id="id-1", type="t"),
            AgentNode("y", "x", (), "Running", id="id-2", type="t"),
        )
    )
    assert ask(AgentInfo(Address("y"))) == AgentDetails("y", "Running", parent="x", id="id-2", type="t")


def test_a_hub_in_a_cluster_says_so():
    hub = open_hub()
    client = attach(hub)
    join_meta(hub)

    [answer] = sent(hub.request(client, Status()))

    assert answer.result.uplink == UplinkInfo(connected=True, hub_name="here")


@pytest.mark.parametrize("message", [ListHubs(), MetaTopology(), Resolve("x")])
def test_what_only_the_cluster_knows_is_asked_of_the_meta_hub(message):
    hub = open_hub()
    x, up = begin(hub), join_meta(hub)

    [there] = sent(hub.request(x, message))
    back = hub.receive(up, Response(there.id, HubList(())))

    assert there.message == message
    assert back == [Send(x, Response(1, HubList(())))]


def test_what_only_the_cluster_knows_is_refused_without_one():
    hub = open_hub()
    x = begin(hub)

    detail = "not connected to MetaHub cluster"
    assert hub.request(x, ListHubs()) == [Send(x, Failure(1, ErrorCode.NOT_IN_CLUSTER, detail))]


# Messages on one hub.


def test_a_message_reaches_an_agent_with_the_senders_real_name_and_is_then_acknowledged():
    hub = open_hub()
    x, y = begin(hub, "x"), begin(hub, "y")

    there = hub.request(x, Route(envelope("y", AgentSource("somebody else"))))
    back = hub.receive(y, Response(3, OK))

    assert there == [Send(y, Request(3, DeliverEnvelope(envelope("y", AgentSource("x")))))]
    assert back == [Send(x, Response(1, OK))]


def test_the_own_hub_by_name_is_local_even_in_a_cluster():
    hub = open_hub()
    x, y = begin(hub, "x"), begin(hub, "y")
    join_meta(hub)

    assert requests(hub.request(x, Route(envelope("here/y")))) == [
        DeliverEnvelope(envelope("y", AgentSource("x")))
    ]
    [failure] = sent(hub.request(x, Route(envelope("here/z"))))
    assert failure == Failure(2, ErrorCode.AGENT_NOT_FOUND, "no agent 'z' on hub 'here'")
    assert notices(hub.receive(y, Response(3, OK))) != []


def test_an_unknown_name_without_a_cluster_is_an_error_at_once():
    hub = open_hub()
    x = begin(hub)

    detail = "agent 'z' not found locally and no MetaHub uplink configured"
    assert hub.request(x, Route(envelope("z"))) == [Send(x, Failure(1, ErrorCode.AGENT_NOT_FOUND, detail))]


@pytest.mark.parametrize("target", ["z", "there/x", "there/z"])
def test_what_is_not_here_goes_up_and_the_answer_comes_back(target):
    hub = open_hub()
    x, up = begin(hub), join_meta(hub)

    there = hub.request(x, Route(envelope(target)))
    back = hub.receive(up, Response(3, OK))

    assert there == [Send(up, Request(3, MetaRoute(envelope(target, AgentSource("x")))))]
    assert back == [Send(x, Response(1, OK))]


@pytest.mark.parametrize(("answer", "code"), [("no", ErrorCode.REFUSED), (None, ErrorCode.DELIVERY_FAILED)])
def test_a_message_the_agent_does_not_accept_is_a_failed_delivery(answer, code):
    hub = open_hub()
    x, y = begin(hub, "x"), begin(hub, "y")
    hub.request(x, Route(envelope("y")))

    frame = Failure(3, ErrorCode.REFUSED, answer) if answer else Response(3, Ok(ok=False))
    [failure] = sent(hub.receive(y, frame))

    assert failure.code is code
    assert failure.detail == f"delivery to 'y' failed: {answer or 'the agent refused the message'}"


def test_an_agent_that_does_not_take_a_message_in_time_is_an_error():
    hub = open_hub()
    x, y = begin(hub, "x"), begin(hub, "y")
    hub.request(x, Route(envelope("y")))

    effects = hub.advance(30.0)

    assert [frame.code for frame in answers(effects, x)] == [ErrorCode.DEADLINE_EXCEEDED]
    assert hub.receive(y, Response(3, OK)) == []


def test_messages_for_an_agent_that_is_coming_up_wait_for_it_in_order():
    hub = open_hub()
    x, client = begin(hub, "x"), attach(hub)
    agent_id = start(hub, "y", client)
    assert hub.request(x, Route(envelope("y"))) == []
    assert hub.request(client, Route(envelope("y"))) == []

    peer = come_up(hub, agent_id)

    delivered = [line for line in hub.transcript if "-> Send" in line and "DeliverEnvelope" in line]
    assert [f"peer={peer}, frame=Request(id={n}" in line for n, line in enumerate(delivered, 3)] == [True] * 2
    assert ["AgentSource(name='x')" in line for line in delivered] == [True, False]


def test_an_agent_that_is_coming_up_holds_so_many_messages_and_no_more():
    hub = open_hub(limits=Limits(inbox=1))
    client = attach(hub)
    start(hub, "y", client)
    hub.request(client, Route(envelope("y")))

    [failure] = sent(hub.request(client, Route(envelope("y"))))

    detail = "agent 'y' has too many messages waiting"
    assert failure == Failure(4, ErrorCode.OVERLOADED, detail)


def test_waiting_messages_beyond_what_the_agent_may_be_asked_are_refused_when_it_is_up():
    hub = open_hub(limits=Limits(inbox=3, calls_per_peer=2))
    client = attach(hub)
    agent_id = start(hub, "y", client)
    for _ in range(3):
        hub.request(client, Route(envelope("y")))

    come_up(hub, agent_id)

    assert "Failure(id=5, code=<ErrorCode.OVERLOADED" in "\n".join(hub.transcript)


@pytest.mark.parametrize("source", [AgentSource("x"), SystemSource("agent-completed"), HumanSource()])
def test_a_client_writes_as_a_human_whatever_it_claims(source):
    hub = open_hub()
    x, client = begin(hub), attach(hub)

    assert requests(hub.request(client, Route(envelope("x", source))), x) == [
        DeliverEnvelope(envelope("x", HumanSource()))
    ]


def test_a_client_may_bring_what_somebody_said_on_a_channel():
    hub = open_hub()
    x, client = begin(hub), attach(hub)
    message = envelope("x", ChannelSource("irc", "ann"))

    assert requests(hub.request(client, Route(message)), x) == [DeliverEnvelope(message)]


def test_control_and_interrupt_reach_the_agent():
    hub = open_hub()
    x, client = begin(hub), attach(hub)

    assert hub.request(client, InterruptAgent(Address("x"))) == [
        Send(x, Notification(Interrupt())),
        Send(client, Response(2, OK)),
    ]
    assert hub.request(client, ControlAgent(Address("x"), NULL)) == [Send(x, Request(3, Control(NULL)))]
    assert hub.receive(x, Response(3, OK)) == [Send(client, Response(3, OK))]


@pytest.mark.parametrize("message", [InterruptAgent(Address("x")), ControlAgent(Address("x"))])
def test_an_agent_that_is_not_up_cannot_be_interrupted_or_controlled(message):
    hub = open_hub()
    client = attach(hub)
    start(hub, "x", client)

    [failure] = sent(hub.request(client, message))

    assert failure == Failure(3, ErrorCode.AGENT_NOT_FOUND, "agent 'x' is not up yet")


# Messages from the MetaHub.


def test_a_message_from_another_hub_is_delivered_as_it_is():
    hub = open_hub()
    x, up = begin(hub), join_meta(hub)
    message = envelope("x", AgentSource("there/y"), origin_hub="there")

    there = hub.request(up, DeliverEnvelope(message))
    back = hub.receive(x, Response(3, OK))

    assert there == [Send(x, Request(3, DeliverEnvelope(message)))]
    assert quietly(back) == [Send(up, Response(1, OK))]


@pytest.mark.parametrize("target", ["z", "there/x", "there/z"])
def test_nothing_that_comes_down_goes_up_again(target):
    hub = open_hub()
    begin(hub)
    up = join_meta(hub)

    [failure] = sent(hub.request(up, DeliverEnvelope(envelope(target))))

    assert failure == Failure(1, ErrorCode.AGENT_NOT_FOUND, f"no agent '{target}' on hub 'here'")


def test_a_message_that_wants_no_answer_is_delivered_or_dropped():
    hub = open_hub()
    x, up = begin(hub), join_meta(hub)

    assert requests(hub.notify(up, DeliverEnvelope(envelope("x"))), x) != []
    assert hub.notify(up, DeliverEnvelope(envelope("z"))) == []


def test_a_message_that_wants_no_answer_may_find_the_agent_full():
    hub = open_hub(limits=Limits(inbox=1))
    up = join_meta(hub)
    start(hub, "x")
    hub.notify(up, DeliverEnvelope(envelope("x")))

    [log] = hub.notify(up, DeliverEnvelope(envelope("x")))

    assert log.text == "dropped a message: agent 'x' has too many messages waiting"


def test_the_meta_hub_learns_which_agents_are_here():
    hub = open_hub()
    x, up = begin(hub), join_meta(hub)
    hub.request(x, SpawnAgent(SpawnSpec("shadow", target_hub="there")))

    found = [hub.request(up, Resolve(name))[0].frame.result for name in ("x", "shadow", "z")]

    assert found == [Found(found=True), Found(found=False), Found(found=False)]


@pytest.mark.parametrize("message", [ListHubs(), Route(envelope("x")), MetaAsk(envelope("x"))])
def test_a_meta_hub_cannot_ask_what_only_agents_may(message):
    hub = open_hub()
    begin(hub)
    up = join_meta(hub)

    [failure] = sent(hub.request(up, message))

    assert failure.code is ErrorCode.METHOD_NOT_FOUND


# Events.


def test_what_an_agent_does_is_told_to_those_who_watch_and_to_the_meta_hub():
    hub = open_hub()
    x, up = begin(hub), join_meta(hub)
    watcher = attach(hub, role=Role.OBSERVER)
    hub.request(watcher, Subscribe())

    effects = hub.notify(x, AgentEvent("somebody else", Finished()))

    seen = ClusterEvent(2, 0.0, "here", "x", Finished())
    assert effects == [
        Send(watcher, Notification(seen)),
        Send(up, Notification(AgentEvent("x", Finished()))),
    ]


def test_a_delivered_message_is_an_event():
    hub = open_hub()
    x, watcher = begin(hub), attach(hub)
    hub.request(watcher, Subscribe())
    hub.request(watcher, Route(envelope("x")))

    [event] = notices(hub.receive(x, Response(3, OK)), watcher)

    assert event.payload == MessageRouted("human", "x", envelope("x").content)


@pytest.mark.parametrize("party", ["stranger", "client", "meta_hub"])
def test_only_agents_report_events(party):
    hub = open_hub()
    watcher = attach(hub)
    hub.request(watcher, Subscribe())
    peer = {"stranger": hub.connect, "client": lambda: attach(hub), "meta_hub": lambda: join_meta(hub)}[
        party
    ]()

    assert hub.notify(peer, AgentEvent("x", Finished())) == []


# Permissions and questions.

RM = Permission("Bash", NULL, "call-1", agent_name="somebody else")


def shown(ask_id: str) -> Permission:
    """What an operator sees of ``RM``."""
    return Permission("Bash", NULL, "call-1", agent_name="x", ask_id=ask_id, timeout_ms=300_000)


def test_a_permission_is_asked_of_the_operators_here_and_not_of_the_meta_hub():
    hub = open_hub()
    x = begin(hub)
    join_meta(hub)
    ann = attach(hub, "ann", Role.OPERATOR)

    asked = hub.request(x, RM)
    answered = hub.receive(ann, Response(1, Decision(allow=True)))

    assert asked == [Send(ann, Request(1, shown("id-2")))]
    assert answered == [Send(x, Response(1, Decision(allow=True, by="ann")))]


def test_without_an_operator_the_meta_hub_is_asked():
    hub = open_hub()
    x, up = begin(hub), join_meta(hub)

    asked = hub.request(x, RM)
    answered = hub.receive(up, Response(3, Decision(allow=False, reason="no", by="bob")))

    assert asked == [Send(up, Request(3, shown("id-2")))]
    assert answered == [Send(x, Response(1, Decision(allow=False, reason="no", by="bob")))]


def test_the_meta_hub_is_asked_when_the_last_operator_leaves_or_the_cluster_is_joined_later():
    hub = open_hub()
    x, ann = begin(hub), attach(hub, "ann", Role.OPERATOR)
    up = join_meta(hub)
    hub.request(x, RM)
    assert requests(hub.lose(ann), up) == [shown("id-2")]

    hub.lose(up)
    again = hub.connect(Link.UPLINK)

    assert shown("id-2") in requests(hub.receive(again, Response(1, Welcome(protocol=PROTOCOL))), again)


def test_an_operator_who_comes_later_is_asked_too_and_the_meta_hub_is_told():
    hub = open_hub()
    x, up = begin(hub), join_meta(hub)
    hub.request(x, RM)
    ann = attach(hub, "ann", Role.OPERATOR)

    effects = hub.receive(ann, Response(1, Decision(allow=True)))

    assert effects == [
        Send(x, Response(1, Decision(allow=True, by="ann"))),
        Send(up, Notification(Decided("id-2", "ann", allow=True))),
        Send(up, Notification(CancelRequest(3))),
    ]


def test_a_meta_hub_that_fails_has_not_answered():
    hub = open_hub()
    x, up = begin(hub), join_meta(hub)
    hub.request(x, RM)

    assert hub.receive(up, Failure(3, ErrorCode.METHOD_NOT_FOUND, "unknown")) == []
    [decision] = answers(hub.advance(300.0), x)

    reason = "nobody was there to answer within 300 s: no operator was attached"
    assert decision.result == Decision(allow=False, reason=reason, by="policy", unanswered=True)


@pytest.mark.parametrize(("policy", "allow"), [(Policy.BYPASS, True), (Policy.DENY, False)])
def test_a_policy_decides_at_once_and_says_so(policy, allow):
    hub = open_hub(policy=policy)
    x = begin(hub)
    attach(hub, "ann", Role.OPERATOR)

    reason = f"the policy of hub 'here' is {policy.value}"
    assert hub.request(x, RM) == [Send(x, Response(1, Decision(allow, reason, "policy")))]


def test_a_question_is_not_answered_by_a_policy():
    denying, bypassing = open_hub(policy=Policy.DENY), open_hub(policy=Policy.BYPASS)

    [refused] = sent(denying.request(begin(denying), Question()))
    x, ann = begin(bypassing), attach(bypassing, "ann", Role.OPERATOR)
    bypassing.request(x, Question())

    detail = "hub 'here' does not pass questions on"
    assert refused == Failure(1, ErrorCode.NO_OPERATOR, detail)
    assert bypassing.receive(ann, Response(1, Answers(("yes",)))) == [
        Send(x, Response(1, Answers(("yes",), by="ann")))
    ]


@pytest.mark.parametrize("party", ["client", "operator"])
def test_only_agents_ask_for_permission(party):
    hub = open_hub()
    peer = attach(hub, role=Role(party))

    [failure] = sent(hub.request(peer, RM))

    assert failure == Failure(2, ErrorCode.METHOD_NOT_FOUND, "unknown: agent/permission")


def test_an_agent_that_takes_its_question_back_is_answered_and_the_operators_told():
    hub = open_hub()
    x, ann = begin(hub), attach(hub, "ann", Role.OPERATOR)
    hub.request(x, RM)

    effects = hub.notify(x, CancelRequest(1))

    assert notices(effects, ann) == [Decided("id-2", None), CancelRequest(1)]
    assert answers(effects, x) == [Failure(1, ErrorCode.CANCELLED, "cancelled by its caller")]


# In a cluster of the base dialect.


def test_a_meta_hub_of_the_base_dialect_is_not_sent_what_it_does_not_know():
    hub = open_hub()
    up = join_base_meta(hub)

    begin(hub)

    assert [line for line in hub.transcript if "Announce(" in line] == []
    assert hub.core.uplink.peer == up
