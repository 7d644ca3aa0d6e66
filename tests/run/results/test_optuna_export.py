"""A run's folder as an Optuna study."""

from __future__ import annotations

import json
import warnings

import optuna
import pytest

from autoprune.core.front import Front
from autoprune.core.objective import Objective
from autoprune.errors import RunNotFound
from autoprune.run.drive import search
from autoprune.run.records.journal import encode, read_journal
from autoprune.run.results.optuna import export_study, read_study

OBJECTIVES = (Objective("accuracy", "max", bound=0.1), Objective("macs", "min", bound=0.8))


@pytest.fixture(scope="module")
def results():
    """What the search returned that is made once."""
    return []


@pytest.fixture
def finished(job, made_once, results, tmp_path):
    def make(path):
        results.append(search(job("random", 25, objectives=OBJECTIVES), path))

    return made_once("run", make, tmp_path / "run"), results[0]


def shortened(path, records):
    """The run as it is when a process was killed after so many records."""
    lines = read_journal(path / "journal.jsonl")[:records]
    (path / "journal.jsonl").write_bytes(b"".join(encode(line, number) for number, line in enumerate(lines, start=1)))
    for name in ("front.json", "front.csv", "report.html"):
        (path / name).unlink()


@pytest.mark.slow
def test_the_best_trials_of_the_study_are_the_front_of_what_was_evaluated(finished, tmp_path):
    path, result = finished
    storage = f"sqlite:///{tmp_path}/study.db"
    exported = export_study(path, storage)
    assert (exported.name, exported.trials, exported.written) == ("run", 25, True)
    study = optuna.load_study(study_name="run", storage=storage)
    session = result.session
    admitted = [e for e in result.evaluations if session.admits(e)]
    front = Front.of(admitted, session.problem.objectives, session.dense_costs)
    values = [[e.values[o.name] for o in session.problem.objectives] for e in front]
    assert study.metric_names == ["kl", "macs"]
    assert sorted(trial.values for trial in study.best_trials) == sorted(values)
    assert study.trials[0].user_attrs["accuracy"] == result.evaluations[0].values["accuracy"]
    assert not export_study(path, storage).written


def test_an_interrupted_run_is_exported_as_far_as_it_came_and_with_its_bounds(finished):
    path, result = finished
    shortened(path, 20)
    record = read_study(path)
    assert 0 < len(record.evaluations) < 20
    assert record.evaluations == result.evaluations[: len(record.evaluations)]
    dense = result.session.dense_costs["macs"]
    assert [str(limit) for limit in record.limits] == ["accuracy>=0.1", f"macs<={0.8 * dense:g}"]


def test_the_journal_of_an_earlier_version_is_read_with_what_the_front_says(finished):
    path, _ = finished
    now = read_study(path)
    records = read_journal(path / "journal.jsonl")
    del records[0]["followed"], records[0]["dense"], records[0]["version"]
    (path / "journal.jsonl").write_bytes(b"".join(map(encode, records)))
    assert read_study(path) == now


def test_a_run_that_has_measured_nothing_says_how_to_go_on(finished):
    path, _ = finished
    shortened(path, 1)
    with pytest.raises(RunNotFound, match="stopped before it measured anything. Go on with: autoprune resume"):
        export_study(path, "sqlite:///never_made.db")


def test_optuna_plots_the_front_of_a_study(finished, tmp_path):
    pytest.importorskip("plotly")
    storage = f"sqlite:///{tmp_path}/study.db"
    export_study(finished[0], storage)
    study = optuna.load_study(study_name="run", storage=storage)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        figure = json.loads(optuna.visualization.plot_pareto_front(study).to_json())
        optuna.visualization.plot_parallel_coordinate(study, target=lambda t: t.values[0], target_name="kl")
    assert figure["layout"]["xaxis"]["title"]["text"] == "kl"
    assert sum(len(points["x"]) for points in figure["data"] if isinstance(points["x"], list)) <= 25
