"""Coding agents that speak the Agent Client Protocol (ACP), as agents of a hub.

``rpc.py`` is JSON-RPC over lines, ``schema.py`` what of ACP we read, ``client.py`` the protocol: sessions and
turns. ``program.py`` is a program that speaks it while it runs, and ``agent.py`` makes it a type of agent;
``transcript.py`` turns what it reports into our events and its answer, ``permission.py`` is how its questions are
answered, ``worktree.py`` where it works, ``presets.py`` which programs are known.
"""
