"""Members of a front that cannot be built, proved or measured: they are left out with their cause, nothing else is."""

import asyncio
import json
import logging

import pytest
import torch

import autoprune
from autoprune import console
from autoprune.errors import RunFailed
from autoprune.measure.fitness import classification
from autoprune.run import read_front, resume, search, show_front, solve
from autoprune.run import write_report as report
from autoprune.run.after import export
from autoprune.run.results import building
from autoprune.run.results import members as fronts
from autoprune.run.session.job import silent
from autoprune.run.session.session import open_session


class Failing:
    """A fitness that does something with small networks on the report set alone."""

    def __init__(self, data, act, below=3000):
        self.report, self.act, self.below = data.report[0].inputs[0], act, below
        self.always = False

    def __call__(self, model, batches):
        values = classification(model, batches)
        small = sum(parameter.numel() for parameter in model.parameters()) < self.below
        if len(batches[0].inputs[0]) == len(self.report) and torch.equal(batches[0].inputs[0], self.report) and small:
            return self.act(values)
        return values


def raising(error):
    def act(values):
        raise error

    return act


ACTS = {
    "ValueError: cannot measure this one": raising(ValueError("cannot measure this one")),
    "MemoryError: 3 GiB": raising(MemoryError("3 GiB")),
    "SystemExit: 3": raising(SystemExit(3)),
    "CancelledError: stopped": raising(asyncio.CancelledError("stopped")),
    "expected a finite fitness, got accuracy = nan": lambda values: values | {"accuracy": float("nan")},
    "expected a finite fitness, got kl = inf": lambda values: values | {"kl": float("inf")},
    r"expected the fitness to report ['accuracy'], it reported ['kl']": lambda values: {"kl": values["kl"]},
    "'macs' is the name of a cost": lambda values: values | {"macs": 1.0},
}


@pytest.mark.parametrize("cause", ACTS)
def test_a_member_that_cannot_be_measured_is_left_out_with_its_cause(job, data, made_once, tmp_path, caplog, cause):
    harmless = job("uniform", 4, compensation="none", fitness=Failing(data, ACTS[cause], below=0))
    whole = read_front(made_once("whole", lambda path: search(harmless, path), tmp_path / "whole"))
    fitness = Failing(data, ACTS[cause])
    result = search(job("uniform", 4, compensation="none", fitness=fitness), tmp_path / "run")
    assert result.left_out
    assert all(cause in member.cause for member in result.left_out)
    gone = {member.candidate for member in result.left_out}
    assert list(result.members) == [row for row in whole if row["candidate"] not in gone]
    assert {row["candidate"] for row in whole} == gone | {row["candidate"] for row in result.members}
    assert cause in caplog.text


@pytest.fixture
def failing(job, data, made_once, tmp_path):
    """A finished run with members that were left out, and its job."""
    made = job("uniform", 4, fitness=Failing(data, raising(ValueError("cannot <measure>"))))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fronts._log, "disabled", True)
        return made, made_once("failing", lambda path: search(made, path), tmp_path / "run")


def test_what_was_left_out_is_in_the_folder_the_report_and_the_console(failing, capsys):
    _, run = failing
    document = json.loads((run / "front.json").read_text())
    found = show_front(run).left_out
    assert [member["cause"] for member in document["left_out"]] == ["ValueError: cannot <measure>"] * len(found)
    assert found[0].candidate not in {row["candidate"] for row in read_front(run)}
    assert "left out of the front" in (run / "report.html").read_text()
    assert "cannot &lt;measure&gt;" in report(run).read_text()
    console.print_left_out(found)
    assert f"left out of the front: {found[0].candidate}: ValueError: cannot <measure>" in capsys.readouterr().out


def test_export_solve_and_resume_go_on_after_a_member_was_left_out(failing, tmp_path):
    made, run = failing
    before = (run / "front.csv").read_bytes()
    resume(made, run)
    assert (run / "front.csv").read_bytes() == before
    row = read_front(run)[-1]
    assert export(made, run, f"macs<={row['macs']}", tmp_path / "small")["candidate"] == row["candidate"]
    with pytest.raises(RunFailed, match=r"network .* cannot be built and measured: ValueError: cannot <measure>"):
        solve(made, run, "macs=0.2")


def test_a_member_that_is_not_proved_is_left_out(job, tmp_path, monkeypatch):
    verify, calls = building.verify_positions, []

    def failing(*args, **options):
        calls.append(args)
        if len(calls) == 2:
            raise ZeroDivisionError("while verifying")
        return verify(*args, **options)

    monkeypatch.setattr(building, "verify_positions", failing)
    result = search(job("uniform", 4), None)
    assert [member.cause for member in result.left_out] == ["ZeroDivisionError: while verifying"]
    assert len(result.members) == len(calls) - 1


def test_a_front_without_any_member_that_can_be_measured_is_an_error_and_can_be_resumed(job, data, tmp_path):
    labels = tmp_path / "labels"

    def act(values):  # what is wrong lies outside the code of the job, whose change would be refused
        if labels.exists():
            return values
        raise ValueError("no labels today")

    made = job("uniform", 4, fitness=Failing(data, act, below=10**9))
    with pytest.raises(RunFailed, match=r"none of the \d networks .*no labels today.*autoprune resume"):
        search(made, tmp_path / "run")
    assert not (tmp_path / "run" / "front.csv").exists()
    labels.touch()
    assert resume(made, tmp_path / "run").members


def test_the_python_interface_has_what_was_left_out(model, data):
    fitness = Failing(data, raising(ValueError("no")))
    front = autoprune.search(model, data, fitness=fitness, guide="kl", searcher="uniform", evaluations=4)
    assert {member.cause for member in front.left_out} == {"ValueError: no"}


def test_a_fitness_that_reports_more_of_some_networks_has_a_column_with_gaps(job, tmp_path, capsys):
    def fitness(model, batches):
        small = sum(parameter.numel() for parameter in model.parameters()) < 3000
        return classification(model, batches) | ({"extra": 1.0} if small else {})

    result = search(job("uniform", 4, fitness=fitness), tmp_path / "run")
    assert not result.left_out
    assert "extra" in (tmp_path / "run" / "front.csv").read_text()
    assert report(tmp_path / "run").exists()
    console.print_members(result.members)
    assert "-" in capsys.readouterr().out
    assert all(read_front(tmp_path / "run", "extra<=1")[0]["extra"] == 1 for _ in range(2))


def test_deployed_members_that_raise_name_their_network(job):
    session = open_session(job(fitness=lambda model, batches: 1 / 0), silent)
    candidate = session.space.smallest
    with pytest.raises(RunFailed, match=r"network [\d-]+ cannot be built and measured: ZeroDivisionError"):
        fronts.build_member(session, autoprune.core.evaluation.Evaluation(candidate))
    assert logging.getLogger("autoprune.run.results.members")
