"""How much of its workers' time the driver wastes, with evaluations that sleep.

    python benchmarks/scheduling.py

Evaluations take a lognormal time of 200 ms in the mean (sigma 1: one in a hundred takes 1.2 s, some take 5 s) and
compute nothing, so that many workers fit on few cores. Everything else is as in a real run: a searcher over 50 units,
the pool that supervises workers, the journal on disk, an event for each evaluation. `simulated` workers live in the
driver's process; `processes` and `ray` are real ones that sleep; `instant` ones answer at once, so that nothing but the
driver's own work is left. `ideal_s` is the workers' summed sleep over their number, `efficiency` ideal over real
seconds: the part of 1 that is missing is waiting for the driver, messages, and for the last evaluations of the run.
`driver_ms` is the driver's processor time for one evaluation, `driver_mib` by how much it had grown in the end.
"""

from __future__ import annotations

import argparse
import csv
import functools
import heapq
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from processes import in_new_process

from autoprune.core.contracts import Evaluator
from autoprune.core.evaluation import Evaluation
from autoprune.core.space import Candidate
from autoprune.measure.form import DEFAULT_FORM, Form
from autoprune.measure.scorer import Scorer
from autoprune.run.executors.evaluator import open_evaluator
from autoprune.run.executors.parcel import Builder
from autoprune.run.executors.pool import News, Pool
from autoprune.run.loop.controller import Controller
from autoprune.run.records.events import Events
from autoprune.run.records.journal import Journal
from autoprune.run.session.job import Executor
from autoprune.searchers import make_searcher
from autoprune.testing import Synthetic, synthetic_problem

MEAN_SECONDS, SIGMA = 0.2, 1.0
DURATIONS = np.random.default_rng(0).lognormal(np.log(MEAN_SECONDS) - SIGMA**2 / 2, SIGMA, 9973).tolist()
COLUMNS = (
    "workers",
    "where",
    "searcher",
    "evaluations",
    "seconds",
    "ideal_s",
    "efficiency",
    "driver_ms",
    "driver_mib",
)
CASES = (
    # where, workers, evaluations, searcher
    ("simulated", 1, 100, "random"),
    ("simulated", 8, 1_000, "random"),
    ("simulated", 64, 20_000, "random"),
    ("simulated", 64, 20_000, "evolution"),
    ("simulated", 256, 20_000, "random"),
    ("simulated", 256, 20_000, "evolution"),
    ("processes", 16, 2_000, "random"),
    ("ray", 16, 2_000, "random"),
    ("instant", 1, 100_000, "random"),
)

Row = dict[str, Any]


@dataclass
class Sleeper:
    """Scores by sleeping: the time it takes follows from the candidate. It stands in for a Scorer."""

    synthetic: Synthetic
    form: Form = DEFAULT_FORM
    reuse_bytes: int = 0
    worker: str = ""

    @property
    def stage(self) -> Sleeper:
        return self

    def prepare(self) -> None:
        """There is nothing to make before the first score."""

    def score(self, candidate: Candidate) -> Evaluation:
        seconds = duration(candidate)
        time.sleep(seconds)
        return replace(self.synthetic.evaluate(candidate), seconds=seconds, worker=self.worker)


def duration(candidate: Candidate) -> float:
    """Lognormal seconds, the same for the same candidate."""
    return DURATIONS[hash(candidate.levels) % len(DURATIONS)]


@dataclass(eq=False)
class SimulatedWorker:
    """A worker that is done when its time has come."""

    name: str
    site: SimulatedSite

    def submit(self, candidate: Candidate) -> None:
        seconds = duration(candidate)
        evaluation = replace(self.site.synthetic.evaluate(candidate), seconds=seconds, worker=self.name)
        self.site.expect(time.monotonic() + seconds, News(self, "answer", evaluation))

    def build(self, candidate: Candidate) -> None:
        raise AssertionError("no front is built")

    def kill(self) -> None:
        raise AssertionError("no simulated worker fails")


