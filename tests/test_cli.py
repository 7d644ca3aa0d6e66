"""The command line: what it prints, where, and what it exits with. Small real runs, and stand-ins to break one."""

import csv
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import autoprune
import autoprune.run as run
from autoprune import console
from autoprune.cli import app, main
from autoprune.core.unit import Slot, Unit
from autoprune.errors import RunFailed
from autoprune.prune.structure.structure import Frozen
from autoprune.run import Inspection
from autoprune.run.forecast.forecast import Forecast, Stage
from autoprune.run.results.member import Member
from autoprune.run.session.job import Progress

ROOT = Path(__file__).parents[1]

PLUGINS = """\
import torch
from torch import nn
from autoprune.data import Data

def model(width=8):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(),
        nn.Conv2d(width, 4, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2),
    ).eval()

def empty():
    return nn.Identity()

def data(poison=False):
    x = torch.randn(24, 1, 6, 6, generator=torch.Generator().manual_seed(1))
    if poison:
        x[0] = float("nan")
    y = (x.mean((1, 2, 3)) > 0).long()
    return Data.from_arrays(
        calibrate=(x[:8],), select=(x[8:16], y[8:16]), report=(x[16:], y[16:]), train=None, batch_size=8
    )
"""

JOB = """\
# a job
version: 1
model: {call: "plug.py:model"}
data: {call: "plug.py:data"}
space: {version: 1, units: [{match: "0", levels: 4, min_share: 0.25}]}
objectives: [{name: accuracy, direction: max}, {name: macs, direction: min}]
search: {searcher: uniform, evaluations: 4}
run: {device: cpu, threads: 1}
"""


@pytest.fixture(autouse=True)
def default_width(monkeypatch):
    """Tables are as wide as they are by default: pytest-xdist sets COLUMNS in its workers."""
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture(scope="module", autouse=True)
def threads_as_before():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def prepare(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.delenv("AUTOPRUNE_TRACEBACK", raising=False)
    (folder / "plug.py").write_text(PLUGINS)
    (folder / "job.yaml").write_text(JOB)
    return folder


@pytest.fixture
def folder(tmp_path, monkeypatch):
    return prepare(tmp_path, monkeypatch)


def call(*arguments):
    return CliRunner().invoke(app, arguments)


@pytest.fixture(scope="module")
def one_run(tmp_path_factory):
    with pytest.MonkeyPatch.context() as monkeypatch:
        folder = prepare(tmp_path_factory.mktemp("one"), monkeypatch)
        result = call("search", "job.yaml", "--quiet", "--out", "done")
        assert result.exit_code == 0, result.output
        return folder / "done"


@pytest.fixture
def finished(folder, one_run):
    return Path(shutil.copytree(one_run, folder / "done"))


# what the channels of either convolution touch in the model above, read off by eye
NORM = dict.fromkeys(("1.weight", "1.bias", "1.running_mean", "1.running_var"), "along")
TOUCHED_BY_0 = {"0.weight": "out", "0.bias": "along", **NORM, "3.weight": "in"}
TOUCHED_BY_3 = {"3.weight": "out", "3.bias": "along", "6.weight": "in"}


def macs(width):
    """By hand: two 3 x 3 convolutions on 6 x 6 pixels, a linear layer of 4 x 2."""
    return 36 * 9 * width + 36 * 9 * width * 4 + 8


# inspect


def test_inspect_prints_units_levels_and_the_reach_of_every_cost(folder):
    result = call("inspect", "job.yaml")
    assert result.exit_code == 0, result.stderr
    assert "8 6 4 2" in result.stdout
    assert f"{macs(2):,}" in result.stdout
    assert f"{macs(8):,}" in result.stdout
    assert f"{macs(2) / macs(8):.4f}" in result.stdout
    assert "search space: 4 networks over 1 of 2 units" in result.stdout
    assert re.search(r"^forecast: about .* with 1 worker ", result.stdout, re.MULTILINE)
    assert "operators whose MACs no rule counts: none" in result.stdout
    assert "frozen: 0.0% of the MACs in 0 parts" in result.stdout


def cells(printed):
    """The rows of printed tables, by their first cell."""
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in printed.splitlines() if "│" in line]
    return {row[0]: row[1:] for row in rows}


