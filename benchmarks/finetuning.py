"""Short fine-tunes of ResNet-20 / CIFAR-10 without labels: the KL to the dense network before and after.

    python benchmarks/finetuning.py --data DIR --models DIR

Data, weights, prunable channels, calibration and selection images are those of training_free.py. The planned networks
of three shares of the MACs, as assembled and as fitted, are trained on the calibration images with the defaults of
`finetune` (loss kl, rate 0.01). `lr` is the rate that the checks on held-out images have left. KL and accuracy are
those on the 2,000 selection images, which no step and no check has seen.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from compensation.setting import open_setting
from tables import write_table
from torch import nn
from training_free import Bench, additive_search, best_planned, fit, job

from autoprune.measure.scorer import with_dense_outputs
from autoprune.run.session.job import silent
from autoprune.run.session.session import Session, open_session
from autoprune.train.examples import TrainingSet
from autoprune.train.finetune import FineTune
from autoprune.train.trainer import Trainer

NAME, SHARES, STEPS = "resnet20", (0.7, 0.5, 0.25), (0, 50, 100, 200)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--models", required=True)
    options = parser.parse_args()
    setting = open_setting(NAME, options.data, options.models)
    session = open_session(job(setting), silent)
    scored = additive_search(session)
    examples = TrainingSet.of(with_dense_outputs(session.model, setting.data.calibrate))
    rows: list[dict[str, Any]] = []
    for share in SHARES:
        chosen = best_planned(Bench(NAME, setting, session, []), share, scored)
        for how, network in (("assembled", session.scorer.network(chosen)), ("fitted", fit(session, chosen))):
            for found in trained(session, network, examples):
                rows.append({"share": share, "network": how, **found})
                print(rows[-1], flush=True)
            write_table("finetuning_resnet20.csv", "python benchmarks/finetuning.py --data DIR --models DIR", rows)


def trained(session: Session, network: nn.Module, examples: TrainingSet) -> Iterator[dict[str, Any]]:
    """The measurements after each number of steps."""
    learner = Trainer(FineTune(max(STEPS)), examples, 0).learner(network)
    for steps in STEPS:
        learner.train(steps)
        values = session.selected(learner.best())
        measured = {name: f"{values[name]:.4f}" for name in ("kl", "accuracy")}
        yield {"steps": steps, "lr": f"{learner.lr:.1e}", **measured}


if __name__ == "__main__":
    main()
