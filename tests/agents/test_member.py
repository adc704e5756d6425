"""An agent that has come to a hub by itself, as the hub and others find it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from loopal_cluster import Hub, NameTaken, RemoteError, Unauthorized, open_hub
from loopal_cluster.agents.inbox import Inbox
from loopal_cluster.agents.member import Member, open_member
from loopal_cluster.links.channels import record_pair
from loopal_cluster.testing import open_test_cluster
from loopal_cluster.tools import Mailbox


@asynccontextmanager
async def join(hub: Hub, name: str = "ann", token: str | None = None) -> AsyncIterator[Member]:
    """Be a member of the hub."""
    ours, theirs = record_pair()
    hub.attach(theirs)
    inbox = Inbox(10)
    async with open_member(
        ours, name=name, token=token or hub.token, inbox=inbox, mailbox=Mailbox(inbox)
    ) as member:
        yield member


async def test_it_is_found_and_heard_from_every_hub(autojump_clock):
    async with open_test_cluster(2) as both, join(both["hub-a"]) as ann, join(both["hub-b"], "bob") as bob:
        await ann.send("hub-b/bob", "hello")
        await bob.send("ann", "hello yourself")

        assert (ann.address, bob.address) == ("hub-a/ann", "hub-b/bob")
        assert (await bob.tools.call("Inbox")).text == "From agent 'hub-a/ann':\n> hello"
        assert (await ann.tools.call("Inbox")).text == "From agent 'hub-b/bob':\n> hello yourself"


async def test_it_asks_another_member_which_answers(autojump_clock):
    async with open_test_cluster(2) as both, join(both["hub-a"]) as ann, join(both["hub-b"], "bob") as bob:
        async with trio.open_nursery() as nursery:

            async def answer() -> None:
                (letter,) = (await bob.tools.call("Inbox", {"wait": 5})).data["messages"]
                arguments = {"to": letter["from"], "message": "fine", "reply_to": letter["ask_id"]}
                await bob.tools.call("SendMessage", arguments)

            nursery.start_soon(answer)
            assert await ann.ask("bob", "how are you?") == "fine"


async def test_a_wrong_token_and_a_name_that_is_taken_are_refused(autojump_clock):
    async with open_hub("solo") as hub, join(hub):
        with pytest.raises(Unauthorized):
            async with join(hub, "bob", token="guessed"):
                raise AssertionError("it is a member")
        with pytest.raises(NameTaken):
            async with join(hub):
                raise AssertionError("it is a member")


async def test_nobody_controls_it(autojump_clock):
    async with open_hub("solo") as hub, join(hub) as ann, hub.open_client() as client:
        with pytest.raises(RemoteError, match="takes no controls"):
            await client.control("ann", {"ModeSwitch": "Plan"})
        await client.interrupt("ann")

        assert not ann.closed.is_set()


async def test_when_it_is_stopped_its_connection_ends(autojump_clock):
    async with open_hub("solo") as hub, join(hub) as ann, hub.open_client() as client:
        await client.cancel("ann")
        await ann.closed.wait()

        assert await client.local_agents() == ()
        assert "connection lost" in (await ann.tools.call("ListHubs")).text


async def test_a_meta_hub_has_no_members(autojump_clock):
    async with open_test_cluster(1) as one:
        with pytest.raises(RemoteError) as refusal:
            async with join(one.meta_hub):  # type: ignore[arg-type]
                raise AssertionError("it is a member")

        assert "agent" in str(refusal.value)
