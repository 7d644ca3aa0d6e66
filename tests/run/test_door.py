"""The front door in Python: what `search` takes, what it returns, and a run folder opened again."""

import copy
import functools
import inspect
import io
import math
import pickle
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import pytest
import yaml
from pydantic import BaseModel
from tiny import random_data
from typer.testing import CliRunner

import autoprune
from autoprune.api.table import html_table, text_table
from autoprune.cli import app
from autoprune.config import load_run
from autoprune.config.spec import JobSpec
from autoprune.core.levels import LevelRule
from autoprune.core.objective import Bound, Objective
from autoprune.core.options import declared_options
from autoprune.errors import ConfigError, JournalMismatch, RunNotFound
from autoprune.measure.fitness import classification
from autoprune.measure.form import Form
from autoprune.measure.settings import Scoring
from autoprune.run.results.front_file import FrontFile
from autoprune.run.results.member import Member
from autoprune.run.session.job import Executor, Stop
from autoprune.train.finetune import FineTune

FACTORIES = """
import numpy as np
import torch
from autoprune.data import Data
from autoprune.zoo.resnet import ResNet

RANDOM_DATA

def data():
    return random_data(0)

def model():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return ResNet((1, 1, 1), (4, 8, 16), classes=4).eval()
"""
SHORT = {
    "searcher": "uniform",
    "evaluations": 6,
    "front_size": 3,
    "compensation": "none",
    "threads": 1,
    "tune": "off",
    "progress": False,
}


def size(network):
    return sum(parameter.numel() for parameter in network.parameters())


def own_fitness(model, batches):
    return classification(model, batches)


# the signature


def test_help_shows_every_argument_with_what_it_means():
    parameters = inspect.signature(autoprune.search).parameters
    assert not {p.kind for p in parameters.values()} & {inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL}
    sections = re.split(r"^    (Args|Returns|Raises|Example):$", autoprune.search.__doc__, flags=re.MULTILINE)
    assert sections[1::2] == ["Args", "Returns", "Raises", "Example"]
    documented = re.findall(r"^        (\w+): ", sections[2], re.MULTILINE)
    assert documented == list(parameters)


@pytest.mark.parametrize("function", [autoprune.open_run, autoprune.PrunedFront.solve])
def test_other_arguments_of_the_door_are_documented_too(function):
    parameters = [name for name in inspect.signature(function).parameters if name != "self"]
    args = re.split(r"^ +(?:Args|Returns|Raises):$", function.__doc__, flags=re.MULTILINE)[1]
    assert re.findall(r"^ {8,12}(\w+): ", args, re.MULTILINE) == parameters


REACHED = {  # what a job file says -> the argument of search that says it
    "version": None,
    "space": "rules",
    "search.stop.seconds": "seconds",
    "search.stop.target": "target",
    "search.stop.stagnation": "stagnation",
    "run.workers": "executor",
    "run.resources.cpus": "executor",
    "run.resources.gpus": "executor",
    "run.resources.memory_gib": "executor",
    "run.address": "executor",
    "run.runtime_env": "executor",
    "run.timeout_s": "executor",
    "run.attempts": "executor",
    "run.tune": "tune",
    "finetune": "finetune",
    "recover": None,  # the search ignores it; Member.recover has it as an argument
    **{f"{option.option.section}.{option.name}": "scoring" for option in declared_options(Scoring)},
}


def keys_of(spec, path=()):
    """Every key that a job file may have, as search.seed; sections that one argument stands for as a whole."""
    for name, field in spec.model_fields.items():
        key = ".".join((*path, name))
        kind = field.annotation
        section = isinstance(kind, type) and issubclass(kind, BaseModel) and key.partition(".")[0] in ("search", "run")
        if section and key not in REACHED and not kind.__name__.endswith("Choice"):
            yield from keys_of(kind, (*path, name))
        else:
            yield key


def test_nothing_that_a_job_file_can_say_is_out_of_reach():
    parameters = inspect.signature(autoprune.search).parameters
    keys = list(keys_of(JobSpec))
    assert {"search.front_size", "search.batch_norms", "run.reuse_gib", "run.threads"} <= {*keys}
    for key in keys:
        argument = REACHED.get(key, key.rpartition(".")[2])
        assert argument is None or argument in parameters, key
    assert {*REACHED} <= {*keys}


