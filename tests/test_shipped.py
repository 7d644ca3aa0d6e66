"""Files that come with autoprune are found from any folder, after the user's own and with a line that says so."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from autoprune.cli import app
from autoprune.config import load
from autoprune.config.shipped import shipped_file, shipped_root
from autoprune.errors import ConfigError

ROOT = Path(__file__).parents[1]

JOB = """\
version: 1
model: {call: "autoprune.zoo:digits_resnet"}
data: {call: "autoprune.data:digits"}
space: search_spaces/depth.yaml
objectives: [{name: accuracy, direction: max}, {name: macs, direction: min}]
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_shipped_job_loads_from_any_folder_and_names_the_files_it_is_made_of():
    spec = load("configs/quickstart.yaml", ["search=configs/presets/nsga2.yaml"])
    assert (spec.name, spec.search.searcher.options) == ("quickstart", {"population": 40})
    assert spec.space.units[0].kind == "channels"
    names = "configs/quickstart.yaml", "search_spaces/channels.yaml", "configs/presets/nsga2.yaml"
    lines = [f"{name}: taken from the files that come with autoprune, {ROOT / name}" for name in names]
    assert sorted(spec.remarks) == sorted(lines)


def test_a_users_own_file_has_precedence_beside_the_job_and_in_the_current_directory(folder):
    (folder / "jobs/search_spaces").mkdir(parents=True)
    (folder / "jobs/job.yaml").write_text(JOB)
    assert load("jobs/job.yaml").space.units[0].kind == "branches"
    (folder / "jobs/search_spaces/depth.yaml").write_text("version: 1\nunits: [{match: mine, levels: 2}]\n")
    spec = load("jobs/job.yaml")
    assert (spec.space.units[0].match, spec.remarks) == ("mine", ())
    (folder / "configs").mkdir()
    (folder / "configs/quickstart.yaml").write_text(JOB + "name: mine\n")
    assert load("configs/quickstart.yaml").name == "mine"


def test_in_a_checkout_its_own_files_are_the_users(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert load("configs/quickstart.yaml").remarks == ()


def test_the_command_prints_a_line_for_each_file_it_took():
    done = CliRunner().invoke(app, ["inspect", "configs/quickstart.yaml", "--set", "search=none.yaml"])
    assert done.exit_code == 2
    done = CliRunner().invoke(app, ["inspect", "configs/quickstart.yaml"])
    assert done.exit_code == 0, done.output
    taken = [line.partition(":")[0] for line in done.stderr.splitlines() if "come with autoprune" in line]
    assert taken == ["configs/quickstart.yaml", "search_spaces/channels.yaml"]


def test_a_missing_file_names_every_folder_that_was_searched(folder):
    with pytest.raises(ConfigError) as missing:
        load("configs/none.yaml")
    found = f"expected a file 'configs/none.yaml', found none in {folder} or {shipped_root()}. Check the path."
    assert missing.value.problems == [found]
    (folder / "jobs").mkdir()
    (folder / "jobs/job.yaml").write_text(JOB.replace("depth.yaml", "none.yaml") + "search: none.yaml\n")
    with pytest.raises(ConfigError) as missing:
        load("jobs/job.yaml")
    space, search = missing.value.problems
    assert f"no 'search_spaces/none.yaml' in {folder} or jobs or {shipped_root()}. Check" in space
    assert f"no 'none.yaml' in {folder} or jobs. Check" in search  # no path that a shipped file could have


@pytest.mark.parametrize("name", ["README.md", "quickstart.yaml", "configs", "configs/../README.md", "configs/presets"])
def test_nothing_else_of_the_checkout_is_a_shipped_file(name):
    assert shipped_file(name) is None


def test_an_absolute_path_is_no_shipped_file():
    assert shipped_file(ROOT / "configs" / "quickstart.yaml") is None
