"""Jobs that changed since their run was started: refused with what changed, and forked with what still holds."""

from __future__ import annotations

import functools
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

import autoprune
from autoprune.core.objective import Objective
from autoprune.errors import JournalMismatch
from autoprune.measure.fitness import classification
from autoprune.run import read_evaluations, resume, search, solve
from autoprune.run.after import export
from autoprune.run.records.journal import encode, read_journal
from autoprune.searchers import make_searcher
from autoprune.train.finetune import FineTune
from autoprune.zoo.resnet import ResNet

SCORES = (Objective("score", "max"), Objective("macs", "min"))


def scored(model, batches, weight=1.0):
    return {"score": weight * classification(model, batches)["accuracy"]}


def norms(weights, statistics, power=1.0):
    return weights.producers[0].flatten(1).abs().pow(power).sum(dim=1)


def joules(kept, factor=2.0):
    return factor * sum(kept.values())


def loss(output, batch, factor=1.0):
    return factor * torch.nn.functional.cross_entropy(output, batch.target)


def uniform(problem, seed, name="random"):
    return make_searcher(name, problem, seed=seed)


class Model(ResNet):
    def forward(self, x):
        return 2 * super().forward(x)


def other_class(model):
    changed = Model((1, 1, 1), (4, 8, 16), classes=4).eval()
    changed.load_state_dict(model.state_dict())
    return changed


OWN = {"fitness": scored, "objectives": SCORES, "guide": None, "criterion": norms, "costs": {"joules": joules}}
CHANGES = {
    "fitness: weight": ({"fitness": functools.partial(scored, weight=2.0)}, "fitness: weight is new, 2.0"),
    "criterion: power": ({"criterion": functools.partial(norms, power=2.0)}, "criterion: power is new, 2.0"),
    "cost": ({"costs": {"joules": functools.partial(joules, factor=3.0)}}, "cost joules: factor is new, 3.0"),
    "another cost": ({"costs": {"joules": lambda kept: 1.0}}, "cost joules: function was joules, is <lambda>"),
    "a cost more": ({"costs": {"joules": joules, "more": joules}}, "cost more: is new"),
    "searcher": ({"searcher": functools.partial(uniform, name="uniform")}, "searcher: name is new, 'uniform'"),
}


@pytest.fixture(scope="module")
def own_run(tmp_path_factory):
    """A folder to keep the run of this module's own plug-ins in."""
    return tmp_path_factory.mktemp("own") / "run"


@pytest.fixture
def own(job, own_run, tmp_path):
    """A copy of a run with plug-ins of every kind, and what makes its job."""

    def make(**changes):
        return replace(job(evaluations=8), **{**OWN, "searcher": uniform, **changes})

    if not own_run.exists():
        search(make(), own_run)
    shutil.copytree(own_run, tmp_path / "run")
    return make, tmp_path / "run"


@pytest.mark.parametrize("what", CHANGES)
def test_a_resume_with_a_change_is_refused_with_what_changed(what, own):
    make, run = own
    changes, said = CHANGES[what]
    before = (run / "journal.jsonl").read_bytes()
    with pytest.raises(JournalMismatch) as refused:
        resume(make(**changes), run)
    assert said in str(refused.value)
    assert "autoprune resume RUN --fork DIR" in str(refused.value)
    assert (run / "journal.jsonl").read_bytes() == before


