"""What a channel asks of a socket or a pipe: who is at its other end, and whether that still answers."""

from __future__ import annotations

import fcntl
import math
import os
import socket
import sys
import termios
from contextlib import suppress

__all__ = ["PATIENCE", "source_of", "unacknowledged", "watch_transport", "write_some"]

PATIENCE = 45.0
"""Seconds after which a TCP connection without any acknowledgement is broken: a client's other side is to know it
within a minute."""
PROBE_AFTER, PROBE_INTERVAL = 15.0, 5.0
"""Seconds of silence until the system asks for an acknowledgement, and until it asks again."""


def source_of(sock: socket.socket) -> str:
    """Where the peer of a socket is, without its port.

    Of IPv6, the network: whoever has one address of it has 2 ** 64.
    """
    try:
        name = sock.getpeername()
    except OSError:
        return "a connection that has ended"
    if sock.family == socket.AF_UNIX:
        return "this machine's socket"
    host = str(name[0])
    if sock.family != socket.AF_INET6:
        return host
    if host.startswith("::ffff:"):  # IPv4, on a socket that takes both
        return host.removeprefix("::ffff:")
    network = socket.inet_pton(socket.AF_INET6, host.partition("%")[0])[:8] + bytes(8)
    return host if host == "::1" else f"{socket.inet_ntop(socket.AF_INET6, network)}/64"


def watch_transport(sock: socket.socket, seconds: float) -> None:
    """Let the system break a TCP connection whose other end has not acknowledged anything for so long.

    It asks when nothing is on the way (keepalive), and gives up what is (``TCP_USER_TIMEOUT``): else a flow that
    a firewall has dropped is noticed after hours, or after 16 minutes. Not every system has every option.
    """
    idle = getattr(socket, "TCP_KEEPIDLE", None) or getattr(socket, "TCP_KEEPALIVE", None)
    options = (
        (idle, int(PROBE_AFTER)),
        (getattr(socket, "TCP_KEEPINTVL", None), int(PROBE_INTERVAL)),
        (getattr(socket, "TCP_KEEPCNT", None), max(1, math.ceil((seconds - PROBE_AFTER) / PROBE_INTERVAL))),
        (getattr(socket, "TCP_USER_TIMEOUT", None), int(seconds * 1000)),
    )
    with suppress(OSError):  # no TCP after all, or closed already
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in options:
            if option is not None:
                sock.setsockopt(socket.IPPROTO_TCP, option, value)


def unacknowledged(sock: socket.socket) -> int:
    """Bytes in a socket's send buffer; 0 where the system does not say."""
    try:
        return int.from_bytes(fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)), sys.byteorder)
    except (OSError, ValueError):
        return 0


def write_some(fd: int, data: bytes) -> bytes:
    """Write what can be written now; return the rest."""
    try:
        return data[os.write(fd, data) :]
    except OSError:  # it takes nothing now, or never will: the stream knows which
        return data
