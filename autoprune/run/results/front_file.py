"""A front as it lies in a run folder: reading, picking and printing it need no model, no data and no torch."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoprune.core.evaluation import Evaluation
from autoprune.core.objective import Objective
from autoprune.core.pick import Choice, Picked
from autoprune.core.space import Candidate
from autoprune.errors import RunNotFound
from autoprune.run.records.columns import RATIO
from autoprune.run.records.documents import read_checked, understanding
from autoprune.run.records.folder import RunFolder

Row = dict[str, Any]


@dataclass(frozen=True)
class LeftOut:
    """A network that the search would have put on the front and that could not be built, proved or measured.

    `candidate` is its name, as in the table of the front.
    """

    candidate: str
    levels: tuple[int, ...]
    cause: str


@dataclass(frozen=True)
class Shown:
    """Rows of a front to be printed, with the number each has in it; `why` says why a pick took its row.

    `left_out` are the networks that the front lacks.
    """

    rows: Sequence[Row]
    numbers: Sequence[int]
    why: str = ""
    left_out: Sequence[LeftOut] = ()


def read_front(path: Path, pick: str | None = None) -> list[Row]:
    """The rows of a run's front, or the one that a pick such as "macs<=0.5" names."""
    return list(show_front(path, pick).rows)


def show_front(path: Path, pick: str | None = None) -> Shown:
    """As read_front, with what is said about the rows."""
    document = read_document(RunFolder.open(path))
    rows: Sequence[Row] = document["rows"]
    if pick is None:
        return Shown(rows, range(1, len(rows) + 1), left_out=left_out_of(document))
    found = picked(document, pick)
    return Shown([rows[found.index]], [found.index + 1], said(document, found), left_out_of(document))


def said(document: Mapping[str, Any], found: Picked) -> str:
    """What a pick took and why: "picked row 5 of 14, 8-8-4: cheapest by macs among 13 with accuracy >= 0.97"."""
    rows = document["rows"]
    return f"picked row {found.index + 1} of {len(rows)}, {rows[found.index]['candidate']}: {found.why}"


def pick_row(document: Mapping[str, Any], text: str) -> Row:
    """The row of a front.json document that a pick names, see core.pick.Choice.pick: bounds may be on any column."""
    rows: Sequence[Row] = document["rows"]
    return rows[picked(document, text).index]


def picked(document: Mapping[str, Any], text: str) -> Picked:
    """The index of the row that a pick names, and why it is this one."""
    rows: Sequence[Row] = document["rows"]
    objectives = tuple(Objective(name, direction) for name, direction in document["objectives"])
    members = [Evaluation(Candidate(tuple(row["levels"])), _numbers(row)) for row in rows]
    return Choice(members, objectives, document["dense"], [row["candidate"] for row in rows]).pick(text)


def read_document(folder: RunFolder) -> dict[str, Any]:
    """The document of front.json. RunNotFound while the run has no front yet, RunDamaged for another content."""
    if not folder.front_json.is_file():
        raise RunNotFound(f"{folder.path} has no front yet. Finish it with: autoprune resume {folder.path}")
    document = read_checked(folder.front_json)
    with understanding(folder.front_json):
        _check_document(document)
    return document


def _check_document(document: Mapping[str, Any]) -> None:
    """Raises where a document is not of the form of `run.fronts.document_of`."""
    for _name, direction in document["objectives"]:
        if direction not in ("min", "max"):
            raise ValueError(f"expected the direction min or max of an objective, got {direction!r}")
    numeric = [*document["dense"], *(name + RATIO for name in document["dense"])]
    for row in document["rows"]:
        if not (isinstance(row["candidate"], str) and {*map(type, row["levels"])} <= {int}):
            raise ValueError(f"expected a name and levels of a network, got {row['candidate']!r}, {row['levels']!r}")
        if {*map(type, row["kept"].values())} - {int}:
            raise ValueError(f"expected kept counts by unit, got {row['kept']!r}")
        if wrong := [name for name in numeric if not isinstance(row[name], int | float)]:
            raise ValueError(f"expected a number as {wrong[0]}, got {row[wrong[0]]!r}")
    left_out_of(document)


def left_out_of(document: Mapping[str, Any]) -> tuple[LeftOut, ...]:
    """The networks that a front.json document says were left out; runs of earlier versions do not say."""
    missing = document.get("left_out", ())
    return tuple(LeftOut(one["candidate"], tuple(one["levels"]), one["cause"]) for one in missing)


def to_csv(rows: Sequence[Row]) -> str:
    """One line a network; lists and mappings stay in front.json."""
    flat = [flat_row(row) for row in rows]
    names = list(dict.fromkeys(name for row in flat for name in row))  # a fitness need not report the same of all
    names = names or ["candidate", "macs", "params", "macs_ratio", "params_ratio"]
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue()


def flat_row(row: Row) -> Row:
    return {name: value for name, value in row.items() if not isinstance(value, list | dict)}


def _numbers(row: Row) -> dict[str, float]:
    return {name: float(value) for name, value in row.items() if isinstance(value, int | float)}
