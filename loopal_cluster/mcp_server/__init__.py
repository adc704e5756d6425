"""Our tools for any MCP client: ``ListHubs``, ``Agent``, ``SendMessage``, ... over the Model Context Protocol.

``session.py`` is the protocol, without a transport: JSON-RPC in, answers out. ``lines.py`` carries it over a
pair of streams, ``http.py`` over streamable HTTP. For a client that no hub hosts, ``joining.py`` makes it a
member of the cluster (``loopal-cluster mcp``). For an agent that a hub hosts, ``door.py`` gives its program
the agent's own tools, over HTTP or, through ``bridge.py``, over stdio.

Written by hand, and not with the ``mcp`` SDK: what we need of the protocol is two hundred lines, and the SDK
brings 31 distributions and 0.4 s to the start of a program that every agent starts. Its client is what the
tests check us with.
"""
