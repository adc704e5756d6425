"""A client finds out when nobody speaks at the other end of its connection."""

from __future__ import annotations

import pytest
import trio

from loopal_cluster import ConnectionLost
from loopal_cluster.agents.inbox import Inbox
from loopal_cluster.agents.member import open_member
from loopal_cluster.runtime.channels import record_pair
from loopal_cluster.runtime.client import open_client
from loopal_cluster.tools.mailbox import Mailbox


async def test_a_client_gives_up_on_who_does_not_answer_its_registration(autojump_clock):
    ours, _theirs = record_pair()
    with pytest.raises(ConnectionLost, match="no answer to the registration within 10 s"):
        async with open_client(ours, name="ann"):
            pass

    assert trio.current_time() == pytest.approx(10, abs=0.1)


async def test_a_member_gives_up_on_who_does_not_answer_its_registration(autojump_clock):
    ours, _theirs = record_pair()
    inbox = Inbox(8)
    with pytest.raises(ConnectionLost, match="no answer to the registration within 10 s"):
        async with open_member(ours, name="ann", token="", inbox=inbox, mailbox=Mailbox(inbox)):
            pass