def test_inspect_prints_what_each_unit_and_all_of_a_kind_hold(folder):
    printed = call("inspect", "job.yaml").stdout
    # without unit 0 the linear layer alone costs MACs; of 398 parameters 14 stay, without unit 3 it is 98
    assert cells(printed)["0"] == ["8", "1", "8 6 4 2", "3", "99.9%", "96.5%", ""]
    assert cells(printed)["3"] == ["4", "1", "dense: no rule gives it a choice", "2", "80.0%", "75.4%", ""]
    # without both the linear layer's two biases stay
    total = "channels: 2 units, 12 positions, 1 searched; together 100.0% of the MACs and 99.5% of the parameters"
    assert total in printed.splitlines()


def test_inspect_writes_what_it_shows_as_json(folder):
    assert call("inspect", "job.yaml", "--json", "found.json").exit_code == 0
    found = json.loads((folder / "found.json").read_text())
    assert found["levels"] == {"0": [8, 6, 4, 2]}
    assert found["reach"]["macs"] == [macs(2), macs(8)]
    assert found["frozen_share_of_macs"] == 0
    assert found["kinds"]["channels"] == {"share_of_macs": 1, "share_of_params": pytest.approx(396 / 398)}
    assert not (folder / "results").exists()


def test_the_units_of_the_json_are_units_with_modules_and_shares(folder):
    assert call("inspect", "job.yaml", "--json", "found.json").exit_code == 0
    first, second = json.loads((folder / "found.json").read_text())["units"]
    assert touched(Unit.from_json(first)) == TOUCHED_BY_0
    assert touched(Unit.from_json(second)) == TOUCHED_BY_3
    assert (first["modules"], second["modules"]) == (["0", "1", "3"], ["3", "6"])
    assert first["share_of_macs"] == pytest.approx(1 - 8 / macs(8))
    assert first["share_of_params"] == pytest.approx(384 / 398)


def touched(unit):
    return {slot.tensor: slot.role for slot in unit.slots}


def inspection(units, frozen=(), levels=None, uncounted=()):
    """A made-up one: unit i of n holds a share of (n - i) / 1000 of everything."""
    shares = {unit.name: {"macs": i / 1000, "params": i / 1000} for i, unit in enumerate(reversed(units), start=1)}
    return Inspection(
        units=tuple(units),
        levels={unit.name: (unit.width, 1) for unit in units} if levels is None else levels,
        space_size=2,
        reach={"macs": (1, 10)},
        shares=shares,
        kind_shares={unit.kind: {"macs": 0.5, "params": 0.25} for unit in units},
        frozen=tuple(frozen),
        uncounted=tuple(uncounted),
        forecast=Forecast((Stage("moments", 3.0, 3.0, 2**20),), 1, 1, (0.1, 0.05), 2**20, 2**30, None, 0, 2**30, 32),
    )


def a_unit(name, kind="neurons", width=4, **changes):
    return Unit(name, kind, width, (Slot(f"{name}.weight", 0, "out"), Slot("last.weight", 1, "in")), **changes)


def test_of_three_hundred_units_inspect_prints_the_twenty_largest_of_each_kind(capsys):
    found = inspection([a_unit(f"u{i}", "heads" if i % 3 else "neurons") for i in range(300)])
    console.print_inspection(found)
    printed = capsys.readouterr().out
    listed = [name for name in cells(printed) if name.startswith("u") and name[1:].isdigit()]
    neurons, heads = [f"u{i}" for i in range(0, 60, 3)], [f"u{i}" for i in range(30) if i % 3]
    assert listed == neurons + heads
    assert "80 units more with smaller shares of the MACs; --json FILE writes all" in printed
    assert "180 units more with smaller shares of the MACs; --json FILE writes all" in printed
    assert len(found.to_json()["units"]) == 300


