"""Every method has a handler at each core, for each kind of party that may send it; and nothing else has."""

from __future__ import annotations

import pytest

from loopal_cluster.core.parties import AgentParty, ClientParty, HubParty, MetaHubParty, Stranger
from loopal_cluster.messages import METHODS, DeliverEnvelope, Direction, Message

from .builders import open_hub, open_meta

HUB = {
    Stranger: Direction.STRANGER_TO_HUB,
    AgentParty: Direction.AGENT_TO_HUB,
    ClientParty: Direction.CLIENT_TO_HUB,
    MetaHubParty: Direction.META_HUB_TO_HUB,
}
"""What is sent by each kind of party that a hub knows."""
META_HUB = {
    Stranger: Direction.STRANGER_TO_META_HUB,
    HubParty: Direction.HUB_TO_META_HUB,
    ClientParty: Direction.CLIENT_TO_META_HUB,
}
"""The same for a MetaHub."""


def sent(direction: Direction, *, answered: bool) -> set[type[Message]]:
    """The requests, or the notifications, of one direction."""
    return {
        message
        for message in METHODS.values()
        if direction in message.audience and (message.result is not None) is answered
    }


@pytest.mark.parametrize(("party", "direction"), HUB.items())
def test_a_hub_has_a_handler_for_just_what_each_kind_of_party_may_send(party, direction):
    core = open_hub().core

    assert {message for kind, message in core._handlers if kind is party} == sent(direction, answered=True)


@pytest.mark.parametrize(("party", "direction"), HUB.items())
def test_a_hub_listens_to_just_what_each_kind_of_party_may_tell(party, direction):
    core = open_hub().core
    # A base MetaHub brings messages that want no answer, too.
    also = {DeliverEnvelope} if party is MetaHubParty else set()

    assert {message for kind, message in core._listeners if kind is party} == also | sent(
        direction, answered=False
    )


def test_what_an_agent_may_do_a_client_may_do_but_for_what_is_about_the_agent_itself():
    core = open_hub().core

    def of(party):
        return {message.method for kind, message in core._handlers if kind is party}  # type: ignore[attr-defined]

    assert of(AgentParty) - of(ClientParty) == {"agent/permission", "agent/question"}
    assert of(ClientParty) <= of(AgentParty)


@pytest.mark.parametrize(("party", "direction"), META_HUB.items())
def test_a_meta_hub_has_a_handler_for_just_what_each_kind_of_party_may_send(party, direction):
    core = open_meta().core

    assert {message for kind, message in core._handlers if kind is party} == sent(direction, answered=True)


@pytest.mark.parametrize(("party", "direction"), META_HUB.items())
def test_a_meta_hub_listens_to_just_what_each_kind_of_party_may_tell(party, direction):
    core = open_meta().core

    assert {message for kind, message in core._listeners if kind is party} == sent(direction, answered=False)
