"""The same in Python: a model and data in, networks out."""

import csv

import pytest
import torch

import autoprune
from autoprune.errors import ConfigError, InfeasibleBudget


@pytest.fixture
def front(model, data):
    return autoprune.search(model, data, evaluations=10, front_size=5, searcher="uniform")


def test_a_front_is_iterable_has_a_length_and_builds_smaller_networks(front, model, data):
    assert len(list(front)) == len(front) > 2
    small = front.pick("macs<=0.5").build()
    structure = autoprune.find_structure(small, data.example)
    assert structure.cost.dense()["macs"] == front.pick("macs<=0.5").costs["macs"]
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters())


def test_a_picked_network_does_what_its_row_says(front, model, data):
    member = front.pick("macs<=0.5")
    small = member.build()
    with torch.no_grad():
        hits = sum(int((small(*b.inputs).argmax(1) == b.target).sum()) for b in data.report)
        same = sum(int((small(*b.inputs).argmax(1) == model(*b.inputs).argmax(1)).sum()) for b in data.report)
    assert hits / 60 == member.report["accuracy"]
    assert same / 60 == member.harm["agreement"]


def test_nothing_is_written_without_a_folder(model, data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    autoprune.search(model, data, evaluations=3, searcher="uniform")
    assert list(tmp_path.iterdir()) == []


def test_with_a_folder_the_run_is_kept(model, data, tmp_path):
    front = autoprune.search(model, data, evaluations=3, searcher="uniform", out=tmp_path / "run")
    with (tmp_path / "run" / "front.csv").open() as file:
        assert len(list(csv.DictReader(file))) == len(front)


def test_a_front_writes_itself_as_csv_and_a_network_as_an_export(front, model, tmp_path):
    front.to_csv(tmp_path / "front.csv")
    assert len((tmp_path / "front.csv").read_text().splitlines()) == len(front) + 1
    front[0].export(tmp_path / "small")
    small = autoprune.load(model, tmp_path / "small")
    assert sum(p.numel() for p in small.parameters()) == front[0].costs["params"]


def test_an_objective_without_a_known_direction_must_bring_one(model, data):
    with pytest.raises(ConfigError, match="objective 'speed' has no known direction"):
        autoprune.search(model, data, objectives=("speed", "macs"))


def test_an_impossible_pick_is_told(front):
    with pytest.raises(InfeasibleBudget, match="no member of the front satisfies 'macs<=0.001'"):
        front.pick("macs<=0.001")