class Log:
    """A tracker that notes how it was called."""

    told: ClassVar = []

    def started(self, facts):
        self.told.append("started")

    def evaluated(self, evaluation, done, evaluations):
        self.told.append((done, evaluations))

    def finished(self, rows):
        self.told.append(len(rows))


EVERYTHING = {
    "objectives": (Objective("accuracy", "max", bound=0.0), "macs", Objective("halves", "min", unit="pairs")),
    "rules": (LevelRule("conv1"), LevelRule("*", (0.75, 0.25), "channels", 2, 2)),
    "searcher": "evolution",
    "options": {"population": 8},
    "evaluations": 9,
    "front_size": 4,
    "seconds": 500.5,
    "target": "accuracy>=0.99 at macs<=0.1",
    "stagnation": 50,
    "seed": 3,
    "criterion": "l2",
    "masks": "wanda",
    "guide": None,
    "scoring": Scoring(batch_norms="reestimated", batch_norm_examples=30, reuse_gib=0.25),
    "compensation": "none",
    "finetune": FineTune(2, 0.1, 0.5, 1e-4, "mse"),
    "device": "cpu",
    "threads": 1,
    "tune": Form(dtype="float32", batch=20),
    "executor": Executor("processes", 1, 1, memory_bytes=8 << 30, attempts=2, timeout=99.5),
    "deterministic": True,
    "expected": {"kl": 0.0},
    "name": "everything",
    "trackers": (Log,),
}


def halves(kept):
    return sum(kept.values()) / 2


def test_what_search_is_told_is_in_the_job_file_and_means_the_same_there(model, trainable, tmp_path, monkeypatch):
    jobs = []
    monkeypatch.setattr(autoprune.run.drive, "search", lambda job, *rest: jobs.append(job) or stopped())
    with pytest.raises(RunNotFound, match="stopped here"):
        autoprune.search(model, trainable, costs={"halves": halves}, fitness=own_fitness, out="run", **EVERYTHING)
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(jobs[0].document))
    read = load_run(tmp_path, given=("model", "data")).resolve()
    for name in vars(jobs[0]).keys() - {"model", "data", "document"}:
        assert getattr(read, name) == getattr(jobs[0], name), name
    assert jobs[0].stop == Stop(500.5, (Bound("accuracy", ">=", 0.99), Bound("macs", "<=", 0.1)), 50)
    assert jobs[0].scoring.reuse_bytes == 2**28


def stopped():
    raise RunNotFound("stopped here")


def test_code_without_a_name_is_left_open_in_the_job_file(model, data, tmp_path):
    fitness = functools.partial(lambda network, batches, scale: classification(network, batches), scale=1)
    costs = {"one": lambda kept: 1.0}
    autoprune.search(model, data, fitness=fitness, guide="kl", costs=costs, out=tmp_path / "run", **SHORT)
    job = yaml.safe_load((tmp_path / "run" / "job.yaml").read_text())
    assert (job["model"], job["data"], job["fitness"], job["costs"]) == ("???", "???", "???", {"one": "???"})
    assert job["search"]["searcher"] == {"name": "uniform"}
    with pytest.raises(ConfigError, match=r"no name for model, data, fitness, costs.one.*open_run\(.*costs=\.\.\.\)"):
        autoprune.open_run(tmp_path / "run")[0].build()
    again = autoprune.open_run(tmp_path / "run", model, data, fitness=fitness, costs=costs, progress=False)
    assert size(again[0].build()) == again[0]["params"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scoring": "batch"}, "scoring: expected a Scoring such as .*, got 'batch'"),
        ({"tune": "of"}, "tune: expected one of auto, off"),
        ({"seconds": 0}, "seconds: expected a number above 0"),
        ({"stagnation": 1}, "stagnation: expected a whole number from 2"),
        ({"target": "accuracy"}, "expected a bound such as"),
        ({"front_size": 1}, "front_size: expected a whole number from 2"),
        ({"threads": 0}, "threads: expected"),
        ({"progress": "yes"}, "progress: expected True, False or a function, got "),
        ({"options": {"popluation": 3}, "searcher": "evolution"}, "option of searcher 'evolution'.*'population'"),
        ({"rules": [{"match": "*", "levels": 1}]}, r"rules\[0\]: levels: expected at least 2 .*, got 1"),
        ({"rules": [{"match": "*", "level": 8}]}, "did you mean 'levels'"),
        ({"rules": "no/such.yaml"}, "expected a file 'no/such.yaml'"),
    ],
)
def test_a_setting_that_is_out_of_bounds_is_a_sentence(model, data, changes, message):
    with pytest.raises(ConfigError, match=message):
        autoprune.search(model, data, **changes)


