"""The table: means and spreads over seeds of what each searcher has found after so many evaluations."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]
Key = tuple[str, str, int]  # problem, searcher, evaluations

MEASURES = ("hypervolume", "damage_at_half", "reported")


def summary(rows: Iterable[Row]) -> list[Row]:
    """One row for each problem, searcher and number of evaluations, over all its seeds.

    `own_ms` are the searcher's own milliseconds for one candidate, `seconds` its own and those of the evaluations.
    """
    groups: dict[Key, list[Row]] = {}
    for row in rows:
        groups.setdefault((row["problem"], row["searcher"], row["evaluations"]), []).append(row)
    return [_summed(key, group) for key, group in sorted(groups.items())]


def _summed(key: Key, group: Sequence[Row]) -> Row:
    summed: Row = dict(zip(("problem", "searcher", "evaluations"), key, strict=True)) | {"seeds": len(group)}
    for name in MEASURES:
        values = [row[name] for row in group if row.get(name) is not None]
        summed[name] = round(statistics.mean(values), 4) if values else ""
        if name == "hypervolume":
            summed["spread"] = round(statistics.stdev(values), 4) if len(values) > 1 else ""
    summed["seconds"] = round(statistics.mean(row["seconds"] for row in group), 2)
    summed["own_ms"] = round(statistics.mean(1000 * row["own_s"] / row["asked"] for row in group), 3)
    return summed


def write(path: Path, comment: str, rows: Sequence[Row]) -> None:
    """A CSV whose first line is the command; a column that no row has a value for is left out."""
    path.parent.mkdir(exist_ok=True)
    columns = [name for name in rows[0] if any(row[name] != "" for row in rows)]
    with path.open("w", newline="") as file:
        file.write(f"# {comment}\n")
        writer = csv.DictWriter(file, columns, lineterminator="\n", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def verdicts(rows: Sequence[Row], best: str = "auto", slow: str = "optuna") -> list[str]:
    """Where `best` is more than a per cent of hypervolume behind another searcher at equal evaluations, and how it does
    with a tenth of the evaluations of `slow`."""
    found = {(row["problem"], row["searcher"], row["evaluations"]): row["hypervolume"] for row in rows}
    behind, tenths = [], []
    for (problem, name, count), value in found.items():
        own, tenth = found.get((problem, best, count)), found.get((problem, best, count / 10))
        if own is not None and value > 1.01 * own:
            behind.append(f"{problem}: {best} {own:.4f}, {name} {value:.4f} after {count}")
        if tenth is not None and name == slow:
            tenths.append(f"{problem}: {best} {tenth:.4f} after {count // 10}, {slow} {value:.4f} after {count}")
    return behind + tenths
