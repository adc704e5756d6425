"""One process asks another, ``window`` times at once: the loop of ``benchmarks.agents``, on asyncio.

It runs in the environment of a peer, which has nothing of ours, so it imports nothing but the standard library.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

__all__ = ["TEXT", "ask_many"]

TEXT = "x" * 200


async def ask_many(ask: Callable[[str], Awaitable[str]], window: int, seconds: float) -> dict[str, float]:
    """Keep ``window`` asks in flight for ``seconds``, and check each answer."""
    times: list[float] = []
    begin = time.perf_counter() + seconds / 4  # by then, all of them are on their way
    end = begin + seconds

    async def ask_again_and_again() -> None:
        while (asked := time.perf_counter()) < end:
            if await ask(TEXT) != TEXT:
                raise AssertionError("the answer is not what was asked")
            if begin < time.perf_counter() < end:
                times.append(time.perf_counter() - asked)

    await asyncio.gather(*(ask_again_and_again() for _ in range(window)))
    if not times:
        raise ValueError(f"no ask was answered within {seconds:g} s")
    times.sort()
    return {"per_second": len(times) / seconds, "p50": times[len(times) // 2]}
