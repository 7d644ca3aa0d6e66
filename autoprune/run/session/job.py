"""A job: all settings of a search, resolved, from a job file or from Python."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

from autoprune.core.contracts import Searcher, Tracker
from autoprune.core.cost import CostFactory, UserCost
from autoprune.core.levels import LevelRule
from autoprune.core.objective import NAMED, Bound, Direction, Objective, is_name
from autoprune.core.options import number, raise_problems, whole, word
from autoprune.core.problem import Problem
from autoprune.measure.fitness import reported_names
from autoprune.measure.form import Form
from autoprune.measure.settings import Scoring
from autoprune.plugins import load_plugin
from autoprune.prune.bank.masks import MASKS
from autoprune.prune.criteria import CRITERIA
from autoprune.run.session.limits import MOST_EVALUATIONS, MOST_SEED, MOST_THREADS, MOST_WORKERS
from autoprune.run.session.names import KeyPath, dotted, unknown_names
from autoprune.train.finetune import FineTune
from autoprune.train.recovery.options import Recovery

CompensationName = Literal["sequential", "thorough", "mimic", "none"]
FRONT_SIZES = (32, 12)  # the default of `front_size`, and that of a run that builds for longer than it searches


def silent(progress: Progress) -> None:
    """Ignores progress."""


@dataclass(frozen=True)
class Stop:
    """Conditions that end a search early; those left out do not apply.

    Attributes:
        seconds: the time limit of the search; the seconds before a resume count too.
        target: the search ends when a network is within all of these bounds.
        stagnation: the search ends when its front has not grown over this many evaluations.
    """

    seconds: float | None = None
    target: tuple[Bound, ...] = ()
    stagnation: int | None = None


def parse_target(text: str) -> tuple[Bound, ...]:
    """Parses bounds as in "accuracy>=0.9 at macs<=0.5" with "at" or commas between. ConfigError if one is invalid."""
    return tuple(Bound.parse(part) for part in text.replace(" at ", ",").split(","))


if TYPE_CHECKING:
    from torch import nn

    from autoprune.data import Data
    from autoprune.prune.passes.examples import Examples


@dataclass(frozen=True)
class Executor:
    """The executor that scores candidates: this process (serial), processes on this machine, or Ray actors.

    Attributes:
        workers: the number of workers; None takes as many as the machine or the cluster has room for.
        cpus: the CPUs of each worker, and the number of threads of its torch.
        gpus: the GPUs of each worker with ray; fractions are allowed.
        memory_bytes: the memory that a worker may allocate (processes) or that is reserved for it (ray).
        address: the address of the Ray cluster.
        runtime_env: Ray's runtime environment.
        timeout: seconds after which a candidate is given up; None derives it from earlier evaluations
            (run.executors.pool). The serial executor has no timeout.
        attempts: how many times a candidate is started at most if its worker dies or exceeds the timeout. The serial
            executor starts each once.
    """

    name: Literal["serial", "processes", "ray"] = "serial"
    workers: int | None = None
    cpus: float = 1
    gpus: float = 0
    memory_bytes: int | None = None
    address: str = "local"
    runtime_env: Mapping[str, Any] = field(default_factory=dict)
    attempts: int = 3
    timeout: float | None = None

    def __post_init__(self) -> None:
        named, mapping = isinstance(self.address, str) and self.address, isinstance(self.runtime_env, Mapping)
        raise_problems(
            [
                *([] if named else [f"address: expected a Ray cluster such as 'auto', got {self.address!r}"]),
                *([] if mapping else [f"runtime_env: expected a mapping, got {self.runtime_env!r}"]),
                *word("executor", self.name, ("serial", "processes", "ray")),
                *([] if self.workers is None else whole("workers", self.workers, 1, MOST_WORKERS)),
                *number("cpus", self.cpus, 0, MOST_THREADS, above=True),
                *number("gpus", self.gpus, 0, MOST_THREADS),
                *([] if self.memory_bytes is None else whole("memory_bytes", self.memory_bytes, 1, 2**60)),
                *whole("attempts", self.attempts, 1, 1000),
                *([] if self.timeout is None else number("timeout", self.timeout, 0, 1e9, above=True)),
            ]
        )


@dataclass(frozen=True)
class NamedSearcher:
    """Makes the searcher of a plug-in's name, with its options, from (problem, seed). It is picklable."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, problem: Problem, seed: int) -> Searcher:
        searcher: Searcher = self.plugin(problem, seed=seed)
        return searcher

    @property
    def plugin(self) -> Callable[..., Any]:
        """The plug-in with its options filled in."""
        return functools.partial(load_plugin(self.name), **self.options)


MakeTracker = Callable[[], Tracker]


