"""Recoveries of few parameters, and distillation at the borders of blocks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_network import Network
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

from autoprune.errors import ConfigError, PluginError
from autoprune.measure.batch import Batch
from autoprune.prune.modules.copying import named_tensors
from autoprune.train.examples import TrainingSet
from autoprune.train.recovery.adapters import Adapters
from autoprune.train.recovery.blocks import block_names, with_features
from autoprune.train.recovery.loop import Recovering
from autoprune.train.recovery.options import Recovery
from autoprune.train.recovery.outcome import Judged
from autoprune.zoo.resnet import ResNet

STEPS = Recovery(steps=5, lr=0.1, rank=2, loss="cross_entropy", ema=0.5, evaluate=2)


def examples():
    x = torch.randn(20, 2, 5, 5, generator=torch.Generator().manual_seed(1))
    return TrainingSet(Batch((x,), torch.arange(20) % 3), 10)


def changed(network, other):
    """The names of parameters with other bits."""
    known = dict(other.named_parameters())
    return {name for name, parameter in network.named_parameters() if not torch.equal(parameter, known[name])}


@pytest.mark.parametrize(
    ("train", "names"),
    [
        ("all", {"a.weight", "bn.weight", "bn.bias", "b.weight", "b.bias", "out.weight", "out.bias"}),
        ("norms_biases", {"bn.weight", "bn.bias", "b.bias", "out.bias"}),
        ("head", {"out.weight", "out.bias"}),
        ("lora", {"a.weight", "b.weight", "out.weight"}),
        ("mask_lora", {"a.weight", "b.weight", "out.weight"}),
    ],
)
def test_parameters_outside_the_trained_part_keep_their_bits(train, names):
    small = Network().eval()
    found = Recovering(small, None, replace(STEPS, train=train), examples()).run().network
    assert changed(found, small) == names
    assert named_tensors(found).keys() == named_tensors(small).keys()
    assert all(parameter.requires_grad for parameter in found.parameters())
    if train == "head":
        assert torch.equal(found.bn.running_mean, small.bn.running_mean)


@pytest.mark.parametrize("train", ["norms_biases", "mask_lora"])
def test_a_part_of_the_network_is_continued_to_the_same_bits(train):
    small, states = Network().eval(), []
    options = replace(STEPS, train=train, optimizer="adamw")

    def judge(network):
        return Judged((sum(p.square().sum().item() for p in network.parameters()),), {})

    def keep(loop):
        saved = loop.state()
        states.append(replace(saved, tensors={name: x.detach().clone() for name, x in saved.tensors.items()}))

    whole = Recovering(small, None, options, examples()).run(judge, keep)
    loop = Recovering(small, None, options, examples())
    loop.load(states[3])
    again = loop.run(judge)
    assert again.history == whole.history
    assert changed(again.network, whole.network) == set()


def test_merged_adapters_compute_what_adapters_do_and_masked_ones_keep_zeros():
    network, x = Network().eval(), torch.randn(4, 2, 5, 5)
    with torch.no_grad():
        network.b.weight[network.b.weight.abs() < 0.05] = 0
    zeros = network.b.weight == 0
    adapters = Adapters(network, 3, 6.0, ["b.weight"], 0)
    assert all(torch.equal(w, network.get_parameter(n)) for n, w in adapters.weights(network).items())  # B = 0
    for b in adapters.b:
        nn.init.normal_(b)
    dense = network.a.weight + 2 * (adapters.b[0] @ adapters.a[0]).reshape(8, 2, 3, 3)  # alpha / rank = 2
    assert torch.allclose(adapters.weights(network)["a.weight"], dense)
    with torch.no_grad():
        expected = functional_call(network, adapters.weights(network), (x,))
        adapters.merge(network)
        assert torch.allclose(network(x), expected, atol=1e-6)
    assert torch.equal(network.b.weight == 0, zeros)
    assert zeros.any()


@pytest.mark.parametrize("train", ["lora", "mask_lora"])
def test_zeros_stay_whatever_is_trained(train):
    small = Network().eval()
    with torch.no_grad():
        small.b.weight[small.b.weight.abs() < 0.05] = 0
    sparse = ["b.weight"] if train == "lora" else []  # mask_lora finds them itself
    found = Recovering(small, None, replace(STEPS, train=train), examples(), sparse=sparse).run().network
    assert torch.equal(found.b.weight == 0, small.b.weight == 0)


def test_adapters_need_layers():
    with pytest.raises(ConfigError, match="expected a network with linear layers or convolutions for lora, got none"):
        Adapters(nn.BatchNorm1d(3), 2, 1.0, (), 0)


def test_each_term_of_features_has_the_value_of_the_loss_whatever_the_scale_of_features():
    own = {name: torch.randn(2, 3, requires_grad=True) for name in "ab"}
    dense = {name: torch.randn(2, 3) for name in "ab"}
    task = torch.tensor(0.7, requires_grad=True)
    total = with_features(task, own, dense, {})
    assert total.item() == pytest.approx(3 * 0.7)
    (gradient,) = torch.autograd.grad(total, own["a"])
    scaled = {"a": (100 * own["a"]).detach().requires_grad_(), "b": own["b"]}
    total = with_features(task, scaled, {"a": 100 * dense["a"], "b": dense["b"]}, {})
    assert total.item() == pytest.approx(3 * 0.7)
    assert torch.allclose(torch.autograd.grad(total, scaled["a"])[0] * 100, gradient, rtol=1e-5)
    expected = (
        0.7 * torch.autograd.grad(F.mse_loss(own["a"], dense["a"]).log(), own["a"])[0]
    )  # d (t sg(L)/sg(t)) = L dt/t
    assert torch.allclose(gradient, expected, rtol=1e-5)
    assert with_features(task, own, {name: x.detach() for name, x in own.items()}, {}).item() == pytest.approx(0.7)


def test_blocks_that_lost_positions_are_compared_at_the_kept_ones_if_these_are_known():
    own, dense = {"x": torch.randn(2, 2, 4, requires_grad=True)}, {"x": torch.randn(2, 3, 4)}
    task, kept = torch.tensor(1.0), np.array([0, 2])
    with_features(task, own, dense, {"x.conv.weight": {0: kept}}).backward()
    ratio = own["x"].grad / (own["x"].detach() - dense["x"][:, kept])
    assert torch.allclose(ratio, ratio.flatten()[0].expand_as(ratio), rtol=1e-4)
    unknown = {"x.conv.weight": {0: kept}, "x.bn.weight": {0: np.array([0, 1])}}
    with pytest.raises(PluginError, match=r"positions in common with the dense network's, got none among \['x'\]"):
        with_features(task, own, dense, unknown)


def test_blocks_are_the_outermost_repeated_modules():
    assert block_names(ResNet((2, 1, 1), (4, 8, 16), classes=4)) == ["layer1.0", "layer1.1", "layer2.0", "layer3.0"]
    layers = nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2), 2, enable_nested_tensor=False)
    assert block_names(nn.Sequential(layers, nn.Linear(4, 2))) == ["0.layers.0", "0.layers.1"]


class Residual(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.up, self.act, self.down = nn.Linear(4, inner), nn.ReLU(), nn.Linear(inner, 4)

    def forward(self, x):
        return x + self.down(self.act(self.up(x)))


def test_features_of_blocks_bring_their_outputs_nearer():
    dense, small = (nn.Sequential(Residual(inner), Residual(inner), nn.Linear(4, 3)) for inner in (8, 4))
    x = torch.randn(30, 4)
    data = TrainingSet(Batch((x,)), 30)
    options = Recovery(steps=60, lr=0.1, features=True, loss="kl")
    with_them, without = (
        Recovering(small, dense, replace(options, features=features), data).run().network for features in (True, False)
    )
    with torch.no_grad():
        errors = [(net[0](x) - dense[0](x)).square().mean().item() for net in (small, without, with_them)]
    assert errors[2] < 0.5 * min(errors[:2])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"loss": "mimic", "train": "head"},
            "train: expected a part before the last layer for the loss mimic",
        ),
        ({"loss": "mimic", "features": True}, "features: expected false with the loss mimic"),
        ({"train": "heads"}, "train: expected one of all, norms_biases, head, lora, mask_lora, got 'heads'"),
        ({"rank": 0}, "rank: expected a whole number from 1"),
    ],
)
def test_options_that_exclude_each_other_are_sentences(options, message):
    with pytest.raises(ConfigError, match=message):
        Recovery(steps=1, **options)
