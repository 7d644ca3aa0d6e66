"""Zeros in the weights of ResNet-20 / CIFAR-10 in rounds against one shot, with as many training steps in all.

    python benchmarks/rounds_resnet20.py --data DIR --models DIR

`--data` is CIFAR-10 in any form `autoprune.data:cifar10` reads, `--models` a folder with resnet20_cifar10.pt. The
entries of smallest absolute value of all weights become zeros in one round, or in several by a geometric or cubic
schedule; the network is trained after each round, `--steps` steps in all, on training images that are neither flipped
nor moved, at a constant rate. Rows are written to results/rounds_resnet20.csv with the accuracy on the 10,000 test
images.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from compensation.setting import accuracy, timed
from tables import write_table
from torch import nn

import autoprune
from autoprune.data import cifar10
from autoprune.zoo import resnet20

SCHEDULES = ("one shot", "geometric", "cubic")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--models", required=True)
    parser.add_argument("--sparsities", nargs="+", type=float, default=[0.9, 0.95])
    parser.add_argument("--steps", type=int, default=4400, help="in all")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--lr", type=float, default=0.01)
    options = parser.parse_args()
    model = resnet20(Path(options.models) / "resnet20_cifar10.pt")
    data = cifar10(options.data, seed=0)
    rows = [row(model, data, sparsity, how, options) for sparsity in options.sparsities for how in SCHEDULES]
    command = f"python benchmarks/rounds_resnet20.py --data DIR --models DIR --steps {options.steps} --lr {options.lr}"
    write_table("rounds_resnet20.csv", f"{command} --rounds {options.rounds}", rows)


def row(
    model: nn.Module, data: autoprune.Data, sparsity: float, how: str, options: argparse.Namespace
) -> dict[str, Any]:
    """A line of the table: the network with a share of zeros by one schedule."""
    rounds = 1 if how == "one shot" else options.rounds
    chosen = autoprune.Rounds(sparsity, rounds, "cubic" if how == "cubic" else "geometric")
    training = autoprune.FineTune(options.steps // rounds, lr=options.lr, loss="cross_entropy")
    found, spent = timed(lambda: autoprune.prune_in_rounds(model, data, chosen, training))
    line = {
        "schedule": how,
        "rounds": rounds,
        "sparsity": f"{found.rounds[-1].sparsity:.4f}",
        "steps": options.steps // rounds * rounds,
        "accuracy": f"{accuracy(found.network, data.report):.4f}",
        "core_seconds": f"{spent.core_s:.0f}",
    }
    print(line, flush=True)
    return line


if __name__ == "__main__":
    main()
