"""Images that searches on parts of the selection set score until their front is as good as that of full scoring.

    python benchmarks/multi_fidelity.py --data DIR --weights FILE

The job is configs/cifar10_resnet20.yaml with quick scores (`search.batch_norms: batch`, so that no images are spent on
statistics) on 2,000 images of the training set. For each seed `evolution` scores 300 networks on all of them: 600,000
images. Then halving, Hyperband, asha and racing, with networks of the same evolution, go on until the hypervolume of
what they have scored on all images is within 0.5 % of that, or three quarters of those images are spent. Hypervolume
is over KL to the dense network (up to 2 nats) and the share of the MACs.

The winner's curse is how much better the networks of the front look on the images that chose them than on 4,000 other
images of the training set that no search has seen: KL there minus the score, a mean over eight of the front; `first`
is the same for the score at the first rung, on which the networks were compared first.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from autoprune.config import load
from autoprune.core.contracts import Searcher
from autoprune.core.evaluation import Evaluation
from autoprune.core.front import Front, hypervolume
from autoprune.core.space import Candidate
from autoprune.data import Data
from autoprune.measure.scorer import Scorer, with_dense_outputs
from autoprune.prune.modes import torch_threads
from autoprune.run.controller import Controller
from autoprune.run.drive import silent
from autoprune.run.job import Job
from autoprune.run.serial import SerialEvaluator
from autoprune.run.session import Session, open_session
from autoprune.search import make_searcher

CONFIG = Path(__file__).parents[1] / "configs" / "cifar10_resnet20.yaml"
SELECT, FRESH, BATCH = 2_000, 4_000, 100
WORST_KL = 2.0
CLOSE = 0.995  # of the hypervolume of full scoring
MOST = 0.75  # of its images
MEMBERS = 8

WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "halving": ("halving", {}),
    "hyperband": ("halving", {"hyperband": True}),
    "asha": ("asha", {}),
    "screening": ("screening", {"source": "evolution"}),
    "racing": ("racing", {}),
}

Row = dict[str, Any]


@dataclass
class Counting:
    """A scorer that counts images and processor seconds, and remembers the first score of every network."""

    scorer: Scorer
    images: int = 0
    seconds: float = 0.0
    first: dict[tuple[int, ...], float] = field(default_factory=dict)

    def __call__(self, candidate: Candidate) -> Evaluation:
        start = time.process_time()
        evaluation = self.scorer.score(candidate)
        self.seconds += time.process_time() - start
        self.images += evaluation.examples
        self.first.setdefault(candidate.levels, evaluation.values["kl"])
        return evaluation


@dataclass
class Goal:
    """Says when a search has a front with this hypervolume, or has scored this many images."""

    session: Session
    counting: Counting
    volume: float
    images: float
    reached: int | None = None
    read: int = 0

    def reason(self, told: Sequence[Evaluation]) -> str:
        new = told[self.read :]
        self.read = len(told)
        if any(e.ok and e.candidate.fidelity == 1 for e in new) and covered(self.session, told) >= self.volume:
            self.reached = self.counting.images
            return "reached"
        return "images" if self.counting.images >= self.images else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--evaluations", type=int, default=300)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--out", type=Path, default=Path("results/multi_fidelity_resnet20_cifar10.csv"))
    options = parser.parse_args()
    rows: list[Row] = []
    with torch_threads(1):
        base = open_session(job_of(options), silent)
        for seed in options.seeds:
            rows.append(run(base, "full", "evolution", {}, seed, options.evaluations))
            goal, images = CLOSE * rows[-1]["hypervolume"], rows[-1]["images"]
            for way in options.ways:
                name, settings = WAYS[way]
                rows.append(run(base, way, name, settings, seed, options.evaluations, goal, MOST * images))
                rows[-1]["fewer"] = round(images / rows[-1]["reached"], 2) if rows[-1]["reached"] else ""
                print(rows[-1], flush=True)
            write(options.out, rows, options)
    summarise(rows)


def job_of(options: argparse.Namespace) -> Job:
    """The job, with other training images in place of the test images."""
    overrides = {
        "data.calibrate": 500,
        "data.select": SELECT + FRESH,
        "data.root": options.data,
        "model.weights": options.weights,
        "search.batch_norms": "batch",
        "run.tune": "{layout: channels_last}",
    }
    job = load(CONFIG, [f"{key}={value}" for key, value in overrides.items()]).resolve()
    return replace(job, data=lambda: parted(job.data()))


def parted(data: Data) -> Data:
    """The selection images in two: those that guide the search, and those that nobody sees before the end."""
    return Data(data.calibrate, data.select[: SELECT // BATCH], data.select[SELECT // BATCH :])


def run(
    base: Session,
    way: str,
    name: str,
    settings: dict[str, Any],
    seed: int,
    evaluations: int,
    goal: float = np.inf,
    images: float = np.inf,
) -> Row:
    """One search, measured; the images it had scored when its front was good enough, if ever."""
    searcher: Searcher = make_searcher(name, base.problem, seed=seed, **settings)
    fidelities = tuple(getattr(searcher, "fidelities", ()))
    session = replace(base, job=replace(base.job, searcher=lambda problem, seed: searcher))
    vars(session)["_opened_bank"] = base._opened_bank  # made once for all of them
    counting = Counting(session.scorer)
    stop = Goal(session, counting, goal, images)
    controller = Controller(
        session.problem, searcher, SerialEvaluator(counting), evaluations, lambda record: None, stop=stop.reason
    )
    ended = controller.run()
    row = {
        "way": way,
        "seed": seed,
        "ended": ended,
        "networks": len({e.candidate.levels for e in controller.told}),
        "in full": len({e.candidate.levels for e in controller.told if e.ok and e.candidate.fidelity == 1}),
        "images": counting.images,
        "seconds": round(counting.seconds, 1),
        "hypervolume": round(covered(session, controller.told), 5),
        "reached": stop.reached or "",
        "fewer": "",
    }
    print(f"{way}, fidelities {[round(f, 3) for f in fidelities[:3]]}: {row}", flush=True)
    return row | curses(session, controller.told, counting)


def covered(session: Session, told: Sequence[Evaluation]) -> float:
    """Share of the rectangle of KL and MACs that is dominated by what was scored on everything."""
    dense = session.dense_costs["macs"]
    full = [e for e in told if e.ok and e.candidate.fidelity == 1]
    losses = np.array([(e.values["kl"] / WORST_KL, e.values["macs"] / dense) for e in full])
    return hypervolume(losses, (1.0, 1.0))


def curses(session: Session, told: Sequence[Evaluation], counting: Counting) -> Row:
    """How much lower the KL of front members is on the images that chose them than on others."""
    front = Front.of(told, session.problem.objectives, session.dense_costs).thinned(MEMBERS)
    members = [e for e in front if any(e.candidate.levels)]
    fresh = fresh_scorer(session)
    values = [fresh.score(Candidate(e.candidate.levels)).values["kl"] for e in members]
    chosen = [e.values["kl"] for e in members]
    first = [counting.first[e.candidate.levels] for e in members]
    return {
        "members": len(members),
        "fresh KL": round(statistics.mean(values), 4),
        "curse": round(statistics.mean(np.subtract(values, chosen)), 4),
        "curse, first": round(statistics.mean(np.subtract(values, first)), 4),
    }


def fresh_scorer(session: Session) -> Scorer:
    """Scores in the same way on the images that no search has seen."""
    select = with_dense_outputs(session.model, session._batches(session.data.report))
    return replace(session.scorer, select=select, fidelities=(), in_parts=False)


def write(path: Path, rows: Sequence[Row], options: argparse.Namespace) -> None:
    """The table, one line a search; its first line is the command."""
    seeds = " ".join(map(str, options.seeds))
    command = f"python benchmarks/multi_fidelity.py --data DIR --weights FILE --evaluations {options.evaluations}"
    with path.open("w", newline="") as file:
        file.write(f"# {command} --seeds {seeds}\n")
        writer = csv.DictWriter(file, list(rows[-1]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def summarise(rows: Sequence[Row]) -> None:
    """Of every way: in how many searches it got there, and with how many times fewer images."""
    for way in dict.fromkeys(row["way"] for row in rows):
        mine = [row for row in rows if row["way"] == way]
        fewer = [row["fewer"] for row in mine if row["fewer"] != ""]
        times = f", {statistics.mean(fewer):.2f} times fewer ({min(fewer)} to {max(fewer)})" if fewer else ""
        curse = statistics.mean(row["curse"] for row in mine)
        print(f"{way}: reached in {len(fewer)} of {len(mine)}{times}; winner's curse {curse:.4f}")


if __name__ == "__main__":
    main()
