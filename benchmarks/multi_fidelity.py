"""Images that searches on parts of the selection set score until their front is as good as that of full scoring.

    python benchmarks/multi_fidelity.py
    python benchmarks/multi_fidelity.py --data DIR --weights FILE --evaluations 200 --ways screening "screening, auto"
    python benchmarks/multi_fidelity.py --equal --data DIR --weights FILE --evaluations 100 --ways racing

For each seed `evolution`, and for the ways with another searcher in their name that one, scores 300 networks
(`--evaluations`) on all 2,000 images. Then each way, with networks of the same searcher, goes on until the hypervolume
of what it has scored on all images is within 0.5 % of that, or three quarters of those images are spent (`fewer` is
empty then). Hypervolume is over KL to the dense network (up to 2 nats) and the share of the MACs.

With `--equal` each way scores as many networks as its searcher did with full scores, and `fewer` compares the images.
These runs take half of the selection images, and batch norms anchored on 500 others, as is the default.

Without DIR the networks are those of the synthetic problem of autoprune.testing with nine coupled units, one problem a
seed: an image's KL is the network's own, times one plus noise of all networks on that image (deviation 1.7) plus noise
of this network on it (2.3), which is alike for networks that are alike: its correlation falls to 1/e where the shares
removed from the units differ by 0.09 in the mean. These three numbers are those of ResNet-20s on CIFAR-10, of 300 that
an evolution scored. With DIR they are ResNet-20s on CIFAR-10 (configs/cifar10_resnet20.yaml) with quick scores
(`search.batch_norms: batch`, so that no images are spent on statistics) on 2,000 images of the training set.

The winner's curse is how much better the networks of the front look on the images that chose them: KL on others minus
the score, a mean over eight of the front. The others are 4,000 more images of the training set that no search has seen;
for synthetic networks the true KL is known. `first` is the same for the score at the first fidelity.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from autoprune.config import load
from autoprune.core.contracts import Searcher
from autoprune.core.evaluation import Evaluation
from autoprune.core.front import Front, hypervolume
from autoprune.core.objective import Objective
from autoprune.core.problem import Problem
from autoprune.core.space import Candidate
from autoprune.data import Data
from autoprune.measure.scorer import with_dense_outputs
from autoprune.prune.modules.borrowed import torch_threads
from autoprune.run.executors.serial import SerialEvaluator
from autoprune.run.loop.controller import Controller
from autoprune.run.session.job import Job, silent
from autoprune.run.session.session import Session, open_session
from autoprune.searchers import make_searcher
from autoprune.testing import Synthetic, synthetic_problem

CONFIG = Path(__file__).parents[1] / "configs" / "cifar10_resnet20.yaml"
SELECT, FRESH, BATCH = 2_000, 4_000, 100
WORST_KL = 2.0
CLOSE = 0.995  # of the hypervolume of full scoring
MOST = 0.75  # of its images
MEMBERS = 8
SHARED_NOISE, OWN_NOISE, ALIKE = 1.7, 2.3, 0.09
UNITS, LEVELS, WAVES = 9, 8, 256

SOURCES = ("evolution", "auto", "random")
WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "halving": ("halving", {}),
    "hyperband": ("halving", {"hyperband": True}),
    "asha": ("asha", {}),
    "racing": ("racing", {}),
    "racing, auto": ("racing", {"source": "auto"}),
    "racing, random": ("racing", {"source": "random"}),
    "screening": ("screening", {"source": "evolution"}),
    "screening, auto": ("screening", {"source": "auto"}),
}

Row = dict[str, Any]
Score = Callable[[Candidate], Evaluation]
FreshScore = Callable[[tuple[int, ...]], float]  # KL on images that no search has seen


@dataclass(frozen=True)
class Bench:
    """Networks to search, how a searcher's candidates are scored, and their KL on other images."""

    problem: Problem
    scored_for: Callable[[Searcher], Score]
    fresh: FreshScore


@dataclass
class Counting:
    """A score that counts images and processor seconds, and remembers the first score of every network."""

    score: Score
    images: int = 0
    seconds: float = 0.0
    first: dict[tuple[int, ...], float] = field(default_factory=dict)

    def __call__(self, candidate: Candidate) -> Evaluation:
        start = time.process_time()
        evaluation = self.score(candidate)
        self.seconds += time.process_time() - start
        self.images += evaluation.examples
        self.first.setdefault(candidate.levels, evaluation.values["kl"])
        return evaluation


