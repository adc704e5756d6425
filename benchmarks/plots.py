"""Plots of rate and latency, as SVG; both axes are logarithmic.

SVG is text, needs no library, and is shown by every browser and code forge; so there is no PNG.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape

from attrs import frozen

__all__ = ["Curve", "by_series", "plot"]

WIDTH, HEIGHT = 860, 440
LEFT, RIGHT, TOP, BOTTOM = 90, 320, 40, 60
COLOURS = ("#1b6ca8", "#d1495b", "#3a7d44", "#8a5a9e", "#c98a1b", "#555555")
TEXT = 'font-family="sans-serif" font-size="12"'


@frozen
class Curve:
    """Points of one colour."""

    name: str
    points: Sequence[tuple[float, float]]


@frozen
class _Axis:
    """Values of a logarithmic axis, to pixels."""

    low: float
    high: float
    first: float
    last: float

    def at(self, value: float) -> float:
        share = math.log(value / self.low) / (math.log(self.high / self.low) or 1)
        return self.first + share * (self.last - self.first)

    def ticks(self) -> list[float]:
        """1, 2, 5, 10, ... as far as they are on it."""
        exponents = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        found = [digit * 10.0**exponent for exponent in exponents for digit in (1, 2, 5)]
        return [value for value in found if self.low <= value * 1.001 and value <= self.high * 1.001]


def plot(title: str, x_name: str, y_name: str, curves: Sequence[Curve]) -> str:
    """An SVG document; there must be a point, and every value must be above 0. The x axis is marked where something was measured."""
    marks = sorted({point[0] for curve in curves for point in curve.points})
    x = _axis((point[0] for curve in curves for point in curve.points), LEFT, WIDTH - RIGHT)
    y = _axis((point[1] for curve in curves for point in curve.points), HEIGHT - BOTTOM, TOP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        _text(LEFT, TOP - 16, title),
        _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 16, x_name, "middle"),
        f'<g transform="rotate(-90)">{_text(-(TOP + HEIGHT - BOTTOM) / 2, 20, y_name, "middle")}</g>',
        *(_line(x.at(tick), TOP, x.at(tick), HEIGHT - BOTTOM) for tick in marks),
        *(_text(x.at(tick), HEIGHT - BOTTOM + 18, _number(tick), "middle") for tick in marks),
        *(_line(LEFT, y.at(tick), WIDTH - RIGHT, y.at(tick)) for tick in y.ticks()),
        *(_text(LEFT - 8, y.at(tick) + 4, _number(tick), "end") for tick in y.ticks()),
        *(part for number, curve in enumerate(curves) for part in _curve(number, curve, x, y)),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def by_series(points: Iterable[tuple[str, float, float]]) -> list[Curve]:
    """Points with the names of their curves, as curves; without those where nothing was answered in time."""
    curves: dict[str, list[tuple[float, float]]] = {}
    for name, x, y in points:
        if y > 0:
            curves.setdefault(name, []).append((x, y))
    return [Curve(name, tuple(sorted(found))) for name, found in curves.items()]


def _number(value: float) -> str:
    return f"{value:,.10g}"


def _axis(values: Iterable[float], first: float, last: float) -> _Axis:
    """From the power of ten, or its half, below the values to the one above."""
    found = [*values]
    low = 10 ** (math.floor(2 * math.log10(min(found))) / 2)
    high = 10 ** (math.ceil(2 * math.log10(max(found)) + 0.01) / 2)
    return _Axis(low, high, first, last)


def _curve(number: int, curve: Curve, x: _Axis, y: _Axis) -> list[str]:
    colour, legend = COLOURS[number % len(COLOURS)], TOP + 20 * number + 10
    places = [(x.at(of_x), y.at(of_y)) for of_x, of_y in curve.points]
    path = " ".join(f"{px:.1f},{py:.1f}" for px, py in places)
    return [
        f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>',
        *(f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3" fill="{colour}"/>' for px, py in places),
        f'<circle cx="{WIDTH - RIGHT + 20}" cy="{legend - 4}" r="4" fill="{colour}"/>',
        _text(WIDTH - RIGHT + 30, legend, curve.name),
    ]


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#dddddd"/>'


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {TEXT} text-anchor="{anchor}">{escape(text)}</text>'