class SimulatedSite:
    """Workers whose answers arrive by the clock."""

    def __init__(self, synthetic: Synthetic, count: int) -> None:
        self.synthetic = synthetic
        self._count = count
        self._coming: list[tuple[float, int, News]] = []
        self._order = itertools.count()

    def expect(self, when: float, news: News) -> None:
        heapq.heappush(self._coming, (when, next(self._order), news))

    def capacity(self) -> int:
        return self._count

    def start(self, name: str) -> SimulatedWorker:
        worker = SimulatedWorker(name, self)
        self.expect(time.monotonic(), News(worker, "ready"))
        return worker

    def wait(self, seconds: float) -> Sequence[News]:
        until = min(self._coming[0][0] if self._coming else np.inf, time.monotonic() + seconds)
        time.sleep(max(0.0, until - time.monotonic()))
        news = []
        while self._coming and self._coming[0][0] <= time.monotonic():
            news.append(heapq.heappop(self._coming)[2])
        return news

    def carry(self, builder: Builder) -> None:
        raise AssertionError("no front is built")

    def close(self) -> None:
        pass


class Instant:
    """One slot whose answers cost nothing: what is left is the driver's own work."""

    slots = 1

    def __init__(self, synthetic: Synthetic) -> None:
        self._synthetic = synthetic

    def submit(self, candidate: Candidate) -> None:
        self._candidate = candidate

    def collect(self) -> Evaluation:
        return self._synthetic.evaluate(self._candidate)


@contextmanager
def evaluator(where: str, workers: int, synthetic: Synthetic, on_event: Callable[..., None]) -> Iterator[Evaluator]:
    if where == "instant":
        yield Instant(synthetic)
    elif where == "simulated":
        with Pool(SimulatedSite(synthetic, workers), attempts=3, timeout=None, on_event=on_event) as pool:
            yield pool
    else:
        executor = Executor(cast(Any, where), workers, cpus=1 if where == "processes" else 0.05)
        with open_evaluator(executor, cast(Scorer, Sleeper(synthetic)), on_event) as opened:
            assert isinstance(opened, Pool)
            while opened.alive < workers:  # starting is not what is timed
                opened.submit(synthetic.problem.space.dense)
                opened.collect()
            yield opened


def note(events: Events, done: int, evaluation: Evaluation) -> None:
    """What a run writes down of every evaluation."""
    events.add("evaluation", {"done": done, "status": evaluation.status})


def driven(where: str, workers: int, budget: int, searcher: str) -> Row:
    """One run, as a row."""
    synthetic = synthetic_problem(units=50, levels=8)
    told: list[Evaluation] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        Journal(Path(folder) / "journal.jsonl") as journal,
        Events() as events,
        evaluator(where, workers, synthetic, events.add) as opened,
    ):
        events.keep(Path(folder) / "events.jsonl")
        made = make_searcher(searcher, synthetic.problem, seed=0)
        watch = functools.partial(note, events)
        controller = Controller(synthetic.problem, made, opened, budget, journal.append, watch)
        begun, used = time.perf_counter(), time.process_time()
        controller.run()
        seconds, used = time.perf_counter() - begun, time.process_time() - used
        told = controller.told
    ideal = sum(evaluation.seconds for evaluation in told) / workers
    return {
        "workers": workers,
        "where": where,
        "searcher": searcher,
        "evaluations": controller.done,
        "seconds": f"{seconds:.1f}",
        "ideal_s": f"{ideal:.1f}",
        "efficiency": f"{ideal / seconds:.3f}" if where != "instant" else "",
        "driver_ms": f"{1000 * used / controller.done:.3f}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="one kind of workers: simulated, processes, ray or instant")
    parser.add_argument("--out", type=Path, default=Path("results/scheduling.csv"))
    arguments = parser.parse_args()
    with arguments.out.open("w", newline="") as file:
        file.write("# python benchmarks/scheduling.py\n")
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for case in CASES:
            if arguments.only in (None, case[0]):
                measured = in_new_process(driven, *case)
                row = {**measured.result, "driver_mib": f"{measured.peak_mib:.0f}"}
                print(row, flush=True)
                writer.writerow(row)


if __name__ == "__main__":
    import scheduling  # under its own name, so that workers can import what they are sent

    scheduling.main()
