"""What waits to be written is counted alike when it is queued and when it is taken."""

from __future__ import annotations

from loopal_cluster.address import Address
from loopal_cluster.core.effects import Send
from loopal_cluster.frames import Failure, Notification, Request, Response
from loopal_cluster.messages import (
    AgentEvent,
    AgentSource,
    Envelope,
    ListHubs,
    MetaRoute,
    Opaque,
    Role,
    Subscribe,
)
from loopal_cluster.records import evolve
from loopal_cluster.runtime.outbox import frame_bytes
from tests.core.builders import attach, join, open_meta


def test_a_core_says_of_each_frame_the_size_that_is_given_back_when_it_is_written() -> None:
    meta = open_meta()
    a, b, watcher = join(meta, "a"), join(meta, "b"), attach(meta, role=Role.OBSERVER)
    meta.request(watcher, Subscribe())
    envelope = Envelope("e", AgentSource("x"), Address("y", "b"), Opaque(b'{"text":"hi"}'), "then")
    effects = [
        *meta.request(a, MetaRoute(envelope)),
        *meta.notify(a, AgentEvent("x", Opaque(b'{"Stream":{"text":"1"}}'))),
        *meta.request(b, ListHubs()),
        *meta.request(b, MetaRoute(evolve(envelope, target=Address("y", "nowhere")))),
    ]
    sends = [effect for effect in effects if isinstance(effect, Send)]

    assert [type(effect.frame) for effect in sends] == [Request, Notification, Response, Failure]
    assert [effect.size for effect in sends] == [frame_bytes(effect.frame) for effect in sends]
    assert sends[0].size > 0
