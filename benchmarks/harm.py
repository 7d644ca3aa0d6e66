"""Who pays for a smaller ResNet-20 / CIFAR-10: recalls of classes, agreement and corrupted images at four budgets.

    python benchmarks/harm.py --data DIR --models DIR

`--data` is CIFAR-10 in any form `autoprune.data:cifar10` reads, `--models` a folder with resnet20_cifar10.pt. The
setting and the networks are those of training_free.py, without a gradient step: `uniform` is the largest uniform width
within the budget, filters of largest L2 norm, batch norms re-estimated; `planned` the widths by exact allocation over
the KL of four probes a unit, as assembled; `fitted` the same network after the fit. Recalls and agreement are of the
10,000 test images, corrupted images are the first `--corrupted` of them. Intervals are 95 %.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from compensation.setting import open_setting
from tables import write_table
from torch import nn
from training_free import (
    TARGETS,
    additive_search,
    by_norm,
    fit,
    job,
    planned_within,
    uniform_candidates,
)

from autoprune.core.space import Candidate
from autoprune.measure.batch import Batch
from autoprune.measure.harm.fitness import fair_classification
from autoprune.measure.harm.predictions import predictions
from autoprune.measure.harm.summary import summary
from autoprune.run.session.job import silent
from autoprune.run.session.session import Session, open_session

Row = dict[str, Any]
Network = tuple[str, Candidate, Callable[[], nn.Module]]


def main() -> None:
    options = arguments()
    session = open_session(job(open_setting("resnet20", options.data, options.models)), silent)
    dense = Candidate((0,) * len(session.space.units))
    rows = [row(session, options.corrupted, 1.0, ("dense", dense, partial(_same, session.model)))]
    scored = additive_search(session)
    for target in options.targets:
        rows += [row(session, options.corrupted, target, network) for network in networks(session, target, scored)]
    threads = f"torch {torch.__version__}, {torch.get_num_threads()} threads"
    write_table("harm_resnet20.csv", f"python benchmarks/harm.py --data DIR --models DIR ({threads})", rows)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--models", required=True)
    parser.add_argument("--targets", nargs="+", type=float, default=list(TARGETS), help="shares of the dense MACs")
    parser.add_argument("--corrupted", type=int, default=500, help="number of test images to corrupt")
    return parser.parse_args()


def networks(session: Session, target: float, scored: Sequence[Any]) -> Iterator[Network]:
    """The three networks of a budget."""
    budget = target * session.dense_costs["macs"]
    uniform = next(c for c in uniform_candidates(session) if session.problem.costs_of(c)["macs"] <= budget)
    yield "uniform", uniform, partial(by_norm, session, uniform)
    planned = planned_within(session, budget, scored)
    yield "planned", planned, partial(session.scorer.network, planned)
    yield "fitted", planned, partial(fit, session, planned)


def row(session: Session, corrupted: int, target: float, network: Network) -> Row:
    """Builds a network and measures it."""
    method, candidate, build = network
    built = build().eval()
    harm = summary(predictions(built, session.reported))
    with torch.no_grad():
        clean = fair_classification(built, session.reported, report=("accuracy", "group_gap"))
        noisy = fair_classification(
            built, first(session.reported, corrupted), report=("accuracy", "corrupted_accuracy")
        )
    found = {
        "method": method,
        "target": target,
        "macs_ratio": f"{session.problem.costs_of(candidate)['macs'] / session.dense_costs['macs']:.4f}",
        "accuracy": f"{clean['accuracy']:.4f}",
        **{name: f"{harm[name]:.4f}" for name in ("agreement", "agreement_low", "agreement_high")},
        **intensified(harm),
        "recall_worst": f"{harm['recall_worst']:.3f}",
        "recall_worst_class": harm["recall_worst_class"],
        **{name: f"{harm[name]:.3f}" for name in ("recall_drop", "recall_drop_low", "recall_drop_high")},
        "recall_drop_class": harm["recall_drop_class"],
        "flipped": f"{harm['flipped']:.4f}",
        "group_gap": f"{clean['group_gap']:.3f}",
        "accuracy_of_corrupted": f"{noisy['accuracy']:.3f}",
        "corrupted_accuracy": f"{noisy['corrupted_accuracy']:.3f}",
    }
    print(found, flush=True)
    return found


def intensified(harm: Mapping[str, Any]) -> Row:
    names = ("intensification", "intensification_low", "intensification_high")
    return {name: f"{harm[name]:.3f}" for name in names}


def first(batches: Sequence[Batch], count: int) -> list[Batch]:
    """The first examples, at least `count`, in whole batches."""
    taken: list[Batch] = []
    for batch in batches:
        if sum(one.examples for one in taken) < count:
            taken.append(batch)
    return taken


def _same(network: nn.Module) -> nn.Module:
    return network


if __name__ == "__main__":
    main()
