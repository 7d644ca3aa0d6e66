"""Evaluations as an Optuna study, for optuna-dashboard, Optuna's plots, and other tools that read studies."""

from __future__ import annotations

import contextlib
import datetime
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from autoprune.core.evaluation import Evaluation
from autoprune.core.objective import Bound, Objective
from autoprune.core.space import SearchSpace
from autoprune.errors import ConfigError
from autoprune.searchers.optuna.classes import quiet

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import IntDistribution


@dataclass(frozen=True)
class StudyRecord:
    """The content of a study.

    Attributes:
        name: the study's name.
        space: the search space.
        objectives: the objectives.
        limits: absolute bounds on any measured value or cost.
        evaluations: every evaluation, in order.
        facts: the study's user attributes.
    """

    name: str
    space: SearchSpace
    objectives: tuple[Objective, ...]
    limits: tuple[Bound, ...]
    evaluations: tuple[Evaluation, ...]
    facts: Mapping[str, Any]


def write_study(record: StudyRecord, storage: str) -> bool:
    """Writes a study into a database such as "sqlite:///study.db"; False if the identical study is there already.

    Parameters are the kept counts of units, as integers, so that their order is visible; values are those of the
    objectives in their own directions; all other fields of an evaluation are user attributes. A failed evaluation
    becomes a failed trial with its cause; one on part of the data becomes a pruned trial, since its values are not
    comparable. Limits become constraints, by how much they are exceeded. Durations are those of the evaluations; dates
    are those of the export.

    Raises:
        ConfigError: the storage cannot be opened, or holds another study of that name.
    """
    import optuna

    with quiet(), _opened(storage) as database:
        trials = [_trial(record, evaluation) for evaluation in record.evaluations]
        way = {"min": optuna.study.StudyDirection.MINIMIZE, "max": optuna.study.StudyDirection.MAXIMIZE}
        directions = [way[objective.direction] for objective in record.objectives]
        if record.name in optuna.get_all_study_names(database):
            present = optuna.load_study(study_name=record.name, storage=database)
            _check_same(record, storage, present, directions, trials)
            return False
        study = optuna.create_study(study_name=record.name, storage=database, directions=directions)
        study.set_metric_names([objective.name for objective in record.objectives])
        for key, value in record.facts.items():
            study.set_user_attr(key, value)
        study.add_trials(trials)
    return True


@contextlib.contextmanager
def _opened(storage: str) -> Iterator[optuna.storages.RDBStorage]:
    """Opens the database, and closes its connections afterwards."""
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    try:
        database = optuna.storages.RDBStorage(storage)
    except (SQLAlchemyError, ImportError) as error:
        raise ConfigError(
            f"expected the URL of a database such as sqlite:///study.db, got {storage!r}: {error}"
        ) from error
    try:
        yield database
    finally:
        database.remove_session()
        database.engine.dispose()


def _trial(record: StudyRecord, evaluation: Evaluation) -> optuna.trial.FrozenTrial:
    from optuna.trial import TrialState, create_trial

    whole = evaluation.ok and evaluation.candidate.fidelity == 1.0
    state = TrialState.COMPLETE if whole else TrialState.PRUNED if evaluation.ok else TrialState.FAIL
    trial = create_trial(
        state=state,
        values=[evaluation.values[o.name] for o in record.objectives] if whole else None,
        params=record.space.counts(evaluation.candidate),
        distributions=dict(zip(record.space.units, map(_kept, record.space.levels), strict=True)),
        user_attrs=_attributes(evaluation),
        constraints=_constraints(record.limits, evaluation),
    )
    if trial.datetime_complete is not None:
        trial.datetime_start = trial.datetime_complete - datetime.timedelta(seconds=evaluation.seconds)
    return trial


def _kept(counts: Sequence[int]) -> IntDistribution:
    """The distribution of a unit's kept counts, in the widest steps that include all of them."""
    from optuna.distributions import IntDistribution

    step = math.gcd(*(counts[0] - count for count in counts))
    return IntDistribution(counts[-1], counts[0], step=step or 1)


def _attributes(evaluation: Evaluation) -> dict[str, Any]:
    """The fields besides parameters and objectives; measured values and costs under their own names."""
    known = evaluation.to_json()
    return {**{key: value for key, value in known.items() if key != "values"}, **evaluation.values}


def _constraints(limits: Sequence[Bound], evaluation: Evaluation) -> dict[str, float] | None:
    """By how much each limit is exceeded (negative within it); None if values are missing."""
    if not evaluation.ok:
        return None
    signs = {"<=": 1.0, ">=": -1.0}
    return {str(limit): signs[limit.sense] * (evaluation.values[limit.name] - limit.value) for limit in limits}


def _check_same(
    record: StudyRecord,
    storage: str,
    present: optuna.Study,
    directions: Sequence[optuna.study.StudyDirection],
    trials: Sequence[optuna.trial.FrozenTrial],
) -> None:
    """Raises ConfigError, with the difference, unless a study equals the one to be written."""
    found = present.get_trials(deepcopy=False)
    if present.directions != directions:
        difference = "other objectives"
    elif len(found) != len(trials):
        difference = f"{len(found)} trials, and the run {len(trials)}"
    elif [_told(trial) for trial in found] != [_told(trial) for trial in trials]:
        difference = "other trials"
    else:
        return
    raise ConfigError(
        f"a study {record.name!r} is in {storage} already and has {difference}. Give another database, or delete it "
        f"with: optuna delete-study --study-name {record.name} --storage {storage}"
    )


def _told(trial: optuna.trial.FrozenTrial) -> tuple[Any, ...]:
    """The content of a trial, without its dates."""
    return trial.state, trial.values, trial.params, trial.distributions, trial.user_attrs, trial.constraints
