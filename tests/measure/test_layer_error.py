"""Distortions by hand arithmetic, and layer errors against running the layers."""

from __future__ import annotations

import functools
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from autoprune.errors import ConfigError, PluginError
from autoprune.measure.batch import Batch
from autoprune.measure.fitness import MEASURES, classification, reconstruction, reporting
from autoprune.measure.layer_error import check_layers, layer_error
from autoprune.prune.bank.channels import make_bank
from autoprune.prune.criteria import obs
from autoprune.prune.find import find_structure

LOGITS = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
DENSE = torch.tensor([[1.0, 1.0], [4.0, 2.0]])


def report(*names, target=(0, 0)):
    return classification(nn.Identity(), [Batch((LOGITS,), torch.tensor(target), DENSE)], names)


def test_mse_is_the_mean_over_examples_and_logits():
    assert report("mse") == {"mse": pytest.approx((0 + 1 + 16 + 0) / 4)}


def test_loss_is_the_cross_entropy_with_the_targets_in_nats():
    expected = (math.log(1 + math.exp(-1)) + math.log(1 + math.exp(2))) / 2
    assert report("loss") == {"loss": pytest.approx(expected)}


def test_all_measurements_come_from_one_pass():
    passes = []
    model = nn.Identity()
    model.register_forward_hook(lambda *_: passes.append(1))
    values = classification(model, [Batch((LOGITS,), torch.tensor([0, 0]), DENSE)], tuple(MEASURES))
    assert (set(values), len(passes)) == ({"accuracy", "kl", "mse", "angular", "loss", "agreement"}, 1)


def test_what_classification_cannot_report_is_refused():
    with pytest.raises(PluginError, match="accuracy, kl, mse, angular, loss, agreement; got 'f1'"):
        report("accuracy", "f1")


def test_measurements_without_labels_need_none():
    assert classification(nn.Identity(), [Batch((LOGITS,), None, LOGITS)], ("kl", "mse"))["mse"] == 0


@pytest.mark.parametrize("output", [torch.zeros(2, 3, 4, 4), torch.zeros(2), (LOGITS, LOGITS)])
def test_an_output_that_is_no_logits_is_an_error_that_says_what_to_do(output):
    class Other(nn.Module):
        def forward(self, x):
            return output

    with pytest.raises(PluginError, match=r"returns \(b, classes\) logits, got .*reconstruction with `guide: mse`"):
        classification(Other(), [Batch((LOGITS,), torch.tensor([0, 0]), DENSE)])


def test_reconstruction_weighs_examples_alike_for_tensors_of_any_shape():
    maps, dense = torch.zeros(3, 2, 2, 2), torch.zeros(3, 2, 2, 2)
    dense[0] = 3.0  # 9 for one example of three
    batches = [Batch((maps[:1],), None, dense[:1]), Batch((maps[1:],), None, dense[1:])]
    assert reconstruction(nn.Identity(), batches) == {"mse": pytest.approx(3.0)}


def test_a_guide_that_classification_can_measure_is_reported():
    fitness = reporting(classification, "mse")
    assert set(fitness(nn.Identity(), [Batch((LOGITS,), torch.tensor([0, 0]), DENSE)])) == {"accuracy", "kl", "mse"}


@pytest.mark.parametrize("guide", ["kl", "accuracy", None, "own"])
def test_otherwise_the_fitness_stays_as_it_is(guide):
    assert reporting(classification, guide) is classification


def test_a_users_fitness_is_never_changed():
    own = functools.partial(classification, report=("accuracy",))
    assert reporting(own, "mse") is own


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.out = nn.Conv2d(2, 6, 3), nn.Conv2d(6, 5, 3, bias=False), nn.Linear(5, 3)

    def forward(self, x):
        return self.out(F.relu(self.b(F.relu(self.a(x)))).mean((2, 3)))


@pytest.fixture
def bank():
    model = Two().eval()
    structure = find_structure(model, torch.randn(2, 2, 7, 7))
    return make_bank(model, structure, [u.name for u in structure.units], obs, [(torch.randn(64, 2, 7, 7),)])


def test_a_network_that_lost_nothing_has_no_layer_error(bank):
    assert layer_error(bank, bank.subnet({"a": 6, "b": 5})) == 0


@torch.no_grad()
def test_the_layer_error_is_what_running_the_consumer_on_dense_inputs_shows():
    model = Two().eval()
    structure = find_structure(model, torch.randn(2, 2, 7, 7))
    images = torch.randn(256, 2, 7, 7)
    bank = make_bank(model, structure, ["a", "b"], obs, [(images,)])
    small = bank.build(bank.subnet({"a": 3, "b": 5}))
    kept = bank.subnet({"a": 3}).positions["a"]
    inputs = F.relu(model.a(images))
    dense, pruned = F.conv2d(inputs, model.b.weight), F.conv2d(inputs[:, kept], small.b.weight)
    expected = (dense - pruned).square().sum() / dense.square().sum()
    assert layer_error(bank, bank.subnet({"a": 3, "b": 5})) == pytest.approx(float(expected), rel=1e-3)


def test_layer_errors_grow_as_less_is_kept(bank):
    errors = [layer_error(bank, bank.subnet({"a": count, "b": 5})) for count in (6, 5, 4, 3, 2, 1)]
    assert errors == sorted(errors)
    assert errors[-1] > 0


def test_a_unit_without_statistics_is_named(bank):
    bank.moments = {name: moments for name, moments in bank.moments.items() if name != "b.weight"}
    with pytest.raises(ConfigError, match=r"consumer with statistics for `guide: layer`, \['a'\] have none"):
        check_layers(bank, ["a", "b"])
