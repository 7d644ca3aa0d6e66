"""What becomes of every setting of a job that changes before its run is resumed."""

import functools
import shutil
from dataclasses import fields, replace

import pytest
import torch
from tiny import random_data

from autoprune.core.levels import LevelRule
from autoprune.core.objective import Objective
from autoprune.errors import JournalMismatch
from autoprune.measure.fitness import classification
from autoprune.measure.form import Form
from autoprune.measure.settings import Scoring
from autoprune.run import read_evaluations, resume, search
from autoprune.run.records.folder import RunFolder
from autoprune.run.records.journal import encode, read_journal
from autoprune.run.results.front_file import read_front_file
from autoprune.run.session.job import Executor, Job, Stop, parse_target
from autoprune.run.settings import FREE, REFUSED, TOLD, changed_settings, settings_of
from autoprune.searchers import make_searcher
from autoprune.train.finetune import FineTune
from autoprune.zoo.resnet import ResNet

PARTS = {"scoring": Scoring, "stop": Stop}


def all_settings():
    for field in fields(Job):
        if field.name in PARTS:
            yield from (f"{field.name}.{inner.name}" for inner in fields(PARTS[field.name]))
        else:
            yield field.name


def test_every_setting_of_a_job_takes_one_stand_on_a_change():
    assert sorted((*REFUSED, *TOLD, *FREE)) == sorted(all_settings())


def searched(problem, seed, name="random"):
    return make_searcher(name, problem, seed=seed)


def changed(job, settings):
    """A job with other values; `stop.seconds` is a part of `stop`."""
    parts = {}
    for name, value in settings.items():
        whole, _, inner = name.partition(".")
        parts[whole] = replace(parts.get(whole, getattr(job, whole)), **{inner: value}) if inner else value
    return replace(job, **parts)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return tmp_path_factory.mktemp("finished") / "run"


@pytest.fixture
def started(job, finished, tmp_path):
    """The job of a run of six networks, and a copy of its folder."""
    made = replace(job(evaluations=6, tune="off", compensation="none"), searcher=searched)
    if not finished.exists():
        search(made, finished)
    return made, shutil.copytree(finished, tmp_path / "run")


def other_model():
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return ResNet((1, 1, 1), (4, 8, 16), classes=4).eval()


OTHERS = {  # another value of each setting that is refused, and how the refusal names it
    "model": (other_model, "model was"),
    "data": (lambda: random_data(3, train=60), "data was"),
    "rules": ((LevelRule("*", (0.5,)), LevelRule("*", kind="weights")), "space was"),
    "objectives": ((Objective("accuracy", "max"), Objective("params", "min")), "objectives was"),
    "searcher": (functools.partial(searched, name="uniform"), "searcher: name is new"),
    "fitness": (functools.partial(classification, report=("accuracy", "kl", "mse")), "fitness: "),
    "calls": (lambda: [(torch.zeros(2, 3, 8, 8),)], "calls was"),
    "criterion": ("l1", "criterion was"),
    "costs": ({"positions": lambda kept: float(sum(kept.values()))}, "cost positions: is new"),
    "evaluations": (7, "evaluations was 6, is 7"),
    "seed": (1, "seed was 0, is 1"),
    "guide": (None, "guide was kl, is None"),
    "scoring.batch_norms": ("reestimated", "batch_norms was anchored, is reestimated"),
    "scoring.batch_norm_examples": (30, "norm_images was 500, is 30"),
    "compensation": ("sequential", "compensation was none, is sequential"),
    "finetune": (FineTune(1), "finetune was None"),
}
ELSEWHERE = {"device", "masks"}  # there is one device here; masks count where weights are searched


def test_another_value_of_any_setting_that_identifies_a_run_is_refused(started):
    job, run = started
    assert {*OTHERS} | ELSEWHERE == {*REFUSED}
    with pytest.raises(JournalMismatch) as refused:
        resume(changed(job, {name: value for name, (value, _) in OTHERS.items()}), run)
    assert [said for _, said in OTHERS.values() if said not in str(refused.value)] == []


COUNTED = {
    "front_size": (2, "front_size was 5 when the run was started and is now 2: the new value applies to the front"),
    "stop.seconds": (
        1e6,
        "stop.seconds was none when the run was started and is now 1000000.0: the new value includes the seconds that",
    ),
    "stop.target": (
        parse_target("macs<=0.9"),
        "stop.target was none when the run was started and is now macs<=0.9: the new value applies",
    ),
    "stop.stagnation": (
        5,
        "stop.stagnation was none when the run was started and is now 5: the new value applies to all",
    ),
    "deterministic": (
        True,
        "deterministic was False when the run was started and is now True: the new value applies from the first new",
    ),
    "threads": (2, "threads was 1 when the run was started and is now 2: the new value is not used"),
    "tune": (
        Form(batch=10),
        "tune was off when the run was started and is now dtype float32, batch 10: the new value is not used",
    ),
}


def test_a_setting_that_may_change_is_told_with_what_it_counts_for(started, caplog):
    job, run = started
    assert {*COUNTED} == {*TOLD}
    result = resume(changed(job, {name: value for name, (value, _) in COUNTED.items()}), run)
    assert [said for _, said in COUNTED.values() if said not in caplog.text] == []
    assert len(result.members) == len(read_front_file(RunFolder(run)).members) == 2
    assert result.ended == "a network reached the target macs<=0.9"


def test_what_no_result_depends_on_changes_without_a_word(started, caplog):
    job, run = started
    given = {"name": "other", "executor": Executor(attempts=2), "scoring.reuse_gib": 0, "document": {"name": "other"}}
    front = (run / "front.csv").read_bytes()
    resume(changed(job, given), run)
    assert "when the run was started" not in caplog.text
    assert (run / "front.csv").read_bytes() == front


def test_a_journal_without_settings_gives_no_lines(started):
    job, run = started
    header = read_journal(run / "journal.jsonl")[0]
    assert header["settings"] == settings_of(job)
    assert changed_settings(replace(job, front_size=2), {}) == []


def test_a_resume_goes_on_with_the_seconds_that_the_run_has_used(started):
    job, run = started
    *records, end = read_journal(run / "journal.jsonl")
    assert 0 < end["seconds"] < 60
    cut = [*records[:7], {"kind": "end", "why": "Interrupted: a test", "seconds": 100.0}]
    (run / "journal.jsonl").write_bytes(b"".join(encode(record, line) for line, record in enumerate(cut, 1)))
    before = len(read_evaluations(run))
    result = resume(changed(job, {"stop.seconds": 100.0}), run)
    assert result.ended == "100 seconds are over"
    assert len(result.evaluations) == before < 6
    assert 100 < read_journal(run / "journal.jsonl")[-1]["seconds"] < 160
