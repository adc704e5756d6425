"""``examples/fan_out``, from its own config file, on a cluster in memory. Its page shows it as processes."""

from __future__ import annotations

import shutil
from pathlib import Path

from loopal_cluster.agents.profiles import load_profile
from loopal_cluster.testing import open_test_cluster

EXAMPLE = Path(__file__).parents[2] / "examples" / "fan_out"


async def test_every_hub_is_asked_at_once_and_answers_for_its_machine():
    profile = load_profile(EXAMPLE / "hub.toml")
    async with open_test_cluster(hubs=("laptop", "gpu-box"), agents=profile.agents) as cluster:
        async with cluster["laptop"].open_client() as client:
            survey = await client.spawn("survey", "sh")
            lines = (await survey.result()).splitlines()

    assert [line.split()[:2] for line in lines] == [
        ["gpu-box", shutil.which("sh")],
        ["laptop", shutil.which("sh")],
    ]
