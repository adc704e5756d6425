"""What answers at an address where a hub or a MetaHub was expected, in words.

A wrong port is a common mistake, and what listens there says at once, with its first bytes, what it is.
"""

from __future__ import annotations

__all__ = ["GREETING_BYTES", "what_answered"]

GREETING_BYTES = 80
"""So much of the beginning is kept."""

_KNOWN = {
    b"HTTP/": "an HTTP server",
    b"SSH-": "an SSH server",
    b"\x15\x03": "a TLS server",  # an alert: it has not understood our hello
    b"\x16\x03": "a TLS server",
    b"220 ": "a mail or FTP server",
    b"RFB ": "a VNC server",
    b"-ERR": "a Redis server",
}


def what_answered(greeting: bytes) -> str:
    """Who says that."""
    line = greeting.split(b"\n")[0].strip()
    said = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in line)
    name = next((name for start, name in _KNOWN.items() if greeting.startswith(start)), None)
    if name == "a TLS server":
        return name
    return f"{name or 'something else'} ({said!r})"
