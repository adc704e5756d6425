"""The whole path, once: real hubs, real agents."""

from __future__ import annotations

from benchmarks.whole_path import open_site


async def test_an_agent_asks_one_on_another_hub_again_and_again() -> None:
    async with open_site() as site:
        for suffix in ("", "-process"):
            rate, p50 = await site.ask(suffix, window=4, seconds=0.3)

            assert rate > 0
            assert 0 < p50 < 1000
