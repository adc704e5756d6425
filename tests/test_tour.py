"""The tour in the package's docstring, walked: one message goes through the functions that it names, and in that order."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import loopal_cluster
from loopal_cluster import AgentContext
from loopal_cluster.testing import byte_pair, open_test_cluster

PACKAGE = Path(loopal_cluster.__file__).parent


def tour() -> list[list[tuple[str, str]]]:
    """Its steps; each is the files and functions that it names."""
    text = loopal_cluster.__doc__ or ""
    steps = re.split(r"^\d+\. ", text, flags=re.MULTILINE)[1:]
    steps[-1] = steps[-1].partition("\n\n")[0]
    return [stations_in(step) for step in steps]


def stations_in(step: str) -> list[tuple[str, str]]:
    """The files that a step names, each with the functions that follow it."""
    stations, file = [], ""
    for name in re.findall(r"``([\w/]+\.py|\w+)``", step):
        if name.endswith(".py"):
            file = name
        elif name != "handle":  # every core has one, and all goes through it
            stations.append((file, name))
    return stations


async def walk() -> list[tuple[str, str]]:
    """The functions that one message and its answer go through, each when it is first called."""
    called: dict[tuple[str, str], None] = {}

    def note(frame: FrameType, event: str, _: Any) -> None:
        file = Path(frame.f_code.co_filename)
        if event == "call" and file.is_relative_to(PACKAGE):
            called.setdefault((file.relative_to(PACKAGE).as_posix(), frame.f_code.co_name))

    async def agent(ctx: AgentContext, prompt: str) -> None:
        await ctx.receive()
        if ctx.name == "one":
            before = sys.getprofile()
            sys.setprofile(note)
            try:
                await ctx.send("hub-b/two", "hi")
            finally:
                sys.setprofile(before)

    async with open_test_cluster(2, agents={"agent": agent}, pair=byte_pair) as cluster:
        async with cluster["hub-a"].open_client() as client:
            two = await client.spawn("agent", name="two", hub="hub-b")
            one = await client.spawn("agent", name="one")
            await one.send("go")
            await one.result()
            await two.result()
    return [*called]


def test_the_tour_names_files_and_functions_that_there_are():
    assert len(tour()) == 8
    for file, function in (station for step in tour() for station in step):
        assert re.search(rf"def {function}\b", (PACKAGE / file).read_text()), f"{file}: {function}"


async def test_one_message_goes_where_the_tour_says_in_its_order(autojump_clock):
    called = await walk()

    assert [station for step in tour() for station in step if station not in called] == []
    first = [called.index(step[0]) for step in tour()]
    assert first[0] == min(first)
    assert [step for step in tour() if len(step) == 0] == []
    decisions = [step[0] for step in tour() if step[0][0].startswith(("core/", "agents/"))]
    assert sorted(decisions, key=called.index) == decisions
