"""Formats of exports: a program of torch.export, exporters of a user's own, and what is refused."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import autoprune
from autoprune.cli import app
from autoprune.core.levels import LevelRule
from autoprune.errors import ConfigError, ExportError, PluginError, RunExists
from autoprune.run.results.exporter import EXPORTERS, Exporter, ExportFacts, find_exporter
from autoprune.run.results.program import ProgramExporter
from autoprune.run.results.publishing import write_export

FACTS = ExportFacts(nn.Identity(), None, {})  # the recipe of a network that is not pruned


@pytest.fixture
def front(model, data):
    """A front of a network with random weights, not searched for."""
    return autoprune.search(model, data, rules=(LevelRule("*", (0.5,)),), searcher="uniform", evaluations=2)


@pytest.mark.slow
def test_a_program_computes_what_the_network_computes_for_any_number_of_examples(front, tmp_path):
    network = front[0].build()
    front[0].export(tmp_path / "small", format="pt2")
    assert [path.name for path in (tmp_path / "small").iterdir()] == ["network.pt2"]
    program = torch.export.load(tmp_path / "small" / "network.pt2").module()
    for count in (1, 2, 7):
        x = torch.randn(count, 3, 8, 8)
        with torch.no_grad():
            torch.testing.assert_close(program(x), network(x), rtol=1e-5, atol=1e-5)


class OneAtATime(nn.Module):
    """A network whose result depends on how many examples there are, in a way that fixes their number."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x):
        return self.layer(x) if x.shape[0] == 1 else self.layer(x) * 2


class Untraceable(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x):
        y = self.layer(x)
        return y if float(y.sum()) > 0 else -y


def test_a_network_for_one_example_at_a_time_is_written_for_one(tmp_path, caplog):
    network = OneAtATime().eval()
    with caplog.at_level(logging.WARNING):
        write_export(network, FACTS, (torch.randn(1, 4),), tmp_path / "small", ProgramExporter())
    assert "network.pt2 takes one example at a time" in caplog.text
    x = torch.randn(1, 4)
    program = torch.export.load(tmp_path / "small" / "network.pt2").module()
    torch.testing.assert_close(program(x), network(x))


def test_a_network_that_cannot_be_traced_is_told_and_nothing_is_left(tmp_path):
    with pytest.raises(ExportError, match="torch.export cannot trace the network: .* format 'autoprune'"):
        write_export(Untraceable().eval(), FACTS, (torch.randn(1, 4),), tmp_path / "small", ProgramExporter())
    assert list(tmp_path.iterdir()) == []


class Drifting(nn.Module):
    """Computes something else each time: no program can be held against it."""

    calls = 0

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x):
        Drifting.calls += 1
        return self.layer(x) + float(Drifting.calls)


def test_a_program_that_computes_something_else_is_refused(tmp_path):
    with pytest.raises(ExportError, match="to have the network's output, to 0.0001 of the largest output"):
        write_export(Drifting().eval(), FACTS, (torch.randn(1, 4),), tmp_path / "small", ProgramExporter())
    assert list(tmp_path.iterdir()) == []


class Shapes:
    """An exporter that writes the shapes of all tensors."""

    name = "shapes"

    def write(self, network, facts, example, directory):
        lines = [f"{name} {tuple(tensor.shape)}" for name, tensor in network.state_dict().items()]
        (directory / "shapes.txt").write_text("\n".join([f"# {facts.measured['candidate']}", *lines]))


def test_an_exporter_of_a_users_own_is_given_as_it_is_or_by_its_name(front, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_format.py").write_text(
        "class Empty:\n    name = 'empty'\n\n    def write(self, network, facts, example, directory):\n"
        "        (directory / 'empty').touch()\n"
    )
    for number, format in enumerate((Shapes(), Shapes)):
        front[0].export(tmp_path / f"a{number}", format=format)
        text = (tmp_path / f"a{number}" / "shapes.txt").read_text()
        assert text.startswith(f"# {front[0].candidate}\n")
        assert len(text.splitlines()) == 1 + len(front[0].build().state_dict())
    front[0].export("b", format="my_format.py:Empty")
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["empty"]
    with pytest.raises(RunExists):
        front[0].export("b", format="my_format.py:Empty")


