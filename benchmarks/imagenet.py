"""Networks with ImageNet weights that work without training, beside torch-pruning: uniform and planned widths.

    python benchmarks/imagenet.py --models DIR --images DIR [--size 160] [--calibrate 600]

`--models` has efficientnet_lite0.py, whose function `model` returns EfficientNet-Lite0 with its ImageNet weights;
`--images` has load.py, whose function `load` returns 1,000 images, one a class, most likely training images, so that
accuracies compare networks with each other and are no quotes. They are shuffled; the first `--calibrate` are for norms,
moments and fits, the next 150 for the search, and the last 250 for the report, which nothing else sees.

    torch-pruning l1, l2     uniform ratios, filters of largest L1 or L2 norm
    torch-pruning global     the L2 norms of all layers ranked together, divided by the largest of their group
    assembled                uniform widths, optimal brain surgeon and least squares (the bank), anchored batch norms
    planned                  widths by exact allocation over the KL of four probes a unit, or those that the search
                             measured, whichever has the lower KL on the selection images; assembled
    fitted                   the same widths, every layer fitted to the dense network's outputs on all calibration
                             images: what a front has

Batch norms of torch-pruning's networks are re-estimated on the calibration images. All networks are the largest ones
within each share of the dense MACs, as far as the method allows. `core_seconds` of planned networks leave out the
search, which has a row of its own. Rows go to results/imagenet_efficientnet_lite0.csv.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from compensation.setting import largest_within
from compensation.setting import macs as macs_of
from tables import write_table
from torch import nn
from torch.nn import functional as F
from training_free import PROBE_LEVELS, evaluations, fit, planned_within
from zoo.models import declare_torchvision_operators

from autoprune.core.evaluation import Evaluation
from autoprune.core.levels import LevelRule
from autoprune.core.objective import Objective
from autoprune.core.space import Candidate
from autoprune.data import Data
from autoprune.measure.batch import Batch
from autoprune.measure.batch_norms.recalibrate import recalibrate
from autoprune.measure.fitness import classification
from autoprune.plan.ladder import uniform_levels
from autoprune.run.session.job import Job, silent
from autoprune.run.session.session import Session, open_session
from autoprune.searchers import make_searcher

SHARES = (0.85, 0.78, 0.7, 0.5)
REPORT, SELECT, BATCH = 250, 150, 50
RIVALS = {"l1": 1, "l2": 2, "global": 2}  # the norm that ranks filters
PLANS = 8
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
    declare_torchvision_operators()  # torch-pruning imports torchvision
    model = loaded(options.models / "efficientnet_lite0.py").model()
    data = split(loaded(options.images / "load.py"), options.size, options.calibrate)
    session = open_session(job(model, data), silent)
    rows = [row(session, data, model, 1.0, "dense", 0.0)]
    start = time.process_time()
    scored = evaluations(session, "additive", 10_000, probe_levels=PROBE_LEVELS, plans=PLANS)
    rows.append({"method": f"search of {len(scored)}", "core_seconds": f"{time.process_time() - start:.1f}"})
    for share in options.shares:
        for method, build in methods(session, share, scored).items():
            start = time.process_time()
            network = build()
            rows.append(row(session, data, network, share, method, time.process_time() - start))
            print(rows[-1], flush=True)
    write(rows, options)


def methods(session: Session, share: float, scored: Sequence[Evaluation]) -> dict[str, Callable[[], nn.Module]]:
    """What makes a network within a share of the dense MACs, by method."""
    budget = share * session.dense_costs["macs"]
    uniform, planned = uniform_within(session, budget), planned_within(session, budget, scored)
    return {
        **{f"torch-pruning {method}": partial(rival, session, budget, method) for method in RIVALS},
        "assembled": partial(session.scorer.network, uniform),
        "planned": partial(session.scorer.network, planned),
        "fitted": partial(fit, session, planned),
    }


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


def uniform_within(session: Session, budget: float) -> Candidate:
    """The largest uniform widths within a number of MACs."""
    candidates = [Candidate(tuple(levels.tolist())) for levels in uniform_levels(session.space)]
    macs = {candidate: session.problem.costs_of(candidate)["macs"] for candidate in candidates}
    return max((c for c in candidates if macs[c] <= budget), key=macs.__getitem__)


def rival(session: Session, budget: float, method: str) -> nn.Module:
    """torch-pruning's largest network within a number of MACs, with re-estimated batch norms.

    Fang et al. 2023, https://arxiv.org/abs/2301.12900. All layers but the classifier's outputs are pruned.
    """
    example = session.data.example
    best = largest_within(lambda ratio: at_ratio(session.model, example, ratio, method), budget, example)
    recalibrate(best, session.scorer.calibrate)
    return best


def at_ratio(model: nn.Module, example: tuple[torch.Tensor, ...], ratio: float, method: str) -> nn.Module:
    import torch_pruning as tp

    network = copy.deepcopy(model)
    tp.pruner.BasePruner(
        network,
        example,
        importance=tp.importance.GroupMagnitudeImportance(p=RIVALS[method], normalizer="max"),
        global_pruning=method == "global",
        pruning_ratio=ratio,
        ignored_layers=[module for module in network.modules() if isinstance(module, nn.Linear)],
    ).step()
    return network


@torch.no_grad()
def row(
    session: Session,
    data: Data,
    network: nn.Module,
    share: float,
    method: str,
    seconds: float,
) -> dict[str, Any]:
    """Top-1 and the KL divergence to the dense network on the report images."""
    right, divergence = 0, 0.0
    for batch in data.report:
        dense, small = (model(*batch.inputs).log_softmax(dim=1) for model in (session.model, network))
        right += int((small.argmax(dim=1) == batch.target).sum())
        divergence += float((dense.exp() * (dense - small)).sum())
    ratio = macs_of(network, data.example) / macs_of(session.model, data.example)
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
