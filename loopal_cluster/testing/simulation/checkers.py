"""x"""
from typing import Protocol, Iterable
from loopal_cluster.testing.simulation.history import Deviation, History
class Checker(Protocol):
    def check(self, history: History) -> Iterable[Deviation]: ...
CHECKERS: tuple[Checker, ...] = ()
