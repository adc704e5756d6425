"""Test what you build on a cluster: whole clusters in one process, and cores driven by hand.

* ``open_test_cluster(hubs=3)``: a MetaHub and hubs, joined over memory channels. With trio's
  ``MockClock`` (``autojump_clock`` in pytest-trio) hours pass in no time.
* ``record_pair()``, ``byte_pair()``: two connected ends, of records (fast) or of bytes through the real
  codec.
* ``CoreDriver``: events into one core, effects out, and a transcript.
* ``Simulation(seed).run()``: a whole cluster of the cores from one seed, with everything that can go
  wrong, and every promise checked; with ``peers=Peers.MIXED`` some of them speak the base dialect only;
  with ``level=Level.RUNTIME`` it is the whole runtime, in a ``trio.run`` that a seed repeats.
  ``python -m loopal_cluster.testing --seeds 100`` runs many.
"""

from loopal_cluster.runtime.channels import record_pair
from loopal_cluster.testing.channels import byte_pair
from loopal_cluster.testing.cluster import TestCluster, open_test_cluster
from loopal_cluster.testing.driver import CoreDriver, sent
from loopal_cluster.testing.simulation import Level, Peers, Simulation, Weather

__all__ = [
    "CoreDriver",
    "Level",
    "Peers",
    "Simulation",
    "TestCluster",
    "Weather",
    "byte_pair",
    "open_test_cluster",
    "record_pair",
    "sent",
]
