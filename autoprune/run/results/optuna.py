"""Exports a run as an Optuna study from its folder, without model and data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from autoprune.core.objective import Objective
from autoprune.core.space import SearchSpace
from autoprune.errors import ConfigError, RunNotFound
from autoprune.run.fingerprint.secrets import scrubbed
from autoprune.run.records.checks import Record
from autoprune.run.records.folder import RunFolder
from autoprune.run.records.journal import read_run, told_evaluations
from autoprune.run.results.front_file import read_front_file
from autoprune.searchers.optuna.study import StudyRecord, write_study

FACTS = ("seed", "evaluations", "guide", "criterion", "fitness", "batch_norms", "compensation", "model")


@dataclass(frozen=True)
class ExportedStudy:
    """A study's name, its number of trials, and whether it was written now or existed already."""

    name: str
    trials: int
    written: bool


def export_study(path: Path, storage: str) -> ExportedStudy:
    """Writes a finished or interrupted run into a database such as "sqlite:///study.db".

    The study has the name of the run's folder. Its objectives are those of the search: in a run with a guide, the guide
    replaces an objective, whose values are user attributes of the trials. See searchers.optuna.study.

    Raises:
        RunNotFound: there is no run, or it has not measured anything.
        ConfigError: the database cannot be opened, or has another study of that name.
    """
    record = read_study(path)
    try:
        written = write_study(record, storage)
    except ConfigError as error:  # the address of a database may have a password in it
        raise ConfigError([scrubbed(problem) for problem in error.problems]) from error
    return ExportedStudy(record.name, len(record.evaluations), written)


def read_study(path: Path) -> StudyRecord:
    """Reads the record of a run's search from its folder."""
    folder = RunFolder.open(path)
    records = read_run(folder.journal)
    evaluations = tuple(told_evaluations(records))
    if not evaluations:
        raise RunNotFound(f"{path} was stopped before it measured anything. Go on with: autoprune resume {path}")
    identity = records[0]["identity"]
    objectives, dense = _problem(folder, records[0])
    limits = [Objective(name, direction, bound=bound).limit for name, direction, bound in identity["objectives"]]
    return StudyRecord(
        name=path.resolve().name,
        space=SearchSpace.from_json(identity["space"]),
        objectives=objectives,
        limits=tuple(limit.absolute(dense) for limit in limits if limit),
        evaluations=evaluations,
        facts={name: identity[name] for name in FACTS if name in identity},
    )


def _problem(folder: RunFolder, header: Record) -> tuple[tuple[Objective, ...], Mapping[str, float]]:
    """The objectives of the search and the dense costs, from the journal, or from front.json if it is an old run."""
    if "followed" in header:
        return tuple(Objective(name, direction) for name, direction in header["followed"]), header["dense"]
    front = read_front_file(folder)
    return front.followed, front.dense
