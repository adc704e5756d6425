"""Test what you build on a cluster: whole clusters in one process, and cores driven by hand.

* ``open_test_cluster(hubs=3)``: a MetaHub and hubs, joined over memory channels. With trio's
  ``MockClock`` (``autojump_clock`` in pytest-trio) hours pass in no time. What it makes has faults by name (``kill``,
  ``restart``, ``freeze``, ``cut``, ``partition``), and ``open_operator``, the human who answers what agents ask.
* ``record_pair()``, ``byte_pair()``: two connected ends, of records (fast) or of bytes through the real
  codec.
* ``CoreDriver``: events into one core, effects out, and a transcript.
"""

from loopal_cluster.links.channels import record_pair
from loopal_cluster.testing.channels import byte_pair
from loopal_cluster.testing.cluster import META_HUB, TestCluster, open_test_cluster
from loopal_cluster.testing.driver import CoreDriver, sent
from loopal_cluster.testing.operators import Asked, Operator

__all__ = [
    "META_HUB",
    "Asked",
    "CoreDriver",
    "Operator",
    "TestCluster",
    "byte_pair",
    "open_test_cluster",
    "record_pair",
    "sent",
]
