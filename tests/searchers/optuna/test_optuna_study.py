"""Studies written from evaluations, read back by Optuna itself."""

from __future__ import annotations

from dataclasses import replace

import optuna
import pytest

from autoprune.core.evaluation import Evaluation
from autoprune.core.front import Front
from autoprune.core.objective import Bound, Objective
from autoprune.core.space import Candidate, SearchSpace
from autoprune.errors import ConfigError
from autoprune.searchers import make_searcher
from autoprune.searchers.optuna.study import StudyRecord, write_study
from autoprune.testing import synthetic_problem, trace

SPACE = SearchSpace(("a", "b", "c"), ((16, 12, 8), (10, 7, 1, 0), (5,)))
OBJECTIVES = (Objective("accuracy", "max"), Objective("macs", "min"))
GOOD = Evaluation(Candidate((1, 2, 0)), {"accuracy": 0.75, "macs": 120, "kl": 0.5}, seconds=2.5, worker="serial")
FAILED = Evaluation(Candidate((0, 3, 0)), status="failed", cause="RuntimeError: out of memory")
PART = Evaluation(Candidate((2, 0, 0), fidelity=0.25), {"accuracy": 0.9, "macs": 90, "kl": 0.1})
RECORD = StudyRecord(
    "tiny", SPACE, OBJECTIVES, (Bound("accuracy", ">=", 0.7),), (GOOD, FAILED, PART), {"seed": 3, "guide": None}
)


@pytest.fixture(scope="module")
def storage(tmp_path_factory):
    return f"sqlite:///{tmp_path_factory.mktemp('study') / 'study.db'}"


@pytest.fixture(scope="module")
def study(storage):
    assert write_study(RECORD, storage)
    return optuna.load_study(study_name="tiny", storage=storage)


def test_a_study_has_the_objectives_by_name_in_their_own_directions(study):
    assert study.metric_names == ["accuracy", "macs"]
    assert [direction.name for direction in study.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert study.user_attrs == {"seed": 3, "guide": None}


def test_parameters_are_kept_counts_whose_order_is_known(study):
    (trial, *_) = study.trials
    assert trial.params == {"a": 12, "b": 1, "c": 5}
    assert {name: (d.low, d.high, d.step) for name, d in trial.distributions.items()} == {
        "a": (8, 16, 4),
        "b": (0, 10, 1),
        "c": (5, 5, 1),
    }


def test_a_trial_says_all_that_is_known_of_its_evaluation(study):
    (trial, *_) = study.trials
    assert trial.values == [0.75, 120]
    assert trial.user_attrs == {
        **{"levels": [1, 2, 0], "fidelity": 1.0, "status": "ok", "cause": "", "seconds": 2.5, "worker": "serial"},
        **{"accuracy": 0.75, "macs": 120, "kl": 0.5},
    }
    assert trial.duration.total_seconds() == 2.5


def test_what_failed_is_a_failed_trial_with_its_cause(study):
    assert study.trials[1].state.name == "FAIL"
    assert study.trials[1].user_attrs["cause"] == "RuntimeError: out of memory"
    assert study.trials[1].params == {"a": 16, "b": 0, "c": 5}


def test_what_was_scored_on_part_of_the_data_is_never_among_the_best(study):
    assert study.trials[2].state.name == "PRUNED"
    assert study.trials[2].user_attrs["accuracy"] == 0.9
    assert [trial.number for trial in study.best_trials] == [0]


def test_limits_are_constraints_by_how_much_they_are_exceeded(study):
    assert study.trials[0].constraints == {"accuracy>=0.7": pytest.approx(-0.05)}
    assert study.trials[1].constraints == {}


def test_the_same_study_is_not_written_twice(study, storage):
    assert not write_study(RECORD, storage)
    assert len(study.get_trials()) == 3


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        (replace(RECORD, evaluations=(GOOD, FAILED)), "3 trials, and the run 2"),
        (replace(RECORD, evaluations=(GOOD, PART, FAILED)), "other trials"),
        (replace(RECORD, objectives=OBJECTIVES[::-1]), "other objectives"),
    ],
)
def test_another_study_of_the_same_name_is_refused_and_left_as_it_is(study, storage, other, difference):
    with pytest.raises(ConfigError, match=f"a study 'tiny' is in {storage} already and has {difference}. Give another"):
        write_study(other, storage)
    assert len(study.get_trials()) == 3


@pytest.mark.parametrize("wrong", ["study.db", "nosuchdb:///study.db"])
def test_a_storage_that_is_no_database_is_an_error_that_shows_one(wrong):
    with pytest.raises(ConfigError, match=f"such as sqlite:///study.db, got '{wrong}'"):
        write_study(RECORD, wrong)


def test_the_best_trials_of_a_search_are_its_front(storage):
    """Two ways to the non-dominated set: ours, and Optuna's own."""
    synthetic = synthetic_problem(units=5, levels=5, objectives=3)
    told = []
    searcher = make_searcher("random", synthetic.problem)
    trace(searcher, synthetic.problem, lambda _, c: told.append(synthetic.evaluate(c)) or told[-1], 40)
    record = StudyRecord("search", synthetic.problem.space, synthetic.problem.objectives, (), tuple(told), {})
    write_study(record, storage)
    best = optuna.load_study(study_name="search", storage=storage).best_trials
    front = Front.of(told, synthetic.problem.objectives, synthetic.problem.costs.dense())
    assert {tuple(t.user_attrs["levels"]) for t in best} == {e.candidate.levels for e in front}
