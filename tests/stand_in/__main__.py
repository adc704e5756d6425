"""``python -m tests.stand_in DIRECTORY``: a provider for agents that somebody starts by hand, until Ctrl-C.

The directory is where the agents keep what they keep; its file ``env``, for a shell to read, tells them of it.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

import trio

from .providers import environment
from .server import open_stand_in


async def _main(directory: Path) -> None:
    async with open_stand_in() as stand_in:
        lines = [f"export {key}='{value}'\n" for key, value in environment(directory, stand_in.url).items()]
        (directory / "env").write_text("".join(lines))
        print(f"Agents find this model after:  . {directory}/env", flush=True)
        await trio.sleep_forever()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m tests.stand_in DIRECTORY")
    with suppress(KeyboardInterrupt):
        trio.run(_main, Path(sys.argv[1]).absolute())
