"""Networks with ImageNet weights that work without training: what fits to the dense network add to assembled ones.

    python benchmarks/imagenet.py --models DIR --images DIR [--size 160] [--calibrate 600]

`--models` has efficientnet_lite0.py, whose function `model` returns EfficientNet-Lite0 with its ImageNet weights;
`--images` has load.py, whose function `load` returns 1,000 images, one a class, most likely training images, so that
accuracies compare networks with each other and are no quotes. They are shuffled; the first `--calibrate` are for norms,
moments and fits, and the last 250 for the report, which nothing else sees. Widths are uniform: the largest ones within
each share of the dense MACs.

    l2         filters of largest L2 norm, batch norms re-estimated: what tools without compensation do
    assembled  optimal brain surgeon and least squares (the bank), anchored batch norms: what a search scores
    fitted     every layer fitted to the dense network's outputs on all calibration images: what a front has

Rows go to results/imagenet_efficientnet_lite0.csv.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from tables import write_table
from torch import nn
from torch.nn import functional as F

from autoprune.core.levels import LevelRule
from autoprune.core.objective import Objective
from autoprune.core.space import Candidate
from autoprune.data import Data
from autoprune.measure.batch import Batch
from autoprune.measure.batch_norms.recalibrate import recalibrate
from autoprune.measure.fitness import classification
from autoprune.plan.ladder import uniform_levels
from autoprune.prune.compensation.compensate import compensate
from autoprune.prune.shrink import shrink
from autoprune.run.session.job import Job, silent
from autoprune.run.session.session import Session, open_session
from autoprune.searchers import make_searcher

SHARES = (0.85, 0.78, 0.7, 0.5)
REPORT, SELECT, BATCH = 250, 50, 50
LEVELS = tuple(step / 32 for step in range(8, 32))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--size", type=int, default=160, help="of the images, in pixels")
    parser.add_argument("--calibrate", type=int, default=600, help="number of images for statistics and fits")
    parser.add_argument("--shares", type=float, nargs="+", default=SHARES, help="of the dense MACs")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = loaded(options.models / "efficientnet_lite0.py").model()
    data = split(loaded(options.images / "load.py"), options.size, options.calibrate)
    session = open_session(job(model, data), silent)
    rows = [row(session, data, model, 1.0, "dense", None, 0.0)]
    for share in options.shares:
        chosen = uniform_within(session, share)
        for method, build in {"l2": by_norm, "assembled": session.scorer.network, "fitted": fitted}.items():
            start = time.process_time()
            network = build(chosen) if method == "assembled" else build(session, chosen)
            rows.append(row(session, data, network, share, method, chosen, time.process_time() - start))
            print(rows[-1], flush=True)
    write(rows, options)


def loaded(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None, path
    assert spec.loader is not None, path
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def split(images: ModuleType, size: int, calibrate: int) -> Data:
    """All images, shuffled: calibration first, report last."""
    pixels, labels = images.load()
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    x = (torch.from_numpy(pixels)[order].permute(0, 3, 1, 2).float() - 127) / 128
    x = F.interpolate(x, size=size, mode="bilinear", antialias=True)
    y = torch.from_numpy(labels)[order]
    sets = {"calibrate": slice(0, calibrate), "select": slice(calibrate, calibrate + SELECT)}
    batches = {name: batched(x[part], y[part]) for name, part in sets.items()}
    return Data(**batches, report=batched(x[-REPORT:], y[-REPORT:]))


def batched(x: torch.Tensor, y: torch.Tensor) -> tuple[Batch, ...]:
    return tuple(Batch((a,), b) for a, b in zip(x.split(BATCH), y.split(BATCH), strict=True))


def job(model: nn.Module, data: Data) -> Job:
    return Job(
        name="imagenet",
        model=lambda: model,
        data=lambda: data,
        rules=(LevelRule("*", LEVELS),),
        objectives=(Objective("accuracy", "max"), Objective("macs", "min")),
        searcher=lambda problem, seed: make_searcher("random", problem, seed=seed),
        fitness=classification,
    )


def uniform_within(session: Session, share: float) -> Candidate:
    """The largest uniform widths within a share of the dense MACs."""
    candidates = [Candidate(tuple(levels.tolist())) for levels in uniform_levels(session.space)]
    macs = {candidate: session.problem.costs_of(candidate)["macs"] for candidate in candidates}
    return max((c for c in candidates if macs[c] <= share * session.dense_costs["macs"]), key=macs.__getitem__)


def by_norm(session: Session, candidate: Candidate) -> nn.Module:
    network = shrink(session.model, session.structure, session.space.counts(candidate))
    recalibrate(network, session.scorer.calibrate)
    return network


def fitted(session: Session, candidate: Candidate) -> nn.Module:
    subnet = session.scorer.subnet(candidate)
    network = session.bank.build(subnet)
    compensate(network, session.structure, session.reference, subnet.indices)
    return network


@torch.no_grad()
def row(
    session: Session,
    data: Data,
    network: nn.Module,
    share: float,
    method: str,
    candidate: Candidate | None,
    seconds: float,
) -> dict[str, Any]:
    """Top-1 and the KL divergence to the dense network on the report images."""
    right, divergence = 0, 0.0
    for batch in data.report:
        dense, small = (model(*batch.inputs).log_softmax(dim=1) for model in (session.model, network))
        right += int((small.argmax(dim=1) == batch.target).sum())
        divergence += float((dense.exp() * (dense - small)).sum())
    ratio = 1.0 if candidate is None else session.problem.costs_of(candidate)["macs"] / session.dense_costs["macs"]
    return {
        "share": share,
        "method": method,
        "macs_ratio": f"{ratio:.4f}",
        "top1": f"{right / REPORT:.3f}",
        "kl": f"{divergence / REPORT:.4f}",
        "core_seconds": f"{seconds:.1f}",
    }


def write(rows: list[dict[str, Any]], options: argparse.Namespace) -> None:
    command = (
        f"python benchmarks/imagenet.py --models DIR --images DIR --size {options.size} "
        f"--calibrate {options.calibrate} (torch {torch.__version__}, 1 thread)"
    )
    write_table("imagenet_efficientnet_lite0.csv", command, rows)


if __name__ == "__main__":
    main()
