"""Tables in results/: the command that makes them in the first line, then rows as CSV."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[1] / "results"


def write_table(name: str, command: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes rows that all have the columns of the first one to results/`name`."""
    with (RESULTS / name).open("w", newline="") as file:
        file.write(f"# {command}\n")
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read_table(name: str) -> list[dict[str, str]]:
    """The rows of results/`name`, none if there is no such file."""
    if not (RESULTS / name).exists():
        return []
    with (RESULTS / name).open(newline="") as file:
        return list(csv.DictReader(line for line in file if not line.startswith("#")))
