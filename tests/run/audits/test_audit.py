"""Audits of a tiny run: bands, the networks, trainings that are killed, and the report."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import autoprune
from autoprune.core.cost import CostModel, Polynomial
from autoprune.core.evaluation import Evaluation
from autoprune.core.objective import Objective
from autoprune.core.problem import Problem
from autoprune.core.space import Candidate, SearchSpace
from autoprune.errors import ConfigError
from autoprune.run.audits.band import Band
from autoprune.run.audits.networks import choose
from autoprune.run.audits.request import AuditRequest
from autoprune.run.audits.training import reinitialised, training_of

DENSE = {"macs": 200, "params": 64}
TINY = {"networks": 4, "steps": 2, "band": "macs=0.3..0.7", "orders": ("l1",)}


def test_a_band_is_parsed_with_shares_of_dense():
    assert Band.parse("macs=0.4..0.5", DENSE) == Band("macs", 80, 100)
    assert Band.parse("params = 1e1..32", DENSE) == Band("params", 10, 32)
    assert Band.around("macs", 100).admits(105)
    assert Band("macs", 90, 110).shown(DENSE) == "macs 45.0 to 55.0 % of dense"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("macs<=0.5", "expected a band of a cost such as 'macs=0.45..0.55', got 'macs<=0.5'"),
        ("mac=0.4..0.5", "expected a band of one of the costs ['macs', 'params'], got 'mac=0.4..0.5' (did you mean"),
        ("macs=0.5..0.4", "expected a band whose first value is not above its second"),
    ],
)
def test_a_wrong_band_is_told(text, said):
    with pytest.raises(ConfigError) as error:
        Band.parse(text, DENSE)
    assert said in str(error.value)


def test_all_wrong_numbers_are_told_at_once():
    with pytest.raises(ConfigError) as error:
        AuditRequest(networks=2, steps=3, epochs=1, seeds=0, lr=0)
    assert len(error.value.problems) == 4


@pytest.fixture
def problem():
    """Three units of 8 positions whose cost is their sum."""
    space = SearchSpace(("a", "b", "c"), (tuple(range(8, 0, -1)),) * 3)
    macs = sum(map(Polynomial.of, space.units), Polynomial())
    objectives = Objective("kl", "min"), Objective("macs", "min")
    return Problem(space, objectives, CostModel(dict.fromkeys(space.units, 8), {"macs": macs}))


def test_half_of_the_networks_are_the_best_of_the_search_and_half_random(problem):
    rows = np.random.default_rng(0).integers(0, 8, (40, 3)).tolist()
    told = [
        Evaluation(Candidate(tuple(row)), {"kl": float(np.dot(row, (1, 2, 4))), "macs": 24 - sum(row)}) for row in rows
    ]
    band = Band("macs", 10, 14)
    chosen = choose(problem, told, band, AuditRequest(10), 0)
    inside = [e for e in told if band.admits(problem.costs_of(e.candidate)["macs"])]
    best = sorted({e.candidate.levels: e for e in inside}.values(), key=lambda e: e.values["kl"])[:5]
    assert [one.levels for one in chosen[:5]] == [e.candidate.levels for e in best]
    assert [one.origin for one in chosen[:10]] == ["searched"] * 5 + ["random"] * 5
    assert [(one.levels, one.order) for one in chosen[10:]] == [
        (chosen[index].levels, order) for index in (0, 5) for order in ("l1", "random")
    ]
    assert all(band.admits(problem.costs_of(Candidate(one.levels))["macs"]) for one in chosen)
    assert len({one.levels for one in chosen}) == 10
    assert chosen == choose(problem, told, band, AuditRequest(10), 0)


def test_a_band_with_one_network_is_refused(problem):
    with pytest.raises(ConfigError, match=r"at least 3 networks of macs 12\.5 to 12\.5 % of dense, .* found one net"):
        choose(problem, [], Band("macs", 3, 3), AuditRequest(4), 0)


def test_new_random_weights_keep_zeros_and_follow_from_the_seed():
    network = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    network[0].weight.data[0] = 0
    before = network[0].weight.clone()
    fresh, again, other = (reinitialised(network, ["0.weight"], seed)[0].weight for seed in (1, 1, 2))
    assert torch.equal(fresh, again)
    assert not torch.equal(fresh, other)
    assert torch.equal(fresh == 0, before == 0)
    assert torch.equal(network[0].weight, before)


def test_a_module_that_cannot_be_reset_is_named():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))

    with pytest.raises(ConfigError, match=r"1 \(Scaled\) has parameters and no such method"):
        reinitialised(nn.Sequential(nn.Linear(1, 1), Scaled()), [], 0)


def test_data_without_a_train_set_are_refused(data):
    with pytest.raises(ConfigError, match="expected data with a train set for the loss cross_entropy"):
        training_of(SimpleNamespace(data=data), AuditRequest(steps=1))


@pytest.fixture(scope="module")
def audited(tmp_path_factory):
    """A run with train data, and its whole audit."""
    from tiny import random_data

    from autoprune.zoo.resnet import ResNet

    torch.manual_seed(0)
    model, data = ResNet((1, 1, 1), (4, 8, 16), classes=4).eval(), random_data(1, train=70)
    path = tmp_path_factory.mktemp("audit") / "run"
    front = autoprune.search(model, data, evaluations=16, front_size=3, out=path, progress=False)
    return path, model, data, front.audit(**TINY, scratch=True)


@pytest.mark.slow
def test_an_audit_is_written_and_shown(audited):
    path, _, _, found = audited
    assert json.loads((path / "audit.json").read_text())["guide"] == "kl"
    assert len((path / "audit.csv").read_text().splitlines()) == len(found.networks) + 1 == 6
    page = (path / "report.html").read_text()
    assert "Audit of the guide" in page
    assert "Own weights are worth" in page or "Own weights make no difference" in page
    assert {"kl", "accuracy_adaptive", "kl_fitted", "layer"} <= {row.before for row in found.agreements}
    assert all(len(own.after["accuracy"]) == len(own.scratch_e["loss"]) == 2 for own in found.compared)


@pytest.mark.slow
@pytest.mark.parametrize("after", [1, 3])
def test_a_killed_audit_goes_on_and_ends_with_the_same_table(audited, tmp_path, after):
    path, model, data, whole = audited
    run = shutil.copytree(path, tmp_path / "run", ignore=shutil.ignore_patterns("audit*"))

    def kill(progress):
        if progress.phase == "audit" and progress.done == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        autoprune.open_run(run, model, data, progress=kill).audit(**TINY, scratch=True)
    kept = (run / "audit.jsonl").read_bytes()
    assert kept.count(b"\n") > after * 7  # of each network one line before and six after training
    (run / "audit.jsonl").write_bytes(kept[:-5])  # its last line is torn
    found = autoprune.open_run(run, model, data, progress=False).audit(**TINY, scratch=True)
    assert found == whole
    assert (run / "audit.json").read_bytes() == (path / "audit.json").read_bytes()
    assert (run / "audit.jsonl").read_bytes() == (path / "audit.jsonl").read_bytes()


@pytest.mark.slow
def test_another_audit_uses_what_is_known(audited, tmp_path):
    """More seeds: the first ones are not trained again."""
    path, model, data, whole = audited
    run = shutil.copytree(path, tmp_path / "run")
    lines = (run / "audit.jsonl").read_bytes()
    found = autoprune.open_run(run, model, data, progress=False).audit(**TINY, seeds=3)
    added = (run / "audit.jsonl").read_bytes().removeprefix(lines)
    assert added.count(b"\n") == len(found.networks)
    for one, other in zip(found.networks, whole.networks, strict=True):
        assert one.after["loss"][:2] == other.after["loss"]
