"""How a run begins: one process a folder, nothing left of one that cannot begin, and code that exits is an error."""

import asyncio
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import filelock
import pytest
from commands import ROOT

from autoprune.api import search as search_in_python
from autoprune.core.levels import LevelRule
from autoprune.errors import ConfigError, RunExists, RunFailed
from autoprune.run import inspect_job, resume, search, solve
from autoprune.run.after import export
from autoprune.run.records.folder import LOCK, claimed

RACE = """\
import sys, time
from pathlib import Path
from autoprune.errors import RunExists
from autoprune.run.records.folder import claimed

name, folder, rounds, begin = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
wins = 0
time.sleep(max(0, begin - time.time()))
for number in range(rounds):
    at = begin + 0.02 * number
    while time.time() < at:
        pass
    try:
        with claimed(folder / str(number) / "run") as run:
            assert not run.job.exists()
            run.job.write_text(name)
            wins += 1
            time.sleep(0.005)
            assert run.job.read_text() == name, "another process wrote over it"
    except RunExists:
        pass
print(wins)
"""


@pytest.mark.slow
def test_of_two_processes_that_begin_a_run_at_once_one_has_the_folder(tmp_path):
    import time

    rounds, begin = 25, time.time() + 2
    (tmp_path / "race.py").write_text(RACE)
    command = [sys.executable, str(tmp_path / "race.py")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    racers = [
        subprocess.Popen(
            [*command, name, str(tmp_path / "runs"), str(rounds), str(begin)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
        )
        for name in ("first", "second")
    ]  # fmt: skip
    said = [racer.communicate(timeout=60) for racer in racers]
    assert [racer.returncode for racer in racers] == [0, 0], said
    assert sum(int(out) for out, _ in said) == rounds
    for number in range(rounds):
        assert [path.name for path in (tmp_path / "runs" / str(number) / "run").iterdir()] == ["job.yaml"]


def test_a_folder_in_which_another_process_begins_a_run_is_refused_and_left_alone(job, tmp_path):
    (tmp_path / "run").mkdir()
    with filelock.FileLock(tmp_path / "run" / LOCK):
        with pytest.raises(RunExists, match="another process begins one in"):
            search(job("uniform", 4), tmp_path / "run")
        assert [path.name for path in (tmp_path / "run").iterdir()] == [LOCK]


def test_what_a_killed_process_left_before_it_began_does_not_stop_the_next(job, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / LOCK).touch()
    search(job("uniform", 4), tmp_path / "run")
    assert not (tmp_path / "run" / LOCK).exists()
    assert (tmp_path / "run" / "front.csv").exists()


def test_of_a_run_that_cannot_begin_no_folder_is_left_but_those_that_were_there(job, tmp_path):
    (tmp_path / "mine").mkdir()
    for place in ("mine/run", "a/b/run"):
        with pytest.raises(RunFailed, match="the dense network cannot be scored"):
            search(job("uniform", 4, fitness=lambda model, batches: 1 / 0), tmp_path / place)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    assert list((tmp_path / "mine").iterdir()) == []


def test_a_run_that_was_killed_before_it_began_is_begun_by_resume_in_python(data, model, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / LOCK).touch()
    found = search_in_python(
        model,
        data,
        searcher="uniform",
        evaluations=3,
        rules=(LevelRule("*", (0.5,)),),
        out=tmp_path / "run",
        resume=True,
    )
    assert len(found) > 0


@pytest.mark.parametrize("place", ["file/run", "file"])
def test_a_place_where_no_folder_can_be_made_is_told_before_the_model_is_loaded(job, tmp_path, place):
    (tmp_path / "file").touch()

    def model():
        raise AssertionError("loaded")

    with pytest.raises((ConfigError, RunExists), match="file"):
        search(job("uniform", 4, model=model), tmp_path / place)


@pytest.mark.slow
def test_code_that_changes_the_current_directory_changes_nothing_of_where_a_run_lies(job, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()

    def wandering():
        os.chdir(tmp_path / "elsewhere")
        return model

    wanders = job("uniform", 4, model=wandering)
    search(wanders, Path("run"))
    monkeypatch.chdir(tmp_path)
    resume(wanders, Path("run"))
    monkeypatch.chdir(tmp_path)
    export(wanders, Path("run"), "#1", Path("small"))
    monkeypatch.chdir(tmp_path)
    solve(wanders, Path("run"), "macs=0.9", Path("solved"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere", "run", "small", "solved"]
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_run_folder_that_is_deleted_ends_the_run_with_a_sentence(job, tmp_path):
    def progress(step):
        if step.phase == "search" and step.done == 2:
            shutil.rmtree(tmp_path / "run")

    with pytest.raises(RunFailed, match=r"journal.jsonl was removed or moved during the run"):
        search(job("random", 20), tmp_path / "run", progress)


ENDINGS = [SystemExit(0), SystemExit(), SystemExit("bye"), GeneratorExit(), asyncio.CancelledError()]


def raising(error):
    def raise_it(*args, **kwargs):
        raise error

    return raise_it


@pytest.mark.parametrize(
    ("part", "error"),
    [
        *((part, error) for part in ("model", "data") for error in ENDINGS),
        *((part, error) for part in ("searcher", "criterion", "costs") for error in (ENDINGS[0], ENDINGS[-1])),
    ],
    ids=repr,
)
def test_code_of_a_job_that_would_end_the_process_is_an_error_with_its_line(job, tmp_path, part, error):
    change = {"costs": {"joules": raising(error)}} if part == "costs" else {part: raising(error)}
    with pytest.raises(RunFailed, match=rf"raised {type(error).__name__}.* at .*test_begin.py:\d+"):
        search(replace(job("uniform", 4), **change), tmp_path / "run")
    assert list(tmp_path.iterdir()) == []
    if part in ("model", "data"):
        with pytest.raises(RunFailed, match=type(error).__name__):
            inspect_job(replace(job("uniform", 4), **change))


@pytest.mark.parametrize("error", ENDINGS, ids=repr)
def test_a_fitness_that_would_end_the_process_fails_its_candidate(job, error):
    def fitness(model, batches):
        if model.conv1.out_channels == 4:  # the dense network
            return {"accuracy": 0.5, "kl": 0.0}
        raise error

    result = search(job("uniform", 4, fitness=fitness, tune="off", guide=None), None)
    failed = [evaluation.cause for evaluation in result.evaluations if not evaluation.ok]
    assert failed
    assert all(cause.startswith(type(error).__name__) for cause in failed)


def test_an_interrupt_in_the_code_of_a_job_is_the_users(job):
    with pytest.raises(KeyboardInterrupt):
        search(job("uniform", 4, model=raising(KeyboardInterrupt())), None)


def test_a_claim_lasts_until_it_is_left(tmp_path):
    with claimed(tmp_path / "run"), pytest.raises(RunExists), claimed(tmp_path / "run"):
        pass
    with claimed(tmp_path / "run") as folder:
        assert folder.path.is_dir()
    assert list(tmp_path.iterdir()) == []
