"""Run folders that an earlier version wrote: read, resumed and exported by this one.

`fixtures/command` was started by the command line and `fixtures/python` by `autoprune.search`, both with the model and
the data of `fixtures/command/factories.py`. Banks, events and reports were taken out.
"""

import csv
import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

import autoprune
from autoprune.cli import app
from autoprune.core.levels import LevelRule
from autoprune.errors import ConfigError
from autoprune.plugins import load_plugin
from autoprune.run.records.documents import write_checked
from autoprune.run.records.folder import RunFolder
from autoprune.run.results.front_file import read_front_file, to_csv

STORED = Path(__file__).parent / "fixtures"
RECORDS = 13  # of 26, that an interrupted run has left
QUARTERS = [LevelRule("*", (0.75, 0.5, 0.25))]


@pytest.fixture
def model():
    return load_plugin(f"{STORED}/command/factories.py:model")()


@pytest.fixture
def data():
    return load_plugin(f"{STORED}/command/factories.py:data")()


@pytest.fixture
def stored(tmp_path):
    def copied(name):
        return Path(shutil.copytree(STORED / name, tmp_path / name))

    return copied


@pytest.fixture
def interrupted(stored):
    """The folder of a run that was killed while it wrote a record of its journal."""

    def cut(name):
        run = stored(name)
        lines = (run / "journal.jsonl").read_bytes().splitlines(keepends=True)
        assert len(lines) == 2 * RECORDS
        (run / "journal.jsonl").write_bytes(b"".join(lines[:RECORDS]) + lines[RECORDS][:40])
        for file in ("front.csv", "front.json", "additivity.csv"):
            (run / file).unlink()
        return run

    return cut


def rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def evaluations(run):
    """Levels and values of all evaluations in the journal, in order."""
    records = [json.loads(line)["record"] for line in (run / "journal.jsonl").read_text().splitlines()]
    told = [record["evaluation"] for record in records if record["kind"] == "tell"]
    return [(tuple(each["levels"]), each["values"]) for each in told]


def assert_same_search(run, name):
    """The rest of the search asks for the same candidates and measures what the earlier version measured.

    Measured values are the same as far as sums of floats are on another machine, but for KLs: this version chooses the
    ridges of weights with few rows. The front has other networks, as this version fits them in another way.
    """
    found, whole = evaluations(run), evaluations(STORED / name)
    assert [levels for levels, _ in found] == [levels for levels, _ in whole]
    for (_, values), (_, others) in zip(found, whole, strict=True):
        assert values == pytest.approx({**others, "kl": values["kl"]}, rel=1e-3, abs=1e-6)
        assert values["kl"] == pytest.approx(others["kl"], rel=0.3)
    front = rows(run / "front.csv")
    assert [list(row) for row in front[:1]] == [list(row) for row in rows(STORED / name / "front.csv")[:1]]
    asked = {"-".join(map(str, counts(levels))): values for levels, values in whole}
    for row in front:
        assert (int(row["macs"]), int(row["params"])) == tuple(asked[row["candidate"]][c] for c in ("macs", "params"))


def counts(levels):
    return (4 - levels[0], (6, 5, 3, 2)[levels[1]])


@pytest.mark.parametrize("name", ["command", "python"])
def test_a_front_is_read_and_written_byte_by_byte(name, tmp_path):
    front = read_front_file(RunFolder(STORED / name))
    assert to_csv(front.members).encode() == (STORED / name / "front.csv").read_bytes()
    write_checked(tmp_path / "front.json", front.to_json())
    assert (tmp_path / "front.json").read_bytes() == (STORED / name / "front.json").read_bytes()


@pytest.mark.parametrize("name", ["command", "python"])
def test_a_stored_front_is_opened_without_a_model(name, stored, tmp_path):
    run = stored(name)
    front = autoprune.open_run(run)
    whole = rows(run / "front.csv")
    assert [member.candidate for member in front] == [row["candidate"] for row in whole]
    assert front.pick("macs<=0.35")["macs"] == 2922
    front.to_csv(tmp_path / "again.csv")
    assert (tmp_path / "again.csv").read_bytes() == (run / "front.csv").read_bytes()
    assert "members of the front" in front.report().read_text()


def test_an_interrupted_run_of_the_command_is_resumed_by_either_door(interrupted, stored):
    run = interrupted("command")
    unfinished = autoprune.open_run(run, progress=False)
    assert "no front yet" in repr(unfinished)
    assert len(unfinished.resume()) > 1
    assert_same_search(run, "command")
    shutil.rmtree(run)
    result = CliRunner().invoke(app, ["resume", str(interrupted("command")), "--quiet"])
    assert result.exit_code == 0, result.output
    assert_same_search(run, "command")


def test_a_stored_member_is_exported_and_loaded(stored, model, tmp_path):
    autoprune.open_run(stored("command")).pick("#2").export(tmp_path / "small")
    small = autoprune.load(model, tmp_path / "small")
    assert [small[0].out_channels, small[2].out_channels] == [3, 2]  # 3-2


def test_an_interrupted_run_of_python_is_resumed_with_the_arguments_it_was_started_with(interrupted, model, data):
    run = interrupted("python")
    front = autoprune.search(
        model, data, rules=QUARTERS, searcher="random", evaluations=12, threads=1, out=run, resume=True
    )
    assert front.path == run.absolute()
    assert_same_search(run, "python")


def test_another_searcher_than_an_earlier_run_from_python_had_is_refused(interrupted, model, data):
    with pytest.raises(autoprune.AutopruneError, match="searcher: function was RandomSearch, is UniformSearch"):
        autoprune.search(
            model, data, rules=QUARTERS, searcher="uniform", evaluations=12, out=interrupted("python"), resume=True
        )


def test_an_earlier_run_from_python_says_how_to_go_on(stored):
    with pytest.raises(ConfigError, match=r"started in Python by an earlier autoprune.*resume=True"):
        autoprune.open_run(stored("python"))[0].build()
