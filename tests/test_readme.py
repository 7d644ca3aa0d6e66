"""What the documents show works as shown."""

import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from typer.testing import CliRunner

import autoprune
from autoprune.cli import app
from autoprune.data import digits
from autoprune.measure.batch import Batch
from autoprune.prune.criteria import UnitStatistics, UnitWeights, order_positions
from autoprune.testing import check_fitness, check_searcher
from autoprune.zoo import digits_resnet

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PLUGINS = (ROOT / "docs" / "plugins.md").read_text()


def blocks(text, language):
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def plugin(name):
    """What the block of the plug-in page that opens with the file's name defines."""
    (code,) = [block for block in blocks(PLUGINS, "python") if block.startswith(f"# {name}\n")]
    space = {}
    exec(code, space)
    return space


@pytest.fixture(scope="module")
def embedded():
    return digits_resnet(), digits()


@pytest.mark.slow
def test_the_python_example_runs_on_the_digits(embedded, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model, data = embedded
    x = {name: torch.cat([b.inputs[0] for b in getattr(data, name)]) for name in ("calibrate", "select", "report")}
    y = {name: torch.cat([b.target for b in getattr(data, name)]) for name in ("select", "report")}
    code = next(block for block in blocks(README, "python") if "from_arrays" in block)
    assert "evaluations=300" in code
    names = {"model": model, "x0": x["calibrate"], "x1": x["select"], "x2": x["report"]}
    names |= {"y1": y["select"], "y2": y["report"]}
    exec(code.replace("evaluations=300", "evaluations=12, front_size=5"), names)
    small, half = (sum(p.numel() for p in names[name].parameters()) for name in ("small", "half"))
    assert max(small, half) < sum(p.numel() for p in model.parameters())
    assert sum(p.numel() for p in autoprune.load(model, "small-040").parameters()) < small * 2
    report = autoprune.verify(model, names["half"], names["structure"], names["x0"][:1])
    assert report.ok


def test_every_command_of_the_readme_exists_with_its_options():
    rows = re.findall(r"^\| `autoprune (\w+) ([^`]*)` \|", README, re.MULTILINE)
    assert len(rows) == 11
    for command, arguments in rows:
        shown = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200", "TERM": "dumb"})
        assert shown.exit_code == 0
        assert all(option in shown.stdout for option in re.findall(r"--\w+", arguments))


def test_the_readme_is_short_and_its_job_is_valid_yaml():
    assert len(README.splitlines()) < 150
    for block in blocks(README, "yaml"):
        assert yaml.safe_load(block)["version"] == 1


def test_the_searcher_of_the_plugin_page_keeps_the_contract():
    check_searcher(plugin("my_search.py")["Grow"])


def test_the_fitness_of_the_plugin_page_keeps_the_contract(embedded):
    model, data = embedded
    top5 = plugin("my_fitness.py")["top5"]
    check_fitness(top5, model, data.select)
    sure = [Batch((torch.eye(10),), torch.arange(10))]
    assert top5(torch.nn.Identity(), sure)["top5"] >= 0.5


def test_the_cost_and_the_criterion_of_the_plugin_page_work():
    assert plugin("my_costs.py")["joules"]({"a": 3, "b": 4}) == pytest.approx(25e-9)
    weights = UnitWeights((torch.tensor([[1.0, -2.0], [0.5, 0.1], [0.0, 3.0]]),), ())
    order = order_positions(plugin("my_criterion.py")["largest_weight"], weights, UnitStatistics(()), "u")
    assert order.tolist() == [2, 0, 1]


def test_the_quick_start_config_runs_and_its_front_holds_what_it_promises(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    run, small = tmp_path / "run", tmp_path / "small"
    smaller = ["--set", "search.evaluations=40", "--set", "search.front_size=4"]
    result = CliRunner().invoke(app, ["search", "configs/quickstart.yaml", *smaller, "--out", str(run), "--quiet"])
    assert result.exit_code == 0, result.output
    assert str(run / "report.html") in result.stdout
    picked = CliRunner().invoke(app, ["export", str(run), "--pick", "macs<=0.5", "--out", str(small)])
    assert picked.exit_code == 0, picked.output
    network, data = autoprune.load(digits_resnet(), small), digits()
    with torch.no_grad():
        hits = [network(*b.inputs).argmax(1) == b.target for b in data.report]
    rows = autoprune.run.read_front(run, "macs<=0.5")
    assert rows[0]["accuracy"] == np.mean(torch.cat(hits).numpy())


@pytest.mark.slow
def test_the_example_runs_and_what_it_loads_again_has_the_accuracy_it_picked(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["digits.py", "8"])
    runpy.run_path(str(ROOT / "examples" / "digits.py"), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    assert float(re.findall(r"^dense: accuracy ([\d.]+);", lines[0])[0]) > 0.95
    assert lines[2].split()[-1] == lines[-1].split()[-1]
