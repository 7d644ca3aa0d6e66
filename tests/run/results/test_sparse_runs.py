"""Searches over single weights and channels, from a job to a network loaded again."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import autoprune
from autoprune.cli import app
from autoprune.config import load
from autoprune.core.levels import GRIDS, LevelRule
from autoprune.core.objective import Objective
from autoprune.core.space import Candidate
from autoprune.data import digits
from autoprune.errors import JournalMismatch
from autoprune.prune.modules.copying import model_digest
from autoprune.run.drive import resume, search
from autoprune.run.inspection import inspect_job
from autoprune.run.session.session import open_session
from autoprune.zoo import digits_resnet

MIXED = (
    LevelRule("layer3*", (0.5,)),
    LevelRule("layer2*", (0.5, 0.25), "pattern"),
    LevelRule("*", (0.5, 0.2, 0.1), "weights"),
)
NONZEROS = (Objective("accuracy", "max"), Objective("nonzeros", "min"))

EMPTYING = (LevelRule("*", GRIDS["percent"], "weights", floor=0),)


@pytest.fixture
def compensation():
    return "sequential"


def weights_job(job, **changes):
    return job(**{"rules": (LevelRule("*", GRIDS["percent"], "weights"),), "objectives": NONZEROS, **changes})


def quiet(progress):
    pass


@pytest.fixture(scope="module")
def front():
    objectives = ("accuracy", "nonzeros")
    job = {"objectives": objectives, "rules": MIXED, "searcher": "uniform", "evaluations": 6, "device": "cpu"}
    return autoprune.search(digits_resnet(), digits(), **job)


@pytest.mark.slow
def test_a_mixed_search_on_the_digits_keeps_its_accuracy_with_a_fifth_of_the_weights(front):
    picked = front.pick("nonzeros<=0.2")
    assert picked["accuracy"] > 0.95
    assert picked["select_kl"] < 0.5 * picked["search_kl"]  # fitted, with its zeros
    assert picked["verify_error"] <= 1e-4
    assert picked["density"] == picked["nonzeros"] / picked["params"] < 1


@pytest.mark.slow
def test_an_export_of_a_mixed_network_has_its_zeros_and_loads(front, tmp_path):
    picked = front.pick("nonzeros<=0.2")
    picked.export(tmp_path / "small")
    small = autoprune.load(digits_resnet(), tmp_path / "small")
    left = sum(int((p != 0).sum()) for p in small.parameters())
    assert left == picked["nonzeros"]
    x, y = digits().report[0].inputs[0], torch.cat([batch.target for batch in digits().report])
    with torch.no_grad():
        torch.testing.assert_close(small(x), picked.build()(x), rtol=1e-4, atol=1e-4)
        hits = sum(int((small(b.inputs[0]).argmax(1) == b.target).sum()) for b in digits().report)
    assert hits / len(y) == picked["accuracy"]


def test_every_network_tried_has_as_many_entries_as_its_cost_says(job):
    for masks in ("obs", "wanda", "magnitude"):
        session = open_session(weights_job(job, masks=masks, rules=MIXED), quiet)
        for level in range(3):
            candidate = Candidate(tuple(min(level, size - 1) for size in session.space.sizes.tolist()))
            network = session.scorer.network(candidate)
            entries = sum(int((network.get_parameter(name) != 0).sum()) for name in session.weights)
            rest = sum(p.numel() for n, p in network.named_parameters() if n not in session.weights)
            assert entries + rest == session.problem.costs_of(candidate)["nonzeros"]


def test_without_a_weight_removed_the_network_is_the_dense_one_bit_by_bit(job, model):
    session = open_session(weights_job(job), quiet)
    assert model_digest(session.scorer.network(session.space.dense)) == model_digest(model)


def test_a_network_without_any_weight_is_scored(job):
    session = open_session(weights_job(job, rules=EMPTYING), quiet)
    evaluation = session.scorer.score(session.space.smallest)
    assert evaluation.ok, evaluation.cause
    weights = sum(weight.width for weight in session.weights.values())
    assert session.problem.costs_of(session.space.smallest)["nonzeros"] == session.dense_costs["params"] - weights


def test_zeros_alone_are_verified_exactly(job):
    for row in search(weights_job(job, evaluations=20), None).members:
        assert row["verify_error"] == 0


def test_a_space_of_weights_alone_is_planned_exactly(job):
    result = search(weights_job(job, searcher="additive", options={"probe_levels": 3, "plans": 6}), None)
    assert len(result.members) > 3
    assert all(e.ok for e in result.evaluations)


@pytest.mark.slow
def test_a_run_with_other_masks_is_not_resumed(job, tmp_path):
    search(weights_job(job, evaluations=5), tmp_path / "run")
    with pytest.raises(JournalMismatch, match="masks was obs, is magnitude"):
        resume(weights_job(job, evaluations=5, masks="magnitude"), tmp_path / "run")


@pytest.mark.slow
def test_a_run_over_weights_has_a_report_and_resumes_to_the_same_front(job, tmp_path):
    first = search(weights_job(job, evaluations=12), tmp_path / "run")
    before = (tmp_path / "run" / "front.csv").read_bytes()
    again = resume(weights_job(job, evaluations=12), tmp_path / "run")
    assert (tmp_path / "run" / "front.csv").read_bytes() == before
    assert again.members == first.members
    assert "layer1.0.conv1.weight" in (tmp_path / "run" / "report.html").read_text()


def test_inspection_lists_weights_with_what_they_multiply(job):
    inspection = inspect_job(weights_job(job))
    weights = inspection.of_kind("weights")
    assert sum(unit.width for unit in weights) == sum(
        w.width for w in open_session(weights_job(job), quiet).weights.values()
    )
    assert inspection.kind_shares["weights"]["macs"] == pytest.approx(1.0)
    assert 0.8 < inspection.kind_shares["weights"]["params"] < 1
    assert inspection.shares["conv1.weight"]["params"] == pytest.approx(108 / inspection.reach["params"][1])


def test_the_space_of_the_page_is_what_it_says(tmp_path):
    page = (Path(__file__).parents[3] / "docs" / "sparsity.md").read_text()
    (block,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    job = tmp_path / "job.yaml"
    job.write_text(
        'version: 1\nmodel: {call: "autoprune.zoo:digits_resnet"}\ndata: {call: "autoprune.data:digits"}\n'
        "objectives: [{name: accuracy, direction: max}, {name: nonzeros, direction: min}]\n" + block
    )
    levels = inspect_job(load(job).resolve()).levels
    assert levels["layer3.0.conv1"] == (64, 56, 48, 40, 32, 24, 16, 8)
    assert levels["layer1.0.conv1.weight"] == (4, 2, 1)
    assert len(levels["layer3.0.conv1.weight"]) == 101
    assert "linear.weight" not in levels


def test_the_command_line_inspects_patterns(tmp_path):
    job = tmp_path / "job.yaml"
    job.write_text(
        'version: 1\nmodel: {call: "autoprune.zoo:digits_resnet"}\ndata: {call: "autoprune.data:digits"}\n'
        'space: {version: 1, units: [{match: "layer*", kind: pattern, group: 8, keep: [0.5]}]}\n'
        "objectives: [{name: accuracy, direction: max}, {name: effective_macs, direction: min}]\nmasks: wanda\n"
    )
    result = CliRunner().invoke(app, ["inspect", str(job)])
    assert result.exit_code == 0, result.output
    assert "pattern: " in result.output
    assert "effective_macs" in result.output
