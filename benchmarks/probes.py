"""Seconds for all one-unit probes of a ResNet-56 with and without reuse of what runs before the probed unit.

    python benchmarks/probes.py

The network has random weights and the images are random: neither changes how much is computed. Each unit is probed at
half its width, `--rounds` times over, as levels of the same unit follow in a search; the first round computes what the
others reuse. Rounds with and without reuse alternate. Scores must agree to the last bit, or the script stops. Seconds
are processor seconds of one thread.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from autoprune.core.levels import LevelRule
from autoprune.core.objective import Objective
from autoprune.core.space import Candidate
from autoprune.data import Data
from autoprune.measure.batch_norms.contract import PolicyName
from autoprune.measure.batch_norms.recalibrate import recalibrate
from autoprune.measure.fitness import classification
from autoprune.measure.scorer import Scorer
from autoprune.run.session.job import Job
from autoprune.run.session.session import Session, open_session
from autoprune.searchers import make_searcher
from autoprune.zoo import ResNet

BATCH = 100

Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--calibrate", type=int, default=200)
    parser.add_argument("--select", type=int, default=800)
    parser.add_argument("--out", type=Path, default=Path("results/probes_resnet56.csv"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    session = open_session(job(options.calibrate, options.select), lambda progress: None)
    rows = [row for norms in ("anchored", "batch") for row in measure(session, norms, options.rounds)]
    options.out.parent.mkdir(exist_ok=True)
    with options.out.open("w", newline="") as file:
        file.write(
            f"# python benchmarks/probes.py --rounds {options.rounds} --calibrate {options.calibrate} "
            f"--select {options.select}\n"
        )
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def job(calibrate: int, select: int) -> Job:
    """Inner widths of a ResNet-56, halved or not."""
    rng = np.random.default_rng(0)
    images = [rng.standard_normal((count, 3, 32, 32)).astype(np.float32) for count in (calibrate, select, BATCH)]
    labels = [rng.integers(0, 10, len(x)) for x in images]
    data = Data.from_arrays((images[0],), (images[1], labels[1]), (images[2], labels[2]), batch_size=BATCH)
    return Job(
        name="probes",
        model=lambda: network(torch.from_numpy(images[0][:BATCH])),
        data=lambda: data,
        rules=(LevelRule("layer*.conv1", (0.5,)),),
        objectives=(Objective("accuracy", "max"), Objective("macs", "min")),
        searcher=lambda problem, seed: make_searcher("additive", problem, seed=seed),
        fitness=classification,
        criterion="l1",
        threads=1,
        tune="off",
    )


def network(images: torch.Tensor) -> nn.Module:
    """Random weights, with batch norms that fit them."""
    torch.manual_seed(0)
    model = ResNet((9, 9, 9)).eval()
    recalibrate(model, [(images,)])
    return model


def measure(session: Session, norms: PolicyName, rounds: int) -> list[Row]:
    reusing = session.scorer.with_scoring(batch_norms=norms)
    plain = reusing.with_scoring(reuse_gib=0)
    units = len(session.space.units)
    probes = [Candidate(tuple(int(unit == probed) for unit in range(units))) for probed in range(units)]
    for scorer in (reusing, plain):
        scorer.score(session.space.smallest)  # what is set up once, and reuses nothing
    rows = []
    for number in range(1, rounds + 1):
        without, expected = timed(plain, probes)
        with_reuse, got = timed(reusing, probes)
        if got != expected:
            raise SystemExit("scores with reuse differ from those without")
        rows.append(
            {
                "batch_norms": norms,
                "round": number,
                "probes": len(probes),
                "seconds": round(without, 2),
                "seconds_with_reuse": round(with_reuse, 2),
                "ratio": round(without / with_reuse, 2),
                "kept_mib": reusing.stage.kept_bytes >> 20,
            }
        )
        print(rows[-1], flush=True)
    return rows


def timed(scorer: Scorer, candidates: Sequence[Candidate]) -> tuple[float, list[dict[str, float]]]:
    start = time.process_time()
    evaluations = [scorer.score(candidate) for candidate in candidates]
    return time.process_time() - start, [dict(evaluation.values) for evaluation in evaluations]


if __name__ == "__main__":
    main()
