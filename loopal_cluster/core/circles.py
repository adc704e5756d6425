"""Circles of asks: A asks B asks A, and both would wait until their time is over. Refused at once, naming the circle.

With each ask travels who waits for its reply: ``Envelope.waits``, one link for each ask that it is made for, and last
its asker. Hubs stamp it, from what they know: which asks they have handed to the asker and have no reply to. What an
agent says of it is not read, so it can neither forge a link nor drop one.

An agent may work on several asks at a time, and then its other asks do not wait for this one. Only it knows that, and
which of them an ask of its own is for (``Envelope.for_ask``); a hub checks that it is one that it has handed out. So
there are two kinds of asker:

* one whose turn waits for the reply, which is every agent that says nothing else: all asks that it has been handed
  wait with it, and so does every ask that comes to it. To ask it is a circle;
* one that serves (``AgentContext.serve``, or a task of it is waiting for messages): it goes on replying. It is marked,
  and to ask it is never a circle; what waits for the one ask that it works on, waits on.

That an agent waits, its own hub knows, and it looks whether the one link that begins there still holds: who has given
up waits no longer, and neither does one that is stopped and no longer heard. Further links may be over already, while
that is on its way to those who work for nobody.

So only what really waits is refused. What is not known is let pass, and its time ends it: links beyond the bound, hubs
of an older version, and agents that serve and do not say which ask they work on.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from loopal_cluster.address import Address
from loopal_cluster.core.exchange import Refused
from loopal_cluster.errors import ErrorCode
from loopal_cluster.messages import Envelope

__all__ = ["LINKS", "check_circle", "waits_of"]

LINKS = 64
"""So many links travel with an ask; of more, the newest."""
LINK_CHARACTERS = 300
"""Two addresses, and the words between; what is longer, or not printable, is none."""

_ON = " > "
_SERVES = " (serves)"


def waits_of(asker: str, held: Iterable[Envelope], *, serves: bool) -> tuple[str, ...]:
    """Who waits for an ask of ``asker``, an address: it, and all who wait for the asks that this one is made for."""
    links: dict[str, None] = {}
    for ask in held:
        *before, last = _bounded(ask.waits) or ("",)
        links |= dict.fromkeys(before)
        if last:
            links[f"{last}{_ON}{asker}"] = None
        if len(links) >= LINKS:
            break
    return (*[*links][1 - LINKS :], f"{asker}{_SERVES}" if serves else asker)


def check_circle(target: str, waits: tuple[str, ...], asked: Collection[Address]) -> None:
    """Let an ask of ``target``, an address, pass if it is not waiting for the reply itself.

    ``asked`` are those whose replies it waits for now, as its hub knows: what has travelled with an ask may be over.

    Raises:
        Refused: it is; the words name the circle.
    """
    *links, asker = _bounded(waits) or ("",)
    begin = f"{target}{_ON}"
    if asker != target:
        # What waits for others, or no longer, is left out, so that the words name what is.
        links = [link for link in links if not link.startswith(begin) or _is_one(link[len(begin) :], asked)]
        if not any(link.startswith(begin) for link in links):
            return
    circle = " -> ".join(_way(target, asker.removesuffix(_SERVES), links))
    detail = f"a circle of asks, in which each would wait for the next to reply: {circle} -> {target}"
    raise Refused(ErrorCode.ASK_CIRCLE, detail)


def _is_one(link_end: str, asked: Collection[Address]) -> bool:
    """Whether an address is one of those; a bare one of these may be on any hub."""
    address = link_end.removesuffix(_SERVES)
    return any(
        address == str(one) or (one.hub is None and address.endswith(f"/{one.agent}")) for one in asked
    )


def _bounded(waits: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(one for one in waits[-LINKS:] if len(one) <= LINK_CHARACTERS and one.isprintable())


def _way(begin: str, end: str, links: list[str]) -> list[str]:
    """The addresses from one to the other, along the links."""
    ways = {begin: [begin]}
    for _ in links:
        for link in links:
            waiting, _, on = link.replace(_SERVES, "").partition(_ON)
            if waiting in ways and on not in ways:
                ways[on] = [*ways[waiting], on]
        if end in ways:
            break
    return ways.get(end, [begin, end])