def test_rules_may_be_written_as_in_a_job_file_or_lie_in_one(model, data, tmp_path):
    (tmp_path / "space.yaml").write_text('version: 1\nunits: [{match: "*", levels: 3, min_share: 0.5}]\n')
    fronts = [
        autoprune.search(model, data, rules=rules, **SHORT)
        for rules in (tmp_path / "space.yaml", [{"match": "*", "keep": [0.75, 0.5]}], [LevelRule("*", (0.75, 0.5))])
    ]
    assert fronts[0].rows == fronts[1].rows == fronts[2].rows


# what it returns


def front_of(count, **changes):
    members = [
        Member(
            candidate="-".join(["128"] * 50 + [str(number)]),
            levels=(number,),
            counts={"unit": number},
            costs={"macs": 10**12 + number, "params": 10**9},
            ratios={"macs": 0.5, "params": 0.5},
            report={"accuracy": 0.5, **{f"a_measurement_with_a_long_name_{i}": 1e-9 for i in range(5)}},
            verify_error=0.0,
            **changes,
        )
        for number in range(count)
    ]
    return FrontFile(tuple(members), (("select_kl", "min"), ("macs", "min")), {"macs": 2 * 10**12, "params": 2 * 10**9})


@pytest.mark.parametrize("count", [0, 1, 10, 11, 1000])
def test_a_front_of_any_size_is_shown_as_a_short_table_of_its_ends(count):
    text = text_table(front_of(count), Path("/a/long/path" * 20))
    assert len(text) < 2000
    lines = text.splitlines()
    assert lines[0].endswith(f": {count} member{'' if count == 1 else 's'}")
    numbers = [int(line.split()[0]) for line in lines[2:] if not line.startswith("...")]
    assert numbers == (list(range(1, count + 1)) if count <= 10 else [1, 2, 3, 4, 5, *range(count - 4, count + 1)])
    assert ("... 990 more members" in text) == (count == 1000)
    assert count == 0 or {"macs", "macs_ratio", "accuracy"} <= {*lines[1].split()}


def test_a_notebook_shows_the_table_and_runs_nothing_that_is_in_a_name():
    front = front_of(12)
    evil = FrontFile((front.members[0],), (("macs", "min"),), front.dense)
    html = html_table(evil, Path("<script>"))
    assert "<script>" not in html
    assert html.count("<tr>") == 2
    assert "... 2 more members" in html_table(front, None)


def test_what_is_returned_is_public_and_shows_itself_in_a_few_lines(model, data):
    front = autoprune.search(model, data, **SHORT)
    assert isinstance(front, autoprune.PrunedFront)
    assert all(isinstance(member, autoprune.Member) for member in front)
    assert repr(front).splitlines()[1].split()[:4] == ["#", "candidate", "macs", "macs_ratio"]
    assert front._repr_html_().count("<tr>") == len(front) + 1
    structure = autoprune.find_structure(model, data.example)
    for value in (structure, *structure.units, front._result, front._result.session, data):
        assert len(repr(value)) < 400
        assert "tensor(" not in repr(value)
        assert len(repr(value).splitlines()) < 5
    assert front.left_out == ()
    assert front[:2] == tuple(front)[:2]
    assert [row["macs"] for row in front.rows] == [member.costs["macs"] for member in front]


