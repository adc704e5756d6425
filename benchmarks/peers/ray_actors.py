"""Ray: an actor asks another actor; each has a process of its own.

``python -m benchmarks.peers.ray_actors WINDOW SECONDS``, in Ray's environment, prints what it has measured as
one line of JSON.
"""

import json
import os
import sys
from collections.abc import Sequence
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report to its makers

import ray

from benchmarks.peers.asking import TEXT, ask_many


class Answerer:
    """Answers every message with what it says."""

    async def answer(self, text: str) -> str:
        return text


class Asker:
    """Asks another actor."""

    async def ask(self, answerer: Any, window: int, seconds: float) -> dict[str, float]:
        async def once(text: str) -> str:
            return str(await answerer.answer.remote(text))

        await once(TEXT)
        return await ask_many(once, window, seconds)


def main(arguments: Sequence[str]) -> None:
    """Start everything, and print how it went."""
    window, seconds = int(arguments[0]), float(arguments[1])
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    answerer = ray.remote(Answerer).options(max_concurrency=1000).remote()
    asker = ray.remote(Asker).options(max_concurrency=1000).remote()
    print(json.dumps(ray.get(asker.ask.remote(answerer, window, seconds))), flush=True)
    ray.shutdown()


if __name__ == "__main__":
    main(sys.argv[1:])
