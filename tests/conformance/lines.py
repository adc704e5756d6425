"""What the lines of the base dialect are made of."""

from __future__ import annotations

UUID = "1c9f6f0e-5c1e-4d55-9a5e-2f3a1f6f0a12"
TIME = "2026-04-02T09:42:12.123456789Z"


def envelope(target: str, source: object = "Human", text: str = "ping") -> dict[str, object]:
    """A message, as Loopal writes it."""
    return {"content": {"text": text}, "id": UUID, "source": source, "target": target, "timestamp": TIME}


def wrapped(name: str, text: str) -> str:
    """The text of a message that says how an agent has ended."""
    return f'<agent-result name="{name}">\n{text}\n</agent-result>'
