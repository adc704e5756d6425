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

**Where to look.** One line for each file:

Both cores:

* ``events``: what can happen to a core.
* ``effects``: what a core can ask for.
* ``context``: what every part of a core has: settings, frames, timers, ids.
* ``handlers``: the tables of who handles which method, by kind of party and type of message.
* ``parties``: the kinds of party, and what both sides of a connection speak.
* ``exchange``: requests answered once, calls, notifications, hanging up.
* ``calls``: the calls that are open: who waits for each, until when.
* ``patience``: how long an answer may take.
* ``steps``: what follows an answer or an instant, as records.
* ``deadlines``: the timers.
* ``pending``: a dict whose entries have deadlines.
* ``approvals``: approvals that wait for a human, and who is shown which.
* ``circles``: asks that would wait for themselves.
* ``receipts``: messages that have been seen, so that each is delivered once.
* ``timeline``: the event log, and who watches it.
* ``kept``: texts that are too large.
* ``refusals``: the log of who was not let in.

A hub:

* ``hub``: the switchboard: frames, answers, timers.
* ``hub_connections``: connections that come and end, and what ends with each.
* ``hub_routing``: messages and asks, to an agent here or up to the MetaHub.
* ``hub_lookup``: requests about one agent, about all, about the hub.
* ``hub_spawns``: spawns, and news of agents that two hubs share.
* ``hub_approvals``: permissions and questions, and who is there to answer.
* ``agents``: the agents of a hub, their parents and children.
* ``agent_states``: where a live agent stands, one state of five.
* ``owners``: whose an agent is.
* ``spawner``: how an agent comes up.
* ``supervisor``: how an agent ends, and whose end ends it.
* ``deliveries``: messages on their way to an agent here.
* ``waits``: who waits for an agent's end.
* ``results``: outcomes that are kept.
* ``reports``: outcomes on their way to a parent on another hub.
* ``uplink``: the connection to the MetaHub, lost and found again.
* ``announcements``: what a hub tells the MetaHub of its agents.
* ``redial``: the pause before the MetaHub is dialled again.
* ``reconciler``: hubs that compare what they run for each other.

A MetaHub:

* ``meta_hub``: the switchboard: connections that come and end, frames, answers, timers.
* ``meta_membership``: hubs that register, are silent, come back, leave and are lost.
* ``meta_routing``: messages, asks and what else is for one agent, to its hub.
* ``meta_lookup``: requests about the cluster.
* ``meta_spawns``: spawns, and news of agents that two hubs share.
* ``meta_revocations``: spawns that nobody wants any more.
* ``meta_approvals``: permissions and questions, and who is there to answer.
* ``membership``: the hubs, and whether each is alive.
* ``claims``: a name that two hubs want.
* ``routes``: which hub has an agent.
* ``owed``: cancels that a hub is still to hear of.
* ``base_agents``: the agents of hubs that speak the base dialect only.

**What happens when** ...

* a connection ends: ``PeerLost``, at a hub ``HubConnections.on_lost`` (``Uplink.lost`` if it was the one to the MetaHub,
  which is dialled again), at a MetaHub ``MetaHubCore._on_lost`` and for a hub ``MetaMembership.on_away``: what may be
  repeated waits for it to come back, all else fails;
* a hub comes back: the same ``instance`` is sent again what it has not answered (``Exchange.resume``);
* a hub is restarted: it is another ``instance``, which claims the name. What the old one was asked fails
  (``MetaMembership._answer_of_lost``): ``CONNECTION_LOST``, it may have been done; nobody does it again;
* the MetaHub is restarted: each hub joins the new one and sends again what was not answered, and says how long ago it was
  first sent (``Envelope.asked_ms``), so that nobody does it who was not there then (``MetaRouting.check_was_there``);
* a message comes twice: ``Deliveries.deliver_once`` knows it (``receipts``) and gives the answer of the first.

What carries the bytes is not known here: ``links/listeners.py`` dials and accepts, ``links/channels.py`` is a connection.

**To add a method** that only looks, say ``hub/uptime``:

1. its record in ``messages.py``, with ``method``, ``result``, ``audience`` and ``read_only``, and its name in ``__all__``;
2. its handler in the part that knows the answer, as ``HubLookup._status`` is one;
3. its row in that part's ``requests``: ``serve(Uptime, self._uptime, AgentParty, ClientParty)``;

and its rows in ``docs/protocol.md``, with its fields. Nothing else knows of it: the codec reads the record's fields, an
observer may send it because it is ``read_only``, and ``tests/core/test_handlers.py`` fails until who may send it and who
handles it agree.
"""
