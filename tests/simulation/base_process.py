"""The processes of base peers: as ours, but a hub that has lost its MetaHub does not dial again.

It goes on without one until somebody starts it anew, as another instance with nothing in its memory.
"""

from __future__ import annotations

from loopal_cluster.config import HubSettings, MetaHubSettings
from loopal_cluster.runtime.runtime import Core
from tests.simulation.actors import TOKEN
from tests.simulation.base_hub import BaseHub
from tests.simulation.base_meta_hub import BaseMetaHub
from tests.simulation.bounds import TIMEOUTS
from tests.simulation.network import End
from tests.simulation.process import HubProcess, MetaHubProcess

__all__ = ["BaseHubProcess", "BaseMetaHubProcess"]


class BaseMetaHubProcess(MetaHubProcess):
    """A MetaHub of the base dialect."""

    def _make_core(self) -> Core:
        settings = MetaHubSettings(cluster="", token=TOKEN, timeouts=TIMEOUTS)
        return BaseMetaHub(settings, self._new_id())


class BaseHubProcess(HubProcess):
    """A hub of the base dialect."""

    def _make_core(self) -> Core:
        settings = HubSettings(name=self.name, instance="", meta_token=TOKEN, timeouts=TIMEOUTS)
        return BaseHub(settings, self._new_id())

    def start(self) -> None:
        super().start()
        self.later(TIMEOUTS.lost_timeout, self._give_up_joining)

    def _give_up_joining(self) -> None:
        """It waits for the MetaHub's answer for ever; people do not."""
        if not self.has_joined:
            self.world.on_left(self, 0.0)

    def _redial_if_uplink(self, end: End) -> None:
        if self.uplink is not None and self.uplink.dialler is end:
            self.uplink, self.joined = None, False
            self.world.on_left(self, self._times.uniform(0.5, 5.0))
