"""The whole path, once: real hubs, real agents."""

from __future__ import annotations

import pytest

from benchmarks.whole_path import open_site


@pytest.mark.parametrize("suffix", ["", "-process"], ids=["function agents", "processes"])
async def test_an_agent_asks_one_on_another_hub_again_and_again(suffix: str) -> None:
    async with open_site() as site:
        rate, p50 = await site.ask(suffix, window=4, seconds=1.0)

    assert rate > 0
    assert 0 < p50 < 1000