def test_a_front_answers_budgets_without_a_folder_and_what_it_finds_can_be_built(model, data, tmp_path):
    front = autoprune.search(model, data, **{**SHORT, "searcher": "additive", "evaluations": 20})
    found = front.solve("macs=0.6", out=tmp_path / "small")
    assert found["macs_ratio"] <= 0.6
    assert found.solved["budget"] == "macs=0.6"
    assert size(found.build()) == found["params"] == size(autoprune.load(model, tmp_path / "small"))
    with pytest.raises(RunNotFound, match="this search did not write one. Search with out=DIR"):
        front.resume()
    with pytest.raises(RunNotFound, match="this search did not write one"):
        front.report()


# a run opened again


@pytest.fixture
def run(model, data, made_once, tmp_path):
    return made_once("run", lambda path: autoprune.search(model, data, out=path, **SHORT), tmp_path / "run")


def test_a_run_from_python_is_opened_built_solved_and_resumed_with_model_and_data(run, model, data, tmp_path):
    whole = (run / "front.csv").read_bytes()
    front = autoprune.open_run(run, model, data, progress=False)
    assert size(front.pick("#2").build()) == front[1]["params"]
    assert front.solve("macs=0.9")["macs_ratio"] <= 0.9
    front[0].export(tmp_path / "small")
    assert size(autoprune.load(model, tmp_path / "small")) == front[0]["params"]
    for file in ("front.csv", "front.json"):
        (run / file).unlink()
    again = autoprune.open_run(run, model, data, trackers=[Log()], progress=False).resume()
    assert Log.told == ["started", len(front)]
    assert again.rows == front.rows
    assert (run / "front.csv").read_bytes() == whole


def test_another_model_than_the_run_had_is_refused(run, data):
    other = autoprune.zoo.resnet.ResNet((1, 1, 1), (4, 8, 16), classes=4).eval()
    with pytest.raises(JournalMismatch, match="model was"):
        autoprune.open_run(run, other, data, progress=False)[0].build()


def test_what_is_no_run_and_no_model_is_told(run, data):
    with pytest.raises(RunNotFound, match="found none at"):
        autoprune.open_run(run.parent / "rum")
    with pytest.raises(ConfigError, match=r"model: expected a torch.nn.Module, got a dict"):
        autoprune.open_run(run, {"state": 1}, data)
    with pytest.raises(autoprune.AutopruneError, match="data: expected an autoprune.data.Data"):
        autoprune.open_run(run, None, [1])
    with pytest.raises(ConfigError, match="fitness: expected a function, got a str"):
        autoprune.open_run(run, fitness="classification")


COMMANDS = {
    "export": ["--pick", "macs<=0.9", "--out", "small", "-q"],
    "solve": ["--budget", "macs=0.9", "-q"],
    "resume": ["-q"],
}


