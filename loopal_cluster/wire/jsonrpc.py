"""The error codes of JSON-RPC 2.0 (section 5.1), for the doors: ACP and MCP.

Loopal's own dialect has codes of its own besides; those are in ``codec.py``.
"""

from __future__ import annotations

from typing import Final

__all__ = [
    "CANCELLED",
    "INTERNAL_ERROR",
    "INVALID_PARAMS",
    "INVALID_REQUEST",
    "METHOD_NOT_FOUND",
    "PARSE_ERROR",
]

PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
INTERNAL_ERROR: Final = -32603
CANCELLED: Final = -32800
"""ACP's, and the Language Server Protocol's: the request was withdrawn by whoever asked."""