def test_a_unit_that_a_normalisation_runs_over_has_a_mark_and_the_mark_is_explained(capsys):
    console.print_inspection(inspection([a_unit("plain"), a_unit("normed", normalised=True, least=2)]))
    printed = capsys.readouterr().out
    assert [cells(printed)[name][-1] for name in ("plain", "normed")] == ["", "norm"]
    assert [cells(printed)[name][1] for name in ("plain", "normed")] == ["1", "2"]
    assert "norm: a normalisation or another reduction runs over the unit's positions" in printed
    console.print_inspection(inspection([a_unit("plain")]))
    assert "norm:" not in capsys.readouterr().out


def test_frozen_parts_with_one_reason_are_one_line_the_largest_share_first(capsys):
    parts = [("embed", 0.1, "looked up"), ("a", 0.125, "tied"), ("b", 0.25, "tied"), *(("c", 0.0, "tied"),) * 4]
    found = inspection([a_unit("u")], [Frozen(*part) for part in parts], uncounted=["aten::roll", "aten::sort"])
    console.print_inspection(found)
    printed = capsys.readouterr().out
    assert "frozen: 47.5% of the MACs in 7 parts" in printed
    assert [line for line in cells(printed).items() if line[0].endswith("%")] == [
        ("37.5%", ["6", "a, b, c, c and 2 more", "tied"]),
        ("10.0%", ["1", "embed", "looked up"]),
    ]
    assert "operators whose MACs no rule counts: aten::roll, aten::sort" in printed
    assert [row["share_of_macs"] for row in found.to_json()["frozen"][:3]] == [0.1, 0.125, 0.25]


def test_of_many_kept_counts_the_ends_are_printed(capsys):
    console.print_inspection(inspection([a_unit("u", width=12)], levels={"u": tuple(range(12, 0, -1))}))
    assert cells(capsys.readouterr().out)["u"][2] == "12 11 10 9 ... 2 1 (12 levels)"


# search and what follows


def test_a_run_writes_which_unit_touches_what_and_its_report_draws_it(finished):
    found = json.loads((finished / "structure.json").read_text())
    assert found["modules"] == ["0", "1", "3", "6"]
    first, second = map(Unit.from_json, found["units"])
    assert touched(first) == TOUCHED_BY_0
    assert touched(second) == TOUCHED_BY_3
    report = (finished / "report.html").read_text()
    assert "<title>0 in 1: runs along weight, bias, running_mean, running_var</title>" in report
    assert "<title>3 in 6: consumes weight</title>" in report


def test_search_prints_the_front_the_folder_and_the_next_command(folder):
    result = call("search", "job.yaml", "--set", "search.evaluations=2")
    assert result.exit_code == 0, result.stderr
    assert "run:    results/job\n" in result.stdout
    assert re.search(r"^dense:  accuracy \d+\.\d\d % \(\d+\.\d\d to \d+\.\d\d\), kl 0$", result.stdout, re.MULTILINE)
    assert "next:   autoprune export results/job --pick 'macs<=" in result.stdout
    assert "search 2/2" in result.stderr
    assert "search 2/2" not in result.stdout


def test_the_next_command_that_search_prints_works(folder):
    printed = call("search", "job.yaml", "--quiet").stdout
    command = next(line for line in printed.splitlines() if line.startswith("next:")).split("autoprune ")[1]
    words = [word.strip("'") for word in command.split()]
    result = call(*words)
    assert result.exit_code == 0, result.stderr
    assert {path.name for path in Path(words[-1]).iterdir()} == {"recipe.json", "weights.safetensors"}


def test_a_second_search_takes_the_next_folder(folder):
    for name in ("job", "job-2"):
        assert f"run:    results/{name}\n" in call("search", "job.yaml", "-q").stdout
    assert len(list((folder / "results").iterdir())) == 2


def test_an_existing_run_is_never_written_over(finished):
    before = {path.name: path.read_bytes() for path in finished.iterdir()}
    result = call("search", "job.yaml", "--out", "done")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: expected a new folder for the run, done is already there")
    assert {path.name: path.read_bytes() for path in finished.iterdir()} == before