def test_a_resume_without_a_change_is_accepted(own):
    make, run = own
    (run / "front.csv").unlink()
    lines = (run / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (run / "journal.jsonl").write_bytes(b"".join(lines[:9]))
    resume(make(), run)
    assert (run / "front.csv").exists()


def seconds(run):
    return {e.candidate.levels: e.seconds for e in read_evaluations(run) if e.status != "infeasible"}


@pytest.mark.parametrize("what", ["fitness: weight", "criterion: power"])
def test_a_fork_drops_what_was_measured_where_fitness_or_criterion_changed(what, own, tmp_path, caplog):
    make, run = own
    search(make(**CHANGES[what][0]), tmp_path / "fork", answers=run)
    assert f"no evaluation of the earlier run is used: {what.partition(':')[0]} changed since" in caplog.text
    before, after = seconds(run), seconds(tmp_path / "fork")
    assert all(after[levels] != before.get(levels) for levels in after)


def joules_in(run):
    return {e.candidate.levels: e.values["joules"] for e in read_evaluations(run)}


KEPT = {
    "cost": lambda joules: 1.5 * joules,
    "another cost": lambda joules: 1.0,
    "a cost more": float,
    "searcher": float,
}


@pytest.mark.parametrize("what", KEPT)
def test_a_fork_keeps_what_was_measured_and_computes_costs_again(what, own, tmp_path, caplog):
    make, run = own
    search(make(**CHANGES[what][0]), tmp_path / "fork", answers=run)
    before, after = seconds(run), seconds(tmp_path / "fork")
    both = before.keys() & after.keys()
    assert both
    assert all(before[levels] == after[levels] for levels in both)
    assert "no evaluation" not in caplog.text
    was, now = joules_in(run), joules_in(tmp_path / "fork")
    assert all(now[levels] == KEPT[what](was[levels]) for levels in both)


def test_a_cost_that_is_gone_is_gone_from_the_evaluations_of_a_fork(own, tmp_path):
    make, run = own
    search(make(costs={}), tmp_path / "fork", answers=run)
    assert all("joules" not in e.values for e in read_evaluations(tmp_path / "fork"))


def test_the_loss_of_a_fine_tune_and_the_code_of_the_model_count(job, model, trainable, tmp_path):
    def tuned(factor=1.0, **changes):
        plan = FineTune(2, loss=functools.partial(loss, factor=factor))
        return job("uniform", 2, data=lambda: trainable, finetune=plan, **changes)

    search(tuned(), tmp_path / "run")
    with pytest.raises(JournalMismatch, match=r"loss: factor was 1\.0, is 2\.0"):
        resume(tuned(2.0), tmp_path / "run")
    with pytest.raises(JournalMismatch, match="model: settings of its modules was .*; model: source of Model is new"):
        resume(tuned(model=lambda: other_class(model)), tmp_path / "run")


def made_data(data, root, shift=0.0):
    if not shift:
        return data
    select = tuple(b._replace(inputs=tuple(x + shift for x in b.inputs)) for b in data.select)
    return autoprune.Data(data.calibrate, select, data.report)


def test_data_from_another_place_is_accepted_and_other_data_is_explained_by_its_factory(job, data, tmp_path):
    def reading(root, shift=0.0):
        return job("uniform", 4, data=functools.partial(made_data, data, root, shift=shift))

    search(reading("/old"), tmp_path / "run")
    resume(reading("/new"), tmp_path / "run")
    with pytest.raises(JournalMismatch, match=r"data was .*shift was 0\.0, is 0\.5"):
        resume(reading("/old", 0.5), tmp_path / "run")


def test_a_journal_of_an_earlier_version_is_resumed_with_a_warning(own, caplog):
    make, run = own
    (run / "front.csv").unlink()
    header, *rest = read_journal(run / "journal.jsonl")
    assert header["identity"].pop("code")
    (run / "journal.jsonl").write_bytes(
        b"".join(encode(record, line) for line, record in enumerate([header, *rest], 1))
    )
    resume(make(**CHANGES["fitness: weight"][0]), run)
    assert "was written by an earlier autoprune, which did not record the options and the source" in caplog.text
    assert (run / "front.csv").exists()


def test_a_run_is_exported_and_solved_after_its_searcher_changed_and_not_after_its_fitness_did(own, tmp_path):
    make, run = own
    export(make(searcher=functools.partial(uniform, name="uniform")), run, "macs<=1", tmp_path / "small")
    solve(make(searcher=functools.partial(uniform, name="uniform")), run, "macs=1")
    with pytest.raises(JournalMismatch, match="fitness: weight is new"):
        export(make(**CHANGES["fitness: weight"][0]), run, "macs<=1", tmp_path / "other")


@pytest.mark.slow
def test_in_python_options_of_searchers_are_told_and_forks_are_an_argument(model, data, tmp_path):
    arguments = {"evaluations": 6, "out": tmp_path / "run"}
    autoprune.search(model, data, searcher="random", **arguments)
    with pytest.raises(JournalMismatch, match="searcher: function was RandomSearch, is UniformSearch"):
        autoprune.search(model, data, searcher="uniform", resume=True, **arguments)
    front = autoprune.search(model, data, searcher="random", evaluations=9, out=tmp_path / "b", fork=tmp_path / "run")
    assert len(front)
    before, after = seconds(tmp_path / "run"), seconds(tmp_path / "b")
    assert before.items() <= after.items()
    assert np.isfinite(list(after.values())).all()
