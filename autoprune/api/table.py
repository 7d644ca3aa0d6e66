"""Formats a front as a short table in text or HTML, with its first and last members only."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import chain
from pathlib import Path

from autoprune.run.records.columns import RATIO
from autoprune.run.results.front_file import FrontFile
from autoprune.run.results.member import Member

ENDS = 5  # number of members shown at each end
COLUMNS = 6  # largest number of values shown of a member
NAME, VALUE = 24, 14  # largest width of the candidate's name and of a value, in characters


def text_table(front: FrontFile, path: Path | None) -> str:
    """The table as text, with aligned columns."""
    names, lines = _columns(front), _lines(front)
    head = ["#", "candidate", *(_cut(name, VALUE) for name in names)]
    cells = [head, *([str(number), *_cells(member, names)] for number, member in lines)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    texts = [" ".join(_aligned(row, widths)).rstrip() for row in cells] if lines else []
    if len(front.members) > len(lines):
        texts.insert(1 + ENDS, f"... {_left_out(front)}")
    return "\n".join([_title(front, path), *texts])


def html_table(front: FrontFile, path: Path | None) -> str:
    """The table as HTML, for a notebook."""
    names, lines = _columns(front), _lines(front)
    heads = "".join(f"<th>{escape(name)}</th>" for name in ("#", "candidate", *(_cut(name, VALUE) for name in names)))
    rows = [
        f"<tr><td>{number}</td>" + "".join(f"<td>{escape(cell)}</td>" for cell in _cells(member, names)) + "</tr>"
        for number, member in lines
    ]
    if len(front.members) > len(lines):
        rows.insert(ENDS, f'<tr><td colspan="{len(names) + 2}">... {_left_out(front)}</td></tr>')
    body = f"<table><thead><tr>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table>" if rows else ""
    return f"<p>{escape(_title(front, path))}</p>{body}"


def _title(front: FrontFile, path: Path | None) -> str:
    count = len(front.members)
    place = "" if path is None else f" of {_tail(str(path))}"
    return f"PrunedFront{place}: {count} member{'' if count == 1 else 's'}"


def _left_out(front: FrontFile) -> str:
    return f"{len(front.members) - 2 * ENDS:,} more members"


def _columns(front: FrontFile) -> list[str]:
    """The columns: costs that are objectives, with their shares, values on the report set, and other objectives."""
    costs = [name for name, _ in front.objectives if name in front.dense]
    report = front.members[0].report if front.members else ()
    shares = chain.from_iterable((name, name + RATIO) for name in costs)
    named = dict.fromkeys((*shares, *report, *(name for name, _ in front.objectives)))
    return list(named)[:COLUMNS]


def _lines(front: FrontFile) -> list[tuple[int, Member]]:
    numbered = list(enumerate(front.members, start=1))
    return numbered if len(numbered) <= 2 * ENDS else [*numbered[:ENDS], *numbered[-ENDS:]]


def _cells(member: Member, names: Sequence[str]) -> list[str]:
    row = member.flat()
    return [_cut(member.candidate, NAME), *(_shown(row.get(name)) for name in names)]


def _shown(value: float | None) -> str:
    if value is None:
        return "-"
    return _cut(f"{value:,}" if isinstance(value, int) else f"{value:.4g}", VALUE)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 3]}..."


def _tail(text: str, most: int = 80) -> str:
    return text if len(text) <= most else f"...{text[3 - most :]}"


def _aligned(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    """Aligns names to the left and numbers to the right."""
    return [cell.ljust(w) if i == 1 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))]
