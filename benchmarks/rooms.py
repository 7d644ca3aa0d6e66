"""How the package is divided: files a folder, imports inside each room, files that three operations pass through.

    python benchmarks/rooms.py [CHECKOUT]

Imports are read from the source of the checkout, by default this one. An arrow of a room is an import between two of
its parts, which are its files and the folders in it. The operations run on the autoprune that is installed.
"""

from __future__ import annotations

import ast
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import torch

import autoprune
from autoprune.config import load
from autoprune.core.space import Candidate
from autoprune.run.drive import search
from autoprune.run.results.members import export_member

ROOMS = ("plan", "search", "searchers", "prune", "measure", "train", "run", "config", "api", "testing")


def arrows(package: Path, room: str) -> tuple[int, int]:
    """The parts of a room, and the imports between two of them."""
    files = [path for path in sorted((package / room).rglob("*.py")) if path.name != "__init__.py"]
    found = {(part_of(package, room, path), other) for path in files for other in imported(package, room, path)}
    return len({part_of(package, room, path) for path in files}), len({pair for pair in found if pair[0] != pair[1]})


def part_of(package: Path, room: str, path: Path) -> str:
    return path.relative_to(package / room).with_suffix("").parts[0]


def imported(package: Path, room: str, path: Path) -> set[str]:
    """The parts of the room that a file imports from."""
    prefix = f"autoprune.{room}."
    nodes = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.ImportFrom)]
    names = {f"{node.module}.{alias.name}" for node in nodes for alias in node.names}
    parts = {name.removeprefix(prefix).split(".")[0] for name in names if name.startswith(prefix)}
    return {part for part in parts if (package / room / part).is_dir() or (package / room / f"{part}.py").is_file()}


def passed(operation: Callable[[], Any]) -> int:
    """How many files of autoprune run code in an operation."""
    root, seen = os.path.dirname(autoprune.__file__), set()

    def note(frame: FrameType, event: str, argument: Any) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(root):
            seen.add(frame.f_code.co_filename)

    sys.setprofile(note)
    try:
        operation()
    finally:
        sys.setprofile(None)
    return len(seen)


def operations() -> dict[str, int]:
    """Files by operation, on the network and the data of the quick start."""
    torch.set_num_threads(1)
    result = search(
        load("configs/quickstart.yaml", ["search.searcher=uniform", "search.evaluations=12"]).resolve(), None
    )
    session, units = result.session, len(result.session.space.units)
    session.scorer.score(Candidate((1,) * units))  # what all scores share is made
    with tempfile.TemporaryDirectory() as folder:
        return {
            "a score": passed(lambda: session.scorer.score(Candidate((2,) * units))),
            "find_structure": passed(lambda: autoprune.find_structure(session.model, session.data.example)),
            "an export": passed(lambda: export_member(session, result.members[0], Path(folder) / "small")),
        }


def main() -> None:
    checkout = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1]
    package = checkout / "autoprune"
    counts = Counter(str(path.parent.relative_to(package)) for path in package.rglob("*.py"))
    print("most files in a folder:", ", ".join(f"{folder} {count}" for folder, count in counts.most_common(5)))
    for room in ROOMS:
        if any((package / room).rglob("*.py")):
            print("{}: {} parts, {} arrows".format(room, *arrows(package, room)))
    for operation, files in operations().items():
        print(f"{operation}: {files} files")


if __name__ == "__main__":
    main()
