"""Two hubs with a coding agent of each make, a MetaHub, and a human who is asked there."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio
from attrs import define, field

from loopal_cluster import Decision, Hub, MetaHub, Role, connect, open_hub, open_meta_hub
from loopal_cluster.links.client import Client
from loopal_cluster.messages import Permission
from tests.stand_in.server import StandIn, open_stand_in

from .makes import MAKES, Make
from .npm import installed

__all__ = ["Site", "open_site"]


@define(eq=False)
class Site:
    """The cluster. ``ann`` is the human's connection, to the MetaHub, as an operator."""

    directory: Path
    model: StandIn
    meta_hub: MetaHub
    hubs: dict[str, Hub]
    allow: bool | None = True
    """What the human answers; None: they leave it to somebody else."""
    asked: list[Permission] = field(factory=list)
    ann: Client = field(init=False)

    async def decide(self, permission: Permission) -> Decision:
        """Be the human."""
        self.asked.append(permission)
        if self.allow is None:
            await trio.sleep_forever()
        return Decision(allow=bool(self.allow))

    def made(self, hub: str, make: Make) -> Path:
        """The file that a ``touch`` of this agent makes."""
        return self.directory / hub / make.name / "work" / "made"


@asynccontextmanager
async def open_site(directory: Path, makes: Sequence[Make] = MAKES) -> AsyncIterator[Site]:
    """Hubs ``laptop`` and ``gpu-box``, each with all these agents. Their processes are real."""
    programs = {make: await trio.to_thread.run_sync(installed, make.packages) for make in makes}
    async with open_stand_in() as model, open_meta_hub() as meta_hub:
        join: dict[str, Any] = {"join": meta_hub.address, "meta_token": meta_hub.token}

        def agents(hub: str) -> dict[str, Any]:
            homes = {make: directory / hub / make.name for make in makes}
            path = os.environ["PATH"]
            return {
                make.name: make.agent(programs[make], home, model.url, path=path)
                for make, home in homes.items()
            }

        async with (
            open_hub("laptop", agents=agents("laptop"), **join) as laptop,
            open_hub("gpu-box", agents=agents("gpu-box"), **join) as gpu_box,
        ):
            site = Site(directory, model, meta_hub, {"laptop": laptop, "gpu-box": gpu_box})
            async with connect(
                meta_hub.address,
                token=meta_hub.token,
                name="ann",
                role=Role.OPERATOR,
                on_permission=site.decide,
            ) as site.ann:
                yield site
