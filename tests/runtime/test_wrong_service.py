"""What answers at the address of a MetaHub is not always one: that is found out at once, and said."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio

from loopal_cluster import ConnectionLost, connect, open_hub
from loopal_cluster.links.greeting import what_answered

SERVICES = {
    "HTTP": (True, b"HTTP/1.1 400 Bad Request\r\n\r\n", "an HTTP server ('HTTP/1.1 400 Bad Request')"),
    "SSH": (False, b"SSH-2.0-OpenSSH_9.6\r\n", "an SSH server ('SSH-2.0-OpenSSH_9.6')"),
    "TLS": (True, b"\x15\x03\x01\x00\x02\x02\x46", "a TLS server"),
    "TLS that says line feed": (True, b"\x15\x03\x01\x00\x02\x02\x0a", "a TLS server"),
    "SMTP": (False, b"220 mail.example ESMTP\r\n", "a mail or FTP server ('220 mail.example ESMTP')"),
    "another": (True, b"\x1b]0;owned\x07what?\n", "something else ('.]0;owned.what?')"),
}


@asynccontextmanager
async def service(waits: bool, says: bytes) -> AsyncIterator[str]:
    """Something that listens, may wait for a line, says something and hangs up, as most do."""

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            if waits:
                await stream.receive_some()
            await stream.send_all(says)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        yield f"127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("kind", SERVICES)
async def test_a_hub_knows_what_answers_that_is_no_meta_hub(kind):
    waits, says, what = SERVICES[kind]
    async with service(waits, says) as address, open_hub("hub-a", join=address, join_timeout=None) as hub:
        await hub.until_answered()
        absence = hub.absence

    assert absence.reason == f"what answers there is no MetaHub, but {what}"
    assert absence.refusal is None


@pytest.mark.parametrize("kind", SERVICES)
async def test_a_client_knows_what_answers_that_is_no_hub(kind):
    waits, says, what = SERVICES[kind]
    async with service(waits, says) as address:
        with pytest.raises(ConnectionLost) as error:
            async with connect(address):
                raise AssertionError("it is connected")

    assert str(error.value) == f"connection lost: what answers there is no hub, but {what}"


async def test_a_hub_that_is_taken_for_a_meta_hub_is_called_a_hub():
    async with (
        open_hub("hub-a", listen=["127.0.0.1:0"]) as other,
        open_hub("hub-b", join=other.addresses[0], join_timeout=None) as hub,
    ):
        await hub.until_answered()

        assert hub.absence.reason == "what answers there is no MetaHub, but a hub"


async def test_who_hangs_up_without_a_word_may_be_no_meta_hub():
    async with service(True, b"") as address, open_hub("hub-a", join=address, join_timeout=None) as hub:
        await hub.until_answered()

        assert hub.absence.reason == "it was closed before it was answered: is that a MetaHub?"


def test_a_greeting_is_shown_without_anything_that_a_terminal_obeys():
    assert what_answered(b"\x1b[31m\xe4\r\nmore") == "something else ('.[31m.')"
