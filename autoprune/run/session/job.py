"""A job with everything resolved: what a search needs, whoever assembled it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from autoprune.core.contracts import Searcher, Tracker
from autoprune.core.cost import CostFactory, UserCost
from autoprune.core.levels import LevelRule
from autoprune.core.objective import Bound, Objective
from autoprune.core.problem import Problem
from autoprune.measure.fitness import reported_names
from autoprune.measure.form import Form
from autoprune.measure.settings import Scoring
from autoprune.plugins import load_plugin
from autoprune.prune.bank.masks import MASKS
from autoprune.prune.criteria import CRITERIA
from autoprune.run.session.limits import (
    MOST_EVALUATIONS,
    MOST_SEED,
    MOST_THREADS,
    MOST_WORKERS,
    number,
    told,
    whole,
    word,
)
from autoprune.run.session.names import KeyPath, dotted, unknown_names
from autoprune.train.finetune import FineTune


def silent(progress: Progress) -> None:
    """A report to nobody."""


@dataclass(frozen=True)
class Stop:
    """A search ends after so many `seconds`, with a network within all bounds of `target`, or when its front has not
    grown over the last `stagnation` evaluations; none of these when they are left out.
    """

    seconds: float | None = None
    target: tuple[Bound, ...] = ()
    stagnation: int | None = None


def parse_target(text: str) -> tuple[Bound, ...]:
    """The bounds of "accuracy>=0.9 at macs<=0.5"; "at" and commas part them. ConfigError if one is none."""
    return tuple(Bound.parse(part) for part in text.replace(" at ", ",").split(","))


if TYPE_CHECKING:
    from torch import nn

    from autoprune.data import Data
    from autoprune.prune.passes.examples import Examples


@dataclass(frozen=True)
class Executor:
    """Who scores candidates: this process (serial), processes on this machine, or Ray actors.

    `workers` is how many at once; None takes as many as the machine or the cluster has room for. Each has `cpus`, which
    is also how many threads its torch uses, and, with ray, `gpus`: fractions are allowed. `memory_bytes` limits what a
    worker allocates (processes) or reserves it (ray). `address` and `runtime_env` are Ray's. A candidate whose worker
    dies, or does not answer in `timeout` seconds, is begun at most `attempts` times; a timeout of None is taken from
    the evaluations before (run.pool). Serial has neither of them.
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
        told(
            [
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
    """Makes a searcher from (problem, seed): that of a plug-in's name, with its options. Picklable."""

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
    """Everything a search needs.

    `model` and `data` are zero-argument factories; `searcher` makes one from (problem, seed). `guide` names a
    measurement (lower is better) that stands in for the first objective that is not a cost while searching.
    `masks` says which entries of a weight stay, by name or as a function (prune.bank.masks). `scoring` has the options
    of scoring; what it says of form, fidelities and parts the session replaces. `tune` is the form that candidates are
    scored in: "auto" times some at the start (run.session.tuning), "off" takes the data as it comes. Unless
    `compensation` is "none" the members of the front are fitted to the dense network on all calibration images
    (prune.compensation), "thorough" at three times the cost. With `finetune` every network that is scored, and every
    member of the front, is trained on the data's train set.
    `front_size` is how many networks are built and measured on the report set at most.
    `calls` makes further example calls of the model (prune.examples), beside the example of the data: the structure
    holds for all of them, and every network of the front is compared in all.
    `executor` says who scores; when `deterministic`, what the search sees does not depend on who answers first
    (run.controller).
    `stop` ends a search early (run.stopping). `expected` are values that the dense network should have by what is known
    of it; the run warns where it measures others.
    `trackers` are told of the run, or make an object that is (core.contracts.Tracker).
    `document` is the plain data the job was made from, written to the run folder as job.yaml.
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
    front_size: int = 32
    seed: int = 0
    guide: str | None = "kl"
    scoring: Scoring = field(default_factory=Scoring)
    compensation: Literal["sequential", "thorough", "none"] = "sequential"
    finetune: FineTune | None = None
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
        told(
            [
                *whole("evaluations", self.evaluations, 1, MOST_EVALUATIONS),
                *whole("front_size", self.front_size, 2, MOST_EVALUATIONS),
                *whole("seed", self.seed, 0, MOST_SEED),
                *([] if self.threads is None else whole("threads", self.threads, 1, MOST_THREADS)),
                *word("compensation", self.compensation, ("sequential", "thorough", "none")),
                *([] if callable(self.criterion) else word("criterion", self.criterion, CRITERIA)),
                *([] if callable(self.masks) else word("masks", self.masks, MASKS)),
                *(_wrong_tracker(tracker) for tracker in self.trackers if not isinstance(tracker, Tracker | Callable)),
                *(f"{dotted(path)}: {sentence}" for path, sentence in self._unknown_names()),
            ]
        )

    def _unknown_names(self) -> list[tuple[KeyPath, str]]:
        reported = reported_names(self.fitness, self.guide)
        return unknown_names(reported, self.objectives, self.guide, self.stop.target, self.expected, self.costs)


def _wrong_tracker(given: object) -> str:
    return (
        "trackers: expected objects with started, evaluated and finished, or functions that make them, got a "
        f"{type(given).__name__} among them"
    )


@dataclass(frozen=True)
class Progress:
    """Where a run stands: `done` of `total` steps of one phase (trace, statistics, workers, search, front)."""

    phase: str
    done: int
    total: int
    message: str = ""


OnProgress = Callable[[Progress], None]
