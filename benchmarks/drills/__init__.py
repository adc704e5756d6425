"""Drills: a cluster of real processes, something is killed, frozen or cut, and what comes of it is counted.

``python -m benchmarks.drills`` runs them, one after the other. ``processes.py`` starts and ends the
processes, ``ledger.py`` compares what was answered with what was done, ``findings.py`` is what a drill
returns, ``report.py`` shows it. The drills are in ``callee.py``, ``meta_hub.py``, ``hubs.py``,
``partition.py``, ``firewall.py`` and ``parents.py``, and ``agents.py`` has the agents of all of them.
"""
