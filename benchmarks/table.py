"""Figures as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from attrs import frozen

__all__ = ["Row", "markdown", "number", "rows_table"]


@frozen
class Row:
    """One figure, beside what it is compared with."""

    work: str
    other: str
    """What was measured of somebody else, for people."""
    target: float
    unit: str
    at_most: bool
    """The target is a bound from above."""
    ours: Mapping[str, float | None]
    """By column. None: not measured there."""

    def verdict(self, column: str) -> str:
        """A mark for a target that was missed."""
        value = self.ours[column]
        if value is None:
            return ""
        return "" if (value <= self.target if self.at_most else value >= self.target) else " (missed)"


def rows_table(rows: Sequence[Row], other: str) -> str:
    """All rows as one table; ``other`` is the heading of what was measured of somebody else."""
    columns = list(rows[0].ours) if rows else []
    lines = [
        [
            row.work,
            row.other,
            f"{'<=' if row.at_most else '>='} {number(row.target)} {row.unit}".strip(),
            *(f"{number(row.ours[column])} {row.unit}".strip() + row.verdict(column) for column in columns),
        ]
        for row in rows
    ]
    return markdown(["work", other, "ours, wanted", *(f"ours, {column}" for column in columns)], lines)


def markdown(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [head, ["---"] * len(head), *lines])


def number(value: float | None) -> str:
    """A figure, with three digits that mean something."""
    if value is None:
        return "-"
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"
