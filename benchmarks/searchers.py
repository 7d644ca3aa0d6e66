"""Hypervolume of every searcher on ResNet-20 / CIFAR-10, at the same number of evaluations, in one run.

    python benchmarks/searchers.py --data DIR --weights FILE

DIR is CIFAR-10 in any form `autoprune.data:cifar10` reads, FILE the state dict of a ResNet-20. The job is
configs/cifar10_resnet20.yaml with another searcher, seed and number of evaluations: 500 calibration and 2,000 selection
images of the training set guide the search, and the front of each is measured once on the 10,000 test images.

Hypervolume is over accuracy (from 0.1, chance, up to 1) and the share of the dense MACs (from 1 down to 0), divided by
that rectangle: 1 would be perfect accuracy for no MACs. `selected` is the same over everything a search measured on the
selection images. `uniform` ends by itself when its ladder is exhausted, `closed_form` and `additive`
after their plans.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from autoprune.config import load
from autoprune.core.front import hypervolume
from autoprune.run import search
from autoprune.search import SEARCHERS

CONFIG = Path(__file__).parents[1] / "configs" / "cifar10_resnet20.yaml"
CHANCE = 0.1
BUDGETS = (0.7, 0.5, 0.35)
DETERMINISTIC = ("uniform", "closed_form", "additive")

Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--evaluations", type=int, default=200)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--searchers", nargs="+", default=list(SEARCHERS), choices=list(SEARCHERS))
    parser.add_argument("--out", type=Path, default=Path("results/searchers_resnet20_cifar10.csv"))
    options = parser.parse_args()
    rows: list[Row] = []
    for name in options.searchers:
        for seed in options.seeds[:1] if name in DETERMINISTIC else options.seeds:
            rows.append(run_one(name, seed, options))
            print(rows[-1], flush=True)
            write(options.out, rows, options)
    summarise(rows)


def run_one(name: str, seed: int, options: argparse.Namespace) -> Row:
    """One search, measured."""
    overrides = {
        "data.root": options.data,
        "model.weights": options.weights,
        "search.searcher": name,
        "search.seed": seed,
        "search.evaluations": options.evaluations,
    }
    job = load(CONFIG, [f"{key}={value}" for key, value in overrides.items()]).resolve()
    start = time.perf_counter()
    result = search(job, None)
    seconds = time.perf_counter() - start
    dense = result.session.dense_costs["macs"]
    selected = [(e.values["accuracy"], e.values["macs"] / dense) for e in result.evaluations if e.ok]
    return {
        "searcher": name,
        "seed": seed,
        "evaluations": len({e.candidate for e in result.evaluations}),
        "seconds": round(seconds, 1),
        "networks": len(result.rows),
        "hypervolume": round(covered([(row["accuracy"], row["macs_ratio"]) for row in result.rows]), 4),
        "selected": round(covered(selected), 4),
        **{f"accuracy_at_{budget:g}": picked(result.rows, budget) for budget in BUDGETS},
    }


def covered(points: Sequence[tuple[float, float]]) -> float:
    """Share of the rectangle between chance and 1, dense and nothing, that (accuracy, MACs share) points dominate."""
    losses = np.array([(1 - accuracy, ratio) for accuracy, ratio in points])
    return hypervolume(losses, (1 - CHANCE, 1.0)) / (1 - CHANCE)


def picked(rows: Sequence[Row], budget: float) -> float | str:
    """Test accuracy of the member that is best by the selection set within a share of the MACs."""
    inside = [row for row in rows if row["macs_ratio"] <= budget]
    return min(inside, key=lambda row: float(row["select_kl"]))["accuracy"] if inside else ""


def write(path: Path, rows: Sequence[Row], options: argparse.Namespace) -> None:
    """The table, one line a run, after every run; its first line is the command."""
    path.parent.mkdir(exist_ok=True)
    seeds = " ".join(map(str, options.seeds))
    command = f"python benchmarks/searchers.py --data DIR --weights FILE --evaluations {options.evaluations}"
    with path.open("w", newline="") as file:
        file.write(f"# {command} --seeds {seeds}\n")
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def summarise(rows: Sequence[Row]) -> None:
    for name in dict.fromkeys(row["searcher"] for row in rows):
        values = [row["hypervolume"] for row in rows if row["searcher"] == name]
        print(f"{name:10} hypervolume {statistics.mean(values):.4f}, {min(values):.4f} to {max(values):.4f}")


if __name__ == "__main__":
    main()
