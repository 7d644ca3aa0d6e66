"""The picture: hypervolume against evaluations and against seconds, a row of two plots for each problem, as SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

Row = dict[str, Any]
Point = tuple[float, float]

PLOT_W, PLOT_H, LEFT, TOP, GAP, LEGEND = 360, 190, 62, 34, 74, 150
COLOURS = ("#0b3d91", "#d1495b", "#2e7d32", "#ef6c00", "#6a1b9a", "#00838f", "#795548", "#607d8b", "#c2185b", "#9e9d24")
SHOWN = 0.9  # a searcher is drawn where its last hypervolume is at least this share of the best one's


def draw(path: Path, title: str, rows: Sequence[Row]) -> None:
    """One row of plots a problem, the lines of all searchers that come near the best; both x axes are logarithmic."""
    problems = list(dict.fromkeys(row["problem"] for row in rows))
    names = list(dict.fromkeys(row["searcher"] for row in rows))
    colours = {name: COLOURS[index % len(COLOURS)] for index, name in enumerate(sorted(names, key=_first_auto))}
    height = TOP + len(problems) * (PLOT_H + GAP)
    width = 2 * (LEFT + PLOT_W) + LEGEND
    size = f'width="{width}" height="{height}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="11">',
        f'<rect {size} fill="white"/>',
        f'<text x="8" y="16" font-size="13">{escape(title)}</text>',
    ]
    for index, problem in enumerate(problems):
        top = TOP + index * (PLOT_H + GAP) + 14
        own = [row for row in rows if row["problem"] == problem]
        parts += _problem(problem, own, top, colours)
    path.write_text("\n".join([*parts, "</svg>"]) + "\n")


def _first_auto(name: str) -> tuple[bool, str]:
    return name != "auto", name


def _problem(problem: str, rows: Sequence[Row], top: int, colours: dict[str, str]) -> list[str]:
    best = max(row["hypervolume"] for row in rows)
    lines = {name: [row for row in rows if row["searcher"] == name] for name in colours}
    lines = {name: own for name, own in lines.items() if own and own[-1]["hypervolume"] >= SHOWN * best}
    values = [row["hypervolume"] for own in lines.values() for row in own]
    low, high = min(values), max(values)
    room = (high - low) * 0.05 or 0.01
    parts = [f'<text x="{LEFT}" y="{top - 6}" font-weight="bold">{escape(problem)}</text>']
    for column, axis in enumerate(("evaluations", "seconds")):
        left = LEFT + column * (LEFT + PLOT_W)
        parts += _plot(lines, axis, left, top, (low - room, high + room), colours)
    for place, name in enumerate(lines):
        x, y = 2 * (LEFT + PLOT_W) + 14, top + 12 + 16 * place
        parts.append(f'<path d="M{x} {y - 4}h18" stroke="{colours[name]}" stroke-width="2"/>')
        parts.append(f'<text x="{x + 24}" y="{y}">{escape(name)}</text>')
    return parts


def _plot(
    lines: dict[str, list[Row]], axis: str, left: int, top: int, span: Point, colours: dict[str, str]
) -> list[str]:
    across = [max(row[axis], 1e-3) for own in lines.values() for row in own]
    first, last = math.log10(min(across)), math.log10(max(across) * 1.001)
    low, high = span

    def placed(x: float, y: float) -> Point:
        share = (math.log10(max(x, 1e-3)) - first) / max(last - first, 1e-9)
        return left + share * PLOT_W, top + PLOT_H * (1 - (y - low) / (high - low))

    parts = [f'<rect x="{left}" y="{top}" width="{PLOT_W}" height="{PLOT_H}" fill="none" stroke="#999"/>']
    for step in range(5):
        value = low + (high - low) * step / 4
        y = placed(10**first, value)[1]
        parts.append(f'<path d="M{left} {y:.1f}h{PLOT_W}" stroke="#eee"/>')
        parts.append(f'<text x="{left - 5}" y="{y + 4:.1f}" text-anchor="end">{value:.3f}</text>')
    for tick in _ticks(10**first, 10**last):
        x = placed(tick, low)[0]
        parts.append(f'<path d="M{x:.1f} {top}v{PLOT_H}" stroke="#eee"/>')
        parts.append(f'<text x="{x:.1f}" y="{top + PLOT_H + 14}" text-anchor="middle">{tick:g}</text>')
    parts.append(f'<text x="{left + PLOT_W / 2}" y="{top + PLOT_H + 30}" text-anchor="middle">{axis}</text>')
    for name, own in lines.items():
        points = [placed(row[axis], row["hypervolume"]) for row in own]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        style = f'fill="none" stroke="{colours[name]}" stroke-width="{2.4 if name == "auto" else 1.4}"'
        parts.append(f'<polyline points="{path}" {style}><title>{escape(name)}</title></polyline>')
    return parts


def _ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten between the ends."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [factor * 10.0**power for power in powers for factor in (1, 2, 5) if low <= factor * 10.0**power <= high]
