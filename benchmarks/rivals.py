"""What other tools make of ResNet-20 and ResNet-32 on CIFAR-10 without a gradient step, at four shares of the MACs.

    python benchmarks/rivals.py --data DIR --models DIR

`--data` is CIFAR-10 in any form `autoprune.data:cifar10` reads, `--models` a folder with resnet20_cifar10.pt and
resnet32_cifar10.pt. All methods prune the channels inside blocks and leave the residual stream as it is, have the same
4,000 calibration and 2,000 selection images out of the training images, and work with one thread in channels-last
order (see compensation/ for what each does). Every row is a process of its own. `accuracy` is that of the one network a
method returns, on the 10,000 test images. `macs_ratio` counts convolutions and matrix products while the network runs.

`seconds` (on the clock) and `core_seconds` (of processor time) are from the trained network to the pruned one, without
reading data and testing, as if it were the only target. `shared_core_seconds` is the part of them that further targets
of the same network spare, since FastNAS can keep what it measured. `memory_mb` is the largest resident memory in
between, data and torch included.

Rows are written as they come; `--resume` keeps those in the file and adds the missing ones.
Needs: pip install torch-pruning nvidia-modelopt torchprofile==0.0.4
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import os
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from compensation.setting import NETWORKS, Pruned, Setting, accuracy, forget_peak, macs, open_setting, peak_mb, timed

TARGETS = (0.5, 0.7, 0.35, 0.25)
PACKAGES = {  # by rival: what to install, by the name it is imported by
    "uniform": {"torch_pruning": "torch-pruning"},
    "global": {"torch_pruning": "torch-pruning"},
    "fastnas": {"modelopt": "nvidia-modelopt", "torchprofile": "torchprofile==0.0.4"},
    "eagleeye": {},
}
COLUMNS = (
    *("network", "rival", "method", "target", "macs_ratio", "accuracy"),
    *("seconds", "core_seconds", "shared_core_seconds", "memory_mb"),
)
Row = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """One row to be measured, and where everything for it lies."""

    network: str
    rival: str
    target: float
    candidates: int
    data: str
    models: str
    checkpoints: Path


def main() -> None:
    options = arguments()
    require(options.rivals)
    rows = read(options.out) if options.resume and options.out.exists() else []
    done = {(row["network"], row["rival"], float(row["target"])) for row in rows}
    for task in tasks(options):
        if (task.network, task.rival, task.target) not in done:
            rows.append(in_own_process(task))
            print(rows[-1], flush=True)
            write(options.out, rows, options)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--models", required=True)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--rivals", nargs="+", default=list(PACKAGES), choices=list(PACKAGES))
    parser.add_argument("--targets", nargs="+", type=float, default=list(TARGETS), help="shares of the dense MACs")
    parser.add_argument(
        "--candidates", nargs="+", type=int, default=[100], help="networks EagleEye scores, for all or for each target"
    )
    parser.add_argument(
        "--checkpoints",
        type=Path,
        default=Path(tempfile.gettempdir(), "autoprune-rivals"),
        help="folder for FastNAS's scores",
    )
    parser.add_argument("--resume", action="store_true", help="keep the rows in the file, add the missing ones")
    parser.add_argument("--out", type=Path, default=Path("results/rivals_cifar10.csv"))
    options = parser.parse_args()
    if len(options.candidates) not in (1, len(options.targets)):
        parser.error(f"--candidates: expected 1 or {len(options.targets)} numbers, got {len(options.candidates)}")
    return options


def require(rivals: Sequence[str]) -> None:
    wanted = {module: package for rival in rivals for module, package in PACKAGES[rival].items()}
    missing = [package for module, package in wanted.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise SystemExit(f"not installed: pip install {' '.join(missing)}, or choose others with --rivals")


def tasks(options: argparse.Namespace) -> Iterator[Task]:
    """Row by row, all methods at one target before the next."""
    counts = options.candidates * (len(options.targets) // len(options.candidates))
    for (target, count), rival, network in product(
        zip(options.targets, counts, strict=True), options.rivals, options.networks
    ):
        yield Task(network, rival, target, count, options.data, options.models, options.checkpoints)


def in_own_process(task: Task) -> Row:
    """The row, measured where nothing else has used memory or set torch up."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(measured, task).result()


def measured(task: Task) -> Row:
    torch.set_num_threads(1)
    setting = open_setting(task.network, task.data, task.models)
    forget_peak()
    pruned, spent = timed(lambda: prune(setting, task))
    spent += pruned.earlier
    memory = peak_mb()
    example = setting.data.example
    return {
        "network": task.network,
        "rival": task.rival,
        "method": pruned.method,
        "target": task.target,
        "macs_ratio": f"{macs(pruned.network, example) / macs(setting.model, example):.4f}",
        "accuracy": f"{accuracy(pruned.network, setting.data.report):.4f}",
        "seconds": f"{spent.wall_s:.1f}",
        "core_seconds": f"{spent.core_s:.1f}",
        "shared_core_seconds": f"{pruned.shared.core_s:.1f}",
        "memory_mb": f"{memory:.0f}",
    }


def prune(setting: Setting, task: Task) -> Pruned:
    """What the rival returns; its package is imported here and nowhere else."""
    if task.rival == "fastnas":
        from compensation import fastnas

        return fastnas.prune(setting, task.target, task.checkpoints / task.network)
    if task.rival == "eagleeye":
        from compensation import eagleeye

        return eagleeye.prune(setting, task.target, task.candidates)
    from compensation import torch_pruning

    return torch_pruning.prune(setting, task.target, "global" if task.rival == "global" else "uniform")


def read(path: Path) -> list[Row]:
    with path.open(newline="") as file:
        return list(csv.DictReader(line for line in file if not line.startswith("#")))


def write(path: Path, rows: Sequence[Row], options: argparse.Namespace) -> None:
    """The table so far, replaced in one step; its first line is the command."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    candidates = " ".join(map(str, options.candidates))
    order = list(PACKAGES)
    rows = sorted(rows, key=lambda row: (row["network"], -float(row["target"]), order.index(row["rival"])))
    with part.open("w", newline="") as file:
        file.write(f"# python benchmarks/rivals.py --data DIR --models DIR --candidates {candidates}\n")
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    os.replace(part, path)


if __name__ == "__main__":
    main()