@pytest.mark.parametrize("name", EXPORTERS)
def test_every_format_of_the_table_is_an_exporter_of_that_name(name):
    exporter = find_exporter(name)
    assert isinstance(exporter, Exporter)
    assert exporter.name == name


def exporter(write, name="mine"):
    return SimpleNamespace(name=name, write=write)


@pytest.mark.parametrize(
    ("format", "error", "message"),
    [
        ("pt3", ConfigError, "expected a format, one of autoprune, pt2, tr.* or .* got 'pt3' .did you mean 'pt2'"),
        ("no_such_file.py:Mine", PluginError, "expected a file"),
        ("autoprune.errors:did_you_mean", PluginError, "making the exporter did_you_mean raised TypeError"),
        (nn.Identity, PluginError, "expected an exporter with a name and write.*got a Identity"),
        (exporter(None), PluginError, "expected an exporter with a name and write"),
        (exporter(lambda *given: None, name=3), PluginError, "expected an exporter with a name"),
        (exporter(lambda *given: None), PluginError, "'mine' to write at least one file, but it wrote none"),
        (exporter(lambda *given: 1 / 0), PluginError, "the exporter 'mine' raised ZeroDivisionError"),
        (exporter(lambda: None), PluginError, "the exporter 'mine' raised TypeError"),
    ],
)  # fmt: skip
def test_what_is_no_exporter_is_told_and_writes_nothing(tmp_path, format, error, message):
    with pytest.raises(error, match=message):
        write_export(nn.Identity(), FACTS, (torch.ones(1, 4),), tmp_path / "small", find_exporter(format))
    assert list(tmp_path.iterdir()) == []


def test_files_of_any_format_are_put_in_a_folder_that_was_there(tmp_path):
    def write(network, facts, example, directory):
        (directory / "a").write_text("a")
        (directory / "b").mkdir()
        (directory / "b" / "c").write_text("c")

    (tmp_path / "small").mkdir()
    write_export(nn.Identity(), FACTS, (), tmp_path / "small", exporter(write))
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == [
        "small",
        "small/a",
        "small/b",
        "small/b/c",
    ]


def test_a_file_of_the_users_beside_what_a_killed_export_left_is_not_written_to(tmp_path):
    scratch = tmp_path / "small" / ".export-small-1"
    scratch.mkdir(parents=True)
    (scratch / "weights.safetensors").write_text("half")
    (tmp_path / "small" / "notes.txt").write_text("mine")
    with pytest.raises(RunExists):
        write_export(nn.Identity(), FACTS, (), tmp_path / "small", exporter(lambda *given: None))


@pytest.mark.slow
def test_a_run_is_exported_by_the_command_in_the_format_it_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job.yaml").write_text(
        "version: 1\nmodel: {call: 'autoprune.zoo:digits_resnet'}\ndata: {call: 'autoprune.data:digits'}\n"
        "objectives: [{name: accuracy, direction: max}, {name: macs, direction: min}]\n"
        "space: {version: 1, units: [{match: '*', keep: [0.5]}]}\n"
        "search: {searcher: uniform, evaluations: 2}\n"
    )

    def command(*words):
        return CliRunner().invoke(app, [*words, "--quiet"])

    assert command("search", "job.yaml", "--out", "run").exit_code == 0
    wrong = command("export", "run", "--pick", "#1", "--out", "small", "--format", "pt3")
    assert wrong.exit_code == 2
    assert "did you mean 'pt2'" in wrong.output
    done = command("export", "run", "--pick", "#1", "--out", "small", "--format", "pt2")
    assert done.exit_code == 0, done.output
    assert "load it with torch.export.load('small/network.pt2').module()" in done.stdout
    x = torch.rand(5, 1, 8, 8)
    assert torch.export.load("small/network.pt2").module()(x).shape == (5, 10)
