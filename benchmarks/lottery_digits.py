"""Lottery tickets and gradual schedules on the digits of scikit-learn, in minutes.

    python benchmarks/lottery_digits.py

Tickets: a LeNet-300-100 (Frankle and Carbin 2019) that is trained from its initial weights for 400 steps loses a fifth
of its remaining entries in every round. `ticket` trains what is left from the weights after `rewind` steps,
`random_mask` as many zeros in each weight at random places, `reinitialised` the same zeros with new random weights.
Schedules: the trained residual network of the quick start loses its entries in one round or in several, with 300
training steps in all. Accuracies are means over seeds, on 780 images that nothing else saw, with their standard error
over the seeds (of initial weights and controls; the order of the examples is always the same).
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from tables import write_table
from torch import nn

import autoprune
from autoprune.data import Data, digits, digits_train
from autoprune.zoo import digits_resnet
from autoprune.zoo.resnet import build

ROUNDS, SHARE = 16, 0.8
TICKETS = autoprune.FineTune(400, lr=0.1, loss="cross_entropy")
STEPS = 300  # of the schedules, in all
SPARSITIES = (0.9, 0.95, 0.98)
UNUSED = 20  # images of the report set, which nothing reads
Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    seeds = parser.parse_args().seeds
    data = held_out()
    rows = [*tickets(data, seeds), *schedules(data, seeds)]
    write_table("lottery_digits.csv", f"python benchmarks/lottery_digits.py --seeds {seeds}", rows)


def held_out() -> Data:
    """The digits, with almost all images that no network is trained on in the selection set."""
    drawn = digits()
    batches = [*drawn.select, *drawn.report]
    x = torch.cat([batch.inputs[0] for batch in batches])
    y = torch.cat([batch.target for batch in batches if batch.target is not None])
    calibrate, select, report = (drawn.calibrate[0].inputs[0],), (x[UNUSED:], y[UNUSED:]), (x[:UNUSED], y[:UNUSED])
    return Data.from_arrays(calibrate, select, report, train=digits_train())


def lenet() -> nn.Module:
    layers = [nn.Flatten(), nn.Linear(64, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10)]
    return nn.Sequential(*layers)


def tickets(data: Data, seeds: int) -> Iterator[Row]:
    for rewind in (0, 20):
        options = autoprune.Rounds(1 - SHARE**ROUNDS, ROUNDS, rewind=rewind, controls=True)
        runs = [
            autoprune.prune_in_rounds(build(seed, lenet), data, options, TICKETS, seed=seed).rounds
            for seed in range(seeds)
        ]
        for same in zip(*runs, strict=True):
            measured = {"ticket": [done.values["accuracy"] for done in same]}
            for name in same[0].controls:
                measured[name] = [done.controls[name]["accuracy"] for done in same]
            for method, accuracies in measured.items():
                yield shown("LeNet-300-100", method, rewind, same[0].number, same[0].sparsity, accuracies)


def schedules(data: Data, seeds: int) -> Iterator[Row]:
    for sparsity in SPARSITIES:
        for schedule, rounds in (("one shot", 1), ("geometric", 10), ("cubic", 10)):
            kind = "cubic" if schedule == "cubic" else "geometric"
            options = autoprune.Rounds(sparsity, rounds, kind)
            plan = autoprune.FineTune(STEPS // rounds, lr=0.02, loss="cross_entropy")
            found = [autoprune.prune_in_rounds(digits_resnet(seed), data, options, plan) for seed in range(seeds)]
            accuracies = [one.rounds[-1].values["accuracy"] for one in found]
            yield shown("digits_resnet", schedule, "", rounds, sparsity, accuracies)


def shown(network: str, method: str, rewind: int | str, rounds: int, sparsity: float, values: Sequence[float]) -> Row:
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    row = {"network": network, "method": method, "rewind": rewind, "rounds": rounds, "sparsity": f"{sparsity:.4f}"}
    row |= {"accuracy": f"{statistics.fmean(values):.4f}", "error": f"{error:.4f}", "seeds": len(values)}
    print(row, flush=True)
    return row


if __name__ == "__main__":
    main()