def test_the_front_is_a_table_csv_or_json(finished):
    assert "macs_ratio" in call("front", "done").stdout
    text = call("front", "done", "--format", "csv").stdout
    assert text == (finished / "front.csv").read_text()
    rows = list(csv.DictReader(io.StringIO(text)))
    assert list(rows[0])[:5] == ["candidate", "macs", "params", "macs_ratio", "params_ratio"]
    printed = json.loads(call("front", "done", "--format", "json").stdout)
    assert [row["macs"] for row in printed] == [int(row["macs"]) for row in rows]


@pytest.mark.slow
def test_harm_is_printed_and_written(finished):
    result = call("harm", "done", "--pick", "#1", "-q")
    assert result.exit_code == 0, result.stderr
    (row,) = json.loads(call("front", "done", "--format", "json", "--pick", "#1").stdout)
    assert result.stdout.startswith(f"network {row['candidate']}\n  agreement with the dense network")
    assert "picked row 1 of" in result.stdout
    assert [*json.loads((finished / "harm.json").read_text())["networks"]] == [row["candidate"]]
    assert "agreement" in next(csv.reader(io.StringIO(call("front", "done", "--harm", "--format", "csv").stdout)))


def test_a_pick_prints_one_network(finished):
    (row,) = json.loads(call("front", "done", "--format", "json", "--pick", "macs<=1").stdout)
    assert row["macs_ratio"] <= 1
    result = call("front", "done", "--pick", "macs<=0.0001")
    assert result.exit_code == 2
    assert "no member of the front satisfies 'macs<=0.0001'" in result.stderr
    assert call("front", "done", "--pick", "macs!1").exit_code == 2


def test_a_pick_says_which_network_it_took_and_why(finished):
    rows = json.loads(call("front", "done", "--format", "json").stdout)
    cheapest = min(range(len(rows)), key=lambda i: rows[i]["macs"])
    printed = call("front", "done", "--pick", "accuracy>=0").stdout
    name = f"picked row {cheapest + 1} of {len(rows)}, {rows[cheapest]['candidate']}: "
    assert f"{name}cheapest by macs among {len(rows)} with accuracy >= 0" in printed
    as_json = call("front", "done", "--pick", "accuracy>=0", "--format", "json")
    assert json.loads(as_json.stdout)[0]["macs"] == rows[cheapest]["macs"]  # the sentence is not among the data
    assert name in as_json.stderr


@pytest.mark.parametrize("pick", ["#2", "8"])
def test_a_network_is_picked_by_the_number_of_its_row_or_its_name(finished, pick):
    rows = json.loads(call("front", "done", "--format", "json").stdout)
    wanted = rows[1]["candidate"] if pick == "#2" else "8"
    result = call("front", "done", "--format", "json", "--pick", pick)
    assert json.loads(result.stdout)[0]["candidate"] == wanted
    assert cells(call("front", "done").stdout)["2"][0] == rows[1]["candidate"]


def test_a_front_is_printed_without_importing_torch(finished):
    for arguments in (["front", "done"], ["front", "done", "--pick", "#1", "--format", "csv"], ["--version"], ["-h"]):
        code = f"import sys; sys.argv[1:] = {arguments}\nfrom autoprune.cli import main\n"
        code += "try: main()\nexcept SystemExit as end: print(end.code, 'torch' in sys.modules)"
        done = python("-c", code, cwd=finished.parent)
        assert done.stdout.splitlines()[-1] == "0 False", done.stderr


def test_a_run_is_written_as_an_optuna_study_once(finished):
    for state in ("written", "already there"):
        result = call("front", "done", "--to-optuna", "sqlite:///study.db")
        assert result.exit_code == 0, result.stderr
        assert result.stdout.startswith("study 'done', ")
        assert result.stdout.endswith(f"trials: {state}\nview it with: optuna-dashboard sqlite:///study.db\n")
    assert call("front", "done", "--to-optuna", "study.db").exit_code == 2


def test_a_criterion_is_searched_for_and_the_next_command_uses_it(folder):
    result = call("criterion", "job.yaml", "--out", "mine.py", "--evaluations", "3", "--seed", "1", "--quiet")
    assert result.exit_code == 0, result.stderr
    assert [line.split()[0] for line in result.stdout.splitlines()[:3]] == ["criterion", "found", "obs"]
    command = result.stdout.splitlines()[-1].split("autoprune ")[1]
    assert call(*shlex.split(command), "--quiet").exit_code == 0
    again = call("criterion", "job.yaml", "--out", "mine.py")
    assert again.exit_code == 2
    assert "mine.py is already there. Give another --out." in again.stderr


