"""Text, numbers and tables as HTML. Values are escaped unless they are marked as markup."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape

Cell = str | float | None


def number(value: float | None) -> str:
    """A number as text, with thousands separated and four digits of a fraction; a dash for None."""
    if value is None or not math.isfinite(value):
        return "\N{EN DASH}"
    if isinstance(value, int):
        return f"{value:,}"
    if value == 0 or 1e-3 <= abs(value) < 1000:
        return f"{value:.4f}"
    return f"{value:,.1f}" if abs(value) >= 1000 else f"{value:.2g}"


def percent(share: float) -> str:
    return f"{share:.1%}"


def plural(count: int, noun: str) -> str:
    """A count with its noun: "1 network", "2 networks"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def table(head: Sequence[str], rows: Iterable[Sequence[Cell]], style: str = "") -> str:
    """A table that scrolls horizontally if it is too wide. Columns with a number in the first row are right-aligned."""
    rows = list(rows)
    kinds = [_kind(cell) for cell in rows[0]] if rows else [""] * len(head)
    top = "".join(f'<th scope="col"{kind}>{escape(name)}</th>' for name, kind in zip(head, kinds, strict=True))
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return (
        f'<div class="wide"><table class="{style}"><thead><tr>{top}</tr></thead><tbody>\n{body}\n</tbody></table></div>'
    )


def _kind(cell: Cell) -> str:
    return "" if isinstance(cell, str) else ' class="n"'


def _cell(cell: Cell) -> str:
    return f"<td{_kind(cell)}>{escape(cell if isinstance(cell, str) else number(cell))}</td>"


def definition_list(values: Mapping[str, Cell], style: str) -> str:
    """Names and values as a definition list."""
    shown = {name: value if isinstance(value, str) else number(value) for name, value in values.items()}
    pairs = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in shown.items())
    return f'<dl class="{style}">{pairs}</dl>'


def note(*sentences: str) -> str:
    """A paragraph; empty sentences are left out."""
    return f"<p>{escape(' '.join(filter(None, sentences)))}</p>"


def command(text: str) -> str:
    """A shell command."""
    return f'<pre class="command"><code>{escape(text)}</code></pre>'


def legend(entries: Mapping[str, str]) -> str:
    """The legend of a chart, by style."""
    items = "".join(f'<li><i class="key {style}"></i>{escape(text)}</li>' for style, text in entries.items())
    return f'<ul class="legend">{items}</ul>'


def section(title: str, *markup: str) -> str:
    body = "\n".join(filter(None, markup))
    return f"<section>\n<h2>{escape(title)}</h2>\n{body}\n</section>"
