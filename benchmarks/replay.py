"""How long a run of 100,000 evaluations takes to open and to replay.

    python benchmarks/replay.py

A journal is written by a search over 50 units whose evaluations cost nothing. `open_s` are the seconds until it is read
and checked, `replay_s` those until a fresh searcher stands where the journal ends. `scripted` is a searcher that only
repeats what the journal says, so that its row is what journal and controller take; `evolution`, which wrote it,
proposes everything again, which is how it is known that it proposes the same.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from processes import in_new_process

from autoprune.core.contracts import Searcher
from autoprune.core.evaluation import Evaluation
from autoprune.core.space import Candidate
from autoprune.run.executors.serial import SerialEvaluator
from autoprune.run.loop.controller import Controller
from autoprune.run.records.journal import Journal
from autoprune.searchers import make_searcher
from autoprune.testing import synthetic_problem

COLUMNS = ("searcher", "evaluations", "journal_mib", "open_s", "replay_s", "peak_mib")


class Scripted:
    """Proposes what it is given, in order."""

    def __init__(self, asks: Sequence[Sequence[Sequence[int]]]) -> None:
        self._asks = deque(asks)

    def ask(self, n: int) -> list[Candidate]:
        return [Candidate(tuple(levels)) for levels in self._asks.popleft()]

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        pass


def written(path: Path, searcher: str, evaluations: int) -> None:
    """A journal of a search; its first record is the header's place."""
    synthetic = synthetic_problem(units=50, levels=8)
    with Journal(path) as journal:
        journal.append({"kind": "run"})
        made = make_searcher(searcher, synthetic.problem)
        Controller(synthetic.problem, made, SerialEvaluator(synthetic.evaluate), evaluations, journal.append).run()


def replayed(path: Path, searcher: str) -> tuple[float, float, int]:
    """Seconds to open, seconds to replay, and the evaluations that were in it."""
    synthetic = synthetic_problem(units=50, levels=8)
    begun = time.perf_counter()
    with Journal(path) as journal:
        opened = time.perf_counter()
        records = journal.records[1:]
        asks = [record["candidates"] for record in records if record["kind"] == "ask"]
        made: Searcher = Scripted(asks) if searcher == "scripted" else make_searcher(searcher, synthetic.problem)
        controller = Controller(
            synthetic.problem, made, SerialEvaluator(synthetic.evaluate), len(records), journal.append
        )
        begun_replay = time.perf_counter()
        controller.replay(records)
        return opened - begun, time.perf_counter() - begun_replay, controller.done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--evaluations", type=int, default=100_000)
    parser.add_argument("--out", type=Path, default=Path("results/replay.csv"))
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal.jsonl"
        written(path, "evolution", arguments.evaluations)
        for searcher in ("scripted", "evolution"):
            measured = in_new_process(replayed, path, searcher)
            opened, replay, done = measured.result
            figures = searcher, done, f"{path.stat().st_size / 2**20:.0f}", f"{opened:.1f}", f"{replay:.1f}"
            rows.append(dict(zip(COLUMNS, (*figures, f"{measured.peak_mib:.0f}"), strict=True)))
            print(rows[-1], flush=True)
    with arguments.out.open("w", newline="") as file:
        file.write("# python benchmarks/replay.py\n")
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
