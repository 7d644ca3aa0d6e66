"""Opens a run folder again: `open_run`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from autoprune.api.arguments import wrong_for_open_run
from autoprune.api.front import PrunedFront
from autoprune.api.opened import OpenedRun
from autoprune.api.progress import Relay
from autoprune.core.contracts import Searcher, Tracker
from autoprune.core.cost import CostFactory, UserCost
from autoprune.core.options import raise_problems
from autoprune.core.problem import Problem
from autoprune.data import Data
from autoprune.measure.fitness import Fitness
from autoprune.prune.bank.masks import Scores
from autoprune.prune.criteria import Criterion
from autoprune.prune.passes.examples import Examples
from autoprune.run.records.folder import RunFolder
from autoprune.run.session.job import Job, MakeTracker, OnProgress
from autoprune.run.session.plugin_checks import expect_data
from autoprune.train.finetune import Loss

_KEYS = {"loss": "finetune.loss", "searcher": "search.searcher"}  # keys of job files that differ from the argument


def open_run(
    path: str | Path,
    model: nn.Module | None = None,
    data: Data | None = None,
    *,
    calls: Examples | None = None,
    fitness: Fitness | None = None,
    criterion: Criterion | None = None,
    masks: Scores | None = None,
    costs: Mapping[str, UserCost | CostFactory] | None = None,
    searcher: Callable[[Problem, int], Searcher] | None = None,
    loss: Loss | None = None,
    trackers: Sequence[Tracker | MakeTracker] = (),
    progress: bool | OnProgress = True,
) -> PrunedFront:
    """Opens the folder of a run of the command line or of `autoprune.search(..., out=path)`.

    Rows, picks, CSV and report need no model. Building, exporting, solving for a budget and resuming need the model and
    the data. A run of the command line makes them as its job file says. For a run that was started in Python, pass them
    here, together with the code that its job.yaml cannot name: functions of a script or a notebook, and functions
    within functions.

    Args:
        path: the run folder.
        model: the trained network that was searched; by default the one that the job file's factory makes.
        data: the data sets of the search; by default those that the job file's factory makes.
        calls: the further example calls of the search.
        fitness: the fitness of the search.
        criterion: the function that ordered positions.
        masks: the function that chose entries of weights.
        costs: the costs of the search that the job file cannot name, by name.
        searcher: the function (problem, seed) -> searcher of the search.
        loss: the loss function of the fine-tuning.
        trackers: trackers of a resumed run, or functions that make them, in addition to those of the job file.
        progress: True shows progress bars in a terminal or a notebook, False shows nothing; a function is called with
            each `Progress`.

    Returns:
        The front. An interrupted run has no front yet: `open_run(...).resume()` finishes the run and returns it.

    Raises:
        RunNotFound: the folder does not contain a run.
        ConfigError: an argument is of the wrong kind. If the model or other code is missing, this error is raised by
            the first method that needs it, and says what to pass.
        DataError: `data` is not a Data.

    Example:
        >>> front = autoprune.open_run("results/quickstart")
        >>> front.pick("macs<=0.5").build()
        >>> autoprune.open_run("run", model, data).solve("macs=0.4")
    """
    raise_problems(wrong_for_open_run(locals()))
    if data is not None:
        expect_data(data)
    folder = RunFolder.open(Path(path).absolute())
    functions = {"fitness": fitness, "criterion": criterion, "masks": masks, "searcher": searcher, "loss": loss}
    made = {"model": model, "data": data, "calls": calls}
    given: dict[str, Any] = {name: (lambda value=value: value) for name, value in made.items() if value is not None}
    given |= {name: value for name, value in functions.items() if value is not None}
    job = functools.cache(functools.partial(_job, folder.path, given, dict(costs or {}), tuple(trackers)))
    return PrunedFront(OpenedRun(folder.path, job, Relay(progress)))


def _job(
    path: Path,
    given: Mapping[str, Any],
    costs: Mapping[str, UserCost | CostFactory],
    trackers: tuple[Tracker | MakeTracker, ...],
) -> Job:
    """The job of a run, in which the given objects replace those that its job.yaml names."""
    from autoprune.config import load_run  # pydantic takes a while to import

    keys = [*(_KEYS.get(name, name) for name in given), *(f"costs.{name}" for name in costs)]
    job = load_run(path, given=keys).resolve()
    changes = {name: value for name, value in given.items() if name != "loss"}
    if "loss" in given and job.finetune is not None:
        changes["finetune"] = replace(job.finetune, loss=given["loss"])
    return replace(job, costs={**job.costs, **costs}, trackers=(*job.trackers, *trackers), **changes)