def test_resume_of_a_finished_run_changes_nothing(finished):
    front = (finished / "front.csv").read_bytes()
    result = call("resume", "done", "-q")
    assert result.exit_code == 0, result.stderr
    assert (finished / "front.csv").read_bytes() == front


def test_resume_writes_again_what_the_job_tells_so_that_a_report_can_be_made(finished):
    drawn = (finished / "report.html").read_bytes()
    (finished / "structure.json").unlink()
    broken = call("report", "done")
    assert broken.exit_code == 2
    assert broken.stderr.endswith("has no structure.json. Write it again with: autoprune resume done\n")
    assert call("resume", "done", "-q").exit_code == 0
    assert call("report", "done").exit_code == 0
    assert (finished / "report.html").read_bytes() == drawn


def test_report_says_where_it_is(finished, monkeypatch):
    monkeypatch.setattr(run, "report", lambda folder: folder / "report.html", raising=False)
    assert call("report", "done").stdout == "report: done/report.html\n"


def test_solve_prints_the_network_for_another_budget(folder):
    assert call("search", "job.yaml", "-q", "--out", "probed", "--set", "search.searcher=additive").exit_code == 0
    result = call("solve", "probed", "--budget", "macs=0.6", "--out", "small", "-q")
    assert result.exit_code == 0, result.stderr
    assert "1 network\n" in result.stdout
    assert json.loads((folder / "small/recipe.json").read_text())["measured"]["macs_ratio"] <= 0.6
    assert call("solve", "probed", "--budget", "accuracy=0.6", "-q").exit_code == 2


def test_export_writes_the_picked_network_and_not_over_another(finished):
    result = call("export", "done", "--pick", "macs<=1", "--out", "small", "-q")
    assert result.exit_code == 0, result.stderr
    assert "autoprune.load(fresh_model, 'small')" in result.stdout
    again = call("export", "done", "--pick", "macs<=1", "--out", "small", "-q")
    assert again.exit_code == 2
    assert "already there" in again.stderr


@pytest.mark.parametrize("command", [["front"], ["harm"], ["resume"], ["export", "--pick", "macs<=1", "--out", "x"]])
def test_a_folder_that_is_no_run_is_told(folder, command):
    result = call(command[0], "nowhere", *command[1:])
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert "nowhere" in result.stderr


def test_a_misspelt_run_folder_is_told_with_the_closest_run_beside_it(finished):
    assert "found none at dnoe (did you mean 'done'?)" in call("front", "dnoe").stderr


# mistakes


