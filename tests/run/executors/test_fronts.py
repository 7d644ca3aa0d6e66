"""Fronts that worker processes build: the same bytes as in one process, whatever happens to a worker."""

import json
import logging
import textwrap

import pytest

from autoprune.errors import PluginError
from autoprune.plugins import load_plugin
from autoprune.run import drive, resume, search
from autoprune.run.records.built_file import BuiltFile
from autoprune.run.records.folder import RunFolder
from autoprune.run.results.team import answers
from autoprune.run.session.job import Executor, silent
from autoprune.run.session.session import open_session
from autoprune.train.finetune import FineTune

TWO = Executor("processes", 2)
FITNESS = """
import os, signal
from pathlib import Path
from autoprune.measure.fitness import classification

SIZE = 60  # the examples of the report set

def fitness(model, batches):
    values = classification(model, batches)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    if sum(batch.examples for batch in batches) == SIZE:
        {act}
    return values
"""


@pytest.fixture
def acting(tmp_path):
    """A fitness that does something on the report set alone."""

    def make(act):
        path = tmp_path / "acting.py"
        path.write_text(FITNESS.replace("{act}", textwrap.indent(textwrap.dedent(act), " " * 8).strip()))
        return load_plugin(f"{path}:fitness")

    return make


def events(run, name):
    told = (json.loads(line) for line in (run / "events.jsonl").read_text().splitlines())
    return [event for event in told if event["event"] == name]


def runs_of(job, folder, count=12, **changes):
    """The folders of the same run in this process and with two workers."""
    for name, executor in (("serial", Executor()), ("processes", TWO)):
        search(job("auto", count, executor=executor, deterministic=True, **changes), folder / name)
    return folder / "serial", folder / "processes"


def assert_same_front(serial, processes):
    for name in ("front.csv", "front.json"):
        assert (processes / name).read_bytes() == (serial / name).read_bytes()


@pytest.mark.slow
def test_two_workers_build_the_front_of_one_process_byte_for_byte(job, tmp_path):
    serial, processes = runs_of(job, tmp_path)
    assert_same_front(serial, processes)
    built = events(processes, "built")
    assert len(built) >= len((serial / "front.csv").read_text().splitlines()) - 1
    assert {event["worker"] for event in built} == {"worker-0", "worker-1"}


@pytest.mark.slow
def test_two_workers_train_and_choose_as_one_process_does(job, trainable, tmp_path):
    serial, processes = runs_of(job, tmp_path, 6, data=lambda: trainable, finetune=FineTune(steps=4))
    assert_same_front(serial, processes)


@pytest.mark.slow
def test_what_workers_cannot_measure_is_left_out_with_the_cause_of_one_process(job, acting, tmp_path, caplog):
    fitness = acting("if parameters < 3000: raise ValueError('cannot measure this one')")
    serial, processes = runs_of(job, tmp_path, fitness=fitness)
    assert_same_front(serial, processes)
    left_out = json.loads((serial / "front.json").read_text())["left_out"]
    assert {member["cause"] for member in left_out} == {"ValueError: cannot measure this one"}
    assert caplog.text.count("cannot be built and measured: ValueError") == 2 * len(left_out)


@pytest.mark.slow
def test_workers_get_the_report_set_after_the_search(job, monkeypatch, tmp_path):
    finish, read = drive.finish, []

    def watched(session, *rest):
        read.append("reported" in vars(session))
        return finish(session, *rest)

    monkeypatch.setattr(drive, "finish", watched)
    search(job("uniform", 4, executor=TWO), tmp_path / "run")
    assert read == [False]


def test_networks_that_cannot_be_sent_are_built_here_which_is_told(job, caplog):
    class Refusing:
        closed = False

        def carry(self, builder):
            raise PluginError("expected everything a worker needs to be picklable, but the example is not")

        def close(self):
            self.closed = True

    session = open_session(job(), silent)
    scored = [session.scorer.score(candidate) for candidate in (session.space.dense, session.space.smallest)]
    team = Refusing()
    with caplog.at_level(logging.WARNING):
        found = list(answers(session, scored, team, {}))
    assert team.closed
    assert "this process builds the networks of the front" in caplog.text
    assert "the example is not" in caplog.text
    assert [answer.measured for _, answer in found] == [a.measured for _, a in answers(session, scored, None, {})]


@pytest.mark.faults
def test_a_worker_that_is_killed_while_it_builds_costs_nothing(job, acting, tmp_path):
    mark = tmp_path / "killed"
    act = f"""
    mark = Path({str(mark)!r})
    if mark.parent.joinpath("armed").exists() and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    """
    made = acting(act)
    search(job("auto", 12, fitness=made, deterministic=True), tmp_path / "serial")
    (tmp_path / "armed").touch()
    made = job("auto", 12, fitness=made, executor=TWO, deterministic=True)
    search(made, tmp_path / "processes")
    assert mark.exists()
    assert_same_front(tmp_path / "serial", tmp_path / "processes")
    assert "SIGKILL" in events(tmp_path / "processes", "worker_lost")[0]["cause"]
    assert len(events(tmp_path / "processes", "retry")) == 1


@pytest.mark.faults
def test_a_network_that_kills_every_worker_is_left_out_and_the_others_are_the_front(job, acting, tmp_path):
    made = acting("if parameters < 3000: os.kill(os.getpid(), signal.SIGKILL)")
    found = search(job("uniform", 4, fitness=made, executor=Executor("processes", 2, attempts=2)), tmp_path / "run")
    assert found.members
    assert all(member.cause.count("was killed by SIGKILL") == 2 for member in found.left_out)
    assert found.left_out


@pytest.mark.slow
def test_a_run_that_was_stopped_while_it_built_the_front_builds_only_the_others(job, acting, tmp_path):
    log, armed = tmp_path / "measured", tmp_path / "armed"
    act = f"""
    with open({str(log)!r}, "a") as file:
        print(parameters, file=file)
    if os.path.exists({str(armed)!r}) and Path({str(log)!r}).read_text().count("\\n") == 3:
        raise KeyboardInterrupt
    """
    made = job("auto", 12, fitness=acting(act))
    search(made, tmp_path / "whole")
    built = log.read_text().split()
    log.unlink()
    armed.touch()
    with pytest.raises(KeyboardInterrupt):
        search(made, tmp_path / "run")
    armed.unlink()
    resume(made, tmp_path / "run")
    assert log.read_text().split() == [*built[:3], *built[2:]], "the first two are not built again"
    assert_same_front(tmp_path / "whole", tmp_path / "run")
    assert not (tmp_path / "run" / "built.json").exists()


def test_networks_that_other_software_has_built_are_built_again(tmp_path, caplog):
    folder, measured = RunFolder(tmp_path), {"report": {"kl": 0.1}}
    BuiltFile(folder, {"torch": "2.12"}).add((0, 1), measured)
    assert BuiltFile(folder, {"torch": "2.12"}).known == {(0, 1): measured}
    assert BuiltFile(folder, {"torch": "2.13"}).known == {}
    folder.built.write_text(folder.built.read_text().replace("0.1", "0.3"))
    assert BuiltFile(folder, {"torch": "2.12"}).known == {}
    assert "the networks of the front are built again" in caplog.text
