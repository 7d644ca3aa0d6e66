"""Seconds per candidate against one bare forward pass of the same pruned network over the same images.

    python benchmarks/scoring.py --data DIR --weights FILE

The job is configs/cifar10_resnet20.yaml. A score in two passes stitches the network, re-estimates its batch norms on
the 500 calibration images and measures accuracy and KL on the 2,000 selection images; a quick score has the second pass
alone, with statistics of the batch at hand. The bare pass runs the finished network in eval mode over the same images
in the same form and does nothing with the outputs. Score and pass alternate, so that a slow moment of the machine hits
both; medians over the repetitions, in processor seconds of one thread. `ratio` is score over bare pass, `ratio_new`
that of the first score of a candidate, when its least squares are still to be solved. Every way to score has other
random candidates, and nothing is reused between them.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from autoprune.config import load
from autoprune.core.space import Candidate
from autoprune.measure.batch_norms.contract import PolicyName
from autoprune.measure.form import Form
from autoprune.measure.scorer import Scorer
from autoprune.plan.repair import fit_to_budget
from autoprune.run.session.session import Session, open_session

CONFIG = Path(__file__).parents[1] / "configs" / "cifar10_resnet20.yaml"
SHARES = (0.3, 0.5, 0.7, 0.9)
WAYS: tuple[tuple[PolicyName, Form], ...] = (
    ("anchored", Form("channels_last")),
    ("batch", Form("channels_last")),
    ("batch", Form("channels_last", "bfloat16", 250)),
)

Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--repetitions", type=int, default=15)
    parser.add_argument("--out", type=Path, default=Path("results/scoring_resnet20_cifar10.csv"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    settings = [f"data.root={options.data}", f"model.weights={options.weights}", "run.tune=off", "run.reuse_gib=0"]
    session = open_session(load(CONFIG, settings).resolve(), lambda progress: None)
    rng = np.random.default_rng(0)
    rows = []
    for norms, form in WAYS:
        scorer = session.scorer.with_scoring(batch_norms=norms, form=form)
        scorer.score(session.space.smallest)  # whatever is set up once
        for share in SHARES:
            rows.append(measure(session, scorer, candidate_at(session, share, rng), options.repetitions))
            print(rows[-1], flush=True)
    options.out.parent.mkdir(exist_ok=True)
    with options.out.open("w", newline="") as file:
        file.write(f"# python benchmarks/scoring.py --data DIR --weights FILE --repetitions {options.repetitions}\n")
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def candidate_at(session: Session, share: float, rng: np.random.Generator) -> Candidate:
    """A random candidate with about that share of the MACs."""
    levels = fit_to_budget(
        session.problem, rng.integers(session.space.sizes), rng, "macs", share * session.dense_costs["macs"]
    )
    return Candidate(tuple(levels.tolist()))


@torch.no_grad()
def measure(session: Session, scorer: Scorer, candidate: Candidate, repetitions: int) -> Row:
    new = timed(lambda: scorer.score(candidate))
    network = scorer.scoring.form.dress(scorer.network(candidate)).eval()
    inputs = [batch.inputs for batch in scorer.stage.batches]
    if scorer.scoring.batch_norms != "batch":
        inputs += scorer.scoring.form.inputs(scorer.calibrate)
    scores, passes = [], []
    for _ in range(repetitions):
        scores.append(timed(lambda: scorer.score(candidate)))
        with scorer.scoring.form.running(session.device):
            passes.append(timed(lambda: [network(*given) for given in inputs]))
    score, bare = statistics.median(scores), statistics.median(passes)
    macs = session.problem.costs_of(candidate)["macs"] / session.dense_costs["macs"]
    return {
        "score": "quick" if scorer.scoring.batch_norms == "batch" else "two passes",
        "dtype": scorer.scoring.form.dtype,
        "macs_ratio": round(macs, 3),
        "score_s": round(score, 4),
        "bare_s": round(bare, 4),
        "ratio": round(score / bare, 3),
        "ratio_new": round(new / bare, 3),
    }


def timed(action: Callable[[], object]) -> float:
    start = time.process_time()
    action()
    return time.process_time() - start


if __name__ == "__main__":
    main()
