"""In which mode a coding agent works where it is to ask before it acts.

Programs begin their sessions in modes of their own choice, and newer ones in such as let a model decide what may
be done. Where an agent is supervised, its session is put into a mode in which nothing is changed unasked. The
presets know these; of any other program it must be said, by naming its mode or by vouching for it.
"""

from __future__ import annotations

from collections.abc import Sequence

from loopal_cluster.acp.client import AcpError
from loopal_cluster.acp.presets import Preset
from loopal_cluster.records import record

__all__ = ["PLAN", "Chosen", "choose_mode"]

PLAN = "plan"
"""The mode in which nothing is changed at all; all programs that have one call it so."""


@record
class Chosen:
    """The mode to work in, and why that one."""

    mode: str | None
    """None: the program has no modes."""
    why: str


def choose_mode(
    known: Preset, *, first: str | None, there_are: Sequence[str], named: str | None, vouched: bool
) -> Chosen:
    """The mode of a supervised agent whose session began in ``first``.

    ``named`` is the mode that its type names, if it does; ``vouched`` says that it asks in whatever mode it begins.

    Raises:
        AcpError: nobody knows a mode in which this program asks.
    """
    if named is not None:
        return Chosen(named, "its type names it")
    for mode in known.asking_modes:
        if mode in there_are:
            return Chosen(mode, "in this mode it asks before it changes anything")
    if known.asking_env:
        given = " ".join(f"{name}={value}" for name, value in known.asking_env.items())
        return Chosen(first, f"it asks before it changes anything, because of {given}")
    if vouched:
        return Chosen(first, "its type says that it asks")
    modes = ", ".join(there_are) or "none"
    begins = "it has no modes" if first is None else f"it begins in its mode {first!r}"
    raise AcpError(
        f"this hub is supervised, and nobody knows whether it asks before it acts: {begins}. Name the mode "
        f"in which it shall work (key mode; there are: {modes}), or say asks = true if it asks"
    )
