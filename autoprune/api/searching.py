"""Searches a trained model with data for a front of smaller networks: `search`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from torch import nn

from autoprune.api.arguments import wrong_for_search
from autoprune.api.document import document_of
from autoprune.api.front import PrunedFront
from autoprune.api.opened import OpenedRun
from autoprune.api.progress import Relay
from autoprune.core.contracts import Searcher, Tracker
from autoprune.core.cost import CostFactory, UserCost
from autoprune.core.levels import LevelRule
from autoprune.core.objective import KNOWN_DIRECTIONS, Objective
from autoprune.core.options import raise_problems
from autoprune.core.problem import Problem
from autoprune.data import Data
from autoprune.errors import ConfigError, did_you_mean
from autoprune.measure.fitness import Fitness, classification, default_guide
from autoprune.measure.form import Form
from autoprune.measure.settings import DEFAULT_SCORING, Scoring
from autoprune.prune.bank.masks import Scores
from autoprune.prune.criteria import Criterion
from autoprune.prune.passes.examples import Examples
from autoprune.run import drive
from autoprune.run.records.folder import RunFolder
from autoprune.run.session.job import (
    CompensationName,
    Executor,
    Job,
    MakeTracker,
    NamedSearcher,
    OnProgress,
    Stop,
    parse_target,
)
from autoprune.run.session.plugin_checks import expect_data
from autoprune.searchers import SEARCHERS
from autoprune.train.finetune import FineTune

EVERY_EIGHTH = (LevelRule("*", tuple(step / 8 for step in range(1, 8))),)


def search(
    model: nn.Module,
    data: Data,
    *,
    objectives: Sequence[str | Objective] = ("accuracy", "macs"),
    rules: str | Path | Sequence[LevelRule | Mapping[str, Any]] = EVERY_EIGHTH,
    searcher: str | Callable[[Problem, int], Searcher] = "auto",
    options: Mapping[str, Any] | None = None,
    evaluations: int = 300,
    front_size: int | None = None,
    seconds: float | None = None,
    target: str | None = None,
    stagnation: int | None = None,
    seed: int = 0,
    fitness: Fitness = classification,
    calls: Examples | None = None,
    criterion: str | Criterion = "obs",
    masks: str | Scores = "obs",
    costs: Mapping[str, UserCost | CostFactory] | None = None,
    guide: str | None = "auto",
    scoring: Scoring = DEFAULT_SCORING,
    compensation: CompensationName = "sequential",
    finetune: FineTune | None = None,
    device: str = "auto",
    threads: int | None = None,
    tune: Literal["auto", "off"] | Form = "auto",
    executor: Literal["serial", "processes", "ray"] | Executor = "serial",
    deterministic: bool = False,
    expected: Mapping[str, float] | None = None,
    name: str | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    fork: str | Path | None = None,
    progress: bool | OnProgress = True,
    trackers: Sequence[Tracker | MakeTracker] = (),
) -> PrunedFront:
    """Searches how much of each unit of a trained network to keep.

    Args:
        model: the trained network. It is not changed.
        data: calibration, selection and report sets, see `Data.from_arrays`.
        objectives: the objectives to trade off: names with a known direction, or Objectives, which may have a bound.
        rules: the kept shares to choose from, by unit. The first rule that matches a unit applies; the default offers
            every eighth of the width to all units. Give LevelRules, mappings with the keys of a job file such as
            {"match": "*", "levels": 8}, or the path of a search-space file.
        searcher: the searcher, which proposes candidates: a name, or a function (problem, seed) -> searcher.
        options: options of the named searcher, such as {"population": 20} for "evolution".
        evaluations: the largest number of networks to score.
        front_size: the largest number of networks to build and to measure on the report set. None is 32, or 12 if the
            forecast says that building 32 takes more than five minutes and longer than the search.
        seconds: the time limit for the search, in seconds, including those before a resume.
        target: bounds that end the search once a network meets them, such as "accuracy>=0.9 at macs<=0.5".
        stagnation: ends the search when the hypervolume of its front has not grown by a thousandth over this many
            evaluations.
        seed: the seed of every random choice.
        fitness: a function (model, batches) -> float or {name: float} that measures a network.
        calls: further example calls of the model, in the forms that `find_structure` takes. Give them if the inputs of
            the data do not run the whole model: the structure holds for all calls, and every network of the front is
            compared with the original in all of them.
        criterion: the criterion that orders the positions of a unit: a name such as "obs", "l1", "l2" or "random", or a
            function (weights, statistics) -> scores.
        masks: the mask rule that chooses the entries of a weight that stay, for rules of the kinds weights and pattern:
            "obs", "magnitude", "wanda" or a function (weight, moments) -> scores.
        costs: additional costs by name: functions of kept counts by unit name, or factories marked with
            `autoprune.cost_factory`, which get the structure, a copy of the model and an example.
        guide: a measurement (lower is better) that guides the search in place of the first objective that is not a
            cost. "auto" is "kl" with a built-in fitness that reports it and None with another one; None is no guide.
        scoring: the options of scoring, such as Scoring(batch_norms="batch"), which is faster and less exact.
        compensation: "sequential" fits the front's networks to the dense one on all calibration examples; "thorough"
            fits them better at three times the cost; "mimic" trains the fitted ones 1,000 steps, without labels, to
            have the dense network's features; "none" leaves them as they are assembled.
        finetune: the training of every network on the data's train set before it is measured; None for no training.
        device: "auto", "cpu", "mps", "cuda" or "cuda:N".
        threads: the number of torch's CPU threads in this process; None for torch's default.
        tune: the form in which candidates are scored: "auto" times some forms at the start of a long search, "off"
            keeps the form of the data, and a Form is used as it is.
        executor: the executor that scores candidates; a name stands for its defaults, with as many workers as fit.
        deterministic: gives the same front for any number of workers, in exchange for some waiting.
        expected: expected values of the dense network on the selection set, such as {"accuracy": 0.917}; a warning is
            logged if they differ.
        name: the title of the report; by default the name of the model's class.
        out: a new folder for journal, front and report, which `open_run` and the command line can open; by default
            nothing is written.
        resume: continues the run in `out` if there is one. Pass the same arguments as at its start: if their options,
            source code or content changed, JournalMismatch is raised and says what changed.
        fork: the folder of an earlier run, whose evaluations are reused if they are still valid for this search.
        progress: True shows progress bars in a terminal or a notebook, False shows nothing; a function is called with
            each `Progress`.
        trackers: trackers of the run (see core.contracts.Tracker), or functions that make them.

    Returns:
        The front: a sequence of members by rising cost, which can be picked, built and exported.

    Raises:
        ConfigError: arguments are of the wrong kind or out of bounds; the message lists all mistakes.
        DataError: `data` is not a Data.
        PluginError: a plug-in does not keep its contract.
        RunExists: `out` is a file, or a folder that is not empty.
        RunFailed: the dense network cannot be scored, or every candidate failed.

    Example:
        >>> front = autoprune.search(model, data, evaluations=300)
        >>> small = front.pick("macs<=0.5").build()
    """
    raise_problems(wrong_for_search(locals()))
    expect_data(data)
    job = Job(
        name=name or type(model).__name__,
        model=lambda: model,
        data=lambda: data,
        rules=_rules(rules),
        objectives=tuple(_objective(o) for o in objectives),
        searcher=searcher if callable(searcher) else NamedSearcher(SEARCHERS[searcher], dict(options or {})),
        fitness=fitness,
        calls=None if calls is None else lambda: calls,
        criterion=criterion,
        masks=masks,
        costs=costs or {},
        evaluations=evaluations,
        front_size=front_size,
        stop=Stop(seconds, () if target is None else parse_target(target), stagnation),
        seed=seed,
        guide=default_guide(fitness) if guide == "auto" else guide,
        scoring=scoring,
        compensation=compensation,
        finetune=finetune,
        device=device,
        threads=threads,
        tune=tune,
        executor=Executor(executor) if isinstance(executor, str) else executor,
        deterministic=deterministic,
        expected=expected or {},
        trackers=tuple(trackers),
    )
    job = replace(job, document=document_of(job))
    path, relay = None if out is None else Path(out), Relay(progress)
    with relay.showing():
        if resume and path is not None and RunFolder(path).job.exists():
            result = drive.resume(job, path, relay)
        else:
            result = drive.search(job, path, relay, None if fork is None else Path(fork))
    return PrunedFront(OpenedRun(result.folder, lambda: job, relay, result), result)


def _rules(given: str | Path | Sequence[LevelRule | Mapping[str, Any]]) -> tuple[LevelRule, ...]:
    """The rules as LevelRules; mappings and paths are read in the same way as a job file."""
    if isinstance(given, str | Path) or any(isinstance(rule, Mapping) for rule in given):
        from autoprune.config.spaces import read_rules  # pydantic takes a while to import

        return read_rules(given)
    return tuple(rule for rule in given if isinstance(rule, LevelRule))


def _objective(given: str | Objective) -> Objective:
    if isinstance(given, Objective):
        return given
    if given not in KNOWN_DIRECTIONS:
        raise ConfigError(
            f"objective {given!r} has no known direction: pass autoprune.Objective({given!r}, 'min') or 'max'; "
            f"known are {sorted(KNOWN_DIRECTIONS)}{did_you_mean(given, KNOWN_DIRECTIONS)}"
        )
    return Objective(given, KNOWN_DIRECTIONS[given])
