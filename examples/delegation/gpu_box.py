"""One machine: the MetaHub, and a hub with a Codex. Prints what to type on the other one."""

from __future__ import annotations

import os
import signal

import trio

from loopal_cluster import AcpAgent, open_hub, open_meta_hub

META_HUB = os.environ.get("META_HUB", "127.0.0.1:9900")


async def main() -> None:
    """Run until Ctrl-C; then all agents end, and their hub says goodbye."""
    codex = AcpAgent(preset="codex")
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with open_meta_hub(META_HUB) as meta_hub:
            async with open_hub(
                "gpu-box", agents={"codex": codex}, join=meta_hub.address, meta_token=meta_hub.token
            ):
                print("gpu-box is ready. In another terminal:\n")
                print(
                    f"  LOOPAL_META_HUB_TOKEN={meta_hub.token} python examples/delegation/laptop.py",
                    flush=True,
                )
                await anext(signals)


if __name__ == "__main__":
    trio.run(main)
