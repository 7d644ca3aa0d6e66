"""How much of the front every searcher has found after so many evaluations, and after so many seconds.

    python benchmarks/searchers.py synthetic
    python benchmarks/searchers.py network --data DIR --weights FILE

`synthetic`: chains of 10, 30 and 100 units of 8 levels whose damages interact weakly or strongly, with and without
noise of 10 % on the damage measured. An evaluation is taken to last half a second, to which the searcher's own
processor time is added.

`network`: ResNet-20 / CIFAR-10, the job of configs/cifar10_resnet20.yaml with quick scores in bfloat16
(`batch_norms: batch`), 500 calibration and 1,000 selection images of the training set, no compensation of the front.
DIR is CIFAR-10 in any form `autoprune.data:cifar10` reads, FILE the state dict of a ResNet-20. Each network is scored
once and kept in build/searchers/ with its processor seconds, for all searchers and later runs. At the end of the
searches with the `--reported` seeds the front by accuracy on the selection images, thinned to 24, is measured once on
the 10,000 test images.

Hypervolume is over accuracy (from 0.1, chance, up to 1) and the share of the dense MACs (from 1 down to 0), divided by
that rectangle: 1 would be perfect accuracy for no MACs. The front is what seems to be one by the damage measured, the
accuracies are the true ones. `damage_at_half` is the true damage of what seems best within half the MACs: what searches
for one budget are for. A searcher is asked for one network at a time. One that ends early keeps what it has.

A run is kept in build/searchers/ and not made again without `--again`, which is for the searchers, seeds and problems
that are named. A searcher may be given options: `optuna:sampler=TPESampler`. `--searchers optuna --evaluations 3000
--again` gives Optuna's NSGA-II ten times as many, which is printed beside a tenth of them for `auto`.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from anytime import synthetic
from anytime.curves import Row, Setting, rows, searched
from anytime.lines import append_lines, read_lines
from anytime.network import NAME, Network
from anytime.picture import draw
from anytime.table import summary, verdicts, write

from autoprune.core.contracts import Searcher
from autoprune.core.front import Front
from autoprune.core.objective import Objective
from autoprune.core.problem import Problem, Profile
from autoprune.searchers import SEARCHERS, make_searcher

RESULTS = Path("results")
WORK = Path("build/searchers")
ON_PARTS = {"halving", "asha", "screening", "racing", "evopress"}  # see benchmarks/multi_fidelity.py
ALONE = [name for name in SEARCHERS if name not in ON_PARTS]
FRONT = 24  # networks of each front that are measured on the test images
MEASURED = (Objective("accuracy", "max"), Objective("macs", "min"))  # the hypervolume's, whatever guides the search


def main() -> None:
    options = arguments()
    path = WORK / f"{options.what}.rows.jsonl"
    runs = list(made(options))
    if options.again:
        forget(path, [key for *key, _ in runs])
    done = {(row["problem"], row["searcher"], row["seed"]) for row in read_lines(path)}
    for number, (problem, name, seed, run) in enumerate(runs):
        if (problem, name, seed) not in done:
            print(f"{number + 1} of {len(runs)}: {problem}, {name}, seed {seed}", flush=True)
            append_lines(path, [{"problem": problem, "searcher": name, "seed": seed, **row} for row in run()])
    report(path, options)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["synthetic", "network"])
    parser.add_argument("--data")
    parser.add_argument("--weights")
    parser.add_argument("--evaluations", type=int)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--searchers", nargs="+", default=ALONE)
    parser.add_argument("--reported", type=int, nargs="*", default=[0], help="seeds whose fronts see the test images")
    parser.add_argument("--problems", nargs="+", help="names or parts of them, of the synthetic ones")
    parser.add_argument("--again", action="store_true")
    options = parser.parse_args()
    options.evaluations = options.evaluations or {"synthetic": 300, "network": 200}[options.what]
    if options.what == "network" and not (options.data and options.weights):
        parser.error("network needs --data and --weights")
    return options


Run = tuple[str, str, int, Callable[[], list[Row]]]


def made(options: argparse.Namespace) -> Iterator[Run]:
    """Everything that is to be run: problem, searcher, seed and how."""
    if options.what == "network":
        network = Network(options.data, options.weights, WORK / "resnet20.jsonl")
        for seed, name in itertools.product(options.seeds, options.searchers):
            yield NAME, name, seed, lambda n=name, s=seed: live(network, n, s, options)
        return
    for seed, index in itertools.product(options.seeds, range(len(synthetic.names()))):
        problem = synthetic.names()[index]
        if options.problems and not any(part in problem for part in options.problems):
            continue
        for name in options.searchers:
            yield problem, name, seed, lambda i=index, n=name, s=seed: calculated(i, n, s, options)


def calculated(index: int, name: str, seed: int, options: argparse.Namespace) -> list[Row]:
    setting = list(synthetic.settings(seed))[index]
    setting = replace(setting, problem=profiled(setting.problem, seed))
    return run(setting, name, seed, options.evaluations)[0]


def live(network: Network, name: str, seed: int, options: argparse.Namespace) -> list[Row]:
    setting = network.setting()
    found, told = run(setting, name, seed, options.evaluations)
    if seed not in options.reported:
        return found
    front = Front.of([entry.evaluation for entry in told], MEASURED, setting.problem.costs.dense())
    found[-1]["reported"] = round(network.reported(front.thinned(FRONT)), 6)
    return found


def run(setting: Setting, name: str, seed: int, evaluations: int) -> tuple[list[Row], list[Any]]:
    """The rows of one search, and what it was told."""
    told = searched(setting, made_searcher(name, setting.problem, seed), evaluations)
    return list(rows(setting, told, evaluations)), told


def made_searcher(text: str, problem: Problem, seed: int) -> Searcher:
    """The searcher of a name, or of name:option=value,option=value."""
    name, _, listed = text.partition(":")
    pairs = [part.split("=", 1) for part in listed.split(",") if part]
    return make_searcher(name, problem, seed=seed, **{key: yaml.safe_load(value) for key, value in pairs})


def profiled(problem: Problem, seed: int) -> Problem:
    """The problem with random squared norms, independent of its damages, for searchers that rank units by norms."""
    rng = np.random.default_rng(seed)
    pairs = zip(problem.space.units, problem.space.levels, strict=True)
    return replace(problem, profiles={unit: Profile(rng.lognormal(size=c[0]), (c[0], 1)) for unit, c in pairs})


def forget(path: Path, runs: Sequence[Sequence[Any]]) -> None:
    """Leaves out the rows of runs, each a problem, a searcher and a seed."""
    kept = [row for row in read_lines(path) if [row["problem"], row["searcher"], row["seed"]] not in runs]
    path.unlink(missing_ok=True)
    append_lines(path, kept)


def report(path: Path, options: argparse.Namespace) -> None:
    table = summary(read_lines(path))
    stem = RESULTS / ("searchers_synthetic" if options.what == "synthetic" else "searchers_resnet20_cifar10")
    given = "" if options.what == "synthetic" else " --data DIR --weights FILE"
    given += "" if options.searchers == ALONE else f" --searchers {' '.join(options.searchers)}"
    write(stem.with_suffix(".csv"), f"python benchmarks/searchers.py {options.what}{given}", table)
    draw(stem.with_suffix(".svg"), "Hypervolume on the way, mean of all seeds", table)
    print(*verdicts(table), sep="\n")


if __name__ == "__main__":
    main()