@dataclass(frozen=True)
class Job:
    """The settings of a search.

    Attributes:
        model: makes the model.
        data: makes the data.
        searcher: makes the searcher from (problem, seed).
        guide: name of a measurement (lower is better) that replaces the first objective that is not a cost during the
            search.
        masks: chooses the entries of a weight that stay; a name or a function (prune.bank.masks).
        scoring: the options of scoring.
        tune: the form that candidates are scored in; "auto" times some at the start (run.session.tuning), "off" takes
            the data as it comes.
        compensation: unless it is "none", the members of the front are fitted to the dense network on all calibration
            examples (prune.compensation); "thorough" takes three times as long, and "mimic" trains them afterwards,
            without labels, to have the dense network's features (train.recovery.mimicking).
        finetune: if given, every network that is scored, and every member of the front, is trained on the train set.
        recover: the options of `autoprune recover`, which the search does not depend on.
        front_size: the number of members of the front, which are built and measured on the report set, at most; None
            chooses one of FRONT_SIZES from the forecast (run.forecast.advice). Where branches are searched beside
            widths, two fronts are built, with and without removed branches, each with so many.
        calls: makes further example calls of the model (prune.passes.examples) besides the example of the data. The
            structure holds for all calls, and every member of the front is compared in all.
        executor: the executor that scores candidates.
        deterministic: whether the front is the same for any number of workers (run.loop.controller).
        stop: conditions that end the search early (run.loop.stopping).
        expected: known values of the dense network; the run warns if it measures others.
        trackers: objects that follow the run, or functions that make them (core.contracts.Tracker).
        document: the plain data that the job was made from, written to the run folder as job.yaml.
    """

    name: str
    model: Callable[[], nn.Module]
    data: Callable[[], Data]
    rules: tuple[LevelRule, ...]
    objectives: tuple[Objective, ...]
    searcher: Callable[[Problem, int], Searcher]
    fitness: Callable[..., Any]
    calls: Callable[[], Examples] | None = None
    criterion: str | Callable[..., Any] = "obs"
    masks: str | Callable[..., Any] = "obs"
    costs: Mapping[str, UserCost | CostFactory] = field(default_factory=dict)
    evaluations: int = 300
    front_size: int | None = None
    seed: int = 0
    guide: str | None = "kl"
    scoring: Scoring = field(default_factory=Scoring)
    compensation: CompensationName = "sequential"
    finetune: FineTune | None = None
    recover: Recovery | None = None
    device: str = "auto"
    threads: int | None = None
    tune: Literal["auto", "off"] | Form = "auto"
    executor: Executor = Executor()
    deterministic: bool = False
    stop: Stop = field(default_factory=Stop)
    expected: Mapping[str, float] = field(default_factory=dict)
    trackers: Sequence[Tracker | MakeTracker] = ()
    document: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        raise_problems(
            [
                *whole("evaluations", self.evaluations, 1, MOST_EVALUATIONS),
                *([] if self.front_size is None else whole("front_size", self.front_size, 2, MOST_EVALUATIONS)),
                *whole("seed", self.seed, 0, MOST_SEED),
                *([] if self.threads is None else whole("threads", self.threads, 1, MOST_THREADS)),
                *word("compensation", self.compensation, get_args(CompensationName)),
                *([] if callable(self.criterion) else word("criterion", self.criterion, CRITERIA)),
                *([] if callable(self.masks) else word("masks", self.masks, MASKS)),
                *(_wrong_tracker(tracker) for tracker in self.trackers if not isinstance(tracker, Tracker | Callable)),
                *(problem for objective in self.objectives for problem in _wrong_objective(objective)),
                *(f"{dotted(path)}: {sentence}" for path, sentence in self._unknown_names()),
            ]
        )

    def _unknown_names(self) -> list[tuple[KeyPath, str]]:
        reported = reported_names(self.fitness, self.guide)
        return unknown_names(reported, self.objectives, self.guide, self.stop.target, self.expected, self.costs)


def _wrong_objective(given: Objective) -> list[str]:
    where, bound = f"objective {given.name!r}", given.bound
    finite = isinstance(bound, int | float) and not isinstance(bound, bool) and math.isfinite(bound)
    return [
        *([] if is_name(given.name) else [f"objectives: expected names of {NAMED}, got {given.name!r}"]),
        *word(f"the direction of {where}", given.direction, get_args(Direction)),
        *(
            []
            if bound is None or finite
            else [f"the bound of {where}: expected a finite number or None, got {bound!r}"]
        ),
    ]


def _wrong_tracker(given: object) -> str:
    return (
        "trackers: expected objects with started, evaluated and finished, or functions that make them, got a "
        f"{type(given).__name__} among them"
    )


@dataclass(frozen=True)
class Progress:
    """The progress of a run: `done` of `total` steps of a phase (trace, statistics, workers, search, front)."""

    phase: str
    done: int
    total: int
    message: str = ""


OnProgress = Callable[[Progress], None]