def test_one_mistake_is_one_line_without_a_traceback(folder):
    result = call("search", "job.yaml", "--set", "search.evaluations=-1")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: --set search.evaluations=-1: search.evaluations: expected at least 1")
    assert result.stderr.count("\n") == 1
    assert not (folder / "results").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["solve", "done", "--budget", "macs"], "expected a bound such as"),
        (["solve", "done", "--budget", "macs>=0.4"], "expected a budget on one of ['macs', 'params']"),
        (["solve", "done", "--budget", "mac=0.4"], "did you mean 'macs'?"),
        (["solve", "done", "--budget", "macs=0.4", "--out", "."], "expected a new folder"),
        (["audit", "done", "--band", "mac=0.4..0.5"], "did you mean 'macs'?"),
        (["audit", "done", "--steps", "0", "--seeds", "0"], "2 mistakes"),
        (["export", "done", "--pick", "macs<=0.5", "--out", "done"], "done is already there. Give another --out."),
        (["export", "done", "--pick", "macs<=0.5", "--out", "job.yaml"], "job.yaml is already there"),
        (["export", "done", "--pick", "macs<=0.5", "--out", "job.yaml/small"], "job.yaml is a file"),
        (["export", "done", "--pick", "acuracy>=0.5", "--out", "small"], "did you mean 'accuracy'?"),
        (["search", "job.yaml", "--out", "done"], "done is already there"),
        (["search", "job.yaml", "--out", "job.yaml/run"], "job.yaml is a file"),
    ],
)
def test_what_cannot_be_done_is_told_before_torch_is_imported(finished, monkeypatch, arguments, message):
    monkeypatch.setitem(sys.modules, "autoprune.config", None)  # an import of it fails
    result = call(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr


def test_several_mistakes_are_counted_and_listed(folder):
    result = call("inspect", "job.yaml", "--set", "a=1", "--set", "b")
    assert result.exit_code == 2
    assert result.stderr.splitlines()[0] == "error: 2 mistakes"
    assert [line[:9] for line in result.stderr.splitlines()[1:]] == ["  --set b", "  --set a"]


@pytest.mark.parametrize(
    ("setting", "code", "messages"),
    [
        ("space.units.0.match=none", 2, ["pattern 'none' matches no unit"]),
        ("objectives.1.bound=0.001", 2, ["budget macs <= ", "cannot be reached", "objectives of this job: job.yaml:6"]),
        ("data.poison=true", 2, ["NaN", "data of this job: job.yaml:4"]),
        ("model.call=plug.py:empty", 2, ["expected a network with parameters", "model of this job: job.yaml:3"]),
        ("model={call: plug.py:empty}", 2, ["model of this job: --set model={call: plug.py:empty}"]),
        ("model.call=plug.py:modle", 2, ["has no 'modle'", "did you mean 'model'?"]),
    ],
)
def test_what_shows_only_when_the_job_runs_is_told_with_its_place(folder, setting, code, messages):
    result = call("search", "job.yaml", "-q", "--set", setting)
    assert result.exit_code == code, result.output
    for message in messages:
        assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert not (folder / "results/job/front.csv").exists()


@pytest.mark.parametrize("arguments", [["serch"], ["search"], ["search", "job.yaml", "--nope"], ["export", "run"]])
def test_wrong_usage_exits_with_2(folder, arguments):
    assert call(*arguments).exit_code == 2


def test_a_traceback_is_shown_only_when_asked_for(folder, monkeypatch):
    assert "Traceback" not in call("inspect", "none.yaml").stderr
    assert "Traceback (most recent call last)" in call("--traceback", "inspect", "none.yaml").stderr
    monkeypatch.setenv("AUTOPRUNE_TRACEBACK", "1")
    assert "Traceback (most recent call last)" in call("inspect", "none.yaml").stderr


def raising(error):
    def search(job, folder, progress):
        folder.mkdir(parents=True)
        (folder / "job.yaml").write_text("version: 1\n")
        raise error

    return search


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (
            KeyboardInterrupt(),
            130,
            "interrupted\nAll measurements are kept; continue with: autoprune resume results/job\n",
        ),
        (RunFailed("all failed"), 1, "error: all failed\n"),
        (
            ZeroDivisionError("by 0"),
            1,
            "error: ZeroDivisionError: by 0\nThis error is unexpected; `autoprune --traceback",
        ),
    ],
)
def test_how_a_run_ended_is_told_by_message_and_exit_code(folder, monkeypatch, error, code, message):
    monkeypatch.setattr(run, "search", raising(error))
    result = call("search", "job.yaml", "-q")
    assert result.exit_code == code
    assert result.stderr.startswith(message)


@pytest.mark.parametrize("ending", ["sys.exit()", "sys.exit(0)", "raise GeneratorExit", "raise asyncio.CancelledError"])
@pytest.mark.parametrize("command", ["search", "inspect"])
def test_a_factory_that_would_end_the_process_ends_the_command_with_1_and_a_sentence(folder, command, ending):
    (folder / "ends.py").write_text(f"import asyncio, sys\ndef model():\n    {ending}\n")
    result = call(command, "job.yaml", "--set", "model={call: ends.py:model}")
    assert result.exit_code == 1
    assert "ends.py:3, which would have ended the process" in result.stderr
    assert not (folder / "results").exists()


