"""Where to put the zeros: allocations of unstructured sparsity on ResNet-32 / CIFAR-10, without a gradient step.

    python benchmarks/unstructured.py --data DIR --weights FILE

DIR is CIFAR-10 in any form `autoprune.data:cifar10` reads, FILE the state dict of a ResNet-32. The job is
configs/rd_resnet32.yaml on the grid of SPDY. Every allocation says how many weights each layer keeps; each is made into
a network in the same two ways, with the mask and update of optimal brain surgeon and with plain magnitudes, and batch
norms are treated alike in all. Sparsity is the share removed of the weights of convolutions and the linear layer.

`planned_mse` and `planned_kl` are the best sums of what single layers do to the logits (dynamic programming over the
same probes, made once for each way); `seconds` of theirs hold the probes. `refined` is what search.refinement makes of
the best of all others, by the KL on the selection images. `global` is the magnitude over all layers,
`lamp` Lee et al. 2021 (https://arxiv.org/abs/2010.07611), `erk` Evci et al. 2020 (https://arxiv.org/abs/1911.11134),
`uniform` the same share everywhere. `kl` is on the selection images, `accuracy` on the 10,000 test images, looked at
when all networks are there.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from autoprune.config import load
from autoprune.core.evaluation import Evaluation
from autoprune.core.space import Candidate
from autoprune.run.session import Session, open_session
from autoprune.search import closed_form
from autoprune.search.allocation import plan
from autoprune.search.distortion import distortions_from, probes
from autoprune.search.refinement import Refinement

CONFIG = Path(__file__).parents[1] / "configs" / "rd_resnet32.yaml"
SPACE = {"version": 1, "units": [{"match": "*", "kind": "weights", "grid": "spdy"}]}

PLANNED = ("planned_mse", "planned_kl")

Row = dict[str, Any]
Counts = dict[str, int]
Allocation = Callable[[Sequence[np.ndarray], float], np.ndarray]  # (weights, share kept) -> counts


@dataclass(frozen=True)
class Planned:
    """The probes of one way to make weights sparse, and the seconds they took."""

    evaluations: tuple[Evaluation, ...]
    seconds: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--sparsities", type=float, nargs="+", default=[0.8, 0.9, 0.95])
    parser.add_argument("--masks", nargs="+", default=["obs", "magnitude"])
    parser.add_argument("--probe-levels", type=int, default=12)
    parser.add_argument("--out", type=Path, default=Path("results/unstructured_resnet32_cifar10.csv"))
    options = parser.parse_args()
    networks, rows = [], []
    for masks in options.masks:
        session = open_run(masks, options)
        probed = probe(session, options.probe_levels)
        print(f"{masks}: {len(probed.evaluations)} probes in {probed.seconds:.0f} s", flush=True)
        for sparsity in options.sparsities:
            for name in (*PLANNED, *ALLOCATIONS, "refined"):
                network, row = make(session, probed, masks, name, sparsity)
                networks.append(network)
                rows.append(row)
                print(row, flush=True)
    for network, row in zip(networks, rows, strict=True):
        row["accuracy"] = session.scorer.measure(network, session.reported)["accuracy"]
    dense = session.scorer.measure(session.model, session.reported)["accuracy"]
    write(options.out, rows, dense, options)


def open_run(masks: str, options: argparse.Namespace) -> Session:
    overrides = {"data.root": options.data, "model.weights": options.weights, "masks": masks, "space": SPACE}
    job = load(CONFIG, [f"{key}={value}" for key, value in overrides.items()]).resolve()
    return open_session(job, lambda progress: None)


def probe(session: Session, per_unit: int) -> Planned:
    """Every layer alone at some levels."""
    start = time.perf_counter()
    candidates = [Candidate(levels) for levels in probes(session.problem, per_unit)]
    evaluations = tuple(scored(session, candidate) for candidate in candidates)
    return Planned(evaluations, time.perf_counter() - start)


def make(session: Session, probed: Planned, masks: str, name: str, sparsity: float) -> tuple[nn.Module, Row]:
    """The network of one allocation, and what is known of it without the test images."""
    start = time.perf_counter()
    weights = {unit: session.model.get_parameter(unit).detach().cpu().double().numpy() for unit in session.space.units}
    if name == "refined":
        counts = refined(session, probed.evaluations, weights, sparsity)
    else:
        counts = allocated(session, probed.evaluations, weights, name, sparsity)
    network = session.scorer.build(counts)
    seconds = time.perf_counter() - start
    costs = session.problem.costs.evaluate(list(counts), np.array([list(counts.values())]))
    return network, {
        "sparsity": sparsity,
        "weights": masks,
        "allocation": name,
        "kept": sum(counts.values()),
        "nonzeros_ratio": round(costs["nonzeros"][0].item() / session.dense_costs["nonzeros"], 4),
        "effective_macs_ratio": round(costs["effective_macs"][0].item() / session.dense_costs["effective_macs"], 4),
        "kl": round(session.scorer.measure(network, session.scorer.select)["kl"], 4),
        "seconds": round(seconds + (probed.seconds if name in (*PLANNED, "refined") else 0.0), 1),
    }


def allocated(
    session: Session, evaluations: Sequence[Evaluation], weights: Mapping[str, np.ndarray], name: str, sparsity: float
) -> Counts:
    """How many weights each layer keeps."""
    if name in PLANNED:
        return planned(session, evaluations, name.removeprefix("planned_"), kept_in_all(weights, sparsity))
    kept = ALLOCATIONS[name](list(weights.values()), 1 - sparsity)
    return dict(zip(weights, kept.tolist(), strict=True))


def kept_in_all(weights: Mapping[str, np.ndarray], sparsity: float) -> int:
    return round((1 - sparsity) * sum(weight.size for weight in weights.values()))


def refined(
    session: Session, evaluations: Sequence[Evaluation], weights: Mapping[str, np.ndarray], sparsity: float
) -> Counts:
    """The best of all other allocations, moved onto the grid, after search.refinement."""
    problem = replace(session.problem, distortion="kl")
    budget = budget_of(session, kept_in_all(weights, sparsity))
    refinement = Refinement(problem, distortions_from(problem, evaluations), "nonzeros", budget)
    starts = [allocated(session, evaluations, weights, name, sparsity) for name in (*PLANNED, *ALLOCATIONS)]
    asked = [Candidate(levels) for levels in dict.fromkeys(on_grid(session, counts) for counts in starts)]
    while asked:
        refinement.tell([scored(session, candidate) for candidate in asked])
        asked = refinement.ask(len(weights))
    assert refinement.best is not None, "the starts are within the budget"
    return problem.space.counts(Candidate(refinement.best))


def on_grid(session: Session, counts: Counts) -> tuple[int, ...]:
    """The levels that keep at most these counts, or the smallest."""
    return tuple(
        next((level for level, kept in enumerate(levels) if kept <= counts[unit]), len(levels) - 1)
        for unit, levels in zip(session.space.units, session.space.levels, strict=True)
    )


def scored(session: Session, candidate: Candidate) -> Evaluation:
    """An evaluation with its costs."""
    evaluation = session.scorer.score(candidate)
    return replace(evaluation, values={**evaluation.values, **session.problem.costs_of(candidate)})


def planned(session: Session, evaluations: Sequence[Evaluation], distortion: str, keep: int) -> Counts:
    """The plan of least summed distortion that keeps at most so many weights."""
    problem = replace(session.problem, distortion=distortion)
    levels = plan(problem, distortions_from(problem, evaluations), "nonzeros", budget_of(session, keep))
    return problem.space.counts(Candidate(levels))


def budget_of(session: Session, keep: int) -> float:
    """Nonzeros of the whole network when so many of the searched weights stay."""
    return session.dense_costs["nonzeros"] - sum(counts[0] for counts in session.space.levels) + keep


def shares(weights: Sequence[np.ndarray], kept: np.ndarray) -> np.ndarray:
    """Counts of (u,) kept shares, rounded down."""
    return (kept * [weight.size for weight in weights]).astype(int)


def uniform(weights: Sequence[np.ndarray], share: float) -> np.ndarray:
    return shares(weights, closed_form.uniform(len(weights), share))


def erk(weights: Sequence[np.ndarray], share: float) -> np.ndarray:
    return shares(weights, closed_form.erk([weight.shape for weight in weights], share))


def ranked(rule: Callable[[Sequence[np.ndarray], int], np.ndarray]) -> Allocation:
    """A rule that ranks the squares of all weights together."""

    def allocate(weights: Sequence[np.ndarray], share: float) -> np.ndarray:
        squares = [weight.ravel() ** 2 for weight in weights]
        return rule(squares, round(share * sum(map(len, squares))))

    return allocate


ALLOCATIONS: dict[str, Allocation] = {
    "global": ranked(closed_form.global_magnitude),
    "lamp": ranked(closed_form.lamp),
    "erk": erk,
    "uniform": uniform,
}


def write(path: Path, rows: Sequence[Row], dense: float, options: argparse.Namespace) -> None:
    """The table; its first lines are the command and the dense network's accuracy."""
    path.parent.mkdir(exist_ok=True)
    with path.open("w", newline="") as file:
        file.write(
            "# python benchmarks/unstructured.py --data DIR --weights FILE "
            f"--probe-levels {options.probe_levels}; {torch.get_num_threads()} thread\n"
            f"# dense accuracy {dense:.4f}\n"
        )
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
