"""What a floor of entries in every weight does for searches over single weights, on the digits.

    python benchmarks/vanishing_layers.py

Three networks (autoprune.zoo:digits_resnet), each with its own split of the images. Every weight of convolutions and
the linear layer is a unit with the levels of `grid: percent`; masks and updates are those of optimal brain surgeon.
`auto` and `additive` with two probes a unit search once without a floor (`floor: 0`) and once with the default one, by
KL on the 400 selection images; at each budget the member of the front with the least KL on them is taken. `uniform` and
`erk` (Evci et al. 2020, https://arxiv.org/abs/1911.11134) are the networks of most nonzeros within the budget, fitted
like the front's. `kl` and `accuracy` are on the 400 report images, which no search has seen; `emptied` counts the
weights without entries. An empty line of values: no member is within the budget.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from autoprune.core.evaluation import Evaluation
from autoprune.core.levels import FLOOR, GRIDS, LevelRule
from autoprune.core.objective import Objective
from autoprune.core.space import Candidate
from autoprune.data import digits
from autoprune.errors import InfeasibleBudget
from autoprune.measure.fitness import classification
from autoprune.run.drive import search
from autoprune.run.results.members import build_member, front_file
from autoprune.run.session.job import Job, silent
from autoprune.run.session.session import Session, open_session
from autoprune.searchers import make_searcher
from autoprune.searchers.rules import closed_form
from autoprune.searchers.rules.search import DIALS, nearest_levels
from autoprune.zoo import digits_resnet

BUDGETS = (0.05, 0.1, 0.13, 0.2, 0.3)
SEARCHERS: dict[str, dict[str, Any]] = {"auto": {}, "additive": {"probe_levels": 2}}

Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--evaluations", type=int, default=120)
    parser.add_argument("--out", type=Path, default=Path("results/vanishing_layers_digits.csv"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = [row for seed in range(options.seeds) for row in of_seed(seed, options.evaluations)]
    with options.out.open("w", newline="") as file:
        file.write(f"# python benchmarks/vanishing_layers.py --evaluations {options.evaluations}\n")
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def of_seed(seed: int, evaluations: int) -> Iterator[Row]:
    """All rows of one network and split."""
    for name, settings in SEARCHERS.items():
        for floor in (0.0, FLOOR):
            yield from searched(job_of(seed, name, settings, floor, evaluations), name, floor)
    session = open_session(job_of(seed, "uniform", {}, FLOOR, 1), silent)
    for rule in ("uniform", "erk"):
        yield from ruled(session, rule)


def job_of(seed: int, name: str, settings: Row, floor: float, evaluations: int) -> Job:
    return Job(
        name=name,
        model=partial(digits_resnet, seed),
        data=partial(digits, seed),
        rules=(LevelRule("*", GRIDS["percent"], "weights", floor=floor),),
        objectives=(Objective("accuracy", "max"), Objective("nonzeros", "min")),
        searcher=lambda problem, seed: make_searcher(name, problem, seed=seed, **settings),
        fitness=classification,
        evaluations=evaluations,
        seed=seed,
        threads=1,
        tune="off",
    )


def searched(job: Job, name: str, floor: float) -> Iterator[Row]:
    """What a search has within each budget."""
    found = search(job, None)
    by_kl = front_file(found.session, found.members)
    for budget in BUDGETS:
        try:
            row = by_kl.picked(f"nonzeros<={budget}").flat()
        except InfeasibleBudget:
            row = {}
        yield result(job.seed, name, floor, budget, row)


def ruled(session: Session, rule: str) -> Iterator[Row]:
    """What a rule has within each budget."""
    problem = session.problem
    shapes = [tuple(session.model.get_parameter(name).shape) for name in problem.space.units]
    shares = closed_form.erk(shapes, DIALS) if rule == "erk" else closed_form.uniform(len(shapes), DIALS)
    levels = nearest_levels(problem, np.asarray(shares))
    ratios = problem.cost_values(levels, ("nonzeros",))["nonzeros"] / session.dense_costs["nonzeros"]
    for budget in BUDGETS:
        within = np.flatnonzero(ratios <= budget)
        candidate = Candidate(tuple(levels[within[ratios[within].argmax()]].tolist()))
        built = build_member(session, scored(session, candidate))
        yield result(session.job.seed, rule, FLOOR, budget, built.member.flat())


def scored(session: Session, candidate: Candidate) -> Evaluation:
    """An evaluation with its costs."""
    evaluation = session.scorer.score(candidate)
    return replace(evaluation, values={**evaluation.values, **session.problem.costs_of(candidate)})


def result(seed: int, name: str, floor: float, budget: float, row: Row) -> Row:
    values = {name: round(row[name], 4) if row else "" for name in ("nonzeros_ratio", "kl", "accuracy")}
    out = {"seed": seed, "method": name, "floor": floor, "budget": budget, **values, "emptied": row.get("emptied", "")}
    print(out, flush=True)
    return out


if __name__ == "__main__":
    main()
