"""KL to the dense network with batch norms re-estimated, and with them anchored (measure/batch_norms/two_pass.py).

    python benchmarks/batch_norms.py --data DIR --weights FILE

The job is configs/cifar10_resnet20.yaml: 500 calibration images, KL and accuracy on the 2,000 selection images (never
the test images). Uniform networks are the same in both columns; each plan is made from its own column's probes.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from autoprune.config import load
from autoprune.core.evaluation import Evaluation
from autoprune.core.space import Candidate
from autoprune.measure.batch_norms.recalibrate import recalibrate
from autoprune.measure.scorer import Scorer
from autoprune.plan.allocation import plan
from autoprune.plan.damages import damage_table, probes
from autoprune.prune.modules.copies import copy_model
from autoprune.run.session.session import Session, open_session

CONFIG = Path(__file__).parents[1] / "configs" / "cifar10_resnet20.yaml"
UNIFORM = (7 / 8, 6 / 8, 4 / 8)
BUDGETS = (0.7, 0.5)
PROBED = 8  # levels a unit

Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--out", type=Path, default=Path("results/batch_norms_resnet20_cifar10.csv"))
    options = parser.parse_args()
    job = load(CONFIG, [f"data.root={options.data}", f"model.weights={options.weights}"]).resolve()
    session = open_session(job, lambda progress: None)
    rows: list[Row] = []
    reestimated = session.scorer.with_scoring(batch_norms="reestimated")
    for name, scorer in (("re-estimated", reestimated), ("anchored", session.scorer)):
        rows += [{"batch_norms": name, **row} for row in measure(session, scorer)]
    for row in rows:
        print(row)
    options.out.parent.mkdir(exist_ok=True)
    with options.out.open("w", newline="") as file:
        file.write("# python benchmarks/batch_norms.py --data DIR --weights FILE\n")
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def measure(session: Session, scorer: Scorer) -> list[Row]:
    dense = copy_model(session.model)
    recalibrate(dense, scorer.calibrate)
    if scorer.anchor is not None:
        scorer.anchor.correct(dense, {})
    rows = [row("dense", 1.0, scorer.measure(dense, scorer.select))]
    rows += [scored(session, scorer, f"uniform {share:g}", uniform(session, share)) for share in UNIFORM]
    told = [evaluate(session, scorer, Candidate(levels)) for levels in probes(session.problem, PROBED)]
    table = damage_table(session.problem, told)
    for budget in BUDGETS:
        levels = plan(session.problem, table, "macs", budget * session.dense_costs["macs"])
        rows.append(scored(session, scorer, f"plan {budget:g}", Candidate(levels)))
    return rows


def uniform(session: Session, share: float) -> Candidate:
    return Candidate(tuple(counts.index(round(share * counts[0])) for counts in session.space.levels))


def evaluate(session: Session, scorer: Scorer, candidate: Candidate) -> Evaluation:
    """A score with the candidate's costs, as searchers get it."""
    evaluation = scorer.score(candidate)
    return replace(evaluation, values={**evaluation.values, **session.problem.costs_of(candidate)})


def scored(session: Session, scorer: Scorer, name: str, candidate: Candidate) -> Row:
    values = evaluate(session, scorer, candidate).values
    return row(name, values["macs"] / session.dense_costs["macs"], values)


def row(name: str, ratio: float, values: Mapping[str, float]) -> Row:
    return {
        "network": name,
        "macs_ratio": round(ratio, 4),
        "kl": round(values["kl"], 4),
        "accuracy": round(values["accuracy"], 4),
    }


if __name__ == "__main__":
    main()
