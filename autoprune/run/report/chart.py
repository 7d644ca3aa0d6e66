"""Charts as inline SVG: axes with round ticks, dots, lines and marks with tooltips. Colours come from style.css."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

Point = tuple[float, float]

WIDTH, HEIGHT = 640, 350
LEFT, RIGHT, TOP, BOTTOM = 70, 22, 34, 54  # margins of the plot, wide enough for the larger type of a phone
TICKS = 5  # approximate number of intervals on an axis


@dataclass(frozen=True)
class ChartAxis:
    """A linear axis whose ends are ticks, `step` apart."""

    title: str
    low: float
    high: float
    step: float

    @staticmethod
    def over(title: str, values: Iterable[float]) -> ChartAxis:
        """The axis that covers the values with about five round steps; a single value gets room on both sides."""
        finite = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
        low, high = min(finite), max(finite)
        if high - low <= 1e-9 * max(abs(low), abs(high)):
            room = abs(low) / 10 or 1.0
            low, high = low - room, high + room
        step = _round_step((high - low) / TICKS)
        # the small allowance keeps 0.30000000000000004 from opening another interval
        return ChartAxis(title, math.floor(low / step + 1e-6) * step, math.ceil(high / step - 1e-6) * step, step)

    @property
    def ticks(self) -> list[float]:
        first, last = round(self.low / self.step), round(self.high / self.step)
        return [index * self.step for index in range(first, last + 1)]

    def share(self, value: float) -> float:
        """The place of a value on the axis: 0 at the low end, 1 at the high end."""
        return (value - self.low) / (self.high - self.low)

    def covers(self, value: float) -> bool:
        return -1e-6 <= self.share(value) <= 1 + 1e-6  # ends are rounded multiples of the step

    def label(self, tick: float) -> str:
        """The text of a tick, with as many digits as the step needs."""
        if self.step >= 1e5 or self.step < 1e-5:
            return f"{tick:.6g}"
        return f"{tick:,.{max(0, -math.floor(math.log10(self.step)))}f}"


def _round_step(least: float) -> float:
    """The smallest step, 1, 2 or 5 times a power of ten, that is at least `least`."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * (1 - 1e-9))


@dataclass(frozen=True)
class Chart:
    """A plot with two axes. Its parts are markup; `draw` puts them over the axes, later parts on top."""

    x: ChartAxis
    y: ChartAxis

    def dots(self, points: Iterable[Point], style: str) -> str:
        """Small dots in one path, each pixel once, so that files with thousands of dots stay small.

        Points outside the axes are left out. A dot is a line of length 0 with round ends.
        """
        inside = (point for point in points if self.x.covers(point[0]) and self.y.covers(point[1]))
        pixels = dict.fromkeys(f"M{x:.0f} {y:.0f}h0" for x, y in map(self._place, inside))
        return f'<path class="{style}" d="{"".join(pixels)}"/>' if pixels else ""

    def line(self, points: Sequence[Point], style: str) -> str:
        """The points connected in the order given."""
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(self._place, points))
        return f'<polyline class="{style}" points="{path}"/>' if len(points) > 1 else ""

    def marks(self, points: Sequence[Point], tips: Sequence[str], style: str) -> str:
        """A circle for each point, with a tooltip."""
        placed = zip(map(self._place, points), tips, strict=True)
        return "".join(
            f'<circle class="{style}" cx="{x:.1f}" cy="{y:.1f}" r="5"><title>{escape(tip)}</title></circle>'
            for (x, y), tip in placed
        )

    def level(self, y: float, style: str) -> str:
        """A horizontal line at a value of the y axis, if the axis covers it."""
        return self.line([(self.x.low, y), (self.x.high, y)], style) if self.y.covers(y) else ""

    def draw(self, label: str, *parts: str) -> str:
        """The picture; `label` describes it for screen readers."""
        axes = "".join((*map(self._vertical, self.x.ticks), *map(self._horizontal, self.y.ticks)))
        titles = (
            f'<text class="title" x="2" y="15">{escape(self.y.title)}</text>'
            f'<text class="title end" x="{WIDTH - 2}" y="{HEIGHT - 6}">{escape(self.x.title)}</text>'
        )
        return (
            f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">'
            f"{axes}{titles}{''.join(parts)}</svg>"
        )

    def _place(self, point: Point) -> Point:
        across, up = self.x.share(point[0]), self.y.share(point[1])
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    def _vertical(self, tick: float) -> str:
        x, bottom = self._place((tick, self.y.low))
        return (
            f'<path class="grid" d="M{x:.1f} {TOP}V{bottom:.1f}"/>'
            f'<text class="middle" x="{x:.1f}" y="{bottom + 20:.1f}">{self.x.label(tick)}</text>'
        )

    def _horizontal(self, tick: float) -> str:
        left, y = self._place((self.x.low, tick))
        return (
            f'<path class="grid" d="M{left:.1f} {y:.1f}H{WIDTH - RIGHT}"/>'
            f'<text class="end" x="{left - 8:.1f}" y="{y + 4:.1f}">{self.y.label(tick)}</text>'
        )
