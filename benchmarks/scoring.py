"""Seconds per candidate against one bare forward pass of the same pruned network over the same images.

    python benchmarks/scoring.py --data DIR --weights FILE

The job is configs/cifar10_resnet20.yaml. A score stitches the network, re-estimates its batch norms on the 500
calibration images and measures accuracy and KL on the 2,000 selection images. The bare pass runs the finished network
in eval mode over the same 2,500 images in the same batches and layout, and does nothing with the outputs. Score and
pass alternate, so that a slow moment of the machine hits both; medians over the repetitions. `ratio` is score over bare
pass, `ratio_select` the score over a bare pass of the 2,000 selection images alone; `new` scores meet every candidate
for the first time, when its least squares are still to be solved.
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
from autoprune.run.session import Session, open_session
from autoprune.search.repair import fit

CONFIG = Path(__file__).parents[1] / "configs" / "cifar10_resnet20.yaml"
SHARES = (0.3, 0.5, 0.7, 0.9)

Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--repetitions", type=int, default=15)
    parser.add_argument("--out", type=Path, default=Path("results/scoring_resnet20_cifar10.csv"))
    options = parser.parse_args()
    job = load(CONFIG, [f"data.root={options.data}", f"model.weights={options.weights}"]).resolve()
    session = open_session(job, lambda progress: None)
    rng = np.random.default_rng(0)
    session.scorer.score(session.space.smallest)  # whatever torch sets up once
    rows = [measure(session, candidate_at(session, share, rng), options.repetitions) for share in SHARES]
    for row in rows:
        print(row)
    options.out.parent.mkdir(exist_ok=True)
    with options.out.open("w", newline="") as file:
        file.write(f"# python benchmarks/scoring.py --data DIR --weights FILE --repetitions {options.repetitions}\n")
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def candidate_at(session: Session, share: float, rng: np.random.Generator) -> Candidate:
    """A random candidate with about that share of the MACs."""
    levels = fit(session.problem, rng.integers(session.space.sizes), rng, "macs", share * session.dense_costs["macs"])
    return Candidate(tuple(levels.tolist()))


@torch.no_grad()
def measure(session: Session, candidate: Candidate, repetitions: int) -> Row:
    scorer = session.scorer
    new = timed(lambda: scorer.score(candidate))
    network = scorer.network(candidate)
    selection = [batch.inputs for batch in scorer.select]
    seconds: dict[str, list[float]] = {"score": [], "bare": [], "bare_select": []}
    for _ in range(repetitions):
        seconds["score"].append(timed(lambda: scorer.score(candidate)))
        seconds["bare"].append(timed(lambda: [network(*inputs) for inputs in (*scorer.calibrate, *selection)]))
        seconds["bare_select"].append(timed(lambda: [network(*inputs) for inputs in selection]))
    median = {name: statistics.median(values) for name, values in seconds.items()}
    macs = session.problem.cost_values(np.array([candidate.levels]))["macs"][0] / session.dense_costs["macs"]
    return {
        "macs_ratio": round(float(macs), 3),
        "score_s": round(median["score"], 4),
        "bare_s": round(median["bare"], 4),
        "ratio": round(median["score"] / median["bare"], 3),
        "ratio_select": round(median["score"] / median["bare_select"], 3),
        "ratio_new": round(new / median["bare"], 3),
    }


def timed(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
