"""Hypervolume of every searcher on ResNet-20 / CIFAR-10, at the same number of evaluations, in one run.

    python benchmarks/searchers.py --data DIR --weights FILE [--evaluations 200] [--seeds 0 1 2]

DIR is CIFAR-10 in any form `autoprune.data:cifar10` reads, FILE the state dict of a ResNet-20. Searches see 500
calibration and 2,000 selection images of the training set; the front of each is measured once on the 10,000 test
images. Hypervolume is over accuracy (from 0.1, chance, up to 1) and the share of the dense MACs (from 1 down to 0),
divided by that rectangle: 1 would be perfect accuracy for no MACs. `selected` is the same on the selection images, by
which nothing but the searches themselves is judged.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import sys
import time
from pathlib import Path

import numpy as np

from autoprune.core.front import hypervolume
from autoprune.core.levels import LevelRule
from autoprune.core.objective import Objective
from autoprune.data import Data, cifar10
from autoprune.measure.fitness import classification
from autoprune.run import search
from autoprune.run.job import Job
from autoprune.search import SEARCHERS, make_searcher
from autoprune.zoo import resnet20

CHANCE = 0.1
BUDGETS = (0.7, 0.5, 0.35)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--evaluations", type=int, default=200)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--searchers", nargs="+", default=list(SEARCHERS))
    parser.add_argument("--space", default="layer*.conv1", help="pattern of the units searched")
    parser.add_argument("--steps", type=int, default=16, help="levels a unit")
    parser.add_argument("--out", type=Path, default=Path("results/searchers_resnet20_cifar10.csv"))
    options = parser.parse_args()
    data = cifar10(options.data, calibrate=500, select=2000, seed=0)
    rows = [
        run_one(name, seed, data, options)
        for name in options.searchers
        for seed in (options.seeds if name not in ("uniform", "additive") else options.seeds[:1])
    ]
    write(rows, options)


def run_one(name: str, seed: int, data: Data, options: argparse.Namespace) -> dict[str, object]:
    """One search, measured."""
    shares = tuple(step / options.steps for step in range(1, options.steps))
    job = Job(
        name=name,
        model=lambda: resnet20(weights=options.weights),
        data=lambda: data,
        rules=(LevelRule(options.space, shares, min_keep=2),),
        objectives=(Objective("accuracy", "max"), Objective("macs", "min")),
        searcher=lambda problem, seed: make_searcher(name, problem, seed=seed),
        fitness=classification,
        evaluations=options.evaluations,
        seed=seed,
    )
    start = time.perf_counter()
    result = search(job, None)
    seconds = time.perf_counter() - start
    dense = result.session.dense_costs["macs"]
    selected = [(e.values["accuracy"], e.values["macs"] / dense) for e in result.evaluations if e.ok]
    reported = [(row["accuracy"], row["macs_ratio"]) for row in result.rows]
    row = {
        "searcher": name,
        "seed": seed,
        "evaluations": len({e.candidate for e in result.evaluations}),
        "seconds": round(seconds, 1),
        "networks": len(result.rows),
        "hypervolume": round(covered(reported), 4),
        "selected": round(covered(selected), 4),
        **{f"accuracy_at_{budget:g}": picked(result.rows, budget) for budget in BUDGETS},
    }
    print(row, flush=True)
    return row


def covered(points: list[tuple[float, float]]) -> float:
    """Share of the rectangle between chance and 1, dense and nothing, that (accuracy, MACs share) points dominate."""
    losses = np.array([(1 - accuracy, ratio) for accuracy, ratio in points])
    return hypervolume(losses, (1 - CHANCE, 1.0)) / (1 - CHANCE)


def picked(rows: tuple[dict[str, float], ...], budget: float) -> float | None:
    """Test accuracy of the member that is best by the selection set within a share of the MACs."""
    inside = [row for row in rows if row["macs_ratio"] <= budget]
    return min(inside, key=lambda row: row["select_kl"])["accuracy"] if inside else None


def write(rows: list[dict[str, object]], options: argparse.Namespace) -> None:
    """The table, one line a run and then one with the mean and half the range of each searcher's hypervolume."""
    options.out.parent.mkdir(exist_ok=True)
    with options.out.open("w", newline="") as file:
        file.write(f"# python {' '.join(sys.argv[:1])} --data DIR --weights FILE --evaluations {options.evaluations} ")
        file.write(f"--steps {options.steps} --seeds {' '.join(map(str, options.seeds))}\n")
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    for name in dict.fromkeys(str(row["searcher"]) for row in rows):
        values = [float(str(row["hypervolume"])) for row in rows if row["searcher"] == name]
        spread = (max(values) - min(values)) / 2
        print(f"{name:10} hypervolume {statistics.mean(values):.4f} +- {spread:.4f} ({len(values)} seeds)")


if __name__ == "__main__":
    main()