@pytest.mark.parametrize("ending", ["sys.exit(0)", "raise asyncio.CancelledError", "raise GeneratorExit"])
def test_a_plug_in_file_that_would_end_the_process_when_imported_is_a_mistake(folder, ending):
    (folder / "ends.py").write_text(f"import asyncio, sys\n{ending}\n")
    result = call("search", "job.yaml", "--set", "model={call: ends.py:model}")
    assert result.exit_code == 2
    assert "ends.py:2" in result.stderr


def test_an_interrupt_before_there_is_a_run_does_not_offer_to_resume_it(folder, monkeypatch):
    def search(job, folder, progress):
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "search", search)
    assert call("search", "job.yaml", "-q").stderr == "interrupted\n"


# the process


def python(*arguments, cwd):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def test_the_version_is_that_of_the_package():
    assert call("--version").stdout == f"autoprune {autoprune.__version__}\n"


@pytest.mark.parametrize("command", [[], ["search"], ["front"], ["export"]])
def test_help_has_a_short_form_everywhere(command):
    assert call(*command, "-h").stdout == call(*command, "--help").stdout != ""


def test_shell_completion_is_offered():
    assert "--install-completion" in call("-h").stdout
    assert "--show-completion" in call("-h").stdout


def test_help_lists_the_commands_without_importing_torch(folder):
    code = "import sys; sys.argv[1:] = ['--help']\nfrom autoprune.cli import main\n"
    code += "try: main()\nexcept SystemExit as end: print(end.code, 'torch' in sys.modules)"
    done = python("-c", code, cwd=folder)
    assert done.stdout.splitlines()[-1] == "0 False"
    for command in ("inspect", "search", "resume", "front", "solve", "export", "audit", "report"):
        assert f"{command} " in done.stdout


def test_the_module_runs_and_its_exit_code_is_the_errors(folder):
    done = python("-m", "autoprune", "inspect", "none.yaml", cwd=folder)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: expected a file 'none.yaml', found none in {folder}. Check")


def test_modules_in_the_current_directory_can_be_plug_ins(folder, monkeypatch, capsys):
    (folder / "my_plug_ins.py").write_text(PLUGINS)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    monkeypatch.setattr(sys, "argv", ["autoprune", "inspect", "job.yaml", "--set", "model.call=my_plug_ins:model"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0, capsys.readouterr().err


# display


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_without_a_terminal_progress_is_about_a_line_for_every_tenth():
    stream = io.StringIO()
    with console.progress_display(False, stream=stream) as progress:
        for done in range(301):
            progress(Progress("search", done, 300, "hv 0.5"))
    lines = stream.getvalue().splitlines()
    assert len(lines) == 11
    assert lines[0].startswith("search 0/300, 0 s")
    assert lines[-1] == "search 300/300, 0 s, hv 0.5"


def test_a_phase_with_nothing_to_do_is_one_line():
    stream = io.StringIO()
    with console.progress_display(False, stream=stream) as progress:
        progress(Progress("front", 0, 0))
    assert stream.getvalue() == "front 0/0, 0 s\n"


def test_on_a_terminal_progress_is_a_bar_for_each_phase():
    stream = Terminal()
    with console.progress_display(False, stream=stream) as progress:
        progress(Progress("trace", 1, 1))
        progress(Progress("search", 3, 30, "[half] done"))
    shown = stream.getvalue()
    assert "trace" in shown
    assert "3/30" in shown
    assert "[half] done" in shown


def test_quiet_shows_nothing():
    stream = Terminal()
    with console.progress_display(True, stream=stream) as progress:
        progress(Progress("search", 1, 2))
    assert stream.getvalue() == ""


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (40551040, "40,551,040"),
        (1.0, "1.0000"),
        (0.0, "0"),
        (0.91734, "0.9173"),
        (3.5e-7, "3.5e-07"),
        (2048.0, "2,048"),
        (12345.678, "12,345.7"),
        (float("nan"), "nan"),
        (float("inf"), "inf"),
        ("[a]", r"\[a]"),
    ],
)
def test_numbers_are_shown_so_that_they_can_be_read(value, text):
    assert console.shown(value) == text


