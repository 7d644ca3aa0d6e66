"""Searches on models that one call does not run as a whole, or whose forward changes what it is given."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import autoprune
from autoprune import Data, FineTune, call
from autoprune.cli import app
from autoprune.core.evaluation import Evaluation
from autoprune.core.space import Candidate
from autoprune.errors import JournalMismatch, RunFailed
from autoprune.run.loop.failures import most_failed

PLUGINS = """\
import torch
from torch import nn
from autoprune import Data, call

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.body, self.a, self.b = nn.Linear(6, 12), nn.Linear(12, 10), nn.Linear(10, 2), nn.Linear(12, 3)

    def forward(self, x, second=False):
        h = torch.relu(self.stem(x))
        return self.b(h) if second else self.a(torch.relu(self.body(h)))

def model():
    torch.manual_seed(0)
    return Net()

def calls():
    return [call(torch.ones(1, 6), second=True)]

def data():
    x = torch.randn(48, 6, generator=torch.Generator().manual_seed(1))
    y = (x.sum(1) > 0).long()
    return Data.from_arrays((x[:16],), (x[16:32], y[16:32]), (x[32:], y[32:]), train=(x[:16] + 1, y[:16]), batch_size=8)
"""
JOB = """\
version: 1
model: {call: "plug.py:model"}
data: {call: "plug.py:data"}
space: {version: 1, units: [{match: "*", levels: 4}]}
objectives: [{name: accuracy, direction: max}, {name: macs, direction: min}]
search: {searcher: uniform, evaluations: 4}
run: {device: cpu, threads: 1}
"""


class Net(nn.Module):
    """A second head that runs where `second` is set, in train mode always with `auxiliary`."""

    def __init__(self, *, auxiliary: bool = False, in_place: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.body, self.a, self.b = nn.Linear(6, 12), nn.Linear(12, 10), nn.Linear(10, 2), nn.Linear(12, 3)
        self.auxiliary, self.in_place = auxiliary, in_place

    def forward(self, x: torch.Tensor, second: bool = False) -> Any:
        h = torch.relu(self.stem(x.sub_(0.5) if self.in_place else x))
        if second:
            return self.b(h)
        main = self.a(torch.relu(self.body(h)))
        return {"out": main, "aux": self.b(h)} if self.auxiliary and self.training else main


def made() -> Data:
    x = torch.randn(48, 6, generator=torch.Generator().manual_seed(1))
    y = (x.sum(1) > 0).long()
    sets = (x[:16],), (x[16:32], y[16:32]), (x[32:], y[32:])
    return Data.from_arrays(*sets, train=(x[:16] + 1, y[:16]), batch_size=8)


def searched(model: nn.Module, data: Data | None = None, **options: Any) -> autoprune.PrunedFront:
    options = {"evaluations": 6, "searcher": "uniform", "device": "cpu"} | options
    return autoprune.search(model, data or made(), **options)


SECOND = [call(torch.ones(1, 6), second=True)]


def test_every_network_of_a_front_runs_the_further_calls(tmp_path) -> None:
    front = searched(Net(), calls=SECOND, out=tmp_path / "run")
    widths = {network.build().stem.out_features for network in front}
    assert len(widths) > 2
    for network in front:
        assert network.build()(torch.ones(2, 6), second=True).shape == (2, 3)
    assert json.loads((tmp_path / "run" / "environment.json").read_text())["unmet"] == []


def test_without_them_what_feeds_the_other_head_stays_and_is_told(tmp_path) -> None:
    front = searched(Net(), out=tmp_path / "run")
    assert {network.build().stem.out_features for network in front} == {12}
    unmet = json.loads((tmp_path / "run" / "environment.json").read_text())["unmet"]
    assert [name for name, _ in unmet] == ["b.weight", "b.bias"]
    report = (tmp_path / "run" / "report.html").read_text()
    assert "parameter that no example call runs" in report


def test_a_resumed_run_wants_the_same_calls(tmp_path) -> None:
    searched(Net(), calls=SECOND, out=tmp_path / "run")
    before = (tmp_path / "run" / "front.csv").read_bytes()
    searched(Net(), calls=SECOND, out=tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "front.csv").read_bytes() == before
    other = [call(torch.zeros(1, 6), second=True)]
    with pytest.raises(JournalMismatch, match="calls was"):
        searched(Net(), calls=other, out=tmp_path / "run", resume=True)


def test_a_job_file_names_what_makes_the_calls_and_inspect_tells_what_none_runs(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plug.py").write_text(PLUGINS)
    (tmp_path / "job.yaml").write_text(JOB)
    without = CliRunner().invoke(app, ["inspect", "job.yaml", "--json", "found.json"])
    assert without.exit_code == 0, without.output
    total = 6 * 12 + 12 + 12 * 10 + 10 + 10 * 2 + 2 + 12 * 3 + 3
    assert f"parameters that no example call runs: {39 / total:.1%} of all" in without.stdout
    found = json.loads((tmp_path / "found.json").read_text())
    assert [row["parameter"] for row in found["unmet"]] == ["b.weight", "b.bias"]
    whole = CliRunner().invoke(app, ["inspect", "job.yaml", "--set", 'calls={call: "plug.py:calls"}'])
    assert whole.exit_code == 0, whole.output
    assert "no example call runs" not in whole.stdout


def test_fine_tuned_searches_train_the_main_output_of_several() -> None:
    for loss in ("kl", "cross_entropy"):
        front = searched(Net(auxiliary=True), finetune=FineTune(3, loss=loss), evaluations=4)
        assert all(evaluation.ok for evaluation in front._result.evaluations)
        assert {network.build().stem.out_features for network in front} != {12}


def test_a_main_output_of_another_shape_is_told_before_the_search() -> None:
    class Turned(Net):
        def forward(self, x: torch.Tensor, second: bool = False) -> Any:
            return (self.b(torch.relu(self.stem(x))), super().forward(x)) if self.training else super().forward(x)

    with pytest.raises(RunFailed, match=r"the shape of its output in eval mode, \(8, 2\), got \(8, 3\)"):
        searched(Turned(), finetune=FineTune(3))


@pytest.mark.parametrize("finetune", [None, FineTune(3)])
def test_a_forward_that_changes_its_inputs_leaves_the_data_alone_and_scores_as_if_it_did_not(finetune) -> None:
    class Subtracting(Net):
        def forward(self, x: torch.Tensor, second: bool = False) -> Any:
            return super().forward(x - 0.5, second)

    data, untouched = made(), made()
    got = searched(Net(in_place=True), data, finetune=finetune)._result.evaluations
    wanted = searched(Subtracting(), made(), finetune=finetune)._result.evaluations
    assert [dict(e.values) for e in got] == [dict(e.values) for e in wanted]
    for name in ("calibrate", "select", "report"):
        for batch, other in zip(getattr(data, name), getattr(untouched, name), strict=True):
            assert torch.equal(batch.inputs[0], other.inputs[0])


def test_a_search_in_which_most_evaluations_fail_says_so_with_the_first_causes(caplog) -> None:
    tried = 0

    def picky(model: nn.Module, batches: Any) -> dict[str, float]:
        nonlocal tried
        tried += 1
        if 2 < tried < 7:  # not the first two, nor what is built in the end
            raise ValueError(f"cause {tried % 2}")
        return {"accuracy": 0.5}

    with caplog.at_level(logging.WARNING):
        front = searched(Net(), fitness=picky, evaluations=6)
    told = front._result.failures
    assert told.startswith("4 of 6 evaluations failed")
    assert "2 times ValueError: cause 0" in told
    assert told in caplog.text


@pytest.mark.parametrize(("failed", "ok", "said"), [(0, 3, False), (2, 2, False), (3, 2, True), (3, 0, True)])
def test_half_of_the_evaluations_may_fail_without_a_word(failed: int, ok: int, said: bool) -> None:
    told = [Evaluation(Candidate((i,)), {}, "failed", "KeyError: 'x'") for i in range(failed)]
    told += [Evaluation(Candidate((i,)), {"a": 1.0}) for i in range(ok)]
    told += [Evaluation(Candidate((9,)), {}, "infeasible")] * 9
    assert bool(most_failed(told)) == said