@dataclass
class Goal:
    """Says when a search has a front with this hypervolume, or has scored this many images or networks."""

    problem: Problem
    counting: Counting
    volume: float
    images: float
    networks: float
    reached: int | None = None
    read: int = 0

    def reason(self, told: Sequence[Evaluation]) -> str:
        new = told[self.read :]
        self.read = len(told)
        if any(e.ok and e.candidate.fidelity == 1 for e in new) and covered(self.problem, told) >= self.volume:
            self.reached = self.counting.images
            return "reached"
        if len(self.counting.first) > self.networks:  # the next one has begun, so all others have ended
            return "networks are scored"
        return "images are spent" if self.counting.images >= self.images else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data")
    parser.add_argument("--weights")
    parser.add_argument("--evaluations", type=int, default=300)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--equal", action="store_true")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    live = bool(options.data)
    name = "giving_up" if options.equal else "multi_fidelity"
    out = options.out or Path(f"results/{name}_{'resnet20_cifar10' if live else 'synthetic'}.csv")
    rows: list[Row] = []
    with torch_threads(1):
        opened = live_bench(options) if live else None
        for seed in options.seeds:
            bench = opened or synthetic_bench(seed)
            for row in compared(bench, options.ways, seed, options.evaluations, equal=options.equal):
                rows.append(row)
                print(row, flush=True)
                write(out, rows, options)
    summarise(rows)


def compared(bench: Bench, ways: Sequence[str], seed: int, evaluations: int, *, equal: bool) -> Iterator[Row]:
    """Full scoring by each of the searchers, and the ways that go with it."""
    for source in SOURCES:
        mine = [way for way in ways if source_of(way) == source]
        if not mine:
            continue
        full = run(bench, source, source, {}, seed, evaluations)
        yield full
        for way in mine:
            if equal:
                row = run(bench, way, *WAYS[way], seed, evaluations, networks=full["networks"])
                row["fewer"] = round(full["images"] / row["images"], 2)
            else:
                goal, most = CLOSE * full["hypervolume"], MOST * full["images"]
                row = run(bench, way, *WAYS[way], seed, evaluations, goal, most)
                row["fewer"] = round(full["images"] / row["reached"], 2) if row["reached"] else ""
            yield row


def source_of(way: str) -> str:
    """The searcher whose networks a way takes, which its name ends with unless it is evolution."""
    return way.partition(", ")[2] or "evolution"


def run(
    bench: Bench,
    way: str,
    name: str,
    settings: dict[str, Any],
    seed: int,
    evaluations: int,
    goal: float = math.inf,
    images: float = math.inf,
    networks: float = math.inf,
) -> Row:
    """One search, measured; the images it had scored when its front was good enough, if ever."""
    searcher = make_searcher(name, bench.problem, seed=seed, **settings)
    counting = Counting(bench.scored_for(searcher))
    stop = Goal(bench.problem, counting, goal, images, networks)
    evaluator = SerialEvaluator(counting)
    controller = Controller(bench.problem, searcher, evaluator, evaluations, lambda record: None, stop=stop.reason)
    ended = controller.run()
    told = controller.told
    return {
        "way": way,
        "seed": seed,
        "ended": ended,
        "networks": len({e.candidate.levels for e in told}),
        "in full": len({e.candidate.levels for e in told if e.ok and e.candidate.fidelity == 1}),
        "images": counting.images,
        "seconds": round(counting.seconds, 1),
        "hypervolume": round(covered(bench.problem, told), 5),
        "reached": stop.reached or "",
        "fewer": "",
        **curses(bench, told, counting),
    }


def covered(problem: Problem, told: Sequence[Evaluation]) -> float:
    """Share of the rectangle of KL and MACs that is dominated by what was scored on everything."""
    dense = problem.costs.dense()["macs"]
    full = [e for e in told if e.ok and e.candidate.fidelity == 1]
    losses = np.array([(e.values["kl"] / WORST_KL, e.values["macs"] / dense) for e in full])
    return hypervolume(losses, (1.0, 1.0))


def curses(bench: Bench, told: Sequence[Evaluation], counting: Counting) -> Row:
    """How much lower the KL of front members is on the images that chose them than on others."""
    front = Front.of(told, bench.problem.objectives, bench.problem.costs.dense()).thinned(MEMBERS)
    members = [e for e in front if any(e.candidate.levels)]
    fresh = [bench.fresh(e.candidate.levels) for e in members]
    chosen = [e.values["kl"] for e in members]
    first = [counting.first[e.candidate.levels] for e in members]
    return {
        "members": len(members),
        "fresh KL": round(statistics.mean(fresh), 4),
        "curse": round(float(np.mean(np.subtract(fresh, chosen))), 4),
        "curse, first": round(float(np.mean(np.subtract(fresh, first))), 4),
    }


def synthetic_bench(seed: int) -> Bench:
    """A problem whose networks differ from image to image, by what all share and by what those alike share."""
    synthetic = synthetic_problem(units=UNITS, levels=LEVELS, seed=seed, interaction=0.5, coupled=True)
    problem = replace(synthetic.problem, objectives=(Objective("kl", "min"), Objective("macs", "min")))
    noise = Noise(seed)
    return Bench(
        problem,
        lambda searcher: lambda candidate: noisy(synthetic, noise, searcher, candidate),
        lambda levels: 3 * synthetic.kl(levels) * (1 + float(noise.shared.mean())),
    )


