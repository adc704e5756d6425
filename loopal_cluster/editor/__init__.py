"""A cluster agent as a coding agent for editors: the agent's side of the Agent Client Protocol, version 1.

An editor (Zed, JetBrains, Neovim) starts ``loopal-cluster acp`` and speaks JSON-RPC with it, a line a message, on
standard input and output. Each of its sessions is a persistent agent on some hub:

* ``acp/rpc.py``: the lines, in both directions;
* ``updates.py``: what an agent reports, as what an editor shows, and back: pure functions;
* ``session.py``: one agent, its turns, and what is asked about it;
* ``service.py``: the methods of the protocol, each a few lines.

The other way round, a coding agent that speaks this protocol as an agent of the cluster, is the package ``acp``.
"""
