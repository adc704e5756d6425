"""An agent goes where its labels fit; and where none does, the error says why."""

from __future__ import annotations

from typing import Any

import pytest

from loopal_cluster import Client, open_hub
from loopal_cluster.messages import HubInfo
from loopal_cluster.tools import Toolbox
from loopal_cluster.tools.placement import NoHubFits, choose_hub


class Cluster:
    """As much of a client as placement needs."""

    def __init__(self, *hubs: HubInfo) -> None:
        self._hubs = hubs

    async def list_hubs(self) -> tuple[HubInfo, ...]:
        return self._hubs


def hub(name: str, agents: int = 0, status: str = "Connected", **more: Any) -> HubInfo:
    return HubInfo(name, status, agents, agent_types=("codex",), **more)


LAPTOP = hub("laptop", labels={"os": "macos"})
BOX = hub("box", 3, capabilities=("gpu",), labels={"os": "linux"})
IDLE = hub("idle", 1, capabilities=("gpu", "big"), labels={"os": "linux"})
GONE = hub("gone", status="Disconnected", capabilities=("gpu",))
ALL = (LAPTOP, BOX, IDLE, GONE)


@pytest.mark.parametrize(
    ("labels", "name"),
    [
        ("gpu", "idle"),
        ("os", "laptop"),
        ("os=macos", "laptop"),
        (" os=linux , gpu ", "idle"),
        ("", "laptop"),
    ],
)
async def test_the_least_busy_hub_that_fits_is_chosen(labels, name):
    assert await choose_hub(Cluster(*ALL), labels, "codex") == name  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("labels", "agent_type", "words"),
    [
        ("gpu, os=macos", None, ["hub 'laptop' lacks gpu", "'box' lacks os=macos", "'gone' is disconnected"]),
        ("gpu", "claude", ["hub 'box' does not run 'claude' (it runs: codex)", "'laptop' lacks gpu"]),
    ],
)
async def test_where_none_fits_each_says_why(labels, agent_type, words):
    with pytest.raises(NoHubFits) as caught:
        await choose_hub(Cluster(*ALL), labels, agent_type)  # type: ignore[arg-type]

    assert all(word in str(caught.value) for word in words), caught.value


async def test_a_cluster_without_hubs_has_no_place():
    with pytest.raises(NoHubFits, match="there are no hubs"):
        await choose_hub(Cluster(), "gpu", None)  # type: ignore[arg-type]


async def shout(ctx: object, prompt: str) -> str:
    return prompt.upper()


async def test_a_hub_alone_is_a_place_if_it_fits(autojump_clock):
    async with (
        open_hub("solo", agents={"shout": shout}, capabilities=["gpu"]) as solo,
        solo.open_client() as c,
    ):
        fits = await spawn(c, "gpu")
        not_ = await spawn(c, "tpu")

        assert (fits.text, fits.is_error) == ("HI", False)
        assert not_.is_error
        assert not_.text == "Tool error: Agent: no hub fits 'tpu': hub 'solo' lacks tpu"


async def spawn(client: Client, labels: str, **more: Any):
    return await Toolbox(client).call(
        "Agent", {"prompt": "hi", "subagent_type": "shout", "labels": labels} | more
    )


async def test_labels_and_a_hub_exclude_each_other(autojump_clock):
    async with open_hub("solo", agents={"shout": shout}) as solo, solo.open_client() as client:
        result = await spawn(client, "gpu", target_hub="solo")

        assert "expected nothing beside target_hub, which says where already @ $.labels" in result.text