def test_a_reader_that_ends_before_the_output_does_is_no_error():
    folder = Path(__file__).parent / "run" / "fixtures" / "command"
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as gone:
        command = [sys.executable, "-m", "autoprune", "front", str(folder)]
        done = subprocess.run(command, stdout=gone, stderr=subprocess.PIPE, text=True, check=False)
    assert done.stderr == ""


def test_an_empty_front_prints_its_header_alone(capsys):
    console.print_members([], "csv")
    assert capsys.readouterr().out == "candidate,macs,params,macs_ratio,params_ratio\n"
    console.print_members([], "json")
    assert json.loads(capsys.readouterr().out) == []
    console.print_members([])
    assert "0 networks\n" in capsys.readouterr().out


def test_the_plug_ins_of_this_file_are_what_the_hand_arithmetic_counts(folder):
    namespace = {}
    exec(PLUGINS, namespace)
    assert namespace["model"]()(torch.zeros(1, 1, 6, 6)).shape == (1, 2)


WIDE = [
    Member(
        candidate="-".join(["128"] * 60 + [str(index)]),
        levels=(index,),
        counts={},
        costs={"macs": 68_862_592, "nonzeros": 144_396 + index},
        ratios={},
        report={"accuracy": 0.9 + index / 100, "a_long_name_of_a_value": 1.25 + index},
        verify_error=0.0,
        intervals={"accuracy": (0.893, 0.912)},
    )
    for index in range(2)
]
NUMBERS = ("144,396", "144,397", "0.9000 (0.893-0.912)", "0.9100 (0.893-0.912)")


@pytest.mark.parametrize("width", [160, 80, 60, 30])
def test_no_number_of_a_front_is_cut_on_a_narrow_screen(width, monkeypatch, capsys):
    monkeypatch.setattr(console, "WIDE", width)
    console.print_members(WIDE)
    printed = capsys.readouterr().out
    assert "in all of them: macs 68,862,592" in " ".join(printed.split())
    shown = NUMBERS if width > 30 else NUMBERS[:2]
    assert all(number in printed for number in shown)
    assert ("2.2500" in printed) == (width >= 60)
    assert ("no room for" in printed) == (width < 60)
    assert max(map(len, printed.splitlines())) <= max(width, 40)


@pytest.mark.parametrize("width", [160, 60, 30])
def test_the_name_of_a_candidate_never_breaks_inside_a_number(width, monkeypatch, capsys):
    monkeypatch.setattr(console, "WIDE", width)
    monkeypatch.delenv("COLUMNS", raising=False)
    console.print_members(WIDE, numbers=[1, 2])
    found = [line.split("│")[2].strip() for line in capsys.readouterr().out.splitlines() if "│" in line]
    assert {number for part in found for number in part.split("-")} == {"128", "0", "1", ""}
    assert len(found) > 2


@pytest.mark.parametrize(("columns", "width"), [("50", 50), ("200", 200), ("0", 160), ("wide", 160), ("", 160)])
def test_columns_says_how_wide_piped_output_is(columns, width, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", columns)
    console.print_members([replace(WIDE[0], candidate="-".join(["128"] * 300))])
    longest = max(map(len, capsys.readouterr().out.splitlines()))
    assert width - 12 <= longest <= width


def test_one_network_alone_has_all_its_values_in_the_table(capsys):
    console.print_members(WIDE[:1])
    printed = capsys.readouterr().out
    assert "68,862,592" in printed
    assert "in all of them" not in printed


# the forecast


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_the_table_of_a_forecast_is_printed_whole_with_and_without_bars(stream):
    written = stream()
    with console.progress_display(quiet=False, stream=written) as report:
        report(Progress("forecast", 1, 1, "forecast: 1 s [of b]\nfits    3 s"))
    assert "forecast: 1 s [of b]\nfits    3 s\n" in written.getvalue()


def test_an_inspection_says_that_a_run_would_be_refused(capsys):
    found = inspection([a_unit("u")])
    console.print_inspection(found)
    assert "will not start" not in capsys.readouterr().out
    console.print_inspection(replace(found, forecast=replace(found.forecast, available=2**19)))
    assert "note: a run will not start: moments: expected 1 MiB of memory" in capsys.readouterr().out
