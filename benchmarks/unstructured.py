"""Where to put the zeros: allocations of unstructured sparsity on ResNet-32 / CIFAR-10, without a gradient step.

    python benchmarks/unstructured.py --data DIR --weights FILE

DIR is CIFAR-10 in any form `autoprune.data:cifar10` reads, FILE the state dict of a ResNet-32. The job is
configs/rd_resnet32.yaml on the grid of SPDY. Every allocation says how many weights each layer keeps; each is made into
networks in the same ways, with the mask and update of optimal brain surgeon and with plain magnitudes, as stitched and
fitted to the dense network, and batch norms are treated alike in all. Sparsity is the share removed of the weights of
convolutions and the linear layer.

`planned_mse` and `planned_kl` are the best sums of what single layers do to the logits (dynamic programming over the
same probes, made once for each mask); `core_s` of theirs, processor seconds, hold the probes. `global` is the magnitude
over all layers, `lamp` Lee et al. 2021 (https://arxiv.org/abs/2010.07611), `erk` Evci et al. 2020
(https://arxiv.org/abs/1911.11134), `uniform` the same share everywhere. `kl` is on the selection images, `accuracy` on
the 10,000 test images, looked at when all networks are there; `fitted_` are those of the fitted network.
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
from autoprune.plan.allocation import plan
from autoprune.plan.damages import damage_table, probes
from autoprune.run.results.deployed import fitted
from autoprune.run.session.session import Session, open_session
from autoprune.searchers.rules import closed_form

CONFIG = Path(__file__).parents[1] / "configs" / "rd_resnet32.yaml"
SPACE = {"version": 1, "units": [{"match": "*", "kind": "weights", "grid": "spdy"}]}

PLANNED = ("planned_mse", "planned_kl")
FITTED = "fitted_"  # prefix of what is measured of the fitted network

Row = dict[str, Any]
Counts = dict[str, int]
Allocation = Callable[[Sequence[np.ndarray], float], np.ndarray]  # (weights, share kept) -> counts


@dataclass(frozen=True)
class Planned:
    """The probes with one mask, and the processor seconds they took."""

    evaluations: tuple[Evaluation, ...]
    seconds: float


@dataclass(frozen=True)
class Made:
    """The networks of one allocation, by the prefix their measurements have in the row."""

    session: Session
    networks: dict[str, nn.Module]
    row: Row

    def report(self) -> None:
        """Looks at the test images."""
        for prefix, network in self.networks.items():
            measured = self.session.scorer.measure(network, self.session.reported)
            self.row[prefix + "accuracy"] = round(measured["accuracy"], 4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--sparsities", type=float, nargs="+", default=[0.8, 0.9, 0.95])
    parser.add_argument("--masks", nargs="+", default=["obs", "magnitude"])
    parser.add_argument("--probe-levels", type=int, default=12)
    parser.add_argument("--out", type=Path, default=Path("results/unstructured_resnet32_cifar10.csv"))
    options = parser.parse_args()
    made = []
    for masks in options.masks:
        session = open_run(masks, options)
        probed = probe(session, options.probe_levels)
        print(f"{masks}: {len(probed.evaluations)} probes in {probed.seconds:.0f} s", flush=True)
        for sparsity in options.sparsities:
            for name in (*PLANNED, *ALLOCATIONS):
                made.append(make(session, probed, masks, name, sparsity))
                print(made[-1].row, flush=True)
    for one in made:
        one.report()
    dense = session.scorer.measure(session.model, session.reported)["accuracy"]
    write(options.out, [one.row for one in made], dense, options)


def open_run(masks: str, options: argparse.Namespace) -> Session:
    torch.set_num_threads(1)
    overrides = {"data.root": options.data, "model.weights": options.weights, "masks": masks, "space": SPACE}
    job = load(CONFIG, [f"{key}={value}" for key, value in overrides.items()]).resolve()
    return open_session(job, lambda progress: None)


def probe(session: Session, per_unit: int) -> Planned:
    """Every layer alone at some levels."""
    start = time.process_time()
    candidates = [Candidate(levels) for levels in probes(session.problem, per_unit)]
    evaluations = tuple(scored(session, candidate) for candidate in candidates)
    return Planned(evaluations, time.process_time() - start)


def make(session: Session, probed: Planned, masks: str, name: str, sparsity: float) -> Made:
    """The networks of one allocation, and what is known of them without the test images."""
    weights = {unit: session.model.get_parameter(unit).detach().cpu().double().numpy() for unit in session.space.units}
    start = time.process_time()
    counts = allocated(session, probed.evaluations, weights, name, sparsity)
    subnet = session.bank.subnet(counts)
    networks = {"": session.scorer.build(subnet)}
    stitching = time.process_time() - start
    networks[FITTED] = fitted(session, session.reference, subnet).network
    fitting = time.process_time() - start - stitching
    costs = session.problem.costs.evaluate(list(counts), np.array([list(counts.values())]))
    return Made(
        session,
        networks,
        {
            "sparsity": sparsity,
            "weights": masks,
            "allocation": name,
            "kept": sum(counts.values()),
            "nonzeros_ratio": round(costs["nonzeros"][0].item() / session.dense_costs["nonzeros"], 4),
            "effective_macs_ratio": round(costs["effective_macs"][0].item() / session.dense_costs["effective_macs"], 4),
            "core_s": round(stitching + (probed.seconds if name in PLANNED else 0.0), 1),
            "fitted_core_s": round(fitting, 1),
            **{
                prefix + "kl": round(session.scorer.measure(network, session.scorer.select)["kl"], 4)
                for prefix, network in networks.items()
            },
        },
    )


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


def scored(session: Session, candidate: Candidate) -> Evaluation:
    """An evaluation with its costs."""
    evaluation = session.scorer.score(candidate)
    return replace(evaluation, values={**evaluation.values, **session.problem.costs_of(candidate)})


def planned(session: Session, evaluations: Sequence[Evaluation], distortion: str, keep: int) -> Counts:
    """The plan of least summed distortion that keeps at most so many weights."""
    problem = replace(session.problem, distortion=distortion)
    levels = plan(problem, damage_table(problem, evaluations), "nonzeros", budget_of(session, keep))
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
    "lamp": ranked(closed_form.lamp_counts),
    "erk": erk,
    "uniform": uniform,
}


def write(path: Path, rows: Sequence[Row], dense: float, options: argparse.Namespace) -> None:
    """The table; its first lines are the command and the dense network's accuracy."""
    path.parent.mkdir(exist_ok=True)
    with path.open("w", newline="") as file:
        file.write(
            "# python benchmarks/unstructured.py --data DIR --weights FILE "
            f"--probe-levels {options.probe_levels}\n"
            f"# dense accuracy {dense:.4f}\n"
        )
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