@pytest.fixture
def factories(tmp_path, monkeypatch):
    """A file with what makes model and data, in the current directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "made.py").write_text(FACTORIES.replace("RANDOM_DATA", inspect.getsource(random_data)))


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_on_a_run_from_python_says_what_to_type_and_then_works(run, factories, command):
    words = [command, "run", *COMMANDS[command]]
    front = (run / "front.csv").read_bytes()
    refused = CliRunner().invoke(app, words)
    assert refused.exit_code == 2
    assert "run was started in Python, and its job.yaml has no name for model, data." in refused.stderr
    typed = re.search(r"autoprune (\w+ run.* --model MODULE:FUNCTION --data MODULE:FUNCTION)\.", refused.stderr)[1]
    again = typed.replace("MODULE:FUNCTION", "made.py:model", 1).replace("MODULE:FUNCTION", "made.py:data", 1)
    result = CliRunner().invoke(app, [*shlex.split(again), "-q"])
    assert result.exit_code == 0, result.output
    assert (run / "front.csv").read_bytes() == front
    assert (run.parent / "small").exists() == (command == "export")


def test_what_needs_no_model_needs_no_option(run, factories):
    for words in (["front", "run", "--pick", "macs<=0.9"], ["report", "run"]):
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, result.output
    assert "autoprune.search in Python" in (run / "report.html").read_text()


# progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("progress", "stream", "shown"),
    [(True, Terminal, True), (True, io.StringIO, False), (False, Terminal, False)],
)
def test_bars_are_shown_in_a_terminal_unless_they_are_not_wanted(model, data, monkeypatch, progress, stream, shown):
    monkeypatch.setattr(sys, "stderr", stream())
    monkeypatch.setenv("TERM", "xterm")
    autoprune.search(model, data, **{**SHORT, "progress": progress})
    text = sys.stderr.getvalue()
    assert ("search" in text and "6/6" in text) == shown
    assert shown or text == ""


def test_a_function_gets_the_progress_also_of_what_is_asked_of_the_front_later(model, data):
    news = []
    front = autoprune.search(model, data, **{**SHORT, "progress": news.append})
    assert [(step.done, step.total) for step in news if step.phase == "search"][-1] == (6, 6)
    assert all(isinstance(step, autoprune.Progress) for step in news)
    seen = len(news)
    front.solve("macs=0.9")
    assert {step.phase for step in news[seen:]} == {"compare"}


@pytest.mark.slow
def test_the_door_loads_neither_rich_nor_pydantic_before_they_are_needed():
    code = "import sys, autoprune; autoprune.search, autoprune.open_run; print({'rich', 'pydantic'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_seconds_and_targets_end_a_search_from_python(model, data):
    everything = autoprune.search(model, data, **{**SHORT, "target": "macs<=1"})
    assert everything._result.ended != "all evaluations are spent"
    assert len(everything._result.evaluations) < SHORT["evaluations"]
    assert math.isfinite(everything[0]["kl"])


def test_a_folder_that_was_opened_by_a_relative_path_is_found_from_elsewhere(tmp_path, monkeypatch, model, data):
    monkeypatch.chdir(tmp_path)
    searched = autoprune.search(model, data, out="run", **SHORT)
    front = autoprune.open_run("run", model, data)
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    assert front.rows == searched.rows
    assert repr(front) == repr(searched)
    assert size(front[0].build()) == size(searched[0].build())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rules": []}, "rules: expected at least one LevelRule, such as LevelRule.*, got none. Leave `rules` out"),
        ({"rules": {}}, r"such as LevelRule\('\*', \(0.75, 0.5\)\) or {'match': .*, got a dict\.$"),
        ({"rules": {"match": "*", "levels": 4}}, r"got a dict\. Put it in a list\."),
        (
            {"options": {"n": 1}, "searcher": lambda problem, seed: None},
            "options: expected none beside a searcher",
        ),
        ({"options": {5: 1}}, "options: expected a mapping from names to values, got the names .5."),
        ({"expected": {"accuracy": math.nan}}, "expected: expected numbers by name"),
        ({"costs": {"a b": len}}, "costs: expected names of letters, digits and underscores, .*, got 'a b'"),
        ({"costs": {"": len}}, "costs: expected names of letters"),
        ({"costs": {"a<=b": len}}, "costs: expected names of letters"),
        ({"costs": {5: len}}, "costs: expected functions by name .*, got the names .5."),
        ({"objectives": (Objective("a b", "max"), "macs")}, "objectives: expected names of letters, .*, got 'a b'"),
        (
            {"objectives": (Objective("accuracy", "maximise"), "macs")},
            "direction of .*: expected one of",
        ),
        (
            {"objectives": (Objective("macs", "min", bound="x"),)},
            "bound of objective 'macs': expected a finite",
        ),
        ({"target": ""}, "expected a bound such as"),
        ({"deterministic": "x"}, "deterministic: expected True or False, got 'x'"),
        ({"name": 5}, "name: expected a title, got 5"),
        ({"fork": 5}, "fork: expected the path of a run folder, got 5"),
        ({"progress": 5}, "progress: expected True, False or a function, got 5"),
        ({"expected": {"accuracy": True}}, "expected: expected numbers by name"),
        ({"target": 5}, "target: expected bounds"),
        ({"trackers": None}, "trackers: expected a sequence"),
        ({"finetune": True}, "finetune: expected a FineTune, got True"),
        ({"expected": {"accuracy": "x"}}, "expected: expected numbers by name"),
        ({"device": None}, "device: expected a name"),
        ({"out": 5}, "out: expected a path, got 5"),
        ({"resume": True}, "resume: expected True, with `out`"),
    ],
)
def test_an_argument_of_the_wrong_kind_is_told(model, data, arguments, message):
    with pytest.raises(ConfigError, match=message):
        autoprune.search(model, data, **{**SHORT, **arguments})


@pytest.mark.parametrize("function", [autoprune.search, autoprune.open_run])
def test_every_argument_of_the_door_refuses_an_object_of_another_kind(function, model, data):
    given = {"model": model, "data": data} if function is autoprune.search else {"path": "no run"}
    for name in inspect.signature(function).parameters:
        if name != "calls":  # a model may be called with anything
            with pytest.raises(autoprune.AutopruneError, match=f"^{name}: expected "):
                function(**{**given, name: object()})


def test_a_front_is_not_pickled_and_writes_no_table_where_there_is_no_folder(tmp_path):
    front = autoprune.open_run(Path(__file__).parent / "fixtures" / "python")
    for copied in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(ConfigError, match=r"front, which holds the model .* with autoprune.open_run\('.*python'\)"):
            copied(front)
    again = pickle.loads(pickle.dumps(front[0]))
    assert again == front[0]
    with pytest.raises(ConfigError, match="was read without them"):
        again.build()
    for path in (tmp_path / "none" / "front.csv", tmp_path):
        with pytest.raises(ConfigError, match="path: expected a file in a folder that exists, got "):
            front.to_csv(path)
    for name, call in {"path": front.to_csv, "directory": front[0].export}.items():
        with pytest.raises(ConfigError, match=f"{name}: expected a path, got 5"):
            call(5)
    with pytest.raises(ConfigError, match="out: expected a path, got 5"):
        front.solve("macs=0.5", out=5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FineTune("x"), "finetune.steps: expected a whole number, got 'x'"),
        (lambda: FineTune(1.5, lr=None), "(?s)finetune.steps: .* got 1.5.*finetune.lr: expected a number, got None"),
        (lambda: FineTune(1, loss=["kl"]), "finetune.loss: expected one of"),
        (lambda: Executor(address=5), "address: expected a Ray cluster such as 'auto', got 5"),
        (lambda: Executor(runtime_env=5), "runtime_env: expected a mapping, got 5"),
        (
            lambda: LevelRule("*", 0.5),
            "expected a pattern of unit names and a tuple of shares .* and keep 0.5",
        ),
        (lambda: LevelRule("*", ("a",)), "expected a pattern of unit names and a tuple of shares"),
        (lambda: LevelRule(5), "expected a pattern of unit names .* got match 5"),
    ],
)
def test_what_a_search_is_given_is_held_to_kinds_where_it_is_made(make, message):
    with pytest.raises(autoprune.AutopruneError, match=message):
        make()


@pytest.mark.parametrize("setting", [{"dtype": "x"}, {"layout": "x"}, {"batch": 0}, {"batch": "5"}, {"threads": 0}])
def test_a_form_holds_its_settings_to_their_bounds(setting):
    with pytest.raises(ConfigError, match=f"^{next(iter(setting))}: expected"):
        Form(**setting)


def test_an_exporter_that_writes_to_the_dense_network_changes_no_other_member(tmp_path, model, data):
    class Zeroing:
        name = "zeroing"

        def write(self, network, facts, example, directory):
            for parameter in facts.dense.parameters():
                parameter.data.zero_()
            (directory / "file").write_text("nothing")

    front = autoprune.search(model, data, **SHORT)
    before = front[1].build()(data.example[0])
    front[0].export(tmp_path / "small", format=Zeroing())
    assert front[1].build()(data.example[0]).equal(before)


def test_what_is_missing_is_told_beside_what_was_given(run, tmp_path, model):
    with pytest.raises(ConfigError, match=r"no name for data\. .*open_run\('.*', model=\.\.\., data=\.\.\.\)"):
        autoprune.open_run(run, model)[0].build()
    refused = CliRunner().invoke(app, ["resume", str(run), "--model", "m.py:f"])
    assert f"autoprune resume {run} --model m.py:f --data MODULE:FUNCTION" in refused.stderr


def test_a_budget_of_the_wrong_kind_is_told(run, model, data):
    with pytest.raises(ConfigError, match="expected a budget such as 'macs=0.4', got 0.4"):
        autoprune.open_run(run, model, data).solve(0.4)
