"""The contract of a core, in prose.

A core is a pure object that is told what happened and returns what to do::

    effects = core.handle(event, now)      # list of effects, in the order to carry them out
    alarm = core.next_deadline()           # seconds on the same clock as ``now``, or None

There are two: ``MetaHubCore`` and ``HubCore``. Both know neither sockets, nor tasks, nor a clock,
nor JSON, nor randomness. Time is an argument, ids come from counters or from the ``new_id`` given at
construction, and both sides of a core are expressed in *frames*: a ``Send`` of one core is word for
word a ``FrameReceived`` of another. That is what makes transcripts and the simulator cheap.

Whoever drives a core promises:

* ``now`` never goes back;
* every peer is announced once by ``PeerConnected`` (a hub's agents by ``AgentStarted``) and ends
  once by ``PeerLost`` (``AgentEnded``); its frames come in between, in order;
* ``handle`` is called with ``DeadlineReached`` no later than ``next_deadline()`` (late is allowed,
  it only delays);
* effects are carried out before the next ``handle``.

A core promises:

* every request is answered exactly once, unless its peer is lost first;
* everything slow is a ``Call`` with a deadline (``calls.py``), which ends in exactly one way:
  answered, peer lost, or deadline;
* a bad frame from a peer changes nothing but the answer to that peer.

``handle`` is the only way in. What is on its way between hubs is *lazy*: a core reads an envelope's header, and its body
stays the bytes that it came as (``messages.Opaque``), to be read by whom it is for.

What a core wants to do when an answer comes is a record, not a closure, so it prints, compares and
can be purged. Records inside a core may be mutable; nobody changes those that cross any boundary
(``records.py``).
"""
