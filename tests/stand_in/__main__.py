"""``python -m tests.stand_in [PORT]``: a provider for agents that somebody starts by hand, until Ctrl-C."""

from __future__ import annotations

import sys
from contextlib import suppress

import trio

from .server import open_stand_in


async def _main(port: int) -> None:
    async with open_stand_in(port) as stand_in:
        print(stand_in.url, flush=True)
        await trio.sleep_forever()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        trio.run(_main, int(sys.argv[1]) if len(sys.argv) > 1 else 0)
