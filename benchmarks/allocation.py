"""Plans for ResNet-50's 54 weights at 101 sparsities each, against the usual table over weights kept.

    python benchmarks/allocation.py

The table is the dynamic program of RD_PRUNE (Xu et al., ICCV 2023, https://arxiv.org/abs/2308.10438): one state for
each number of weights kept up to the largest budget, D_n(s) = min over sparsities p of damage_n(p) +
D_{n-1}(s - kept_n(p)), in numpy, one operation over all states for each option, layers by rising size. It is written to
be correct and as fast as that allows: every state means "at most s", so that none is unset; states beyond what the
layers so far can fill are not stored; picks take a byte each; and one table serves all budgets. Ours is timed twice:
the front of all budgets at 10,000 buckets of cost, and the plan for each budget, which is exact or says that it is not.

Damages are drawn twice: convex, a * p^b, and not convex, sorted random numbers. Each method runs in a process of its
own, instance included in neither time nor memory; `peak_mib` is by how much the process grew at most.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from processes import in_new_process

from autoprune.plan.knapsack import solver

SPARSITIES = np.arange(101) / 100
KEPT = (0.2, 0.1, 0.05)  # budgets: shares of all weights

Row = dict[str, Any]
Instance = tuple[list[np.ndarray], list[np.ndarray]]  # (l,) weights kept and (l,) damages of each layer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/allocation.csv"))
    options = parser.parse_args()
    rows: list[Row] = []
    for damages in ("convex", "not convex"):
        for method in (ours_front, ours_each, table):
            rows += rows_of(method, damages)
    write(options.out, rows)


def resnet50_sizes() -> np.ndarray:
    """(54,) weights of every convolution and the classifier: 25,502,912 in all."""
    sizes = [64 * 3 * 49]
    before = 64
    for blocks, width in ((3, 64), (4, 128), (6, 256), (3, 512)):
        for block in range(blocks):
            sizes += [before * width, width * width * 9, width * 4 * width]
            sizes += [before * 4 * width] if block == 0 else []
            before = 4 * width
    return np.array([*sizes, 2048 * 1000])


def instance(damages: str) -> Instance:
    rng = np.random.default_rng(0)
    sizes = resnet50_sizes()
    kept = [np.rint((1 - SPARSITIES) * size).astype(np.int64) for size in sizes]
    scales = rng.lognormal(0, 1, len(sizes))
    if damages == "convex":
        return kept, [scale * SPARSITIES ** rng.uniform(1.5, 4) for scale in scales]
    return kept, [scale * np.sort(np.append(0, rng.random(100))) for scale in scales]


def ours_front(kept: list[np.ndarray], damages: list[np.ndarray]) -> list[tuple[tuple[int, ...], bool]]:
    """One plan for each budget from the front of all, and whether it is proved the best."""
    front = solver(kept, damages).frontier
    total = sum(int(weights[0]) for weights in kept)
    return [(front.within(share * total).choice, front.exact) for share in KEPT]


def ours_each(kept: list[np.ndarray], damages: list[np.ndarray]) -> list[tuple[tuple[int, ...], bool]]:
    """As above, each budget by itself."""
    plans = solver(kept, damages)
    total = sum(int(weights[0]) for weights in kept)
    found = [plans.solve(share * total) for share in KEPT]
    return [(solution.plan.choice, solution.exact) for solution in found]


def table(kept: list[np.ndarray], damages: list[np.ndarray]) -> list[tuple[tuple[int, ...], bool]]:
    """As above, from the table over weights kept."""
    budgets = [int(share * sum(int(weights[0]) for weights in kept)) for share in KEPT]
    order = sorted(range(len(kept)), key=lambda layer: int(kept[layer][0]))
    best, picks = np.zeros(1), []
    for layer in order:
        best, pick = with_layer(best, kept[layer], damages[layer], max(budgets))
        picks.append(pick)
    return [(backtracked(order, picks, kept, budget), True) for budget in budgets]


def with_layer(best: np.ndarray, kept: np.ndarray, damages: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """(s,) least damage with at most s weights once one layer more is decided, and the option taken, for each s."""
    length = min(len(best) - 1 + int(kept[0]), most) + 1
    found, pick = np.full(length, np.inf), np.zeros(length, dtype=np.uint8)
    for option, weights in enumerate(kept.tolist()):
        for start, stop, before in ((weights, weights + len(best), best), (weights + len(best), length, best[-1:])):
            span = slice(start, min(stop, length))
            if span.start < length:
                total = damages[option] + before[: length - start]
                better = total < found[span]
                np.copyto(found[span], total, where=better)
                np.copyto(pick[span], option, where=better)
    return found, pick


def backtracked(order: list[int], picks: list[np.ndarray], kept: list[np.ndarray], budget: int) -> tuple[int, ...]:
    choice, left = [0] * len(kept), budget
    for layer, pick in zip(reversed(order), reversed(picks), strict=True):
        choice[layer] = int(pick[min(left, len(pick) - 1)])
        left -= int(kept[layer][choice[layer]])
    return tuple(choice)


def rows_of(method: Callable[..., Any], damages: str) -> list[Row]:
    """One row for each budget, of one method on one instance."""
    kept, errors = instance(damages)
    measured = in_new_process(method, kept, errors)
    total = sum(int(weights[0]) for weights in kept)
    rows = []
    for share, (choice, proved) in zip(KEPT, measured.result, strict=True):
        cost = sum(int(weights[option]) for weights, option in zip(kept, choice, strict=True))
        damage = sum(float(error[option]) for error, option in zip(errors, choice, strict=True))
        rows.append(
            {
                "damages": damages,
                "method": method.__name__,
                "sparsity": round(1 - share, 2),
                "damage": round(damage, 9),
                "share_of_budget": round(cost / (share * total), 7),
                "proved_best": proved,
                "seconds_for_all": round(measured.seconds, 3),
                "peak_mib": round(measured.peak_mib),
            }
        )
        print(rows[-1], flush=True)
    return rows


def write(path: Path, rows: list[Row]) -> None:
    path.parent.mkdir(exist_ok=True)
    with path.open("w", newline="") as file:
        file.write("# python benchmarks/allocation.py\n")
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
