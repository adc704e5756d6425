"""Two connected ends of bytes in memory, through the real codec."""

from __future__ import annotations

import trio.testing

from loopal_cluster.config import Limits
from loopal_cluster.links.channels import FrameChannel, StreamChannel

__all__ = ["byte_pair"]


def byte_pair(line_bytes: int = Limits().line_bytes) -> tuple[FrameChannel, FrameChannel]:
    """Make two connected ends; what passes between them is the protocol's lines."""
    here, there = trio.testing.memory_stream_pair()
    return StreamChannel(here, here, line_bytes), StreamChannel(there, there, line_bytes)
