"""Whole clusters, simulated: one seed is one run, the same to the last frame on every machine.

``Simulation(seed).run()`` makes a script from the seed (who does what when, and what breaks), carries it
out on the pure cores in virtual time, heals everything, lets everything end, and checks every promise::

    report = Simulation(7, Weather.ROUGH).run()
    assert not report.deviations

With ``level=Level.RUNTIME`` the same script is carried out on the whole runtime: trio's tasks, the codec,
streams of bytes. What a core does with an event is tried better by the cores alone, which are twenty times
as fast and have clocks that drift; how tasks, cancellation and bytes go together only by the runtime.

``shrunk(checker)`` leaves out of a failing script all it can do without. Reading order: ``script``
(what can happen), ``world`` (how it is made to), ``network`` (delays, cuts), ``cores`` and ``process`` (the
level of the cores: crashes, clocks), ``live`` (the level of the runtime),
``actors`` (agents and people), ``checkers`` (what must be true), ``tables`` (what may be remembered),
``base_peer`` and what is named after it (the peers that speak Loopal's dialect only: ``Peers.MIXED``).
"""

from tests.simulation.checkers import CHECKERS, Checker
from tests.simulation.history import AgentLife, Deviation, History, Op
from tests.simulation.script import Peers, Script, Step, Weather, generate
from tests.simulation.simulation import Level, Report, Simulation

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
