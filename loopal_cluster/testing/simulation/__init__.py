"""Whole clusters, simulated: one seed is one run, the same to the last frame on every machine.

``Simulation(seed).run()`` makes a script from the seed (who does what when, and what breaks), carries it
out on the pure cores in virtual time, heals everything, lets everything end, and checks every promise::

    report = Simulation(7, Weather.ROUGH).run()
    assert not report.deviations

``shrunk(checker)`` leaves out of a failing script all it can do without. Reading order: ``script``
(what can happen), ``world`` (how it is made to), ``process`` and ``network`` (crashes, clocks, cuts),
``actors`` (agents and people), ``checkers`` (what must be true), ``tables`` (what may be remembered),
``base_peer`` and what is named after it (the peers that speak Loopal's dialect only: ``Peers.MIXED``).
"""

from loopal_cluster.testing.simulation.checkers import CHECKERS, Checker
from loopal_cluster.testing.simulation.history import AgentLife, Deviation, History, Op
from loopal_cluster.testing.simulation.script import Peers, Script, Step, Weather, generate
from loopal_cluster.testing.simulation.simulation import Level, Report, Simulation

__all__ = [
    "CHECKERS",
    "AgentLife",
    "Checker",
    "Deviation",
    "History",
    "Level",
    "Op",
    "Peers",
    "Report",
    "Script",
    "Simulation",
    "Step",
    "Weather",
    "generate",
]
