"""Whether values before training foretell which ResNet-20 is better after it, on CIFAR-10 at one share of the MACs.

    python benchmarks/audit_resnet20.py --data DIR --models DIR --run DIR

`--data` is CIFAR-10 in any form `autoprune.data:cifar10` reads, `--models` a folder with resnet20_cifar10.pt, `--run`
the folder of the run, which is made unless it is there: a killed benchmark goes on where it was. The setting is that of
training_free.py: channels inside blocks, 4,000 unlabelled calibration and 2,000 selection images out of the training
images. The networks are those of docs/audit.md (some of them with other positions as well), within 5 % of the share of
the MACs; each is trained on the other 44,000 training images with 2
seeds, flipped and cropped at random. Values before training are from the
selection images, those after it from the 10,000 test images.

Tables: one row for each value before and after training in results/audit_resnet20.csv, one row for each network in
results/audit_resnet20_networks.csv, and with `--scratch` the differences from new random weights in
results/audit_resnet20_scratch.csv.
"""

from __future__ import annotations

import argparse
import csv
from dataclasses import asdict
from pathlib import Path

import torch
from compensation.setting import CALIBRATE, SELECT
from tables import write_table

import autoprune
from autoprune.core.levels import LevelRule
from autoprune.data import cifar10
from autoprune.zoo import resnet20

SIXTEENTHS = tuple(step / 16 for step in range(1, 16))
BAND = 0.05  # to each side of the share, relative to it
FRONT = 4  # networks that the search builds; the audit needs its evaluations only


def main() -> None:
    options = arguments()
    model = resnet20(Path(options.models) / "resnet20_cifar10.pt")
    data = cifar10(options.data, calibrate=CALIBRATE, select=SELECT, seed=0)
    front = opened(model, data, options)
    low, high = (options.share * (1 + side * BAND) for side in (-1, 1))
    length = {"steps": options.steps} if options.steps else {"epochs": options.epochs}
    rates = {"lr": options.lr, "scratch_lr": options.scratch_lr, "augment": "flip_crop"}
    seeds, scratch = options.seeds, options.scratch
    found = front.audit(options.networks, band=f"macs={low}..{high}", **length, seeds=seeds, scratch=scratch, **rates)
    print(found)
    command = (
        f"python benchmarks/audit_resnet20.py --data DIR --models DIR --run DIR --networks {options.networks} "
        f"--share {options.share} ({found.setting}; torch {torch.__version__})"
    )
    write_table("audit_resnet20.csv", command, [asdict(row) for row in found.agreements])
    write_table("audit_resnet20_networks.csv", command, [*csv.DictReader(found.to_csv().splitlines())])
    if found.inherited:
        write_table("audit_resnet20_scratch.csv", command, [asdict(row) for row in found.inherited])


def opened(model: torch.nn.Module, data: autoprune.Data, options: argparse.Namespace) -> autoprune.PrunedFront:
    """The front of the run, which is made or continued if need be."""
    if (options.run / "front.json").exists():
        return autoprune.open_run(options.run, model, data)
    if (options.run / "job.yaml").exists():
        return autoprune.open_run(options.run, model, data).resume()
    rules = [LevelRule("layer*.conv1", SIXTEENTHS, min_keep=2)]
    given = {"rules": rules, "evaluations": options.evaluations, "front_size": FRONT, "threads": 1}
    return autoprune.search(model, data, **given, out=options.run)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--models", required=True)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--share", type=float, default=0.5, help="of the MACs")
    parser.add_argument("--networks", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--steps", type=int, help="in place of epochs")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--scratch", action="store_true")
    parser.add_argument("--lr", type=float, default=0.01)
    parser.add_argument("--scratch-lr", type=float, default=0.1)
    parser.add_argument("--evaluations", type=int, default=300, help="of the search")
    return parser.parse_args()


if __name__ == "__main__":
    main()
