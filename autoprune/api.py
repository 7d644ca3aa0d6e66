"""The same job in Python: a trained model and data in, a front of networks out."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeGuard

from torch import nn

from autoprune.core.contracts import Searcher
from autoprune.core.cost import UserCost
from autoprune.core.levels import LevelRule
from autoprune.core.objective import KNOWN_DIRECTIONS, Objective
from autoprune.core.problem import Problem
from autoprune.data import Data
from autoprune.errors import ConfigError, did_you_mean
from autoprune.measure.finetune import FineTune
from autoprune.measure.fitness import Fitness, classification
from autoprune.prune.bank.masks import Scores
from autoprune.prune.criteria import Criterion
from autoprune.prune.passes.examples import Examples
from autoprune.run import drive
from autoprune.run.drive import RunResult
from autoprune.run.records.folder import RunFolder, write_text
from autoprune.run.results.front_file import LeftOut, Row, pick_row, to_csv
from autoprune.run.results.members import document_of, export_member, rebuild_member
from autoprune.run.session.job import Executor, Job, OnProgress, silent
from autoprune.run.session.limits import told, word
from autoprune.run.session.plugin_checks import check_data, kind_of
from autoprune.searchers import SEARCHERS, make_searcher

EIGHTHS = tuple(step / 8 for step in range(1, 8))


@dataclass(frozen=True)
class Network:
    """One network of a front; `row` has its costs and everything that was measured of it."""

    row: Row
    _result: RunResult

    def build(self) -> nn.Module:
        """The small network in eval mode: compensated, batch norms re-estimated, really smaller."""
        return rebuild_member(self._result.session, self.row).network

    def export(self, directory: str | Path) -> None:
        """Writes recipe.json and weights.safetensors into a new folder, whole or not at all, for `autoprune.load`."""
        export_member(self._result.session, self.row, Path(directory))


@dataclass(frozen=True)
class Networks:
    """The front of a finished search: iterable, with a length, by rising cost."""

    _result: RunResult

    def __len__(self) -> int:
        return len(self._result.rows)

    def __iter__(self) -> Iterator[Network]:
        return (Network(row, self._result) for row in self._result.rows)

    def __getitem__(self, index: int) -> Network:
        return Network(self._result.rows[index], self._result)

    @property
    def left_out(self) -> tuple[LeftOut, ...]:
        """The networks that the front lacks because they could not be built or measured, with their causes."""
        return self._result.left_out

    def pick(self, which: str) -> Network:
        """The network that bounds, a row number ("#3", counted from 1) or a candidate's name ("2-2-2-4") stand for.

        Bounds on costs alone ("macs<=0.5,params<=100000"; a value of at most 1 is a share of the dense network's cost)
        pick the best measured network, bounds on measurements alone ("accuracy>=0.97") the cheapest one by the first
        cost; with bounds on both, the best measurement counts. `accuracy` is what the report set says, and
        `select_accuracy` what the selection set says: what is picked by the latter keeps an unbiased `accuracy`.

        Raises:
            ConfigError: the text names no network.
            InfeasibleBudget: no network is within the bounds; the message names the nearest one.
        """
        return Network(pick_row(document_of(self._result.session, self._result.rows), which), self._result)

    def to_csv(self, path: str | Path) -> None:
        write_text(Path(path), to_csv(self._result.rows))


def search(
    model: nn.Module,
    data: Data,
    *,
    objectives: Sequence[str | Objective] = ("accuracy", "macs"),
    rules: Sequence[LevelRule] = (LevelRule("*", EIGHTHS),),
    searcher: str | Callable[[Problem, int], Searcher] = "auto",
    options: Mapping[str, Any] | None = None,
    evaluations: int = 300,
    seed: int = 0,
    fitness: Fitness = classification,
    calls: Examples | None = None,
    criterion: str | Criterion = "obs",
    masks: str | Scores = "obs",
    costs: Mapping[str, UserCost] | None = None,
    guide: str | None = None,
    compensation: Literal["sequential", "thorough", "none"] = "sequential",
    finetune: FineTune | None = None,
    device: str = "auto",
    executor: Literal["serial", "processes", "ray"] | Executor = "serial",
    deterministic: bool = False,
    expected: Mapping[str, float] | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    fork: str | Path | None = None,
    progress: OnProgress = silent,
) -> Networks:
    """Searches how much of each unit of a trained network to keep.

    Args:
        model: the trained network; it is not changed.
        data: calibration, selection and report sets, see `Data.from_arrays`.
        objectives: what to trade off, names with a known direction or Objectives.
        rules: which units may keep how much; the default offers every eighth of all of them.
        searcher: a name with `options`, or a function (problem, seed) -> searcher.
        calls: further example calls of the model, in the forms that `find_structure` takes. Give them where the inputs
            of the data do not run the whole model: the structure holds for all calls, and every network of the front
            is compared with the original in all of them.
        masks: which entries of weights stay where rules of the kinds weights and pattern ask: "obs", "magnitude",
            "wanda" or a function (weight, moments) -> scores.
        evaluations: how many networks to score.
        guide: a measurement (lower is better) to search by in place of the first objective that is no cost; by
            default "kl" with the default fitness and none with another.
        compensation: "sequential" fits the front's networks to the dense one on all calibration images; "thorough" does
            it better at three times the cost.
        finetune: trains every network for so many steps on the train set of the data, while searching and in the front.
        executor: who scores candidates; by name with its defaults, as many workers as there is room for.
        deterministic: the same front for any number of workers, in exchange for some waiting.
        expected: what the dense network should measure on the selection set, such as {"accuracy": 0.917}; a warning is
            logged where it does not.
        out: a new folder for journal and front; without it nothing is written.
        resume: continue the run in `out`, if it is there already, with the arguments it was started with. Arguments
            whose options, source or content changed are refused with JournalMismatch, which says what changed.
        fork: the folder of an earlier run, whose evaluations are used as far as they would come out the same now.

    >>> front = autoprune.search(model, data, evaluations=300)
    >>> small = front.pick("macs<=0.5").build()

    Raises:
        ConfigError: an argument is of the wrong kind or out of bounds, with every mistake.
        DataError: `data` is no Data.
        PluginError: a plug-in does not keep its contract.
        RunExists: there is something at `out` already.
        RunFailed: the dense network cannot be scored, or every candidate failed.
    """
    told(_wrong_kinds(model, objectives, rules, searcher, options, fitness, costs, executor))
    check_data(data)
    job = Job(
        name=type(model).__name__,
        model=lambda: model,
        data=lambda: data,
        rules=tuple(rules),
        objectives=tuple(_objective(o) for o in objectives),
        searcher=_factory(searcher, options or {}),
        fitness=fitness,
        calls=None if calls is None else lambda: calls,
        criterion=criterion,
        masks=masks,
        costs=costs or {},
        evaluations=evaluations,
        seed=seed,
        guide="kl" if guide is None and fitness is classification else guide,
        compensation=compensation,
        finetune=finetune,
        device=device,
        executor=Executor(executor) if isinstance(executor, str) else executor,
        deterministic=deterministic,
        expected=expected or {},
        document={"made_by": "autoprune.search in Python", "seed": seed, "evaluations": evaluations},
    )
    path = None if out is None else Path(out)
    if resume and path is not None and RunFolder(path).job.exists():
        return Networks(drive.resume(job, path, progress))
    return Networks(drive.search(job, path, progress, None if fork is None else Path(fork)))


def _wrong_kinds(
    model: object,
    objectives: object,
    rules: object,
    searcher: object,
    options: object,
    fitness: object,
    costs: object,
    executor: object,
) -> list[str]:
    """A sentence for every argument of the wrong kind, with what to pass instead."""
    costs = {} if costs is None else costs
    instance = not isinstance(searcher, type) and hasattr(searcher, "ask")
    expected = [
        (isinstance(model, nn.Module), f"model: expected a torch.nn.Module, got {kind_of(model)}"),
        (_sequence(objectives), f"objectives: expected a sequence such as ('accuracy', 'macs'), got {objectives!r}"),
        (_sequence(rules), f"rules: expected a sequence of LevelRules, got {kind_of(rules)}. Put it in a list."),
        (isinstance(searcher, str) or callable(searcher) or instance, f"searcher: expected a name or a function of "
         f"(problem, seed), got {kind_of(searcher)}"),
        (not instance, "searcher: expected a function of (problem, seed) that makes a searcher, got a searcher"),
        (isinstance(options or {}, Mapping), f"options: expected a mapping, got {kind_of(options)}"),
        (callable(fitness), f"fitness: expected a function of (model, batches), got {kind_of(fitness)}"),
        (isinstance(costs, Mapping), f"costs: expected functions by name such as {{'joules': joules}}, got "
         f"{kind_of(costs)}"),
        (isinstance(executor, str | Executor), f"executor: expected a name or an Executor, got {kind_of(executor)}"),
    ]  # fmt: skip
    problems = [sentence for fits, sentence in expected if not fits]
    problems += word("searcher", searcher, SEARCHERS) if isinstance(searcher, str) else []
    if _sequence(rules):
        wrong = [rule for rule in rules if not isinstance(rule, LevelRule)]
        problems += [f"rules: expected LevelRules, got {kind_of(rule)} among them" for rule in wrong[:1]]
    if isinstance(costs, Mapping):
        wrong = [name for name, cost in costs.items() if not callable(cost)]
        problems += [f"costs: expected a function of kept counts for {name!r}" for name in wrong]
    return problems


def _sequence(value: object) -> TypeGuard[Sequence[Any]]:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes) and len(value) > 0


def _objective(given: str | Objective) -> Objective:
    if isinstance(given, Objective):
        return given
    if not isinstance(given, str):
        raise ConfigError(f"objectives: expected names or Objectives, got {kind_of(given)} among them")
    if given not in KNOWN_DIRECTIONS:
        raise ConfigError(
            f"objective {given!r} has no known direction: pass autoprune.Objective({given!r}, 'min') or 'max'; "
            f"known are {sorted(KNOWN_DIRECTIONS)}{did_you_mean(given, KNOWN_DIRECTIONS)}"
        )
    return Objective(given, KNOWN_DIRECTIONS[given])


def _factory(
    searcher: str | Callable[[Problem, int], Searcher], options: Mapping[str, Any]
) -> Callable[[Problem, int], Searcher]:
    if callable(searcher):
        return searcher
    return functools.partial(_made, name=searcher, options=dict(options))


def _made(problem: Problem, seed: int, name: str, options: Mapping[str, Any]) -> Searcher:
    return make_searcher(name, problem, seed=seed, **options)
