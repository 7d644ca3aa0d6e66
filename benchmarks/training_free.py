"""Networks that work without training: what each ingredient adds, on ResNet-20 and ResNet-32 / CIFAR-10.

    python benchmarks/training_free.py --data DIR --models DIR

`--data` is CIFAR-10 in any form `autoprune.data:cifar10` reads, `--models` a folder with resnet20_cifar10.pt and
resnet32_cifar10.pt. The setting is that of rivals.py: channels inside blocks, 4,000 unlabelled calibration and 2,000
selection images out of the training images, no gradient step; accuracy of one network a row on the 10,000 test images.
Batch norms and the bank use the first 500 calibration images, compensation all of them.

Rows of one target stand one on the other:

    uniform           the largest uniform width within the target, filters of largest L2 norm, batch norms re-estimated
    bank              the order of the surgeon and least-squares consumers instead
    anchored          batch norms anchored to the dense network's own statistics
    allocation        widths by exact allocation over the KL of four probes a unit, measured plans included (additive
                      search)
    sequential        every layer fitted in one pass
    joint             pairs of layers fitted together: what a search does with its front
    search            of the four networks of lowest KL within the target after a longer search the one that is best
                      when fitted, then fitted thoroughly; only for `--searched` targets

`front` is one row a network: the additive search with twelve plans and the compensation of twelve networks over the
whole range, those of the targets and eight that the search measured, without testing. `seconds` (on the clock) and
`core_seconds` (of processor time) are from the trained network to the pruned one, as if it were the only one; what all
targets share (bank, search) is in `shared_core_seconds`. `memory_mb` is the largest resident memory of the process,
data and torch included. Rows of networks that are not among `--networks` are kept.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from compensation.setting import NETWORKS, Setting, Spent, accuracy, forget_peak, open_setting, peak_mb, timed
from torch import nn

from autoprune.core.evaluation import Evaluation
from autoprune.core.levels import LevelRule
from autoprune.core.objective import Objective
from autoprune.core.space import Candidate
from autoprune.measure.batch_norms.recalibrate import recalibrate
from autoprune.measure.fitness import classification
from autoprune.plan.allocation import plan
from autoprune.plan.damages import damage_table
from autoprune.plan.ladder import uniform_levels
from autoprune.prune.compensation.compensate import compensate
from autoprune.prune.compensation.reference import EFFORTS, Reference, make_reference
from autoprune.prune.shrink import shrink
from autoprune.run.executors.serial import SerialEvaluator
from autoprune.run.loop.controller import Controller
from autoprune.run.session.job import Job, silent
from autoprune.run.session.session import Session, open_session
from autoprune.searchers import make_searcher

TARGETS = (0.7, 0.5, 0.35, 0.25)
SIXTEENTHS = tuple(step / 16 for step in range(1, 16))
FRONT, FINALISTS = 12, 4
PROBE_LEVELS = 4  # of each unit; the others are interpolated
COLUMNS = (
    *("network", "method", "target", "macs_ratio", "accuracy", "select_kl"),
    *("seconds", "core_seconds", "shared_core_seconds", "memory_mb"),
)
Row = dict[str, Any]


@dataclass
class Bench:
    """One network with all that its rows share."""

    name: str
    setting: Setting
    session: Session
    rows: list[Row]

    @property
    def dense_macs(self) -> float:
        return self.session.dense_costs["macs"]

    def row(
        self,
        method: str,
        target: float,
        candidate: Candidate,
        build: Callable[[], nn.Module],
        shared: Spent,
        own: Spent | None = None,
    ) -> None:
        """Builds a network, measures it and prints the row; `own` is what it took before."""
        forget_peak()
        network, spent = timed(build)
        spent += shared + (own or Spent())
        self.rows.append(
            {
                "network": self.name,
                "method": method,
                "target": target,
                "macs_ratio": f"{self.session.problem.costs_of(candidate)['macs'] / self.dense_macs:.4f}",
                "accuracy": f"{accuracy(network, self.setting.data.report):.4f}",
                "select_kl": f"{self.session.selected(network)['kl']:.4f}",
                "seconds": f"{spent.wall_s:.1f}",
                "core_seconds": f"{spent.core_s:.1f}",
                "shared_core_seconds": f"{shared.core_s:.1f}",
                "memory_mb": f"{peak_mb():.0f}",
            }
        )
        print(self.rows[-1], flush=True)


def main() -> None:
    options = arguments()
    for name in options.networks:
        rows: list[Row] = []
        measure(name, options, rows)
        others = [row for row in read(options.out) if row["network"] != name]
        write(options, sorted([*others, *rows], key=lambda row: row["network"]))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--models", required=True)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--targets", nargs="+", type=float, default=list(TARGETS), help="shares of the dense MACs")
    parser.add_argument("--searched", nargs="+", type=float, default=[0.5], help="targets of the longer search")
    parser.add_argument("--evaluations", type=int, default=200, help="of the longer search")
    parser.add_argument("--out", type=Path, default=Path("results/training_free_cifar10.csv"))
    return parser.parse_args()


def measure(name: str, options: argparse.Namespace, rows: list[Row]) -> None:
    setting = open_setting(name, options.data, options.models)
    session = open_session(job(setting), silent)
    bench = Bench(name, setting, session, rows)
    _, bank = timed(lambda: session.bank)
    additive, searched = timed(partial(additive_search, session))
    _, targets = timed(lambda: session.reference)
    for target in options.targets:
        ladder(bench, target, additive, bank, bank + searched, bank + searched + targets)
    front(bench, options.targets, additive, bank + searched + targets)
    longer, spent = timed(lambda: evaluations(session, "auto", options.evaluations))
    for target in options.searched:
        finalists(bench, target, [*additive, *longer], bank + spent + targets)


def job(setting: Setting) -> Job:
    return Job(
        name="training_free",
        model=lambda: setting.model,
        data=lambda: setting.data,
        rules=(LevelRule("layer*.conv1", SIXTEENTHS, min_keep=2),),
        objectives=(Objective("accuracy", "max"), Objective("macs", "min")),
        searcher=lambda problem, seed: make_searcher("additive", problem, seed=seed),
        fitness=classification,
    )


def evaluations(session: Session, searcher: str, budget: int, **options: int) -> list[Evaluation]:
    """Everything a search measures."""
    made = make_searcher(searcher, session.problem, seed=0, **options)
    controller = Controller(session.problem, made, SerialEvaluator(session.scorer.score), budget, forget)
    controller.run()
    return [evaluation for evaluation in controller.told if evaluation.ok]


def additive_search(session: Session) -> list[Evaluation]:
    """Everything that the additive search of the front measures."""
    return evaluations(session, "additive", 10_000, probe_levels=PROBE_LEVELS, plans=FRONT)


def forget(record: object, *, sync: bool = True) -> None:
    """No journal."""


def ladder(
    bench: Bench, target: float, scored: Sequence[Evaluation], bank: Spent, searched: Spent, fitted: Spent
) -> None:
    """The rows of one target, one ingredient after the other."""
    session, none = bench.session, Spent()
    uniform = next(c for c in uniform_candidates(session) if macs(bench, c) <= target * bench.dense_macs)
    bench.row("uniform", target, uniform, partial(by_norm, session, uniform), none)
    bench.row("bank", target, uniform, partial(stitched, session, uniform), bank)
    bench.row("anchored", target, uniform, partial(session.scorer.network, uniform), bank)
    chosen, planned = timed(lambda: best_planned(bench, target, scored))
    bench.row("allocation", target, chosen, partial(session.scorer.network, chosen), searched, planned)
    bench.row("sequential", target, chosen, partial(fit, session, chosen, jointly=False), fitted, planned)


def front(bench: Bench, targets: Sequence[float], scored: Sequence[Evaluation], shared: Spent) -> None:
    """Twelve networks over the whole range, and what they take; those of the targets are the rows of joint fits."""
    shares = [*targets, *np.linspace(0.2, 0.95, FRONT - len(targets)).tolist()]
    total = shared
    for share in shares:
        choose = best_planned if share in targets else best_measured
        chosen, planned = timed(partial(choose, bench, share, scored))
        forget_peak()
        network, spent = timed(partial(fit, bench.session, chosen, jointly=True))
        total += planned + spent
        if share in targets:
            bench.row("joint", share, chosen, partial(_same, network), shared, planned + spent)
    times = {"seconds": f"{total.wall_s:.1f}", "core_seconds": f"{total.core_s:.1f}"}
    shared_time = {"shared_core_seconds": f"{shared.core_s:.1f}", "memory_mb": f"{peak_mb():.0f}"}
    bench.rows.append({"network": bench.name, "method": f"front of {FRONT}", **times, **shared_time})
    print(bench.rows[-1], flush=True)


def _same(network: nn.Module) -> nn.Module:
    return network


def finalists(bench: Bench, target: float, scored: Sequence[Evaluation], shared: Spent) -> None:
    """The networks of lowest KL within the target, compensated; the one that is best then, on the selection set."""
    session = bench.session
    within = {e.candidate: e.values["kl"] for e in scored if e.values["macs"] <= target * bench.dense_macs}
    chosen = sorted(within, key=within.__getitem__)[:FINALISTS]
    fitted, spent = timed(lambda: [fit(session, candidate, jointly=True) for candidate in chosen])
    best = min(range(len(chosen)), key=lambda index: session.selected(fitted[index])["kl"])
    inputs = bench.setting.calibrate
    with_more = make_reference(session.model, session.structure, inputs, effort=EFFORTS["thorough"])
    thorough = partial(fit, session, chosen[best], jointly=True, reference=with_more)
    bench.row("search", target, chosen[best], thorough, shared, spent)


def uniform_candidates(session: Session) -> list[Candidate]:
    rows = uniform_levels(session.space)
    return [Candidate(tuple(row.tolist())) for row in sorted(rows, key=lambda row: row.sum())]


def macs(bench: Bench, candidate: Candidate) -> float:
    return bench.session.problem.costs_of(candidate)["macs"]


def best_measured(bench: Bench, target: float, scored: Sequence[Evaluation]) -> Candidate:
    """The network of lowest KL within the target that the search has measured."""
    within = [e for e in scored if e.values["macs"] <= target * bench.dense_macs]
    return min(within, key=lambda e: e.values["kl"]).candidate


def best_planned(bench: Bench, target: float, scored: Sequence[Evaluation]) -> Candidate:
    """The better of the plan for exactly this target and what was measured within it, by KL."""
    return planned_within(bench.session, target * bench.dense_macs, scored)


def planned_within(session: Session, budget: float, scored: Sequence[Evaluation]) -> Candidate:
    """The better of the plan for a number of MACs and of what was measured within it, by KL."""
    planned = Candidate(plan(session.problem, damage_table(session.problem, scored), "macs", budget))
    measured = {e.candidate: e.values["kl"] for e in scored if e.values["macs"] <= budget}
    measured.setdefault(planned, session.scorer.score(planned).values["kl"])
    return min(measured, key=measured.__getitem__)


def by_norm(session: Session, candidate: Candidate) -> nn.Module:
    """Filters of largest L2 norm, weights as they were, batch norms re-estimated."""
    widths = session.space.counts(candidate)
    network = shrink(session.model, session.structure, widths)
    recalibrate(network, session.scorer.calibrate)
    return network


def stitched(session: Session, candidate: Candidate) -> nn.Module:
    network = session.bank.build(session.scorer.subnet(candidate))
    recalibrate(network, session.scorer.calibrate)
    return network


def fit(
    session: Session, candidate: Candidate, *, jointly: bool = True, reference: Reference | None = None
) -> nn.Module:
    subnet = session.scorer.subnet(candidate)
    network = session.bank.build(subnet)
    compensate(network, session.structure, reference or session.reference, subnet.indices, jointly=jointly)
    return network


def read(path: Path) -> list[Row]:
    """Rows of an earlier run; those of other networks are kept."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(line for line in file if not line.startswith("#")))


def write(options: argparse.Namespace, rows: Sequence[Row]) -> None:
    with options.out.open("w", newline="") as file:
        file.write(
            f"# python benchmarks/training_free.py --data DIR --models DIR --evaluations {options.evaluations} "
            f"(torch {torch.__version__}, {torch.get_num_threads()} threads)\n"
        )
        writer = csv.DictWriter(file, COLUMNS, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
