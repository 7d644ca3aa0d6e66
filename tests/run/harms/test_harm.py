"""`autoprune harm`: what it measures of a run's networks, on the tiny job."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import autoprune
from autoprune import run
from autoprune.core.objective import Objective
from autoprune.errors import UnsupportedModel
from autoprune.measure.batch import Batch
from autoprune.measure.fitness import reconstruction
from autoprune.run.harming import harm
from autoprune.run.harms.comparison import Comparison, removed_weights
from autoprune.run.harms.wording import lottery, worded
from autoprune.run.report import write_report

WHOLE = SimpleNamespace(indices={}, sparse=())  # what is read of the subnet of a whole network


@pytest.fixture
def compared():
    """A classifier of images, its report set, and the comparison with itself."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)).eval()
        x, y = torch.randn(40, 1, 6, 6), torch.arange(40) % 3
    group = torch.arange(40) % 2
    with torch.no_grad():
        batches = [Batch((x[i : i + 25],), y[i : i + 25], network(x[i : i + 25]), group[i : i + 25]) for i in (0, 25)]
    return network, batches, Comparison(network, batches)


def test_the_dense_network_harms_nobody(compared):
    network, _, comparison = compared
    found = comparison.of(network, WHOLE)
    assert found["group_gap"] == 0
    assert [line["excess"] for line in found["losses"]] == [0, 0]
    assert [line["estimate"] for line in found["losses"]] == [0, 0]
    assert (found["agreement"], found["recall_drop"], found["corrupted_relative"]) == (1, 0, 1)
    assert (found["spread_least"], found["collapsed"]) == (1, {})


def test_losses_are_those_of_the_groups(compared):
    network, batches, comparison = compared
    smaller = nn.Sequential(*network[:3], nn.Linear(64, 3)).eval()
    found = comparison.of(smaller, WHOLE)
    whole = Batch(
        *(torch.cat(parts) for parts in zip(*((b.inputs[0], b.target, b.group) for b in batches), strict=True))
    )
    x, y, group = whole[:3]
    with torch.no_grad():
        loss = [nn.functional.cross_entropy(model(x), y, reduction="none") for model in (smaller, network)]
    excess = {g: float((loss[0] - loss[1])[group == g].mean()) for g in (0, 1)}
    assert {line["group"]: line["excess"] for line in found["losses"]} == pytest.approx(excess, abs=1e-6)
    assert found["group_gap"] == pytest.approx(abs(excess[0] - excess[1]), abs=1e-6)
    assert {*found["corrupted"]} == {"noise", "blur", "contrast", "brightness", "pixelate"}


def test_a_collapsed_layer_is_named(compared):
    network, _, comparison = compared
    flat = nn.Sequential(*network[:3], nn.Linear(64, 3)).eval()
    flat[3].weight.data = network[3].weight.data / 4
    found = comparison.of(flat, WHOLE)
    assert found["collapsed"] == {"3": pytest.approx(0.25, rel=1e-3)}
    assert "  collapsed: 3, 25%" in worded("flat", found)


def test_the_pq_index_is_of_whole_weights(compared):
    """Of one entry that is not zero it is 1 - n^(1/q - 1/p) with p = 1/2 and q = 1, of equal ones 0."""
    network, _, comparison = compared
    single = nn.Sequential(*network[:3], nn.Linear(64, 3)).eval()
    single[3].weight.data = torch.zeros(3, 64)
    single[3].weight.data[1, 5] = 2.0
    found = comparison.of(single, WHOLE)
    assert found["pq_index"]["3.weight"][1] == pytest.approx(1 - 1 / 192)
    assert found["pq_index"]["0.weight"][0] == found["pq_index"]["0.weight"][1]
    assert "highest PQ index of a weight      0.995, 3.weight" in worded("single", found)


def test_removed_weights_become_zero(compared):
    network, *_ = compared
    half = {"0.weight": {0: np.array([0, 2])}, "0.bias": {0: np.array([0, 2])}}
    change = removed_weights(network, network, SimpleNamespace(indices=half, sparse=()))
    assert {*change} == {"0.weight", "0.bias"}
    assert torch.equal((network[0].weight + change["0.weight"])[1], torch.zeros(1, 3, 3))
    assert torch.equal(change["0.weight"][[0, 2]], torch.zeros(2, 1, 3, 3))
    without = removed_weights(network, network[:3], WHOLE)  # the last layer is gone
    assert torch.equal(without["3.weight"], -network[3].weight.detach())


class Bag(nn.Module):
    """Scores of the mean of a text's tokens."""

    def __init__(self):
        super().__init__()
        self.tokens, self.out = nn.Embedding(9, 4), nn.Linear(4, 2)

    def forward(self, ids):
        return self.out(self.tokens(ids).mean(dim=1))


def test_texts_of_several_lengths_lose_tokens():
    network = Bag().eval()
    texts = [torch.arange(12 * length).reshape(12, length) % 9 for length in (6, 4)]
    with torch.no_grad():
        batches = [Batch((ids,), torch.arange(12) % 2, network(ids)) for ids in texts]
    found = Comparison(network, batches).of(network, WHOLE)
    assert {*found["corrupted"]} == {"token_drop"}
    assert [line["examples"] for line in found["losses"]] == [12, 12]
    assert all(line["gradient_norm"] > 0 for line in found["losses"])


def test_inputs_that_cannot_be_corrupted_are_said():
    network = nn.Linear(4, 2).eval()
    x = torch.randn(20, 4)
    found = Comparison(network, [Batch((x,), torch.arange(20) % 2, network(x).detach())]).of(network, WHOLE)
    assert "corrupted_accuracy" not in found
    assert found["notes"][-1].startswith("Corrupted inputs are not measured: expected images")


def test_orders_by_accuracy_and_on_corrupted_inputs_are_compared():
    networks = {name: (accuracy, {"corrupted_accuracy": other}) for name, accuracy, other in [("a", 3, 2), ("b", 2, 3)]}
    assert lottery(networks) == ""
    text = lottery({**networks, "c": (1.0, {"corrupted_accuracy": 1.0}), "d": (None, {"corrupted_accuracy": 9})})
    assert text == "Kendall's tau of accuracy and corrupted accuracy over 3 networks: 0.33"


@pytest.mark.slow
def test_a_run_is_measured_and_reported(model, data, tmp_path):
    path = tmp_path / "run"
    front = autoprune.search(model, data, evaluations=3, searcher="uniform", out=path, progress=False)
    found, member = front.harm("macs<=0.6"), front.pick("macs<=0.6")
    values = found[member.candidate]
    assert json.loads((path / "harm.json").read_text())["networks"] == json.loads(json.dumps(found))
    names = ("agreement", "recall_drop", "flips")
    assert json.dumps([values[name] for name in names]) == json.dumps([member.harm[name] for name in names])
    assert "accuracy on corrupted inputs" in worded(member.candidate, values)
    assert "loses most" in write_report(path).read_text()


@pytest.mark.slow
def test_networks_that_return_no_scores_are_refused(job, data, tmp_path):
    pixels = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3)).eval()
    objectives = (Objective("mse", "min"), Objective("macs", "min"))
    changes = {"model": lambda: pixels, "fitness": reconstruction, "guide": None, "objectives": objectives}
    path = tmp_path / "run"
    run.search(job("uniform", evaluations=3, **changes), path)
    assert run.read_front(path)[0].harm is None
    with pytest.raises(UnsupportedModel, match=r"expected a network that returns \(b, classes\) scores"):
        harm(job("uniform", evaluations=3, **changes), path)
