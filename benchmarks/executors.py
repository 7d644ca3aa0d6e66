"""How much faster two workers score the candidates of a real job than one.

    python benchmarks/executors.py --data DIR --models DIR

The job is configs/cifar10_resnet20.yaml. Every executor scores the same random networks, after one each to warm up,
one executor after the other, in `--rounds` rounds of which the fastest counts. `speedup` is over serial with one thread
in the same run, `same` says whether all values are those of it, bit by bit.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from autoprune import config
from autoprune.core.contracts import Evaluator
from autoprune.core.evaluation import Evaluation
from autoprune.core.space import Candidate
from autoprune.plan.repair import stratified
from autoprune.prune.modules.borrowed import torch_threads
from autoprune.run.executors.evaluator import open_evaluator
from autoprune.run.executors.pool import Pool
from autoprune.run.session.job import Executor
from autoprune.run.session.session import Session, open_session
from autoprune.testing import answers

JOB = Path(__file__).parents[1] / "configs" / "cifar10_resnet20.yaml"
COLUMNS = ("executor", "workers", "threads", "evaluations", "seconds", "per_second", "speedup", "same")


@dataclass(frozen=True)
class Setting:
    """An executor and the threads of each worker."""

    executor: Executor
    threads: int

    @property
    def name(self) -> tuple[str, int, int]:
        return self.executor.name, self.executor.workers or 1, self.threads


SETTINGS = (
    Setting(Executor("serial"), 1),
    Setting(Executor("serial"), 2),
    Setting(Executor("processes", 1), 1),
    Setting(Executor("processes", 2), 1),
    Setting(Executor("ray", 1), 1),
    Setting(Executor("ray", 2), 1),
)


def scored(session: Session, setting: Setting, candidates: Sequence[Candidate]) -> tuple[float, list[Evaluation]]:
    """Seconds for all candidates, and their evaluations in order."""
    scorer = session.scorer.with_scoring(form=replace(session.scorer.scoring.form, threads=setting.threads))
    with torch_threads(setting.threads), open_evaluator(setting.executor, scorer, lambda event, facts: None) as opened:
        if isinstance(opened, Pool):
            while opened.alive < (setting.executor.workers or 1):
                run(opened, [session.space.dense])
        run(opened, [session.space.smallest] * opened.slots)
        begun = time.perf_counter()
        evaluations = run(opened, candidates)
        return time.perf_counter() - begun, evaluations


def run(evaluator: Evaluator, candidates: Sequence[Candidate]) -> list[Evaluation]:
    """All of them, with the evaluator's slots full; in the order of the candidates."""
    found = {evaluation.candidate: evaluation for evaluation in answers(evaluator, candidates)}
    return [found[candidate] for candidate in candidates]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="CIFAR-10 in binary batches")
    parser.add_argument("--models", type=Path, required=True, help="folder with resnet20_cifar10.pt")
    parser.add_argument("--evaluations", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("results/executors_resnet20_cifar10.csv"))
    arguments = parser.parse_args()
    weights = arguments.models / "resnet20_cifar10.pt"
    settings = (f"data.root={arguments.data}", f"model.weights={weights}", "run.tune=off", "run.threads=1")
    session = open_session(config.load(JOB, settings).resolve(), lambda progress: None)
    levels = stratified(session.problem, np.random.default_rng(0), arguments.evaluations)
    candidates = [Candidate(tuple(row.tolist())) for row in levels]
    seconds: dict[tuple[str, int, int], float] = {}
    values: dict[tuple[str, int, int], list[Evaluation]] = {}
    for _ in range(arguments.rounds):
        for setting in SETTINGS:
            taken, values[setting.name] = scored(session, setting, candidates)
            print(*setting.name, f"{taken:.1f} s", flush=True)
            seconds[setting.name] = min(taken, seconds.get(setting.name, taken))
    first = SETTINGS[0].name
    with arguments.out.open("w", newline="") as file:
        file.write(f"# python benchmarks/executors.py --data DIR --models DIR --evaluations {arguments.evaluations}\n")
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for name, taken in seconds.items():
            pairs = zip(values[name], values[first], strict=True)
            same = all(a.ok and a.values == b.values for a, b in pairs)
            rates = f"{len(candidates) / taken:.2f}", f"{seconds[first] / taken:.2f}"
            row = [*name, len(candidates), f"{taken:.1f}", *rates, same]
            print(*row, flush=True)
            writer.writerow(row)


if __name__ == "__main__":
    main()
