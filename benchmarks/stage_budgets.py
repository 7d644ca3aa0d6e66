"""How close plans come to their budgets where blocks share widths: ResNet-20 with its stages' widths prunable too.

    python benchmarks/stage_budgets.py

Every unit has sixteen levels, sixteenths of its width. With projected shortcuts each stage has a width of its own, 3 +
9 units; with padded ones the three widths go together, 1 + 9 units. Damages are drawn, rising with the share removed, a
new draw for each network. A plan is for one budget, a share of the dense MACs. `macs` is what the cost polynomial says
of the plan, `counted_macs` what torch counts while the network that was really cut runs; `below_percent` is how far
they are below the budget, `seconds` the time for the plan, and `proved_best` whether it is proved that no other within
the budget has less damage.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from compensation.setting import macs
from torch import nn

from autoprune.core.levels import LevelRule, build_space
from autoprune.core.objective import Objective
from autoprune.core.problem import Problem
from autoprune.core.space import Candidate
from autoprune.plan.allocation import Allocator
from autoprune.prune.find import find_structure
from autoprune.prune.surgery.surgery import cut
from autoprune.zoo import resnet20
from autoprune.zoo.resnet import ResNet

NETWORKS = {"padded shortcuts": resnet20, "projected shortcuts": partial(ResNet, (3, 3, 3), projection=True)}
BUDGETS = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2)
LEVELS = np.arange(16, 0, -1) / 16

Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/stage_budgets.csv"))
    options = parser.parse_args()
    rows = [row for seed, name in enumerate(NETWORKS) for row in plans(name, NETWORKS[name]().eval(), seed)]
    with options.out.open("w", newline="") as file:
        file.write("# python benchmarks/stage_budgets.py\n")
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def plans(name: str, model: nn.Module, seed: int) -> Iterator[Row]:
    """One row a budget."""
    example = torch.zeros(1, 3, 32, 32)
    structure = find_structure(model, example)
    space = build_space(structure.units, [LevelRule("*", tuple(LEVELS))])
    problem = Problem(space, (Objective("kl", "min"), Objective("macs", "min")), structure.cost)
    rng = np.random.default_rng(seed)
    units = len(space.units)
    damages = rng.lognormal(-3, 1, (units, 1)) * (1 - LEVELS) ** rng.uniform(1.2, 3, (units, 1))
    allocator = Allocator(problem, damages, "macs")
    for share in BUDGETS:
        budget = share * problem.costs.dense()["macs"]
        start = time.perf_counter()
        found = allocator.allocate(budget)
        seconds = time.perf_counter() - start
        counts = space.counts(Candidate(found.levels))
        small = cut(model, structure, {unit: np.arange(count) for unit, count in counts.items()})
        row = {
            "network": name,
            "units": units,
            "budget": share,
            "budget_macs": round(budget),
            "macs": round(problem.costs_of(Candidate(found.levels))["macs"]),
            "counted_macs": macs(small, (example,)),
        }
        row["below_percent"] = round(100 * (1 - row["counted_macs"] / budget), 4)
        row |= {"seconds": round(seconds, 3), "proved_best": found.exact}
        print(row, flush=True)
        yield row


if __name__ == "__main__":
    main()