class Noise:
    """By what factors the KL of a network is off on each image, less 1.

    A Gaussian process of the levels with an exponential covariance, as a sum of waves with Cauchy frequencies (Rahimi
    and Recht, NeurIPS 2007, https://papers.nips.cc/paper/3182-random-features-for-large-scale-kernel-machines).
    """

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.shared = SHARED_NOISE * rng.standard_normal(SELECT)
        self._frequencies = rng.standard_cauchy((WAVES, UNITS)) / (UNITS * ALIKE * (LEVELS - 1))
        self._phases = rng.uniform(0, 2 * math.pi, WAVES)
        self._heights = OWN_NOISE * math.sqrt(2 / WAVES) * rng.standard_normal((WAVES, SELECT))

    def of(self, levels: tuple[int, ...]) -> np.ndarray:
        """(images,)."""
        return self.shared + np.cos(self._frequencies @ np.array(levels) + self._phases) @ self._heights


def noisy(synthetic: Synthetic, noise: Noise, searcher: Searcher, candidate: Candidate) -> Evaluation:
    """The score of a synthetic network on the images that a candidate asks for."""
    images = 3 * synthetic.kl(candidate.levels) * (1 + noise.of(candidate.levels))
    inside = [f for f in getattr(searcher, "fidelities", (1.0,)) if candidate.since < f <= candidate.fidelity]
    ends = [math.ceil(share * SELECT - 1e-9) for share in (candidate.since, *inside)]
    parts = [float(images[a:b].mean()) for a, b in itertools.pairwise(ends)]
    in_parts = {"kl": parts} if getattr(searcher, "in_parts", False) else {}
    value = float(images[ends[0] : ends[-1]].mean())
    return Evaluation(candidate, {"kl": value}, examples=ends[-1] - ends[0], parts=in_parts)


def live_bench(options: argparse.Namespace) -> Bench:
    """The job, with other training images in place of the test images."""
    select = SELECT // 2 if options.equal else SELECT
    overrides = {
        "data.calibrate": 500,
        "data.select": select + FRESH,
        "data.root": options.data,
        "model.weights": options.weights,
        "search.batch_norms": "anchored" if options.equal else "batch",
        "run.tune": "{layout: channels_last}" if options.equal else "{layout: channels_last, dtype: bfloat16}",
    }
    job = load(CONFIG, [f"{key}={value}" for key, value in overrides.items()]).resolve()
    base = open_session(replace(job, data=lambda: parted(job.data(), select // BATCH)), silent)
    fresh = replace(base.scorer, select=with_dense_outputs(base.model, base.data.report))
    return Bench(
        base.problem,
        lambda searcher: session_of(base, base.job, searcher).scorer.score,
        lambda levels: fresh.score(Candidate(levels)).values["kl"],
    )


def parted(data: Data, batches: int) -> Data:
    """The selection images in two sets: one guides the search, and the other is used only at the end."""
    return Data(data.calibrate, data.select[:batches], data.select[batches:])


def session_of(base: Session, job: Job, searcher: Searcher) -> Session:
    """The session as it is for a searcher, with the bank that is there already."""
    session = replace(base, job=replace(job, searcher=lambda problem, seed: searcher))
    vars(session)["_opened_bank"] = base._opened_bank
    return session


def write(path: Path, rows: Sequence[Row], options: argparse.Namespace) -> None:
    """The table, one line a search; its first line is the command."""
    live = f"{'--equal ' if options.equal else ''}{'--data DIR --weights FILE ' if options.data else ''}"
    ways = " ".join(f'"{way}"' if " " in way else way for way in options.ways)
    command = f"python benchmarks/multi_fidelity.py {live}--evaluations {options.evaluations} --ways {ways}"
    with path.open("w", newline="") as file:
        file.write(f"# {command} --seeds {' '.join(map(str, options.seeds))}\n")
        writer = csv.DictWriter(file, list(rows[-1]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def summarise(rows: Sequence[Row]) -> None:
    """Of every way: in how many searches it got there, and with how many times fewer images."""
    for way in dict.fromkeys(row["way"] for row in rows):
        mine = [row for row in rows if row["way"] == way]
        fewer = [row["fewer"] for row in mine if row["fewer"] != ""]
        times = f", {statistics.mean(fewer):.2f} times fewer ({min(fewer)} to {max(fewer)})" if fewer else ""
        curse, first = (statistics.mean(row[name] for row in mine) for name in ("curse", "curse, first"))
        volume, reached = statistics.mean(row["hypervolume"] for row in mine), f"reached in {len(fewer)} of {len(mine)}"
        print(f"{way}: {reached}{times}; hypervolume {volume:.4f}, winner's curse {curse:.4f}, first {first:.4f}")


if __name__ == "__main__":
    main()
